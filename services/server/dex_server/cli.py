"""The command `dex-server`: options, connections, and the one place where ports meet adapters."""

import asyncio
import re
import secrets
import sys
from functools import partial
from typing import Any, Final

import click

from dex_protocol import limits
from dex_runtime import discovery, keys, options, topology
from dex_runtime.connection import Connection
from dex_runtime.messaging import Requester
from dex_runtime.service import run, set_up_logging
from dex_runtime.serving import Responder
from dex_server import server
from dex_server.collecting import keep_collections_short
from dex_server.config import Config
from dex_server.connections import ConnectionLost, Connections
from dex_server.driver import Broadcasts
from dex_server.electing import Electing, ServerDisplaced
from dex_server.jetstream import log as jetstream_log
from dex_server.jetstream.leases import JetStreamLeases
from dex_server.jetstream.log import JetStreamLog
from dex_server.jetstream.markets import Directory
from dex_server.jetstream.snapshots import JetStreamSnapshots
from dex_server.markets import Ports
from dex_server.replication.elections import Elections
from dex_server.replication.ports import Log, LogUnavailable
from dex_server.replication.replica import Settings

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


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
@click.option(
    "--trim-logs",
    is_flag=True,
    help="Cut each log before the older of its two snapshots, for good. Off, logs grow for ever.",
)
def main(
    name: str,
    nats: str,
    replicas: str,
    window: int,
    snapshot_commits: int,
    trim_logs: bool,
    **others: Any,
) -> None:
    """Hold the exchange's markets, and lead a fair share of them, until told to stop.

    Any number of servers may run, on any machines, each with a name of its own.

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
        credentials=keys.of_role("server", options.credentials(others)),
        replicas=int(replicas),
        settings=Settings(window=window, snapshot_commits=snapshot_commits, trims_log=trim_logs),
    )
    set_up_logging()
    keep_collections_short()
    sys.exit(
        run(
            lambda stop: connect_and_serve(config, stop),
            explained=(ConnectionLost, ServerDisplaced),
        )
    )


main.params += options.credential_options()


async def connect_and_serve(config: Config, stop: asyncio.Event) -> None:
    """Connect, make what is missing, and serve until told to stop.

    Raises:
        ConnectionLost: NATS will not have this server any more.
        ServerDisplaced: another process runs under its name.
    """
    connections = Connections(config, stop)
    watcher = _LateWatcher()
    try:
        log = await connections.open("log", watcher=watcher)
        orders = await connections.open("orders")
        queries = await connections.open("queries")
        if log is None or orders is None or queries is None:
            return
        replicas = await connections.make_shared(log)
        if replicas is not None:
            ports = await _ports(replicas, log, orders, queries)
            incarnation = secrets.token_hex(8)
            electing = Electing(Elections(config.name, incarnation), ports.leases, ports.requester)
            watcher.target = electing
            await JetStreamLeases.watch(log, electing.leaders_changed)
            await server.serve(config, incarnation, ports, electing, stop)
    finally:
        await connections.close()


class _LateWatcher:
    # Whoever draws conclusions is made when the connection is there.
    target: Electing | None = None

    def connected(self, *, is_up: bool) -> None:
        if self.target is not None:
            self.target.connected(is_up=is_up)

    def cluster_changed(self) -> None:
        if self.target is not None:
            self.target.cluster_changed()


async def _ports(
    replicas: int,
    log: Connection,
    orders: Connection,
    queries: Connection,
) -> Ports:
    requester = await Requester.start(log, is_urgent=True)

    async def log_of(market: str) -> Log:
        try:
            await topology.make_log(log, market, replicas=replicas)
        except (topology.TopologyUnavailable, topology.TopologyDiffers) as error:
            raise LogUnavailable(str(error)) from error
        return JetStreamLog(requester, market)

    def listen_to(market: str) -> Broadcasts:
        return partial(jetstream_log.listen, log, market)

    return Ports(
        log_of=log_of,
        listen_to=listen_to,
        snapshots=JetStreamSnapshots(requester),
        directory=Directory(requester),
        leases=JetStreamLeases(requester),
        orders=Responder(orders),
        queries=Responder(queries),
        register=partial(discovery.register, queries),
        vitals=Responder(log),
        requester=requester,
    )
