"""Who is connected to whom through which link, and what cutting or slowing somebody does to links.

Servers and load generators dial nodes, and each node dials both others, each over a link of its
own; between two nodes that makes two links, and the nodes use either. Pure: knows nothing of how
bytes pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Final, Literal, TypeAlias

from msgspec import Struct, structs

NODES: Final = ("nats-1", "nats-2", "nats-3")
SERVERS: Final = ("server-1", "server-2", "server-3")
NEWCOMER: Final = "server-4"
LOADS: Final = ("load-a", "load-b", "load-c")

CutMode: TypeAlias = Literal["held", "mute", "deaf", "refused"]
"""Nothing passes, and who is connected stays so; what it sends does not arrive; nothing arrives
there; connections end, and no new ones are made."""


class LinkState(Struct, frozen=True):
    """What a link does to the bytes of all its connections."""

    passes_there: bool = True
    """Whether what the dialer sends passes on. What does not is kept, and passes later."""
    passes_back: bool = True
    """Whether what the dialed one sends does."""
    is_closed: bool = False
    """Connections end, and new ones are refused."""
    delay_ms: float = 0
    jitter_ms: float = 0
    """At most so much more, by chance; the order stays."""


class Link(Struct, frozen=True):
    """One way to connect."""

    dialer: str
    dialed: str

    @property
    def name(self) -> str:
        """Say it in one word."""
        return f"{self.dialer}>{self.dialed}"


OPEN: Final = LinkState()
CLOSED: Final = LinkState(is_closed=True)

LINKS: Final = (
    *(Link(who, node) for who in (*SERVERS, NEWCOMER, *LOADS) for node in NODES),
    *(Link(*pair) for pair in permutations(NODES, 2)),
)


def neighbours(who: str) -> tuple[str, ...]:
    """Name who may be cut off from somebody: of a node the other nodes, of others the nodes."""
    return tuple(node for node in NODES if node != who)


def cut(who: str, others: Iterable[str], mode: CutMode) -> dict[str, LinkState]:
    """Give the state of all links between somebody and others, when it is cut off from them."""
    return {link.name: _cut_state(who, link, mode) for link in _between(who, others)}


def slow(who: str, *, delay_ms: float, jitter_ms: float) -> dict[str, LinkState]:
    """Give the state of all of somebody's links when they are slow, each way."""
    state = LinkState(delay_ms=delay_ms, jitter_ms=jitter_ms)
    return {link.name: state for link in LINKS if who in (link.dialer, link.dialed)}


def together(states: Sequence[Mapping[str, LinkState]]) -> dict[str, LinkState]:
    """Give the state of each link that does all that is wanted of it; of no others."""
    found: dict[str, LinkState] = {}
    for some in states:
        for name, state in some.items():
            known = found.get(name, OPEN)
            found[name] = LinkState(
                passes_there=known.passes_there and state.passes_there,
                passes_back=known.passes_back and state.passes_back,
                is_closed=known.is_closed or state.is_closed,
                delay_ms=max(known.delay_ms, state.delay_ms),
                jitter_ms=max(known.jitter_ms, state.jitter_ms),
            )
    return found


def _between(who: str, others: Iterable[str]) -> list[Link]:
    pairs = {frozenset((who, other)) for other in others}
    return [link for link in LINKS if frozenset((link.dialer, link.dialed)) in pairs]


def _cut_state(who: str, link: Link, mode: CutMode) -> LinkState:
    if mode == "refused":
        return CLOSED
    holds_sent, holds_heard = mode in ("held", "mute"), mode in ("held", "deaf")
    if link.dialer != who:
        holds_sent, holds_heard = holds_heard, holds_sent
    return structs.replace(OPEN, passes_there=not holds_sent, passes_back=not holds_heard)
