"""The orders of the benches on the wire: what is sent, ready to be sent.

Orders come in *cycles* of 100 by one peer: first 50 sells of 2 lots, at 25 prices, which all rest;
then 50 buys of 1 to 3 lots, which reach up to the highest of these prices, and take all of them,
whole, in parts, or more than one. After each cycle the book is what it was, however many come. Half
of the orders rest, half trade, and there are 60 trades to 100 orders, about as in the load
generator's profile; but none is refused, so that each that is not executed shows.

Around the price stands a *depth* that no order reaches, so that no side is ever empty. A peer may
trade with itself (`self_trade`), and does.

Pure. Knows nothing of how they are sent, nor when.
"""

from collections.abc import Sequence
from typing import Final

from dex_protocol.codec import encode
from dex_protocol.commands import Side, Submit
from dex_protocol.ids import make_id

CYCLE_COUNT: Final = 100
"""Orders of a cycle, which is also a batch."""

DEPTH_COUNT: Final = 1_000
"""Orders that stand around the price, half of them on each side, at 100 prices each."""

_PRICES_COUNT: Final = 25
_SCATTER: Final = 7
"""What goes through all prices out of order, since it has no divisor with their count in common."""

_SELL_LOTS: Final = 2
_BUY_LOTS: Final = (2, 2, 2, 1, 3)
"""The same on average; the last two share a sell."""

_MIDDLE_CENTS: Final = 10_000
_DEPTH_CENTS: Final = 50
"""How far from the price the depth begins; cycles reach up to 25 cents."""
_DEPTH_PRICES_COUNT: Final = 100

_MARK: Final = "@"


class Writer:
    """Writes the orders of one peer to one market, each with an id of its own."""

    def __init__(self, peer: str, *, at_ms: int) -> None:
        """Begin.

        Args:
            peer: Who sends them.
            at_ms: The timestamp of all ids; later than that of any other writer for this peer.
        """
        self._peer = peer
        self._at_ms = at_ms
        self._count = 0
        self._cycle = [self._template(order) for order in _cycle()]

    def depth(self) -> bytes:
        """Write the orders that stand around the price, as one batch."""
        return _batch([self._next(self._template(order)) for order in _depth()])

    def singles(self, count: int) -> list[bytes]:
        """Write so many orders, each by itself; whole cycles in the end."""
        return [
            self._next(template)
            for _ in range(-(-count // CYCLE_COUNT))
            for template in self._cycle
        ]

    def batches(self, count: int) -> list[bytes]:
        """Write so many batches of a cycle each."""
        return [_batch([self._next(template) for template in self._cycle]) for _ in range(count)]

    def _template(self, order: Submit) -> tuple[bytes, bytes]:
        marked = make_id("order", self._peer, self._at_ms, 1).removesuffix("1") + _MARK
        order.order_id = marked
        before, after = encode(order).split(_MARK.encode())
        return before, after

    def _next(self, template: tuple[bytes, bytes]) -> bytes:
        self._count += 1
        return b"%b%d%b" % (template[0], self._count, template[1])


def _batch(orders: Sequence[bytes]) -> bytes:
    return b"[%b]" % b",".join(orders)


def _cycle() -> list[Submit]:
    half = range(CYCLE_COUNT // 2)
    highest = _MIDDLE_CENTS + _PRICES_COUNT
    return [
        *(_order("sell", highest - k * _SCATTER % _PRICES_COUNT, _SELL_LOTS) for k in half),
        *(_order("buy", highest, _BUY_LOTS[k % len(_BUY_LOTS)]) for k in half),
    ]


def _depth() -> list[Submit]:
    levels = [_DEPTH_CENTS + k % _DEPTH_PRICES_COUNT for k in range(DEPTH_COUNT // 2)]
    return [
        order
        for level in levels
        for order in (
            _order("sell", _MIDDLE_CENTS + level, 1),
            _order("buy", _MIDDLE_CENTS - level, 1),
        )
    ]


def _order(side: Side, cents: int, lots: int) -> Submit:
    price = f"{cents // 100}.{cents % 100:02}"
    return Submit(side, f"0.000{lots}", price=price, self_trade="allow")
