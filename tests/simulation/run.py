"""One simulated world from its beginning to its end, and what became of it: all from one seed.

Theory of operation. Servers start and peers trade; a nemesis strikes until there were enough faults
and the leader has changed; then everything is healed, everybody comes back, and all must end in
peace: each request with an outcome, each replica at the log's end. What was recorded on the way
goes to the checker, which knows nothing of simulations; a few things only a simulation sees are
added here (`Trouble`).
"""

import json
import traceback
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final

from msgspec import Struct

from dex_protocol.administration import What
from dex_protocol.codec import encode
from dex_protocol.limits import RETRY_WINDOW_COUNT
from dex_protocol.specification import Specification, SpecificationChange
from dex_server import snapshotting
from tests.builders import a_specification
from tests.checker.checker import Verdict, check
from tests.checker.history import End, History
from tests.simulation.cluster import MISHAPS, MS, Cluster, S
from tests.simulation.nemesis import Nemesis
from tests.simulation.peers import PACE_US, Peer
from tests.simulation.watchers import Watcher

FAULTS_MIN: Final = 10
"""Faults in each world, not counting mishaps of single messages."""

STORM_S_MIN: Final = 5
STORM_S_MAX: Final = 40
"""How long a world is hurt: until there were enough faults, and a change of leader."""

PEACE_S_MAX: Final = 60
"""How long everything may take to be well again: a leader that has no sign from the log gives up
after 15 s, and peers after 30 s."""

CRUEL_PERCENT: Final = 12
"""In so many of a hundred worlds a log may lose its tail, or a snapshot be false."""


class Trouble(Struct, frozen=True):
    """Something that must not be, and that only a simulation sees."""

    kind: str
    """`crash`, `alarm`, `stuck`, `calm` (too few faults, or no change of leader), `state` (servers
    differ in what no digest covers), `watcher`."""
    text: str


class Outcome(Struct):
    """What became of one world."""

    seed: int
    verdict: Verdict
    troubles: list[Trouble]
    faults: Counter[str]
    mishaps: Counter[str]
    changes: int
    """Of leaders, after each market's first."""
    commits: int
    seconds: float
    """Of virtual time."""

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong."""
        return not self.troubles and not self.verdict.violations


class World:
    """One simulated world."""

    def __init__(self, seed: int) -> None:
        """Choose everything; `run` lets it happen."""
        self.seed = seed
        self.random = random = Random(seed)
        self.history = History()
        is_cruel = random.randrange(100) < CRUEL_PERCENT
        market_count = 2 if random.random() < 0.2 else 1
        self.cluster = Cluster(
            markets=market_count,
            seed=random.randrange(2**32),
            slowest_us=random.choice((1_500, 1_500, 20_000)),
            specify=self._specification,
            window=random.choice((1, 1, 2, 4)),
            snapshot_commits=random.choice((4, 12, 40)),
            trims_log=not is_cruel and random.random() < 0.15,
        )
        self.history.specifications = {
            market: json.loads(encode(specification))
            for market, specification in self.cluster.specifications.items()
        }
        self.servers = [f"server-{number}" for number in range(1, random.randint(2, 4) + 1)]
        self.cluster.weather = dict.fromkeys(MISHAPS, 1) if random.random() < 0.6 else {}
        self.nemesis = Nemesis(
            self.cluster,
            self.history,
            random=Random(random.randrange(2**32)),
            is_cruel=is_cruel,
        )
        self.peers = [
            Peer(
                self.cluster,
                name,
                self.history,
                random=Random(random.randrange(2**32)),
                pace_us=PACE_US,
            )
            for name in ("alice", "bob", "carol")[: random.randint(2, 3)]
        ]
        if random.random() < 0.1:
            # Whose connection is closed for good: its last commands have no outcome.
            unlucky = random.choice(self.peers)
            self.cluster.later(unlucky.close, random.randrange(1 * S, 8 * S))
        self.watchers = [Watcher(self.cluster, market) for market in self.cluster.markets]
        self.troubles: list[Trouble] = []

    def _specification(self, market: str) -> Specification:
        fields: dict[str, Any] = {}
        if self.random.random() < 0.2:
            fields["max_open_orders"] = self.random.choice((3, 8))
        if self.random.random() < 0.2:
            fields["price_band"] = "0.001"
        return a_specification(market=market, **fields)

    # --- What happens -----------------------------------------------------------------------

    def run(self) -> Outcome:
        """Let it happen, and judge it."""
        try:
            self._happen()
        except Exception:  # noqa: BLE001  (whatever it is, its seed is told)
            self._trouble("crash", traceback.format_exc())
        self._collect()
        verdict = check(self.history, window=RETRY_WINDOW_COUNT)
        cluster = self.cluster
        return Outcome(
            self.seed,
            verdict,
            self.troubles,
            self.nemesis.faults,
            Counter({str(mishap): count for mishap, count in cluster.mishaps.items()}),
            self._changes(),
            sum(cluster.logs[market].bounds()[1] for market in cluster.markets),
            cluster.now / S,
        )

    def _happen(self) -> None:
        cluster = self.cluster
        cluster.start(*self.servers)
        if not self._wait(cluster.is_led, PEACE_S_MAX):
            self._trouble("stuck", "nobody leads at the beginning")
        for peer in self.peers:
            peer.trade()
        self.nemesis.begin()
        self._operate()
        began = cluster.now
        cluster.run(seconds=STORM_S_MIN)
        while cluster.now - began < STORM_S_MAX * S:
            if self._is_enough() and cluster.now >= self.nemesis.waits_until:
                break
            cluster.run(seconds=0.5)
            if sum(self.nemesis.faults.values()) >= FAULTS_MIN and self._changes() < 1:
                self.nemesis.strike("server killed")
        self.nemesis.heal()
        self._go_on_without_one()
        self._come_back()
        cluster.run(seconds=1)
        for peer in self.peers:
            peer.is_trading = False
        if not self._wait(self._is_at_peace, PEACE_S_MAX):
            self._trouble("stuck", self._how_it_stands())
        if not self._is_enough():
            self._trouble("calm", f"{self._changes()} changes of leader, {self.nemesis.faults}")
        self._compare_states()
        for text in cluster.alarms:
            if not self._is_expected(text):
                self._trouble("alarm", text)
        for watcher in self.watchers:
            if watcher.wrong and not self.history.losses:
                self._trouble("watcher", f"{watcher.name}: {watcher.wrong[0]}")

    def _operate(self) -> None:
        # An operator halts a market for a moment now and then, and changes what may be changed.
        cluster = self.cluster

        def wish(market: str, what: What, change: SpecificationChange | None = None) -> None:
            cluster.administer(market, what, change, lambda _: None)

        def act() -> None:
            if not self.nemesis.is_at_work:
                for market in cluster.markets:
                    wish(market, "resume")
                return
            market = self.random.choice(cluster.markets)
            if self.random.random() < 0.4:
                wish(market, "halt")
                cluster.later(lambda: wish(market, "resume"), 200 * MS)
            else:
                max_quantity = self.random.choice(("7", "1000"))
                wish(market, "change", SpecificationChange(max_quantity=max_quantity))
                # Had a resumption been lost.
                wish(market, "resume")
            cluster.later(act, self.random.randrange(3 * S))

        act()

    def _go_on_without_one(self) -> None:
        # A market gets a leader by itself, though a server stays dead or stands still.
        cluster = self.cluster
        alive = [process for process in cluster.processes.values() if process.is_alive]
        if self._needs_operator or len(alive) < 2 or self.random.random() < 0.6:
            return
        leading = [process for process in alive if "leader" in process.roles.values()]
        victim = self.random.choice(leading or alive)
        if self.random.random() < 0.5:
            victim.end()
        else:
            victim.pause()
        others = [process for process in alive if process is not victim]

        def is_over() -> bool:
            # One that finds a newer process of its name ends, and nobody starts it again here.
            return cluster.is_led() or not any(process.is_alive for process in others)

        if not self._wait(is_over, PEACE_S_MAX):
            self._trouble("stuck", f"without {victim.name}:\n{self._how_it_stands()}")
        if victim.is_alive:
            victim.resume()

    def _come_back(self) -> None:
        for name, process in sorted(self.cluster.processes.items()):
            if not process.is_alive:
                self.cluster.start(name, after_us=self.random.randrange(200 * MS))
        if self._needs_operator:
            for watcher in self.watchers:
                # A client that holds what was lost learns of it by the next commit; none may come.
                watcher.begin()
        self._look_after()

    @property
    def _needs_operator(self) -> bool:
        return bool(self.history.losses) or self.nemesis.has_falsified

    def _remove_snapshots(self) -> None:
        for market in self.cluster.markets:
            for name in self.cluster.snapshots.names(market):
                self.cluster.snapshots.remove(name)

    def _look_after(self) -> None:
        # Whoever was told to stop is started again when it has ended. Whoever stopped by itself
        # waits for an operator, who has the log believed.
        for name, process in sorted(self.cluster.processes.items()):
            if process.is_alive and self._needs_operator and "stopped" in process.current_roles:
                process.end()
                self._remove_snapshots()
            if not process.is_alive:
                self.cluster.start(name)
        self.cluster.later(self._look_after, 1 * S)

    def _compare_states(self) -> None:
        # All that is replicated, not only the book: outcomes, deadlines and counters too.
        for market in self.cluster.markets:
            states = {
                process.name: snapshotting.write(process.replicas[market].market).state
                for process in self.cluster.alive()
                if process.reached(market) == self.cluster.logs[market].bounds()[1]
            }
            if len(set(states.values())) > 1:
                self._trouble("state", f"{market}: {states}")

    # --- How it stands ----------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = self.cluster.now + int(seconds * S)
        while not condition():
            if self.cluster.now >= end:
                return False
            self.cluster.run(seconds=0.1)
        return True

    def _changes(self) -> int:
        return self.cluster.terms_begun() - len(self.cluster.markets)

    def _is_enough(self) -> bool:
        return sum(self.nemesis.faults.values()) >= FAULTS_MIN and self._changes() >= 1

    def _is_at_peace(self) -> bool:
        cluster = self.cluster
        if any(peer.under_way for peer in self.peers) or not cluster.is_led():
            return False
        for market in cluster.markets:
            last = cluster.logs[market].bounds()[1]
            replicas = [process.replicas.get(market) for process in cluster.alive()]
            if any(replica is None or replica.stored != last for replica in replicas):
                return False
            if any(replica is None or not replica.is_current for replica in replicas):
                return False
            # A leader's state may be ahead of what is stored.
            if any(process.reached(market) != last for process in cluster.alive()):
                return False
        return all(
            watcher.market.sequence == cluster.logs[watcher.name].bounds()[1]
            for watcher in self.watchers
        )

    def _how_it_stands(self) -> str:
        cluster = self.cluster
        lines = [cluster.told()]
        lines += [f"{peer.name}: {peer.under_way} under way" for peer in self.peers]
        for market in cluster.markets:
            lines.append(f"{market}: log {cluster.logs[market].bounds()}")
            for process in cluster.alive():
                replica = process.replicas.get(market)
                if replica is not None:
                    lines.append(f"  {process.name}: {replica.standing}")
        lines += [f"watcher of {each.name}: {each.market.sequence}" for each in self.watchers]
        return "\n".join(lines)

    def _is_expected(self, alarm: str) -> bool:
        # Clocks that differ are told of.
        return "apart" in alarm or self._needs_operator

    def _trouble(self, kind: str, text: str) -> None:
        self.troubles.append(Trouble(kind, text))

    def _collect(self) -> None:
        cluster, history = self.cluster, self.history
        for peer in self.peers:
            for sent in peer.replayed:
                # What the library made of its own copies says nothing of the others.
                sent.believed = ""
        for market in cluster.markets:
            log = cluster.logs[market]
            entries = [cluster.entry(market, each) for each in range(1, log.bounds()[1] + 1)]
            history.logs[market] = [each.payload.decode() for each in entries if each is not None]
            for process in cluster.alive():
                replica = process.replicas.get(market)
                state = None if replica is None else replica.market
                if state is not None:
                    end = End(process.name, market, state.sequence, state.hash, state.digest)
                    history.ends.append(end)
        for watcher in self.watchers:
            state = watcher.market
            end = End("a client", watcher.name, state.sequence, watcher.hash, state.digest)
            history.ends.append(end)


def judge(outcome: Outcome) -> str:
    """Say what was wrong, for people."""
    lines = [f"{each.kind}: {each.text}" for each in outcome.troubles]
    lines += [
        f"{each.rule}: {each.market} {each.what}: {each.text}"
        for each in outcome.verdict.violations
    ]
    return "\n".join(lines)
