"""The ids of one peer's orders and commands, and how far they may run ahead of the answers.

Pairs of (timestamp, sequence number) only grow, whatever the clock does, because a market takes an
id below what it has forgotten for an old one. And the oldest unanswered id and the newest sent one
span at most `RETRY_WINDOW_COUNT` ids, because only so many outcomes are remembered: within that
span a resend always finds its outcome.

Pure: the time comes in. Knows nothing of sending.
"""

from typing import Final

from dex_protocol.ids import Kind, Pair, make_id, split_pair
from dex_protocol.limits import RETRY_WINDOW_COUNT

TIMESTAMP_MAX: Final = 10**14 - 1
COUNT_MAX: Final = 10**12 - 1


class Ids:
    """The next ids of a peer."""

    def __init__(self, peer: str, *, above: Pair) -> None:
        """Start above a pair.

        Args:
            peer: Whose ids they are.
            above: The highest of the pairs `highest` and `forgotten` of every market in which the
                ids will be used, as the query `status` tells them.
        """
        self.peer = peer
        self._timestamp, self._count = split_pair(above)

    def go_above(self, pair: Pair) -> None:
        """See to it that the next ids are above a pair: one that another market knows, say."""
        timestamp, count = split_pair(pair)
        self._timestamp = max(self._timestamp, timestamp)
        self._count = max(self._count, count)

    def next(self, kind: Kind, now_ms: int) -> str:
        """Make an id whose pair is above all before it.

        Args:
            kind: What it names.
            now_ms: Milliseconds since 1970; where the clock went back, the last timestamp stands.

        Raises:
            OverflowError: somebody used the peer's highest pairs up; it needs another name.
        """
        if now_ms > self._timestamp:
            self._timestamp = now_ms
        if self._count < COUNT_MAX:
            self._count += 1
        else:
            self._timestamp += 1
            self._count = 1
        if self._timestamp > TIMESTAMP_MAX:
            raise OverflowError(f"expected ids left for the peer {self.peer}, found none")
        return make_id(kind, self.peer, self._timestamp, self._count)


class Window:
    """Which ids of a peer in a market wait for an outcome, and whether more may be sent.

    It counts ids in ranges, one a request: a range is unanswered until all of it is answered.
    """

    __slots__ = ("_answered", "_next", "_oldest", "span_max")

    def __init__(self, span_max: int = RETRY_WINDOW_COUNT) -> None:
        self.span_max = span_max
        self._next = 0
        self._oldest = 0
        # Answered ranges behind an unanswered one: the index of the first id, and the count.
        self._answered: dict[int, int] = {}

    def has_room(self, count: int) -> bool:
        """Tell whether so many more ids may be sent now."""
        return self._next - self._oldest + count <= self.span_max

    def sent(self, count: int) -> int:
        """Note that so many ids are about to be sent.

        Returns:
            The index of the first one, from 0: what `answered` wants back.

        Ordering: only where there `has_room`.
        """
        assert self.has_room(count), "the newest id would run too far ahead of the oldest"
        first = self._next
        self._next += count
        return first

    def answered(self, first: int, count: int) -> None:
        """Note that a range has its outcomes, or was given up: no copy of it is sent any more."""
        if first != self._oldest:
            self._answered[first] = count
            return
        oldest = first + count
        while (following := self._answered.pop(oldest, None)) is not None:
            oldest += following
        self._oldest = oldest
