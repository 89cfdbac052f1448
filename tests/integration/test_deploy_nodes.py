"""Nodes as processes: ready when they say so, and back with their data after any end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import nats
import nats.js.errors
import pytest

from deploy import nodes
from deploy.nodes import NodeProcess, NodeSettings


@pytest.fixture
async def ended_after() -> AsyncIterator[AsyncExitStack]:
    """Where a test puts what must be ended after it."""
    async with AsyncExitStack() as stack:
        yield stack


def start(settings: NodeSettings, ended_after: AsyncExitStack) -> NodeProcess:
    node = nodes.start(settings)
    ended_after.push_async_callback(node.stop, graceful=False)
    return node


async def until_done(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await ask()
            except nats.js.errors.Error:
                await asyncio.sleep(0.05)
            else:
                return


async def make_stream(url: str, *, replicas: int) -> None:
    client = await nats.connect(url)
    try:
        # Right after its election a leader may take another node for one that is offline, and a
        # new stream may not have elected its own leader yet (2.15.1).
        await until_done(
            lambda: client.jetstream().add_stream(name="S", subjects=["s"], num_replicas=replicas)
        )
        await until_done(lambda: client.jetstream().publish("s", b"kept"))
    finally:
        await client.close()


async def kept(url: str) -> bytes | None:
    client = await nats.connect(url)
    try:
        return (await client.jetstream().get_msg("S", 1)).data
    finally:
        await client.close()


async def test_ready_node_takes_a_stream_and_has_it_after_sigkill(
    tmp_path: Path, ended_after: AsyncExitStack
) -> None:
    """What it confirmed is there; what a machine keeps without power this cannot tell (G2)."""
    (port,) = nodes.free_ports(1)
    node = start(nodes.alone(tmp_path, port=port), ended_after)
    await nodes.wait_until_ready([node])
    await make_stream(node.url, replicas=1)

    await node.stop(graceful=False)
    assert not node.is_running()
    again = start(node.settings, ended_after)
    await nodes.wait_until_ready([again])

    assert await kept(again.url) == b"kept"


async def test_ready_cluster_takes_a_stream_with_three_replicas_and_keeps_it(
    tmp_path: Path, ended_after: AsyncExitStack
) -> None:
    ports = nodes.free_ports(6)
    settings = nodes.cluster(tmp_path, client_ports=ports[:3], cluster_ports=ports[3:])
    cluster = [start(each, ended_after) for each in settings]
    await nodes.wait_until_ready(cluster)
    await make_stream(cluster[0].url, replicas=3)

    await cluster[0].stop()
    cluster[0] = start(cluster[0].settings, ended_after)
    await nodes.wait_until_ready(cluster)

    assert await kept(cluster[0].url) == b"kept"


async def test_paused_node_is_not_ready_and_is_again_when_it_goes_on(
    tmp_path: Path, ended_after: AsyncExitStack
) -> None:
    (port,) = nodes.free_ports(1)
    node = start(nodes.alone(tmp_path, port=port), ended_after)
    await nodes.wait_until_ready([node])

    node.pause()
    with pytest.raises(nodes.NodeNotReady, match="JetStream does not answer"):
        await nodes.wait_until_ready([node], timeout_s=0.1)
    node.resume()

    await nodes.wait_until_ready([node])


async def test_node_whose_port_is_taken_is_not_ready_and_its_log_says_why(
    tmp_path: Path, ended_after: AsyncExitStack
) -> None:
    (port,) = nodes.free_ports(1)
    first = start(nodes.alone(tmp_path / "1", port=port, name="first"), ended_after)
    await nodes.wait_until_ready([first])

    second = start(nodes.alone(tmp_path / "2", port=port, name="second"), ended_after)
    with pytest.raises(nodes.NodeNotReady, match="address already in use") as raised:
        await nodes.wait_until_ready([second])

    assert str(raised.value).startswith(f"the NATS node second at nats://127.0.0.1:{port} is not")
