"""A server's connections end the server when NATS will not have them any more."""

import asyncio
from pathlib import Path

import pytest

from deploy import nodes
from dex_server.config import Config
from dex_server.connections import ConnectionLost, Connections
from dex_server.replication.replica import Settings
from tests.nats_nodes import Nodes, doors


def connections_to(where: Nodes, stop: asyncio.Event) -> Connections:
    config = Config(
        name="server-1",
        nats=where.urls,
        replicas=1,
        settings=Settings(),
        credentials=doors().role("server"),
    )
    return Connections(config, stop)


async def test_connection_that_is_closed_for_good_ends_the_server(node: Nodes) -> None:
    stop = asyncio.Event()
    connections = connections_to(node, stop)
    client = await connections.open("orders")
    assert client is not None

    # What the library does when a node sends the connection away.
    await client.close()

    assert stop.is_set()
    with pytest.raises(ConnectionLost, match="for orders"):
        await connections.close()


async def test_connections_that_the_server_closes_are_not_missed(node: Nodes) -> None:
    stop = asyncio.Event()
    connections = connections_to(node, stop)
    client = await connections.open("log")
    assert client is not None
    assert await connections.make_shared(client)

    await connections.close()

    assert client.is_closed
    assert not stop.is_set()


async def test_server_told_to_stop_waits_for_no_connection() -> None:
    stop = asyncio.Event()
    stop.set()
    nowhere = Nodes([nodes.alone(Path(), port=1)])

    assert await connections_to(nowhere, stop).open("log") is None
