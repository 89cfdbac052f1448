"""One server's replica of one market: a decision function from inputs to effects.

Theory of operation. A replica begins as a follower: it takes the newest snapshot that is good and
fits the log, reads the log from there to its end, and waits to be nominated. Nominated, it leads
from there (leading.py). Deposed, it throws its state away, which was ahead of the log, and begins
again. Whatever does not fit, stops it for good and raises an alarm: the log is the truth, and a
replica that contradicts it has nothing to say.

Knows nothing of NATS, of time but what it is handed, nor of why it was nominated.
"""

import zlib
from typing import Final, assert_never

from msgspec import Struct

from dex_engine import Diverged, InvariantViolated, Market
from dex_protocol import limits
from dex_protocol.codec import encode, hash_of
from dex_protocol.events import PROTOCOL, RULES
from dex_protocol.reasons import RetryReason
from dex_protocol.receipts import retry
from dex_protocol.specification import Specification
from dex_server.replication.commits import Waiting
from dex_server.replication.effects import (
    Administered,
    Alarm,
    AppendConfirmed,
    AppendUndecided,
    Asked,
    Effect,
    EndFound,
    FindEnd,
    Input,
    Instant,
    ListSnapshots,
    LoadSnapshot,
    LogRead,
    Look,
    Lost,
    Nominated,
    Note,
    ReadLog,
    RemoveSnapshot,
    Requests,
    SaveSnapshot,
    Send,
    Serve,
    SnapshotFailed,
    SnapshotLoaded,
    SnapshotSaved,
    SnapshotsListed,
    SnapshotTaken,
    SnapshotUnusable,
    Stands,
    Start,
    Stopped,
    TakeSnapshot,
    Tick,
    ToldToStop,
    Unserve,
)
from dex_server.replication.leading import Deposed, Leadership
from dex_server.replication.ports import Entry, Position, SnapshotName
from dex_server.replication.roles import Occasion, Role, next_role

CLOCK_DIFFERENCE_US_MAX: Final = 1_000_000
"""How far a leader's clock may be from the log's: commands are late after as much."""

SUPERSEDED_SNAPSHOT_US: Final = 60_000_000
"""How long an old snapshot is kept beyond the newest two: readers may be half through its parts."""

SNAPSHOTS_KEPT: Final = 2
"""One to fall back to when the newest is damaged."""


class Settings(Struct, frozen=True):
    """What a server's operator chooses for all its replicas."""

    window: int = 1
    """Appends under way at a time, from 1. More hide the log's latency, but each commit is smaller.
    """
    snapshot_commits: int = limits.SNAPSHOT_COMMITS_COUNT
    """Commits between two snapshots, from 1. Fewer cost writing, more cost time at a restart."""
    snapshot_events: int = limits.SNAPSHOT_EVENTS_COUNT
    """Events between two snapshots, from 1, whichever of the two comes first."""


class Replica:
    """A market on one server.

    Attributes:
        role: What this server is in the market.
        market: The state, or None while there is none.
    """

    def __init__(
        self,
        name: str,
        *,
        server: str,
        specification: Specification,
        log_id: str,
        settings: Settings,
    ) -> None:
        """Make a replica that has not started.

        Args:
            name: The market's.
            server: This server's name, which its terms carry.
            specification: What the market is opened with, if its log is empty.
            log_id: A random name for the log, if it is empty.
            settings: The operator's.
        """
        self.name = name
        self.server = server
        self.settings = settings
        self.role: Role = "follower"
        self.market: Market | None = None
        self.leadership: Leadership | None = None
        self._specification = specification
        self._log_id = log_id
        self._is_nominated = False
        self._is_caught_up = False
        self._is_stopping = False
        # Snapshots to try, newest first; the one that is looked for in the log; the log's end.
        self._untried: list[SnapshotName] = []
        self._restored: SnapshotName | None = None
        self._log_end = 0
        # The newest commit that this replica ever knew to stand in the log.
        self._known = 0
        # When this candidate sent the beginning of its term, by its own wall clock.
        self._sent_at = 0
        # Snapshots that are stored, newest first, and when each was superseded (monotonic).
        self._saved: list[SnapshotName] = []
        self._superseded: list[tuple[int, SnapshotName]] = []
        # The state that is being written down, if one is.
        self._taking: Position | None = None
        # The same, written down, until the log is that far.
        self._written: SnapshotTaken | None = None
        self._events_since_snapshot = 0
        self._snapshot_sequence = 0

    # --- How it stands --------------------------------------------------------------------------

    @property
    def has_more_to_tell(self) -> bool:
        """Whether another step would answer queries at once; see `Leadership`."""
        return self.leadership is not None and self.leadership.has_more_to_tell

    @property
    def stored(self) -> int:
        """The newest commit that this replica knows to stand in the log."""
        if self.leadership is not None:
            return self.leadership.stored
        return 0 if self.market is None else self.market.sequence

    @property
    def newest_snapshot(self) -> SnapshotName | None:
        """The newest stored snapshot that this replica knows of."""
        return self._saved[0] if self._saved else None

    # --- The decision function ------------------------------------------------------------------

    def step(self, given: Input, now: Instant) -> list[Effect]:
        """Take one input in, and give what is to be done.

        Effects are to be begun in their order. `Append` answers with `AppendConfirmed` or
        `AppendUndecided`, every reading effect with the input that its docstring names; inputs
        may come in any order and late, and are ignored when they answer nothing any more.

        Ordering: a `Send` of what rests on the log is given only after the input that confirmed
        it, so it may be sent at once.
        """
        if self.role == "stopped":
            return self._turned_away(given)
        try:
            effects = self._take(given, now)
            if self.leadership is not None:
                if self.role == "leader":
                    effects += self.leadership.proceed(now)
                effects += self._keep_snapshots(now)
                effects += self._stop_when_settled()
        except Deposed as deposed:
            return self._deposed(str(deposed))
        return effects

    def _take(self, given: Input, now: Instant) -> list[Effect]:
        match given:
            case Requests() | Asked() | Administered():
                return self._take_in(given, now)
            case AppendConfirmed():
                return self._confirmed(given.sequence, now)
            case AppendUndecided():
                return [] if self.leadership is None else self.leadership.undecided(given.sequence)
            case Stands():
                return self._stands(given, now)
            case Tick():
                return self._remove_superseded(now)
            case Start():
                return self._begin()
            case SnapshotsListed():
                self._untried = list(given.names)
                self._saved = list(given.names)
                # A snapshot is stored only when the log has its commit.
                self._known = max([self._known, *(n.position.sequence for n in given.names)])
                self._supersede(now)
                return self._try_snapshot()
            case SnapshotLoaded():
                return self._restore(given.name, given.data)
            case SnapshotUnusable():
                note = Note(f"snapshot {given.name.position.sequence} cannot be used: {given.why}")
                return [note, *self._try_snapshot()]
            case EndFound():
                return self._found_end(given, now)
            case LogRead():
                return self._follow(given.entries, now)
            case Nominated():
                self._is_nominated = True
                return self._lead(now) if self._is_caught_up else []
            case SnapshotTaken():
                return self._taken(given)
            case SnapshotFailed():
                self._taking = None
                return []
            case SnapshotSaved():
                return self._snapshot_saved(given.name, now)
            case ToldToStop():
                return self._stop()
            case _:
                assert_never(given)

    # --- Requests -------------------------------------------------------------------------------

    def _take_in(self, given: Requests | Asked | Administered, now: Instant) -> list[Effect]:
        leadership = self.leadership
        if leadership is None or self.role != "leader" or self._is_stopping:
            return self._turned_away(given)
        match given:
            case Requests():
                return leadership.take(given.requests, now)
            case Asked():
                return leadership.ask(given)
            case Administered():
                return leadership.administer(given)

    def _turned_away(self, given: Input) -> list[Effect]:
        match given:
            case Requests():
                why = RetryReason.not_leader
                return [Waiting(request).sent_back(why) for request in given.requests]
            case Asked() | Administered():
                return [Send(given.reply_to, encode(retry(RetryReason.unavailable)))]
            case ToldToStop():
                return [Stopped()]
            case _:
                return []

    # --- Following the log ----------------------------------------------------------------------

    def _begin(self) -> list[Effect]:
        self.market = None
        self._restored = None
        self._is_caught_up = False
        self._snapshot_sequence = self._events_since_snapshot = 0
        return [ListSnapshots()]

    def _try_snapshot(self) -> list[Effect]:
        if self._untried:
            return [LoadSnapshot(self._untried.pop(0))]
        self._restored = None
        self.market = Market(self.name)
        return [FindEnd()]

    def _restore(self, name: SnapshotName, data: bytes) -> list[Effect]:
        try:
            if hash_of(data) != name.hash:
                raise InvariantViolated(f"expected bytes with the hash {name.hash}")
            market = Market.restore(zlib.decompress(data, wbits=zlib.MAX_WBITS | 16))
            found = Position(market.sequence, market.hash)
            if (market.name, found) != (self.name, name.position):
                raise InvariantViolated(f"expected {self.name} at {name.position}, found {found}")
        except (zlib.error, InvariantViolated) as error:
            note = Note(f"snapshot {name.position.sequence} cannot be used: {error}")
            return [note, *self._try_snapshot()]
        self.market = market
        self._restored = name
        # It counts only if the log has that very commit.
        return [Look(name.position.sequence)]

    def _check_restored(self, name: SnapshotName, entry: Entry | None) -> list[Effect]:
        sequence = name.position.sequence
        if entry is None:
            # Trimmed, or lost: where the log ends tells.
            note = Note(f"snapshot {sequence} cannot be used: the log has nothing there")
            return [note, *self._try_snapshot()]
        if hash_of(entry.payload) != name.position.hash:
            return self._broken(
                f"the log has another commit {sequence} than the one that was stored there when"
                " a snapshot was taken: it has lost commits"
            )
        self._snapshot_sequence = name.position.sequence
        return [FindEnd()]

    def _found_end(self, end: EndFound, now: Instant) -> list[Effect]:
        market = self.market
        assert market is not None
        self._log_end = end.last
        known = max(market.sequence, self._known)
        if end.last < known:
            return self._broken(
                f"the log ends at {end.last}, but commit {known} was stored: it has lost commits"
            )
        if end.first > market.sequence + 1:
            return self._broken(
                f"the log begins at {end.first}, and no good snapshot reaches that far"
            )
        return self._read_on(now)

    def _read_on(self, now: Instant) -> list[Effect]:
        market = self.market
        assert market is not None
        if market.sequence < self._log_end:
            return [ReadLog(market.sequence + 1, self._log_end)]
        self._is_caught_up = True
        note = Note(f"caught up at commit {market.sequence}, digest {market.digest}")
        return [note, *(self._lead(now) if self._is_nominated else [])]

    def _follow(self, entries: list[Entry], now: Instant) -> list[Effect]:
        market = self.market
        if market is None or self._is_caught_up:
            return []
        if not entries:
            # Trimmed in this very moment: what is left may not reach back far enough.
            return [FindEnd()]
        try:
            for entry in entries:
                if entry.sequence == market.sequence + 1:
                    commit = market.apply_commit(entry.payload)
                    self._events_since_snapshot += len(commit.events)
        except Diverged as diverged:
            return self._broken(str(diverged))
        return self._read_on(now)

    # --- Leading --------------------------------------------------------------------------------

    def _lead(self, now: Instant) -> list[Effect]:
        market = self.market
        assert market is not None
        self._change("nominated")
        self._is_nominated = False
        self._sent_at = now.wall
        # The log's own time, until this server's clock was compared with it: a wrong one would
        # expire orders, and time never goes back.
        time = market.time or now.wall
        events = []
        if market.sequence == 0:
            events = market.open(self._specification, log_id=self._log_id, time=time)
        events += market.lead(
            server=self.server, term=market.term + 1, protocol=PROTOCOL, rules=RULES, time=time
        )
        self.leadership = Leadership(market, server=self.server, window=self.settings.window)
        return self.leadership.begin(events, now)

    def _confirmed(self, sequence: int, now: Instant) -> list[Effect]:
        if self.leadership is None:
            return []
        effects = self.leadership.confirmed(sequence)
        return effects + self._begin_to_serve(sequence)

    def _begin_to_serve(self, sequence: int) -> list[Effect]:
        # The candidate's only commit is the beginning of its term. When the log stored it, by the
        # log's own clock, tells how far apart the two clocks are.
        leadership = self.leadership
        is_begun = leadership is not None and leadership.is_settled
        return [Look(sequence)] if self.role == "candidate" and is_begun else []

    def _stands(self, given: Stands, now: Instant) -> list[Effect]:
        if self.leadership is None:
            name = self._restored
            if name is None or given.sequence != name.position.sequence:
                return []
            self._restored = None
            return self._check_restored(name, given.entry)
        if self.role == "candidate" and self.leadership.is_settled and given.entry is not None:
            return self._compare_clocks(given.entry, now)
        effects = self.leadership.stands(given.sequence, given.entry)
        return effects + self._begin_to_serve(given.sequence)

    def _compare_clocks(self, entry: Entry, now: Instant) -> list[Effect]:
        market = self.market
        assert market is not None
        # It was stored after it was sent and before it was looked at, by whatever right clock.
        too_early = self._sent_at - entry.stored_at
        too_late = entry.stored_at - now.wall
        difference = max(too_early, too_late)
        if difference > CLOCK_DIFFERENCE_US_MAX:
            self._change("clocks_differ")
            self._drop_state()
            text = (
                f"this server's clock and the log's are {difference // 1_000} ms apart, expected"
                f" at most {CLOCK_DIFFERENCE_US_MAX // 1_000}: not leading"
            )
            return [Alarm(text), Lost(), *self._begin()]
        self._change("term_stored")
        note = Note(f"leads from commit {market.sequence} in term {market.term}")
        return [note, Serve()]

    def _deposed(self, why: str) -> list[Effect]:
        assert self.leadership is not None
        effects: list[Effect] = [Unserve()] if self.role == "leader" else []
        effects += self.leadership.flush(RetryReason.not_leader)
        self._change("outrun")
        self._drop_state()
        effects.insert(0, Note(f"leads no more: {why}"))
        return [*effects, *(self._stop() if self._is_stopping else [Lost(), *self._begin()])]

    def _drop_state(self) -> None:
        # It was ahead of the log; what the log says is read again.
        self._known = max(self._known, self.stored)
        if self.market is not None:
            self.market.dispose()
        self.leadership = None
        self.market = None
        self._taking = self._written = None

    # --- Snapshots ------------------------------------------------------------------------------

    def _keep_snapshots(self, now: Instant) -> list[Effect]:
        leadership, market = self.leadership, self.market
        if leadership is None or market is None or self.role != "leader":
            return []
        written = self._written
        if written is not None and leadership.stored >= written.name.position.sequence:
            self._written = None
            return [SaveSnapshot(written.name, written.data)]
        commits = market.sequence - self._snapshot_sequence
        is_due = (
            commits >= self.settings.snapshot_commits
            or self._events_since_snapshot + leadership.events_executed
            >= self.settings.snapshot_events
        )
        if not is_due or self._taking is not None or not leadership.is_at_commit:
            return []
        self._taking = Position(market.sequence, market.hash)
        self._snapshot_sequence = market.sequence
        self._events_since_snapshot = -leadership.events_executed
        return [TakeSnapshot(self._taking, market.digest)]

    def _taken(self, given: SnapshotTaken) -> list[Effect]:
        # It may be of a leadership that is over by now.
        if given.name.position == self._taking:
            self._written = given
        return []

    def _snapshot_saved(self, name: SnapshotName, now: Instant) -> list[Effect]:
        self._taking = None
        if name not in self._saved:
            self._saved.insert(0, name)
        self._supersede(now)
        # Under load there is no tick, and here is where old ones come to be.
        note = Note(f"snapshot at commit {name.position.sequence} is stored")
        return [note, *self._remove_superseded(now)]

    def _supersede(self, now: Instant) -> None:
        known = [name for _, name in self._superseded]
        for old in self._saved[SNAPSHOTS_KEPT:]:
            if old not in known:
                self._superseded.append((now.monotonic, old))
        del self._saved[SNAPSHOTS_KEPT:]

    def _remove_superseded(self, now: Instant) -> list[Effect]:
        due = [
            name
            for since, name in self._superseded
            if now.monotonic - since >= SUPERSEDED_SNAPSHOT_US
        ]
        self._superseded = [(s, name) for s, name in self._superseded if name not in due]
        return [RemoveSnapshot(name) for name in due]

    # --- Ending ---------------------------------------------------------------------------------

    def _stop(self) -> list[Effect]:
        self._is_stopping = True
        if self.leadership is None:
            self._change("told_to_stop")
            return [Stopped()]
        effects: list[Effect] = [Unserve()] if self.role == "leader" else []
        return effects + self.leadership.finish(RetryReason.not_leader)

    def _stop_when_settled(self) -> list[Effect]:
        if not self._is_stopping or self.leadership is None or not self.leadership.is_settled:
            return []
        self._change("told_to_stop")
        return [Stopped()]

    def _broken(self, why: str) -> list[Effect]:
        self._change("broken")
        return [Alarm(f"this replica stops: {why}")]

    def _change(self, occasion: Occasion) -> None:
        self.role = next_role(self.role, occasion)
