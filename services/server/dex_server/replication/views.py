"""What a market's state looks like to a peer who asks: the queries that need no log.

Only reads. Whoever sends the answer makes sure that the state it speaks of is stored.
"""

from itertools import islice
from typing import assert_never

from dex_engine import Market
from dex_engine.answers import order_view
from dex_engine.book import BookSide
from dex_protocol import limits
from dex_protocol.ids import parse_id, split_pair
from dex_protocol.queries import (
    BookLevel,
    BookOrder,
    BookOrdersReply,
    BookQuery,
    BookReply,
    LogQuery,
    OrderQuery,
    OrderReply,
    OrdersQuery,
    OrdersReply,
    Query,
    Reply,
    SnapshotQuery,
    StatusQuery,
    StatusReply,
    TradesQuery,
    TradesReply,
)
from dex_protocol.reasons import Reason
from dex_protocol.receipts import Receipt, refused


def answer(market: Market, query: Query, *, peer: str, server: str) -> Reply | Receipt:
    """Answer a query about the state.

    Args:
        market: As of its `sequence`, which the reply carries.
        query: Any but `snapshot` and `log`, which are not about the state.
        peer: Who asks.
        server: The name of the server that answers.
    """
    match query:
        case BookQuery():
            return _book(market, query)
        case OrderQuery():
            return _order(market, query, peer)
        case OrdersQuery():
            return _orders(market, query, peer)
        case TradesQuery():
            newest_first = islice(reversed(market.trades), query.limit)
            return TradesReply(sequence=market.sequence, trades=list(newest_first))
        case StatusQuery():
            return _status(market, peer, server)
        case SnapshotQuery() | LogQuery():
            raise AssertionError(f"{type(query).__name__} is not about the state")
        case _:
            assert_never(query)  # type: ignore[arg-type]


def _book(market: Market, query: BookQuery) -> Reply:
    bids, asks = market.book.bids, market.book.asks
    if not query.orders:
        return BookReply(
            sequence=market.sequence,
            bids=_levels(market, bids, query.depth),
            asks=_levels(market, asks, query.depth),
        )
    bid_orders, more_bids = _book_orders(market, bids, query.depth)
    ask_orders, more_asks = _book_orders(market, asks, query.depth)
    return BookOrdersReply(
        sequence=market.sequence, bids=bid_orders, asks=ask_orders, more=more_bids or more_asks
    )


def _levels(market: Market, side: BookSide, depth: int) -> list[BookLevel]:
    tick, lot = market.rules.tick, market.rules.lot
    return [
        BookLevel(tick.text(level.price), lot.text(level.quantity), level.count)
        for level in islice(side.by_rank(), depth)
    ]


def _book_orders(market: Market, side: BookSide, depth: int) -> tuple[list[BookOrder], bool]:
    tick, lot = market.rules.tick, market.rules.lot
    levels = islice(side.by_rank(), depth)
    orders = (order for level in levels for order in level)
    page = [
        BookOrder(order.order_id, tick.text(order.price), lot.text(order.remaining), order.version)
        for order in islice(orders, limits.PAGE_COUNT_MAX)
    ]
    return page, next(orders, None) is not None


def _order(market: Market, query: OrderQuery, peer_name: str) -> Reply | Receipt:
    parsed = parse_id(query.order_id, "order")
    if parsed is None:
        return refused(Reason.malformed, f"expected an order id, found {query.order_id[:80]!r}")
    if parsed[0] != peer_name:
        return refused(
            Reason.wrong_peer, f"expected an order of {peer_name}, found {query.order_id}"
        )
    peer = market.peers.get(peer_name)
    order = None if peer is None else peer.order(query.order_id)
    if order is None:
        return refused(Reason.unknown_order, order_id=query.order_id)
    view = order_view(order, market.rules, sequence=market.sequence)
    return OrderReply(sequence=market.sequence, order=view)


def _orders(market: Market, query: OrdersQuery, peer_name: str) -> Reply | Receipt:
    peer = market.peers.get(peer_name)
    after = 0
    if query.after is not None and isinstance(query.after, str):
        parsed = parse_id(query.after, "order")
        if parsed is None:
            return refused(Reason.malformed, f"expected an order id, found {query.after[:80]!r}")
        if parsed[0] != peer_name:
            return refused(
                Reason.wrong_peer, f"expected an order of {peer_name}, found {query.after}"
            )
        last = None if peer is None else peer.order(query.after)
        if last is None:
            return refused(Reason.unknown_order, order_id=query.after)
        # The order may be done by now; those accepted after it are still to be told.
        after = last.acceptance
    orders = iter(()) if peer is None else peer.open_orders(after=after)
    page = [
        order_view(order, market.rules, sequence=market.sequence)
        for order in islice(orders, query.limit)
    ]
    more = next(orders, None) is not None
    return OrdersReply(sequence=market.sequence, orders=page, more=more)


def _status(market: Market, peer_name: str, server: str) -> StatusReply:
    peer = market.peers.get(peer_name)
    return StatusReply(
        sequence=market.sequence,
        leader=market.leader,
        server=server,
        term=market.term,
        digest=market.digest,
        state=market.state,
        specification=market.specification,
        last_price=market.rules.tick.text(market.last_price) if market.last_price else None,
        highest=split_pair(peer.window.highest) if peer else (0, 0),
        forgotten=split_pair(peer.window.forgotten) if peer else (0, 0),
    )
