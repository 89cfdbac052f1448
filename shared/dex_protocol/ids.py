"""The ids of orders and commands, and the pairs in them that make them idempotency keys.

Knows nothing of what was done with an id before: the market's retry window does.
"""

import re
from typing import Final, Literal, NewType

from dex_protocol.memo import memo

Pair = NewType("Pair", int)
"""An id's (timestamp, sequence number) as one integer that orders as the pair does."""

Kind = Literal["order", "command"]

ID_LENGTH_MAX: Final = 68
"""Characters of the longest id: `command`, a peer, its pair, and what is between."""

TIMESTAMPS_COUNT_MAX: Final = 4_096
"""Timestamps that are remembered, and as many peers' timestamps: many ids have the same."""

TIMESTAMP_END: Final = 10**14
SEQUENCE_NUMBER_END: Final = 10**12
"""What the two numbers of an id are below."""

_TIMESTAMP_DIGITS_MAX: Final = len(str(TIMESTAMP_END - 1))
_NUMBER_DIGITS_MAX: Final = len(str(SEQUENCE_NUMBER_END - 1))
_MARKET: Final = re.compile(r"[A-Za-z0-9-]{1,24}", re.ASCII)
_PEER: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


def is_market(text: str) -> bool:
    """Tell whether a text may name a market."""
    return _MARKET.fullmatch(text) is not None


def is_peer(text: str) -> bool:
    """Tell whether a text may name a peer."""
    return _PEER.fullmatch(text) is not None


def make_pair(timestamp: int, sequence_number: int) -> Pair:
    """Join milliseconds since 1970 (0 to 10^14 - 1) and a count (1 to 10^12 - 1)."""
    return Pair(timestamp * SEQUENCE_NUMBER_END + sequence_number)


SERVER_NAMED_END: Final = make_pair(1, 0)
"""Pairs below this one are of orders that a server named; no outcome is remembered for them."""


def split_pair(pair: Pair) -> tuple[int, int]:
    """Give (timestamp, sequence number); (0, 0) for the pair 0, which no id has."""
    return divmod(pair, SEQUENCE_NUMBER_END)


def pair_of(text: str) -> Pair:
    """Read the pair of an id that was found well-formed before."""
    stem, _, number = text.rpartition("_")
    return _stem(stem)[3] + int(number)  # type: ignore[return-value]  # calling `Pair` takes 50 ns


def _read_timestamp(timestamp: str) -> int:
    # The pair of the sequence number 0; -1 for what is no timestamp.
    is_number = timestamp.isascii() and timestamp.isdigit()
    if not is_number or len(timestamp) > _TIMESTAMP_DIGITS_MAX or timestamp != str(int(timestamp)):
        return -1
    return int(timestamp) * SEQUENCE_NUMBER_END


_least_pair: Final = memo(_read_timestamp, count_max=TIMESTAMPS_COUNT_MAX)


def head_of(kind: Kind, peer: str) -> str:
    """Write what an id of a peer begins with, for `own_pair`."""
    return f"{kind}_{peer}_"


def _read_stem(stem: str) -> tuple[str, str, str, int]:
    # What stands before an id's number: its head, or nothing where it ends in no timestamp; its
    # kind, or nothing where it names no peer either; its peer; and the pair of the sequence number
    # 0. A named tuple would be taken apart in 100 ns more.
    before, _, timestamp = stem.rpartition("_")
    kind, _, peer = before.partition("_")
    least = _least_pair(timestamp)
    if least < 0:
        return "", "", "", least
    return f"{before}_", kind if is_peer(peer) else "", peer, least


# A peer's ids of one millisecond have one stem, so most are read in a third of the time that a
# regular expression takes.
_stem: Final = memo(_read_stem, count_max=TIMESTAMPS_COUNT_MAX)


def own_pair(text: str, head: str) -> Pair | None:
    """Read an id that must be of a kind and a peer that are known.

    Args:
        text: Whatever stands in the id's place.
        head: As `head_of` writes it.

    Returns:
        Its pair; None when the text is no such id. The timestamp 0 is read too.
    """
    if len(text) > ID_LENGTH_MAX:
        return None
    stem, _, number = text.rpartition("_")
    its_head, _, _, least = _stem(stem)
    if its_head != head or not number.isdigit() or not number.isascii():
        return None
    if number < "1" or len(number) > _NUMBER_DIGITS_MAX:
        return None
    # Without calling `Pair`, which takes 50 ns.
    return least + int(number)  # type: ignore[return-value]


def make_id(kind: Kind, peer: str, timestamp: int, sequence_number: int) -> str:
    """Write an id of a peer."""
    return f"{kind}_{peer}_{timestamp}_{sequence_number}"


def parse_id(text: str, kind: Kind) -> tuple[str, Pair] | None:
    """Read an id from the right.

    Returns:
        The peer it names and its pair; None when the text is no id of that kind. The timestamp 0
        is read too: servers name orders with it.
    """
    if len(text) > ID_LENGTH_MAX:
        return None
    stem, _, number = text.rpartition("_")
    _, its_kind, peer, least = _stem(stem)
    if its_kind != kind or not number.isdigit() or not number.isascii():
        return None
    if number < "1" or len(number) > _NUMBER_DIGITS_MAX:
        return None
    return peer, least + int(number)  # type: ignore[return-value]
