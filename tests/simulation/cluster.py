"""Servers that elect, lead and follow: in one thread, in virtual time, from one seed.

Each `Process` is one start of a server: its real `Elections`, and for each market its real
`Replica`. The world is one log for each market, one store of leases, one of snapshots, and what
connects them: every message takes a random time, and a test decides what is lost. What the shells
would do (asking again, giving up after a timeout, a tick after each turn) is done here the same
way.

What a message may meet on its way is a table, `MISHAPS`; `weather` says how often each does. Where
one way of a server is cut (`WAYS`), all that would go there is lost.

A paused process (SIGSTOP) does nothing; what arrives meanwhile waits for it, as in its sockets,
and is taken in with the state and the time it has then. A killed one says nothing to anybody.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final, Literal, TypeAlias, TypeVar, assert_never, get_args

import msgspec

from dex_engine import Market
from dex_protocol.administration import What
from dex_protocol.codec import encode, hash_of
from dex_protocol.events import Accepted, Commit, LeaderChanged
from dex_protocol.queries import Query
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification, SpecificationChange
from dex_protocol.standing import Role
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
    Start,
    Stopped,
    TakeSnapshot,
    Tick,
    ToldToStop,
    TrimLog,
    Unlisten,
    Unserve,
)
from dex_server.replication.election_effects import (
    Assign,
    ClusterChanged,
    Connected,
    Dismiss,
    Displaced,
    ElectionEffect,
    ElectionInput,
    LeadersChanged,
    LeasesRead,
    LeasesUnread,
    Left,
    Name,
    Named,
    NamingUnknown,
    Nominate,
    Ping,
    PingAnswered,
    PingLost,
    PingRefused,
    ReadLeases,
    Renew,
    RenewalFailed,
    Renewed,
    ReplicaStands,
    ToldToLeave,
)
from dex_server.replication.elections import Elections
from dex_server.replication.ports import (
    Entry,
    LeaderNews,
    LeaderRecord,
    News,
    Undecided,
)
from dex_server.replication.replica import Replica, Settings
from tests.builders import NOW, a_specification, buy
from tests.contracts import performing
from tests.contracts.memory import (
    MemoryLeases,
    MemoryLeaseStore,
    MemoryLog,
    MemorySnapshots,
)

MS: Final = 1_000
S: Final = 1_000_000

FASTEST_US: Final = 150
SLOWEST_US: Final = 1_500
"""How long a message takes, one way."""

ELECTIONS_TICK_US: Final = 50 * MS
REPLICAS_TICK_US: Final = 100 * MS
TIMEOUT_US: Final = 1_000 * MS
PING_TIMEOUT_US: Final = 200 * MS
AGAIN_US: Final = 50 * MS
LEAVING_US: Final = 2_000 * MS
STOPPING_US: Final = 1_500 * MS
"""As in the shells: `electing`, `driver`, `server`, `markets`, and the adapters' timeouts."""

STALE_US: Final = 3_000 * MS
"""How long a process may say nothing before NATS drops its connections."""

RECONNECTING_US: Final = 100 * MS

ORDERS_US: Final = 170 * MS
"""Between two orders, where orders keep coming."""

READ_BYTES_MAX: Final = 4 * 1024 * 1024

LATE_US_MAX: Final = 4_000 * MS
"""By how much a message that is late may be late."""

Way = Literal[
    "to the log",
    "from the log",
    "to the leases",
    "from the leases",
    "to peers",
    "from peers",
    "from broadcasts",
]
"""Where messages of a server go, and where they come from."""

WAYS: Final[tuple[Way, ...]] = get_args(Way)

Mishap = Literal[
    "request lost",
    "request late",
    "request doubled",
    "reply lost",
    "append lost",
    "append late",
    "append unanswered",
    "append doubled",
    "append answered twice",
    "log silent to a question",
    "broadcast lost",
    "broadcast doubled",
    "lease written, unanswered",
    "lease written late",
    "lease not written",
]
"""What may happen to a message."""

MISHAPS: Final[tuple[Mishap, ...]] = get_args(Mishap)

Answer: TypeAlias = Callable[[bytes | None], None]
"""Told the reply to a request, or None when nobody serves (503); not at all when it is lost."""

T = TypeVar("T")


class Cluster:
    """Servers, their world, and its time.

    Attributes:
        now: Virtual time, µs.
        processes: The newest of each server, by name, alive or not.
        logs: By market.
        notes: What happened: when, where the logs ended then, who, what.
        alarms: What operators were told.
        receipts: What was answered, by the number of the order.
        is_log_silent: Whether no log, and no store of snapshots, answers.
        weather: How many of a hundred messages meet each mishap; 0 when it does not say.
        mishaps: How often each happened.
        is_ordering: Whether orders keep coming.
        tick_factor: How many times as long ticks take as in the shells, to pass over quiet times
            quickly.
    """

    def __init__(
        self,
        *,
        markets: int = 1,
        seed: int = 0,
        slowest_us: int = SLOWEST_US,
        specify: Callable[[str], Specification] = lambda market: a_specification(market=market),
        **settings: Any,
    ) -> None:
        """Make a world without servers; specify gives each market's specification."""
        self.now = 0
        self._slowest_us = slowest_us
        self.random = Random(seed)
        self.markets = [f"M{number}" for number in range(markets)]
        self.specifications = {market: specify(market) for market in self.markets}
        self.logs = {market: MemoryLog(lambda: NOW + self.now) for market in self.markets}
        self.store = MemoryLeaseStore(lambda: NOW + self.now)
        self.snapshots = MemorySnapshots()
        self.settings = Settings(**settings)
        self.processes: dict[str, Process] = {}
        self._displaced: list[Process] = []
        self.notes: list[tuple[int, str, str, str]] = []
        self.alarms: list[str] = []
        self.receipts: dict[int, Receipt] = {}
        self.is_log_silent = False
        self.weather: dict[Mishap, int] = {}
        self.mishaps: Counter[Mishap] = Counter()
        self.is_ordering = False
        self.tick_factor = 1
        # Pairs of servers that do not reach each other.
        self.cuts: set[frozenset[str]] = set()
        # Raised by whatever a test may wait for.
        self.version = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._orders = 0
        # Who waits for which answer.
        self._answers: dict[int, Answer] = {}
        self._hears: list[Callable[[str, Entry], None]] = []
        self._observer = MemoryLeases(self.store)
        self._named: dict[str, LeaderRecord] = {}
        # Who led in which term; since when nobody leads, and for how long nobody did.
        self._terms: dict[tuple[str, int], Process] = {}
        self._has_lost: set[str] = set()
        self._trimmed: dict[str, list[Entry]] = {market: [] for market in self.markets}
        self._vacant_since: dict[str, int] = dict.fromkeys(self.markets, 0)
        self.vacancies: list[tuple[str, int, int]] = []
        """Times in which nobody who is awake led a market: which, when it began, how long, µs."""

    # --- Time -------------------------------------------------------------------------------

    def at(self, when: int, do: Callable[[], None]) -> None:
        """Have something done at a time."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, do))

    def later(self, do: Callable[[], None], delay: int | None = None) -> None:
        """Have something done after a delay, a message's if none is named."""
        self.at(self.now + (self.delay() if delay is None else delay), do)

    def delay(self) -> int:
        """Give the time that the next message takes."""
        return self.random.randint(FASTEST_US, self._slowest_us)

    def run(self, *, seconds: float) -> None:
        """Let time pass."""
        self.run_until(lambda: False, seconds=seconds, must=False)

    def run_until(
        self, condition: Callable[[], bool], *, seconds: float, must: bool = True
    ) -> float:
        """Let time pass until something is so, at most so long; tell how long it took, in s."""
        began = self.now
        end = began + int(seconds * S)
        version = -1
        while True:
            if version != self.version:
                version = self.version
                if condition():
                    return (self.now - began) / S
            if not self._events or self._events[0][0] > end:
                break
            self.now, _, do = heapq.heappop(self._events)
            do()
        self.now = end

        assert not must, f"not after {seconds} s:\n{self.told()}"
        return seconds

    # --- Actions ----------------------------------------------------------------------------

    def start(self, *names: str, skew_us: int = 0, after_us: int = 0) -> None:
        """Start servers, or start them again; skew_us is how far their clocks are ahead."""
        for name in names:
            before = self.processes.get(name)
            assert before is None or not before.is_alive
            self._count += 1
            incarnation = f"{name}.{self._count}"
            process = Process(self, name, incarnation, skew_us=skew_us)
            self.processes[name] = process
            self.later(process.begin, after_us + self.delay())

    def displace(self, name: str) -> None:
        """Start another process under the name of one that goes on."""
        older = self.processes.pop(name)
        self._displaced.append(older)
        self.start(name)

    def kill(self, name: str) -> None:
        """End a server without a word."""
        self.processes[name].end()

    def pause(self, name: str) -> None:
        """Stop a server where it stands (SIGSTOP)."""
        self.processes[name].pause()

    def resume(self, name: str) -> None:
        """Let it go on (SIGCONT)."""
        self.processes[name].resume()

    def stop(self, name: str) -> None:
        """Tell a server to end (SIGTERM)."""
        self.processes[name].stop()

    def trim(self, market: str, first_sequence: int) -> None:
        """Have a log's beginning removed; who judges it all has kept it."""
        self.note("*", f"{market} is trimmed before {first_sequence}")
        for sequence in range(len(self._trimmed[market]) + 1, first_sequence):
            entry = self.logs[market].entry(sequence)
            assert entry is not None
            self._trimmed[market].append(entry)
        self.logs[market].trim(first_sequence)

    def entry(self, market: str, sequence: int) -> Entry | None:
        """Look at a log's entry, even one that was trimmed."""
        trimmed = self._trimmed[market]
        if sequence <= len(trimmed):
            return trimmed[sequence - 1]
        return self.logs[market].entry(sequence)

    def lose(self, market: str, kept: int) -> None:
        """Have a log lose all behind an entry, as no log may."""
        self.logs[market].lose(kept)
        self._has_lost.add(market)

    def cut(self, one: str, other: str) -> None:
        """Have two servers not reach each other, for NATS' nodes do not tell who listens where."""
        self.cuts.add(frozenset((one, other)))

    def restart_node(self, *names: str, seconds: float = 0.2) -> None:
        """Have servers lose their connections, as a NATS node ends, and find another."""
        for process in self.alive():
            if process.name in names:
                process.disconnect()
            else:
                process.receive_later(lambda p=process: p.elect(ClusterChanged()))  # type: ignore[misc]

        def come_back() -> None:
            for process in self.alive():
                if process.name in names:
                    process.connect()
                process.receive_later(lambda p=process: p.elect(ClusterChanged()))  # type: ignore[misc]

        self.later(come_back, int(seconds * S))

    def meets(self, mishap: Mishap) -> bool:
        """Tell whether the next message meets with a mishap."""
        rate = self.weather.get(mishap, 0)
        does = rate > 0 and self.random.randrange(100) < rate
        if does:
            self.mishaps[mishap] += 1
        return does

    def order(self, market: str) -> int | None:
        """Send a new order to one of those that serve; its number, None if nobody does."""
        if not self._serving(market):
            return None
        self._orders += 1
        number = self._orders

        def note(reply: bytes | None) -> None:
            if reply is not None:
                self.receipts[number] = msgspec.json.decode(reply, type=Receipt)

        self.request(market, "alice", encode(buy("1 @ 100", number)), note)
        return number

    def _serving(self, market: str) -> list["Process"]:
        # NATS knows of a paused one only after a while that it does not listen.
        return [process for process in self.alive() if process.is_up and market in process.serving]

    def request(self, market: str, peer: str, payload: bytes, answer: Answer) -> None:
        """Send a peer's request to one of those that serve."""
        reply_to = self._reply_to(answer)

        def arrive() -> None:
            serving = self._serving(market)
            if not serving:
                self._nobody_serves(reply_to)
                return
            process = self.random.choice(serving)
            if "from peers" in process.cuts:
                return

            def take() -> None:
                process.take(market, Request(peer, payload, reply_to, process.monotonic))

            process.receive(take)

        self._send_off(arrive)

    def query(self, market: str, peer: str, query: Query, answer: Answer) -> None:
        """Ask any server that replicates a market."""
        reply_to = self._reply_to(answer)

        def arrive() -> None:
            servers = [each for each in self.alive() if each.is_up and each.is_registered]
            if not servers:
                self._nobody_serves(reply_to)
                return
            process = self.random.choice(servers)
            if "from peers" in process.cuts:
                return

            def take() -> None:
                process.give(market, Asked(peer, query, reply_to, process.monotonic))

            process.receive(take)

        self._send_off(arrive)

    def administer(
        self, market: str, what: What, change: SpecificationChange | None, answer: Answer
    ) -> None:
        """Tell one of those that serve what an operator wishes."""
        reply_to = self._reply_to(answer)

        def arrive() -> None:
            serving = self._serving(market)
            if serving:
                process = self.random.choice(serving)
                process.receive(lambda: process.give(market, Administered(what, change, reply_to)))

        self._send_off(arrive)

    def _reply_to(self, answer: Answer) -> int:
        self._count += 1
        self._answers[self._count] = answer
        return self._count

    def _send_off(self, arrive: Callable[[], None]) -> None:
        if self.meets("request lost"):
            return
        late = self.random.randrange(LATE_US_MAX) if self.meets("request late") else 0
        self.later(arrive, self.delay() + late)

    def _nobody_serves(self, reply_to: int) -> None:
        answer = self._answers.pop(reply_to)
        self.later(lambda: answer(None))

    def reply(self, reply_to: int, payload: bytes) -> None:
        """Bring a server's answer to whoever waits for it."""
        answer = self._answers.pop(reply_to, None)
        assert answer is not None, "answered twice"
        if not self.meets("reply lost"):
            answer(payload)

    def keep_ordering(self) -> None:
        """Send orders to each market, until told otherwise."""
        self.is_ordering = True

        def order() -> None:
            for market in self.markets:
                self.order(market)
            if self.is_ordering:
                self.later(order, ORDERS_US)

        order()

    # --- How it stands ----------------------------------------------------------------------

    def alive(self) -> list["Process"]:
        """Give the processes that have not ended."""
        processes = [*self.processes.values(), *self._displaced]
        return [process for process in processes if process.is_alive]

    def leaders(self) -> dict[str, list[str]]:
        """Tell who leads each market, of those that are awake."""
        return {
            market: [
                process.name
                for process in self.alive()
                if not process.is_paused and process.roles.get(market) == "leader"
            ]
            for market in self.markets
        }

    def counts(self) -> list[int]:
        """Tell how many markets each server leads that is awake, fewest first."""
        leaders = [name for names in self.leaders().values() for name in names]
        return sorted(
            leaders.count(process.name) for process in self.alive() if not process.is_paused
        )

    def is_led(self) -> bool:
        """Tell whether each market has exactly one leader, the one that is named."""
        named = self.named()
        return all(
            len(names) == 1 and market in named and named[market].server == names[0]
            for market, names in self.leaders().items()
        )

    def is_balanced(self) -> bool:
        """Tell whether, beyond that, nobody leads two more than another."""
        counts = self.counts()
        return self.is_led() and counts[-1] - counts[0] < 2

    def named(self) -> dict[str, LeaderRecord]:
        """Tell who is named to lead each market."""
        if not self.store.is_interrupted:
            for news in self._observer.news().leaders:
                self._named[news.market] = news.record or LeaderRecord()
        return self._named

    def terms(self, market: str) -> list[str]:
        """Tell who began the terms of a market, first to last."""
        return [
            event.server
            for commit in self.commits(market)
            for event in commit.events
            if isinstance(event, LeaderChanged)
        ]

    def changes(self) -> int:
        """Count the terms of all markets."""
        return sum(len(self.terms(market)) for market in self.markets)

    def terms_begun(self) -> int:
        """Count the terms that somebody led."""
        return len(self._terms)

    def commits(self, market: str) -> list[Commit]:
        """Follow a market's log from its beginning as anyone may."""
        state = Market(market)
        log = self.logs[market]
        commits = []
        for sequence in range(1, log.bounds()[1] + 1):
            entry = log.entry(sequence)
            assert entry is not None
            commits.append(state.apply_commit(entry.payload))
        state.check()
        return commits

    def accepted(self) -> list[int]:
        """Give the numbers of the orders that the logs hold, one for each time they do."""
        return [
            int(event.order_id.rpartition("_")[2])
            for market in self.markets
            for commit in self.commits(market)
            for event in commit.events
            if isinstance(event, Accepted)
        ]

    def check(self) -> None:
        """Make sure of what holds whatever happens."""
        accepted = self.accepted()

        assert len(set(accepted)) == len(accepted), "an order was executed twice"
        answered = {number for number, receipt in self.receipts.items() if receipt.status == "new"}
        assert answered <= set(accepted), "what was answered is not in the log"
        refused = {number for number, receipt in self.receipts.items() if receipt.status == "retry"}
        assert not refused & set(accepted), "what is to be sent again was executed"
        assert {receipt.status for receipt in self.receipts.values()} <= {"new", "retry"}
        assert [text for text in self.alarms if "apart" not in text] == []
        for process in self.alive():
            for market, replica in process.replicas.items():
                state = replica.market
                entry = None if state is None else self.logs[market].entry(state.sequence)
                if state is not None and entry is not None and replica.role == "follower":
                    assert state.hash == hash_of(entry.payload)

    def longest_vacancy(self, *, since: int = 0) -> float:
        """Tell for how long nobody led a market at most, in s, of what began since a time."""
        over = [length for _, began, length in self.vacancies if began >= since]
        lasting = [
            self.now - began
            for market, began in self._vacant_since.items()
            if began >= since and not self.leaders()[market]
        ]
        return max([0, *over, *lasting]) / S

    def told(self) -> str:
        """Tell the story, for whoever reads of a failure."""
        lines = [
            f"{when / S:9.4f} {ends} {who} {text}" for when, ends, who, text in self.notes[-80:]
        ]
        lines.append(f"{self.now / S:9.4f} leaders {self.leaders()}")
        lines.append(f"          named {self.named()}")
        for process in self.alive():
            lines.append(f"          {process.name} {process.roles}")
        return "\n".join(lines)

    def note(self, who: str, text: str) -> None:
        """Add to the story."""
        ends = " ".join(str(log.bounds()[1]) for log in self.logs.values())
        self.notes.append((self.now, ends, who, text))

    # --- From processes ---------------------------------------------------------------------

    def has_changed(self) -> None:
        """Take note that somebody leads, or leads no more."""
        self.version += 1
        for market, names in self.leaders().items():
            since = self._vacant_since.get(market)
            if names and since is not None:
                del self._vacant_since[market]
                self.vacancies.append((market, since, self.now - since))
            elif not names and since is None:
                self._vacant_since[market] = self.now

    def leads(self, process: "Process", market: str, term: int) -> None:
        """Take note of a term's leader; there is one."""
        first = self._terms.setdefault((market, term), process)
        # What is lost may have been the beginning of a term.
        assert first is process or market in self._has_lost, (
            f"{first.name} and {process.name} lead {market} in term {term}"
        )

    def broadcast(self, market: str, sequence: int) -> None:
        """Tell everybody who listens of an entry, in the order of the log."""
        entry = self.logs[market].entry(sequence)
        assert entry is not None
        for process in self.alive():
            process.hear(market, entry)
        for hear in self._hears:
            hear(market, entry)

    def on_broadcast(self, hear: Callable[[str, Entry], None]) -> None:
        """Have somebody told of each entry at the moment in which it is stored."""
        self._hears.append(hear)

    def leaders_changed(self) -> None:
        """Tell everybody that somebody was named."""
        self.version += 1
        for process in self.alive():
            if process.is_up:
                process.receive_later(lambda p=process: p.elect(LeadersChanged()))  # type: ignore[misc]


class Process:
    """One start of a server."""

    def __init__(self, cluster: Cluster, name: str, incarnation: str, *, skew_us: int) -> None:
        """Make one that has not begun."""
        self.cluster = cluster
        self.name = name
        self.elections = Elections(name, incarnation)
        self.replicas: dict[str, Replica] = {}
        self.roles: dict[str, Role] = {}
        self.serving: set[str] = set()
        self.is_alive = True
        self.is_paused = False
        # Whether its connections are there, and answered on; whether it reaches the leases.
        self.is_up = True
        self.is_registered = False
        self.cuts: set[Way] = set()
        self.has_left = False
        self.is_leaving = False
        self._is_electing = True
        self._skew = skew_us
        self._clock = cluster.random.randint(1, 1_000) * S
        # One for the leaders, read first, and one for the servers, read then; leaders that were
        # read when the servers could not be.
        self._leases = (MemoryLeases(cluster.store), MemoryLeases(cluster.store))
        self._unread: list[LeaderNews] = []
        self._stood: dict[str, tuple[Role, bool]] = {}
        self._listening: set[str] = set()
        # Of each market: what was taken and not answered.
        self._unanswered: dict[str, set[int]] = {}
        self._heard_at = 0
        self._stopping: set[str] = set()
        self._paused_at = 0
        self._waiting: list[Callable[[], None]] = []

    @property
    def current_roles(self) -> set[Role]:
        """What it is in any market."""
        return {replica.role for replica in self.replicas.values()}

    def reached(self, market: str) -> int:
        """Tell how far its state goes; 0 when it has none."""
        replica = self.replicas.get(market)
        return 0 if replica is None or replica.market is None else replica.market.sequence

    def may_contradict(self, market: str) -> bool:
        """Tell whether it may still answer queries, and by another state than the log's."""
        replica = self.replicas.get(market)
        if not self.is_alive or replica is None or replica.role == "stopped":
            return False
        state = replica.market
        if self.is_paused or state is None or state.sequence == 0:
            return self.is_paused
        entry = self.cluster.entry(market, state.sequence)
        return entry is None or hash_of(entry.payload) != state.hash

    @property
    def monotonic(self) -> int:
        """Its clock that never jumps."""
        return self._clock + self.cluster.now

    @property
    def _instant(self) -> Instant:
        return Instant(NOW + self.cluster.now + self._skew, self.monotonic)

    # --- Its life ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Hold all markets, and take part."""
        cluster = self.cluster
        for market in cluster.markets:
            self.replicas[market] = Replica(
                market,
                server=self.name,
                incarnation=self.elections.incarnation,
                specification=cluster.specifications[market],
                log_id=f"log {market}",
                settings=cluster.settings,
            )
            self.roles[market] = "follower"
            self._unanswered[market] = set()
            self.receive_later(lambda market=market: self.give(market, Start()))  # type: ignore[misc]

        def register() -> None:
            self.is_registered = True

        self.receive_later(register, 2 * MS)
        self._tick_elections()
        self._tick_replicas()

    def end(self) -> None:
        """Be gone."""
        self.is_alive = False
        self.cluster.note(self.name, "is gone")
        self.cluster.has_changed()

    def pause(self) -> None:
        """Do nothing more."""
        self.is_paused = True
        self._paused_at = self.cluster.now
        self.cluster.note(self.name, "is paused")
        self.cluster.has_changed()

    def resume(self) -> None:
        """Go on with what came meanwhile."""
        self.is_paused = False
        self.cluster.note(self.name, "goes on")
        waiting, self._waiting = self._waiting, []
        for do in waiting:
            self.receive(do)
        if self.cluster.now - self._paused_at >= STALE_US:
            self.disconnect()
            self.cluster.later(self.connect, RECONNECTING_US)
        self.cluster.has_changed()

    def turn_clock(self, by_us: int) -> None:
        """Have the clock that others compare jump."""
        self._skew += by_us

    def disconnect(self) -> None:
        """Lose the connections."""
        self.is_up = False
        self.receive(lambda: self.elect(Connected(is_up=False)))

    def connect(self) -> None:
        """Have them again."""
        self.is_up = True
        self.receive(lambda: self.elect(Connected(is_up=True)))

    def stop(self) -> None:
        """Hand everything over, then end."""
        self.is_leaving = True
        self.cluster.note(self.name, "is told to stop")
        self.receive(lambda: self.elect(ToldToLeave()))
        self._in_own_time(self._stop_replicas, LEAVING_US)

    def _stop_replicas(self) -> None:
        if not self._is_electing:
            return
        self._is_electing = False
        self._stopping = set(self.replicas)
        for market in sorted(self._stopping):
            self.give(market, ToldToStop())
        self._in_own_time(self.end, STOPPING_US)

    # --- What reaches it --------------------------------------------------------------------

    def receive(self, do: Callable[[], None]) -> None:
        """Do something now, or when it goes on."""
        if self.is_paused:
            self._waiting.append(do)
        elif self.is_alive:
            do()

    def receive_later(self, do: Callable[[], None], delay: int | None = None) -> None:
        """Do something when a message of now arrives."""
        self.cluster.later(lambda: self.receive(do), delay)

    def _in_own_time(self, do: Callable[[], None], delay: int) -> None:
        self.cluster.later(lambda: self.receive(do), delay)

    def hear(self, market: str, entry: Entry) -> None:
        """Be told of an entry, if it listens."""
        if market not in self._listening or not self.is_up or "from broadcasts" in self.cuts:
            return
        if self.cluster.meets("broadcast lost"):
            return
        # One connection: in the order in which they were sent.
        self._heard_at = max(self._heard_at, self.cluster.now + self.cluster.delay())
        for _ in range(2 if self.cluster.meets("broadcast doubled") else 1):
            self.cluster.at(
                self._heard_at, lambda: self.receive(lambda: self.give(market, Heard([entry])))
            )

    def elect(self, given: ElectionInput) -> None:
        """Take a turn of the elections, with one input."""
        if not self._is_electing:
            return
        # A turn ends with a tick; after an answered ping, the most frequent, it changes nothing.
        turn = (given,) if type(given) is PingAnswered else (given, Tick())
        for each in turn:
            for effect in self.elections.step(each, self._instant):
                self._perform_election(effect)

    def take(self, market: str, request: Request) -> None:
        """Be asked by a peer: one that hands over answers all, before it follows."""
        self._unanswered[market].add(request.reply_to)
        self.give(market, Requests([request]))

    def give(self, market: str, given: Input) -> None:
        """Take a turn of a replica, with one input."""
        replica = self.replicas[market]
        was_retiring = replica.role == "retiring"
        for effect in replica.step(given, self._instant):
            self._perform(market, effect)
        unanswered = self._unanswered[market]
        if replica.market is None:
            # One that was deposed tells nobody what became of what it executed.
            unanswered.clear()
        elif was_retiring and replica.role != "retiring":
            assert not unanswered, f"{self.name} handed over and left {len(unanswered)} unanswered"
        while replica.has_more_to_tell:
            for effect in replica.step(Tick(), self._instant):
                self._perform(market, effect)
        stands = (replica.role, replica.could_lead(self._instant))
        if stands == self._stood.get(market):
            return
        self._stood[market] = stands
        if stands[0] != self.roles[market]:
            self.roles[market] = stands[0]
            if stands[0] == "leader":
                assert replica.market is not None
                self.cluster.leads(self, market, replica.market.term)
            self.cluster.note(self.name, f"{market} {stands[0]}")
            self.cluster.has_changed()
        self._in_own_time(lambda: self.elect(ReplicaStands(market, *stands)), 50)

    def _tick_elections(self) -> None:
        if self._is_electing:
            for effect in self.elections.step(Tick(), self._instant):
                self._perform_election(effect)
            delay = ELECTIONS_TICK_US * self.cluster.tick_factor
            self._in_own_time(self._tick_elections, delay)

    def _tick_replicas(self) -> None:
        for market in self.replicas:
            self.give(market, Tick())
        delay = REPLICAS_TICK_US * self.cluster.tick_factor
        self._in_own_time(self._tick_replicas, delay)

    # --- Effects of the elections -----------------------------------------------------------

    def _perform_election(self, effect: ElectionEffect) -> None:
        match effect:
            case ReadLeases():
                self.cluster.later(self._read_leaders)
            case Renew():
                self._write(
                    lambda: self._leases[0].renew(effect.record),
                    lambda _: Renewed(),
                    RenewalFailed(),
                )
            case Name():
                self.cluster.note(
                    self.name, f"{effect.market} names {effect.record.server or 'nobody'}"
                )
                self._write(
                    lambda: self._name(effect),
                    lambda revision: Named(effect.market, effect.record, revision),
                    NamingUnknown(effect.market),
                )
            case Ping():
                self.cluster.later(lambda: self._ping(effect.server))
            case Nominate():
                self._in_own_time(lambda: self.give(effect.market, Nominated()), 50)
            case Dismiss():
                self._in_own_time(lambda: self.give(effect.market, Dismissed()), 50)
            case Assign():
                self._in_own_time(lambda: self.give(effect.market, OnDuty(effect.is_mine)), 50)
            case Left():
                assert not self.has_left
                self.has_left = True
                self.cluster.note(self.name, "has left")
                self._in_own_time(self._stop_replicas, 50)
            case Displaced():
                self.cluster.note(self.name, effect.text)
                self.end()
            case Note():
                self.cluster.note(self.name, effect.text)
            case _:
                assert_never(effect)

    @property
    def _reaches_leases(self) -> bool:
        is_interrupted = self.cluster.store.is_interrupted
        return self.is_up and "to the leases" not in self.cuts and not is_interrupted

    @property
    def _hears_from_leases(self) -> bool:
        return "from the leases" not in self.cuts

    def _read_leaders(self) -> None:
        if not self._reaches_leases or not self._hears_from_leases:
            self.receive_later(lambda: self.elect(LeasesUnread()), TIMEOUT_US)
            return
        self._unread += self._leases[0].news().leaders
        self.cluster.later(self._read_servers)

    def _read_servers(self) -> None:
        if not self._reaches_leases or not self._hears_from_leases:
            self.receive_later(lambda: self.elect(LeasesUnread()), TIMEOUT_US)
            return
        news = News(self._leases[1].news().servers, self._unread)
        self._unread = []
        self.receive_later(lambda: self.elect(LeasesRead(news)))

    def _name(self, effect: Name) -> int | None:
        revision = self._leases[0].name(effect.market, effect.record, after=effect.after)
        if revision is not None:
            self.cluster.leaders_changed()
        return revision

    def _write(
        self, do: Callable[[], T], done: Callable[[T], ElectionInput], unknown: ElectionInput
    ) -> None:
        cluster = self.cluster

        def give_up() -> None:
            self.receive_later(lambda: self.elect(unknown), TIMEOUT_US)

        def arrive() -> None:
            if not self._reaches_leases or cluster.meets("lease not written"):
                give_up()
            elif cluster.meets("lease written late"):
                cluster.later(land, cluster.random.randrange(2 * TIMEOUT_US))
                give_up()
            else:
                result = do()
                if self._hears_from_leases and not cluster.meets("lease written, unanswered"):
                    self.receive_later(lambda: self.elect(done(result)))
                else:
                    give_up()

        def land() -> None:
            if not cluster.store.is_interrupted:
                do()

        cluster.later(arrive)

    def _ping(self, server: str) -> None:
        other = self.cluster.processes.get(server)
        if not self.is_up:
            self.receive_later(lambda: self.elect(PingLost(server)))
            return
        is_heard = (
            other is not None
            and other.is_alive
            and other.is_up
            and other.is_registered
            and frozenset((self.name, server)) not in self.cluster.cuts
        )
        if not is_heard:
            self.receive_later(lambda: self.elect(PingRefused(server)))
            return
        assert other is not None
        if other.is_paused:
            is_dropped = self.cluster.now - other._paused_at >= STALE_US
            if is_dropped:
                self.receive_later(lambda: self.elect(PingRefused(server)))
            else:
                self.receive_later(lambda: self.elect(PingLost(server)), PING_TIMEOUT_US)
            return
        self.receive_later(lambda: self.elect(PingAnswered(server)))

    # --- Effects of a replica ---------------------------------------------------------------

    def _perform(self, market: str, effect: Effect) -> None:
        cluster = self.cluster
        match effect:
            case Append():
                cluster.later(
                    lambda: self._append(market, effect),
                    cluster.delay() + (AGAIN_US if effect.again else 0),
                )
            case Look() | FindEnd() | ReadLog() | ListSnapshots() | LoadSnapshot() | SaveSnapshot():
                self._ask(market, effect)
            case TakeSnapshot() | HashState():
                state = self.replicas[market].market
                assert state is not None
                written = performing.written(effect, state)
                self._in_own_time(lambda: self.give(market, written), 5 * MS)
            case RemoveSnapshot():
                cluster.later(lambda: cluster.snapshots.remove(effect.name))
            case TrimLog():
                cluster.trim(market, effect.first_sequence)
            case Send():
                payload, reply_to = effect.payload, effect.reply_to
                self._unanswered[market].discard(reply_to)
                if self.is_up and "to peers" not in self.cuts:
                    cluster.later(lambda: cluster.reply(reply_to, payload))
            case Serve():
                self.serving.add(market)
            case Unserve():
                self.serving.discard(market)
            case Listen():
                self._listening.add(market)
            case Unlisten():
                self._listening.discard(market)
            case Alarm():
                cluster.note(self.name, effect.text)
                cluster.alarms.append(effect.text)
            case Note():
                cluster.note(self.name, f"{market} {effect.text}")
            case Stopped():
                self._stopping.discard(market)
                if not self._stopping:
                    self.end()
            case _:
                assert_never(effect)

    @property
    def _reaches_log(self) -> bool:
        return self.is_up and "to the log" not in self.cuts and not self.cluster.is_log_silent

    @property
    def _hears_from_log(self) -> bool:
        return "from the log" not in self.cuts

    def _append(self, market: str, effect: Append) -> None:
        cluster = self.cluster
        sequence = effect.after.sequence + 1

        def give_up() -> None:
            undecided = AppendUndecided(sequence, "no answer")
            self.receive_later(lambda: self.give(market, undecided), TIMEOUT_US)

        def land() -> bool:
            last = cluster.logs[market].bounds()[1]
            try:
                cluster.logs[market].append(effect.payload, after=effect.after)
            except Undecided:
                return False
            if cluster.logs[market].bounds()[1] > last:
                cluster.broadcast(market, sequence)
            return True

        def land_late() -> None:
            cluster.later(land, cluster.random.randrange(LATE_US_MAX))

        if not self._reaches_log or cluster.meets("append lost"):
            give_up()
            return
        if cluster.meets("append late"):
            land_late()
            give_up()
            return
        if cluster.meets("append doubled"):
            land_late()
        has_landed = land()
        if not self._hears_from_log or cluster.meets("append unanswered"):
            give_up()
            return
        answer: Input = AppendConfirmed(sequence)
        if not has_landed:
            answer = AppendUndecided(sequence, "another's entry stands there, or none before it")
        for _ in range(2 if cluster.meets("append answered twice") else 1):
            self.receive_later(lambda: self.give(market, answer))

    def _ask(self, market: str, question: performing.Question) -> None:
        # Asked again until it is answered, as the driver does.
        cluster = self.cluster

        def arrive() -> None:
            is_silent = cluster.meets("log silent to a question")
            if is_silent or not self._reaches_log or not self._hears_from_log:
                self.receive_later(lambda: self._ask(market, question), TIMEOUT_US // 5 + AGAIN_US)
                return
            log, snapshots = cluster.logs[market], cluster.snapshots
            given = performing.answer(
                question, market, log, snapshots, read_bytes_max=READ_BYTES_MAX
            )
            self.receive_later(lambda: self.give(market, given))

        cluster.later(arrive)


def a_cluster(*names: str, markets: int = 1, seed: int = 0) -> Cluster:
    """Make a cluster whose servers lead about the same number of markets, and have for a while."""
    cluster = Cluster(markets=markets, seed=seed)
    cluster.start(*names)
    cluster.run_until(cluster.is_balanced, seconds=10)
    # No market is restless any more, and every connection is old enough to be believed.
    cluster.run(seconds=6)
    return cluster
