"""What a peer may ask about a market, and what it is told: one request and one reply each.

Knows nothing of where the answers come from. Every request may carry `min_sequence`; every reply
carries `sequence`, the commit as of which it is true.
"""

from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from dex_protocol import limits
from dex_protocol.commands import OrderType, Side
from dex_protocol.events import MarketState
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification

_INTEGER_MAX: Final = 2**63 - 1

Count = Annotated[int, Meta(ge=0, le=_INTEGER_MAX)]
Page = Annotated[int, Meta(ge=1, le=limits.PAGE_COUNT_MAX)]


class Query(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A question; it waits until the replica has applied `min_sequence`, 1 s at most."""

    min_sequence: Count = 0


class BookQuery(Query):
    """Ask for the best levels of both sides; with `orders`, for each order of them."""

    depth: Page = limits.BOOK_DEPTH
    orders: bool = False


class OrderQuery(Query):
    """Ask for one order of the peer's own."""

    order_id: str


class OrdersQuery(Query):
    """Ask for the peer's open orders, after one of them."""

    after: str | UnsetType = UNSET
    limit: Page = limits.PAGE_COUNT_MAX


class TradesQuery(Query):
    """Ask for the newest trades."""

    limit: Page = limits.TRADES_COUNT


class StatusQuery(Query):
    """Ask how the market stands, and for the peer's own highest pairs."""


class SnapshotQuery(Query):
    """Ask for a part of a stored snapshot, of the newest when none is named."""

    snapshot_sequence: Count | UnsetType = UNSET
    part: Count = 0


class LogQuery(Query):
    """Ask for stored commits, from a sequence on."""

    from_sequence: Annotated[int, Meta(ge=1, le=_INTEGER_MAX)]
    limit: Page = limits.PAGE_COUNT_MAX


QUERIES: Final[dict[str, type[Query]]] = {
    "book": BookQuery,
    "order": OrderQuery,
    "orders": OrdersQuery,
    "trades": TradesQuery,
    "status": StatusQuery,
    "snapshot": SnapshotQuery,
    "log": LogQuery,
}
"""The `what` of each query's subject, and the shape of its request."""


class Reply(Struct, omit_defaults=True, kw_only=True):
    """An answer, true as of the commit `sequence`."""

    sequence: int


class BookLevel(Struct, gc=False):
    """A price level: what is open at a price, and in how many orders."""

    price: str
    quantity: str
    count: int


class BookOrder(Struct, gc=False):
    """One order of the book."""

    order_id: str
    price: str
    remaining_quantity: str
    version: int


class BookReply(Reply):
    """Both sides, best price first."""

    bids: list[BookLevel]
    asks: list[BookLevel]


class BookOrdersReply(Reply):
    """Both sides order by order, best price first, oldest first; `more` when either was cut."""

    bids: list[BookOrder]
    asks: list[BookOrder]
    more: bool


class OrderReceipt(Receipt, omit_defaults=True, kw_only=True, gc=False):
    """An order's receipt as it stands, and what it is."""

    side: Side
    type: OrderType
    price: str | UnsetType = UNSET
    quantity: str


class OrderReply(Reply):
    """The order asked for."""

    order: OrderReceipt


class OrdersReply(Reply):
    """The peer's open orders, in order of acceptance."""

    orders: list[OrderReceipt]
    more: bool


class TimedTrade(Struct, gc=False):
    """A `trade` event with its commit's time and sequence."""

    trade_id: int
    price: str
    quantity: str
    maker_order_id: str
    taker_order_id: str
    taker_side: Side
    time: int
    sequence: int


class TradesReply(Reply):
    """Trades, newest first."""

    trades: list[TimedTrade]


class StatusReply(Reply):
    """How a market stands; `highest` and `forgotten` are the asking peer's pairs."""

    leader: str
    server: str
    term: int
    digest: str
    state: MarketState
    specification: Specification
    highest: tuple[int, int]
    forgotten: tuple[int, int]
    last_price: str | None


class SnapshotReply(Reply):
    """A part of a stored snapshot, in base64; `parts` 0 when there is none yet."""

    snapshot_sequence: int
    digest: str
    hash: str
    part: int
    parts: int
    data: str


class LogReply(Reply):
    """Stored payloads as JSON strings, byte for byte, oldest first."""

    first_sequence: int
    commits: list[str]
