"""The command `dex-local`: the exchange on this machine, up, down, looked at, demonstrated.

Words on a screen and options; what is done is in `installation` and `demo`.
"""

import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from deploy import demo as demonstration
from deploy import interruption, markets, state
from deploy.doorkeeper import Doorkeeper
from deploy.installation import Installation, PortTaken, View
from deploy.interruption import Interrupted
from deploy.keys import KeyConflict
from deploy.markets import MarketNotOpen
from deploy.nodes import NodeNotReady
from deploy.processes import ProcessStuck, ProgramMissing
from deploy.servers import ServerEnded
from deploy.state import Busy, Conflict, Wishes
from dex_runtime.keys import peer_file

T = TypeVar("T")

_EXPECTED: Final = (
    Busy,
    Conflict,
    KeyConflict,
    MarketNotOpen,
    NodeNotReady,
    PortTaken,
    ProcessStuck,
    ProgramMissing,
    ServerEnded,
)
"""What may go wrong and explains itself; anything else is a bug, and shows its traceback."""


def _run(main: Coroutine[Any, Any, T]) -> T:
    try:
        return interruption.run(main)
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except Interrupted as interrupted:
        _say(str(interrupted))
        sys.exit(interrupted.exit_code)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _market_names(
    _context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    for name in names:
        try:
            markets.specification(name)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return tuple(dict.fromkeys(names))


def _server_name(
    _context: click.Context, _parameter: click.Parameter, name: str | None
) -> str | None:
    if name is not None and not state.is_server_name(name):
        raise click.BadParameter(
            "expected 1 to 32 letters, digits, - and _, that do not begin with nats-, "
            f"found {name!r}"
        )
    return name


_directory_option: Final[Callable[[Callable[..., None]], Callable[..., None]]] = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=state.DIRECTORY,
    show_default=True,
    help="Where stores, logs and process ids are kept.",
)


@click.group()
def main() -> None:
    """Run the exchange on this machine, on loopback only."""


@main.command()
@click.option("--nodes", type=click.Choice([1, 3, 5]), help="NATS nodes; 3 at first.")
@click.option("--servers", type=click.IntRange(0), help="Exchange servers; 2 at first.")
@click.option("--port", type=int, help="Port of the first node, the others' follow; 4222 at first.")
@click.option(
    "--cluster-port",
    type=int,
    help="Cluster port of the first node, the others' follow; 2000 above --port at first.",
)
@click.option(
    "--market",
    "market_names",
    multiple=True,
    callback=_market_names,
    help="A market to open, repeatable; BTC-USD and ETH-USD at first.",
)
@click.option(
    "--observer/--no-observer",
    default=None,
    help="Let somebody without a key hear the events; so at first.",
)
@click.option(
    "--tls/--no-tls", default=None, help="Have the nodes speak TLS, by an authority of their own."
)
@_directory_option
def up(
    nodes: int | None,
    servers: int | None,
    port: int | None,
    cluster_port: int | None,
    market_names: tuple[str, ...],
    observer: bool | None,
    tls: bool | None,
    directory: Path,
) -> None:
    """Start what does not run, and wait until orders can be placed.

    What is left out is as it was the last time in the same directory. Doing it again is harmless:
    it starts what has ended.
    """
    wishes = Wishes(
        node_count=nodes,
        server_count=servers,
        client_port=port,
        cluster_port=cluster_port,
        markets=market_names,
        has_observer=observer,
        has_tls=tls,
    )
    started: list[str] = []

    def say(text: str) -> None:
        started.append(text)
        _say(text)

    view = _run(Installation(directory).up(wishes, say=say))
    click.echo("The exchange is ready." if started else "The exchange is running already.")
    _show(view)
    _show_what_next(view, directory)


@main.command()
@click.argument("name", required=False, callback=_server_name)
@_directory_option
def add_server(name: str | None, directory: Path) -> None:
    """Start one more server, or one that has ended; nothing else is started again.

    Without a name it is the first of server-1, server-2, … that there is not.
    """
    _show(_run(Installation(directory).add_server(name, say=_say)))


@main.command()
@click.argument("name")
@_directory_option
def stop_server(name: str, directory: Path) -> None:
    """End a server, and forget it."""
    _run(Installation(directory).stop_server(name, say=_say))
    click.echo(
        f"{name} has left; `uv run just add-server {name}{_elsewhere(directory)}` brings it back."
    )


@main.command()
@click.argument("name")
@_directory_option
def kill_server(name: str, directory: Path) -> None:
    """End a server by SIGKILL, to see what becomes of its markets."""
    _run(Installation(directory).kill_server(name))
    elsewhere = _elsewhere(directory)
    click.echo(
        f"{name} is killed; `uv run just up{elsewhere}` or "
        f"`uv run just add-server {name}{elsewhere}` starts it again."
    )


@main.group()
def peers() -> None:
    """Say who may trade: each peer has a key of its own."""


_public_option: Final[Callable[[Callable[..., None]], Callable[..., None]]] = click.option(
    "--public-key", "public", help="Its public nkey (U…), when it keeps the private one itself."
)


@peers.command("add")
@click.argument("name")
@_public_option
@_directory_option
def add_peer(name: str, public: str | None, directory: Path) -> None:
    """Let one more peer in; the nodes learn it while they run."""
    file = _run(Installation(directory).add_peer(name, public))
    click.echo(f"{name} is let in{_in_file(file)}.")


@peers.command("list")
@_directory_option
def list_peers(directory: Path) -> None:
    """List all peers, and where their keys are."""
    try:
        found = Installation(directory).peers()
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error
    rows = [("PEER", "PRIVATE KEY")]
    _show_table(
        rows + [(name, _short(file) if file else "not here") for name, file in found.items()]
    )


@peers.command("rotate")
@click.argument("name")
@_public_option
@_directory_option
def rotate_peer(name: str, public: str | None, directory: Path) -> None:
    """Give a peer another key; connections with the old one are cut."""
    file = _run(Installation(directory).rotate_peer(name, public))
    click.echo(f"{name} has another key{_in_file(file)}; the old one is refused.")


@peers.command("remove")
@click.argument("name")
@_directory_option
def remove_peer(name: str, directory: Path) -> None:
    """Let a peer in no more, and cut its connections; its orders stay until they are canceled."""
    _run(Installation(directory).remove_peer(name))
    click.echo(f"{name} is not let in any more.")


def _in_file(file: Path) -> str:
    return f", its key is {_short(file)}" if file.exists() else ", with a key of its own"


@main.group("accounts")
def accounts_group() -> None:
    """Write the accounts of an exchange elsewhere, for its nodes to include.

    Each command makes the keys that are missing and writes the file anew; copy it to all nodes,
    and have each reload its configuration twice.
    """


def _keys_and_file(command: Callable[..., None]) -> Callable[..., None]:
    add_keys = click.option(
        "--keys",
        type=click.Path(path_type=Path, file_okay=False),
        default="keys",
        show_default=True,
        help="Directory of the private keys; made when it is missing.",
    )
    add_file = click.option(
        "--file",
        type=click.Path(path_type=Path, dir_okay=False),
        default="accounts.conf",
        show_default=True,
        help="The file to write; it has public keys only.",
    )
    return add_keys(add_file(command))


@accounts_group.command("write")
@_keys_and_file
@click.option(
    "--observer/--no-observer",
    default=None,
    help="Let somebody without a key hear the events; not at first, and then as it was.",
)
def write_accounts(keys: Path, file: Path, observer: bool | None) -> None:
    """Write the file; a role whose key was removed gets another one."""
    Doorkeeper(keys, file).write(has_observer=observer)
    click.echo(f"{_short(file)} is written; the keys are in {_short(keys)}.")


@accounts_group.command("add")
@click.argument("name")
@_public_option
@_keys_and_file
def add_to_accounts(name: str, public: str | None, keys: Path, file: Path) -> None:
    """Let one more peer in."""
    doorkeeper = Doorkeeper(keys, file)
    _change(doorkeeper, lambda: doorkeeper.keyring.add(name, public))
    click.echo(f"{name} is in {_short(file)}{_in_file(peer_file(keys, name))}.")


@accounts_group.command("rotate")
@click.argument("name")
@_public_option
@_keys_and_file
def rotate_in_accounts(name: str, public: str | None, keys: Path, file: Path) -> None:
    """Give a peer another key."""
    doorkeeper = Doorkeeper(keys, file)
    _change(doorkeeper, lambda: doorkeeper.keyring.rotate(name, public))
    click.echo(f"{name} has another key in {_short(file)}{_in_file(peer_file(keys, name))}.")


@accounts_group.command("remove")
@click.argument("name")
@_keys_and_file
def remove_from_accounts(name: str, keys: Path, file: Path) -> None:
    """Let a peer in no more."""
    doorkeeper = Doorkeeper(keys, file)
    _change(doorkeeper, lambda: doorkeeper.keyring.remove(name))
    click.echo(f"{name} is not in {_short(file)} any more.")


def _change(doorkeeper: Doorkeeper, change: Callable[[], None]) -> None:
    try:
        change()
    except KeyConflict as error:
        raise click.ClickException(str(error)) from error
    doorkeeper.write()


@main.command()
@_directory_option
def down(directory: Path) -> None:
    """End servers and nodes; keep the data."""
    stopped: list[str] = []

    def say(text: str) -> None:
        stopped.append(text)
        _say(text)

    _run(Installation(directory).down(say=say))
    click.echo("Everything has ended; the data are kept." if stopped else "Nothing was running.")


@main.command()
@_directory_option
def clean(directory: Path) -> None:
    """End servers and nodes, and remove their data."""
    _run(Installation(directory).clean(say=_say))
    click.echo("Everything has ended, and the data are removed.")


@main.command()
@_directory_option
def status(directory: Path) -> None:
    """Show what runs and how the markets stand; exit 1 when anything is missing."""
    view = _run(Installation(directory).look())
    if view is None:
        click.echo("Nothing was started here. Try: uv run just up")
        sys.exit(1)
    _show(view)
    if not view.is_whole:
        sys.exit(1)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--orders", type=int, default=1_000, show_default=True, help="How many to send.")
@click.option(
    "--market",
    "market_names",
    multiple=True,
    default=state.MARKETS,
    show_default=True,
    callback=_market_names,
    help="A market to open and to trade, repeatable.",
)
@click.option(
    "--servers",
    type=click.IntRange(1),
    default=len(state.SERVERS),
    show_default=True,
    help="Exchange servers.",
)
@click.option("--json", "json_file", help="Write the report there as JSON; - for stdout.")
@click.argument("client_options", nargs=-1, type=click.UNPROCESSED)
def demo(
    orders: int,
    market_names: tuple[str, ...],
    servers: int,
    json_file: str | None,
    client_options: tuple[str, ...],
) -> None:
    """Run an exchange just for this, send it orders, verify, and end everything again.

    Other options go to the load generator as they are: see `dex-client --help`.
    """
    options = ["--orders", str(orders)]
    for market in market_names:
        options += ["--market", market]
    if json_file is not None:
        options += ["--json", json_file]
    sys.exit(
        _run(
            demonstration.run(
                [*options, *client_options],
                market_names=market_names,
                server_count=servers,
                say=_say,
            ),
        )
    )


def _show(view: View) -> None:
    rows = [("PROCESS", "PID", "ADDRESS", "LOG")]
    rows += [
        (
            process.name,
            "not running" if process.pid is None else str(process.pid),
            process.url,
            _short(process.log),
        )
        for process in view.processes
    ]
    _show_table(rows)
    if view.markets:
        click.echo()
        _show_table(
            [("MARKET", "STATE", "LEADER", "TERM", "SEQUENCE")]
            + [
                (
                    market.market,
                    market.state,
                    market.leader or "none",
                    _or_dash(market.term),
                    _or_dash(market.sequence),
                )
                for market in view.markets
            ]
        )


def _show_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _show_what_next(view: View, directory: Path) -> None:
    # A client learns the other nodes from the first, and looks for it at NATS' own port.
    moved = view.settings.client_port != state.CLIENT_PORT
    address = f" --nats {view.processes[0].url}" if moved else ""
    elsewhere = _elsewhere(directory)
    click.echo()
    if view.markets:
        click.echo(f"Try:    uv run dex-client --orders 1000{address}")
    if not elsewhere:
        keys = Installation(directory).directory / "keys"
        who = "" if view.settings.has_observer else f" --nkey {_short(keys / 'operator.nk')}"
        trusting = f" --tlsca {_short(keys / 'ca.pem')}" if view.settings.has_tls else ""
        click.echo(f"Watch:  uv run just nats-cli{who}{trusting} sub 'dex.events.>'")
    click.echo(f"End:    uv run just down{elsewhere}")


def _elsewhere(directory: Path) -> str:
    return f" --dir {directory}" if str(directory) != state.DIRECTORY else ""


def _short(path: Path) -> str:
    """A path as seen from here, when that is not a way up."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


if __name__ == "__main__":
    main()
