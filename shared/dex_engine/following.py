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
from dex_protocol.numbers import COUNT_MAX, ZERO, normal
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

_NOBODY: Final = ("", Pair(0))
"""What an id names that is none."""

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
    if not state.is_open and type(event) is not MarketOpened:
        _refuse("the market is not open")
    undo = Undo(state)
    try:
        _APPLY[type(event)](Reading(state, undo), event)
    finally:
        undo.end()


class Reading:
    """Where in a commit one is, and in which command of it.

    Attributes:
        state: What is being changed.
        undo: Takes note of it.
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
        undo: Undo,
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

    def begin_command(self) -> None:
        """End the command before, and begin one without a taker."""
        self.end_command()
        self.state.begin_command()

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
    reading.begin_command()
    state = reading.state
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
    state.begin_term(event.term, event.server)


def _check_trading(state: ReplicatedState) -> None:
    if state.state != "trading":
        _refuse(f"a market that is {state.state} takes cancels only")


# --- Orders -------------------------------------------------------------------------------------

# Most of what is followed are orders and cancels whose ids are above all that their peers used.
# `_accepted` and `_canceled` ask all that is to be asked of those without calling anybody, and
# leave their outcomes to be remembered all in one go; what is otherwise, or wrong, goes on to
# functions that ask each question by itself. So a commit is followed in 5 µs an event, instead of
# 8.


def _accepted(reading: Reading, event: Accepted) -> None:
    if reading.taker is not None:
        reading.end_command()
    reading.is_beginning = False
    reading.canceled = 0
    state = reading.state
    rules = state.rules
    if state.state != "trading":
        _check_trading(state)
    order_id, name = event.order_id, event.peer
    peer = state.peers.get(name)
    named, pair = parse_id(order_id, "order") or _NOBODY
    window = None if peer is None else peer.window
    if window is None or named != name or pair <= window.highest or pair < SERVER_NAMED_END:
        window = None
        pair = _accepted_pair(reading, order_id, name)
    quantity_text = event.quantity
    quantity = rules.lots(quantity_text)
    if not rules.quantity_min <= quantity <= rules.quantity_max:
        _check_quantity(state, quantity)
    side, price_text, expires_at = event.side, event.price, event.expires_at
    if event.type == "limit" and event.time_in_force == "gtc" and expires_at is UNSET:
        # As most of them are.
        may_rest, expires_at = True, 0
    else:
        may_rest, expires_at = _check_terms(state, event)
    price = 0
    if price_text is not UNSET:
        price = rules.ticks(price_text)
        if price > rules.price_max or rules.has_band:
            _check_price(state, side, price)
        if price * quantity < rules.notional_min:
            _refuse(f"{order_id} is below the least notional")
    elif event.type == "limit":
        _refuse(f"limit order {order_id} has no price")
    rest_text = event.resting_quantity
    if rest_text == quantity_text:
        resting = quantity
    else:
        resting = 0 if rest_text == ZERO else rules.lots(rest_text)
    if resting and not (may_rest and resting <= quantity):
        _refuse(f"{resting} lots of {order_id} rest, {event.time_in_force} of {quantity}")
    order = Order(
        order_id,
        name,
        side,
        event.type,
        price,
        quantity,
        event.time_in_force,
        expires_at,
        event.post_only,
        event.self_trade,
        state.next_acceptance,
    )
    reading.undo.entered.append(order)
    if window is None:
        state.enter(order, resting, pair)
    else:
        if not window.newer:
            reading.undo.windows.append(window)
        window.highest = pair
        window.newer[pair] = order
        state.enter(order, resting, None, peer)
    if resting == quantity:
        # Nothing of it may trade, so when it meets nobody it did all that it can.
        best = state.book.asks.best if side == "buy" else state.book.bids.best
        if best is None or (best.price > price if side == "buy" else best.price < price):
            reading.taker = None
            reading.is_taken_off = False
            return
    reading.begin_taking(order)


def _check_terms(state: ReplicatedState, event: Accepted) -> tuple[bool, int]:
    # Whether anything of it may rest, and when it expires, or 0.
    in_force, expires_at = event.time_in_force, event.expires_at
    may_rest = event.type == "limit" and in_force in ("gtc", "gtd")
    if event.type != "limit" and (event.price is not UNSET or in_force not in ("ioc", "fok")):
        _refuse(f"market order {event.order_id} has a price, or stays in force")
    if event.post_only and not may_rest:
        _refuse(f"{event.order_id} is post-only, and cannot rest")
    if in_force == "gtd":
        if expires_at is UNSET or not state.time < expires_at <= COUNT_MAX:
            _refuse(f"{event.order_id} expires at {expires_at}, accepted at {state.time}")
        return may_rest, expires_at
    if expires_at is not UNSET:
        _refuse(f"{event.order_id} is {in_force}, and expires")
    return may_rest, 0


def _accepted_pair(reading: Reading, order_id: str, name: str) -> Pair:
    # All questions about an order's id.
    state = reading.state
    pair = _own_pair(order_id, "order", name)
    if pair >= SERVER_NAMED_END:
        _check_new(reading, name, pair)
        return pair
    if name not in state.peers:
        _check_new(reading, name, pair)
    if pair != state.next_server_named:
        _refuse(f"{order_id} is not the next name that a server gives")
    return pair


def _amended(reading: Reading, event: Amended) -> None:
    reading.begin_command()
    state = reading.state
    _check_trading(state)
    order = _open_order(state, event.order_id)
    pair = _command_pair(reading, event.command_id, event.content, order.peer)
    price, quantity = state.rules.ticks(event.price), state.rules.lots(event.quantity)
    resting = 0 if event.resting_quantity == ZERO else state.rules.lots(event.resting_quantity)
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
    reading.undo.touches(order)
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
    price, quantity = state.rules.ticks(event.price), state.rules.lots(event.quantity)
    if price != maker.price:
        _refuse(f"trade {event.trade_id} at {price}, its maker stands at {maker.price}")
    _check_fits(maker, taker, quantity)
    reading.undo.touches(maker)
    state.trade(event.trade_id, maker, taker, price, quantity)


def _reduced(reading: Reading, event: Reduced) -> None:
    state = reading.state
    taker = reading.current_taker()
    if taker.self_trade != "decrement" or taker.time_in_force == "fok" or taker.post_only:
        _refuse(f"{taker.order_id} reduces nothing")
    quantity = state.rules.lots(event.quantity)
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
    reading.undo.touches(maker)
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
    command_id, content = event.command_id, event.content
    if command_id is UNSET or content is UNSET or event.reason != "requested":
        _canceled_otherwise(reading, event)
        return
    state = reading.state
    order_id = event.order_id
    name, pair = parse_id(command_id, "command") or _NOBODY
    peer = state.peers.get(name)
    order = None if peer is None else peer.buys.get(order_id) or peer.sells.get(order_id)
    if (
        peer is None
        or order is None
        or pair <= peer.window.highest
        or pair < SERVER_NAMED_END
        or not is_content(content)
    ):
        _canceled_otherwise(reading, event)
        return
    if reading.taker is not None:
        reading.end_command()
    reading.is_beginning = False
    reading.canceled = 0
    state.taker = state.amending = None
    if state.rules.lots(event.quantity) != order.quantity - order.filled:
        _check_left(state, order, event.quantity)
    reading.undo.taken_off.append(order)
    state.take_off(order, "canceled")
    window = peer.window
    if not window.newer:
        reading.undo.windows.append(window)
    window.highest = pair
    # As `Outcome.of` makes it, in half the time.
    window.newer[pair] = Outcome(
        command_id,
        content,
        order_id,
        None,
        None,
        "canceled",
        order.filled,
        0,
        order.value,
        order.version,
    )


def _canceled_otherwise(reading: Reading, event: Canceled) -> None:
    if event.reason in _TAKERS_END:
        _taken_off(reading, event)
        return
    state = reading.state
    run, newest = reading.canceled, reading.newest
    reading.begin_command()
    order = _open_order(state, event.order_id)
    pair = None
    if event.reason != "requested":
        if state.state != "closed":
            _refuse(f"{event.order_id} canceled by the closing of a market that is {state.state}")
        if event.command_id is not UNSET or event.content is not UNSET:
            _refuse(f"{event.order_id} canceled by a command and by closing")
    else:
        pair = _command_pair(reading, event.command_id, event.content, order.peer)
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
    _check_left(reading.state, order, quantity)
    reading.undo.taken_off.append(order)
    reading.state.take_off(order, how)


def _check_left(state: ReplicatedState, order: Order, quantity: str) -> None:
    left = order.quantity - order.filled
    if state.rules.lots(quantity) != left:
        _refuse(f"{quantity} taken off {order.order_id}, which has {left} lots")


def _canceled_all(reading: Reading, event: CanceledAll) -> None:
    run, newest = reading.canceled, reading.newest
    reading.begin_command()
    state = reading.state
    if not 0 <= event.count <= run:
        _refuse(f"{event.count} canceled, of {run} before")
    if event.command_id is UNSET:
        _command_pair(reading, event.command_id, event.content, "")
        return
    parsed = parse_id(event.command_id, "command")
    if parsed is None:
        raise InvariantViolated(f"{event.command_id[:80]!r} is no command id")
    peer = parsed[0]
    if event.count and newest is not None and newest.peer != peer:
        _refuse(f"{peer} canceled all of {newest.peer}")
    pair = _command_pair(reading, event.command_id, event.content, peer)
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
    reading.begin_command()
    state = reading.state
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
    _check_new(reading, event.peer, pair)
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


def _check_new(reading: Reading, name: str, pair: Pair) -> None:
    # One outcome per id, and none for one that may have been forgotten.
    reading.undo.remember_newer()
    state = reading.state
    peer = state.peers.get(name)
    if peer is None:
        if not is_peer(name):
            _refuse(f"{name[:80]!r} names no peer")
        count_max = state.specification.max_peers
        if count_max is not UNSET and len(state.peers) >= count_max:
            _refuse(f"{name} is one peer more than {count_max}")
    elif peer.window.knows(pair):
        _refuse(f"{name} used the pair {pair} before")


def _command_pair(
    reading: Reading, command_id: str | UnsetType, content: str | UnsetType, peer: str
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
    _check_new(reading, peer, pair)
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
