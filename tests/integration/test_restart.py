"""Whatever ends and comes back, no acknowledged order is lost, and none is executed twice
(G2, G3).

The load generator keeps sending meanwhile, as a peer would, and verifies in the end: each order
that was acknowledged is in the log exactly once, and the log is what its receipts say.
"""

import json
import signal
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from tests.integration.programs import Exchange, exchange
from tests.nats_nodes import connected, running

LONG = ("--orders", "4000", "--rate", "2000", "--in-flight", "64", "--peers", "2")
"""Two seconds of load at least: what a test does to the exchange happens in the middle of it."""

SHORT = ("--orders", "300", "--in-flight", "16")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Exchange]:
    """Run a node that the test may hurt, for its own servers and clients."""
    async with running(tmp_path / "node") as nodes, exchange(nodes, tmp_path) as place:
        yield place


# --- The server ---------------------------------------------------------------------------------


async def test_server_that_is_killed_under_load_goes_on_where_it_was(
    place: Exchange, market: str
) -> None:
    server = place.server()
    await place.open(market)
    load = place.load(market, *LONG)
    await place.reaches(market, 20)

    await server.killed()
    assert load.program.is_running
    place.server()

    report = await load.verified()
    assert report["orders"] == 4_000
    assert (await place.status(market))["term"] == 2


async def test_server_told_to_stop_under_load_answers_and_loses_nothing(
    place: Exchange, market: str
) -> None:
    """The load goes on with the server that is started next (G18)."""
    server = place.server()
    await place.open(market)
    load = place.load(market, *LONG)
    await place.reaches(market, 20)

    assert await server.terminated() == 0
    assert load.program.is_running
    assert "stopping with a commit under way" not in server.printed
    place.server()

    await load.verified()


async def test_log_is_read_again_as_a_whole_without_snapshots(place: Exchange, market: str) -> None:
    server = place.server()
    await place.open(market)
    await place.load(market, *SHORT).verified()
    before = await place.status(market)
    await server.terminated()

    place.server()
    await place.reaches_term(market, 2)
    after = await place.status(market, min_sequence=before["sequence"] + 1)

    assert after["digest"] == before["digest"]
    assert (after["term"], after["sequence"]) == (2, before["sequence"] + 1)
    await place.load(market, *SHORT, report="again.json").verified()


# --- Snapshots ----------------------------------------------------------------------------------


async def with_snapshots(place: Exchange, market: str) -> tuple[dict[str, Any], list[int]]:
    """Leave a market with some load in it and snapshots of it; give its status, and where."""
    server = place.server("--snapshot-commits", "20")
    await place.open(market)
    await place.load(market, "--orders", "600", "--in-flight", "4").verified()
    # The newest may still be being written; it is not while nothing happens.
    status = await place.status(market)
    await server.terminated()
    return status, await snapshots(place, market)


async def snapshots(place: Exchange, market: str) -> list[int]:
    """Tell after which commits there are snapshots, oldest first."""
    async with connected(place.nodes) as client:
        store = await client.jetstream().object_store("DEX-SNAPSHOTS")
        names = [info.name or "" for info in await store.list()]
    return sorted(int(name.split(".")[1]) for name in names if name.startswith(f"{market}."))


async def trim(place: Exchange, market: str, first: int) -> None:
    """Remove the log's beginning, as an operator may: what is left needs a snapshot."""
    async with connected(place.nodes) as client:
        await client.jsm().purge_stream(f"DEX-LOG-{market}", seq=first)


async def damage_snapshot(place: Exchange, market: str, sequence: int) -> None:
    """Put other bytes in a snapshot's place, as many, so that only its hash tells."""
    async with connected(place.nodes) as client:
        store = await client.jetstream().object_store("DEX-SNAPSHOTS")
        (info,) = [
            info
            for info in await store.list()
            if (info.name or "").startswith(f"{market}.{sequence}.")
        ]
        chunks = f"$O.DEX-SNAPSHOTS.C.{info.nuid}"
        await client.jsm().purge_stream("OBJ_DEX-SNAPSHOTS", subject=chunks)
        await client.jetstream().publish(chunks, b"?" * (info.size or 0))


async def test_restart_from_a_snapshot_needs_only_the_log_behind_it(
    place: Exchange, market: str
) -> None:
    """The log before it is gone (G17)."""
    before, sequences = await with_snapshots(place, market)
    await trim(place, market, sequences[-1])

    place.server()
    await place.reaches_term(market, 2)
    after = await place.status(market, min_sequence=before["sequence"] + 1)

    assert after["digest"] == before["digest"]
    assert after["term"] == 2
    assert (await place.first_in_log(market))["sequence"] == sequences[-1]
    await place.load(market, *SHORT, report="again.json").verified()


async def test_restart_with_a_damaged_snapshot_takes_the_older_one(
    place: Exchange, market: str
) -> None:
    """Its hash is all that shows the damage (G17)."""
    before, sequences = await with_snapshots(place, market)
    await trim(place, market, sequences[-2])
    await damage_snapshot(place, market, sequences[-1])

    server = place.server()
    await place.reaches_term(market, 2)
    after = await place.status(market, min_sequence=before["sequence"] + 1)

    assert after["digest"] == before["digest"]
    assert f"snapshot {sequences[-1]} cannot be used" in server.printed
    await place.load(market, *SHORT, report="again.json").verified()


# --- NATS ---------------------------------------------------------------------------------------


async def test_node_that_is_killed_under_load_and_comes_back_has_everything(
    place: Exchange, market: str
) -> None:
    """The node syncs every message to disk; server and client go on by themselves (G18)."""
    server = place.server()
    await place.open(market)
    load = place.load(market, *LONG)
    await place.reaches(market, 20)

    await place.nodes.kill()
    await place.nodes.restart()

    await load.verified()
    assert server.is_running
    assert await server.terminated() == 0


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("load", [(), LONG], ids=["idle", "under load"])
async def test_server_told_to_stop_without_nats_ends_well(
    place: Exchange, market: str, how: str, load: tuple[str, ...]
) -> None:
    """There is nobody to hand over to, and nothing to wait for (G18)."""
    server = place.server()
    await place.open(market)
    if load:
        place.load(market, *load)
        await place.reaches(market, 20)

    if how == "stopped":
        place.nodes.pause()
    else:
        await place.nodes.kill()

    assert await server.terminated() == 0, server.printed


async def test_server_told_to_stop_while_it_waits_for_nats_ends_well(
    place: Exchange, market: str
) -> None:
    place.nodes.pause()
    server = place.server()
    await server.prints("waiting for NATS")

    assert await server.terminated() == 0, server.printed
    place.nodes.resume()
    place.server()
    assert await place.open(market) == 1


# --- Two servers --------------------------------------------------------------------------------


async def test_two_servers_of_one_market_lose_and_double_nothing(
    place: Exchange, market: str
) -> None:
    """Each is held up until the other leads, and then goes on in the belief that it leads itself:
    the log takes what follows on its end, and nothing else (G11, G13)."""
    first = place.server()
    await place.open(market)
    second = place.server(name="server-2")
    await second.prints("caught up")
    load = place.load(market, *LONG)
    await place.reaches(market, 20)

    first.send(signal.SIGSTOP)
    await place.reaches_term(market, 2)
    first.send(signal.SIGCONT)
    await first.prints("leads no more")
    second.send(signal.SIGSTOP)
    await place.reaches_term(market, 3)
    second.send(signal.SIGCONT)

    await load.verified()
    payloads = await place.log(market)
    commits = [json.loads(payload) for payload in payloads]
    leaders = {
        event["term"]: (event["server"], commit["sequence"])
        for commit in commits
        for event in commit["events"]
        if event["event"] == "leader_changed"
    }
    terms = [commit["term"] for commit in commits]
    assert terms == sorted(terms)
    assert list(leaders) == sorted(set(terms)) == list(range(1, terms[-1] + 1))
    assert {server for server, _ in leaders.values()} == {"server-1", "server-2"}
    hashes = [blake2b(payload, digest_size=16).hexdigest() for payload in payloads]
    assert [commit["previous"] for commit in commits] == ["0" * 32, *hashes[:-1]]
    assert await first.terminated() == 0
    assert await second.terminated() == 0
