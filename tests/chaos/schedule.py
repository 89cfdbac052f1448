"""What is done to a cluster, and when: a pure function of a seed and a duration.

Theory of operation. A *fault* is one blow, or a pair of blows that overlap; between two faults all
is healed for a while, so that leaders exist again. Kinds of faults come from a shuffled deck, so a
run of two minutes sees most of them once before any comes again; pauses are chosen so that some
40 % of the time is faulty. Whom a blow meets is a name, or a part that somebody plays just then
(the leader of a market, the node that leads its log): who that is is looked up when it falls.

However the parts are cast, a fault hurts at most one of three nodes and two of three servers: a
majority of nodes always goes on, and a server that may lead.
"""

from collections.abc import Callable
from random import Random
from typing import Final, Literal, TypeAlias

from msgspec import Struct, structs

from tests.chaos.network import LOADS, NEWCOMER, NODES, SERVERS, CutMode, neighbours

MARKETS: Final = ("BTC-USD", "ETH-USD")

WARM_UP_S: Final = 4.0
"""Before the first fault: servers act on a 503 only when they have been connected for 2 s."""

CALM_MIN_S: Final = 3.0
"""Between two faults: what comes back needs a second or two to hold its data again."""

CALM_MAX_S: Final = 11.0
"""Between two faults: an election in NATS takes 4 to 9 s."""

ELECTION_S: Final = 10.0
"""From the beginning of a fault that hurts a node to the next fault: then that election is over,
also when the node is back before."""

TAIL_S: Final = 6.0
"""After the last fault, within the duration."""

FAULTY_SHARE: Final = 0.42
"""How much of the time between the first fault and the last pause is faulty."""

How: TypeAlias = Literal["kill", "stop", "pause", "cut", "slow", "join"]
"""By SIGKILL, or by SIGTERM, and started again; SIGSTOP and SIGCONT; links cut, or slow; a server
more, which goes again."""


class Blow(Struct, frozen=True):
    """One thing that is done to one party, and undone."""

    how: How
    whom: str
    """A name; or `leader <market>` for the server, `holder <market>` for the node that leads its
    log."""
    otherwise: str
    """Who is meant when nobody plays that part."""
    begins: float
    """Seconds after the start of the run."""
    ends: float
    others: tuple[str, ...] = ()
    """Whom it is cut off from; empty: from all nodes (but itself)."""
    mode: CutMode = "held"
    delay_ms: int = 0
    jitter_ms: int = 0

    def __str__(self) -> str:
        """Say it in a few words."""
        match self.how:
            case "cut":
                off = ", ".join(self.others) or "all nodes"
                detail = f" off from {off} ({self.mode})"
            case "slow":
                detail = f" by {self.delay_ms} ms"
                detail += f" and up to {self.jitter_ms} ms more" if self.jitter_ms else ""
            case _:
                detail = ""
        return f"{self.how} {self.whom}{detail}"


class Fault(Struct, frozen=True):
    """What goes wrong at a time; one or two blows, none before it, none after it."""

    kind: str
    blows: tuple[Blow, ...]

    @property
    def begins(self) -> float:
        """When the first blow falls, in seconds after the start of the run."""
        return min(blow.begins for blow in self.blows)

    @property
    def ends(self) -> float:
        """When all is healed."""
        return max(blow.ends for blow in self.blows)

    @property
    def hurts_node(self) -> bool:
        """Whether a node is hurt, and logs perhaps need other leaders."""
        return any(blow.otherwise in NODES for blow in self.blows)

    def __str__(self) -> str:
        """Say it in a line."""
        blows = " + ".join(f"{blow} for {blow.ends - blow.begins:.1f} s" for blow in self.blows)
        return f"{self.begins:6.1f} s  {self.kind}: {blows}"


class _Dice:
    # Chance, in the words that the kinds below need.
    def __init__(self, random: Random) -> None:
        self.random = random

    def server(self) -> tuple[str, str]:
        # Mostly one that leads: what a follower suffers is seen by nobody.
        name = self.random.choice(SERVERS)
        market = self.random.choice(MARKETS)
        return (f"leader {market}", name) if self.random.random() < 0.7 else (name, name)

    def node(self) -> tuple[str, str]:
        name = self.random.choice(NODES)
        market = self.random.choice(MARKETS)
        return (f"holder {market}", name) if self.random.random() < 0.6 else (name, name)

    def named_node(self) -> tuple[str, str]:
        name = self.random.choice(NODES)
        return name, name

    def load(self) -> tuple[str, str]:
        name = self.random.choice(LOADS)
        return name, name

    def mode(self, *modes: CutMode) -> CutMode:
        return self.random.choice(modes)

    def lasting(self, least: float, most: float) -> float:
        return round(self.random.uniform(least, most), 1)


def _blow(how: How, whom: tuple[str, str], lasting: float, **more: object) -> Blow:
    return Blow(how, *whom, begins=0.0, ends=lasting, **more)  # type: ignore[arg-type]


def _later(blow: Blow, by: float) -> Blow:
    begins, ends = round(blow.begins + by, 1), round(blow.ends + by, 1)
    return structs.replace(blow, begins=begins, ends=ends)


def _server_kill(dice: _Dice) -> list[Blow]:
    return [_blow("kill", dice.server(), dice.lasting(1, 4))]


def _server_pause(dice: _Dice) -> list[Blow]:
    return [_blow("pause", dice.server(), dice.lasting(0.3, 8))]


def _server_stop(dice: _Dice) -> list[Blow]:
    return [_blow("stop", dice.server(), dice.lasting(1, 4))]


def _server_cut_from_one(dice: _Dice) -> list[Blow]:
    # From one node it may not even be connected to; from two it is nearly cut off.
    others = tuple(sorted(dice.random.sample(NODES, dice.random.choice((1, 2)))))
    mode = dice.mode("held", "mute", "deaf", "refused")
    return [_blow("cut", dice.server(), dice.lasting(1, 6), others=others, mode=mode)]


def _server_cut_off(dice: _Dice) -> list[Blow]:
    mode = dice.mode("held", "mute", "deaf", "refused")
    return [_blow("cut", dice.server(), dice.lasting(1, 8), mode=mode)]


def _node_kill(dice: _Dice) -> list[Blow]:
    return [_blow("kill", dice.node(), dice.lasting(1, 5))]


def _node_stop(dice: _Dice) -> list[Blow]:
    return [_blow("stop", dice.node(), dice.lasting(1, 4))]


def _node_pause(dice: _Dice) -> list[Blow]:
    return [_blow("pause", dice.node(), dice.lasting(0.3, 8))]


def _node_cut_off(dice: _Dice) -> list[Blow]:
    mode = dice.mode("held", "refused")
    return [_blow("cut", dice.node(), dice.lasting(2, 10), mode=mode)]


def _node_cut_one_way(dice: _Dice) -> list[Blow]:
    return [_blow("cut", dice.node(), dice.lasting(2, 8), mode=dice.mode("mute", "deaf"))]


def _nodes_cut_apart(dice: _Dice) -> list[Blow]:
    # Both still reach the third.
    name = dice.named_node()
    other = dice.random.choice(neighbours(name[0]))
    mode = dice.mode("held", "mute", "deaf", "refused")
    return [_blow("cut", name, dice.lasting(2, 8), others=(other,), mode=mode)]


def _load_cut_off(dice: _Dice) -> list[Blow]:
    mode = dice.mode("held", "mute", "deaf", "refused")
    return [_blow("cut", dice.load(), dice.lasting(1, 6), mode=mode)]


def _slow(dice: _Dice) -> list[Blow]:
    whom = dice.random.choice((dice.server, dice.node, dice.load))()
    delay = dice.random.choice((5, 20, 50, 100, 200))
    jitter = dice.random.choice((0, delay // 2, delay))
    return [_blow("slow", whom, dice.lasting(2, 7), delay_ms=delay, jitter_ms=jitter)]


def _newcomer(dice: _Dice) -> list[Blow]:
    # It joins, and leaves: by SIGTERM, with whatever it leads by then.
    return [_blow("join", (NEWCOMER, NEWCOMER), dice.lasting(3, 7))]


def _pair(first: Blow, second: Blow, dice: _Dice) -> list[Blow]:
    # So that they overlap, whichever is the shorter.
    return [first, _later(second, dice.lasting(0, min(1.0, first.ends)))]


def _server_kill_node_kill(dice: _Dice) -> list[Blow]:
    return _pair(_server_kill(dice)[0], _node_kill(dice)[0], dice)


def _node_pause_server_kill(dice: _Dice) -> list[Blow]:
    return _pair(_node_pause(dice)[0], _server_kill(dice)[0], dice)


def _node_cut_off_server_pause(dice: _Dice) -> list[Blow]:
    return _pair(_node_cut_off(dice)[0], _server_pause(dice)[0], dice)


def _two_servers(dice: _Dice) -> list[Blow]:
    kinds = (_server_kill, _server_pause, _server_stop, _server_cut_off)
    first = dice.random.choice(kinds)(dice)[0]
    return _pair(first, dice.random.choice(kinds)(dice)[0], dice)


def _newcomer_server_stop(dice: _Dice) -> list[Blow]:
    return _pair(_newcomer(dice)[0], _server_stop(dice)[0], dice)


KINDS: Final[dict[str, Callable[[_Dice], list[Blow]]]] = {
    "server killed": _server_kill,
    "server paused": _server_pause,
    "server stopped": _server_stop,
    "server cut from some nodes": _server_cut_from_one,
    "server cut off": _server_cut_off,
    "node killed": _node_kill,
    "node stopped": _node_stop,
    "node paused": _node_pause,
    "node cut off": _node_cut_off,
    "node cut one way": _node_cut_one_way,
    "nodes cut apart": _nodes_cut_apart,
    "load cut off": _load_cut_off,
    "slow links": _slow,
    "newcomer": _newcomer,
    "server and node killed": _server_kill_node_kill,
    "node paused, server killed": _node_pause_server_kill,
    "node cut off, server paused": _node_cut_off_server_pause,
    "two servers": _two_servers,
    "newcomer, server stopped": _newcomer_server_stop,
}
"""What may go wrong, one kind at a time."""


def schedule(seed: int, duration: float) -> list[Fault]:
    """Give the faults of a run, in order; none when it is too short for any.

    Args:
        seed: The same makes the same, for a duration.
        duration: Of the run, in seconds, quiet times at its ends included.
    """
    random = Random(f"chaos {seed}")
    dice = _Dice(random)
    faults: list[Fault] = []
    deck: list[str] = []
    now, faulty = WARM_UP_S, 0.0
    while True:
        if not deck:
            deck = random.sample(list(KINDS), len(KINDS))
        kind = deck.pop()
        fault = Fault(kind, tuple(_later(blow, now) for blow in KINDS[kind](dice)))
        if fault.ends > duration - TAIL_S:
            return faults
        faults.append(fault)
        faulty += fault.ends - fault.begins
        # What makes the share right by the next fault.
        calm = faulty / FAULTY_SHARE + WARM_UP_S - fault.ends
        now = fault.ends + min(max(calm, CALM_MIN_S), CALM_MAX_S)
        if fault.hurts_node:
            now = max(now, fault.begins + ELECTION_S)
        now = round(now, 1)
