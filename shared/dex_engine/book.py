"""The book: two sides of price levels, each a queue of orders, oldest first.

Structure only: it puts orders in, takes them out and walks them in priority order, and knows no
rule of matching. One code path serves both sides: a level's *rank* is its price on the asks and
its negated price on the bids, so the best level is the one of the lowest rank everywhere.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from dex_engine.order import Order
from dex_protocol.commands import Side

LEFT_RANKS_COUNT_MAX: Final = 64
"""How many ranks may be left of levels that are gone, beyond one for each level that is there."""


class PriceLevel:
    """All resting orders at one price, oldest first, linked to each other; its side puts them in.

    Linked orders instead of a dict: taking one out is as fast in a level of 50,000 orders as in
    one of five, wherever it stands.
    """

    __slots__ = ("count", "newest", "oldest", "price", "quantity", "rank")

    def __init__(self, price: int, rank: int, order: Order) -> None:
        """Begin with one order."""
        self.price = price
        self.rank = rank
        self.oldest = self.newest = order
        self.quantity = order.remaining
        self.count = 1

    def __iter__(self) -> Iterator[Order]:
        """Walk the orders, oldest first."""
        order: Order | None = self.oldest
        while order is not None:
            yield order
            order = order.newer


class BookSide:
    """The bids or the asks of a market.

    Attributes:
        levels: By price, in no order; none is empty.
        best: The one of the lowest rank; None when there are none.
    """

    # The ranks of all levels are a heap, since only the lowest is ever asked for in a hurry: one is
    # put in for a tenth of what a sorted list takes. A level that goes leaves its rank there, to be
    # passed over when it comes up; so a rank may stand there twice, when the level came again.
    # Leaving emptied levels in place for whoever comes next gained nothing beside that.
    __slots__ = ("_ranks", "_ranks_count_max", "_sign", "best", "levels")

    def __init__(self, side: Side) -> None:
        self._sign = 1 if side == "sell" else -1
        self._ranks: list[int] = []
        self._ranks_count_max = LEFT_RANKS_COUNT_MAX
        self.levels: dict[int, PriceLevel] = {}
        self.best: PriceLevel | None = None

    def rank(self, price: int) -> int:
        """Give the rank of a price on this side: lower is better."""
        return self._sign * price

    def reaches(self, price: int) -> bool:
        """Tell whether an order of the other side at a price would meet the best level here."""
        return self.best is not None and self.best.rank <= self._sign * price

    def add(self, order: Order) -> None:
        """Put an order at the end of the queue of its price."""
        price = order.price
        level = self.levels.get(price)
        if level is None:
            rank = self._sign * price
            order.level = self.levels[price] = level = PriceLevel(price, rank, order)
            ranks = self._ranks
            heappush(ranks, rank)
            if ranks[0] == rank:
                self.best = level
            if len(ranks) > self._ranks_count_max:
                self._sweep()
            return
        # Setting a field of a struct takes 25 ns, five times as long as one of other objects: here
        # as below, what is None already is left so.
        order.level = level
        order.older = newest = level.newest
        level.newest = newest.newer = order
        level.quantity += order.remaining
        level.count += 1

    def remove(self, order: Order) -> None:
        """Take an order out, wherever it stands in its queue."""
        level: PriceLevel = order.level
        order.level = None
        count = level.count - 1
        if count == 0:
            del self.levels[level.price]
            if level is self.best:
                self._find_best()
            return
        level.count = count
        level.quantity -= order.remaining
        older, newer = order.older, order.newer
        if older is None:
            level.oldest = newer
        else:
            older.newer = newer
            order.older = None
        if newer is None:
            level.newest = older
        else:
            newer.older = older
            order.newer = None

    def lower(self, order: Order, quantity: int) -> None:
        """Lower what remains of an order that stays in the book."""
        order.remaining -= quantity
        order.level.quantity -= quantity

    def by_rank(self, last: int | None = None) -> Iterator[PriceLevel]:
        """Walk the levels, best first, up to a rank; None for all.

        Complexity: for each level that is asked for, logarithmic in those before it.
        """
        ranks, levels, sign = self._ranks, self.levels, self._sign
        # Places of the heap that may come next: the two below a place come after it.
        ahead = [(ranks[0], 0)] if ranks and (last is None or ranks[0] <= last) else []
        before = None
        while ahead:
            rank, place = heappop(ahead)
            for below in (2 * place + 1, 2 * place + 2):
                if below < len(ranks) and (last is None or ranks[below] <= last):
                    heappush(ahead, (ranks[below], below))
            if rank != before and sign * rank in levels:
                before = rank
                yield levels[sign * rank]

    def __iter__(self) -> Iterator[Order]:
        """Walk the orders, best price first, oldest first."""
        for level in self.by_rank():
            yield from level

    def _find_best(self) -> None:
        # The best level is gone: the next one that is there comes up.
        levels, ranks, sign = self.levels, self._ranks, self._sign
        if len(ranks) > 2 * len(levels) + LEFT_RANKS_COUNT_MAX:
            self._sweep()
        while ranks:
            best = levels.get(sign * ranks[0])
            if best is not None:
                self.best = best
                return
            heappop(ranks)
        self.best = None

    def _sweep(self) -> None:
        self._ranks[:] = [level.rank for level in self.levels.values()]
        heapify(self._ranks)
        self._ranks_count_max = 2 * len(self._ranks) + LEFT_RANKS_COUNT_MAX


class Book:
    """Both sides."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = BookSide("buy")
        self.asks = BookSide("sell")

    def side(self, side: Side) -> BookSide:
        """Give the side that orders of this side rest on."""
        return self.bids if side == "buy" else self.asks

    def opposite(self, side: Side) -> BookSide:
        """Give the side that orders of this side trade against."""
        return self.asks if side == "buy" else self.bids
