"""What a market knows of a peer: its open orders, and what became of its commands."""

from dex_engine.order import Order
from dex_engine.window import RetryWindow
from dex_protocol.ids import pair_of


class Peer:
    """A peer of a market.

    `open` holds its open orders by id, in order of acceptance.
    """

    __slots__ = ("name", "open", "window")

    def __init__(self, name: str, *, window_count_max: int) -> None:
        self.name = name
        self.open: dict[str, Order] = {}
        self.window = RetryWindow(window_count_max)

    def order(self, order_id: str) -> Order | None:
        """Find an order of this peer's while it is open or remembered; one refused never was."""
        return self.open.get(order_id) or self.window.order(pair_of(order_id))
