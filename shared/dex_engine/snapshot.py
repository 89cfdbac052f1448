"""A market's whole replicated state as canonical JSON, and back.

Equal states give equal bytes, on whichever server and however they were reached; that is what
lets servers compare snapshots by a hash. Readers that only want the book need `orders` and the
fields before it; `peers` and `recent_trades` are what servers need to go on.

What is read is checked twice: here each text and number by itself, and how it is written; then the
whole state, by `invariants`, which knows how its parts belong together.
"""

from itertools import pairwise
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from dex_engine import following
from dex_engine.digest import key_of
from dex_engine.errors import InvariantViolated
from dex_engine.order import Order
from dex_engine.peers import Peer
from dex_engine.rules import Rules
from dex_engine.state import ReplicatedState
from dex_engine.window import Outcome
from dex_protocol import limits
from dex_protocol.codec import UNREADABLE, encode_canonical, is_content, is_hash
from dex_protocol.commands import OrderType, SelfTrade, Side, TimeInForce
from dex_protocol.events import MarketState
from dex_protocol.ids import (
    SEQUENCE_NUMBER_END,
    SERVER_NAMED_END,
    TIMESTAMP_END,
    Pair,
    is_peer,
    make_pair,
    pair_of,
    parse_id,
    split_pair,
)
from dex_protocol.numbers import COUNT_MAX, Scale, normal, units
from dex_protocol.queries import TimedTrade
from dex_protocol.receipts import DoneStatus
from dex_protocol.specification import Specification


class OrderState(Struct, tag_field="outcome", tag="order", gc=False, kw_only=True):
    """An order: the fields of `accepted`, and how it stands.

    `acceptance` is the how-manieth accepted order it is, `value` what it traded in ticks times
    lots, `content` its submit's content hash where it no longer follows from the fields.
    """

    order_id: str
    peer: str
    side: Side
    type: OrderType
    quantity: str
    time_in_force: TimeInForce
    post_only: bool
    self_trade: SelfTrade
    remaining_quantity: str
    filled_quantity: str
    priority: int
    version: int
    acceptance: int
    value: int
    price: str | UnsetType = UNSET
    expires_at: int | UnsetType = UNSET
    content: str | UnsetType = UNSET
    done: DoneStatus | UnsetType = UNSET


class OpenOrder(Struct, tag_field="outcome", tag="open", gc=False):
    """An outcome that is an open order: it stands in `orders`."""

    order_id: str


class CommandState(Struct, tag_field="outcome", tag="command", gc=False):
    """What became of a command that is not an accepted submit; see `Outcome`."""

    id: str
    content: str
    order_id: str | None
    reason: str | None
    count: int | None
    status: str | None
    filled: int
    remaining: int
    value: int
    version: int


class PeerState(Struct, gc=False):
    """A peer: its outcomes by growing pair, and the highest pair that was forgotten."""

    peer: str
    forgotten: tuple[int, int]
    outcomes: list[OpenOrder | OrderState | CommandState]


class WrittenState(Struct, kw_only=True):
    """The whole; orders: bids then asks, best price first, oldest first; peers by name."""

    market: str
    log_id: str
    sequence: int
    previous: str
    term: int
    time: int
    state: MarketState
    specification: Specification
    last_price: str | None
    next_trade_id: int
    next_priority: int
    orders: list[OrderState]
    digest: str
    leader: str
    next_acceptance: int
    next_server_named: int
    events_count: int
    peers: list[PeerState]
    recent_trades: list[TimedTrade]


VALUE_MAX: Final = COUNT_MAX**2
"""The most that all fills of an order are worth, in ticks times lots."""

_COUNTERS: Final = {
    "sequence": 1,
    "term": 1,
    "time": 0,
    "next_trade_id": 1,
    "next_priority": 1,
    "next_acceptance": 1,
    "next_server_named": 1,
    "events_count": 2,
}
"""The numbers of a state, each with its least."""

_ORDER_COUNTS: Final = ("priority", "version", "acceptance", "value")

_decoder = msgspec.json.Decoder(WrittenState)


def write(market: ReplicatedState) -> bytes:
    """Write a market's state, which must be the one after a commit."""
    rules = market.rules
    state = WrittenState(
        market=market.name,
        log_id=market.log_id,
        sequence=market.sequence,
        previous=market.hash,
        term=market.term,
        time=market.time,
        state=market.state,
        specification=market.specification,
        last_price=rules.tick.text(market.last_price) if market.last_price else None,
        next_trade_id=market.next_trade_id,
        next_priority=market.next_priority,
        orders=[
            _write_order(order, rules)
            for side in (market.book.bids, market.book.asks)
            for order in side
        ],
        digest=market.digest,
        leader=market.leader,
        next_acceptance=market.next_acceptance,
        next_server_named=market.next_server_named,
        events_count=market.events_count,
        peers=[_write_peer(peer, rules) for _, peer in sorted(market.peers.items())],
        recent_trades=list(market.trades),
    )
    return encode_canonical(state)


def _write_order(order: Order, rules: Rules) -> OrderState:
    return OrderState(
        order_id=order.order_id,
        peer=order.peer,
        side=order.side,
        type=order.type,
        quantity=rules.lot.text(order.quantity),
        time_in_force=order.time_in_force,
        post_only=order.post_only,
        self_trade=order.self_trade,
        remaining_quantity=rules.lot.text(order.remaining),
        filled_quantity=rules.lot.text(order.filled),
        priority=order.priority,
        version=order.version,
        acceptance=order.acceptance,
        value=order.value,
        price=rules.tick.text(order.price) if order.type == "limit" else UNSET,
        expires_at=order.expires_at or UNSET,
        content=UNSET if order.content is None else order.content,
        done=UNSET if order.done == "open" else order.done,
    )


def _write_peer(peer: Peer, rules: Rules) -> PeerState:
    return PeerState(
        peer.name,
        split_pair(peer.window.forgotten),
        [_write_outcome(outcome, rules) for _, outcome in sorted(peer.window.outcomes.items())],
    )


def _write_outcome(outcome: Order | Outcome, rules: Rules) -> OpenOrder | OrderState | CommandState:
    if type(outcome) is Outcome:
        return CommandState(
            outcome.id,
            outcome.content,
            outcome.order_id,
            outcome.reason,
            outcome.count,
            outcome.status,
            outcome.filled,
            outcome.remaining,
            outcome.value,
            outcome.version,
        )
    assert type(outcome) is Order
    return OpenOrder(outcome.order_id) if outcome.done == "open" else _write_order(outcome, rules)


def read(market: ReplicatedState, data: bytes) -> None:
    """Put a written state into a market that is new.

    Raises:
        InvariantViolated: the bytes are no snapshot, or of an impossible state.
    """
    try:
        state = _decoder.decode(data)
        _check_canonical(data, state)
        _read_state(market, state)
    except (*UNREADABLE, AssertionError, KeyError, ValueError) as error:
        raise InvariantViolated(f"expected a snapshot, found {error}") from error
    if market.digest != state.digest:
        raise InvariantViolated(
            f"expected the digest {state.digest} of the snapshot, found {market.digest}"
        )


def _check_canonical(data: bytes, state: WrittenState) -> None:
    # Fields that this code does not know leave only the longer way.
    if encode_canonical(state) != data:
        document = msgspec.json.decode(data)
        assert encode_canonical(document) == data, "the same in canonical JSON"


def _check_head(state: WrittenState) -> None:
    wrong = following.what_is_wrong_with(state.specification, state.market)
    assert wrong is None, wrong
    assert following.is_log_id(state.log_id), f"no log: {state.log_id[:80]!r}"
    assert is_hash(state.previous), f"no hash: {state.previous[:80]!r}"
    assert is_peer(state.leader), f"no server: {state.leader[:80]!r}"
    for name, least in _COUNTERS.items():
        count = getattr(state, name)
        assert least <= count <= COUNT_MAX, f"{name} {count}"
    assert len(state.recent_trades) <= limits.TRADES_COUNT_MAX, "too many trades"
    names = [peer.peer for peer in state.peers]
    assert all(is_peer(name) for name in names), "peers have names"
    assert all(a < b for a, b in pairwise(names)), "peers stand by name"


def _read_state(market: ReplicatedState, state: WrittenState) -> None:
    _check_head(state)
    market.name = state.market
    market.log_id = state.log_id
    market.sequence = state.sequence
    market.hash = state.previous
    market.term = state.term
    market.time = state.time
    market.state = state.state
    tick, lot = Scale(state.specification.tick_size), Scale(state.specification.lot_size)
    market.rules = rules = Rules(state.specification, tick=tick, lot=lot)
    market.last_price = 0 if state.last_price is None else _whole(tick, state.last_price)
    market.next_trade_id = state.next_trade_id
    market.next_priority = state.next_priority
    market.leader = state.leader
    market.next_acceptance = state.next_acceptance
    market.next_server_named = state.next_server_named
    market.events_count = state.events_count
    market.trades.extend(state.recent_trades)
    for peer in state.peers:
        market.peer(peer.peer)
    orders = [_read_order(order, rules) for order in state.orders]
    places = [(order.side, market.book.side(order.side).rank(order.price)) for order in orders]
    assert places == sorted(places), "bids then asks, best price first"
    for order in orders:
        assert order.peer in market.peers, f"{order.peer} of {order.order_id} is no peer"
        market.book.side(order.side).add(order)
        market.digest_value += order.key * order.remaining
    # The snapshot lists them as they stand in the book; these are by acceptance.
    for order in sorted(orders, key=_acceptance):
        market.peer(order.peer).open_of(order.side)[order.order_id] = order
        if order.expires_at:
            market.expiring[order.expires_at, order.acceptance] = order
    for peer in state.peers:
        by_pair: dict[Pair, Order | Outcome] = {}
        newest = Pair(0)
        for written in peer.outcomes:
            pair, outcome = _read_outcome(market, written, peer.peer)
            assert pair > newest, f"outcomes of {peer.peer} stand by growing pair"
            newest = pair
            by_pair[pair] = outcome
        timestamp, number = peer.forgotten
        assert (timestamp, number) == (0, 0) or (
            0 < timestamp < TIMESTAMP_END and 0 < number < SEQUENCE_NUMBER_END
        ), f"no pair: {peer.forgotten}"
        market.peer(peer.peer).window.load(by_pair, forgotten=make_pair(*peer.forgotten))
    _check_trades(market)


def _acceptance(order: Order) -> int:
    return order.acceptance


def _read_order(state: OrderState, rules: Rules) -> Order:
    parsed = parse_id(state.order_id, "order")
    assert parsed is not None, f"no order id: {state.order_id[:80]!r}"
    assert parsed[0] == state.peer, f"{state.order_id} is not {state.peer}'s"
    assert (state.price is UNSET) == (state.type == "market"), f"the price of {state.order_id}"
    assert (state.expires_at is UNSET) == (state.time_in_force != "gtd"), state.order_id
    assert state.content is UNSET or is_content(state.content), f"the content of {state.order_id}"
    for name in _ORDER_COUNTS:
        count = getattr(state, name)
        assert 0 <= count <= VALUE_MAX, f"{name} {count} of {state.order_id}"
    price = 0 if state.price is UNSET else _whole(rules.tick, state.price, least=1)
    order = Order(
        order_id=state.order_id,
        peer=state.peer,
        side=state.side,
        type=state.type,
        price=price,
        quantity=_whole(rules.lot, state.quantity),
        time_in_force=state.time_in_force,
        expires_at=0 if state.expires_at is UNSET else state.expires_at,
        post_only=state.post_only,
        self_trade=state.self_trade,
        acceptance=state.acceptance,
        remaining=_whole(rules.lot, state.remaining_quantity),
        filled=_whole(rules.lot, state.filled_quantity),
        value=state.value,
        version=state.version,
        priority=state.priority,
        done="open" if state.done is UNSET else state.done,
        content=None if state.content is UNSET else state.content,
    )
    assert state.expires_at is UNSET or 0 < state.expires_at <= COUNT_MAX, state.order_id
    if order.done == "open":
        order.key = key_of(order.order_id, order.side, order.price, order.priority)
    return order


def _read_outcome(
    market: ReplicatedState, state: OpenOrder | OrderState | CommandState, peer: str
) -> tuple[Pair, Order | Outcome]:
    match state:
        case OpenOrder():
            order = market.orders[state.order_id]
        case OrderState():
            order = _read_order(state, market.rules)
        case CommandState():
            return _read_command(state, peer)
    assert order.peer == peer, f"{order.order_id} among the outcomes of {peer}"
    pair = pair_of(order.order_id)
    assert pair >= SERVER_NAMED_END, f"{order.order_id} was named by a server"
    return pair, order


def _read_command(state: CommandState, peer: str) -> tuple[Pair, Outcome]:
    outcome = msgspec.convert(msgspec.structs.asdict(state), Outcome)
    is_refused_submit = state.id.startswith("order_")
    parsed = parse_id(state.id, "order" if is_refused_submit else "command")
    assert parsed is not None, f"no id: {state.id[:80]!r}"
    assert parsed[0] == peer, f"{state.id} among the outcomes of {peer}"
    assert parsed[1] >= SERVER_NAMED_END, f"{state.id} has the timestamp 0"
    assert is_content(state.content), f"the content of {state.id}"
    assert state.reason is None or state.reason in following.REFUSALS, f"the reason of {state.id}"
    assert state.count is None or 0 <= state.count <= COUNT_MAX, f"the count of {state.id}"
    if state.order_id is not None:
        target = parse_id(state.order_id, "order")
        assert target is not None, f"no order id: {state.order_id[:80]!r}"
        assert target[0] == peer, f"{state.id} of another peer's {state.order_id}"
    for name in ("filled", "remaining", "value", "version"):
        number = getattr(state, name)
        assert 0 <= number <= VALUE_MAX, f"{name} {number} of {state.id}"
        assert state.status is not None or number == 0, f"{state.id} shows no order"
    # A refused submit; a cancel of all; a cancel or an amend, refused or not.
    if is_refused_submit:
        assert state.reason is not None, state.id
        assert (state.order_id, state.count, state.status) == (None, None, None), state.id
    elif state.order_id is None:
        assert (state.reason is None) == (state.count is not None), state.id
        assert state.status is None, state.id
    else:
        assert state.count is None, state.id
        assert state.reason is not None or state.status is not None, state.id
    return parsed[1], outcome


def _check_trades(market: ReplicatedState) -> None:
    rules = market.rules
    count = market.trades[-1].trade_id if market.trades else 0
    assert count + 1 == market.next_trade_id, "the newest trade is remembered"
    last_price = rules.tick.count(market.trades[-1].price) if market.trades else 0
    assert market.last_price == last_price, "the last price is the last trade's"
    for trade in market.trades:
        assert 0 < trade.trade_id <= COUNT_MAX, f"trade {trade.trade_id}"
        _whole(rules.tick, trade.price, least=1)
        _whole(rules.lot, trade.quantity, least=1)
        for order_id in (trade.maker_order_id, trade.taker_order_id):
            assert parse_id(order_id, "order") is not None, f"no order id: {order_id[:80]!r}"


def _whole(scale: Scale, text: str, *, least: int = 0) -> int:
    assert units(text) is not None, f"no decimal: {text[:80]!r}"
    assert normal(text) == text, f"{text} has needless zeros"
    count = scale.count(text)
    assert count is not None, f"{text} is not a whole number of steps"
    assert least <= count <= COUNT_MAX, f"{text} is out of range"
    return count
