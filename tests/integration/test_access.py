"""Peers are let in, get another key, and are let in no more, while others trade."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import structs

from deploy.conversation import conversation
from deploy.embedded import Embedded, cluster
from deploy.nodes import NodeNotReady
from dex_client import Credentials, Exchange, Receipt, connect
from dex_client.errors import OutcomeUnknown, Unavailable, Unreachable
from dex_runtime.keys import peer_file
from tests.integration.programs import PATIENCE_S

MARKET = "BTC-USD"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange() -> AsyncIterator[Embedded]:
    """Run three nodes and a server."""
    async with cluster([MARKET], server_count=1, say=lambda _: None) as exchange:
        yield exchange


@asynccontextmanager
async def at_each_node(
    exchange: Embedded, peer: str, credentials: Credentials
) -> AsyncIterator[list[Exchange]]:
    """Be a peer with a connection to each node."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(connect([url], peer=peer, credentials=credentials))
            for url in exchange.urls
        ]


async def bought(by: Exchange, *, deadline_s: float = PATIENCE_S) -> Receipt:
    """Place an order that rests. Who may not gets no better by waiting: a node that was told does
    not read its accounts again."""
    return await by.submit(MARKET, side="buy", quantity="0.01", price="1", deadline_s=deadline_s)


@asynccontextmanager
async def others_trade(exchange: Embedded) -> AsyncIterator[None]:
    """Have another peer trade at each node meanwhile, every order of which is accepted."""
    names = ("load-1", "load-2", "load-3")
    receipts: list[Receipt] = []
    has_ended = asyncio.Event()

    async def trade(peer: Exchange) -> None:
        while not has_ended.is_set():
            receipts.append(await peer.submit(MARKET, side="buy", quantity="0.01", price="2"))
            receipts.append(await peer.submit(MARKET, side="sell", quantity="0.01", price="2"))

    async with AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(
                connect([url], peer=name, credentials=exchange.doors.peer(name))
            )
            for url, name in zip(exchange.urls, names, strict=True)
        ]
        async with asyncio.TaskGroup() as tasks:
            for peer in peers:
                tasks.create_task(trade(peer))
            async with asyncio.timeout(PATIENCE_S):
                yield
            has_ended.set()

    assert len(receipts) > 0
    assert not [receipt for receipt in receipts if receipt.status == "rejected"]


async def test_peer_comes_gets_another_key_and_goes_while_others_trade(
    exchange: Embedded, tmp_path: Path
) -> None:
    """What is told counts at every node as soon as it was told."""
    doors = exchange.doors
    old = tmp_path / "old.nk"
    async with others_trade(exchange):
        doors.keyring.add("alice")
        await doors.tell(exchange.nodes)
        alice = doors.peer("alice")
        async with at_each_node(exchange, "alice", alice) as connections:
            for each in connections:
                assert (await bought(each)).status == "new"

            shutil.copy(peer_file(doors.keyring.directory, "alice"), old)
            doors.keyring.rotate("alice")
            await doors.tell(exchange.nodes)
            # What has connected with the old key is cut at once; a peer that is about to notice
            # sends one more copy, which reaches nobody.
            for each in connections:
                with pytest.raises((Unavailable, OutcomeUnknown)):
                    await bought(each, deadline_s=1)

        with pytest.raises(Unreachable, match="refused the key in"):
            async with at_each_node(exchange, "alice", structs.replace(alice, nkey=str(old))):
                pass
        async with at_each_node(exchange, "alice", alice) as connections:
            for each in connections:
                receipt = await bought(each)
                assert receipt.status == "new"
            held = await connections[0].orders(MARKET, min_sequence=receipt.sequence)
            assert not isinstance(held, Receipt)
            # Three by the old key and three by the new one: none of those that were cut.
            assert len(held.orders) == 6
            shutil.copy(peer_file(doors.keyring.directory, "alice"), old)
            doors.keyring.remove("alice")
            await doors.tell(exchange.nodes)

        with pytest.raises(Unreachable, match="refused the key in"):
            async with at_each_node(exchange, "alice", structs.replace(alice, nkey=str(old))):
                pass


async def test_node_that_was_down_learns_at_its_start_who_is_let_in(exchange: Embedded) -> None:
    doors = exchange.doors
    await exchange.nodes[2].stop()
    doors.keyring.add("bob")
    await doors.tell(exchange.nodes[:2])

    await exchange.start_nodes()

    async with at_each_node(exchange, "bob", doors.peer("bob")) as connections:
        for each in connections:
            assert (await each.submit(MARKET, side="buy", quantity="0.01", price="1")).status == (
                "new"
            )


async def test_node_that_has_ended_cannot_be_told(exchange: Embedded) -> None:
    doors = exchange.doors
    await exchange.nodes[2].stop()

    with pytest.raises(NodeNotReady, match="nats-3"):
        await doors.tell(exchange.nodes)

    await exchange.start_nodes()


async def test_conversation_is_had_as_the_holder_of_a_key_or_as_nobody(
    exchange: Embedded,
) -> None:
    port = int(exchange.url.rpartition(":")[2])
    seed = peer_file(exchange.doors.keyring.directory, "default").read_bytes()

    async with conversation("127.0.0.1", port, seed=seed) as known:
        known.write(b"SUB dex.events.X 1\r\n")
        known_answer = await known.round_trip()
        known.write(b"SUB dex.log.X 2\r\n")
        refusal = await known.round_trip()
    async with conversation("127.0.0.1", port) as nobody:
        nobody_answer = await nobody.round_trip()

    assert known.greeting["server_name"] == "nats-1"
    assert known_answer == b"PONG\r\n"
    assert refusal.startswith(b"-ERR 'Permissions Violation for Subscription to")
    assert nobody_answer == b"-ERR 'Authorization Violation'\r\n"
