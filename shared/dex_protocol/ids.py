"""The ids of orders and commands, and the pairs in them that make them idempotency keys.

Knows nothing of what was done with an id before: the market's retry window does.
"""

import re
from functools import lru_cache
from typing import Final, Literal, NewType

Pair = NewType("Pair", int)
"""An id's (timestamp, sequence number) as one integer that orders as the pair does."""

Kind = Literal["order", "command"]

NAMES_COUNT_MAX: Final = 4_096
"""Peers' names remembered as well-formed or not."""

_COUNT_END: Final = 10**12
_MARKET: Final = re.compile(r"[A-Za-z0-9-]{1,24}", re.ASCII)
_PEER: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_ID: Final = re.compile(
    r"(order|command)_([A-Za-z0-9_-]{1,32})_(0|[1-9][0-9]{0,13})_([1-9][0-9]{0,11})", re.ASCII
)


def is_market(text: str) -> bool:
    """Tell whether a text may name a market."""
    return _MARKET.fullmatch(text) is not None


@lru_cache(maxsize=NAMES_COUNT_MAX)
def is_peer(text: str) -> bool:
    """Tell whether a text may name a peer."""
    return _PEER.fullmatch(text) is not None


def make_pair(timestamp: int, sequence_number: int) -> Pair:
    """Join milliseconds since 1970 (0 to 10^14 - 1) and a count (1 to 10^12 - 1)."""
    return Pair(timestamp * _COUNT_END + sequence_number)


def split_pair(pair: Pair) -> tuple[int, int]:
    """Give (timestamp, sequence number); (0, 0) for the pair 0, which no id has."""
    return divmod(pair, _COUNT_END)


def pair_of(text: str) -> Pair:
    """Read the pair of an id that was found well-formed before."""
    _, timestamp, sequence_number = text.rsplit("_", 2)
    return Pair(int(timestamp) * _COUNT_END + int(sequence_number))


def make_id(kind: Kind, peer: str, timestamp: int, sequence_number: int) -> str:
    """Write an id of a peer."""
    return f"{kind}_{peer}_{timestamp}_{sequence_number}"


def parse_id(text: str, kind: Kind) -> tuple[str, Pair] | None:
    """Read an id from the right.

    Returns:
        The peer it names and its pair; None when the text is no id of that kind. The timestamp 0
        is read too: servers name orders with it.
    """
    match = _ID.fullmatch(text)
    if match is None or match[1] != kind:
        return None
    return match[2], make_pair(int(match[3]), int(match[4]))
