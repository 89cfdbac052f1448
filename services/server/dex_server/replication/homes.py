"""Where markets belong: with the server that leads them, as long as it lives and the load is even.

A market without a living leader goes to a server that leads few; a market with one moves only when
that makes the servers' counts more equal. What is equally good is decided by a rendezvous hash of
(server, market): all who see the same decide the same, whatever the order they see it in. Knows
nothing of how it is found out who lives, nor of when and how a market is handed over.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from msgspec import Struct

UNEVEN_COUNT: Final = 2
"""How many more markets than another a server leads, at least, when it hands one over. With one
more, a hand-over would only turn the difference around, and the next one turn it back."""


class Server(Struct, frozen=True):
    """A server that lives, and stays."""

    name: str
    markets: frozenset[str]
    """The markets that it holds in good order, and could lead."""


class Move(Struct, frozen=True):
    """A hand-over for balance."""

    market: str
    giver: str
    """The server that leads it, and is to hand it over."""
    successor: str
    """The server that is to lead it."""


def heirs(
    servers: Collection[Server], leaders: Mapping[str, str], orphans: Iterable[str]
) -> dict[str, str]:
    """Tell who is to lead the markets that have no living leader.

    In the order of their names, each goes to the server that leads the fewest, those given to it
    before included, among those that hold it in good order. While every server takes its own in
    that order, what is told of the others stays the same.

    Args:
        servers: Each once.
        leaders: Of the other markets. Those led by nobody among the servers count for nobody.
        orphans: Each once.

    Returns:
        Servers by market, in the order of the markets' names, without those that nobody holds in
        good order.
    """
    counts = _counts(servers, leaders)
    heir_of: dict[str, str] = {}
    for market in sorted(orphans):
        able = [server.name for server in servers if market in server.markets]
        if able:
            # Of equal counts `min` gives the first: the one that the market prefers.
            heir = min(preference(market, able), key=counts.__getitem__)
            counts[heir] += 1
            heir_of[market] = heir
    return heir_of


def next_move(
    servers: Collection[Server], leaders: Mapping[str, str], *, movable: Container[str]
) -> Move | None:
    """Give the one hand-over that balances best now, if any does.

    From the server that leads the most to the one that leads the fewest, if that is at least
    UNEVEN_COUNT fewer; from and to the next ones where nothing can be handed over. Each move makes
    the counts more equal, so moves end. One move looks no further than itself: where servers hold
    only some markets, they may end before the counts are as equal as could be.

    Args:
        servers: Each once.
        leaders: By market. A leader that is not among the servers neither gives nor counts.
        movable: The markets that may be handed over now.
    """
    counts = _counts(servers, leaders)
    fewest_first = sorted(servers, key=lambda server: (counts[server.name], server.name))
    for giver in sorted(counts, key=lambda name: (-counts[name], name)):
        offered = [market for market in leaders if leaders[market] == giver and market in movable]
        for successor in fewest_first:
            if counts[giver] - counts[successor.name] < UNEVEN_COUNT:
                break
            able = [market for market in offered if market in successor.markets]
            if able:
                return Move(_favorite(successor.name, able), giver, successor.name)
    return None


def preference(market: str, servers: Iterable[str]) -> list[str]:
    """Order servers as a market prefers them, best first; without one, the others stay in order."""
    return sorted(servers, key=lambda server: (-_weight(server, market), server))


def _favorite(server: str, markets: Iterable[str]) -> str:
    return max(markets, key=lambda market: (_weight(server, market), market))


def _counts(servers: Iterable[Server], leaders: Mapping[str, str]) -> dict[str, int]:
    counts = {server.name: 0 for server in servers}
    for leader in leaders.values():
        if leader in counts:
            counts[leader] += 1
    return counts


@lru_cache(maxsize=65_536)
def _weight(server: str, market: str) -> int:
    # Neither name has a `|` in it, so no two pairs are the same text.
    digest = blake2b(f"{server}|{market}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
