"""Real NATS nodes for tests: `deploy.nodes`, with an end in every case, and what tests do to them.

Knows nothing of what is tested. Nodes listen on free loopback ports and keep their data in a
directory of the test's own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import nats.errors
from nats.aio.client import Client

from deploy import nodes
from deploy.nodes import NodeProcess, NodeSettings
from dex_runtime import connection, topology
from dex_runtime.connection import ConnectionOptions
from dex_runtime.topology import Stream, TopologyUnavailable

MAKE_TIMEOUT_S: Final = 30.0
"""A new cluster refuses replicas until its nodes have heard of each other: a second at most."""


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
        [nodes.alone(directory, port=ports[0])]
        if count == 1
        else nodes.cluster(directory, client_ports=ports[:count], cluster_ports=ports[count:])
    )
    running_nodes = Nodes(settings)
    try:
        await running_nodes.start()
        yield running_nodes
    finally:
        await running_nodes.end()


@asynccontextmanager
async def connected(where: Nodes, *, index: int | None = None) -> AsyncIterator[Client]:
    """Connect for as long as the block lasts, to any node or first to a certain one."""
    servers = where.urls if index is None else (where.urls[index],)
    client = await connection.connect(ConnectionOptions(servers=servers, name="test"))
    try:
        yield client
    finally:
        await connection.close(client)


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
