"""The fakes and JetStream pass the same suites: the fake is proven, not believed."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from nats.aio.client import Client

from dex_runtime import topology
from dex_runtime.messaging import Requester
from dex_server.jetstream.log import JetStreamLog
from dex_server.jetstream.snapshots import JetStreamSnapshots
from dex_server.replication.ports import Log, Snapshots
from tests.contracts.log_contract import LogContract, LogWorld
from tests.contracts.memory import LogOver, MemoryLog, MemorySnapshots, SnapshotsOver
from tests.contracts.snapshot_contract import SnapshotContract
from tests.nats_nodes import Nodes, connected, make


class _MemoryWorld:
    def __init__(self) -> None:
        clock = count(1)
        self._log = MemoryLog(now_us=lambda: next(clock))

    async def open(self) -> Log:
        return LogOver(self._log)

    async def trim(self, first_sequence: int) -> None:
        self._log.trim(first_sequence)


class _JetStreamWorld:
    def __init__(self, client: Client, requester: Requester, market: str) -> None:
        self._client = client
        self._requester = requester
        self._market = market

    async def open(self) -> Log:
        return JetStreamLog(self._requester, self._market)

    async def trim(self, first_sequence: int) -> None:
        stream = topology.log_of(self._market).name
        await self._client.jsm().purge_stream(stream, seq=first_sequence)


async def _world_on(nodes: Nodes, market: str) -> AsyncIterator[LogWorld]:
    async with connected(nodes) as client:
        stream = topology.log_of(market)
        await make(client, stream, replicas=nodes.replicas)
        requester = await Requester.start(client)
        try:
            yield _JetStreamWorld(client, requester, market)
        finally:
            await requester.close()
            await client.jsm().delete_stream(stream.name)


class TestLogInMemory(LogContract):
    """The fake."""

    @pytest.fixture
    def world(self) -> LogWorld:
        return _MemoryWorld()


class TestLogOnOneNode(LogContract):
    """JetStream without replicas."""

    @pytest.fixture
    async def world(self, node: Nodes, market: str) -> AsyncIterator[LogWorld]:
        async for world in _world_on(node, market):
            yield world


class TestLogOnThreeNodes(LogContract):
    """JetStream with three replicas."""

    @pytest.fixture
    async def world(self, cluster: Nodes, market: str) -> AsyncIterator[LogWorld]:
        async for world in _world_on(cluster, market):
            yield world


class TestSnapshotsInMemory(SnapshotContract):
    """The fake."""

    @pytest.fixture
    def snapshots(self) -> Snapshots:
        return SnapshotsOver(MemorySnapshots())


class TestSnapshotsOnOneNode(SnapshotContract):
    """JetStream's object store."""

    @pytest.fixture
    async def snapshots(self, client: Client) -> AsyncIterator[Snapshots]:
        await topology.make_shared(client, replicas=1)
        requester = await Requester.start(client)
        yield JetStreamSnapshots(requester)
        await requester.close()
