"""The book, and what traded."""

import click

from dex_client.commands.frame import Caller, PeerCommand
from dex_client.commands.output import book_lines, book_orders_lines, trades_lines
from dex_protocol import limits
from dex_protocol.receipts import Receipt


@click.command(cls=PeerCommand)
@click.option(
    "--depth",
    type=click.IntRange(1, limits.PAGE_COUNT_MAX),
    default=limits.BOOK_DEPTH,
    show_default=True,
    help="Price levels of each side.",
)
@click.option("--orders", is_flag=True, help="Show each order of these levels.")
async def book(caller: Caller, *, depth: int, orders: bool) -> None:
    """Show a market's book, the best prices first.

    \b
    Example: the three best prices of each side
      dex-client book --depth 3
    """
    async with caller.exchange() as exchange:
        if orders:
            of_orders = await exchange.book(caller.market, depth=depth, orders=True)
            if isinstance(of_orders, Receipt):
                caller.refuse(of_orders)
            caller.output.show(of_orders, book_orders_lines(of_orders))
            return
        of_levels = await exchange.book(caller.market, depth=depth)
    if isinstance(of_levels, Receipt):
        caller.refuse(of_levels)
    caller.output.show(of_levels, book_lines(of_levels))


@click.command(cls=PeerCommand)
@click.option(
    "--limit",
    type=click.IntRange(1, limits.TRADES_COUNT_MAX),
    default=limits.BOOK_DEPTH,
    show_default=True,
    help="How many to show.",
)
async def trades(caller: Caller, *, limit: int) -> None:
    """Show a market's newest trades, the newest first.

    The side is the taker's: whether it bought or sold.

    \b
    Example: as JSON, for a program
      dex-client trades --limit 1000 --json
    """
    async with caller.exchange() as exchange:
        reply = await exchange.trades(caller.market, limit=limit)
    if isinstance(reply, Receipt):
        caller.refuse(reply)
    caller.output.show(reply, trades_lines(reply.trades))
