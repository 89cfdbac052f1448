"""One replica, its world as plain state, and time that a test moves by hand.

Effects that the world answers wait in `under_way`, in their order, until a test has them performed
(`run`, all or all but some kinds) or takes one out to answer it by hand (`take`). What is broadcast
arrives when a test says so (`hear`). What is sent is kept by request, and no request may be
answered twice.
"""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import msgspec

from dex_engine import Market
from dex_protocol.administration import What
from dex_protocol.codec import encode, hash_of
from dex_protocol.commands import Command
from dex_protocol.events import Commit, LeaderChanged
from dex_protocol.queries import Query, StatusQuery
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification, SpecificationChange
from dex_server.replication.effects import (
    Administered,
    Alarm,
    Append,
    AppendConfirmed,
    AppendUndecided,
    Asked,
    Dismissed,
    Effect,
    FindEnd,
    HashState,
    Heard,
    Input,
    Instant,
    Listen,
    ListSnapshots,
    LoadSnapshot,
    Look,
    Nominated,
    Note,
    OnDuty,
    ReadLog,
    RemoveSnapshot,
    Request,
    Requests,
    SaveSnapshot,
    Send,
    Serve,
    SnapshotTaken,
    Start,
    StateHashed,
    Stopped,
    TakeSnapshot,
    Tick,
    ToldToStop,
    TrimLog,
    Unlisten,
    Unserve,
)
from dex_server.replication.ports import Entry, Position, Undecided
from dex_server.replication.replica import Replica, Settings
from tests.builders import NOW, a_specification, buy
from tests.contracts import performing
from tests.contracts.memory import MemoryLog, MemorySnapshots

READ_BYTES_MAX = 256 * 1024

EFFECTS_COUNT_MAX = 10_000
"""More than any test needs before everything is quiet."""

E = TypeVar("E")


class Harness:
    """A replica and its world.

    Attributes:
        wall: This server's clock, in µs.
        monotonic: Its other clock.
        log_ahead: How far the log's clock is ahead of this server's, in µs.
        under_way: Effects that nobody performed yet, in their order; of a state that was written
            down or hashed, what came of it.
        seen: Every effect ever given, in order.
        is_serving: Whether requests are taken in.
        is_listening: Whether what is broadcast is wanted.
    """

    def __init__(
        self,
        *,
        log: MemoryLog | None = None,
        snapshots: MemorySnapshots | None = None,
        server: str = "server-1",
        incarnation: str = "first",
        specification: Specification | None = None,
        wall: int = NOW,
        **settings: Any,
    ) -> None:
        self.wall = wall
        self.monotonic = 0
        self.log_ahead = 0
        self.log = log or MemoryLog(now_us=lambda: self.wall + self.log_ahead)
        self.snapshots = snapshots or MemorySnapshots()
        self.replica = Replica(
            "BTC-USD",
            server=server,
            incarnation=incarnation,
            specification=specification or a_specification(),
            log_id="log",
            settings=Settings(**settings),
        )
        self.under_way: deque[Effect | SnapshotTaken | StateHashed] = deque()
        self.seen: list[Effect] = []
        self.is_serving = False
        self.is_listening = False
        # The newest entry that was broadcast, to whoever listened then.
        self._broadcast = 0
        self._answers: dict[int, bytes] = {}
        self._asked = 0

    # --- Inputs -----------------------------------------------------------------------------

    def give(self, given: Input) -> None:
        """Hand the replica an input, and do at once what needs no answer."""
        for effect in self.replica.step(given, Instant(self.wall, self.monotonic)):
            self.seen.append(effect)
            match effect:
                case Send():
                    assert effect.reply_to not in self._answers, "answered twice"
                    assert len(effect.payload) <= 1024 * 1024
                    self._answers[effect.reply_to] = effect.payload
                case Serve():
                    self.is_serving = True
                case Unserve():
                    self.is_serving = False
                case Listen():
                    self.is_listening = True
                    self._broadcast = self.end
                case Unlisten():
                    self.is_listening = False
                case TakeSnapshot() | HashState():
                    # Now, before the next input changes the state.
                    self.under_way.append(performing.written(effect, self.market))
                case Alarm() | Note() | Stopped():
                    pass
                case _:
                    self.under_way.append(effect)

    def start(self) -> None:
        """Let it begin, and lead as soon as it can."""
        self.give(Start())
        self.nominate()

    def nominate(self) -> None:
        """Name it to lead."""
        self.give(Nominated())

    def dismiss(self) -> None:
        """Name another, or nobody."""
        self.give(Dismissed())

    def on_duty(self, *, is_mine: bool = True) -> None:
        """Have it write the market's snapshots, or another."""
        self.give(OnDuty(is_mine))
        self.run()

    def hear(self, *, but: Collection[int] = ()) -> None:
        """Give what was broadcast since the last time, all but some entries, if it listens."""
        first, self._broadcast = self._broadcast + 1, self.end
        heard = [self.entry(sequence) for sequence in range(first, self.end + 1)]
        heard = [entry for entry in heard if entry.sequence not in but]
        if self.is_listening and heard:
            self.give(Heard(heard))

    def send(self, *commands: Command, peer: str = "alice", waited_us: int = 0) -> int:
        """Send commands, one by itself or several as a batch; give the request's number.

        `waited_us` is how long ago it arrived.
        """
        payload = encode(commands[0] if len(commands) == 1 else commands)
        (number,) = self.send_together(payload, peer=peer, waited_us=waited_us)
        return number

    def commit(self, first: int, count: int = 1) -> None:
        """Make commits of an order each, which never trade."""
        for number in range(first, first + count):
            self.send(buy("1 @ 100", number))
            self.run()

    def send_raw(self, payload: bytes, *, peer: str = "alice") -> int:
        """Send a request as it is."""
        (number,) = self.send_together(payload, peer=peer)
        return number

    def send_together(self, *payloads: bytes, peer: str = "alice", waited_us: int = 0) -> list[int]:
        """Send requests that arrive in the same moment."""
        numbers = [self._number() for _ in payloads]
        arrived = self.monotonic - waited_us
        self.give(
            Requests(
                [
                    Request(peer=peer, payload=payload, reply_to=number, arrived=arrived)
                    for number, payload in zip(numbers, payloads, strict=True)
                ]
            )
        )
        return numbers

    def ask(self, query: Query | None = None, *, peer: str = "alice") -> int:
        """Ask about the state, its status when nothing else is named."""
        number = self._number()
        self.give(Asked(peer, query or StatusQuery(), number, self.monotonic))
        return number

    def administer(self, what: What, change: SpecificationChange | None = None) -> int:
        """Ask for something as an operator."""
        number = self._number()
        self.give(Administered(what, change, number))
        return number

    def stop(self) -> None:
        """Tell it to stop."""
        self.give(ToldToStop())

    def pass_time(self, *, ms: int) -> None:
        """Let time pass on this server's clocks, and tell it."""
        self.wall += ms * 1_000
        self.monotonic += ms * 1_000
        self.give(Tick())

    def _number(self) -> int:
        self._asked += 1
        return self._asked

    # --- Effects ----------------------------------------------------------------------------

    def run(self, *, hold: Sequence[type] = ()) -> None:
        """Perform what is under way, and what follows from it, all but the kinds held back."""
        held: deque[Any] = deque()
        count = 0
        while self.under_way or self.replica.has_more_to_tell:
            count += 1
            assert count < EFFECTS_COUNT_MAX, "it never comes to rest"
            if not self.under_way:
                self.give(Tick())
                continue
            effect = self.under_way.popleft()
            if isinstance(effect, tuple(hold)):
                held.append(effect)
            else:
                self.perform(effect)
        self.under_way = held

    def perform(self, effect: Any) -> None:
        """Do one effect, and tell the replica what came of it."""
        given = self.outcome(effect)
        if given is not None:
            self.give(given)

    def outcome(self, effect: Any) -> Input | None:
        """Do one effect, and give what the replica is to be told of it."""
        match effect:
            case Append():
                sequence = effect.after.sequence + 1
                try:
                    self.log.append(effect.payload, after=effect.after)
                except Undecided as undecided:
                    return AppendUndecided(sequence, str(undecided))
                return AppendConfirmed(sequence)
            case Look() | FindEnd() | ReadLog() | ListSnapshots() | LoadSnapshot() | SaveSnapshot():
                return performing.answer(
                    effect,
                    self.replica.name,
                    self.log,
                    self.snapshots,
                    read_bytes_max=READ_BYTES_MAX,
                )
            case SnapshotTaken() | StateHashed():
                return effect
            case RemoveSnapshot():
                self.snapshots.remove(effect.name)
            case TrimLog():
                self.log.trim(effect.first_sequence)
            case _:
                raise AssertionError(f"nobody performs {effect}")
        return None

    def take(self, kind: type[E]) -> E:
        """Take the first effect of a kind out of what is under way."""
        for index, effect in enumerate(self.under_way):
            if isinstance(effect, kind):
                del self.under_way[index]
                return effect
        raise AssertionError(f"no {kind.__name__} is under way, only {list(self.under_way)}")

    def waiting(self, kind: type[E]) -> list[E]:
        """Give what is under way of a kind, in order."""
        return [effect for effect in self.under_way if isinstance(effect, kind)]

    def given(self, kind: type[E]) -> list[E]:
        """Give every effect of a kind that there ever was, in order."""
        return [effect for effect in self.seen if isinstance(effect, kind)]

    # --- What came of it --------------------------------------------------------------------

    def answer(self, number: int) -> Any:
        """Give what a request was answered, decoded; None when nothing was sent yet."""
        payload = self._answers.get(number)
        return None if payload is None else msgspec.json.decode(payload)

    def receipt(self, number: int) -> Receipt:
        """Give the receipt of a request of one command, which must have been answered."""
        return msgspec.json.decode(self._answers[number], type=Receipt)

    def receipts(self, number: int) -> list[Receipt]:
        """Give the receipts of a batch, which must have been answered."""
        return msgspec.json.decode(self._answers[number], type=list[Receipt])

    def retries(self, *numbers: int) -> list[str]:
        """Give the reasons for which requests are to be sent again."""
        receipts = [self.receipt(number) for number in numbers]
        assert [receipt.status for receipt in receipts] == ["retry"] * len(receipts)
        return [str(receipt.reason) for receipt in receipts]

    @property
    def end(self) -> int:
        """The log's last sequence."""
        return self.log.bounds()[1]

    def entry(self, sequence: int) -> Entry:
        """Give what stands at a sequence of the log, where something stands."""
        entry = self.log.entry(sequence)
        assert entry is not None
        return entry

    @property
    def alarms(self) -> list[str]:
        """What operators were told."""
        return [alarm.text for alarm in self.given(Alarm)]

    @property
    def warnings(self) -> list[str]:
        """What was written down as wrong."""
        return [note.text for note in self.given(Note) if note.is_warning]

    @property
    def could_lead(self) -> bool:
        """Whether it could be named to lead now."""
        return self.replica.could_lead(Instant(self.wall, self.monotonic))

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.given(Stopped))

    def commits(self) -> list[Commit]:
        """Read the whole log."""
        return follow(self.log)[1]

    @property
    def market(self) -> Market:
        """The replica's state, which there must be."""
        assert self.replica.market is not None
        return self.replica.market

    def check(self) -> None:
        """Make sure that the log is one that everybody can follow, and that it is our state."""
        first, _ = self.log.bounds()
        if first > 1:
            return
        market, commits = follow(self.log)
        market.check()
        own = self.replica.market
        if own is not None and own.sequence == market.sequence and commits:
            own.check()

            assert own.snapshot() == market.snapshot()


def follow(log: MemoryLog) -> tuple[Market, list[Commit]]:
    """Follow a log from its beginning as anyone may: chain, time, term and digest are checked."""
    market = Market("BTC-USD")
    commits = []
    first, last = log.bounds()
    assert first == 1
    for sequence in range(first, last + 1):
        entry = log.entry(sequence)
        assert entry is not None
        assert len(entry.payload) <= 512 * 1024
        commits.append(market.apply_commit(entry.payload))
    return market, commits


def cut(log: MemoryLog, last: int, *, instead: bytes | None = None) -> MemoryLog:
    """Copy a log through an entry, perhaps with another after it."""
    copy = MemoryLog(now_us=lambda: NOW)
    position = Position(0, "0" * 32)
    entries = [log.entry(sequence) for sequence in range(1, last + 1)]
    payloads = [entry.payload for entry in entries if entry is not None]
    if instead is not None:
        payloads.append(instead)
    for payload in payloads:
        copy.append(payload, after=position)
        position = Position(position.sequence + 1, hash_of(payload))
    return copy


def terms(log: MemoryLog) -> list[tuple[int, str]]:
    """Tell which terms were begun, and by whom, in order."""
    events = [event for commit in follow(log)[1] for event in commit.events]
    return [(event.term, event.server) for event in events if isinstance(event, LeaderChanged)]


def names(commit: Commit) -> list[str]:
    """Name a commit's events, as the wire does."""
    return [str(event.__struct_config__.tag) for event in commit.events]


def beside(other: Harness, *, server: str = "server-2", **how: Any) -> Harness:
    """Make another server of the same market, not started."""
    return Harness(
        log=other.log,
        snapshots=other.snapshots,
        server=server,
        **{"wall": other.wall, **how},
    )


def a_leader(**how: Any) -> Harness:
    """Make a replica that leads a market: two events, one commit."""
    return leading(Harness(**how))


def leading(harness: Harness) -> Harness:
    """Start a replica, and have it lead."""
    harness.start()
    harness.run()

    assert harness.replica.role == "leader"
    return harness


def following(harness: Harness) -> Harness:
    """Start a replica, and have it follow."""
    harness.give(Start())
    harness.run()

    assert harness.replica.is_current
    return harness
