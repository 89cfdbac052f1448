"""The ports' rules as plain state: a log, a store of snapshots and leases in memory.

Synchronous, for a simulation that decides itself when things happen; `LogOver`, `SnapshotsOver` and
`LeasesOver` give them the ports' asynchronous shape. The suites next door prove that they behave
like JetStream.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import structs

from dex_protocol.codec import UNREADABLE, encode, hash_of
from dex_protocol.ids import is_peer
from dex_protocol.subjects import LEADERS_BUCKET, SERVERS_BUCKET
from dex_server.replication.ports import (
    Entry,
    LeaderNews,
    LeaderRecord,
    LogUnavailable,
    News,
    Position,
    ServerNews,
    ServerRecord,
    SnapshotInvalid,
    SnapshotName,
    Undecided,
)

T = TypeVar("T")


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
        """Remove what stands before an entry, if that one stands."""
        if self.entry(first_sequence) is not None:
            self.purge(first_sequence)

    def lose(self, kept: int) -> None:
        """Lose what stands behind an entry, as no log may."""
        del self._entries[kept + 1 - self._first :]
        self._last = Position(kept, hash_of(self._entries[-1].payload))

    def purge(self, first_sequence: int) -> None:
        """Remove what stands before a sequence, all of it if that is the next one."""
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

    async def trim(self, first_sequence: int) -> None:
        """See `ports.Log`."""
        await asyncio.sleep(0)
        self._log.trim(first_sequence)


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

    def damage(self, name: SnapshotName) -> None:
        """Turn over a bit in the middle of the stored bytes, as a disk may."""
        damaged = bytearray(self._stored[name])
        damaged[len(damaged) // 2] ^= 1
        self._stored[name] = bytes(damaged)

    def falsify(self, name: SnapshotName) -> None:
        """Have it be of another state than the others have, as of a server with a bug."""
        data = self._stored.pop(name)
        self._stored[structs.replace(name, state=hash_of(name.state.encode()))] = data


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


class MemoryLeaseStore:
    """Two buckets of leases: bytes under keys, each writing with a revision."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        """Begin empty; now_us tells when something is written."""
        self.is_interrupted = False
        """Whether nothing is answered, and nothing written."""
        self._now_us = now_us
        self._revisions: dict[str, int] = {}
        # Oldest first, as a key that is written again goes to the end; None for a deleted one.
        self._written: dict[str, dict[str, tuple[int, bytes | None, int]]] = {}

    def write(self, bucket: str, key: str, payload: bytes | None) -> int:
        """Write bytes under a key, or delete it; give the revision."""
        self._must_answer()
        keys = self._written.setdefault(bucket, {})
        keys.pop(key, None)
        self._revisions[bucket] = revision = self._revisions.get(bucket, 0) + 1
        keys[key] = (revision, payload, self._now_us())
        return revision

    def revision(self, bucket: str, key: str) -> int:
        """Tell the revision that stands under a key; 0 when nobody ever wrote there."""
        self._must_answer()
        return self._written.get(bucket, {}).get(key, (0, None, 0))[0]

    def since(self, bucket: str, revision: int) -> list[tuple[str, int, bytes | None, int]]:
        """Give the keys written after a revision, oldest first: what stands there, and when."""
        self._must_answer()
        keys = self._written.get(bucket, {})
        return [(key, *written) for key, written in keys.items() if written[0] > revision]

    def _must_answer(self) -> None:
        if self.is_interrupted:
            raise LogUnavailable("no answer")


class MemoryLeases:
    """The leases as one server sees them: a store shared with others, and what it has seen."""

    def __init__(self, store: MemoryLeaseStore) -> None:
        """Have seen nothing yet."""
        self._store = store
        self._seen_servers = 0
        self._seen_leaders = 0

    def news(self) -> News:
        """Give what was written since the last news."""
        servers = self._store.since(SERVERS_BUCKET, self._seen_servers)
        leaders = self._store.since(LEADERS_BUCKET, self._seen_leaders)
        self._seen_servers = max([self._seen_servers, *(revision for _, revision, _, _ in servers)])
        self._seen_leaders = max([self._seen_leaders, *(revision for _, revision, _, _ in leaders)])
        return News(
            servers=[
                ServerNews(key, revision, _server_record(key, payload))
                for key, revision, payload, _ in servers
            ],
            leaders=[
                LeaderNews(key, revision, _leader_record(payload), stored_at=stored_at)
                for key, revision, payload, stored_at in leaders
            ],
        )

    def renew(self, record: ServerRecord) -> None:
        """Write a server's record."""
        self._store.write(SERVERS_BUCKET, record.server, encode(record))

    def name(self, market: str, record: LeaderRecord, *, after: int) -> int | None:
        """Write who is to lead a market, if nobody wrote since a revision."""
        if self._store.revision(LEADERS_BUCKET, market) != after:
            return None
        return self._store.write(LEADERS_BUCKET, market, encode(record))


def _server_record(key: str, payload: bytes | None) -> ServerRecord | None:
    record = _record(payload, ServerRecord)
    return record if record is not None and record.server == key and is_peer(key) else None


def _leader_record(payload: bytes | None) -> LeaderRecord | None:
    record = _record(payload, LeaderRecord)
    is_possible = record is not None and (not record.server or is_peer(record.server))
    return record if is_possible else None


def _record(payload: bytes | None, kind: type[T]) -> T | None:
    if payload is None:
        return None
    try:
        return msgspec.json.decode(payload, type=kind)
    except UNREADABLE:
        return None


class LeasesOver:
    """The port `Leases` over a `MemoryLeases`."""

    def __init__(self, leases: MemoryLeases) -> None:
        """Be one server's."""
        self._leases = leases

    async def news(self) -> News:
        """See `ports.Leases`."""
        await asyncio.sleep(0)
        return self._leases.news()

    async def renew(self, record: ServerRecord) -> None:
        """See `ports.Leases`."""
        await asyncio.sleep(0)
        self._leases.renew(record)

    async def name(self, market: str, record: LeaderRecord, *, after: int) -> int | None:
        """See `ports.Leases`."""
        await asyncio.sleep(0)
        return self._leases.name(market, record, after=after)
