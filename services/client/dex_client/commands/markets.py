"""Markets: listed, opened, changed, halted, resumed and closed; what operators do."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, TypeVar

import click
from msgspec import UNSET, Struct, UnsetType
from rich.text import Text

from dex_client.administration import OPERATOR, Administration
from dex_client.commands import options
from dex_client.commands.frame import Caller, OperatorCommand
from dex_client.commands.output import table
from dex_client.errors import Unavailable
from dex_client.link import Link, linked
from dex_client.queries import Queries
from dex_client.retry import Policy
from dex_protocol.administration import AdminReply
from dex_protocol.queries import StatusReply
from dex_protocol.receipts import Receipt
from dex_protocol.specification import (
    PEER_FIELDS,
    AskedSpecification,
    Specification,
    SpecificationChange,
    what_is_wrong,
)

F = TypeVar("F", bound=Callable[..., Any])

LOOK_S: Final = 2.0
"""How long each market of a list is asked how it stands: its answer takes milliseconds."""

_STATE_STYLES: Final = {"trading": "green", "halted": "yellow", "closed": "magenta"}


class MarketLine(Struct, omit_defaults=True):
    """One market of the list; without a leader when nobody answers for it."""

    market: str
    state: str
    """trading, halted or closed, or why that is not known."""
    leader: str | UnsetType = UNSET
    term: int | UnsetType = UNSET
    sequence: int | UnsetType = UNSET
    last_price: str | UnsetType | None = UNSET
    specification: Specification | UnsetType = UNSET


@click.group()
def markets() -> None:
    """List markets, open and close them: what operators do.

    \b
    Example: open a market, and see that it trades
      dex-client markets open SOL-USD --tick-size 0.01 --lot-size 0.1
      dex-client markets list
    """


_market: Final = click.argument("market", callback=options.market_name)


def _bounds(function: F) -> F:
    for decorate in reversed(
        (
            _bound("--min-quantity", "The least quantity of an order."),
            _bound("--max-quantity", "The greatest."),
            _bound("--max-price", "The greatest price."),
            _bound("--min-notional", "The least price times quantity."),
            _bound("--price-band", "How far a limit may lie beyond the last price: 0.1 is 10 %."),
            click.option("--max-open-orders", type=click.IntRange(1), help="For each peer."),
            click.option("--max-peers", type=click.IntRange(1), help="That may ever trade."),
            _limit("--orders-per-second", "orders_per_second", "Of each peer; as many cancels."),
            _limit("--orders-burst", "orders_burst", "At once, after a pause."),
            _limit("--max-batch", "max_batch_count", "Commands in one request."),
            _limit("--max-request-bytes", "max_request_bytes", "Bytes of one request."),
            click.option(
                "--peer-limit",
                "peers",
                multiple=True,
                callback=options.peer_limits,
                metavar="PEER:LIMIT=NUMBER",
                help="A limit of one peer; all that are given replace all there were.",
            ),
        )
    ):
        function = decorate(function)
    return function


def _bound(name: str, text: str) -> Callable[[F], F]:
    return click.option(name, callback=options.decimal, metavar="DECIMAL", help=text)


def _limit(name: str, field: str, text: str) -> Callable[[F], F]:
    return click.option(name, field, type=click.IntRange(1, PEER_FIELDS[field]), help=text)


@markets.command("list", cls=OperatorCommand)
async def list_markets(caller: Caller) -> None:
    """List all markets that were ever opened, and how they stand.

    \b
    Example: the names alone, with jq
      dex-client markets list --json | jq -r .market
    """
    async with _linked(caller) as link:
        names = await _administration(link, caller).markets()
        lines = await asyncio.gather(*(_look(link, name, caller.deadline_s) for name in names))
    if caller.output.as_json:
        for line in lines:
            caller.output.show(line, ())
    else:
        caller.output.say(*_table(lines))


@markets.command("open", cls=OperatorCommand)
@_market
@click.option(
    "--tick-size",
    callback=options.decimal,
    required=True,
    metavar="DECIMAL",
    help="The step of prices; never changes.",
)
@click.option(
    "--lot-size",
    callback=options.decimal,
    required=True,
    metavar="DECIMAL",
    help="The step of quantities; never changes.",
)
@_bounds
async def open_market(caller: Caller, *, market: str, **fields: Any) -> None:
    """Open MARKET, and wait until orders can be placed.

    Doing it again with the same specification is harmless.

    \b
    Example:
      dex-client markets open SOL-USD --tick-size 0.01 --lot-size 0.1 --max-price 100000
    """
    specification = AskedSpecification(market=market, **_given(fields))
    wrong = what_is_wrong(specification)
    if wrong is not None:
        raise click.UsageError(f"{wrong}.")
    async with _linked(caller) as link:
        answer = await _administration(link, caller).open(specification)
    _show(caller, market, "is open", answer)


@markets.command("change", cls=OperatorCommand)
@_market
@_bounds
@click.option("--no-peer-limits", is_flag=True, help="Let no peer have limits of its own.")
async def change_market(
    caller: Caller, *, market: str, no_peer_limits: bool, **fields: Any
) -> None:
    """Change MARKET's bounds; what is left out stays. Orders that rest stay too.

    \b
    Example:
      dex-client markets change SOL-USD --max-price 200000
      dex-client markets change SOL-USD --peer-limit alice:orders_per_second=100
    """
    given = _given(fields)
    if no_peer_limits:
        if "peers" in given:
            raise click.UsageError("--peer-limit and --no-peer-limits contradict each other.")
        given["peers"] = {}
    if not given:
        raise click.UsageError("Nothing to change: give at least one of the bounds.")
    async with _linked(caller) as link:
        answer = await _administration(link, caller).change(market, SpecificationChange(**given))
    _show(caller, market, "is changed", answer)


@markets.command("halt", cls=OperatorCommand)
@_market
async def halt_market(caller: Caller, *, market: str) -> None:
    """Let MARKET take cancels only, until it is resumed. Orders stay, and go on expiring.

    \b
    Example:
      dex-client markets halt SOL-USD
    """
    async with _linked(caller) as link:
        answer = await _administration(link, caller).halt(market)
    _show(caller, market, "is halted", answer)


@markets.command("resume", cls=OperatorCommand)
@_market
async def resume_market(caller: Caller, *, market: str) -> None:
    """Let MARKET trade again after a halt.

    \b
    Example:
      dex-client markets resume SOL-USD
    """
    async with _linked(caller) as link:
        answer = await _administration(link, caller).resume(market)
    _show(caller, market, "trades", answer)


@markets.command("close", cls=OperatorCommand)
@_market
@click.option("--yes", is_flag=True, help="Do not ask; asked is only at a terminal.")
async def close_market(caller: Caller, *, market: str, yes: bool) -> None:
    """Close MARKET for good, and cancel every order in it.

    \b
    Example:
      dex-client markets close SOL-USD
    """
    if not yes and sys.stdin.isatty():
        question = f"{market} will never trade again, and every order is canceled. Close it?"
        click.confirm(question, abort=True, err=True)
    async with _linked(caller) as link:
        answer = await _administration(link, caller).close(market)
    _show(caller, market, "is closed", answer)


# --- Asking and telling -------------------------------------------------------------------------


@asynccontextmanager
async def _linked(caller: Caller) -> AsyncIterator[Link]:
    async with linked(caller.as_operator) as link:
        yield link


def _administration(link: Link, caller: Caller) -> Administration:
    return Administration(link, deadline_s=caller.deadline_s, random=Random())


async def _look(link: Link, market: str, deadline_s: float) -> MarketLine:
    policy = Policy(deadline_s=min(LOOK_S, deadline_s))
    queries = Queries(link, OPERATOR, policy=policy, random=Random())
    try:
        status = await queries.status(market)
    except Unavailable:
        return MarketLine(market, "no server answers")
    if isinstance(status, Receipt):
        return MarketLine(market, str(status.reason))
    return _line(market, status)


def _line(market: str, status: StatusReply) -> MarketLine:
    return MarketLine(
        market,
        status.state,
        leader=status.leader,
        term=status.term,
        sequence=status.sequence,
        last_price=status.last_price,
        specification=status.specification,
    )


def _table(lines: Iterable[MarketLine]) -> list[Text]:
    rows = [
        (
            line.market,
            Text(line.state, _STATE_STYLES.get(line.state, "red")),
            line.leader or "none" if line.leader is not UNSET else "-",
            _or_dash(line.term),
            _or_dash(line.sequence),
            _or_dash(line.last_price),
        )
        for line in lines
    ]
    if not rows:
        return [Text("no markets; open one: dex-client markets open --help")]
    head = ("MARKET", "STATE", "LEADER", "TERM", "COMMIT", "LAST PRICE")
    return table(head, rows, numbers=("TERM", "COMMIT"))


def _show(caller: Caller, market: str, done: str, answer: AdminReply | Receipt) -> None:
    if isinstance(answer, Receipt):
        caller.refuse(answer)
    caller.output.show(answer, [Text(f"{market} {done}, as of commit {answer.sequence}")])


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _or_dash(value: object) -> str:
    return "-" if value is UNSET or value is None else str(value)
