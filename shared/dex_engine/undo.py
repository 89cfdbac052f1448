"""Taking back: what a commit changed is put back as it was, when the commit turns out impossible.

Only following has a use for it. A leader's commands cannot turn out impossible, so for a leader
nothing is kept. What is kept costs a copy of each order that a commit touches, once; what taking
back costs is paid only for a commit that is refused.

Knows nothing of events.
"""

from typing import Any, Final

from dex_engine.order import Order
from dex_engine.state import ReplicatedState

_NUMBERS: Final = (
    "log_id",
    "state",
    "rules",
    "digest_value",
    "last_price",
    "next_trade_id",
    "next_priority",
    "next_acceptance",
    "next_server_named",
    "leader",
    "term",
    "time",
)
"""What a market holds of its own, and a fact may set."""

_FIELDS: Final = (
    "price",
    "quantity",
    "remaining",
    "filled",
    "value",
    "version",
    "priority",
    "key",
    "done",
    "content",
)
"""What a fact may set of an order."""

_copy: Final = Order.__copy__  # type: ignore[attr-defined]
# As `copy.copy` does it, in half the time.


class Undo:
    """What a market was before the facts that are established from now on.

    Attributes:
        entered: Orders that were accepted since.
    """

    __slots__ = ("_market", "_numbers", "_peers_count", "_touched", "entered")

    def __init__(self, market: ReplicatedState) -> None:
        """Begin, with a market as it is; its windows tell what they remember from now on."""
        self.entered: list[Order] = []
        self._market = market
        self._numbers: list[Any] = [getattr(market, name) for name in _NUMBERS]
        self._peers_count = len(market.peers)
        # By id, each with a copy of it as it was; those that entered have none.
        self._touched: dict[str, tuple[Order, Order | None]] = {}
        market.remembered = []

    def enters(self, order: Order) -> None:
        """Note an order that is about to be accepted."""
        self.entered.append(order)
        self._touched[order.order_id] = (order, None)

    def touches(self, order: Order) -> None:
        """Keep an open order as it is, before anything of it changes."""
        if order.order_id not in self._touched:
            self._touched[order.order_id] = (order, _copy(order))

    def end(self) -> None:
        """Keep what was established."""
        self._market.remembered = None

    def take_back(self) -> None:
        """Make the market what it was.

        Complexity: linear in what was changed and in the levels it stood in; linear in all open
        orders when some of them had left.
        """
        market = self._market
        for order, _ in self._touched.values():
            if order.level is not None:
                market.book.side(order.side).remove(order)
        for order in self.entered:
            market.orders.pop(order.order_id, None)
            market.peers[order.peer].open_of(order.side).pop(order.order_id, None)
            market.expiring.pop((order.expires_at, order.acceptance), None)
        returned = []
        for order, was in self._touched.values():
            if was is not None:
                for name in _FIELDS:
                    setattr(order, name, getattr(was, name))
                if order.order_id not in market.orders:
                    returned.append(order)
        # Those that stand in one queue, in their order there.
        for order, was in sorted(self._touched.values(), key=_priority):
            if was is not None:
                _put_back(market, order)
        _return(market, returned)
        for window, pair, left in reversed(market.remembered or []):
            window.forget(pair, left)
        while len(market.peers) > self._peers_count:
            market.peers.popitem()
        for name, value in zip(_NUMBERS, self._numbers, strict=True):
            setattr(market, name, value)
        market.begin_command()
        self.end()


def _priority(touched: tuple[Order, Order | None]) -> int:
    return touched[0].priority


def _put_back(market: ReplicatedState, order: Order) -> None:
    # At its place in the queue of its price, which its priority tells.
    side = market.book.side(order.side)
    side.add(order)
    younger: list[Order] = []
    older = order.older
    while older is not None and older.priority > order.priority:
        younger.append(older)
        older = older.older
    for each in reversed(younger):
        side.remove(each)
        side.add(each)


def _return(market: ReplicatedState, orders: list[Order]) -> None:
    # Open again; the open orders stand in order of acceptance.
    for order in orders:
        market.orders[order.order_id] = order
        market.peers[order.peer].open_of(order.side)[order.order_id] = order
        if order.expires_at:
            market.expiring[order.expires_at, order.acceptance] = order
    if orders:
        _sort(market.orders)
    for peer, side in {(order.peer, order.side): None for order in orders}:
        _sort(market.peers[peer].open_of(side))


def _sort(orders: dict[str, Order]) -> None:
    in_order = sorted(orders.values(), key=_acceptance)
    orders.clear()
    orders.update((order.order_id, order) for order in in_order)


def _acceptance(order: Order) -> int:
    return order.acceptance
