"""The servers and the markets, as the servers themselves tell it."""

import asyncio
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Any, Final, NoReturn

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from dex_client.commands.frame import Caller, OperatorCommand
from dex_client.commands.options import CannotRun
from dex_client.commands.output import Cell, table, time_text
from dex_client.comparison import Mark, MarketView, ReplicaView, ServerView, View, compare
from dex_client.errors import Unavailable, Unreachable
from dex_client.standings import TIMEOUT_S, Standings, standings

INTERVAL_S: Final = 1.0
"""Between two pictures: the eye needs it to see what changed, and servers do not feel it."""

MARK_STYLE: Final = "bold red"


class StatusCommand(OperatorCommand):
    """Its `--json` may be given the `-` that stands for stdout, as the load generator's."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        """Let `--json` have a value."""
        super().__init__(*arguments, **attributes)
        self.params = [each for each in self.params if each.name != "as_json"]
        self.params.append(
            click.Option(
                ["--json", "as_json"],
                type=click.Choice(["-"]),
                is_flag=False,
                flag_value="-",
                metavar="[-]",
                callback=lambda _, __, value: value is not None,
                help="Print JSON, one object; also as --json -.",
            )
        )

    def invoke(self, context: click.Context) -> None:
        """Run it; watching goes on until it is interrupted, which is how it ends well."""
        try:
            super().invoke(context)
        except KeyboardInterrupt:
            if not context.params["watch"]:
                raise


@click.command(cls=StatusCommand)
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
async def status(caller: Caller, *, watch: bool) -> None:
    """Show who leads each market, and how each server stands.

    In red: no leader or two, a server that has stopped or is not current, one that is more than
    100 commits behind, and books that differ though they should be the same. Books can be compared
    at the same sequence only, so under load most are not.

    The exit code is 1 when a market has no leader or two, a server has stopped, or books differ.

    \b
    Example: go on looking, and red is what to look at
      dex-client status --watch
    """
    timeout_s = min(TIMEOUT_S, caller.deadline_s)
    async with standings(caller.as_operator) as servers:
        if watch:
            await _watch(caller, servers, timeout_s)
        try:
            view = await _look_twice(servers, timeout_s)
        except Unreachable:
            raise
        except Unavailable as error:
            raise CannotRun(
                f"{error}; start an exchange with `just up`, or name its NATS servers with --nats"
            ) from error
    caller.output.show(view, status_lines(view))
    if not view.is_well:
        raise click.exceptions.Exit(1)


async def _look_twice(servers: Standings, timeout_s: float) -> View:
    answers = await servers.ask(timeout_s=timeout_s)
    view = compare(answers.standings, answers.passed_over)
    if view.is_well:
        return view
    # While the lead changes nobody has it for a moment, and a server that is busy answers after
    # the others: the second look waits for whatever may come.
    answers = await servers.ask(timeout_s=timeout_s, quiet_s=timeout_s)
    return compare(answers.standings, answers.passed_over)


async def _watch(caller: Caller, servers: Standings, timeout_s: float) -> NoReturn:
    console = Console(highlight=False, markup=False, emoji=False)
    can_draw_over = console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()
    loop = asyncio.get_running_loop()
    live = Live(console=console, auto_refresh=False)
    with live if can_draw_over and not caller.output.as_json else nullcontext():
        while True:
            began = loop.time()
            view = await _look(servers, timeout_s)
            if live.is_started:
                live.update(_picture(view), refresh=True)
            else:
                caller.output.show(view, watch_lines(view))
            await asyncio.sleep(max(began + INTERVAL_S - loop.time(), 0))


async def _look(servers: Standings, timeout_s: float) -> View:
    try:
        answers = await servers.ask(timeout_s=timeout_s)
    except Unreachable:
        raise
    except Unavailable:
        return compare([])
    return compare(answers.standings, answers.passed_over)


def _picture(view: View) -> Group:
    lines = watch_lines(view)
    for line in lines:
        # A line is a line: what does not fit is cut, or columns would stand under each other.
        line.no_wrap = True
        line.overflow = "ellipsis"
    return Group(*lines)


# --- Lines --------------------------------------------------------------------------------------


def status_lines(view: View) -> list[Text]:
    """Write how the exchange stands: markets, servers, and what is to be said of them."""
    return [*_tables(view), *_findings(view)]


def watch_lines(view: View) -> list[Text]:
    """Write one picture of many: when it was, and what matters before what may not fit."""
    now = Text(time_text(time.time_ns() // 1_000), "dim")
    return [now, *_findings(view), Text(), *_tables(view)]


def _tables(view: View) -> list[Text]:
    if not view.servers:
        return []
    markets = [_market_row(market) for market in view.markets]
    servers = [row for server in view.servers for row in _server_rows(server)]
    return [
        *(_markets_table(markets) if markets else [Text("no markets")]),
        Text(),
        *_servers_table(servers),
        Text(),
    ]


def _findings(view: View) -> list[Text]:
    lines = [Text(problem, MARK_STYLE) for problem in view.problems]
    lines += [Text(remark, "yellow") for remark in view.remarks]
    if view.is_well:
        markets, servers = len(view.markets), len(view.servers)
        lines.append(Text(f"all is well: {_count(markets, 'market')}, {_count(servers, 'server')}"))
    return lines


def _markets_table(rows: Sequence[Sequence[Cell]]) -> list[Text]:
    head = ("MARKET", "LEADER", "TERM", "SEQUENCE", "DIGEST", "CURRENT")
    return table(head, rows, numbers=("TERM", "SEQUENCE"))


def _servers_table(rows: Sequence[Sequence[Cell]]) -> list[Text]:
    head = ("SERVER", "MARKET", "ROLE", "TERM", "SEQUENCE", "LAG", "DIGEST")
    return table(head, rows, numbers=("TERM", "SEQUENCE", "LAG"))


def _market_row(view: MarketView) -> Sequence[Cell]:
    return (
        view.market,
        _marked(", ".join(view.leaders) or "none", view.marks, "leaders"),
        str(view.term),
        str(view.sequence),
        _marked(view.digest or "-", view.marks, "digest"),
        _marked(f"{view.current} of {view.servers}", view.marks, "current"),
    )


def _server_rows(server: ServerView) -> list[Sequence[Cell]]:
    if not server.markets:
        return [(server.server, *["-"] * 6)]
    return [(server.server, *_replica_cells(replica)) for replica in server.markets]


def _replica_cells(view: ReplicaView) -> Sequence[Cell]:
    is_behind = not view.is_current and view.role != "stopped"
    role = f"{view.role}, not current" if is_behind else view.role
    return (
        view.market,
        _marked(role, view.marks, "role"),
        str(view.term),
        str(view.sequence),
        _marked(str(view.lag), view.marks, "lag"),
        _marked(view.digest or "-", view.marks, "digest"),
    )


def _marked(text: str, marks: Collection[Mark], mark: Mark) -> Text:
    return Text(text, MARK_STYLE if mark in marks else "")


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
