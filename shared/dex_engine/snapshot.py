"""A market's whole replicated state as canonical JSON, and back.

Equal states give equal bytes, on whichever server and however they were reached; that is what
lets servers compare snapshots by a hash. Readers that only want the book need `orders` and the
fields before it; `peers` and `recent_trades` are what servers need to go on.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from dex_engine.digest import key_of
from dex_engine.errors import InvariantViolated
from dex_engine.order import Order
from dex_engine.peers import Peer
from dex_engine.rules import Rules
from dex_engine.state import ReplicatedState
from dex_engine.window import Outcome
from dex_protocol.codec import UNREADABLE, encode_canonical
from dex_protocol.commands import OrderType, SelfTrade, Side, TimeInForce
from dex_protocol.events import MarketState
from dex_protocol.ids import Pair, make_pair, pair_of, split_pair
from dex_protocol.numbers import Scale
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
        _read_state(market, state)
    except (*UNREADABLE, AssertionError, KeyError, ValueError) as error:
        raise InvariantViolated(f"expected a snapshot, found {error}") from error
    if market.digest != state.digest:
        raise InvariantViolated(
            f"expected the digest {state.digest} of the snapshot, found {market.digest}"
        )


def _read_state(market: ReplicatedState, state: WrittenState) -> None:
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
    for order in orders:
        market.book.side(order.side).add(order)
        market.digest_value += order.key * order.remaining
    market.digest_value %= 2**64
    # The snapshot lists them as they stand in the book; these are by acceptance.
    for order in sorted(orders, key=_acceptance):
        market.orders[order.order_id] = order
        market.peer(order.peer).open_of(order.side)[order.order_id] = order
        if order.expires_at:
            market.expiring[order.expires_at, order.acceptance] = order
    for peer in state.peers:
        outcomes = [_read_outcome(market, outcome) for outcome in peer.outcomes]
        by_pair: dict[Pair, Any] = {
            pair_of(o.order_id if type(o) is Order else o.id): o  # type: ignore[union-attr]
            for o in outcomes
        }
        market.peer(peer.peer).window.load(by_pair, forgotten=make_pair(*peer.forgotten))


def _acceptance(order: Order) -> int:
    return order.acceptance


def _read_order(state: OrderState, rules: Rules) -> Order:
    price = 0 if state.price is UNSET else _whole(rules.tick, state.price)
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
    if order.done == "open":
        order.key = key_of(order.order_id, order.side, order.price, order.priority)
    return order


def _read_outcome(
    market: ReplicatedState, state: OpenOrder | OrderState | CommandState
) -> Order | Outcome:
    match state:
        case OpenOrder():
            return market.orders[state.order_id]
        case OrderState():
            return _read_order(state, market.rules)
        case CommandState():
            return msgspec.convert(msgspec.structs.asdict(state), Outcome)


def _whole(scale: Scale, text: str) -> int:
    count = scale.count(text)
    assert count is not None, f"{text} is not a whole number of steps"
    return count
