"""Run a coroutine that a signal interrupts in an orderly way, once."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal came, and what was begun has been undone."""

    def __init__(self, number: signal.Signals) -> None:
        """Keep which."""
        super().__init__(f"interrupted by {number.name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code that shells give to a process ended by this signal."""
        return 128 + self.number


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop; the first signal cancels it at its next `await`.

    Between two of those nothing is interrupted: a process is started and recorded, or neither.
    More signals change nothing, so that a second Ctrl-C does not leave half of it running.

    Raises:
        Interrupted: a signal came, and the coroutine has ended.
    """
    return asyncio.run(_interruptible(main))


async def _interruptible(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        if not received:
            task.cancel()
        received.append(number)

    for number in _SIGNALS:
        # nohup and background jobs have some ignored, and keep it so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        return await main
    except asyncio.CancelledError:
        if not received:
            raise
        raise Interrupted(received[0]) from None
