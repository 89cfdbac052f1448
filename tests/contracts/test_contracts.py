"""The fakes and JetStream pass the same suites: the fake is proven, not believed."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from nats.aio.client import Client

from dex_runtime import topology
from dex_runtime.messaging import NoReply, Requester
from dex_server.jetstream import api
from dex_server.jetstream.leases import JetStreamLeases
from dex_server.jetstream.log import JetStreamLog
from dex_server.jetstream.snapshots import JetStreamSnapshots
from dex_server.replication.ports import Leases, Log, Snapshots
from tests.contracts.lease_buckets import make_buckets
from tests.contracts.lease_contract import LeaseContract, LeaseWorld
from tests.contracts.log_contract import LogContract, LogWorld
from tests.contracts.memory import (
    LeasesOver,
    LogOver,
    MemoryLeases,
    MemoryLeaseStore,
    MemoryLog,
    MemorySnapshots,
    SnapshotsOver,
)
from tests.contracts.snapshot_contract import SnapshotContract
from tests.nats_nodes import Nodes, connected, make


class _MemoryWorld:
    def __init__(self) -> None:
        clock = count(1)
        self._log = MemoryLog(now_us=lambda: next(clock))

    async def open(self) -> Log:
        return LogOver(self._log)

    async def purge(self, first_sequence: int) -> None:
        self._log.purge(first_sequence)


class _JetStreamWorld:
    def __init__(self, client: Client, requester: Requester, market: str) -> None:
        self._client = client
        self._requester = requester
        self._market = market

    async def open(self) -> Log:
        return JetStreamLog(self._requester, self._market)

    async def purge(self, first_sequence: int) -> None:
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


class _MemoryLeaseWorld:
    def __init__(self) -> None:
        self._store = MemoryLeaseStore(count(1).__next__)

    async def open(self) -> Leases:
        return LeasesOver(MemoryLeases(self._store))

    async def write(self, bucket: str, key: str, payload: bytes | None) -> None:
        self._store.write(bucket, key, payload)

    def interrupt(self) -> None:
        self._store.is_interrupted = True

    def resume(self) -> None:
        self._store.is_interrupted = False


class _Line(Requester):
    # A requester that a test can cut off.

    is_cut = False

    async def request(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        if self.is_cut:
            raise NoReply("cut off by the test")
        return await super().request(subject, payload, timeout_s=timeout_s, headers=headers)


class _JetStreamLeaseWorld:
    def __init__(self, line: _Line) -> None:
        self._line = line

    async def open(self) -> Leases:
        return JetStreamLeases(self._line)

    async def write(self, bucket: str, key: str, payload: bytes | None) -> None:
        subject = topology.bucket_subject(bucket, key)
        headers = {"KV-Operation": "DEL"} if payload is None else {}
        ack = await api.publish(self._line, subject, payload or b"", headers=headers)
        assert ack.error is None

    def interrupt(self) -> None:
        self._line.is_cut = True

    def resume(self) -> None:
        self._line.is_cut = False


async def _leases_on(nodes: Nodes) -> AsyncIterator[LeaseWorld]:
    async with connected(nodes) as client:
        line = await _Line.start(client)
        assert isinstance(line, _Line)
        await make_buckets(client, line, replicas=nodes.replicas)
        yield _JetStreamLeaseWorld(line)
        await line.close()


class TestLeasesInMemory(LeaseContract):
    """The fake."""

    @pytest.fixture
    def world(self) -> LeaseWorld:
        return _MemoryLeaseWorld()


class TestLeasesOnOneNode(LeaseContract):
    """JetStream without replicas."""

    @pytest.fixture
    async def world(self, node: Nodes) -> AsyncIterator[LeaseWorld]:
        async for world in _leases_on(node):
            yield world


class TestLeasesOnThreeNodes(LeaseContract):
    """JetStream with three replicas."""

    @pytest.fixture
    async def world(self, cluster: Nodes) -> AsyncIterator[LeaseWorld]:
        async for world in _leases_on(cluster):
            yield world
