"""What only the real one does: outages, refused broadcasts, and the quirks the adapters avoid."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs
from nats.aio.client import Client
from nats.aio.msg import Msg

from dex_protocol import subjects
from dex_protocol.codec import hash_of
from dex_runtime import topology
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_runtime.topology import TopologyDiffers
from dex_server.jetstream import api
from dex_server.jetstream.log import JetStreamLog
from dex_server.jetstream.markets import Directory
from dex_server.jetstream.snapshots import JetStreamSnapshots
from dex_server.replication.ports import Position, SnapshotInvalid, SnapshotName, Undecided
from tests.contracts.log_contract import BEGINNING, after, contents, filled, said_to
from tests.contracts.snapshot_contract import named
from tests.nats_nodes import Nodes, connected, make, running

LONG_S = 60.0
"""More than anything here takes; only a broken test waits so long."""


@pytest.fixture
async def requester(client: Client) -> AsyncIterator[Requester]:
    """Ask over the connection to the one node."""
    requester = await Requester.start(client)
    yield requester
    await requester.close()


@pytest.fixture
async def log(client: Client, requester: Requester, market: str) -> JetStreamLog:
    """Make a log on the one node."""
    await topology.make_log(client, market, replicas=1)
    return JetStreamLog(requester, market)


@asynccontextmanager
async def log_on(nodes: Nodes, market: str, **options: float) -> AsyncIterator[JetStreamLog]:
    """Make a log on other nodes, over a connection of its own."""
    async with connected(nodes) as client:
        await make(client, topology.log_of(market), replicas=nodes.replicas)
        requester = await Requester.start(client)
        yield JetStreamLog(requester, market, **options)
        await requester.close()


async def settle(log: JetStreamLog, payload: bytes, *, place: Position) -> bool:
    """Do as a leader does after an unknown outcome: look, and send again while nothing stands.

    Returns whether what stands are its own bytes.
    """
    async with asyncio.timeout(LONG_S):
        while True:
            if await said_to(log.append(payload, after=place)) == "stored":
                return True
            try:
                found = await log.entry(place.sequence + 1)
            except api.LogUnavailable:
                continue
            if found is not None:
                return found.payload == payload


@pytest.mark.parametrize("replicas", [1, 3])
async def test_broadcast_shows_the_stored_commits_in_order_and_no_refused_one(
    node: Nodes, cluster: Nodes, market: str, replicas: int
) -> None:
    """On one node, and on three (G11)."""
    nodes = node if replicas == 1 else cluster
    heard: list[Msg] = []
    all_heard = asyncio.Event()

    async def hear(message: Msg) -> None:
        heard.append(message)
        if message.data == b"last":
            all_heard.set()

    async with log_on(nodes, market) as log, connected(nodes) as listener:
        await listener.subscribe(subjects.events(market), cb=hear)
        await heard_from_every_node(nodes, subjects.events(market), heard)

        stored = await filled(log, 20)
        await said_to(log.append(b"refused", after=after(19, stored[18])))
        await said_to(log.append(b"refused", after=Position(20, hash_of(b"another"))))
        await said_to(log.append(stored[19], after=after(19, stored[18])))
        await log.append(b"last", after=after(20, stored[19]))
        async with asyncio.timeout(LONG_S):
            await all_heard.wait()

    commits = [message for message in heard if message.data != b"probe"]
    assert [message.data for message in commits] == [*stored, b"last"]
    sequences = [(message.headers or {})["Nats-Sequence"] for message in commits]
    assert sequences == [str(sequence) for sequence in range(1, 22)]


async def heard_from_every_node(nodes: Nodes, subject: str, heard: list[Msg]) -> None:
    """Wait until the nodes of a cluster have told each other of a subscription."""
    async with asyncio.timeout(LONG_S):
        for index in range(nodes.replicas):
            before = len(heard)
            async with connected(nodes, index=index) as speaker:
                while len(heard) == before:
                    await speaker.publish(subject, b"probe")
                    await asyncio.sleep(0.01)


async def test_append_to_a_paused_node_is_undecided_until_something_stands(
    tmp_path: Path, market: str
) -> None:
    """No answer is no confirmation, and no refusal (G1)."""
    async with running(tmp_path) as nodes, log_on(nodes, market, append_timeout_s=0.2) as log:
        stored = await filled(log, 1)
        nodes.pause()
        # It may take a few more before it stops.
        while await said_to(log.append(own(stored), after=end_of(stored))) == "stored":
            stored.append(own(stored))
        nodes.resume()

        assert await settle(log, own(stored), place=end_of(stored))
        assert await contents(log) == [*stored, own(stored)]


def end_of(stored: list[bytes]) -> Position:
    """Name the place of the last entry."""
    return after(len(stored), stored[-1])


def own(stored: list[bytes]) -> bytes:
    """Make the next entry's bytes, which no other entry has."""
    return b"own %d" % len(stored)


async def test_append_to_a_killed_node_is_undecided_and_stored_after_its_return(
    tmp_path: Path, market: str
) -> None:
    """What was stored before it was killed is there again (G1, G2)."""
    async with running(tmp_path) as nodes, log_on(nodes, market, append_timeout_s=0.2) as log:
        stored = await filled(log, 3)
        await nodes.kill()
        with pytest.raises(Undecided):
            await log.append(b"own", after=after(3, stored[2]))
        await nodes.restart()

        assert await settle(log, b"own", place=after(3, stored[2]))
        assert await contents(log) == [*stored, b"own"]


async def test_resend_after_the_window_of_duplicates_is_not_stored_twice(
    client: Client, requester: Requester, market: str
) -> None:
    """Ids are forgotten; the sequence is what fences (G3)."""
    short = structs.replace(topology.log_of(market), duplicate_window_s=0.1)
    await topology.make(client, short, replicas=1)
    log = JetStreamLog(requester, market)
    stored = await filled(log, 2)
    await asyncio.sleep(0.5)

    assert await said_to(log.append(stored[1], after=after(1, stored[0]))) == "undecided"
    assert await said_to(log.append(stored[0], after=BEGINNING)) == "undecided"
    await log.append(b"next", after=after(2, stored[1]))

    assert await contents(log) == [*stored, b"next"]


async def test_replicated_resend_within_the_window_is_confirmed(
    cluster: Nodes, market: str
) -> None:
    async with log_on(cluster, market) as log:
        stored = await filled(log, 2)

        assert await said_to(log.append(stored[1], after=after(1, stored[0]))) == "stored"


async def test_wrong_last_msg_id_still_stops_a_replicated_stream(
    cluster: Nodes, market: str
) -> None:
    """Why the hash of the predecessor is not checked by JetStream (nats-server 2.14 to 2.15.1).

    When this fails, NATS has mended it: see dex_server/jetstream/log.py.
    """
    async with connected(cluster) as client:
        stream = topology.log_of(market)
        await make(client, stream, replicas=3)
        requester = await Requester.start(client)
        await api.publish(requester, subjects.log(market), b"one", headers={"Nats-Msg-Id": "1"})

        refused = await api.publish(
            requester,
            subjects.log(market),
            b"two",
            headers={"Nats-Expected-Last-Msg-Id": "stranger"},
        )
        with pytest.raises((NoReply, NoResponder)):
            await api.publish(requester, subjects.log(market), b"two", headers={}, timeout_s=1.0)

        assert refused.error is not None
        assert refused.error.err_code == 10070
        await client.jsm().delete_stream(stream.name)


async def test_log_stays_whole_when_a_server_dies_between_append_and_answer(
    log: JetStreamLog, requester: Requester, market: str
) -> None:
    """The append that was given up lands, or does not; what follows respects it (G11)."""
    (first,) = await filled(log, 1)
    append = asyncio.create_task(log.append(b"given up", after=after(1, first)))
    await asyncio.sleep(0)
    append.cancel()
    await asyncio.wait([append])
    successor = JetStreamLog(requester, market)

    is_own = await settle(successor, b"successor", place=after(1, first))

    expected = b"successor" if is_own else b"given up"
    assert await contents(successor) == [first, expected]


async def test_single_entries_cannot_be_deleted(
    client: Client, log: JetStreamLog, market: str
) -> None:
    """Not even with the servers' key, which may purge (G2)."""
    stored = await filled(log, 3)

    with pytest.raises(Exception, match="delete not permitted"):
        await client.jsm().delete_msg(subjects.log_stream(market), 2)

    assert await contents(log) == stored


async def test_topology_is_made_once_and_kept_and_differences_are_named(
    client: Client, market: str
) -> None:
    for _ in range(2):
        await topology.make_shared(client, replicas=1)
        await topology.make_log(client, market, replicas=1)

    silent = structs.replace(topology.log_of(market), republish_to=None)
    with pytest.raises(TopologyDiffers) as raised:
        await topology.make(client, silent, replicas=1)
    assert len(raised.value.differences) == 1
    assert "republish" in raised.value.differences[0]


async def test_snapshot_whose_chunks_are_gone_is_invalid(
    client: Client, requester: Requester, market: str
) -> None:
    """It counts as a damaged one (G17)."""
    await topology.make_shared(client, replicas=1)
    snapshots = JetStreamSnapshots(requester)
    name = named(market, 1, b"state")
    await snapshots.save(name, b"state")
    (stored,) = [
        info
        for info in await (await client.jetstream().object_store("DEX-SNAPSHOTS")).list()
        if info.name.startswith(f"{market}.")
    ]
    await api.purge(requester, "OBJ_DEX-SNAPSHOTS", {"filter": f"$O.DEX-SNAPSHOTS.C.{stored.nuid}"})

    with pytest.raises(SnapshotInvalid):
        await snapshots.load(name)
    await snapshots.remove(name)
    assert await snapshots.names(market) == []


async def test_snapshot_is_an_ordinary_object_to_other_clients(
    client: Client, requester: Requester, market: str
) -> None:
    """And theirs among ours are passed over."""
    await topology.make_shared(client, replicas=1)
    store = await client.jetstream().object_store("DEX-SNAPSHOTS")
    data = bytes(range(256)) * 2000
    name: SnapshotName = named(market, 7, data)
    snapshots = JetStreamSnapshots(requester)
    await store.put(f"notes about {market}", b"somebody's")
    await store.put(f"{market}.7.{name.position.hash}.{name.hash}.{name.digest}", b"of five parts")

    await snapshots.save(name, data)

    ours = [info for info in await store.list() if info.name.startswith(f"{market}.")]
    (info,) = [info for info in ours if info.name.endswith(f".{name.state}")]
    assert (await store.get(info.name)).data == data
    assert await snapshots.names(market) == [name]


async def test_first_to_open_a_market_decides_what_it_is(
    client: Client, requester: Requester, market: str
) -> None:
    await topology.make_shared(client, replicas=1)
    directory = Directory(requester)
    offers = [b"%d" % number for number in range(8)]

    answers = await asyncio.gather(*(directory.open(market, offer) for offer in offers))

    assert len(set(answers)) == 1
    assert answers[0] in offers
    assert await directory.open(market, b"another") == answers[0]


async def test_market_that_was_deleted_from_the_directory_can_be_opened(
    client: Client, requester: Requester, market: str
) -> None:
    await topology.make_shared(client, replicas=1)
    directory = Directory(requester)
    await directory.open(market, b"first")
    await (await client.jetstream().key_value("DEX-MARKETS")).delete(market)

    assert await directory.open(market, b"second") == b"second"


async def test_news_are_the_markets_that_exist_and_then_new_ones(
    client: Client, requester: Requester, market: str
) -> None:
    await topology.make_shared(client, replicas=1)
    directory = Directory(requester)
    await directory.open(f"{market}-1", b"one")

    assert (f"{market}-1", b"one") in await directory.news()
    assert await directory.news() == []

    await directory.open(f"{market}-2", b"two")

    assert await directory.news() == [(f"{market}-2", b"two")]


async def test_copies_are_as_many_as_were_chosen_when_a_stream_was_made(
    cluster: Nodes, market: str
) -> None:
    async with connected(cluster) as client:
        stream = topology.log_of(market)

        await make(client, stream, replicas=3)
        # Whoever asks for fewer learns how many there are, and changes nothing.
        assert await topology.make(client, stream, replicas=1) == 3
        assert await topology.make(client, stream, replicas=3) == 3
