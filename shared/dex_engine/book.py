"""The book: two sides of price levels, each a queue of orders, oldest first.

Structure only: it puts orders in, takes them out and walks them in priority order, and knows no
rule of matching. One code path serves both sides: a level's *rank* is its price on the asks and
its negated price on the bids, so the best level is the one of the lowest rank everywhere.
"""

from collections.abc import Iterator

from sortedcontainers import SortedDict

from dex_engine.order import Order
from dex_protocol.commands import Side


class PriceLevel:
    """All resting orders at one price, oldest first, linked to each other; its side puts them in.

    Linked orders instead of a dict: taking one out is as fast in a level of 50,000 orders as in
    one of five, wherever it stands.
    """

    __slots__ = ("count", "newest", "oldest", "price", "quantity", "rank")

    def __init__(self, price: int, rank: int) -> None:
        self.price = price
        self.rank = rank
        self.oldest: Order | None = None
        self.newest: Order | None = None
        self.quantity = 0
        self.count = 0

    def __iter__(self) -> Iterator[Order]:
        """Walk the orders, oldest first."""
        order = self.oldest
        while order is not None:
            yield order
            order = order.newer


class BookSide:
    """The bids or the asks of a market: levels by rank, best first."""

    __slots__ = ("_sign", "best", "levels")

    def __init__(self, side: Side) -> None:
        self._sign = 1 if side == "sell" else -1
        self.levels: SortedDict[int, PriceLevel] = SortedDict()
        self.best: PriceLevel | None = None

    def rank(self, price: int) -> int:
        """Give the rank of a price on this side: lower is better."""
        return self._sign * price

    def reaches(self, price: int) -> bool:
        """Tell whether an order of the other side at a price would meet the best level here."""
        return self.best is not None and self.best.rank <= self._sign * price

    def add(self, order: Order) -> None:
        """Put an order at the end of the queue of its price."""
        rank = self._sign * order.price
        level = self.levels.get(rank)
        if level is None:
            level = self.levels[rank] = PriceLevel(order.price, rank)
            # The sorted index is asked for the best only when a level appears or disappears.
            if self.best is None or rank < self.best.rank:
                self.best = level
        # Setting a field of a struct takes 25 ns, five times as long as one of other objects: what
        # is None already is left so.
        order.level = level
        newest = level.newest
        if newest is None:
            level.oldest = order
        else:
            order.older = newest
            newest.newer = order
        level.newest = order
        level.quantity += order.remaining
        level.count += 1

    def remove(self, order: Order) -> None:
        """Take an order out, wherever it stands in its queue."""
        level: PriceLevel = order.level
        older, newer = order.older, order.newer
        order.level = None
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
        level.quantity -= order.remaining
        level.count -= 1
        if level.count == 0:
            del self.levels[level.rank]
            if level is self.best:
                self.best = self.levels.peekitem(0)[1] if self.levels else None

    def lower(self, order: Order, quantity: int) -> None:
        """Lower what remains of an order that stays in the book."""
        order.remaining -= quantity
        order.level.quantity -= quantity

    def __iter__(self) -> Iterator[Order]:
        """Walk the orders, best price first, oldest first."""
        for level in self.levels.values():
            yield from level


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
