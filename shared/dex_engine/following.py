"""Following: what each kind of event does to a market.

Reads what the leader wrote down and establishes the same facts. It decides nothing, and knows no
rule of matching: rules may change without making old logs unreadable.
"""

from typing import Any, Final

from msgspec import UNSET

from dex_engine.errors import InvariantViolated
from dex_engine.order import Order
from dex_engine.state import ReplicatedState
from dex_engine.window import Outcome
from dex_protocol.events import (
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    CanceledAll,
    Expired,
    LeaderChanged,
    MarketChanged,
    MarketOpened,
    Reduced,
    Rejected,
    Trade,
)
from dex_protocol.ids import parse_id
from dex_protocol.numbers import Scale


def apply(state: ReplicatedState, event: AnyEvent) -> None:
    """Establish what an event says.

    Raises:
        InvariantViolated: the event is impossible in this state.
    """
    _APPLY[type(event)](state, event)


def _opened(state: ReplicatedState, event: MarketOpened) -> None:
    state.log_id = event.log_id
    state.specify(event.specification)


def _changed(state: ReplicatedState, event: MarketChanged) -> None:
    if event.specification is not UNSET:
        state.specify(event.specification)
    if event.state is not UNSET:
        state.state = event.state


def _leader(state: ReplicatedState, event: LeaderChanged) -> None:
    state.begin_term(event.term, event.server)


def _accepted(state: ReplicatedState, event: Accepted) -> None:
    order = Order(
        order_id=event.order_id,
        peer=event.peer,
        side=event.side,
        type=event.type,
        price=0 if event.price is UNSET else _ticks(state, event.price),
        quantity=_lots(state, event.quantity),
        time_in_force=event.time_in_force,
        expires_at=0 if event.expires_at is UNSET else event.expires_at,
        post_only=event.post_only,
        self_trade=event.self_trade,
        acceptance=state.next_acceptance,
    )
    state.enter(order, _lots(state, event.resting_quantity))


def _trade(state: ReplicatedState, event: Trade) -> None:
    taker = state.taker
    if taker is None or taker.order_id != event.taker_order_id:
        raise InvariantViolated(f"trade {event.trade_id} is not the current taker's")
    state.trade(
        event.trade_id,
        maker=_open_order(state, event.maker_order_id),
        taker=taker,
        price=_ticks(state, event.price),
        quantity=_lots(state, event.quantity),
    )


def _amended(state: ReplicatedState, event: Amended) -> None:
    order = _open_order(state, event.order_id)
    state.amend(
        order,
        price=_ticks(state, event.price),
        quantity=_lots(state, event.quantity),
        resting=_lots(state, event.resting_quantity),
        lost=event.priority == "lost",
        version=event.version,
    )
    if event.command_id is not UNSET and event.content is not UNSET:
        outcome = Outcome(event.command_id, event.content, event.order_id)
        state.remember_amended(order, event.command_id, outcome)


def _reduced(state: ReplicatedState, event: Reduced) -> None:
    state.reduce(_taker_or_open(state, event.order_id), _lots(state, event.quantity))


def _canceled(state: ReplicatedState, event: Canceled) -> None:
    if event.reason in ("requested", "market_closed"):
        state.begin_command()
    order = _taker_or_open(state, event.order_id)
    _check_left(state, order, event.quantity)
    state.take_off(order, "canceled")
    if event.command_id is not UNSET and event.content is not UNSET:
        outcome = Outcome(event.command_id, event.content, event.order_id)
        outcome.note(order)
        state.remember(order.peer, event.command_id, outcome)


def _canceled_all(state: ReplicatedState, event: CanceledAll) -> None:
    if event.command_id is not UNSET and event.content is not UNSET:
        parsed = parse_id(event.command_id, "command")
        if parsed is None:
            raise InvariantViolated(f"{event.command_id} is no command id")
        outcome = Outcome(event.command_id, event.content, count=event.count)
        state.remember(parsed[0], event.command_id, outcome)


def _expired(state: ReplicatedState, event: Expired) -> None:
    state.begin_command()
    order = _open_order(state, event.order_id)
    _check_left(state, order, event.quantity)
    state.take_off(order, "expired")


def _rejected(state: ReplicatedState, event: Rejected) -> None:
    if event.command_id is UNSET:
        assert event.order_id is not UNSET
        state.remember_refusal(
            event.peer, event.order_id, event.content, event.reason, order_id=None
        )
    else:
        target = None if event.order_id is UNSET else event.order_id
        state.remember_refusal(
            event.peer, event.command_id, event.content, event.reason, order_id=target
        )


def _check_left(state: ReplicatedState, order: Order, quantity: str) -> None:
    left = order.quantity - order.filled
    if _lots(state, quantity) != left:
        raise InvariantViolated(f"{quantity} taken off {order.order_id}, which has {left} lots")


def _open_order(state: ReplicatedState, order_id: str) -> Order:
    order = state.orders.get(order_id)
    if order is None:
        raise InvariantViolated(f"{order_id} is not open")
    return order


def _taker_or_open(state: ReplicatedState, order_id: str) -> Order:
    taker = state.taker
    if taker is not None and taker.order_id == order_id:
        return taker
    return _open_order(state, order_id)


def _ticks(state: ReplicatedState, text: str) -> int:
    return _whole(state.rules.tick, text)


def _lots(state: ReplicatedState, text: str) -> int:
    return _whole(state.rules.lot, text)


def _whole(scale: Scale, text: str) -> int:
    count = scale.count(text)
    if count is None:
        raise InvariantViolated(f"{text} is not a whole number of steps")
    return count


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
