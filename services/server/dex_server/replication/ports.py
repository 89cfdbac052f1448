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
    """The log, or the store of snapshots, did not answer a read; try again later."""


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
