"""A book made of the events alone, and the laws that it must obey.

An account for every order: what was ordered is filled, taken off, or still open. A queue for every
price: whoever meets an incoming order was the first of the best price. It is written without any
thought of the naive engine, so that what both have in common is only docs/PROTOCOL.md.

It deliberately does not know when an order trades, rests, is refused or is canceled, nor what was
asked for; where a trade has two sides, what is bought is what is sold.
"""

from bisect import bisect_left, insort
from functools import lru_cache

from msgspec import Struct

from tests.checker.history import Json
from tests.checker.logs import UNREADABLE


class Broken(Exception):
    """A law of the book does not hold."""


@lru_cache(maxsize=65_536)
def units(text: str) -> int:
    """Read a decimal as a whole number of 10^-18."""
    whole, _, part = text.partition(".")
    return int(whole) * 10**18 + int(part.ljust(18, "0") or 0)


class Entry(Struct):
    """An order's account; `quantity` is its current total, as amends and reductions left it."""

    order_id: str
    peer: str
    side: str
    price: int | None
    self_trade: str
    quantity: int
    filled: int = 0
    taken_off: int = 0

    @property
    def remaining(self) -> int:
        """What is open."""
        return self.quantity - self.filled - self.taken_off

    @property
    def rank(self) -> int:
        """The price, lower is better on both sides."""
        assert self.price is not None
        return -self.price if self.side == "buy" else self.price


class Side:
    """One side of the book: order ids in queues, oldest first, by rank."""

    def __init__(self) -> None:
        self.queues: dict[int, dict[str, None]] = {}
        # Best first.
        self.ranks: list[int] = []

    def enter(self, entry: Entry) -> None:
        """Put an order at the end of its price's queue."""
        if entry.rank not in self.queues:
            self.queues[entry.rank] = {}
            insort(self.ranks, entry.rank)
        self.queues[entry.rank][entry.order_id] = None

    def leave(self, entry: Entry) -> None:
        """Take an order out of its queue."""
        queue = self.queues[entry.rank]
        del queue[entry.order_id]
        if not queue:
            del self.queues[entry.rank]
            del self.ranks[bisect_left(self.ranks, entry.rank)]

    @property
    def first(self) -> str | None:
        """The oldest order of the best price."""
        return next(iter(self.queues[self.ranks[0]])) if self.ranks else None


class Accounts:
    """All orders of a market, and its book."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.sides = {"buy": Side(), "sell": Side()}
        self.resting: set[str] = set()
        self.trade_count = 0
        # Whose doing the next events are, and how much of it is to rest when they are over.
        self.taker: Entry | None = None
        self.to_rest = 0

    def apply_commit(self, events: list[Json]) -> None:
        """Apply the events of a commit.

        Raises:
            Broken: the first law that does not hold.
        """
        try:
            for event in events:
                self.apply(event)
            self.end_command()
        except (*UNREADABLE, AssertionError) as error:
            raise Broken(f"expected possible events, found {events}: {error!r}") from error
        bids, asks = self.sides["buy"].ranks, self.sides["sell"].ranks
        if bids and asks and -bids[0] >= asks[0]:
            raise Broken("expected the best bid below the best ask, found a crossed book")

    def apply(self, event: Json) -> None:
        """Apply one event."""
        match event["event"]:
            case "accepted":
                self.end_command()
                self.accepted(event)
            case "amended":
                self.end_command()
                self.amended(event)
            case "trade":
                self.trade(event)
            case "reduced":
                self.reduced(event)
            case "canceled" if event["reason"] not in ("requested", "market_closed"):
                self.canceled(event)
            case "canceled" | "expired":
                self.end_command()
                entry = self.entries[event["order_id"]]
                self.expect(entry.order_id in self.resting, f"{entry.order_id} in the book")
                self.take_off(entry, event)
            case "rejected" | "canceled_all" | "market_changed":
                self.end_command()

    def accepted(self, event: Json) -> None:
        """Open an account."""
        order_id = event["order_id"]
        self.expect(order_id not in self.entries, f"{order_id} accepted once")
        self.taker = self.entries[order_id] = Entry(
            order_id=order_id,
            peer=event["peer"],
            side=event["side"],
            price=units(event["price"]) if "price" in event else None,
            self_trade=event.get("self_trade", "cancel_taker"),
            quantity=units(event["quantity"]),
        )
        self.to_rest = units(event.get("resting_quantity", "0"))

    def amended(self, event: Json) -> None:
        """Change an account; an order that loses its place is incoming again."""
        entry = self.entries[event["order_id"]]
        price, quantity = units(event["price"]), units(event["quantity"])
        self.expect(entry.order_id in self.resting, f"{entry.order_id} in the book")
        self.expect(quantity > entry.filled, f"more than is filled of {entry.order_id}")
        may_keep = price == entry.price and quantity <= entry.quantity
        self.expect(may_keep == (event["priority"] == "kept"), "its place kept only when lowered")
        if event["priority"] == "lost":
            self.leave(entry)
            self.taker = entry
        entry.price, entry.quantity = price, quantity
        self.to_rest = units(event.get("resting_quantity", "0"))
        if event["priority"] == "kept":
            self.expect(
                entry.remaining == self.to_rest, f"{entry.remaining} of {entry.order_id} left"
            )

    def trade(self, event: Json) -> None:
        """Let an incoming order trade with the first of the best price."""
        self.trade_count += 1
        self.expect(event["trade_id"] == self.trade_count, f"trade {self.trade_count}")
        taker, maker = self.meet(event["taker_order_id"], event["maker_order_id"])
        price, quantity = units(event["price"]), units(event["quantity"])
        self.expect(event["taker_side"] == taker.side, f"taker_side {taker.side}")
        self.expect(price == maker.price, "the maker's price")
        if taker.price is not None:
            is_within = price <= taker.price if taker.side == "buy" else price >= taker.price
            self.expect(is_within, "a price no worse than the taker's limit")
        self.expect(
            maker.peer != taker.peer or taker.self_trade == "allow", "no trade with oneself"
        )
        self.expect(
            0 < quantity <= min(maker.remaining, taker.remaining), "no more than both have left"
        )
        maker.filled += quantity
        taker.filled += quantity
        self.leave_when_done(maker)

    def reduced(self, event: Json) -> None:
        """Lower an order: a maker that meets its own peer's, then the taker."""
        assert self.taker is not None
        entry, quantity = self.entries[event["order_id"]], units(event["quantity"])
        if entry is not self.taker:
            _, maker = self.meet(self.taker.order_id, entry.order_id)
            self.expect(maker.peer == self.taker.peer, "an order of the same peer")
        self.expect(0 < quantity <= entry.remaining, f"no more than is left of {entry.order_id}")
        entry.quantity -= quantity
        if entry is not self.taker:
            self.leave_when_done(entry)

    def canceled(self, event: Json) -> None:
        """Take off what a command itself makes leave: a maker of its own peer, or its taker."""
        assert self.taker is not None
        entry = self.entries[event["order_id"]]
        if entry is not self.taker:
            self.expect(event["reason"] == "self_trade", "a maker canceled for self_trade alone")
            _, maker = self.meet(self.taker.order_id, entry.order_id)
            self.expect(maker.peer == self.taker.peer, "an order of the same peer")
        self.take_off(entry, event)

    def meet(self, taker_id: str, maker_id: str) -> tuple[Entry, Entry]:
        """Look at who meets: the incoming order, and the first of the best price opposite."""
        taker, maker = self.entries[taker_id], self.entries[maker_id]
        self.expect(taker is self.taker, f"{taker_id} as the incoming order")
        self.expect(maker.side != taker.side, "orders of two sides")
        first = self.sides[maker.side].first
        if first != maker_id:
            raise Broken(f"expected {first}, the first of the best price, found {maker_id}")
        return taker, maker

    def take_off(self, entry: Entry, event: Json) -> None:
        """Close an account with what is left in it."""
        quantity = units(event["quantity"])
        self.expect(quantity == entry.remaining, f"{entry.remaining} of {entry.order_id} left")
        self.expect(quantity > 0, f"{entry.order_id} open")
        entry.taken_off += quantity
        if entry is not self.taker:
            self.leave_when_done(entry)

    def end_command(self) -> None:
        """Let what is left of the incoming order rest, if that is what it said."""
        taker, self.taker = self.taker, None
        if taker is None:
            return
        self.expect(
            taker.remaining == self.to_rest,
            f"{self.to_rest} of {taker.order_id} to rest, not {taker.remaining}",
        )
        if taker.remaining:
            self.sides[taker.side].enter(taker)
            self.resting.add(taker.order_id)

    def leave_when_done(self, entry: Entry) -> None:
        """Take an order that is done out of the book."""
        if entry.remaining == 0:
            self.leave(entry)

    def leave(self, entry: Entry) -> None:
        """Take an order out of the book."""
        self.sides[entry.side].leave(entry)
        self.resting.remove(entry.order_id)

    def expect(self, holds: bool, law: str) -> None:
        """Break off when a law does not hold."""
        if not holds:
            raise Broken(f"expected {law}, found otherwise")
