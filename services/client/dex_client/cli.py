"""The command line `dex-client`: options in, exit code out.

Without a subcommand it is the load generator; subcommands are added to the group beside it. Data
goes to stdout, everything else to stderr. Exit codes: 0; 1 when something failed or was
contradicted; 2 when it could not even begin.
"""

import asyncio
import selectors
import signal
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from dex_client.commands.book import book, trades
from dex_client.commands.markets import markets as market_commands
from dex_client.commands.options import DEFAULT_NATS, CannotRun, above_0, market_name, nats_servers
from dex_client.commands.orders import amend, buy, cancel, cancel_all, order, orders, sell
from dex_client.commands.status import status
from dex_client.commands.tail import tail
from dex_client.errors import ExchangeError
from dex_client.load.options import Load
from dex_client.load.report import Report, to_json, to_text
from dex_client.load.screen import INTERVAL_S, Screen
from dex_client.load.session import CannotBegin, Session
from dex_protocol.limits import BATCH_COUNT_MAX
from dex_runtime.options import credential_options, credentials

IN_FLIGHT_MAX: Final = 4_096
"""Requests under way: each has a task, and more would wait in the servers anyway."""

PEERS_MAX: Final = 500
"""Peers of one process: each has a connection, and select() takes 1,024 of them."""

HELP: Final = """Trade on an exchange by the commands below; `dex-client buy --help` explains one.

\b
Example: buy 0.5 at 101.25 or less
  dex-client buy 0.5 --price 101.25

Without a command it is the load generator: it sends a load of orders, reports, and checks what
was answered. All options here but --nats and those of keys are the load generator's; a command's
options stand after its name.

\b
Example: ten thousand orders by three peers to two markets, the report as JSON too
  dex-client --orders 10000 --peers 3 --market BTC-USD --market ETH-USD --json report.json

The load trades with itself. Afterwards the markets' logs are read back: each acknowledged order
has to be there exactly once, no refused one accepted, quantities conserved, and a book built from
the events alone has to be the market's.

Exit codes: 0; 1 when an order has no outcome, or anything contradicts a receipt; 2 when nobody
can be reached or no server has the market. Of commands: 0; 1 when the answer is no, or not known;
2 for what cannot be asked, or when nobody answers.
"""


def _markets(
    context: click.Context, parameter: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(dict.fromkeys(market_name(context, parameter, name) for name in names))


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
    callback=nats_servers,
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
    callback=above_0,
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
    callback=above_0,
    show_default=True,
    metavar="SECONDS",
    help="How long an order is sent again before it is given up.",
)
@click.pass_context
def main(
    context: click.Context,
    /,
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
    **others: Any,
) -> None:
    """Run the load generator, unless a subcommand was named."""
    if context.invoked_subcommand is not None:
        _refuse_options_of_the_load(context, context.invoked_subcommand)
        return
    known = credentials(others)
    if peers > 1 and (known.nkey or known.creds):
        raise click.UsageError("expected one peer with the key that was named: leave --peers out")
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
            report = runner.run(_run(Session(load, servers, known), Screen(load)))
        except (CannotBegin, OverflowError) as error:
            raise CannotRun(str(error)) from error
        except ExchangeError as error:
            raise click.ClickException(str(error)) from error
    _print(report, json_file)
    context.exit(0 if report.is_good else 1)


_OF_COMMANDS_TOO: Final = {"servers", *(str(option.name) for option in credential_options())}


def _refuse_options_of_the_load(context: click.Context, subcommand: str) -> None:
    # A command would not see them: an order would go to another market than was asked for.
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _OF_COMMANDS_TOO:
            raise click.UsageError(
                f"{parameter.opts[0]} stands before {subcommand}, where it is the load "
                f"generator's: a command's own options stand after its name."
            )


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


main.params += credential_options()

for command in (
    *(buy, sell, cancel, amend, cancel_all),
    *(order, orders, book, trades, tail),
    *(market_commands, status),
):
    main.add_command(command)
