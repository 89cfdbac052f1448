"""Writing a market's state down without stopping the loop that changes it.

A forked child has the whole state as it was in the moment of the fork, writes it, packs it and
goes; the parent is stopped only for the fork itself (some ms at a million orders, against seconds
for the writing), and pays for the pages it changes meanwhile. Redis does the same for its dumps.
A server that only compares its state with another's snapshot has the child hash it, not pack it.

Knows nothing of where snapshots are stored.
"""

import asyncio
import gc
import os
import signal
import zlib
from collections.abc import Callable
from typing import Final, Generic, NoReturn, TypeVar

from msgspec import Struct

from dex_engine import Market
from dex_protocol.codec import hash_of
from dex_server.replication.ports import Position, SnapshotName

PACKING_LEVEL: Final = 6
"""zlib's default: a snapshot is written rarely, by another core, and read by every newcomer."""

GZIP: Final = zlib.MAX_WBITS | 16
"""Tells zlib to write and read gzip; its header then carries no time, so equal states pack alike.
"""

_HASH_BYTES: Final = 32
"""What the child sends first: the hash of the state, in hex."""

T = TypeVar("T")


class Written(Struct, frozen=True):
    """A market's state, written and packed."""

    data: bytes
    """The packed state."""
    state: str
    """The hash of the unpacked state; see `SnapshotName`."""


class WritingFailed(Exception):
    """The child did not deliver; the market is unharmed, and the next snapshot may succeed."""


def pack(state: bytes) -> bytes:
    """Pack a written state as gzip; equal bytes give equal bytes."""
    packer = zlib.compressobj(PACKING_LEVEL, zlib.DEFLATED, GZIP)
    return packer.compress(state) + packer.flush()


def write(market: Market) -> Written:
    """Write a market's state as it is now, and pack it, in this process."""
    state = market.snapshot()
    return Written(pack(state), hash_of(state))


def fork_snapshot(market: Market) -> "Writing[Written]":
    """Begin to write a market's state as it is now.

    Ordering: the state may change as soon as this returns.

    Raises:
        WritingFailed: not even begun.
    """

    def send() -> bytes:
        written = write(market)
        return written.state.encode() + written.data

    def receive(sent: bytes) -> Written:
        return Written(sent[_HASH_BYTES:], sent[:_HASH_BYTES].decode())

    return _fork(send, receive)


def fork_hash(market: Market) -> "Writing[str]":
    """Begin to hash a market's state as it is now: `Written.state`, without the packing.

    Ordering: the state may change as soon as this returns.

    Raises:
        WritingFailed: not even begun.
    """
    return _fork(lambda: hash_of(market.snapshot()).encode(), bytes.decode)


def _fork(send: Callable[[], bytes], receive: Callable[[bytes], T]) -> "Writing[T]":
    reading_end, writing_end = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        # No memory for a second one of so large a process, or too many processes.
        os.close(reading_end)
        os.close(writing_end)
        raise WritingFailed(f"no child could be made: {error}") from error
    if pid == 0:
        _send_and_exit(send, writing_end)
    os.close(writing_end)
    return Writing(pid, reading_end, receive)


def _send_and_exit(send: Callable[[], bytes], writing_end: int) -> NoReturn:
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
        data = memoryview(send())
        while data:
            data = data[os.write(writing_end, data) :]
        status = 0
    finally:
        os._exit(status)


class Writing(Generic[T]):
    """A state being written by a child."""

    def __init__(self, pid: int, reading_end: int, receive: Callable[[bytes], T]) -> None:
        """Use `fork_snapshot` or `fork_hash`."""
        self._pid = pid
        self._reading_end = reading_end
        self._receive = receive

    async def result(self) -> T:
        """Wait for what the child was to find out.

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
        return self._receive(data)


def name_of(market: str, position: Position, digest: str, written: Written) -> SnapshotName:
    """Name a packed state."""
    return SnapshotName(
        market=market,
        position=position,
        hash=hash_of(written.data),
        digest=digest,
        state=written.state,
    )
