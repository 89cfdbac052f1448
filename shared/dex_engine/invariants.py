"""Every law that a market's state obeys between two commands, in one place.

Each check says what it protects; what is printed on failure is what was found. It reads all of
the state and changes nothing.
"""

from itertools import pairwise

from dex_engine.book import BookSide
from dex_engine.digest import key_of
from dex_engine.errors import InvariantViolated
from dex_engine.order import Order
from dex_engine.state import ReplicatedState
from dex_engine.window import Outcome
from dex_protocol.ids import SERVER_NAMED_END, pair_of


def check(market: ReplicatedState) -> None:
    """Assert every invariant of a market.

    Raises:
        InvariantViolated: one does not hold.

    Complexity: linear in the state.
    """
    resting = [
        order
        for side in (market.book.bids, market.book.asks)
        for order in _check_side(market, side)
    ]
    _check_not_crossed(market)
    _check_indexes(market, resting)
    _check_counters(market, resting)
    _check_peers(market)


def _require(holds: bool, law: str, *found: object) -> None:
    if not holds:
        raise InvariantViolated(f"{law}: found {', '.join(map(str, found))}")


def _check_side(market: ReplicatedState, side: BookSide) -> list[Order]:
    orders: list[Order] = []
    levels = list(side.by_rank())
    first = levels[0] if levels else None
    _require(side.best is first, "the best level is the first", side.best, first)
    _require(
        all(a.rank < b.rank for a, b in pairwise(levels)),
        "levels stand by rank",
        [level.rank for level in levels],
    )
    _require(len(levels) == len(side.levels), "each level has its rank", len(levels))
    for level in levels:
        rank = side.rank(level.price)
        _require(level.rank == rank, "a rank is a price", level.price, level.rank)
        _require(side.levels.get(level.price) is level, "a level is found", level.price)
        queue = list(level)
        _require(len(queue) > 0, "no level is empty", level.price)
        _require(level.count == len(queue), "a level counts its orders", level.count, len(queue))
        total = sum(order.remaining for order in queue)
        _require(level.quantity == total, "a level knows its quantity", level.quantity, total)
        _require(level.newest is queue[-1], "the newest order stands last", level.price)
        priorities = [order.priority for order in queue]
        _require(
            all(a < b for a, b in pairwise(priorities)),
            "a queue is in order of priority",
            priorities,
        )
        for order in queue:
            _check_resting(market, order)
            _require(order.level is level, "an order knows its level", order.order_id)
            _require(order.price == level.price, "an order stands at its price", order.order_id)
            _require(
                market.book.side(order.side) is side, "an order is on its side", order.order_id
            )
        orders += queue
    return orders


def _check_resting(market: ReplicatedState, order: Order) -> None:
    _require(order.done == "open", "what rests is open", order.order_id, order.done)
    _require(order.remaining > 0, "what rests has something left", order.order_id)
    _require(
        order.quantity == order.filled + order.remaining,
        "quantity is filled and remaining",
        order.order_id,
        order.quantity,
        order.filled,
        order.remaining,
    )
    _require(order.type == "limit", "only limit orders rest", order.order_id)
    _require(order.time_in_force in ("gtc", "gtd"), "only gtc and gtd rest", order.order_id)
    _require(
        (order.time_in_force == "gtd") == (order.expires_at != 0),
        "gtd orders expire, others do not",
        order.order_id,
    )
    key = key_of(order.order_id, order.side, order.price, order.priority)
    _require(order.key == key, "an order has its key", order.order_id)
    _require(order.priority >= 1, "priorities count from 1", order.order_id)
    _check_order(order)


def _check_order(order: Order) -> None:
    _require(order.version >= 1, "versions count from 1", order.order_id)
    _require(order.acceptance >= 1, "acceptances count from 1", order.order_id)
    _require((order.price > 0) == (order.type == "limit"), "limits have prices", order.order_id)
    _require(
        (order.content is not None) == (order.version > 1),
        "an order that was changed has its first content",
        order.order_id,
    )
    _require((order.value > 0) == (order.filled > 0), "fills have a value", order.order_id)
    _require(order.value >= order.filled >= 0, "a lot is worth a tick at least", order.order_id)
    _require(
        not order.post_only or order.time_in_force in ("gtc", "gtd"),
        "post-only orders rest",
        order.order_id,
    )


def _check_not_crossed(market: ReplicatedState) -> None:
    bid, ask = market.book.bids.best, market.book.asks.best
    if bid is not None and ask is not None:
        _require(bid.price < ask.price, "the book is not crossed", bid.price, ask.price)


def _check_indexes(market: ReplicatedState, resting: list[Order]) -> None:
    by_id = {order.order_id: order for order in resting}
    _require(len(by_id) == len(resting), "ids are unique", len(by_id), len(resting))
    of_peers: dict[str, Order] = {}
    for peer in market.peers.values():
        for side, orders in (("buy", peer.buys), ("sell", peer.sells)):
            of_peers |= orders
            own = [order.acceptance for order in orders.values()]
            _require(own == sorted(own), "a peer's orders are in order of acceptance", peer.name)
            _require(
                all((order.peer, order.side) == (peer.name, side) for order in orders.values()),
                "a peer holds its own orders, each on its side",
                peer.name,
            )
    _require(of_peers == by_id, "every open order is its peer's", len(of_peers), len(by_id))
    expiring = {(o.expires_at, o.acceptance): o for o in resting if o.expires_at}
    _require(expiring == dict(market.expiring), "every gtd order is due once", len(expiring))


def _check_counters(market: ReplicatedState, resting: list[Order]) -> None:
    total = sum(order.key * order.remaining for order in resting)
    _require(total == market.digest_value, "the digest is the book's", market.digest)
    priorities = [order.priority for order in resting]
    _require(len(set(priorities)) == len(priorities), "priorities are unique")
    _require(max(priorities, default=0) < market.next_priority, "priorities only grow")
    acceptances = [order.acceptance for order in resting]
    _require(len(set(acceptances)) == len(acceptances), "acceptances are unique")
    for order in resting:
        pair = pair_of(order.order_id)
        _require(
            pair >= SERVER_NAMED_END or pair < market.next_server_named,
            "servers give each name once",
            order.order_id,
        )
    newest = max(acceptances, default=0)
    _require(newest < market.next_acceptance, "acceptances only grow", newest)
    for older, newer in pairwise(market.trades):
        _require(older.trade_id + 1 == newer.trade_id, "trade ids count up", newer.trade_id)
        _require(older.time <= newer.time, "time never goes back", newer.trade_id)
        _require(older.sequence <= newer.sequence, "trades are in order", newer.trade_id)
    if market.trades:
        last = market.trades[-1]
        _require(last.trade_id < market.next_trade_id, "trade ids only grow", last.trade_id)
        _require(last.time <= market.time, "time never goes back", last.trade_id)
        _require(last.sequence <= market.sequence, "trades are of commits", last.trade_id)
        _require(market.trades[0].trade_id >= 1, "trade ids count from 1")
        _require(market.trades[0].time >= 0, "times count from 1970")
        _require(market.trades[0].sequence >= 1, "trades are of commits")
    _require(
        market.events_count >= len(market.trades),
        "every trade that is remembered is an event",
        market.events_count,
    )
    _require(market.state in ("trading", "halted", "closed"), "a known state", market.state)


def _check_peers(market: ReplicatedState) -> None:
    for peer in market.peers.values():
        window = peer.window
        outcomes = window.outcomes
        _require(len(outcomes) <= window.count_max, "a window is bounded", len(outcomes))
        lowest = min(outcomes, default=window.forgotten + 1)
        _require(lowest > window.forgotten, "the lowest pairs are forgotten", lowest)
        for orders in (peer.buys, peer.sells):
            for order in orders.values():
                pair = pair_of(order.order_id)
                _require(
                    pair <= window.forgotten
                    or pair < SERVER_NAMED_END
                    or outcomes.get(pair) is order,
                    "an open order is remembered until it is forgotten",
                    order.order_id,
                )
        if window.forgotten:
            _require(
                len(outcomes) == window.count_max, "a window forgets only when full", peer.name
            )
        for pair, outcome in outcomes.items():
            is_order = type(outcome) is Order
            own_id = outcome.order_id if is_order else outcome.id  # type: ignore[union-attr]
            _require(pair_of(str(own_id)) == pair, "an outcome stands at its pair", own_id)
            if is_order:
                _check_remembered(market, outcome)  # type: ignore[arg-type]
            elif type(outcome) is Outcome and outcome.count is None and outcome.reason is None:
                _require(outcome.status is not None, "an outcome has a status", own_id)


def _check_remembered(market: ReplicatedState, order: Order) -> None:
    _check_order(order)
    _require(order.acceptance < market.next_acceptance, "acceptances only grow", order.order_id)
    _require(order.priority < market.next_priority, "priorities only grow", order.order_id)
    is_open = market.orders.get(order.order_id) is order
    _require(is_open == (order.done == "open"), "open orders rest", order.order_id, order.done)
    if not is_open:
        _require(order.level is None, "what is done has left the book", order.order_id)
        _require(order.remaining == 0, "what is done has nothing left", order.order_id)
        _require(order.filled <= order.quantity, "no order is filled twice", order.order_id)
        _require(
            (order.done == "filled") <= (order.filled == order.quantity),
            "what is filled is filled whole",
            order.order_id,
        )
