"""What the servers tell of themselves, put side by side: who leads, who lags, whose book differs.

Servers are asked at once but answer at slightly different times, so under load their sequences
differ and only digests at the same sequence can be compared.

A *problem* is what may not be: no leader or two, a leader that its log does not answer, a replica
that has stopped, books that differ. A *remark* is what passes by itself: a replica that is being
built, or is behind.

Pure. Knows nothing of how servers are asked, nor of how this is shown.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct

from dex_protocol.standing import MarketStanding, Role, ServerStanding

LAG_MAX: Final = 100
"""Commits that a replica may be behind without a remark: two servers' answers lie some milliseconds
apart, in which a busy market stores some tens of commits."""

Mark = Literal["leaders", "current", "role", "lag", "digest"]
"""A field that an operator should look at."""


class MarketView(Struct, kw_only=True):
    """How a market stands, by all servers that hold it."""

    market: str
    leaders: list[str]
    """Sorted; well is one."""
    term: int
    """Like sequence and digest: the leader's; of two leaders the one's with the newer term, and
    without a leader those of the replica that is the farthest."""
    sequence: int
    digest: str
    current: int
    """How many of the servers that hold it are current."""
    servers: int
    """How many hold it."""
    marks: list[Mark]


class ReplicaView(Struct, kw_only=True):
    """How a server stands in a market, seen beside the others."""

    market: str
    role: Role
    term: int
    sequence: int
    lag: int
    """How many commits it is behind the leader; its own count without a leader."""
    digest: str
    is_current: bool
    marks: list[Mark]


class ServerView(Struct, kw_only=True):
    """How a server stands in all its markets, in the order of their names."""

    server: str
    incarnation: str
    markets: list[ReplicaView]


class View(Struct, kw_only=True):
    """How the exchange stands."""

    is_well: bool
    """Whether there is no problem."""
    problems: list[str]
    remarks: list[str]
    markets: list[MarketView]
    """In the order of their names."""
    servers: list[ServerView]
    """In the order of their names."""


class _Held(Struct):
    # A market's replica, with the server that holds it.
    server: str
    standing: MarketStanding


class _Seen(Struct):
    # What is to be said of one market.
    market: MarketView
    differing: set[int]
    """The sequences at which digests differ."""
    problems: list[str]
    remarks: list[str]


def compare(standings: Iterable[ServerStanding], remarks: Sequence[str] = ()) -> View:
    """Put side by side what servers tell.

    Args:
        standings: What each of them tells; none is a problem of its own.
        remarks: What else is to be remarked, first.
    """
    servers = sorted(standings, key=lambda each: (each.server, each.incarnation))
    names = sorted({held.market for server in servers for held in server.markets})
    seen = {
        name: _see(
            name,
            [
                _Held(server.server, held)
                for server in servers
                for held in server.markets
                if held.market == name
            ],
        )
        for name in names
    }
    problems = _problems_of_names(servers)
    problems += [problem for each in seen.values() for problem in each.problems]
    return View(
        is_well=not problems,
        problems=problems,
        remarks=[*remarks, *(remark for each in seen.values() for remark in each.remarks)],
        markets=[each.market for each in seen.values()],
        servers=[
            ServerView(
                server=server.server,
                incarnation=server.incarnation,
                markets=[
                    _replica(held, seen[held.market])
                    for held in sorted(server.markets, key=lambda each: each.market)
                ],
            )
            for server in servers
        ],
    )


def _problems_of_names(servers: Sequence[ServerStanding]) -> list[str]:
    if not servers:
        return ["no server answers"]
    counts = Counter(server.server for server in servers)
    return [f"{count} servers are named {name}" for name, count in counts.items() if count > 1]


def _see(market: str, replicas: Sequence[_Held]) -> _Seen:
    leading = [held for held in replicas if held.standing.role == "leader"]
    leaders = sorted(held.server for held in leading)
    head = max(leading or replicas, key=_how_far).standing
    differing = _differing(replicas)
    current = sum(held.standing.is_current for held in replicas)
    marks: list[Mark] = []
    if len(leaders) != 1:
        marks.append("leaders")
    if differing:
        marks.append("digest")
    if current < len(replicas):
        marks.append("current")
    view = MarketView(
        market=market,
        leaders=leaders,
        term=head.term,
        sequence=head.sequence,
        digest=head.digest,
        current=current,
        servers=len(replicas),
        marks=marks,
    )
    problems = _problems(view, replicas, differing)
    remarks = [remark for held in replicas for remark in _remarks(held, view)]
    return _Seen(view, set(differing), problems, remarks)


def _how_far(held: _Held) -> tuple[int, int]:
    return held.standing.term, held.standing.sequence


def _differing(replicas: Sequence[_Held]) -> dict[int, list[_Held]]:
    # The replicas at each sequence where not all digests are the same.
    comparable: dict[int, list[_Held]] = {}
    for held in replicas:
        if held.standing.digest:
            comparable.setdefault(held.standing.sequence, []).append(held)
    return {
        sequence: there
        for sequence, there in sorted(comparable.items())
        if any(held.standing.digest != there[0].standing.digest for held in there)
    }


def _problems(
    view: MarketView, replicas: Sequence[_Held], differing: dict[int, list[_Held]]
) -> list[str]:
    problems = []
    if not view.leaders:
        problems.append(f"{view.market}: no server leads")
    elif len(view.leaders) > 1:
        problems.append(f"{view.market}: more than one server leads: {', '.join(view.leaders)}")
    problems += [
        f"{view.market}: {held.server} has stopped"
        for held in replicas
        if held.standing.role == "stopped"
    ]
    problems += [
        f"{view.market}: {held.server} leads and cannot reach the log"
        for held in replicas
        if held.standing.role == "leader" and not held.standing.is_current
    ]
    for sequence, there in differing.items():
        books = ", ".join(f"{held.standing.digest} on {held.server}" for held in there)
        problems.append(f"{view.market}: the books differ at sequence {sequence}: {books}")
    return problems


def _remarks(held: _Held, view: MarketView) -> list[str]:
    if held.standing.role == "stopped":
        return []
    is_current = held.standing.is_current or held.standing.role == "leader"
    about = f"{view.market}: {held.server}"
    remarks = [] if is_current else [f"{about} is not current"]
    lag = _lag(held.standing, view)
    if lag > LAG_MAX:
        remarks.append(f"{about} is {lag} commits behind")
    return remarks


def _lag(standing: MarketStanding, view: MarketView) -> int:
    return max(view.sequence - standing.sequence, 0) if view.leaders else standing.lag


def _replica(standing: MarketStanding, seen: _Seen) -> ReplicaView:
    lag = _lag(standing, seen.market)
    is_one_of_many = standing.role == "leader" and len(seen.market.leaders) > 1
    marks: list[Mark] = []
    if standing.role == "stopped" or not standing.is_current or is_one_of_many:
        marks.append("role")
    if lag > LAG_MAX:
        marks.append("lag")
    if standing.digest and standing.sequence in seen.differing:
        marks.append("digest")
    return ReplicaView(
        market=standing.market,
        role=standing.role,
        term=standing.term,
        sequence=standing.sequence,
        lag=lag,
        digest=standing.digest,
        is_current=standing.is_current,
        marks=marks,
    )
