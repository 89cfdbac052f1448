"""An order, from its acceptance until it is forgotten.

The same object rests in the book, stands among its peer's open orders, and is the remembered
outcome of its submit; so whoever asks for the order sees it as it stands. Knows nothing of rules.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct

from dex_protocol.commands import OrderType, SelfTrade, Side, TimeInForce
from dex_protocol.content import content_of_submit
from dex_protocol.numbers import Scale
from dex_protocol.receipts import DoneStatus, Status


class Order(Struct, gc=False):
    """An order; prices in ticks, quantities in lots, `value` in ticks times lots.

    While it is open, `quantity == filled + remaining`, and it is in the book with `remaining`.
    It is outside the collector's sight (a full collection over a million orders is then 100 times
    shorter), so whoever takes it out of a level clears its links.
    """

    order_id: str
    peer: str
    side: Side
    type: OrderType
    price: int
    """0 for a market order, which has none."""
    quantity: int
    """The current total: amends set it, `reduced` lowers it."""
    time_in_force: TimeInForce
    expires_at: int
    """0 for what never expires."""
    post_only: bool
    self_trade: SelfTrade
    acceptance: int
    """The how-manieth accepted order of its market it is, from 1."""
    remaining: int = 0
    filled: int = 0
    value: int = 0
    version: int = 1
    priority: int = 0
    key: int = 0
    """Its factor in the book's digest, while it rests."""
    done: DoneStatus | Literal["open"] = "open"
    content: str | None = None
    """Its submit's content hash; None while it still follows from the fields."""
    level: Any = None
    older: Any = None
    newer: Any = None

    @property
    def status(self) -> Status:
        """Its status in a receipt."""
        done = self.done
        if done != "open":
            return done
        return "partially_filled" if self.filled else "new"


def content_of_order(order: Order, tick: Scale, lot: Scale) -> str:
    """Give the content hash of the submit that made an order."""
    if order.content is not None:
        return order.content
    return content_of_submit(
        side=order.side,
        type=order.type,
        price=tick.text(order.price) if order.type == "limit" else UNSET,
        quantity=lot.text(order.quantity),
        time_in_force=order.time_in_force,
        expires_at=order.expires_at if order.time_in_force == "gtd" else UNSET,
        post_only=order.post_only,
        self_trade=order.self_trade,
    )
