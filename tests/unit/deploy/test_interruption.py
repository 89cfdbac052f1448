"""A signal ends a coroutine where it waits, once, and lets it clean up."""

import asyncio
import os
import signal

import pytest

from deploy import interruption
from deploy.interruption import Interrupted


def test_undisturbed_coroutine_gives_its_result() -> None:
    async def main() -> int:
        return 7

    assert interruption.run(main()) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_interrupts_and_a_second_one_does_not_disturb_the_end(
    number: signal.Signals,
) -> None:
    steps: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), number)
            steps.append("no await yet")
            await asyncio.sleep(60)
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
            steps.append("cleaned up")

    with pytest.raises(Interrupted, match=f"interrupted by {number.name}") as raised:
        interruption.run(main())

    assert steps == ["no await yet", "cleaned up"]
    assert raised.value.exit_code == 128 + number


def test_signal_that_is_ignored_stays_so() -> None:
    async def main() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        return "went on"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert interruption.run(main()) == "went on"
    finally:
        signal.signal(signal.SIGHUP, before)
