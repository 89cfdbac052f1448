"""Following: what each kind of event does to a market, and which events cannot be.

Reads what the leader wrote down and establishes the same facts. It decides nothing: whom an order
meets, and what is refused, is the leader's, so those rules may change without making old logs
unreadable. But it takes nothing on trust that its own state tells, and that docs/PROTOCOL.md
promises for good: an event that does not fit the orders, ids, counters, bounds and times there are
is impossible, whatever digest stands below it.

What is not asked: whether a maker was the next in the queue, how many makers a command touched,
why a command was refused, and whether something was due.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NoReturn

from msgspec import UNSET, UnsetType

from dex_engine.errors import InvariantViolated
from dex_engine.order import Order
from dex_engine.state import ReplicatedState
from dex_engine.undo import Undo
from dex_engine.window import Outcome
from dex_protocol.codec import is_content
from dex_protocol.events import (
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    CanceledAll,
    Commit,
    Expired,
    LeaderChanged,
    MarketChanged,
    MarketOpened,
    Reduced,
    Rejected,
    Trade,
)
from dex_protocol.ids import SERVER_NAMED_END, Kind, Pair, head_of, is_peer, own_pair, parse_id
from dex_protocol.limits import CONVERSIONS_COUNT_MAX
from dex_protocol.numbers import COUNT_MAX, ZERO, Scale, normal, units
from dex_protocol.reasons import Reason
from dex_protocol.specification import (
    DECIMAL_FIELDS,
    UNCHANGEABLE_FIELDS,
    Specification,
    what_is_wrong,
)

_LOG_ID: Final = re.compile(r"[ -~]{1,64}")
"""A log's random name: 32 hex digits today, and never more than some printable ASCII."""

_EVENTLESS: Final = frozenset(
    {
        Reason.malformed,
        Reason.unknown_value,
        Reason.batch_too_large,
        Reason.wrong_peer,
        Reason.unknown_market,
        Reason.stale_id,
        Reason.id_reused,
        Reason.too_many_peers,
    }
)
"""What is refused for one of these leaves no event."""

REFUSALS: Final = frozenset(reason.name for reason in Reason if reason not in _EVENTLESS)
"""The reasons that a `rejected` may have."""

_TAKERS_END: Final = frozenset({"ioc", "market", "self_trade", "too_many_makers"})
"""Why the rest of a taker is taken off."""


def follow(state: ReplicatedState, commit: Commit, undo: Undo) -> None:
    """Establish what a commit's events say, in their order.

    Args:
        state: Which the commit follows from, by sequence, chain and time.
        commit: Which may be as far established as it goes when this raises.
        undo: Takes note of what changes, and can take it back.

    Raises:
        InvariantViolated, AssertionError, KeyError, ValueError: it is impossible in this state.
    """
    state.begin_command()
    events = commit.events
    if not state.is_open and [type(event) for event in events[:2]] != _OPENING:
        _refuse("a log begins with market_opened and leader_changed")
    reading = Reading(state, undo, events)
    for event in events:
        _APPLY[type(event)](reading, event)
    reading.end_command()


def apply(state: ReplicatedState, event: AnyEvent) -> None:
    """Establish what an event says, by itself.

    Raises:
        InvariantViolated, AssertionError, KeyError, ValueError: it is impossible in this state.
    """
    _APPLY[type(event)](Reading(state), event)


class Reading:
    """Where in a commit one is, and in which command of it.

    Attributes:
        state: What is being changed.
        undo: Takes note of it; None where nobody will take it back.
        events: The commit's; None of an event by itself.
        is_beginning: Whether all of them were housekeeping, or began the term.
        taker: The order whose doing the next events are, if it was read here.
        is_taken_off: Whether what was left of it was taken off.
        owed: What a maker was reduced by, and the taker must be next, in lots.
        canceled: How many of the newest events may be of a `cancel_all` still to come.
        newest: The last of those orders.
    """

    __slots__ = (
        "canceled",
        "events",
        "is_beginning",
        "is_taken_off",
        "newest",
        "owed",
        "state",
        "taker",
        "undo",
    )

    def __init__(
        self,
        state: ReplicatedState,
        undo: Undo | None = None,
        events: Sequence[AnyEvent] | None = None,
    ) -> None:
        """Begin a commit, or an event by itself."""
        self.state = state
        self.undo = undo
        self.events = events
        self.is_beginning = True
        self.taker: Order | None = None
        self.is_taken_off = False
        self.owed = 0
        self.canceled = 0
        self.newest: Order | None = None

    def end_command(self) -> None:
        """Ask of a command that is done whether it told all that it did.

        Raises:
            InvariantViolated: it did not.
        """
        taker, self.taker = self.taker, None
        self.is_beginning = False
        self.canceled = 0
        if taker is None:
            return
        if self.owed:
            _refuse(f"a maker was reduced by {self.owed} lots, and {taker.order_id} was not")
        if taker.level is not None:
            if taker.quantity != taker.filled + taker.remaining:
                _refuse(
                    f"{taker.order_id} rests with {taker.remaining} lots of {taker.quantity},"
                    f" of which {taker.filled} are filled"
                )
            bid, ask = self.state.book.bids.best, self.state.book.asks.best
            if bid is not None and ask is not None and bid.price >= ask.price:
                _refuse(f"{taker.order_id} crosses the book: bid {bid.price}, ask {ask.price}")
        elif taker.quantity != taker.filled and not self.is_taken_off:
            _refuse(f"nobody says what became of the rest of {taker.order_id}")

    def begin_taking(self, order: Order) -> None:
        """Have the next events be an order's doing."""
        self.taker = order
        self.is_taken_off = False
        self.owed = 0

    def touch(self, order: Order) -> None:
        """Keep an order as it is, before anything of it changes."""
        if self.undo is not None:
            self.undo.touches(order)

    def current_taker(self) -> Order:
        """Give the order whose doing the next events are, while it has something left."""
        taker = self.state.taker
        if taker is None or self.is_taken_off:
            raise InvariantViolated("an event of a taker, and nothing is being taken")
        return taker


def _refuse(law: str) -> NoReturn:
    raise InvariantViolated(law)


# --- The market ---------------------------------------------------------------------------------


def _opened(reading: Reading, event: MarketOpened) -> None:
    state = reading.state
    if state.is_open:
        _refuse("a market is opened once, by the first event of its log")
    if not is_log_id(event.log_id):
        _refuse(f"{event.log_id[:80]!r} names no log")
    _check_specification(state, event.specification)
    state.log_id = event.log_id
    state.specify(event.specification)


def _changed(reading: Reading, event: MarketChanged) -> None:
    reading.end_command()
    state = reading.state
    state.begin_command()
    _check_open(state)
    specification, new_state = event.specification, event.state
    if state.state == "closed":
        _refuse("a closed market changes no more")
    if (specification is UNSET and new_state is UNSET) or new_state == state.state:
        _refuse("market_changed names what did not change")
    if specification is not UNSET:
        if specification == state.specification:
            _refuse("market_changed names a specification that did not change")
        _check_specification(state, specification)
        for name in UNCHANGEABLE_FIELDS:
            if getattr(specification, name) != getattr(state.specification, name):
                _refuse(f"{name} is not what it was")
        state.specify(specification)
    if new_state is not UNSET:
        state.state = new_state


def _check_specification(state: ReplicatedState, specification: Specification) -> None:
    wrong = what_is_wrong_with(specification, state.name)
    if wrong is not None:
        _refuse(wrong)


def what_is_wrong_with(specification: Specification, market: str) -> str | None:
    """Tell why a specification cannot be a market's as its log has it; None when it can."""
    wrong = what_is_wrong(specification)
    if wrong is not None:
        return wrong
    if specification.market != market:
        return f"a specification of {specification.market} in {market[:80]!r}"
    for name in DECIMAL_FIELDS:
        text = getattr(specification, name)
        if text is not UNSET and normal(text) != text:
            return f"{name} {text} is written with needless zeros"
    return None


def is_log_id(text: str) -> bool:
    """Tell whether a text may name a log."""
    return _LOG_ID.fullmatch(text) is not None


def _leader(reading: Reading, event: LeaderChanged) -> None:
    state = reading.state
    events = reading.events
    if events is not None and events[1 if state.term == 0 else 0] is not event:
        _refuse("a term begins with its commit")
    if not is_peer(event.server):
        _refuse(f"{event.server[:80]!r} names no server")
    if event.protocol < 1 or event.rules < 1:
        _refuse(f"protocol {event.protocol}, rules {event.rules}")
    _check_open(state)
    state.begin_term(event.term, event.server)


def _check_open(state: ReplicatedState) -> None:
    if not state.is_open:
        _refuse("the market is not open")


def _check_trading(state: ReplicatedState) -> None:
    if state.state != "trading" or not state.is_open:
        _refuse(f"a market that is {state.state} takes cancels only")


# --- Orders -------------------------------------------------------------------------------------


def _accepted(reading: Reading, event: Accepted) -> None:
    reading.end_command()
    state = reading.state
    _check_trading(state)
    rules = state.rules
    pair = _own_pair(event.order_id, "order", event.peer)
    if event.peer not in state.peers or pair >= SERVER_NAMED_END:
        _check_new(state, event.peer, pair)
    if pair < SERVER_NAMED_END and pair != state.next_server_named:
        _refuse(f"{event.order_id} is not the next name that a server gives")
    quantity = _steps(state.rules.lot, event.quantity)
    price = 0
    is_limit = event.type == "limit"
    in_force = event.time_in_force
    may_rest = is_limit and in_force in ("gtc", "gtd")
    if is_limit:
        if event.price is UNSET:
            _refuse(f"limit order {event.order_id} has no price")
        price = _steps(state.rules.tick, event.price)
        _check_price(state, event.side, price)
        if price * quantity < rules.notional_min:
            _refuse(f"{event.order_id} is below the least notional")
    elif event.price is not UNSET or in_force not in ("ioc", "fok"):
        _refuse(f"market order {event.order_id} has a price, or stays in force")
    _check_quantity(state, quantity)
    expires_at = 0
    if in_force == "gtd":
        if event.expires_at is UNSET or not state.time < event.expires_at <= COUNT_MAX:
            _refuse(f"{event.order_id} expires at {event.expires_at}, accepted at {state.time}")
        expires_at = event.expires_at
    elif event.expires_at is not UNSET:
        _refuse(f"{event.order_id} is {in_force}, and expires")
    if event.post_only and not may_rest:
        _refuse(f"{event.order_id} is post-only, and cannot rest")
    resting = (
        0 if event.resting_quantity == ZERO else _steps(state.rules.lot, event.resting_quantity)
    )
    if resting and not (may_rest and resting <= quantity):
        _refuse(f"{resting} lots of {event.order_id} rest, {in_force} of {quantity}")
    order = Order(
        order_id=event.order_id,
        peer=event.peer,
        side=event.side,
        type=event.type,
        price=price,
        quantity=quantity,
        time_in_force=in_force,
        expires_at=expires_at,
        post_only=event.post_only,
        self_trade=event.self_trade,
        acceptance=state.next_acceptance,
    )
    if reading.undo is not None:
        reading.undo.enters(order)
    state.enter(order, resting, pair)
    reading.begin_taking(order)


def _amended(reading: Reading, event: Amended) -> None:
    reading.end_command()
    state = reading.state
    state.begin_command()
    _check_trading(state)
    order = _open_order(state, event.order_id)
    pair = _command_pair(state, event.command_id, event.content, order.peer)
    price, quantity = _steps(state.rules.tick, event.price), _steps(state.rules.lot, event.quantity)
    resting = (
        0 if event.resting_quantity == ZERO else _steps(state.rules.lot, event.resting_quantity)
    )
    left = quantity - order.filled
    if left <= 0:
        _refuse(f"{event.order_id} amended to {quantity} lots, of which {order.filled} are filled")
    if price != order.price:
        _check_price(state, order.side, price)
    if quantity != order.quantity:
        _check_quantity(state, quantity)
    if price * quantity < state.rules.notional_min:
        _refuse(f"{event.order_id} is below the least notional")
    loses_place = price != order.price or quantity > order.quantity
    if loses_place != (event.priority == "lost"):
        _refuse(f"{event.order_id} has its place {event.priority}")
    if resting > left or (not loses_place and resting != left):
        _refuse(f"{resting} lots of {event.order_id} rest, of {left}")
    is_changed = loses_place or quantity != order.quantity
    if event.version != order.version + is_changed:
        _refuse(f"{event.order_id} has version {event.version} after {order.version}")
    reading.touch(order)
    state.amend(
        order,
        price=price,
        quantity=quantity,
        resting=resting,
        lost=loses_place,
        version=event.version,
    )
    if pair is not None:
        assert event.command_id is not UNSET
        assert event.content is not UNSET
        outcome = Outcome(event.command_id, event.content, event.order_id)
        state.remember_amended(order, outcome, pair)
    if loses_place:
        reading.begin_taking(order)


def _trade(reading: Reading, event: Trade) -> None:
    state = reading.state
    taker = reading.current_taker()
    if taker.order_id != event.taker_order_id or taker.side != event.taker_side:
        _refuse(f"trade {event.trade_id} is not the current taker's")
    if event.trade_id != state.next_trade_id:
        _refuse(f"trade {event.trade_id}, expected {state.next_trade_id}")
    maker = _open_order(state, event.maker_order_id)
    _check_meet(reading, maker, taker)
    if maker.peer == taker.peer and taker.self_trade != "allow":
        _refuse(f"{taker.order_id} trades with its own peer's {maker.order_id}")
    if taker.post_only:
        _refuse(f"{taker.order_id} is post-only, and takes")
    price, quantity = _steps(state.rules.tick, event.price), _steps(state.rules.lot, event.quantity)
    if price != maker.price:
        _refuse(f"trade {event.trade_id} at {price}, its maker stands at {maker.price}")
    _check_fits(maker, taker, quantity)
    reading.touch(maker)
    state.trade(event.trade_id, maker=maker, taker=taker, price=price, quantity=quantity)


def _reduced(reading: Reading, event: Reduced) -> None:
    state = reading.state
    taker = reading.current_taker()
    if taker.self_trade != "decrement" or taker.time_in_force == "fok" or taker.post_only:
        _refuse(f"{taker.order_id} reduces nothing")
    quantity = _steps(state.rules.lot, event.quantity)
    if event.order_id == taker.order_id:
        if quantity != reading.owed:
            _refuse(f"{taker.order_id} reduced by {quantity} lots, its maker by {reading.owed}")
        reading.owed = 0
        state.reduce(taker, quantity)
        return
    maker = _open_order(state, event.order_id)
    _check_meet(reading, maker, taker)
    if maker.peer != taker.peer:
        _refuse(f"{taker.order_id} reduces another peer's {maker.order_id}")
    _check_fits(maker, taker, quantity)
    reading.touch(maker)
    state.reduce(maker, quantity)
    reading.owed = quantity


def _check_meet(reading: Reading, maker: Order, taker: Order) -> None:
    if reading.owed:
        _refuse(f"{taker.order_id} owes a reduction, and goes on")
    if maker.side == taker.side:
        _refuse(f"{maker.order_id} and {taker.order_id} stand on one side")
    if taker.type == "limit" and (
        maker.price > taker.price if taker.side == "buy" else maker.price < taker.price
    ):
        _refuse(f"{taker.order_id} at {taker.price} meets {maker.order_id} at {maker.price}")


def _check_fits(maker: Order, taker: Order, quantity: int) -> None:
    if quantity > maker.remaining:
        _refuse(f"{quantity} lots of {maker.order_id}, which has {maker.remaining}")
    if quantity > taker.quantity - taker.filled - taker.remaining:
        _refuse(f"{quantity} lots of {taker.order_id}, which has less to trade")


def _canceled(reading: Reading, event: Canceled) -> None:
    if event.reason in _TAKERS_END:
        _taken_off(reading, event)
        return
    state = reading.state
    run, newest = reading.canceled, reading.newest
    reading.end_command()
    state.begin_command()
    order = _open_order(state, event.order_id)
    pair = None
    if event.reason == "requested":
        pair = _command_pair(state, event.command_id, event.content, order.peer)
    elif state.state != "closed":
        _refuse(f"{event.order_id} canceled by the closing of a market that is {state.state}")
    elif event.command_id is not UNSET or event.content is not UNSET:
        _refuse(f"{event.order_id} canceled by a command and by closing")
    _take_off(reading, order, event.quantity, "canceled")
    if pair is not None:
        assert event.command_id is not UNSET
        assert event.content is not UNSET
        outcome = Outcome.of(order, event.command_id, event.content)
        state.remember(order.peer, outcome, pair)
    elif event.reason == "requested":
        # Perhaps one of all: those of one peer, in order of acceptance.
        goes_on = (
            newest is not None
            and newest.peer == order.peer
            and newest.acceptance < order.acceptance
        )
        reading.canceled = run + 1 if goes_on else 1
        reading.newest = order


def _taken_off(reading: Reading, event: Canceled) -> None:
    # The doing of the current taker: its own rest, or a maker of its peer's.
    state = reading.state
    taker = reading.current_taker()
    if event.command_id is not UNSET or event.content is not UNSET:
        _refuse(f"{event.order_id} canceled by a command, and because of {event.reason}")
    if reading.owed:
        _refuse(f"{taker.order_id} owes a reduction, and ends")
    if event.order_id == taker.order_id:
        if taker.level is not None or not _may_end(taker, event.reason):
            _refuse(f"what is left of {taker.order_id} is not taken off by {event.reason}")
        _take_off(reading, taker, event.quantity, "canceled")
        reading.is_taken_off = True
        return
    maker = _open_order(state, event.order_id)
    _check_meet(reading, maker, taker)
    if (
        event.reason != "self_trade"
        or maker.peer != taker.peer
        or taker.self_trade not in ("cancel_maker", "cancel_both")
        or taker.post_only
    ):
        _refuse(f"{taker.order_id} takes {maker.order_id} off by {event.reason}")
    _take_off(reading, maker, event.quantity, "canceled")


def _may_end(taker: Order, reason: str) -> bool:
    if taker.time_in_force == "fok" or taker.post_only:
        return False
    if reason == "ioc":
        return taker.type == "limit" and taker.time_in_force == "ioc"
    if reason == "market":
        return taker.type == "market"
    return reason == "too_many_makers" or taker.self_trade in ("cancel_taker", "cancel_both")


def _take_off(reading: Reading, order: Order, quantity: str, how: Any) -> None:
    state = reading.state
    left = order.quantity - order.filled
    if _steps(state.rules.lot, quantity) != left:
        _refuse(f"{quantity} taken off {order.order_id}, which has {left} lots")
    reading.touch(order)
    state.take_off(order, how)


def _canceled_all(reading: Reading, event: CanceledAll) -> None:
    run, newest = reading.canceled, reading.newest
    reading.end_command()
    state = reading.state
    state.begin_command()
    _check_open(state)
    if not 0 <= event.count <= run:
        _refuse(f"{event.count} canceled, of {run} before")
    if event.command_id is UNSET:
        _command_pair(state, event.command_id, event.content, "")
        return
    parsed = parse_id(event.command_id, "command")
    if parsed is None:
        raise InvariantViolated(f"{event.command_id[:80]!r} is no command id")
    peer = parsed[0]
    if event.count and newest is not None and newest.peer != peer:
        _refuse(f"{peer} canceled all of {newest.peer}")
    pair = _command_pair(state, event.command_id, event.content, peer)
    assert pair is not None
    assert event.content is not UNSET
    outcome = Outcome(event.command_id, event.content, count=event.count)
    state.remember(peer, outcome, pair)


def _expired(reading: Reading, event: Expired) -> None:
    state = reading.state
    if not reading.is_beginning:
        _refuse(f"{event.order_id} expired after a command")
    state.begin_command()
    order = _open_order(state, event.order_id)
    if order.time_in_force != "gtd" or order.expires_at > state.time:
        _refuse(f"{event.order_id} expired at {state.time}, before its time")
    if state.expiring.peekitem(0)[1] is not order:
        _refuse(f"{event.order_id} expired before one that is due earlier")
    _take_off(reading, order, event.quantity, "expired")


def _rejected(reading: Reading, event: Rejected) -> None:
    reading.end_command()
    state = reading.state
    state.begin_command()
    _check_open(state)
    if event.reason not in REFUSALS:
        _refuse(f"{event.reason[:80]!r} is no reason of a refusal")
    if event.command_id is UNSET:
        if event.order_id is UNSET:
            raise InvariantViolated("a refusal of nothing")
        own_id, target = event.order_id, None
        pair = _own_pair(own_id, "order", event.peer)
    else:
        own_id = event.command_id
        target = None if event.order_id is UNSET else event.order_id
        pair = _own_pair(own_id, "command", event.peer)
        if target is not None:
            _own_pair(target, "order", event.peer)
    if pair < SERVER_NAMED_END:
        _refuse(f"{event.peer} uses the timestamp 0")
    _check_new(state, event.peer, pair)
    _check_content(event.content)
    state.remember_refusal(
        event.peer, own_id, event.content, event.reason, order_id=target, pair=pair
    )


# --- Ids ----------------------------------------------------------------------------------------


def _own_pair(own_id: str, kind: Kind, peer: str) -> Pair:
    pair = own_pair(own_id, head_of(kind, peer))
    if pair is None:
        raise InvariantViolated(f"{own_id[:80]!r} is no {kind} id of {peer[:80]!r}")
    return pair


def _check_new(state: ReplicatedState, name: str, pair: Pair) -> None:
    # One outcome per id, and none for one that may have been forgotten.
    peer = state.peers.get(name)
    if peer is None:
        if not is_peer(name):
            _refuse(f"{name[:80]!r} names no peer")
        count_max = state.specification.max_peers
        if count_max is not UNSET and len(state.peers) >= count_max:
            _refuse(f"{name} is one peer more than {count_max}")
    elif pair in peer.window.outcomes or pair <= peer.window.forgotten:
        _refuse(f"{name} used the pair {pair} before")


def _command_pair(
    state: ReplicatedState, command_id: str | UnsetType, content: str | UnsetType, peer: str
) -> Pair | None:
    # None of a command without an id, which has no content either.
    if command_id is UNSET:
        if content is not UNSET:
            _refuse("content of a command without an id")
        return None
    if content is UNSET:
        raise InvariantViolated(f"{command_id[:80]!r} has no content")
    pair = _own_pair(command_id, "command", peer)
    if pair < SERVER_NAMED_END:
        _refuse(f"{peer} uses the timestamp 0")
    _check_new(state, peer, pair)
    _check_content(content)
    return pair


def _check_content(content: str) -> None:
    if not is_content(content):
        _refuse(f"{content[:80]!r} is no content")


def _open_order(state: ReplicatedState, order_id: str) -> Order:
    order = state.orders.get(order_id)
    if order is None:
        raise InvariantViolated(f"{order_id[:80]!r} is not open")
    return order


# --- Numbers ------------------------------------------------------------------------------------


def _check_price(state: ReplicatedState, side: Any, price: int) -> None:
    rules = state.rules
    if price > rules.price_max or (
        rules.specification.price_band is not UNSET
        and not rules.is_in_band(side, price, last_price=state.last_price)
    ):
        _refuse(f"a price of {price} ticks is out of range")


def _check_quantity(state: ReplicatedState, quantity: int) -> None:
    if not state.rules.quantity_min <= quantity <= state.rules.quantity_max:
        _refuse(f"a quantity of {quantity} lots is out of range")


@lru_cache(maxsize=CONVERSIONS_COUNT_MAX)
def _steps(scale: Scale, text: str) -> int:
    # From 1; what is nothing is asked for before.
    if units(text) is None or normal(text) != text:
        _refuse(f"{text[:80]!r} is no decimal without needless zeros")
    count = scale.count(text)
    if count is None or not 1 <= count <= COUNT_MAX:
        raise InvariantViolated(f"{text} is not a whole number of steps, from 1 to {COUNT_MAX}")
    return count


_OPENING: Final = [MarketOpened, LeaderChanged]

_APPLY: Final[dict[type, Any]] = {
    MarketOpened: _opened,
    MarketChanged: _changed,
    LeaderChanged: _leader,
    Accepted: _accepted,
    Trade: _trade,
    Amended: _amended,
    Reduced: _reduced,
    Canceled: _canceled,
    CanceledAll: _canceled_all,
    Expired: _expired,
    Rejected: _rejected,
}
"""What each kind of event does; there is no other way into the state but its facts."""
