"""The ports' rules as plain state: a log and a store of snapshots in memory.

Synchronous, for a simulation that decides itself when things happen; `LogOver` and `SnapshotsOver`
give them the ports' asynchronous shape. The suites next door prove that they behave like JetStream.
"""

import asyncio
from collections.abc import Callable

from dex_protocol.codec import hash_of
from dex_server.replication.ports import (
    Entry,
    Position,
    SnapshotInvalid,
    SnapshotName,
    Undecided,
)


class MemoryLog:
    """One market's log: entries in order, oldest first, perhaps without their beginning."""

    def __init__(self, now_us: Callable[[], int] = lambda: 0) -> None:
        """Begin empty; now_us tells when an entry is stored."""
        self._now_us = now_us
        self._entries: list[Entry] = []
        self._first = 1
        self._last = Position(0, "0" * 32)

    def append(self, payload: bytes, *, after: Position) -> None:
        """Store an entry directly after a position, or raise Undecided."""
        copy = self.entry(after.sequence + 1)
        if copy is not None and copy.payload == payload:
            return
        if after != self._last:
            raise Undecided(f"expected {after} at the end, found {self._last}")
        self._last = Position(after.sequence + 1, hash_of(payload))
        self._entries.append(Entry(self._last.sequence, payload, self._now_us()))

    def entry(self, sequence: int) -> Entry | None:
        """Look at a sequence."""
        index = sequence - self._first
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def bounds(self) -> tuple[int, int]:
        """Tell the first and the last sequence."""
        return self._first, self._last.sequence

    def read(self, from_sequence: int, *, through_sequence: int, bytes_max: int) -> list[Entry]:
        """Give a run of entries from from_sequence on."""
        entries: list[Entry] = []
        size = 0
        for sequence in range(from_sequence, through_sequence + 1):
            entry = self.entry(sequence)
            if entry is None:
                break
            size += len(entry.payload)
            if entries and size > bytes_max:
                break
            entries.append(entry)
        return entries

    def trim(self, first_sequence: int) -> None:
        """Remove what stands before a sequence."""
        del self._entries[: first_sequence - self._first]
        self._first = first_sequence


class LogOver:
    """The port `Log` over a `MemoryLog`."""

    def __init__(self, log: MemoryLog) -> None:
        """Share the log with any number of others."""
        self._log = log

    async def append(self, payload: bytes, *, after: Position) -> None:
        """See `ports.Log`."""
        await asyncio.sleep(0)
        self._log.append(payload, after=after)

    async def entry(self, sequence: int) -> Entry | None:
        """See `ports.Log`."""
        await asyncio.sleep(0)
        return self._log.entry(sequence)

    async def bounds(self) -> tuple[int, int]:
        """See `ports.Log`."""
        await asyncio.sleep(0)
        return self._log.bounds()

    async def read(
        self, from_sequence: int, *, through_sequence: int, bytes_max: int
    ) -> list[Entry]:
        """See `ports.Log`."""
        await asyncio.sleep(0)
        return self._log.read(from_sequence, through_sequence=through_sequence, bytes_max=bytes_max)


class MemorySnapshots:
    """The stored snapshots of all markets."""

    def __init__(self) -> None:
        """Begin empty."""
        self._stored: dict[SnapshotName, bytes] = {}

    def names(self, market: str) -> list[SnapshotName]:
        """List a market's snapshots, newest first."""
        names = [name for name in self._stored if name.market == market]
        return sorted(names, key=lambda name: name.position.sequence, reverse=True)

    def load(self, name: SnapshotName) -> bytes:
        """Give the bytes of a name, or raise SnapshotInvalid."""
        data = self._stored.get(name)
        if data is None or hash_of(data) != name.hash:
            raise SnapshotInvalid(f"{name} is gone, or not what was saved")
        return data

    def save(self, name: SnapshotName, data: bytes) -> None:
        """Store bytes under a name."""
        self._stored[name] = data

    def remove(self, name: SnapshotName) -> None:
        """Forget a snapshot."""
        self._stored.pop(name, None)


class SnapshotsOver:
    """The port `Snapshots` over a `MemorySnapshots`."""

    def __init__(self, snapshots: MemorySnapshots) -> None:
        """Share the store with any number of others."""
        self._snapshots = snapshots

    async def names(self, market: str) -> list[SnapshotName]:
        """See `ports.Snapshots`."""
        await asyncio.sleep(0)
        return self._snapshots.names(market)

    async def load(self, name: SnapshotName) -> bytes:
        """See `ports.Snapshots`."""
        await asyncio.sleep(0)
        return self._snapshots.load(name)

    async def save(self, name: SnapshotName, data: bytes) -> None:
        """See `ports.Snapshots`."""
        await asyncio.sleep(0)
        self._snapshots.save(name, data)

    async def remove(self, name: SnapshotName) -> None:
        """See `ports.Snapshots`."""
        await asyncio.sleep(0)
        self._snapshots.remove(name)
