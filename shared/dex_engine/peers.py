"""What a market knows of a peer: its open orders, and what became of its commands.

And all open orders of a market, which stand with their peers and nowhere else.
"""

from collections.abc import Iterator, Mapping, ValuesView
from heapq import merge
from typing import Final

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


class OpenOrders(Mapping[str, Order]):
    """All open orders of a market by id, in order of acceptance; it shows what its peers hold.

    An id names its peer, so nobody needs a dict of all orders. One of a million would be copied
    for 60 ms when it grows, with everybody waiting; of a peer's, none is larger than the peer's
    bound lets it become (3 ms at 65,000 orders of a side).
    """

    __slots__ = ("_found", "_peers")

    def __init__(self, peers: dict[str, Peer]) -> None:
        """Show what the peers hold, by name, now and later."""
        self._peers = peers
        # Whose order was sought last: commands of a peer come together, and to read its name in
        # the id takes twice as long as to look there. An id is nobody else's, so it cannot mislead.
        self._found = Peer("", window_count_max=0)

    def get(self, order_id: str) -> Order | None:  # type: ignore[override]
        """Find an open order, by any text."""
        found = self._found
        order = found.buys.get(order_id) or found.sells.get(order_id)
        if order is not None:
            return order
        peer = self._peers.get(order_id.rsplit("_", 2)[0][_NAME_BEGINS:])
        if peer is None:
            return None
        self._found = peer
        return peer.buys.get(order_id) or peer.sells.get(order_id)

    def __getitem__(self, order_id: str) -> Order:
        order = self.get(order_id)
        if order is None:
            raise KeyError(order_id)
        return order

    def __contains__(self, order_id: object) -> bool:
        return isinstance(order_id, str) and self.get(order_id) is not None

    def __len__(self) -> int:
        return sum(peer.open_count for peer in self._peers.values())

    def __iter__(self) -> Iterator[str]:
        for order in self._in_order():
            yield order.order_id

    def values(self) -> ValuesView[Order]:
        """Give the orders, in order of acceptance."""
        return _Orders(self)

    def _in_order(self) -> Iterator[Order]:
        sides = [s.values() for peer in self._peers.values() for s in (peer.buys, peer.sells) if s]
        return merge(*sides, key=_acceptance)


class _Orders(ValuesView[Order]):
    # As they stand, instead of each sought by its id.
    _mapping: OpenOrders

    def __iter__(self) -> Iterator[Order]:
        return self._mapping._in_order()


_NAME_BEGINS: Final = len("order_")
"""Where an order's id names its peer."""


def _acceptance(order: Order) -> int:
    return order.acceptance
