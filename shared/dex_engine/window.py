"""The retry window: what became of a peer's commands, found again by their ids.

It keeps the outcomes of the highest pairs; the lowest leaves first, whenever it came, and
`forgotten` is the highest pair that ever left. Knows nothing of receipts: it holds outcomes.
"""

from bisect import insort
from collections import deque
from typing import TypeAlias

from msgspec import Struct

from dex_engine.order import Order
from dex_protocol.ids import Pair
from dex_protocol.receipts import Status


class Outcome(Struct, gc=False):
    """What became of a command that is not an accepted submit, and the order as it left it.

    Quantities in lots, `value` in ticks times lots. An accepted submit's outcome is its `Order`.
    """

    id: str
    """The command's own id: a refused submit's order id, or a command id."""
    content: str
    order_id: str | None = None
    """The order it was about; None for a `cancel_all` and a refused submit."""
    reason: str | None = None
    """Why it was refused; None when it was not."""
    count: int | None = None
    """How many orders a `cancel_all` canceled; None for the others."""
    status: Status | None = None
    """The order's status as the command left it; None when there was no such order."""
    filled: int = 0
    remaining: int = 0
    value: int = 0
    version: int = 0

    @classmethod
    def of(cls, order: Order, own_id: str, content: str) -> "Outcome":
        """Make the outcome of a command that did what it asked of an order, which it leaves so."""
        return cls(
            own_id,
            content,
            order.order_id,
            None,
            None,
            order.status,
            order.filled,
            order.remaining,
            order.value,
            order.version,
        )

    def note(self, order: Order) -> None:
        """Keep the order as the command leaves it."""
        self.status = order.status
        self.filled = order.filled
        self.remaining = order.remaining
        self.value = order.value
        self.version = order.version


Leaver: TypeAlias = tuple[Pair, Order | Outcome, Pair]
"""What left a window: its pair, its outcome, and `forgotten` as it was before."""


Added: TypeAlias = tuple[dict[Pair, Order | Outcome], list[Pair], list[Order | Outcome], Pair]
"""Outcomes that were added, pairs and outcomes that left for them, and `forgotten` as it was."""


class RetryWindow:
    """One peer's remembered outcomes, at most `count_max`.

    Attributes:
        outcomes: By pair, in no order.
        forgotten: The highest pair that ever left; 0 before the first.
        highest: The highest pair that was ever used, which never leaves; 0 before the first.
        newer: Outcomes of pairs that were above all others, lowest first, to be added by
            `remember_newer`; `highest` counts them already. Whoever puts something in has that done
            before anybody asks for anything else. It takes 0.2 µs an outcome, and `remember` 0.5.
    """

    __slots__ = ("_pairs", "count_max", "forgotten", "highest", "newer", "outcomes")

    def __init__(self, count_max: int) -> None:
        self.count_max = count_max
        self.outcomes: dict[Pair, Order | Outcome] = {}
        self.newer: dict[Pair, Order | Outcome] = {}
        self.forgotten = self.highest = Pair(0)
        # All pairs of `outcomes`, the lowest first. Peers count up, so that a pair goes to the end
        # in 40 ns, where a heap took 270; any other finds its place in some µs.
        self._pairs: deque[Pair] = deque()

    def knows(self, pair: Pair) -> bool:
        """Tell whether a pair was used, or may have been."""
        return pair in self.outcomes or pair <= self.forgotten

    def remember(self, pair: Pair, outcome: Order | Outcome) -> Leaver | None:
        """Add an outcome; the lowest pair leaves when there are too many, be it this one.

        Returns:
            What left, for `forget`; None when there was room.

        Complexity: constant for a pair above all others, else linear in `count_max`.
        """
        outcomes, pairs = self.outcomes, self._pairs
        if pair > self.highest:
            self.highest = pair
            pairs.append(pair)
        else:
            assert pair not in outcomes, f"pair {pair} has an outcome already"
            insort(pairs, pair)
        outcomes[pair] = outcome
        if len(pairs) <= self.count_max:
            return None
        lowest = pairs.popleft()
        leaver = (lowest, outcomes.pop(lowest), self.forgotten)
        if lowest > self.forgotten:
            self.forgotten = lowest
        return leaver

    def forget(self, pair: Pair, leaver: Leaver | None) -> None:
        """Be as before the outcome of a pair was remembered, which was the newest to be.

        Complexity: as `remember`.
        """
        if leaver is not None:
            lowest, self.outcomes[lowest], self.forgotten = leaver
            self._pairs.appendleft(lowest)
        del self.outcomes[pair]
        if self._pairs[-1] == pair:
            self._pairs.pop()
        else:
            self._pairs.remove(pair)
        self.highest = self._pairs[-1] if self._pairs else self.forgotten

    def remember_newer(self) -> Added:
        """Add the newer outcomes, all in one go.

        Returns:
            What changed, for `forget_newer`.
        """
        outcomes, pairs, forgotten = self.outcomes, self._pairs, self.forgotten
        newer, self.newer = self.newer, {}
        outcomes.update(newer)
        pairs.extend(newer)
        lowest = [pairs.popleft() for _ in range(len(pairs) - self.count_max)]
        left = list(map(outcomes.pop, lowest))
        if lowest:
            self.forgotten = max(forgotten, *lowest)
        return newer, lowest, left, forgotten

    def forget_newer(self, added: Added) -> None:
        """Be as before the outcomes were added, which were the newest to be.

        Complexity: linear in them.
        """
        newer, lowest, left, self.forgotten = added
        self.outcomes.update(zip(lowest, left, strict=True))
        self._pairs.extendleft(reversed(lowest))
        for pair in newer:
            del self.outcomes[pair]
            self._pairs.pop()
        self.highest = self._pairs[-1] if self._pairs else self.forgotten

    def order(self, pair: Pair) -> Order | None:
        """Give the order that a remembered submit made, if that is what the pair was used for."""
        outcome = self.outcomes.get(pair)
        return outcome if type(outcome) is Order else None

    def load(self, outcomes: dict[Pair, Order | Outcome], *, forgotten: Pair) -> None:
        """Take over what a snapshot kept."""
        self.outcomes = outcomes
        self.forgotten = forgotten
        self._pairs = deque(sorted(outcomes))
        self.highest = self._pairs[-1] if self._pairs else forgotten
