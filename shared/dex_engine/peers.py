"""What a market knows of a peer: its open orders, and what became of its commands."""

from collections.abc import Iterator
from heapq import merge

from dex_engine.order import Order
from dex_engine.window import RetryWindow
from dex_protocol.commands import Side
from dex_protocol.ids import pair_of


class Peer:
    """A peer of a market.

    `buys` and `sells` hold its open orders by id, in order of acceptance: apart, so that those of
    a side are found without a look at the others.
    """

    __slots__ = ("buys", "name", "sells", "window")

    def __init__(self, name: str, *, window_count_max: int) -> None:
        self.name = name
        self.buys: dict[str, Order] = {}
        self.sells: dict[str, Order] = {}
        self.window = RetryWindow(window_count_max)

    def order(self, order_id: str) -> Order | None:
        """Find an order of this peer's while it is open or remembered; one refused never was."""
        open_order = self.buys.get(order_id) or self.sells.get(order_id)
        return open_order or self.window.order(pair_of(order_id))

    def open_of(self, side: Side) -> dict[str, Order]:
        """Give its open orders of a side."""
        return self.buys if side == "buy" else self.sells

    @property
    def open_count(self) -> int:
        """How many open orders it has."""
        return len(self.buys) + len(self.sells)

    def open_orders(self, *, after: int = 0) -> Iterator[Order]:
        """Walk its open orders in order of acceptance, those accepted after one of that number."""
        buys, sells = iter(self.buys.values()), iter(self.sells.values())
        if after > 0:
            buys = (order for order in buys if order.acceptance > after)
            sells = (order for order in sells if order.acceptance > after)
        return merge(buys, sells, key=_acceptance)


def _acceptance(order: Order) -> int:
    return order.acceptance
