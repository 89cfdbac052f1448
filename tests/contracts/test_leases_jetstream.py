"""What leases do on real nodes only: broadcasts, outages, races, and others who write meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from dex_protocol.subjects import LEADERS_BUCKET, SERVERS_BUCKET, leases
from dex_runtime import topology
from dex_runtime.messaging import Requester
from dex_runtime.topology import TopologyDiffers
from dex_server.jetstream.leases import JetStreamLeases
from dex_server.replication.ports import LeaderNews, LogUnavailable
from tests.contracts.lease_buckets import make_buckets
from tests.contracts.lease_contract import leading, living, named, news_of
from tests.nats_nodes import Nodes, connected, running

LONG_S = 60.0
"""More than anything here takes; only a broken test waits so long."""


@asynccontextmanager
async def requester_on(nodes: Nodes) -> AsyncIterator[Requester]:
    """Connect, and make the buckets unless they exist."""
    async with connected(nodes) as client:
        requester = await Requester.start(client)
        await make_buckets(client, requester, replicas=nodes.replicas)
        yield requester
        await requester.close()


@pytest.mark.parametrize("replicas", [1, 3])
async def test_each_writing_of_a_leader_is_broadcast_and_no_refused_one(
    node: Nodes, cluster: Nodes, market: str, replicas: int
) -> None:
    nodes = node if replicas == 1 else cluster
    changed = asyncio.Event()
    count = 0

    def on_change() -> None:
        nonlocal count
        count += 1
        changed.set()

    async with requester_on(nodes) as requester, connected(nodes) as client:
        own = JetStreamLeases(requester)
        listener = await own.watch(client, on_change)
        # Until the nodes of a cluster have told each other of the subscription.
        revision = 0
        async with asyncio.timeout(LONG_S):
            while not changed.is_set():
                revision = await named(own, market, "s1", after=revision)
                await asyncio.sleep(0.05)
        count = 0

        assert await own.name(market, leading("s2"), after=0) is None
        await own.renew(living(f"{market}-s1"))
        for _ in range(3):
            changed.clear()
            revision = await named(own, market, "s2", after=revision)
            async with asyncio.timeout(LONG_S):
                await changed.wait()
        await asyncio.sleep(0.05)

        assert count == 3
        await listener.stop()


async def test_bucket_that_is_not_broadcast_differs(node: Nodes) -> None:
    async with requester_on(node), connected(node) as client:
        silent = structs.replace(topology.bucket(LEADERS_BUCKET), republish_to=None)
        with pytest.raises(TopologyDiffers) as raised:
            await topology.make(client, silent, replicas=1)

        assert raised.value.differences == [
            "republish expected None, found "
            f"('$KV.{LEADERS_BUCKET}.>', '{leases(LEADERS_BUCKET)}.>')"
        ]


async def test_of_twelve_on_three_nodes_one_is_named_and_nothing_else_is_written(
    cluster: Nodes, market: str
) -> None:
    """Each over a connection of its own, to whichever node."""
    async with requester_on(cluster) as requester:
        watcher = JetStreamLeases(requester)
        await watcher.news()
        after = 0
        for index in range(30):
            revisions = await asyncio.gather(
                *(_name_on(cluster, n % 3, market, f"s{n}", after=after) for n in range(12))
            )

            ((winner, revision),) = [
                (n, found) for n, found in enumerate(revisions) if found is not None
            ]
            _, leaders = await news_of(watcher, market)
            assert leaders == [LeaderNews(market, revision, leading(f"s{winner}"))]
            assert revision > after
            # Whatever was refused took no revision either.
            assert index == 0 or revision == after + 1
            after = revision


async def _name_on(nodes: Nodes, index: int, market: str, server: str, *, after: int) -> int | None:
    async with connected(nodes, index=index) as client:
        requester = await Requester.start(client)
        try:
            return await JetStreamLeases(requester).name(market, leading(server), after=after)
        finally:
            await requester.close()


async def is_answered(writing: Awaitable[None]) -> bool:
    """Wait for a writing, and tell whether it was confirmed."""
    try:
        await writing
    except LogUnavailable:
        return False
    return True


@pytest.mark.parametrize("how", ["paused", "killed"])
async def test_leases_are_unavailable_without_a_node_and_complete_after_its_return(
    tmp_path: Path, market: str, how: str
) -> None:
    async with running(tmp_path) as nodes, requester_on(nodes) as requester:
        own, reader = JetStreamLeases(requester), JetStreamLeases(requester)
        await reader.news()
        await own.renew(living(f"{market}-s1"))
        revision = await named(own, market, "s1")

        if how == "paused":
            nodes.pause()
        else:
            await nodes.kill()
        # It may take a few more before it stops.
        while await is_answered(own.renew(living(f"{market}-s2"))):
            pass
        with pytest.raises(LogUnavailable):
            await reader.news()
        with pytest.raises(LogUnavailable):
            await own.name(f"{market}-2", leading("s1"), after=0)
        if how == "paused":
            nodes.resume()
        else:
            await nodes.restart()

        async with asyncio.timeout(LONG_S):
            while True:
                try:
                    servers, leaders = await news_of(reader, market)
                except LogUnavailable:
                    await asyncio.sleep(0.02)
                else:
                    break
        # What was unanswered may have been written.
        assert servers[0].record == living(f"{market}-s1")
        assert leaders[0] == LeaderNews(market, revision, leading("s1"))


async def test_reading_ends_and_misses_nobody_while_others_write_without_a_pause(
    node: Nodes, market: str
) -> None:
    async with requester_on(node) as requester, requester_on(node) as other:
        reader, writer = JetStreamLeases(requester), JetStreamLeases(other)
        names = [f"{market}-s{n}" for n in range(12)]
        for name in names:
            await writer.renew(living(name))
        await reader.news()
        is_over = False

        async def renew(name: str) -> None:
            while not is_over:
                await writer.renew(living(name))

        async with asyncio.TaskGroup() as writers:
            for name in names:
                writers.create_task(renew(name))
            revisions = dict.fromkeys(names, 0)
            for _ in range(20):
                # Each has written since the last reading.
                await asyncio.gather(*(writer.renew(living(name)) for name in names))
                async with asyncio.timeout(LONG_S):
                    servers, _ = await news_of(reader, market)
                assert sorted(found.server for found in servers) == sorted(names)
                for found in servers:
                    assert found.revision > revisions[found.server]
                    revisions[found.server] = found.revision
            is_over = True


async def test_buckets_are_read_from_their_leaders_alone(node: Nodes) -> None:
    """Another replica may be behind, and show a living server's record unchanged."""
    async with requester_on(node), connected(node) as client:
        for name in (LEADERS_BUCKET, SERVERS_BUCKET):
            info = await client.jsm().stream_info(topology.bucket_stream(name))

            assert not info.config.allow_direct
