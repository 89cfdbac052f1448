"""Orders: placed, changed, canceled and looked at.

A command gets its id before it is sent, so that whatever happens then, the user can be told how to
send it once more.
"""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, get_args

import click
from msgspec import UNSET, UnsetType, structs

from dex_client.client import Exchange
from dex_client.commands import options
from dex_client.commands.frame import Caller, PeerCommand, say
from dex_client.commands.output import order_lines, orders_lines, receipt_lines
from dex_client.errors import OutcomeUnknown
from dex_client.ids import Ids
from dex_protocol.commands import (
    Amend,
    Cancel,
    CancelAll,
    Command,
    SelfTrade,
    Side,
    Submit,
    TimeInForce,
    own_id,
    what_is_malformed,
)
from dex_protocol.ids import make_pair
from dex_protocol.queries import StatusReply
from dex_protocol.reasons import Reason
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_SIDES: Final = click.Choice(get_args(Side))


def resend_words(caller: Caller, command: Command) -> list[str]:
    """Write the command that sends a command once more, with its own id."""
    match command:
        case Submit():
            words = [command.side, command.quantity]
            given = {
                "--price": command.price,
                "--time-in-force": command.time_in_force,
                "--expires-at": command.expires_at,
                "--self-trade": command.self_trade,
                "--order-id": command.order_id,
            }
            if command.self_trade == "cancel_taker":
                del given["--self-trade"]
            if command.post_only:
                words.append("--post-only")
        case Cancel():
            words = ["cancel", command.order_id]
            given = {"--if-version": command.if_version, "--command-id": command.command_id}
        case Amend():
            words = ["amend", command.order_id]
            given = {
                "--price": command.price,
                "--quantity": command.quantity,
                "--if-version": command.if_version,
                "--command-id": command.command_id,
            }
        case CancelAll():
            words = ["cancel-all"]
            given = {"--side": command.side, "--command-id": command.command_id}
    for name, value in given.items():
        if value is not UNSET:
            words += [name, str(value)]
    return words + caller.where


# --- Placing ------------------------------------------------------------------------------------


def _placing(function: F) -> F:
    for decorate in reversed(
        (
            click.argument("quantity", callback=options.decimal),
            click.option(
                "--price",
                callback=options.decimal,
                metavar="DECIMAL",
                help="The worst price to trade at. Left out, it is a market order: it takes "
                "whatever price there is, and what does not trade at once is canceled.",
            ),
            click.option(
                "--time-in-force",
                type=click.Choice(get_args(TimeInForce)),
                help="gtc: until canceled. ioc: what does not trade at once is canceled. fok: "
                "whole or not at all. gtd: until it expires.  [default: gtc, without --price ioc]",
            ),
            click.option(
                "--expires-in",
                callback=options.duration_s,
                metavar="DURATION",
                help="Cancel what is left after so long: seconds, or 90s, 5m, 8h, 7d; makes it "
                "gtd.",
            ),
            click.option(
                "--expires-at",
                type=options.POSITIVE,
                metavar="TIME",
                help="The same as a time, in microseconds since 1970.",
            ),
            click.option(
                "--post-only",
                is_flag=True,
                help="Refuse the order rather than let it trade at once.",
            ),
            click.option(
                "--self-trade",
                type=click.Choice(get_args(SelfTrade)),
                default="cancel_taker",
                show_default=True,
                help="What happens when it meets an order of your own.",
            ),
            click.option(
                "--order-id",
                callback=options.order_id,
                metavar="ID",
                help="Send an order again that has no outcome yet, by its own id; all else must "
                "be as it was.",
            ),
        )
    ):
        function = decorate(function)
    return function


@click.command(cls=PeerCommand, resend=resend_words)
@_placing
async def buy(caller: Caller, **order: Any) -> None:
    """Buy QUANTITY at a price or better, or at any price.

    \b
    Example: buy 0.5 at 101.25 or less, for an hour
      dex-client buy 0.5 --price 101.25 --expires-in 1h
    """
    await _place(caller, "buy", **order)


@click.command(cls=PeerCommand, resend=resend_words)
@_placing
async def sell(caller: Caller, **order: Any) -> None:
    """Sell QUANTITY at a price or better, or at any price.

    \b
    Example: sell 0.5 at 102 or more, but only if it does not trade at once
      dex-client sell 0.5 --price 102 --post-only
    """
    await _place(caller, "sell", **order)


async def _place(
    caller: Caller,
    side: Side,
    *,
    quantity: str,
    price: str | None,
    time_in_force: TimeInForce | None,
    expires_in: int | None,
    expires_at: int | None,
    post_only: bool,
    self_trade: SelfTrade,
    order_id: str | None,
) -> None:
    if expires_in is not None:
        if expires_at is not None:
            raise click.UsageError("--expires-in and --expires-at say the same: give one of them.")
        expires_at = time.time_ns() // 1_000 + expires_in * 1_000_000
    if expires_at is not None:
        time_in_force = time_in_force or "gtd"
    elif time_in_force == "gtd":
        raise click.UsageError("--time-in-force gtd needs --expires-in.")
    order = Submit(
        side=side,
        quantity=quantity,
        order_id=_or_unset(order_id),
        type="market" if price is None else "limit",
        price=_or_unset(price),
        time_in_force=_or_unset(time_in_force),
        expires_at=_or_unset(expires_at),
        post_only=post_only,
        self_trade=self_trade,
    )
    await _carry_out(caller, order)


# --- Canceling and amending ---------------------------------------------------------------------


_if_version: Final = click.option(
    "--if-version",
    type=options.POSITIVE,
    metavar="NUMBER",
    help="Refuse it if the order has another version by now.",
)
_command_id: Final = click.option(
    "--command-id",
    callback=options.command_id,
    metavar="ID",
    help="Send a command again that has no outcome yet, by its own id.",
)


@click.command(cls=PeerCommand, resend=resend_words)
@click.argument("order_id", callback=options.order_id)
@_if_version
@_command_id
async def cancel(
    caller: Caller, *, order_id: str, if_version: int | None, command_id: str | None
) -> None:
    """Take what is left of an order out of the book.

    \b
    Example:
      dex-client cancel order_default_1763800000000_17
    """
    command = Cancel(
        order_id=order_id, command_id=_or_unset(command_id), if_version=_or_unset(if_version)
    )
    await _carry_out(caller, command)


@click.command(cls=PeerCommand, resend=resend_words)
@click.argument("order_id", callback=options.order_id)
@click.option("--price", callback=options.decimal, metavar="DECIMAL", help="The new price.")
@click.option(
    "--quantity",
    callback=options.decimal,
    metavar="DECIMAL",
    help="The new quantity: the total, what is filled already included.",
)
@_if_version
@_command_id
async def amend(
    caller: Caller,
    *,
    order_id: str,
    price: str | None,
    quantity: str | None,
    if_version: int | None,
    command_id: str | None,
) -> None:
    """Change an order's price, its quantity, or both.

    Only lowering the quantity keeps its place in the queue; any other change may trade at once.

    \b
    Example: leave the price, and want no more than 0.3 in all
      dex-client amend order_default_1763800000000_17 --quantity 0.3
    """
    if price is None and quantity is None:
        raise click.UsageError("Nothing to change: give --price, --quantity, or both.")
    command = Amend(
        order_id=order_id,
        command_id=_or_unset(command_id),
        price=_or_unset(price),
        quantity=_or_unset(quantity),
        if_version=_or_unset(if_version),
    )
    await _carry_out(caller, command)


@click.command("cancel-all", cls=PeerCommand, resend=resend_words)
@click.option("--side", type=_SIDES, help="Only the orders of this side.")
@_command_id
async def cancel_all(caller: Caller, *, side: Side | None, command_id: str | None) -> None:
    """Cancel all your open orders in a market, the oldest first.

    \b
    Example: stop selling
      dex-client cancel-all --side sell
    """
    await _carry_out(caller, CancelAll(side=_or_unset(side), command_id=_or_unset(command_id)))


# --- Looking ------------------------------------------------------------------------------------


@click.command(cls=PeerCommand)
@click.argument("order_id", callback=options.order_id)
async def order(caller: Caller, *, order_id: str) -> None:
    """Show how one of your orders stands.

    A market knows each open order, and some thousands of each peer's that are done.

    \b
    Example:
      dex-client order order_default_1763800000000_17
    """
    async with caller.exchange() as exchange:
        reply = await exchange.order(caller.market, order_id)
    if isinstance(reply, Receipt):
        caller.refuse(reply)
    caller.output.show(reply, order_lines(reply.order))


@click.command(cls=PeerCommand)
async def orders(caller: Caller) -> None:
    """List your open orders in a market, the oldest first.

    \b
    Example: those of alice, in another market
      dex-client orders --market ETH-USD --peer alice
    """
    async with caller.exchange() as exchange:
        reply = await exchange.orders(caller.market)
    if isinstance(reply, Receipt):
        caller.refuse(reply)
    caller.output.show(reply, orders_lines(reply.orders))


def bound_text(receipt: Receipt, command: Command, specification: Specification | None) -> str:
    """Say what the market expects instead, where it refused a price or a quantity."""
    if specification is None or not isinstance(command, Submit | Amend):
        return ""
    match receipt.reason:
        case Reason.price_off_tick.name:
            expected, found = f"a multiple of {specification.tick_size}", command.price
        case Reason.quantity_off_lot.name:
            expected, found = f"a multiple of {specification.lot_size}", command.quantity
        case Reason.quantity_out_of_range.name:
            least, most = specification.min_quantity, specification.max_quantity
            expected, found = "above 0", command.quantity
            expected += "" if least is UNSET else f", at least {least}"
            expected += "" if most is UNSET else f", at most {most}"
        case Reason.price_out_of_range.name:
            most, band = specification.max_price, specification.price_band
            expected, found = "above 0", command.price
            expected += "" if most is UNSET else f", at most {most}"
            expected += "" if band is UNSET else f", within a band of {band}"
        case Reason.notional_out_of_range.name if isinstance(command, Submit):
            expected = f"at least {specification.min_notional}"
            found = f"{command.price} times {command.quantity}"
        case _:
            return ""
    return f" (expected {expected}, found {found})"


# --- Sending ------------------------------------------------------------------------------------


async def _carry_out(caller: Caller, command: Command) -> None:
    wrong = what_is_malformed(command)
    if wrong is not None:
        hint = " (without --price it is a market order)" if _is_market_order(command) else ""
        raise click.UsageError(f"{wrong}{hint}.")
    async with caller.exchange() as exchange:
        while True:
            receipt, specification = await _outcome(caller, exchange, command)
            if receipt.status == "rejected":
                caller.refuse(receipt, bound_text(receipt, command, specification))
            caller.output.show(receipt, receipt_lines(command, receipt))
            if receipt.more is not True:
                break
            # Of more than 1,000 orders; the rest of them by another command.
            command = structs.replace(command, command_id=UNSET)
    if isinstance(command, CancelAll) and receipt.duplicate is True:
        say("There may have been more than that command could cancel: do it without --command-id.")


async def _outcome(
    caller: Caller, exchange: Exchange, command: Command
) -> tuple[Receipt, Specification | None]:
    specification = None
    if own_id(command) is UNSET:
        status = await exchange.status(caller.market)
        if isinstance(status, Receipt):
            return status, None
        specification = status.specification
        caller.under_way = named = _named(caller.peer, status, command)
        (receipt,) = await exchange.batch(caller.market, [named])
    else:
        # It may have been executed before: that no copy of today was says nothing.
        caller.under_way = command
        earlier = OutcomeUnknown(caller.market, [command], [None], deadline_s=caller.deadline_s)
        (receipt,) = await exchange.settle(earlier)
    caller.under_way = None
    return receipt, specification


def _named(peer: str, status: StatusReply, command: Command) -> Command:
    ids = Ids(peer, above=max(make_pair(*status.highest), make_pair(*status.forgotten)))
    now_ms = time.time_ns() // 1_000_000
    if isinstance(command, Submit):
        return structs.replace(command, order_id=ids.next("order", now_ms))
    return structs.replace(command, command_id=ids.next("command", now_ms))


def _is_market_order(command: Command) -> bool:
    return isinstance(command, Submit) and command.type == "market"


def _or_unset(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value
