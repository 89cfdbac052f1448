"""The command line `dex-client`: options in, exit code out.

Without a subcommand it is the load generator; subcommands are added to the group beside it. Data
goes to stdout, everything else to stderr. Exit codes: 0; 1 when something failed or was
contradicted; 2 when it could not even begin.
"""

import asyncio
import math
import selectors
import signal
from pathlib import Path
from typing import Final

import click

from dex_client.errors import ExchangeError
from dex_client.load.options import Load
from dex_client.load.report import Report, to_json, to_text
from dex_client.load.screen import INTERVAL_S, Screen
from dex_client.load.session import CannotBegin, Session
from dex_protocol.ids import is_market
from dex_protocol.limits import BATCH_COUNT_MAX

DEFAULT_NATS: Final = "nats://127.0.0.1:4222"

IN_FLIGHT_MAX: Final = 4_096
"""Requests under way: each has a task, and more would wait in the servers anyway."""

PEERS_MAX: Final = 500
"""Peers of one process: each has a connection, and select() takes 1,024 of them."""

HELP: Final = """Send a load of orders to an exchange, report, and check what was answered.

\b
Example: ten thousand orders by three peers to two markets, the report as JSON too
  dex-client --orders 10000 --peers 3 --market BTC-USD --market ETH-USD --json report.json

The load trades with itself. Afterwards the markets' logs are read back: each acknowledged order
has to be there exactly once, no refused one accepted, quantities conserved, and a book built from
the events alone has to be the market's.

Exit codes: 0; 1 when an order has no outcome, or anything contradicts a receipt; 2 when nobody
can be reached or no server has the market.
"""


class CannotRun(click.ClickException):
    """It could not begin: one sentence that says what to do."""

    exit_code = 2


def _servers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    servers = tuple(url.strip() for value in values for url in value.split(",") if url.strip())
    if not servers:
        raise click.BadParameter(f"expected an address such as {DEFAULT_NATS}, found none")
    return servers


def _markets(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not is_market(name):
            raise click.BadParameter(
                f"expected 1 to 24 letters, digits and dashes, such as BTC-USD, found {name!r}"
            )
    return tuple(dict.fromkeys(names))


def _above_0(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"expected a number above 0, found {value:g}")
    return value


def _json_file(_: click.Context, __: click.Parameter, path: str | None) -> str | None:
    # Said before the load, not after it. The file is opened after it: what was there stays until
    # there is something to put in its place.
    if path not in (None, "-") and not Path(path).absolute().parent.is_dir():
        raise click.BadParameter(f"expected a file in a directory that exists, found {path!r}")
    return path


@click.group(invoke_without_command=True, help=HELP)
@click.option(
    "--nats",
    "servers",
    multiple=True,
    default=(DEFAULT_NATS,),
    envvar=("DEX_NATS", "NATS_URL"),
    callback=_servers,
    metavar="URL",
    show_default=True,
    show_envvar=True,
    help="Address of a NATS server; several by commas or by repeating the option.",
)
@click.option(
    "--orders",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="Orders to send.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, IN_FLIGHT_MAX),
    default=64,
    show_default=True,
    help="Requests under way at once, over all peers.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, BATCH_COUNT_MAX),
    default=1,
    show_default=True,
    help="Orders in each request.",
)
@click.option(
    "--rate",
    type=float,
    default=None,
    callback=_above_0,
    help="Orders per second, by the clock; latency then counts from when an order should have "
    "been sent.  [default: as fast as answers come]",
)
@click.option(
    "--peers",
    type=click.IntRange(1, PEERS_MAX),
    default=1,
    show_default=True,
    help="Peers that send in turn, named load-1, load-2, and so on.",
)
@click.option(
    "--market",
    "markets",
    multiple=True,
    default=("BTC-USD",),
    callback=_markets,
    metavar="NAME",
    show_default=True,
    help="A market to send to; repeat it for several.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="The same seed makes the same orders.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    default=None,
    callback=_json_file,
    metavar="FILE",
    help="Write the report as JSON too; '-' is stdout, and the text then goes to stderr.",
)
@click.option("--no-verify", is_flag=True, help="Do not read the logs back.")
@click.option(
    "--deadline",
    "deadline_s",
    type=float,
    default=30.0,
    callback=_above_0,
    show_default=True,
    metavar="SECONDS",
    help="How long an order is sent again before it is given up.",
)
@click.pass_context
def main(
    context: click.Context,
    *,
    servers: tuple[str, ...],
    orders: int,
    in_flight: int,
    batch: int,
    rate: float | None,
    peers: int,
    markets: tuple[str, ...],
    seed: int,
    json_file: str | None,
    no_verify: bool,
    deadline_s: float,
) -> None:
    """Run the load generator, unless a subcommand was named."""
    if context.invoked_subcommand is not None:
        return
    load = Load(
        orders=orders,
        markets=markets,
        peers=peers,
        in_flight=in_flight,
        batch=batch,
        rate=rate,
        seed=seed,
        deadline_s=deadline_s,
        verify=not no_verify,
    )
    # The usual loop rounds its timers up to the next millisecond; with a rate, that would be
    # measured as the exchange's latency. select() does not, and there are few sockets here.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        try:
            report = runner.run(_run(Session(load, servers), Screen(load)))
        except (CannotBegin, OverflowError) as error:
            raise CannotRun(str(error)) from error
        except ExchangeError as error:
            raise click.ClickException(str(error)) from error
    _print(report, json_file)
    context.exit(0 if report.is_good else 1)


async def _run(session: Session, screen: Screen) -> Report:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(session.run())

            def interrupt(number: signal.Signals) -> None:
                # The second one finds the system's own reaction again.
                loop.remove_signal_handler(number)
                run.cancel()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, interrupt, number)
            with screen:
                while not run.done():
                    await asyncio.wait((run,), timeout=INTERVAL_S)
                    screen.show(session)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return session.report(interrupted=run.cancelled())


def _print(report: Report, json_file: str | None) -> None:
    click.echo(to_text(report), nl=False, err=json_file == "-")
    if json_file is not None:
        with click.open_file(json_file, "wb") as file:
            file.write(to_json(report))
