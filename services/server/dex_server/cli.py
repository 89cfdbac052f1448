"""The command `dex-server`: options, connections, and the one place where ports meet adapters."""

import asyncio
import logging
import re
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import click

from dex_protocol import limits
from dex_runtime import connection, topology
from dex_runtime.connection import CannotConnect, Connection, ConnectionOptions
from dex_runtime.messaging import Requester
from dex_runtime.service import run, set_up_logging
from dex_runtime.serving import Responder
from dex_server import server
from dex_server.config import Config
from dex_server.jetstream.log import JetStreamLog
from dex_server.jetstream.markets import Directory
from dex_server.jetstream.snapshots import JetStreamSnapshots
from dex_server.markets import Ports
from dex_server.replication.ports import Log, LogUnavailable
from dex_server.replication.replica import Settings

WAIT_FOR_NATS_S: Final = 0.5
"""Between two attempts while NATS is not there yet: it is often started at the same time."""

T = TypeVar("T")

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_log: Final = logging.getLogger(__name__)


@click.command()
@click.option(
    "--name",
    required=True,
    help="This server's name, unique among the servers of the exchange.",
)
@click.option(
    "--nats",
    default="nats://127.0.0.1:4222",
    show_default=True,
    help="Addresses of NATS nodes, with commas between them.",
)
@click.option(
    "--replicas",
    type=click.Choice(["1", "3", "5"]),
    default="1",
    show_default=True,
    help="Copies that JetStream keeps of each newly made log.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Commits executed ahead of the log's confirmation, for each market.",
)
@click.option(
    "--snapshot-commits",
    type=click.IntRange(1),
    default=limits.SNAPSHOT_COMMITS_COUNT,
    show_default=True,
    help="Commits between two snapshots of a market.",
)
def main(name: str, nats: str, replicas: str, window: int, snapshot_commits: int) -> None:
    """Hold the exchange's markets and lead them, until told to stop.

    Example: dex-server --name server-1 --nats nats://127.0.0.1:4222
    """
    if _NAME.fullmatch(name) is None:
        raise click.BadParameter(
            f"expected 1 to 32 letters, digits, - and _, found {name!r}", param_hint="--name"
        )
    addresses = tuple(address for address in nats.split(",") if address)
    if not addresses:
        raise click.BadParameter("expected at least one address, found none", param_hint="--nats")
    config = Config(
        name=name,
        nats=addresses,
        replicas=int(replicas),
        settings=Settings(window=window, snapshot_commits=snapshot_commits),
    )
    set_up_logging()
    sys.exit(run(lambda stop: connect_and_serve(config, stop)))


async def connect_and_serve(config: Config, stop: asyncio.Event) -> None:
    """Connect, make what is missing, and serve until told to stop."""
    clients: list[Connection] = []
    try:
        for purpose in ("log", "orders", "queries"):
            client = await _connected(config, purpose, stop)
            if client is None:
                return
            clients.append(client)
        log, orders, queries = clients
        if await _is_made(log, config, stop):
            await server.serve(config, await _ports(config, log, orders, queries), stop)
    finally:
        for client in clients:
            await connection.close(client)


async def _ports(
    config: Config,
    log: Connection,
    orders: Connection,
    queries: Connection,
) -> Ports:
    requester = await Requester.start(log)

    async def log_of(market: str) -> Log:
        try:
            await topology.make_log(log, market, replicas=config.replicas)
        except (topology.TopologyUnavailable, topology.TopologyDiffers) as error:
            raise LogUnavailable(str(error)) from error
        return JetStreamLog(requester, market)

    return Ports(
        log_of=log_of,
        snapshots=JetStreamSnapshots(requester),
        directory=Directory(requester),
        orders=Responder(orders),
        queries=Responder(queries),
        alarms=Responder(log),
    )


async def _connected(config: Config, purpose: str, stop: asyncio.Event) -> Connection | None:
    options = ConnectionOptions(servers=config.nats, name=f"{config.name}-{purpose}")
    about = {"server": config.name}
    is_told = False
    while not stop.is_set():
        try:
            connecting = connection.connect(
                options,
                on_disconnected=lambda: _log.warning(
                    "the connection for %s is lost", purpose, extra=about
                ),
                on_reconnected=lambda: _log.info(
                    "the connection for %s is there again", purpose, extra=about
                ),
                on_error=lambda text: _log.warning("NATS (%s): %s", purpose, text, extra=about),
            )
            return await _unless_stopped(stop, connecting)
        except CannotConnect as cannot:
            if not is_told:
                _log.warning("waiting for NATS: %s", cannot, extra=about)
                is_told = True
            await _pause(stop)
    return None


async def _is_made(log: Connection, config: Config, stop: asyncio.Event) -> bool:
    is_told = False
    while not stop.is_set():
        try:
            await _unless_stopped(stop, topology.make_shared(log, replicas=config.replicas))
        except topology.TopologyUnavailable as unavailable:
            if not is_told:
                _log.warning("waiting for JetStream: %s", unavailable)
                is_told = True
            await _pause(stop)
        else:
            return not stop.is_set()
    return False


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    # NATS may leave either of them open for as long as a server may take to stop altogether.
    doing, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((doing, told), return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        told.cancel()


async def _pause(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(WAIT_FOR_NATS_S):
            await stop.wait()
    except TimeoutError:
        return
