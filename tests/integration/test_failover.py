"""Servers and NATS nodes that die, stand still and come back under load, three of each.

Whatever happens, each market goes on under another leader, one server for each term, and the load
generator finds every acknowledged order in the log once; so does the checker, of mixed commands.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from dex_client.link import linked
from dex_runtime.connection import ConnectionOptions
from tests.chaos.record import Record
from tests.chaos.traders import Peer, Settings
from tests.checker.checker import check
from tests.checker.history import End, History
from tests.integration.programs import (
    UNANSWERED,
    Exchange,
    Servers,
    asked,
    changes_of_leader,
    eventually,
    exchange,
)
from tests.nats_nodes import Callers, Nodes, calling, connected, doors, running, running_apart

NAMES = ("server-1", "server-2", "server-3")

BRIEF = ("--orders", "1000", "--rate", "1000", "--in-flight", "64", "--peers", "2")
"""Load for a moment at least: what a test does to the exchange happens in the middle of it."""

LONG = ("--orders", "4000", "--rate", "1000", "--in-flight", "64", "--peers", "2")


ENDURING = ("--orders", "3600", "--rate", "600", "--in-flight", "64", "--peers", "2")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Run three nodes, which a test may hurt if it heals them again."""
    async with running(tmp_path_factory.mktemp("failover"), count=3) as nodes:
        yield nodes


@pytest.fixture
async def place(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Exchange]:
    """Use them for one market alone, which therefore nobody hands over for balance."""
    async with exchange(nodes, tmp_path) as place:
        yield place
    await empty(nodes)


async def empty(nodes: Nodes) -> None:
    """Delete every stream, those of buckets included."""

    async def look() -> bool | None:
        try:
            async with connected(nodes) as client:
                jetstream = client.jsm()
                for info in await jetstream.streams_info():
                    await jetstream.delete_stream(info.config.name or "")
        except UNANSWERED:
            return None
        return True

    await eventually(look, what="the end of every stream")


@pytest.fixture
async def servers(place: Exchange) -> AsyncIterator[Servers]:
    """Run three servers, all of which are to run in the end."""
    servers = Servers(place, "--replicas", "3", "--snapshot-commits", "500")
    servers.start(*NAMES)
    yield servers

    assert servers.running == list(NAMES)
    for name in NAMES:
        assert "Traceback" not in servers[name].printed, servers[name].printed


@pytest.fixture
async def led(place: Exchange, servers: Servers, market: str) -> str:
    """Open the market, which one server leads and the others follow."""
    await place.open(market)
    await servers.agree(market)
    return market


# --- Servers ------------------------------------------------------------------------------------


async def test_leaders_that_are_killed_one_after_another_lose_and_double_nothing(
    place: Exchange, servers: Servers, led: str
) -> None:
    """Four in a row, each under load, each verified (G2, G3, G18)."""
    led_by = []
    for number in range(4):
        leader = await servers.agree(led)
        before = await place.status(led)
        load = place.load(led, *BRIEF, report=f"{led}-{number}.json")
        await place.reaches(led, before["sequence"] + 20)

        await servers[leader].killed()
        assert load.program.is_running
        led_by.append(leader)
        await servers.leader(led, other_than=leader)
        servers.start(leader)

        await load.verified()

    led_by.append(await servers.agree(led))
    # Each death has cost one change of leader, and each return none.
    assert changes_of_leader(await place.log(led)) == list(enumerate(led_by, start=1))


async def test_all_that_peers_saw_of_leaders_that_were_killed_is_true(
    place: Exchange, servers: Servers, led: str
) -> None:
    """Mixed commands, batches, resends and queries, all recorded and judged (G1, G3, G5, G7, G12,
    G14)."""
    names = ["load-1", "load-2", "load-3"]
    record, complaints = Record(lambda market, at: None), list[str]()
    settings = Settings(
        name="test",
        urls=list(place.nodes.urls),
        peers={name: doors().peer(name) for name in names},
        markets=[led],
        rate=60.0,
        seed=1,
    )
    has_stopped = asyncio.Event()
    async with AsyncExitStack() as links, asyncio.TaskGroup() as tasks:
        for name, credentials in settings.peers.items():
            options = ConnectionOptions(
                servers=place.nodes.urls, name=name, credentials=credentials
            )
            link = await links.enter_async_context(linked(options))
            peer = Peer(name, link, settings, record, complaints.append)
            tasks.create_task(peer.trade(has_stopped))
        for _ in range(2):
            leader = await servers.agree(led)
            before = await place.status(led)
            await place.reaches(led, before["sequence"] + 50)
            await servers[leader].killed()
            await servers.leader(led, other_than=leader)
            servers.start(leader)
        after = await place.status(led)
        await place.reaches(led, after["sequence"] + 50)
        has_stopped.set()

    async def look() -> History | None:
        log = await place.log(led)
        held = await servers.holding(led)
        ends = [End(who, led, each.sequence, "", each.digest) for who, each in held.items()]
        if len(ends) < len(NAMES) or any(end.sequence != len(log) for end in ends):
            return None
        specification = msgspec.json.decode(log[0])["events"][0]["specification"]
        return History(
            {led: specification},
            record.sent,
            record.asked,
            {led: [each.decode() for each in log]},
            ends,
        )

    verdict = check(await eventually(look, what="all servers at the log's end"))

    assert verdict.is_good, str(verdict)
    assert complaints == []
    assert verdict.acknowledged > 100


async def test_leader_that_stood_still_follows_and_none_of_its_own_has_landed(
    place: Exchange, servers: Servers, led: str
) -> None:
    """It wakes in the belief that it leads (G2, G13, G18)."""
    leader = await servers.agree(led)
    before = await place.status(led)
    load = place.load(led, *LONG, report=f"{led}.json")
    await place.reaches(led, before["sequence"] + 20)

    servers[leader].send(signal.SIGSTOP)
    try:
        await place.reaches_term(led, before["term"] + 1)
        successor = await servers.leader(led, other_than=leader)
    finally:
        servers[leader].send(signal.SIGCONT)
    standing = await servers.stands(leader, led, "follower")

    await load.verified()
    assert standing.leader == successor
    await servers.agree(led)
    # In the log each term ends where the next begins, so nothing came after the change.
    changes = changes_of_leader(await place.log(led))
    assert (before["term"], leader) in changes
    assert (before["term"] + 1, successor) in changes


async def test_leader_told_to_stop_hands_over_and_ends_well(
    place: Exchange, servers: Servers, led: str
) -> None:
    """The successor is named, and need not find out (G18)."""
    leader = await servers.agree(led)
    before = await place.status(led)
    load = place.load(led, *BRIEF, report=f"{led}.json")
    await place.reaches(led, before["sequence"] + 20)

    assert await servers[leader].terminated() == 0, servers[leader].printed
    assert load.program.is_running
    successor = await servers.leader(led, other_than=leader)
    servers.start(leader)

    await load.verified()
    changes = changes_of_leader(await place.log(led))
    assert changes[before["term"] - 1 : before["term"] + 1] == [
        (before["term"], leader),
        (before["term"] + 1, successor),
    ]
    # It was named by the one that left, and did not have to find out.
    for name in NAMES:
        assert f"taking {led} over" not in servers[name].printed


async def test_leader_that_is_killed_and_started_at_once_costs_one_change_of_leader(
    place: Exchange, servers: Servers, led: str
) -> None:
    leader = await servers.agree(led)
    before = await place.status(led)
    load = place.load(led, *LONG, report=f"{led}.json")
    await place.reaches(led, before["sequence"] + 20)

    await servers[leader].killed()
    servers.start(leader)

    await load.verified()
    await servers.agree(led)
    assert len(changes_of_leader(await place.log(led))) == before["term"] + 1


# --- NATS ---------------------------------------------------------------------------------------


async def test_node_that_leads_the_log_is_killed_and_the_market_goes_on(
    place: Exchange, servers: Servers, led: str
) -> None:
    """NATS elects another one of the two that are left (G2, G18)."""
    leader = await servers.agree(led)
    before = await place.status(led)
    load = place.load(led, *LONG, report=f"{led}.json")
    await place.reaches(led, before["sequence"] + 20)

    index = await node_that_leads(place, led)
    await place.nodes.kill(index)
    try:
        assert load.program.is_running
        # What is stored from now on, the other two have.
        await place.reaches(led, (await place.status(led))["sequence"] + 20)
    finally:
        await place.nodes.restart(index)
    await load.verified()
    await place.load(led, *BRIEF, report=f"{led}-again.json").verified()

    await servers.agree(led)
    changes = changes_of_leader(await place.log(led))
    assert changes[before["term"] - 1] == (before["term"], leader)
    assert len(changes) <= before["term"] + 1, changes


async def test_cut_route_between_two_servers_changes_no_leader(tmp_path: Path) -> None:
    """Each finds nobody who answers for the other, who lives: both go on, since both renew their
    records, where the third node keeps them (G18)."""
    markets = ["M-1", "M-2", "M-3"]
    async with (
        running_apart(tmp_path / "nodes") as (nodes, route),
        exchange(nodes.only(2), tmp_path) as place,
    ):
        servers = Servers(place, "--replicas", "3")
        for name, url in zip(NAMES, nodes.urls, strict=True):
            servers.start(name, options=("--nats", url))
        for market in markets:
            await place.open(market)
        assert await servers.led_counts(*NAMES, markets=markets) == [1, 1, 1]
        await lead_streams(place, leases="nats-3", others="nats-3")
        before = {market: changes_of_leader(await place.log(market)) for market in markets}
        load = place.load(markets[0], "--market", markets[1], "--market", markets[2], *ENDURING)
        await place.reaches(markets[0], 20)

        route.cut()
        await renewed(place, times=8)
        route.mend()
        await renewed(place, times=3)

        await load.verified()
        for market in markets:
            await servers.agree(market)
        after = {market: changes_of_leader(await place.log(market)) for market in markets}
        assert after == before, [servers[name].printed for name in NAMES]


async def renewed(place: Exchange, *, times: int) -> None:
    """Wait until all servers together have renewed their records so often each."""
    async with connected(place.nodes) as client:
        jetstream = client.jsm()

        async def written() -> int | None:
            try:
                return (await jetstream.stream_info("KV_DEX-SERVERS")).state.last_seq
            except UNANSWERED:
                return None

        end = await eventually(written, what="the records of servers") + times * len(NAMES)

        async def look() -> bool | None:
            return True if (await written() or 0) >= end else None

        await eventually(look, what=f"{times} renewals")


async def test_leader_that_is_cut_off_from_the_records_but_not_from_the_log_gives_way_once(
    tmp_path: Path,
) -> None:
    """It cannot renew its record, so another is named; nor can it read that, so it goes on to
    believe that it is named itself. It must not take back again and again what it lost
    (G13, G18)."""
    async with (
        running_apart(tmp_path / "nodes") as (nodes, route),
        exchange(nodes.only(2), tmp_path) as place,
    ):
        servers = Servers(place, "--replicas", "3")
        servers.start("server-2", options=("--nats", nodes.urls[1]))
        await place.open("M-1")
        servers.start("server-1", options=("--nats", nodes.urls[0]))
        servers.start("server-3", options=("--nats", nodes.urls[2]))
        assert await servers.agree("M-1") == "server-2"
        await lead_streams(place, leases="nats-1", others="nats-3")
        load = place.load("M-1", *LONG)
        await place.reaches("M-1", 20)

        route.cut()
        await place.reaches_term("M-1", 2)
        changed_at = (await place.status("M-1"))["sequence"]
        # Before the second node wants to lead the records, too (4 to 9 s).
        await place.reaches("M-1", changed_at + 50)
        route.mend()

        await load.verified()
        successor = await servers.agree("M-1")
        assert changes_of_leader(await place.log("M-1")) == [(1, "server-2"), (2, successor)]


async def lead_streams(place: Exchange, *, leases: str, others: str) -> None:
    """Have one node lead the records of servers and leaders, and one all other streams."""
    async with connected(place.nodes) as client:
        for info in await client.jsm().streams_info():
            name = info.config.name or ""
            node = leases if name in ("KV_DEX-LEADERS", "KV_DEX-SERVERS") else others

            async def look(name: str = name, node: str = node) -> bool | None:
                wanted = msgspec.json.encode({"placement": {"preferred": node}})
                try:
                    now = (await client.jsm().stream_info(name)).cluster
                    if now is not None and now.leader == node:
                        return True
                    subject = f"$JS.API.STREAM.LEADER.STEPDOWN.{name}"
                    await client.request(subject, wanted, timeout=5)
                except UNANSWERED:
                    pass
                # Asked again at once, whoever was just elected would step down.
                await asyncio.sleep(0.2)
                return None

            await eventually(look, what=f"{node} to lead {name}")


async def node_that_leads(place: Exchange, market: str) -> int:
    """Find the node that leads a market's stream."""

    async def look() -> int | None:
        async with connected(place.nodes) as client:
            try:
                info = await client.jsm().stream_info(f"DEX-LOG-{market}")
            except UNANSWERED:
                return None
        if info.cluster is None or not info.cluster.leader:
            return None
        return int(info.cluster.leader.removeprefix("nats-")) - 1

    return await eventually(look, what=f"the node that leads the log of {market}")


# --- Whoever is asked ---------------------------------------------------------------------------


async def everywhere(place: Exchange, ask: Callable[[Callers, int], Awaitable[None]]) -> None:
    """Ask many times from each node: a node prefers the servers that are connected to itself."""
    for index in range(place.nodes.replicas):
        async with calling(place.nodes.only(index)) as callers:
            for number in range(20):
                await ask(callers, index * 20 + number)


async def test_queries_are_answered_by_every_replica_as_of_the_commit_that_is_asked_for(
    place: Exchange, servers: Servers, led: str
) -> None:
    """Each is asked right after a receipt, and knows what that says (G14)."""
    answering: set[str] = set()

    async def ask(callers: Callers, number: int) -> None:
        order = {"op": "submit", "side": "buy", "quantity": "1", "price": str(number + 1)}
        receipt = await asked(callers, f"dex.orders.{led}.alice", order)
        query = {"min_sequence": receipt["sequence"]}
        status = await asked(callers, f"dex.query.{led}.status.alice", query)
        book = await asked(callers, f"dex.query.{led}.book.alice", query)

        assert status["sequence"] >= receipt["sequence"]
        assert book["bids"][0]["price"] == str(number + 1)
        assert status["leader"] == leader
        answering.add(status["server"])

    leader = await servers.agree(led)
    await everywhere(place, ask)

    assert answering == set(NAMES)


async def test_operators_requests_work_whichever_server_they_reach(
    place: Exchange, servers: Servers, led: str
) -> None:
    """Those that follow hand them on; each answer is about a commit that has it."""
    told = {"halt": "halted", "resume": "trading"}

    async def ask(callers: Callers, number: int) -> None:
        for what, state in told.items():
            answer = await asked(callers, f"dex.admin.{led}.{what}", {})
            query = {"min_sequence": answer["sequence"]}
            status = await asked(callers, f"dex.query.{led}.status.operator", query)
            assert status["state"] == state
        change = {"max_open_orders": number + 1}
        answer = await asked(callers, f"dex.admin.{led}.change", change)
        query = {"min_sequence": answer["sequence"]}
        status = await asked(callers, f"dex.query.{led}.status.operator", query)
        assert status["specification"]["max_open_orders"] == number + 1
        # Opening again is harmless, and answered by whoever is asked, too.
        assert await place.open(led) >= answer["sequence"]

    await everywhere(place, ask)
    async with calling(place.nodes) as callers:
        for _ in range(20):
            answer = await asked(callers, f"dex.admin.{led}.close", {})
    status = await place.status(led, min_sequence=answer["sequence"])

    assert status["state"] == "closed"
    await servers.agree(led)
