"""A server's connections end the server when NATS will not have them any more."""

import asyncio

import pytest

from dex_server.config import Config
from dex_server.connections import ConnectionLost, Connections
from dex_server.replication.replica import Settings
from tests.nats_nodes import Nodes


def connections_to(nodes: Nodes, stop: asyncio.Event) -> Connections:
    config = Config(name="server-1", nats=nodes.urls, replicas=1, settings=Settings())
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
    config = Config(name="s", nats=("nats://127.0.0.1:1",), replicas=1, settings=Settings())

    assert await Connections(config, stop).open("log") is None
