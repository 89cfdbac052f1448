"""The life of a process: how it starts, how it is told to stop, and how it ends when it fails.

The one place that catches every error: it records what happened and ends the process, so nothing
runs on in a state that nobody thought of. Knows nothing of what the process is for.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

STOP_TIMEOUT_S: Final = 5.0
"""How long a process may take to stop once it is told to, with NATS down too (DESIGN: within 5 s;
a supervisor such as systemd or Kubernetes kills after 10 to 90 s)."""

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2

FIELDS: Final = ("market", "server")
"""What a record may say it is about: `logger.info("…", extra={"market": "BTC-USD"})`."""

_log: Final = logging.getLogger(__name__)


def run(
    main: Callable[[asyncio.Event], Awaitable[None]],
    *,
    stop_timeout_s: float = STOP_TIMEOUT_S,
    explained: tuple[type[Exception], ...] = (),
) -> int:
    """Run a process until its main function returns.

    SIGTERM and SIGINT set the event, and main has stop_timeout_s to return; the second signal of
    a kind ends the process at once.

    Args:
        main: What the process does; it returns soon after the event is set.
        stop_timeout_s: How long it may take then before it is canceled.
        explained: What may end main and says all there is to say; recorded without a traceback.

    Returns:
        The exit status: 0 when main returned, 1 when it failed, 2 when the process may not start.
    """
    if not __debug__:
        # Broken invariants must end the process before they reach the log.
        sys.stderr.write("refused to start under python -O: assertions must stay on\n")
        return EXIT_REFUSED
    try:
        asyncio.run(_supervise(main, stop_timeout_s))
    except explained as error:
        _log.critical("the process ends: %s", error)
        return EXIT_FAILED
    except Exception:  # noqa: BLE001  (the one place: record and end)
        _log.critical("the process ends because of an error", exc_info=True)
        return EXIT_FAILED
    return EXIT_OK


async def _supervise(
    main: Callable[[asyncio.Event], Awaitable[None]], stop_timeout_s: float
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    async with asyncio.timeout(None) as deadline:

        def on_signal(number: signal.Signals) -> None:
            _log.info("stopping (%s)", number.name)
            # Back to the system's own reaction, which needs no Python to end the process.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
            if not stop.is_set():
                stop.set()
                deadline.reschedule(loop.time() + stop_timeout_s)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        await main(stop)


def set_up_logging(*, level: int = logging.INFO) -> None:
    """Write one readable line for each record to stderr, and nothing to stdout."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class LineFormatter(logging.Formatter):
    """Time in UTC, level, what it is about, and the message, in one line; then a traceback if any.

    2026-01-31T09:30:00.123Z INFO  market=BTC-USD server=a1 follows from sequence 1042
    """

    def __init__(self) -> None:
        """Take no options: all processes write alike."""
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)-5s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Put the fields before the message, and keep both on one line."""
        about = "".join(
            f"{field}={value} "
            for field in FIELDS
            if (value := getattr(record, field, None)) is not None
        )
        record.message = (about + record.message).replace("\n", "\\n")
        return super().formatMessage(record)
