"""What goes wrong in a simulated world, and when: all of it from one seed.

Theory of operation. FAULTS is a table: each fault does something to the world, and gives what
undoes it, or None when nothing has to be undone. A `Nemesis` picks one every so often, mostly aimed
at whoever leads, and undoes each after a while; at the end of the storm `heal` undoes everything.
Small mishaps of single messages, which happen all the time, are the world's weather; some faults
make it worse for a while.

Knows nothing of what peers do, nor of what must hold.
"""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

from dex_server.replication.ports import SnapshotName
from tests.checker.history import History, Loss
from tests.simulation.cluster import MISHAPS, MS, WAYS, Cluster, Mishap, Process, S

Undo = Callable[[], None] | None

SERVERS_MAX: Final = 5

ANSWERED_US: Final = 100 * MS
"""How long answers may be on their way, and how often somebody looks."""

DIRECTIONS: Final = {
    "the log": ("to the log", "from the log"),
    "the leases": ("to the leases", "from the leases"),
    "peers": ("to peers", "from peers"),
}


class Nemesis:
    """Hurts one world.

    Attributes:
        faults: How many there were so far, by kind.
        is_at_work: Whether it goes on.
        is_cruel: Whether it may do, once each, what no server gets over without an operator.
        has_falsified: Whether it made a snapshot that contradicts what others hold.
        waits_until: Until when it does nothing new.
    """

    def __init__(
        self, cluster: Cluster, history: History, *, random: Random, is_cruel: bool
    ) -> None:
        """Prepare; what happened to the logs themselves is noted in the history."""
        self.faults: Counter[str] = Counter()
        self.is_at_work = False
        self.is_cruel = is_cruel
        self.has_falsified = False
        self.waits_until = 0
        self._cluster = cluster
        self._history = history
        self._random = random
        self._damaged: set[SnapshotName] = set()
        self._undo: dict[int, Callable[[], None]] = {}
        self._count = 0
        self._joined = 0

    # --- When -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Strike now and then, until healed."""
        self.is_at_work = True
        self._act()

    def _act(self) -> None:
        if not self.is_at_work:
            return
        if self._cluster.now >= self.waits_until:
            is_cruel = self.is_cruel and self._random.random() < 0.25
            self.strike(self._random.choice(CRUEL if is_cruel else WEIGHTED))
        self._cluster.later(self._act, self._random.randrange(50 * MS, 1_300 * MS))

    def strike(self, kind: str) -> None:
        """Begin a fault, and undo it after a while; none, where it is impossible just now."""
        did = FAULTS[kind](self)
        if did is NOTHING:
            return
        self.faults[kind] += 1
        if did is None:
            return
        self._count += 1
        number = self._count
        self._undo[number] = did

        def undo() -> None:
            if self._undo.pop(number, None) is not None:
                did()

        # Mostly shorter than what takes anybody for gone, sometimes longer than anything.
        lasting = self._random.choice((50 * MS, 400 * MS, 1_200 * MS, 2_500 * MS, 5 * S))
        self._cluster.later(undo, self._random.randrange(lasting // 2, lasting))

    def heal(self) -> None:
        """Undo everything, and do nothing more."""
        self.is_at_work = False
        for undo in list(self._undo.values()):
            undo()
        self._undo.clear()
        cluster = self._cluster
        cluster.note("*", "all is well from here on")
        # Broadcasts may be lost at any time: whoever listens has to notice even of the last.
        cluster.weather = {"broadcast lost": 50} if self._random.random() < 0.1 else {}
        cluster.cuts.clear()
        cluster.is_log_silent = cluster.store.is_interrupted = False
        for process in cluster.alive():
            process.cuts.clear()

    # --- Whom -------------------------------------------------------------------------------

    def someone(self, *, is_paused: bool = False) -> Process | None:
        """Choose a server that lives: one that leads, mostly."""
        alive = [
            process
            for process in self._cluster.processes.values()
            if process.is_alive and process.is_paused == is_paused
        ]
        leading = [process for process in alive if "leader" in process.roles.values()]
        some = leading if leading and self._random.random() < 0.65 else alive
        return self._random.choice(some) if some else None

    def note(self, text: str) -> None:
        """Write it into the story."""
        self._cluster.note("nemesis", text)

    # --- What -------------------------------------------------------------------------------

    def _kill(self) -> Undo:
        process = self.someone()
        if process is None:
            return NOTHING
        self.note(f"kills {process.name}")
        process.end()
        return lambda: self._start_again(process.name)

    def _stop(self) -> Undo:
        process = self.someone()
        if process is None or process.has_left:
            return NOTHING
        self.note(f"tells {process.name} to stop")
        process.stop()
        return lambda: self._start_again(process.name)

    def _strand(self) -> Undo:
        # Who leads, and who is about to, can store nothing and tell nobody, and are told to stop.
        cluster = self._cluster
        self._worsen_for(5 * S, "append lost")
        self.strike("server killed")

        def stop() -> None:
            for process in cluster.alive():
                roles = process.roles.values()
                if not process.is_leaving and ("candidate" in roles or "leader" in roles):
                    self.note(f"tells {process.name} to stop, which nobody hears of")
                    process.cuts.add("to the leases")
                    process.stop()
                    cluster.later(lambda name=process.name: self._start_again(name), 3 * S)  # type: ignore[misc]

        cluster.later(stop, self._random.randrange(200 * MS, 1_500 * MS))
        return None

    def _start_again(self, name: str) -> None:
        process = self._cluster.processes[name]
        if process.is_alive and process.is_leaving:
            # It takes its time.
            self._cluster.later(lambda: self._start_again(name), 500 * MS)
        elif not process.is_alive:
            self.note(f"starts {name}")
            self._cluster.start(name, skew_us=self._random.choice((0, 0, -300 * MS, 300 * MS)))

    def _displace(self) -> Undo:
        process = self.someone()
        if process is None or process.is_leaving:
            return NOTHING
        self.note(f"starts another {process.name}")
        self._cluster.displace(process.name)
        return None

    def _join(self) -> Undo:
        if len(self._cluster.processes) >= SERVERS_MAX:
            return NOTHING
        self._joined += 1
        name = f"new-{self._joined}"
        self.note(f"has {name} join")
        self._cluster.start(name)
        return None

    def _pause(self) -> Undo:
        process = self.someone()
        if process is None:
            return NOTHING
        self.note(f"pauses {process.name}")
        process.pause()

        def resume() -> None:
            if process.is_alive and process.is_paused:
                process.resume()

        return resume

    def _disconnect(self) -> Undo:
        process = self.someone()
        if process is None or not process.is_up:
            return NOTHING
        self.note(f"breaks the connections of {process.name}")
        process.disconnect()

        def connect() -> None:
            if process.is_alive and not process.is_up:
                process.connect()

        return connect

    def _end_node(self) -> Undo:
        # Some servers lose their connections at once, and find another node.
        names = sorted(process.name for process in self._cluster.alive())
        if not names:
            return NOTHING
        some = self._random.sample(names, self._random.randint(1, len(names)))
        self.note(f"ends the node of {', '.join(some)}")
        self._cluster.restart_node(*some, seconds=self._random.choice((0.05, 0.3, 1.5, 2.9)))
        return None

    def _cut(self, what: str) -> Undo:
        process = self.someone()
        if process is None:
            return NOTHING
        ways = DIRECTIONS[what]
        some = set(self._random.choice((ways, ways[:1], ways[1:])))
        self.note(f"cuts {process.name}: {', '.join(sorted(some))}")
        process.cuts |= some
        return lambda: process.cuts.difference_update(some)

    def _isolate(self) -> Undo:
        process = self.someone()
        if process is None:
            return NOTHING
        self.note(f"cuts {process.name} off from everything")
        process.cuts |= set(WAYS)
        return lambda: process.cuts.difference_update(WAYS)

    def _deafen(self) -> Undo:
        process = self.someone()
        if process is None:
            return NOTHING
        self.note(f"keeps broadcasts from {process.name}")
        process.cuts.add("from broadcasts")
        return lambda: process.cuts.discard("from broadcasts")

    def _part(self) -> Undo:
        names = sorted(self._cluster.processes)
        if len(names) < 2:
            return NOTHING
        pair = frozenset(self._random.sample(names, 2))
        self.note(f"cuts {' and '.join(sorted(pair))} off from each other")
        self._cluster.cuts.add(pair)
        return lambda: self._cluster.cuts.discard(pair)

    def _silence_log(self) -> Undo:
        self.note("silences the logs")
        self._cluster.is_log_silent = True
        return lambda: setattr(self._cluster, "is_log_silent", False)

    def _silence_leases(self) -> Undo:
        self.note("silences the leases")
        self._cluster.store.is_interrupted = True
        return lambda: setattr(self._cluster.store, "is_interrupted", False)

    def _turn_clock(self) -> Undo:
        process = self.someone()
        if process is None:
            return NOTHING
        by_us = self._random.choice((-5 * S, -700 * MS, 700 * MS, 5 * S))
        self.note(f"turns the clock of {process.name} by {by_us / S:+.1f} s")
        process.turn_clock(by_us)
        return lambda: process.turn_clock(-by_us)

    def _damage_snapshot(self) -> Undo:
        cluster = self._cluster
        names = [name for market in cluster.markets for name in cluster.snapshots.names(market)]
        if not names:
            return NOTHING
        name = self._random.choice(names)
        good = [
            other for other in cluster.snapshots.names(name.market) if other not in self._damaged
        ]
        if cluster.settings.trims_log and (len(good) < 2 or name in self._damaged):
            # Nothing is left to begin with when a log is trimmed, and no snapshot is good.
            return NOTHING
        self._damaged.add(name)
        self.note(f"damages the snapshot {name.position.sequence} of {name.market}")
        cluster.snapshots.damage(name)
        return None

    def _falsify_snapshot(self) -> Undo:
        # A server holds another state than the others, and writes it down: once, as above. Who is
        # about to lead, and cannot as long as nothing is stored, hears of it then.
        cluster = self._cluster
        names = [name for market in cluster.markets for name in cluster.snapshots.names(market)]
        if not self.is_cruel or self.has_falsified or not names:
            return NOTHING
        self.has_falsified = True
        name = max(names, key=lambda each: each.position.sequence)
        self.note(f"falsifies the snapshot {name.position.sequence} of {name.market}")
        cluster.snapshots.falsify(name)
        self.strike("server killed")
        # Servers compare their states 5 s later, undisturbed.
        self._worsen_for(7 * S, "append lost")
        self.waits_until = cluster.now + 7 * S
        return None

    def _worsen(self, mishaps: tuple[Mishap, ...], percent: int) -> Undo:
        cluster = self._cluster
        self.note(f"worsens the weather: {', '.join(mishaps)}")
        before = {mishap: cluster.weather.get(mishap, 0) for mishap in mishaps}
        cluster.weather |= dict.fromkeys(mishaps, percent)
        return lambda: cluster.weather.update(before)

    def _worsen_for(self, lasting_us: int, mishap: Mishap) -> None:
        restore = self._worsen((mishap,), 100)
        assert restore is not None

        def end() -> None:
            if self.is_at_work:
                restore()

        self._cluster.later(end, lasting_us)

    def _lose_tail(self) -> Undo:
        # The disks of most nodes forgot what they had said to have: once, and only if told so.
        cluster = self._cluster
        market = self._random.choice(cluster.markets)
        first, last = cluster.logs[market].bounds()
        kept = last - self._random.randint(1, 4)
        if not self.is_cruel or self._history.losses or kept < first + 1:
            return NOTHING
        self.note(f"has the log of {market} lose all after {kept}")
        cluster.lose(market, kept)
        loss = Loss(market, (cluster.now + ANSWERED_US) / S, kept)
        self._history.losses.append(loss)
        witnesses = cluster.alive()

        def look() -> None:
            # Those who hold what is lost speak of it until they notice, or until they end; one that
            # is paused may find it among what it has not read yet.
            if any(process.may_contradict(market) for process in witnesses):
                loss.at = (cluster.now + ANSWERED_US) / S
                cluster.later(look, ANSWERED_US)

        cluster.later(look, ANSWERED_US)
        return None


def NOTHING() -> None:
    """What a fault gives that could not be done."""


APPENDS: Final[tuple[Mishap, ...]] = tuple(each for each in MISHAPS if each.startswith("append"))
REQUESTS: Final[tuple[Mishap, ...]] = (
    "request lost",
    "request late",
    "request doubled",
    "reply lost",
)
BROADCASTS: Final[tuple[Mishap, ...]] = ("broadcast lost", "broadcast doubled")
LEASES: Final[tuple[Mishap, ...]] = tuple(each for each in MISHAPS if each.startswith("lease"))

FAULTS: Final[dict[str, Callable[[Nemesis], Undo]]] = {
    "server killed": Nemesis._kill,
    "server paused": Nemesis._pause,
    "server told to stop": Nemesis._stop,
    "server stranded": Nemesis._strand,
    "server displaced": Nemesis._displace,
    "server joins": Nemesis._join,
    "connections broken": Nemesis._disconnect,
    "node ended": Nemesis._end_node,
    "cut off from the log": lambda nemesis: nemesis._cut("the log"),
    "cut off from the leases": lambda nemesis: nemesis._cut("the leases"),
    "cut off from peers": lambda nemesis: nemesis._cut("peers"),
    "cut off from everything": Nemesis._isolate,
    "hears no broadcasts": Nemesis._deafen,
    "servers parted": Nemesis._part,
    "logs silent": Nemesis._silence_log,
    "leases silent": Nemesis._silence_leases,
    "clock jumps": Nemesis._turn_clock,
    "snapshot damaged": Nemesis._damage_snapshot,
    "snapshot falsified": Nemesis._falsify_snapshot,
    "appends go astray": lambda nemesis: nemesis._worsen(APPENDS, 25),
    "requests go astray": lambda nemesis: nemesis._worsen(REQUESTS, 25),
    "broadcasts go astray": lambda nemesis: nemesis._worsen(BROADCASTS, 40),
    "leases go astray": lambda nemesis: nemesis._worsen(LEASES, 20),
    "log loses its tail": Nemesis._lose_tail,
}

WEIGHTED: Final = [
    kind
    for kind in FAULTS
    for _ in range({"server killed": 4, "server paused": 3, "appends go astray": 3}.get(kind, 1))
]

CRUEL: Final = ["snapshot falsified", "log loses its tail"]
