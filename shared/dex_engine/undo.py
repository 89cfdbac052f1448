"""Taking back: what a commit changed is put back as it was, when the commit turns out impossible.

Only following has a use for it. A leader's commands cannot turn out impossible, so for a leader
nothing is kept. What is kept costs a copy of an order each time that an event changes its numbers,
without a look at whether there is one already; what taking back costs is paid only for a commit
that is refused.

Knows nothing of events.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from dex_engine.order import Order
from dex_engine.state import ReplicatedState
from dex_engine.window import RetryWindow

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
        entered: Orders that were accepted since, each added when it is about to be.
        taken_off: Orders of which the rest was taken off, each added when it is about to be.
        windows: Those with `newer` outcomes.
    """

    __slots__ = (
        "_market",
        "_numbers",
        "_peers_count",
        "_remembered",
        "_touched",
        "_were",
        "entered",
        "taken_off",
        "windows",
    )

    def __init__(self, market: ReplicatedState) -> None:
        """Begin, with a market as it is; its windows tell what they remember from now on."""
        self.entered: list[Order] = []
        self.taken_off: list[Order] = []
        self.windows: list[RetryWindow] = []
        self._market = market
        self._numbers: list[Any] = [getattr(market, name) for name in _NUMBERS]
        self._peers_count = len(market.peers)
        # Two lists, not one of pairs: nothing is made that the collector would have to look at.
        self._touched: list[Order] = []
        self._were: list[Order] = []
        self._remembered: list[Callable[[], None]] = []
        market.remembered = self._remembered

    def touches(self, order: Order) -> None:
        """Keep an open order as it is, before anything of it changes."""
        self._touched.append(order)
        self._were.append(_copy(order))

    def remember_newer(self) -> None:
        """Have the windows add their newer outcomes."""
        for window in self.windows:
            self._remembered.append(partial(window.forget_newer, window.remember_newer()))
        self.windows.clear()

    def end(self) -> None:
        """Keep what was established."""
        self.remember_newer()
        self._market.remembered = None

    def take_back(self) -> None:
        """Make the market what it was.

        Complexity: linear in what was changed and in the levels it stood in; linear in all open
        orders when some of them had left.
        """
        self.remember_newer()
        market = self._market
        # By id, each with a copy of it as it was first; those that entered have none.
        touched: dict[str, tuple[Order, Order | None]] = {
            order.order_id: (order, None) for order in self.entered
        }
        for order, copy in zip(self._touched, self._were, strict=True):
            touched.setdefault(order.order_id, (order, copy))
        for order in self.taken_off:
            if order.order_id not in touched:
                touched[order.order_id] = (order, _as_open(order))
        for order, _ in touched.values():
            if order.level is not None:
                market.book.side(order.side).remove(order)
        for order in self.entered:
            market.peers[order.peer].open_of(order.side).pop(order.order_id, None)
            market.expiring.pop((order.expires_at, order.acceptance), None)
        returned = []
        for order, was in touched.values():
            if was is not None:
                for name in _FIELDS:
                    setattr(order, name, getattr(was, name))
                if order.order_id not in market.orders:
                    returned.append(order)
        # Those that stand in one queue, in their order there.
        for order, was in sorted(touched.values(), key=_priority):
            if was is not None:
                _put_back(market, order)
        _return(market, returned)
        for forget in reversed(self._remembered):
            forget()
        while len(market.peers) > self._peers_count:
            market.peers.popitem()
        for name, value in zip(_NUMBERS, self._numbers, strict=True):
            setattr(market, name, value)
        market.begin_command()
        self.end()


def _as_open(order: Order) -> Order:
    # As it stood before it was taken off, which changes nothing else of it.
    was: Order = _copy(order)
    was.remaining = order.quantity - order.filled
    was.done = "open"
    return was


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
        market.peers[order.peer].open_of(order.side)[order.order_id] = order
        if order.expires_at:
            market.expiring[order.expires_at, order.acceptance] = order
    for peer, side in {(order.peer, order.side): None for order in orders}:
        _sort(market.peers[peer].open_of(side))


def _sort(orders: dict[str, Order]) -> None:
    in_order = sorted(orders.values(), key=_acceptance)
    orders.clear()
    orders.update((order.order_id, order) for order in in_order)


def _acceptance(order: Order) -> int:
    return order.acceptance
