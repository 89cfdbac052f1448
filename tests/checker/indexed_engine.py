"""The naive engine with indexes: the same decisions, quick enough for long logs.

It decides nothing itself. Orders are found by id, lists of open orders and the two sides of the
book are kept instead of made anew, and the digest is kept as a sum. After each command the orders
that its events name are put where they belong now; nothing else can have changed.

It adds what a specification may say of single peers, which the naive engine does not know.
"""

import hashlib
from bisect import bisect_left, bisect_right
from fractions import Fraction
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from tests.property.reference_engine import (
    NO_PAIR,
    OPTIONAL_INTEGERS,
    Order,
    Outcome,
    ReferenceMarket,
    pair_of,
    write,
)

_LAST: Final = 2**80
"""Above every priority."""


class _Place(NamedTuple):
    # Where a resting order stands: its rank (ticks, negated on the bids) and priority, which are
    # unique in the book, the key of its place in the digest, and its lots.
    rank: int
    priority: int
    key: int
    lots: int
    order: Order


class IndexedMarket(ReferenceMarket):
    """One market; `orders` only holds what the command being executed has accepted."""

    def __init__(self, specification: dict[str, Any], **bounds: int) -> None:
        super().__init__(specification, **bounds)
        self.tick = Fraction(self.specification["tick_size"])
        self.lot = Fraction(self.specification["lot_size"])
        self.digest_sum = 0
        # Orders by id: those that are open or remembered, and those that are open, the latter of
        # all and of each peer, in order of acceptance.
        self.by_id: dict[str, Order] = {}
        self.open: dict[str, Order] = {}
        self.open_of: dict[str, dict[str, Order]] = {}
        # Both sides of the book, best first, then oldest.
        self.sides: dict[str, list[_Place]] = {"buy": [], "sell": []}
        self.places: dict[str, _Place] = {}
        # Deadlines of orders that are open, and of some that no longer are; the first one first.
        self.deadlines: list[tuple[int, str]] = []
        # Of each peer the pairs of its outcomes, the lowest first; and the orders whose outcome
        # has just left.
        self.pairs: dict[str, list[tuple[int, int]]] = {}
        self.left: list[str] = []
        self.asking = ""

    # What changes the state: as before, and then everything is put in its place.

    def execute(
        self, peer: str, command: dict[str, Any], time: int
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Execute one well-formed command; give its receipt and the events it made."""
        self.asking = peer
        receipt, events = super().execute(peer, command, time)
        self.put_in_place(events)
        return receipt, events

    def housekeeping(self, time: int) -> list[dict[str, Any]]:
        """Give what comes first in a commit: expiries, then a closed market's cancels."""
        if not self.is_due(time):
            return []
        events = super().housekeeping(time)
        self.put_in_place(events)
        return events

    def is_due(self, time: int) -> bool:
        """Tell whether housekeeping has something to do."""
        while self.deadlines and self.deadlines[0][1] not in self.open:
            heappop(self.deadlines)
        if self.state == "closed" and self.open:
            return True
        return bool(self.deadlines) and self.deadlines[0][0] <= time

    def remember(self, peer: str, pair: tuple[int, int], outcome: Outcome) -> None:
        """Keep the outcomes of the highest pairs; the lowest leaves first, even this one."""
        outcomes = self.outcomes.setdefault(peer, {})
        outcomes[pair] = outcome
        pairs = self.pairs.setdefault(peer, [])
        heappush(pairs, pair)
        if len(pairs) > self.window:
            lowest = heappop(pairs)
            del outcomes[lowest]
            self.forgotten_pairs[peer] = max(self.forgotten_pairs.get(peer, NO_PAIR), lowest)
            self.left.append(f"order_{peer}_{lowest[0]}_{lowest[1]}")

    def forget_orders(self) -> None:
        """Leave it to `put_in_place`."""

    def put_in_place(self, events: list[dict[str, Any]]) -> None:
        """Put every order that changed where it belongs, and forget what is to be forgotten."""
        for order in self.orders:
            self.by_id[order.order_id] = order
        self.orders.clear()
        changed = {}
        for event in events:
            for name in ("order_id", "maker_order_id", "taker_order_id"):
                order = self.by_id.get(event.get(name, ""))
                if order is not None:
                    changed[order.order_id] = order
        for order in changed.values():
            self.put_order_in_place(order)
        for order_id in self.left:
            if order_id not in self.open:
                self.by_id.pop(order_id, None)
        self.left.clear()

    def put_order_in_place(self, order: Order) -> None:
        order_id = order.order_id
        before = self.places.pop(order_id, None)
        if before is not None:
            side = self.sides[order.side]
            del side[bisect_left(side, before[:2])]
            self.digest_sum -= before.key * before.lots
        if not order.is_open:
            self.open.pop(order_id, None)
            self.open_of.get(order.peer, {}).pop(order_id, None)
            if pair_of(order_id) not in self.outcomes.get(order.peer, {}):
                self.by_id.pop(order_id, None)
            return
        if order_id not in self.open:
            self.open[order_id] = order
            self.open_of.setdefault(order.peer, {})[order_id] = order
            if order.expires_at is not None:
                heappush(self.deadlines, (order.expires_at, order_id))
        place = self.place_of(order, before)
        side = self.sides[order.side]
        side.insert(bisect_left(side, place[:2]), place)
        self.places[order_id] = place
        self.digest_sum += place.key * place.lots

    def place_of(self, order: Order, before: _Place | None) -> _Place:
        assert order.price is not None
        assert order.priority is not None
        ticks = int(order.price / self.tick)
        rank = -ticks if order.side == "buy" else ticks
        lots = int(order.remaining / self.lot)
        if before is not None and before[:2] == (rank, order.priority):
            return before._replace(lots=lots)
        text = f"{order.order_id}|{order.side}|{ticks}|{order.priority}"
        key = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return _Place(rank, order.priority, int.from_bytes(key, "little"), lots, order)

    # What only looks.

    def digest(self) -> str:
        """Sum key x remaining lots over all resting orders, modulo 2^64."""
        return f"{self.digest_sum % 2**64:016x}"

    def open_orders(self, peer: str | None = None) -> list[Order]:
        """Open orders, of all peers or of one, in order of acceptance."""
        return list((self.open if peer is None else self.open_of.get(peer, {})).values())

    def find(self, peer: str, order_id: str) -> Order | None:
        """Find this peer's order, open or remembered."""
        order = self.by_id.get(order_id)
        return order if order is not None and order.peer == peer else None

    def crossed_by(self, side: str, price: Fraction | None) -> list[Order]:
        """Resting orders that an incoming one would trade with, best price first, then oldest."""
        places = self.sides["sell" if side == "buy" else "buy"]
        end = len(places)
        if price is not None:
            limit = price / self.tick if side == "buy" else -price / self.tick
            end = bisect_right(places, (limit, _LAST))
        return [place.order for place in places[:end]]

    def fills_whole(self, order: Order, makers: list[Order]) -> bool:
        """Try a fill-or-kill on copies of as many makers as one command may come to."""
        return super().fills_whole(order, makers[: self.makers_max + 1])

    def levels(self, side: str, depth: int) -> list[tuple[str, list[Order]]]:
        """Price levels of a side, best first, with their orders, oldest first."""
        levels: list[tuple[str, list[Order]]] = []
        rank = None
        for place in self.sides[side]:
            if place.rank != rank:
                if len(levels) == depth:
                    break
                rank = place.rank
                assert place.order.price is not None
                levels.append((write(place.order.price), []))
            levels[-1][1].append(place.order)
        return levels

    # What a specification says of single peers.

    def count_max(self, name: str) -> int:
        """Give a bound: the one of the peer that asks, if there is one, else that of all."""
        own = self.specification.get("peers", {}).get(self.asking, {})
        return own.get(name, self.specification.get(name, OPTIONAL_INTEGERS[name]))
