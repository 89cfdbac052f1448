"""Connections through what happens to nodes: refused, killed, and stopped with data unsent."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from deploy import nodes
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, ConnectionOptions, Credentials
from dex_runtime.messaging import NoReply, NoResponder, Requester
from tests.nats_nodes import Nodes, connected, doors, running

LONG_S = 60.0


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Nodes, Nodes]]:
    """Run two nodes that do not know each other."""
    async with running(tmp_path / "a") as first, running(tmp_path / "b") as second:
        yield first, second


async def test_first_connection_that_fails_says_so() -> None:
    (port,) = nodes.free_ports(1)
    options = ConnectionOptions(
        servers=(f"nats://{nodes.HOST}:{port}",), name="test", first_connection_timeout_s=0.1
    )

    with pytest.raises(CannotConnect, match=f"{port}.*Connect call failed"):
        await connection.connect(options)


async def test_wrong_password_is_refused_at_once(tmp_path: Path) -> None:
    (port,) = nodes.free_ports(1)
    guarded = structs.replace(
        nodes.alone(tmp_path, port=port), extra='authorization { user: "u", password: "p" }'
    )
    node = nodes.start(guarded)
    right = ConnectionOptions(
        servers=(node.url,),
        name="test",
        credentials=Credentials(user="u", password="p"),
        first_connection_timeout_s=LONG_S,
    )
    try:
        await connection.close(await connection.connect(right))

        with pytest.raises(CannotConnect, match="Authorization"):
            await connection.connect(
                structs.replace(right, credentials=Credentials(user="u", password="wrong"))
            )
    finally:
        await node.stop(graceful=False)


async def test_connection_comes_back_with_its_node_and_says_so(tmp_path: Path) -> None:
    lost, back = asyncio.Event(), asyncio.Event()
    async with running(tmp_path) as node:
        options = ConnectionOptions(
            servers=node.urls, name="test", credentials=doors().role("server")
        )
        client = await connection.connect(
            options, on_disconnected=lost.set, on_reconnected=back.set
        )
        requester = await Requester.start(client)
        async with asyncio.timeout(LONG_S):
            await node.kill()
            await lost.wait()
            with pytest.raises(NoResponder):
                await requester.request("test.any", b"", timeout_s=LONG_S)
            await node.restart()
            await back.wait()
        await requester.round_trip(timeout_s=LONG_S)
        await connection.close(client)


async def test_tight_loop_of_requests_does_not_keep_a_connection_from_coming_back(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as node, connected(node) as client:
        requester = await Requester.start(client)
        await node.kill()
        returning = asyncio.create_task(node.restart())

        async with asyncio.timeout(LONG_S):
            while True:
                try:
                    await requester.round_trip(timeout_s=1.0)
                    break
                except (NoResponder, NoReply):
                    continue

        await returning


async def test_node_that_stopped_with_data_unsent_is_left_and_nothing_is_sent_late(
    pair: tuple[Nodes, Nodes],
) -> None:
    """nats.py issue 671, and what it would do then: deliver old orders to the next node."""
    first, second = pair
    heard: list[int] = []
    back = asyncio.Event()

    async def hear(message: object) -> None:
        heard.append(1)

    async with connected(second) as listener:
        await listener.subscribe("test.flood", cb=hear)
        ears = await Requester.start(listener)
        await ears.round_trip(timeout_s=LONG_S)
        # Connected to the first node for sure, and aware of the second.
        client = await connection.connect(
            ConnectionOptions(servers=first.urls, name="test", credentials=doors().role("server")),
            on_reconnected=back.set,
        )
        client.set_server_pool(list(first.urls + second.urls))
        first.pause()
        for _ in range(200):
            await client.publish("test.flood", bytes(100_000))
            await asyncio.sleep(0)
        async with asyncio.timeout(LONG_S):
            await back.wait()
        requester = await Requester.start(client)
        await requester.round_trip(timeout_s=LONG_S)
        await ears.round_trip(timeout_s=LONG_S)
        await connection.close(client)

    assert heard == []


async def test_connection_to_a_stopped_node_can_be_closed(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        client = await connection.connect(
            ConnectionOptions(servers=node.urls, name="test", credentials=doors().role("server"))
        )
        await Requester.start(client)
        node.pause()
        for _ in range(100):
            await client.publish("test.flood", bytes(100_000))
            await asyncio.sleep(0)
        before = time.monotonic()

        await connection.close(client)

        # Not a measurement: without an end of its own it would wait until the node goes on.
        assert time.monotonic() - before < LONG_S
        assert client.is_closed


async def test_connection_that_breaks_while_it_is_closed_is_closed() -> None:
    """Whichever step of the library's own reconnection the closing falls into."""
    broken: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broken.append(writer)
        writer.write(b'INFO {"server_id":"N","version":"2.15.1","max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")

    async def serve_until_broken(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            return

    node = await asyncio.start_server(serve_until_broken, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{node.sockets[0].getsockname()[1]}"
    try:
        for steps in [step for step in range(16) for _ in range(8)]:
            client = await connection.connect(
                ConnectionOptions(servers=(url,), name="test", credentials=doors().role("server"))
            )
            while broken:
                broken.pop().transport.abort()
            for _ in range(steps):
                await asyncio.sleep(0)

            await connection.close(client)

            assert client.is_closed
    finally:
        node.close()
