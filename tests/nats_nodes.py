"""Real NATS nodes for tests: `deploy.nodes`, with an end in every case, and what tests do to them.

Knows nothing of what is tested. Nodes listen on free loopback ports and keep their data in a
directory of the test's own. They are locked, as those of `just up` are; all tests of a session have
their keys in one directory, where the exchange's programs look for them too.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from deploy import nodes
from deploy.access import Doors
from deploy.nodes import NodeProcess, NodeSettings
from dex_runtime import connection, topology
from dex_runtime.connection import ConnectionOptions
from dex_runtime.keys import Role
from dex_runtime.topology import Stream, TopologyUnavailable

MAKE_TIMEOUT_S: Final = 30.0
"""A new cluster refuses replicas until its nodes have heard of each other: a second at most."""


PEERS: Final = (
    *("alice", "bob", "carol", "maker", "watcher", "bot", "hurt", "calm", "one", "two"),
    *(f"peer-{number}" for number in range(12)),
    # Names as long as names may be.
    *("p" * 31 + last for last in "pq01234"),
)
"""Who is let in, beside the peers of the load generator and of the command line."""


@cache
def doors() -> Doors:
    """Give the keys of this session, and what they open."""
    directory = Path(tempfile.mkdtemp(prefix="dex-test-keys-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    made = Doors(directory, directory / "accounts.conf", has_observer=True, has_tls=False)
    for peer in PEERS:
        made.keyring.add(peer)
    made.write()
    return made


def share_ports() -> None:
    """Take free ports only from this process' share, when several run the tests of one session.

    Otherwise another one would take the port of a node that a test has killed, and starts again.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        share = len(nodes._TEST_PORTS) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        begin = int(worker.removeprefix("gw")) * share
        nodes._TEST_PORTS = nodes._TEST_PORTS[begin : begin + share]


class Nodes:
    """One node, or the nodes of a cluster, by index."""

    def __init__(self, settings: list[NodeSettings]) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._processes: list[NodeProcess] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect, in the order of the nodes."""
        return tuple(settings.url for settings in self._settings)

    @property
    def replicas(self) -> int:
        """How many replicas a stream can have here."""
        return len(self._settings)

    def only(self, index: int) -> "Nodes":
        """Give one of them as all that somebody knows, who cannot hurt it."""
        return Nodes([self._settings[index]])

    async def start(self) -> None:
        """Start all nodes and wait until they are ready."""
        for settings in self._settings:
            self._processes.append(nodes.start(settings))
        await nodes.wait_until_ready(self._processes)

    async def kill(self, index: int = 0) -> None:
        """End a node by SIGKILL; its data stays."""
        await self._processes[index].stop(graceful=False)

    async def restart(self, index: int = 0) -> None:
        """Start a node again that was killed, and wait until it is ready."""
        self._processes[index] = nodes.start(self._settings[index])
        await nodes.wait_until_ready([self._processes[index]])

    def pause(self, index: int = 0) -> None:
        """Stop a node's clock, a moment later; its sockets stay open."""
        self._processes[index].pause()

    def resume(self, index: int = 0) -> None:
        """Let a paused node go on."""
        self._processes[index].resume()

    async def end(self) -> None:
        """End all nodes, paused or not."""
        for process in self._processes:
            await process.stop(graceful=False)


@asynccontextmanager
async def running(directory: Path, *, count: int = 1) -> AsyncIterator[Nodes]:
    """Run a node, or a cluster, for as long as the block lasts."""
    ports = nodes.free_ports(2 * count)
    settings = (
        [nodes.alone(directory, port=ports[0], access=doors().access)]
        if count == 1
        else nodes.cluster(
            directory,
            client_ports=ports[:count],
            cluster_ports=ports[count:],
            access=doors().access,
        )
    )
    running_nodes = Nodes(settings)
    try:
        await running_nodes.start()
        yield running_nodes
    finally:
        await running_nodes.end()


class Route:
    """The way between the first two nodes of a cluster, which can be cut: a proxy in each
    direction, since either of them connects to the other."""

    def __init__(self) -> None:
        """Carry nothing yet."""
        self._is_cut = False
        self._servers: list[asyncio.Server] = []
        self._carrying: list[asyncio.Task[None]] = []
        self._open: set[asyncio.StreamWriter] = set()

    async def lead(self, port: int, *, to: int) -> None:
        """Carry what arrives at a port of loopback to another one."""

        def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._carrying.append(asyncio.create_task(self._carry(reader, writer, to=to)))

        self._servers.append(await asyncio.start_server(carry, nodes.HOST, port))

    def cut(self) -> None:
        """End what there is, and let nothing through any more."""
        self._is_cut = True
        for writer in list(self._open):
            self._close(writer)

    def mend(self) -> None:
        """Let everything through again; the nodes try again by themselves."""
        self._is_cut = False

    async def end(self) -> None:
        """Carry nothing any more."""
        self.cut()
        for server in self._servers:
            server.close()
            await server.wait_closed()
        await asyncio.gather(*self._carrying)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to: int
    ) -> None:
        self._open.add(writer)
        try:
            if self._is_cut:
                return
            other_reader, other_writer = await asyncio.open_connection(nodes.HOST, to)
            self._open.add(other_writer)
            await asyncio.gather(
                self._pass_on(reader, other_writer), self._pass_on(other_reader, writer)
            )
        except OSError:
            # Nobody listens there, while a node is down.
            return
        finally:
            self._close(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            # One side is gone: the other learns it.
            return
        finally:
            self._close(writer)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.transport.abort()


@asynccontextmanager
async def running_apart(directory: Path) -> AsyncIterator[tuple[Nodes, Route]]:
    """Run a cluster of three whose first two nodes reach each other only by a route that can be
    cut. Clients hear of it as of any change of the cluster, and are not disconnected by it."""
    ports = nodes.free_ports(9)
    client_ports, cluster_ports, ways, nowhere = ports[:3], ports[3:6], ports[6:8], ports[8]
    settings = []
    for index, port in enumerate(client_ports):
        seen = list(cluster_ports)
        if index < 2:
            seen[1 - index] = ways[index]
        settings.append(
            NodeSettings(
                name=f"nats-{index + 1}",
                client_port=port,
                directory=directory / f"nats-{index + 1}",
                access=doors().access,
                extra=_cluster_block(index, seen, port=cluster_ports[index], advertised=nowhere),
            )
        )
    running_nodes = Nodes(settings)
    route = Route()
    try:
        await route.lead(ways[0], to=cluster_ports[1])
        await route.lead(ways[1], to=cluster_ports[0])
        await running_nodes.start()
        yield running_nodes, route
    finally:
        await running_nodes.end()
        await route.end()


def _cluster_block(index: int, seen: list[int], *, port: int, advertised: int) -> str:
    # Nodes tell each other where the third one is, and would pass by what is cut: what they tell
    # is a port where nobody listens.
    others = [f'"nats-route://{nodes.HOST}:{each}"' for each in (*seen[:index], *seen[index + 1 :])]
    return "\n".join(
        [
            "cluster {",
            f'  name: "{nodes.CLUSTER_NAME}"',
            f'  listen: "{nodes.HOST}:{port}"',
            f'  advertise: "{nodes.HOST}:{advertised}"',
            f"  routes: [{', '.join(others)}]",
            "}",
        ]
    )


@asynccontextmanager
async def connected(
    where: Nodes, *, index: int | None = None, peer: str | None = None, role: Role = "server"
) -> AsyncIterator[Client]:
    """Connect for as long as the block lasts, to any node or first to a certain one.

    Args:
        where: The nodes.
        index: Of the node to connect to first.
        peer: Whose key to bring.
        role: Whose key to bring otherwise.
    """
    servers = where.urls if index is None else (where.urls[index],)
    credentials = doors().role(role) if peer is None else doors().peer(peer)
    options = ConnectionOptions(servers=servers, name="test", credentials=credentials)
    client = await connection.connect(options)
    try:
        yield client
    finally:
        await connection.close(client)


class Callers:
    """Everybody who asks for something, each with a key and a connection of their own."""

    def __init__(self, where: Nodes) -> None:
        """Connect nobody yet."""
        self._where = where
        self._open = AsyncExitStack()
        self._clients: dict[str, Client] = {}
        self._connecting = asyncio.Lock()

    async def client(self, subject: str) -> Client:
        """Give the connection of whoever may publish to a subject: its peer, or an operator.

        What no key allows is asked with a server's.
        """
        _, _, *rest = subject.split(".")
        peer = rest[-1] if subject.startswith(("dex.orders.", "dex.query.")) else ""
        if peer == "operator" or subject.startswith("dex.admin."):
            return await self._connected("operator", role="operator")
        if peer in doors().keyring.peers():
            return await self._connected(f"peer {peer}", peer=peer)
        return await self._connected("server", role="server")

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> Msg:  # noqa: ASYNC109
        """Send a request as whoever may, as nats-py's client does."""
        return await (await self.client(subject)).request(subject, payload, timeout=timeout)

    async def close(self) -> None:
        """Close all connections."""
        await self._open.aclose()

    async def _connected(self, who: str, **key: Any) -> Client:
        # Many may ask at once, and an account has only so many connections.
        async with self._connecting:
            if who not in self._clients:
                client = await self._open.enter_async_context(connected(self._where, **key))
                self._clients[who] = client
            return self._clients[who]


@asynccontextmanager
async def calling(where: Nodes) -> AsyncIterator[Callers]:
    """Let everybody ask for as long as the block lasts."""
    callers = Callers(where)
    try:
        yield callers
    finally:
        await callers.close()


async def make(client: Client, stream: Stream, *, replicas: int) -> None:
    """Make a stream, wait until it takes messages from this connection, and keep it empty.

    A cluster that is new, or a node that has not heard of the stream yet, refuses at first.
    """
    async with asyncio.timeout(MAKE_TIMEOUT_S):
        while True:
            try:
                await topology.make(client, stream, replicas=replicas)
                await client.request(
                    stream.subjects[0], timeout=1.0, headers={"Nats-Expected-Last-Sequence": "99"}
                )
                return
            except (TopologyUnavailable, nats.errors.NoRespondersError, nats.errors.TimeoutError):
                await asyncio.sleep(0.02)
