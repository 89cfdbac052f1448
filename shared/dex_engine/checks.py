"""The ladder of refusals (2002 to 3003): cheapest and most general first, one reason each.

Each function walks its command's rungs in the order of docs/PROTOCOL.md and returns the first
reason that applies. They only look. What an id was used for before is asked before them.
"""

from msgspec import UNSET

from dex_engine.matching import Plan
from dex_engine.order import Order
from dex_engine.peers import Peer
from dex_engine.rules import Rules
from dex_engine.state import ReplicatedState
from dex_protocol.commands import Amend, Cancel, Submit
from dex_protocol.reasons import Reason


def refusal_of_submit(
    market: ReplicatedState,
    command: Submit,
    peer: Peer | None,
    price: int | None,
    quantity: int | None,
) -> Reason | None:
    """Ask all of a submit that needs no plan (2002 to 4002).

    Args:
        market: As it stands.
        command: Well-formed.
        peer: The sender; None when the market does not know it.
        price: In ticks; None when off tick, 0 for a market order.
        quantity: In lots; None when off lot.
    """
    rules = market.rules
    if market.state != "trading":
        return Reason.market_halted
    if price is None:
        return Reason.price_off_tick
    if quantity is None:
        return Reason.quantity_off_lot
    is_limit = command.type == "limit"
    if is_limit:
        if not 0 < price <= rules.price_max:
            return Reason.price_out_of_range
        if rules.has_band and not rules.is_in_band(
            command.side, price, last_price=market.last_price
        ):
            return Reason.price_out_of_range
    if not rules.quantity_min <= quantity <= rules.quantity_max:
        return Reason.quantity_out_of_range
    if is_limit and price * quantity < rules.notional_min:
        return Reason.notional_out_of_range
    if command.expires_at is not UNSET and command.expires_at <= market.time:
        return Reason.already_expired
    if peer is None:
        if len(market.peers) >= rules.peers_count_max:
            return Reason.too_many_peers
    else:
        open_count = len(peer.buys) + len(peer.sells)
        if (
            open_count >= rules.open_orders_count_least
            and may_rest(command)
            and open_count >= rules.limits_of(peer.name).open_orders_count_max
        ):
            return Reason.too_many_open_orders
    return None


def refusal_of_plan(
    command: Submit, plan: Plan, *, is_empty: bool, would_trade: bool
) -> Reason | None:
    """Ask what needs the other side of the book (3001 to 3003).

    Args:
        command: Its other checks passed.
        plan: What it would do.
        is_empty: Whether nothing rests on the other side.
        would_trade: Whether an order there, whoever's, stands at its price or better.
    """
    if command.post_only and would_trade:
        return Reason.post_only_would_trade
    if command.time_in_force == "fok" and plan.left > 0:
        return Reason.fok_not_fillable
    if command.type == "market" and is_empty:
        return Reason.no_liquidity
    return None


def may_rest(command: Submit) -> bool:
    """Tell whether what does not trade at once would stay in the book."""
    return command.type == "limit" and command.time_in_force not in ("ioc", "fok")


def refusal_of_order(command: Cancel | Amend, order: Order | None) -> Reason | None:
    """Ask for the order a cancel or an amend is about (3004, 3010, 3005)."""
    if order is None:
        return Reason.unknown_order
    if order.done != "open":
        return Reason.order_done
    if command.if_version is not UNSET and command.if_version != order.version:
        return Reason.version_conflict
    return None


def refusal_of_amend(
    market: ReplicatedState,
    command: Amend,
    order: Order | None,
    *,
    price: int | None,
    quantity: int | None,
) -> Reason | None:
    """Ask all of an amend but whether a post-only order would trade.

    Args:
        market: As it stands.
        command: Well-formed.
        order: What it is about, open or remembered; None when the peer has no such order.
        price: The named price in ticks; None when off tick; ignored when none is named.
        quantity: The named quantity in lots; None when off lot; ignored when none is named.
    """
    open_order = order if order is not None and order.done == "open" else None
    if market.state != "trading":
        return Reason.market_halted
    if command.price is not UNSET and price is None:
        return Reason.price_off_tick
    if command.quantity is not UNSET and quantity is None:
        return Reason.quantity_off_lot
    named_price = price if command.price is not UNSET else None
    named_quantity = quantity if command.quantity is not UNSET else None
    reason = _refusal_of_totals(market, open_order, price=named_price, quantity=named_quantity)
    if reason is not None:
        return reason
    reason = refusal_of_order(command, order)
    if reason is not None:
        return reason
    if order is not None and named_quantity is not None and named_quantity <= order.filled:
        return Reason.amend_below_filled
    return None


def _refusal_of_totals(
    market: ReplicatedState, order: Order | None, *, price: int | None, quantity: int | None
) -> Reason | None:
    rules: Rules = market.rules
    if price is not None:
        if not 0 < price <= rules.price_max:
            return Reason.price_out_of_range
        if order is not None and not rules.is_in_band(
            order.side, price, last_price=market.last_price
        ):
            return Reason.price_out_of_range
    if quantity is not None and not rules.quantity_min <= quantity <= rules.quantity_max:
        return Reason.quantity_out_of_range
    if order is not None:
        new_price = order.price if price is None else price
        new_quantity = order.quantity if quantity is None else quantity
        if new_price * new_quantity < rules.notional_min:
            return Reason.notional_out_of_range
    return None
