"""Keeping a market's snapshots: when one is due, who writes it, who compares, what is removed.

Theory of operation. A snapshot is due after the commit that completes so many commits, or so many
events, of the log: the same commit for every server. The one on duty writes the state down and
stores it; the others hash their own state there, and compare once the snapshot is stored. Commits'
digests compare the book at every commit; this compares all the rest: remembered outcomes, counters,
deadlines.

The newest two are kept, an older one for a while more, since somebody may be half through its
parts. Only the server on duty removes anything.

Knows nothing of roles, nor of how a state is written down.
"""

from typing import Final

from msgspec import Struct

from dex_engine import Market
from dex_protocol import limits
from dex_server.replication.effects import (
    Effect,
    HashState,
    Instant,
    ListSnapshots,
    Note,
    RemoveSnapshot,
    SaveSnapshot,
    SnapshotTaken,
    TakeSnapshot,
    TrimLog,
)
from dex_server.replication.ports import Position, SnapshotName
from dex_server.replication.recovery import Contradicted

SUPERSEDED_US: Final = 60_000_000
"""How long an old snapshot is kept beyond the newest two: readers may be half through its parts."""

KEPT_COUNT: Final = 2
"""One to fall back to when the newest is damaged."""

COMPARED_AFTER_US: Final = 5_000_000
"""When to look for a snapshot that another server writes, and how often: it takes about 1 s."""

HASHES_COUNT_MAX: Final = 4
"""Own hashes that wait for another's snapshot; of older ones nobody stored one."""


class Settings(Struct, frozen=True):
    """What a server's operator chooses for all its replicas."""

    window: int = 1
    """Appends under way at a time, from 1. More hide the log's latency, but each commit is smaller.
    """
    snapshot_commits: int = limits.SNAPSHOT_COMMITS_COUNT
    """Commits between two snapshots, from 1; the same for all servers, or nothing is compared.
    Fewer cost writing, more cost time at a restart."""
    snapshot_events: int = limits.SNAPSHOT_EVENTS_COUNT
    """Events between two snapshots, from 1, whichever of the two comes first."""
    trims_log: bool = False
    """Whether the log is cut before the older of the two snapshots that are kept, for good."""


def _sequence(name: SnapshotName) -> int:
    return name.position.sequence


class Upkeep:
    """The snapshots of one market, as one server sees to them."""

    def __init__(self, settings: Settings) -> None:
        """Begin off duty."""
        self._settings = settings
        self._is_mine = False
        # How many times so many commits, and so many events, were full.
        self._intervals = (0, 0)
        # The state that is being written down or hashed; written down, until the log is that far.
        self._taking: Position | None = None
        self._written: SnapshotTaken | None = None
        # Stored ones, newest first, and when each other one was superseded (monotonic).
        self._saved: list[SnapshotName] = []
        self._superseded: list[tuple[int, SnapshotName]] = []
        # Own hashes that nothing was compared with yet, oldest first.
        self._hashes: list[tuple[Position, str]] = []
        self._looks_at = 0

    def begin(self, market: Market) -> None:
        """Begin from a state: what was due before it is somebody else's."""
        self._intervals = self._intervals_of(market)
        self._taking = self._written = None
        self._hashes.clear()

    def on_duty(self, *, is_mine: bool) -> list[Effect]:
        """Take over the writing, or hand it over."""
        if is_mine == self._is_mine:
            return []
        self._is_mine = is_mine
        self._superseded.clear()
        # What others stored is to be removed in its time.
        return [ListSnapshots()] if is_mine else []

    def at_commit(self, market: Market) -> list[Effect]:
        """Look whether a snapshot is due of the state, which is the one after a commit."""
        intervals = self._intervals_of(market)
        is_due = intervals != self._intervals
        # One that comes due while another is written is left out: later would be at another
        # commit than everybody's.
        self._intervals = intervals
        if not is_due or self._taking is not None:
            return []
        self._taking = Position(market.sequence, market.hash)
        if self._is_mine:
            return [TakeSnapshot(self._taking, market.digest)]
        return [HashState(self._taking)]

    def leading_at_commit(self, market: Market) -> list[Effect]:
        """Do the same for a leader, whose state is ahead of the log: it only writes."""
        return self.at_commit(market) if self._is_mine else []

    def log_reaches(self, sequence: int) -> list[Effect]:
        """Store what was written down, once the log has its commit."""
        written = self._written
        if written is None or sequence < written.name.position.sequence:
            return []
        self._written = None
        return [SaveSnapshot(written.name, written.data)]

    def taken(self, given: SnapshotTaken) -> None:
        """Note that the state is written down; it may be of a state that was thrown away."""
        if given.name.position == self._taking:
            self._written = given

    def failed(self, position: Position) -> None:
        """Note that the state could not be written down or hashed."""
        if position == self._taking:
            self._taking = None

    def hashed(self, position: Position, state: str, now: Instant) -> None:
        """Note the hash of the own state."""
        if position != self._taking:
            return
        self._taking = None
        self._hashes.append((position, state))
        del self._hashes[:-HASHES_COUNT_MAX]
        self._looks_at = now.monotonic + COMPARED_AFTER_US

    def saved(self, name: SnapshotName, now: Instant) -> list[Effect]:
        """Note that a snapshot is stored."""
        if name.position == self._taking:
            self._taking = None
        if name not in self._saved:
            self._saved.append(name)
            self._saved.sort(key=_sequence, reverse=True)
        self._supersede(now)
        effects: list[Effect] = [Note(f"snapshot at commit {name.position.sequence} is stored")]
        if self._settings.trims_log and self._is_mine and len(self._saved) == KEPT_COUNT:
            effects.append(TrimLog(self._saved[-1].position.sequence))
        return effects

    def listed(self, names: list[SnapshotName], now: Instant) -> None:
        """Take note of what is stored, newest first, and compare.

        Raises:
            Contradicted: another server's state is not this one's.
        """
        self._saved = list(names)
        self._supersede(now)
        stored = {name.position.sequence: name for name in names}
        for position, state in self._hashes:
            name = stored.get(position.sequence)
            if name is not None and name.state != state:
                raise Contradicted(
                    f"the state after commit {position.sequence} has the hash {state} here, and"
                    f" {name.state} in the snapshot that another server stored"
                )
        # Of what is older than the newest, nobody stored one, nor will.
        newest = max(stored, default=0)
        self._hashes = [own for own in self._hashes if own[0].sequence > newest]

    def tick(self, now: Instant) -> list[Effect]:
        """Look for what is to be compared, and remove what is old."""
        effects = self._remove_superseded(now)
        if self._hashes and now.monotonic >= self._looks_at:
            self._looks_at = now.monotonic + COMPARED_AFTER_US
            effects.append(ListSnapshots())
        return effects

    def _supersede(self, now: Instant) -> None:
        known = [name for _, name in self._superseded]
        for old in self._saved[KEPT_COUNT:]:
            if self._is_mine and old not in known:
                self._superseded.append((now.monotonic, old))
        del self._saved[KEPT_COUNT:]

    def _remove_superseded(self, now: Instant) -> list[Effect]:
        due = [name for since, name in self._superseded if now.monotonic - since >= SUPERSEDED_US]
        self._superseded = [(s, name) for s, name in self._superseded if name not in due]
        return [RemoveSnapshot(name) for name in due]

    def _intervals_of(self, market: Market) -> tuple[int, int]:
        return (
            market.sequence // self._settings.snapshot_commits,
            market.events_count // self._settings.snapshot_events,
        )
