"""Writing a market's state down without stopping the loop that changes it.

A forked child has the whole state as it was in the moment of the fork, writes it, packs it and
goes; the parent is stopped only for the fork itself (some ms at a million orders, against seconds
for the writing), and pays for the pages it changes meanwhile. Redis does the same for its dumps.

Knows nothing of where snapshots are stored.
"""

import asyncio
import gc
import os
import signal
import zlib
from typing import Final

from dex_engine import Market
from dex_protocol.codec import hash_of
from dex_server.replication.ports import Position, SnapshotName

PACKING_LEVEL: Final = 6
"""zlib's default: a snapshot is written rarely, by another core, and read by every newcomer."""

GZIP: Final = zlib.MAX_WBITS | 16
"""Tells zlib to write and read gzip; its header then carries no time, so equal states pack alike.
"""


class WritingFailed(Exception):
    """The child did not deliver; the market is unharmed, and the next snapshot may succeed."""


def pack(state: bytes) -> bytes:
    """Pack a written state as gzip; equal bytes give equal bytes."""
    packer = zlib.compressobj(PACKING_LEVEL, zlib.DEFLATED, GZIP)
    return packer.compress(state) + packer.flush()


def fork_snapshot(market: Market) -> "Writing":
    """Begin to write a market's state as it is now.

    Ordering: the state may change as soon as this returns.
    """
    reading_end, writing_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        _write_and_exit(market, writing_end)
    os.close(writing_end)
    return Writing(pid, reading_end)


def _write_and_exit(market: Market, writing_end: int) -> None:
    # In the child. Nothing of the parent's may be touched: not its signals, and above all not its
    # sockets, which would stay open for NATS if the parent died now.
    status = 1
    try:
        gc.disable()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.closerange(3, writing_end)
        os.closerange(writing_end + 1, os.sysconf("SC_OPEN_MAX"))
        data = memoryview(pack(market.snapshot()))
        while data:
            data = data[os.write(writing_end, data) :]
        status = 0
    finally:
        os._exit(status)


class Writing:
    """A snapshot being written by a child."""

    def __init__(self, pid: int, reading_end: int) -> None:
        """Use `fork_snapshot`."""
        self._pid = pid
        self._reading_end = reading_end

    async def result(self) -> bytes:
        """Wait for the packed state.

        Raises:
            WritingFailed: the child died of something.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        pipe = os.fdopen(self._reading_end, "rb")
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            data = await reader.read()
        except asyncio.CancelledError:
            os.kill(self._pid, signal.SIGKILL)
            raise
        finally:
            transport.close()
            # The pipe is at its end, or the child was killed: it is gone, or about to be.
            _, status = os.waitpid(self._pid, 0)  # noqa: ASYNC222  (it is)
        if os.waitstatus_to_exitcode(status) != 0:
            raise WritingFailed(f"the writing process ended with status {status}")
        return data


def name_of(market: str, position: Position, digest: str, data: bytes) -> SnapshotName:
    """Name a packed state."""
    return SnapshotName(market=market, position=position, hash=hash_of(data), digest=digest)
