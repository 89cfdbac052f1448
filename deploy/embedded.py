"""An exchange for the time of one program: nodes, servers, markets, nothing left behind.

NATS nodes with JetStream on free ports of loopback, with temporary stores. Demonstrations and
benchmarks run against it, and hurt it.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from deploy import guards, markets, nodes, processes, servers
from deploy.access import Doors
from deploy.guards import GuardProcess
from deploy.nodes import Access, NodeProcess, NodeSettings
from deploy.servers import ServerProcess

Say = Callable[[str], None]


class Embedded:
    """A running exchange; its nodes and servers can be paused, killed and started again."""

    def __init__(self, directory: Path, settings: Sequence[NodeSettings], doors: Doors) -> None:
        """Start nothing yet; `embedded` and `cluster` do."""
        self._directory = directory
        self.doors = doors
        """Who is let in."""
        self._settings = list(settings)
        self.nodes: list[NodeProcess] = []
        """nats-1, nats-2, …; some may have ended."""
        self.servers: list[ServerProcess] = []
        """In the order they joined, server-1 first; some may have ended."""
        self.guard: GuardProcess | None = None
        """None before `start_guard`; it may have ended."""

    @property
    def url(self) -> str:
        """Where the first node takes clients."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """Where the nodes take clients, those that have ended too."""
        return [node.url for node in self._settings]

    @property
    def server(self) -> ServerProcess:
        """The first server."""
        return self.servers[0]

    @property
    def guard_log(self) -> Path:
        """What the guard prints."""
        return self._directory / "guard.log"

    async def start_nodes(self) -> None:
        """Start the nodes that do not run, and wait until all are ready.

        Raises:
            NodeNotReady, ProgramMissing: they are not.
        """
        for index, settings in enumerate(self._settings):
            if index == len(self.nodes):
                self.nodes.append(nodes.start(settings))
            elif not self.nodes[index].is_running():
                self.nodes[index] = nodes.start(settings)
        await nodes.wait_until_ready(self.nodes)

    def start_server(self, name: str) -> ServerProcess:
        """Start one more server, or again one that has ended; it is not ready yet.

        Raises:
            ProgramMissing: the project is not installed.
        """
        known = {server.name: index for index, server in enumerate(self.servers)}
        index = known.get(name, len(self.servers))
        is_running = name in known and self.servers[index].is_running()
        assert not is_running, f"expected {name} to have ended, found it running"
        server = servers.start(
            name,
            urls=self.urls,
            credentials=self.doors.role("server"),
            replica_count=min(len(self._settings), 3),
            log=self._directory / f"{name}.log",
        )
        self.servers[index : index + 1] = [server]
        return server

    def start_guard(self) -> GuardProcess:
        """Start the guard, or again when it has ended; it watches as soon as it can.

        Raises:
            ProgramMissing: the project is not installed.
        """
        is_running = self.guard is not None and processes.is_running(self.guard.process)
        assert not is_running, "expected no guard, found one running"
        self.guard = guards.start(
            urls=self.urls, credentials=self.doors.role("guard"), log=self.guard_log
        )
        return self.guard

    async def stop_guard(self) -> None:
        """End the guard, if there is one."""
        if self.guard is not None:
            await processes.stop(self.guard.process, grace_s=servers.STOP_GRACE_S)

    async def stop_servers(self) -> None:
        """End all servers, paused or not."""
        await asyncio.gather(*(server.stop() for server in self.servers))

    async def stop_nodes(self) -> None:
        """End all nodes, paused or not."""
        await asyncio.gather(*(node.stop() for node in self.nodes))


def embedded(
    market_names: Sequence[str], *, server_count: int = 1, say: Say
) -> AbstractAsyncContextManager[Embedded]:
    """Run an exchange on one node, and end all of it in any case; as `cluster` otherwise."""
    return cluster(market_names, node_count=1, server_count=server_count, say=say)


@asynccontextmanager
async def cluster(
    market_names: Sequence[str],
    *,
    node_count: int = 3,
    server_count: int = 3,
    sync_interval: str = "always",
    say: Say,
) -> AsyncIterator[Embedded]:
    """Run an exchange on several nodes, and end all of it in any case.

    Each log has as many replicas as there are nodes, 3 at most.

    Args:
        market_names: The markets to open.
        node_count: 1, or 3 and more.
        server_count: 1 or more: server-1, server-2, …
        sync_interval: Of the nodes; by default they sync before each acknowledgement.
        say: Told what happens.

    Raises:
        NodeNotReady, ServerEnded, MarketNotOpen, ProgramMissing: the exchange did not start.
    """
    specifications = [markets.specification(market) for market in market_names]
    async with AsyncExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="dex-")))
        doors = Doors(
            directory / "keys", directory / "accounts.conf", has_observer=False, has_tls=False
        )
        doors.write()
        settings = _node_settings(directory, node_count, doors.access, sync_interval)
        exchange = Embedded(directory, settings, doors)
        undo.push_async_callback(exchange.stop_nodes)
        undo.push_async_callback(exchange.stop_servers)
        undo.push_async_callback(exchange.stop_guard)
        ports = ", ".join(url.rpartition(":")[2] for url in exchange.urls)
        if node_count == 1:
            say(f"starting a NATS node on port {ports}, with a store that is removed afterwards")
        else:
            say(
                f"starting {node_count} NATS nodes on ports {ports}, "
                "with stores that are removed afterwards"
            )
        await exchange.start_nodes()

        some = "a" if server_count == 1 else server_count
        say(
            f"starting {some} {_plural('server', server_count)}, "
            f"and opening {' and '.join(market_names)}"
        )
        for number in range(1, server_count + 1):
            exchange.start_server(f"server-{number}")
        await servers.open_markets(
            exchange.servers,
            specifications,
            urls=exchange.urls,
            credentials=doors.role("operator"),
        )
        yield exchange
        say(
            f"stopping the {_plural('server', len(exchange.servers))} "
            f"and the {_plural('node', node_count)}"
        )


def _node_settings(
    directory: Path, count: int, access: Access, sync_interval: str
) -> list[NodeSettings]:
    ports = nodes.free_ports(2 * count)
    if count == 1:
        alone = directory / "nats-1"
        return [nodes.alone(alone, port=ports[0], sync_interval=sync_interval, access=access)]
    return nodes.cluster(
        directory,
        client_ports=ports[:count],
        cluster_ports=ports[count:],
        sync_interval=sync_interval,
        access=access,
    )


def _plural(what: str, count: int) -> str:
    return what if count == 1 else f"{what}s"
