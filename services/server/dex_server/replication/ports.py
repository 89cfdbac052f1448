"""What replication needs of the world: a log, a store of snapshots, and their contracts.

Knows nothing of NATS. `dex_server.jetstream` keeps these contracts on JetStream; the suite in
tests/contracts runs against every implementation.
"""

from typing import Protocol

from msgspec import Struct


class Position(Struct, frozen=True, gc=False):
    """A place in a log: an entry's sequence and the hash of its bytes.

    The place before the first entry is (0, 32 zeros).
    """

    sequence: int
    hash: str


class Entry(Struct, frozen=True, gc=False):
    """What stands in a log at a sequence: the stored bytes, and when the log stored them (µs)."""

    sequence: int
    payload: bytes
    stored_at: int


class Undecided(Exception):
    """An append that was not confirmed: refused, unanswered, or lost on the way.

    The entry may be in the log, may get there later, or may never. Only what stands at its
    sequence decides, and while nothing stands there nothing is decided: send the same bytes with
    the same expectation again, or look.
    """


class LogUnavailable(Exception):
    """The log, the store of snapshots, the directory or the leases did not answer; try again."""


class SnapshotInvalid(Exception):
    """A stored snapshot is gone, or its bytes are not those it was saved with; use another."""


class Log(Protocol):
    """One market's log. Entries are never changed or removed, but for a trimmed beginning."""

    async def append(self, payload: bytes, *, after: Position) -> None:
        """Append one entry directly after the entry at a position.

        Returns only when the entry is stored, durably as the log is configured, at sequence
        after.sequence + 1. Appending the same bytes at the same place twice stores one entry.

        Raises:
            Undecided: no confirmation came; settle it by what stands at after.sequence + 1.

        Ordering: several appends may be under way, each after the one before it. One whose
        predecessor is not stored directly before it is never stored.
        """
        ...

    async def entry(self, sequence: int) -> Entry | None:
        """Look at what stands at a sequence, as the log's own leader knows it now.

        Returns:
            The entry, or None when nothing stands there (which says nothing about later).

        Raises:
            LogUnavailable: no answer.
        """
        ...

    async def bounds(self) -> tuple[int, int]:
        """Tell the first and the last sequence that the log has, as its leader knows them now.

        Returns:
            (first, last); an empty log that never had an entry is (1, 0).

        Raises:
            LogUnavailable: no answer.
        """
        ...

    async def read(
        self, from_sequence: int, *, through_sequence: int, bytes_max: int
    ) -> list[Entry]:
        """Read stored entries, oldest first, without holes, starting at from_sequence.

        Args:
            from_sequence: The first wanted.
            through_sequence: The last wanted, at least from_sequence; not beyond the log's end
                as `bounds` or an append told it.
            bytes_max: How many payload bytes to give at most; one entry is given even when it is
                larger.

        Returns:
            A run of entries from from_sequence on; at least one, if the log has that one; empty
            when it was trimmed.

        Raises:
            LogUnavailable: no answer, or the answer has holes.
        """
        ...

    async def trim(self, first_sequence: int) -> None:
        """Remove all entries before one, for good; those that are gone already are no error.

        Args:
            first_sequence: The oldest to keep; it stands in the log.

        Raises:
            LogUnavailable: they may or may not be gone.
        """
        ...


class Directory(Protocol):
    """The names and first specifications of all markets."""

    async def open(self, market: str, specification: bytes) -> bytes:
        """Write a market's first specification, unless it has one.

        Returns:
            What stands there now, these bytes or those of whoever was first.

        Raises:
            LogUnavailable: it may or may not be written; do it again.
        """
        ...

    async def news(self) -> list[tuple[str, bytes]]:
        """Give the markets that this object did not give before: names and specifications.

        Raises:
            LogUnavailable: no answer; what is new is given the next time.
        """
        ...


class SnapshotName(Struct, frozen=True):
    """Which state a stored snapshot is: of which market, after which commit."""

    market: str
    position: Position
    """The commit it holds the state after, and that commit's hash."""
    hash: str
    """The hash of the stored bytes (BLAKE2b, 16 bytes, hex)."""
    digest: str
    """The book's digest in it."""
    state: str
    """The hash of the unpacked bytes (BLAKE2b, 16 bytes, hex), which equal states have in common
    whatever packed them."""


class Snapshots(Protocol):
    """The stored snapshots of all markets: bytes under a name."""

    async def names(self, market: str) -> list[SnapshotName]:
        """List a market's snapshots, newest first.

        Raises:
            LogUnavailable: no answer.
        """
        ...

    async def load(self, name: SnapshotName) -> bytes:
        """Give the stored bytes, which have the name's hash.

        Raises:
            SnapshotInvalid: it is gone, or its bytes are others than were saved.
            LogUnavailable: no answer.
        """
        ...

    async def save(self, name: SnapshotName, data: bytes) -> None:
        """Store bytes under a name; saving the same again is harmless.

        Raises:
            LogUnavailable: it may or may not be stored.
        """
        ...

    async def remove(self, name: SnapshotName) -> None:
        """Forget a snapshot; one that is gone already is no error.

        Raises:
            LogUnavailable: it may or may not be gone.
        """
        ...


class ServerRecord(Struct, frozen=True):
    """What a server says of itself, again and again, as long as it lives."""

    server: str
    """Its name."""
    incarnation: str
    """A random text, new at each start of a server."""
    markets: tuple[str, ...] = ()
    """The markets that it holds in good order, and could lead; in the order of their names."""
    is_leaving: bool = False
    """Whether it was told to stop, and takes nothing over any more."""


class LeaderRecord(Struct, frozen=True):
    """Who is to lead a market; nobody, when the names are empty."""

    server: str = ""
    incarnation: str = ""
    changes: int = 0
    """How often the leader has changed in quick succession; 0 for a market's first leader."""


class ServerNews(Struct, frozen=True):
    """A server's record as it stands; each writing of it has a greater revision."""

    server: str
    revision: int
    record: ServerRecord | None
    """None when it was deleted, or cannot be read."""


class LeaderNews(Struct, frozen=True):
    """A market's leader as it stands; each writing of it has a greater revision."""

    market: str
    revision: int
    record: LeaderRecord | None
    """None when it was deleted, or cannot be read."""
    stored_at: int = 0
    """When it was written (µs since 1970); 0 when that is not known."""


class News(Struct, frozen=True):
    """What was written since the news before; of each key the newest."""

    servers: list[ServerNews]
    leaders: list[LeaderNews]


class Leases(Protocol):
    """Which servers live, and which is to lead each market.

    Safety rests on the log alone; these only make it rare that two servers try to lead.
    """

    async def news(self) -> News:
        """Give what was written since the last news that this object gave; the first time all.

        Each key is as the store's own leader knows it now, so two readings in a row that show the
        same revision prove that nobody wrote in between. The servers' records are read after the
        leaders': a server that is named had written its own before.

        Raises:
            LogUnavailable: no answer; what is new is given the next time.
        """
        ...

    async def renew(self, record: ServerRecord) -> None:
        """Write a server's record, whatever stands there.

        Raises:
            LogUnavailable: it may or may not be written.
        """
        ...

    async def name(self, market: str, record: LeaderRecord, *, after: int) -> int | None:
        """Write who is to lead a market, if nobody wrote since a revision.

        Args:
            market: Which.
            record: Who.
            after: The revision that stands there; 0 when nobody was ever named.

        Returns:
            The new revision; None when another stands there or is being written, and nothing was
            written by this call. The news tell which; the same may be tried again.

        Raises:
            LogUnavailable: it may or may not be written, now or later.
        """
        ...
