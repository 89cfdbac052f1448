"""A server that joins becomes current from a snapshot and the log behind it, whatever has become of
the snapshots. A follower writes them, so that the leader has its hands free.
"""

import base64
import re
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import pytest_asyncio
from nats.aio.client import Client

from dex_protocol.standing import MarketStanding
from tests.integration.programs import Exchange, Servers, asked, eventually, exchange
from tests.nats_nodes import calling, connected, running

OPTIONS = ("--snapshot-commits", "20")

LOAD = ("--orders", "600", "--in-flight", "4")
"""Some 150 commits at least."""

STORE = "OBJ_DEX-SNAPSHOTS"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """Run a node for the servers and clients of all tests here."""
    directory = tmp_path_factory.mktemp("join")
    async with running(directory / "node") as nodes, exchange(nodes, directory) as place:
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(place: Exchange) -> AsyncIterator[Servers]:
    """Run two servers that stay."""
    servers = Servers(place, *OPTIONS)
    servers.start("server-1", "server-2")
    yield servers

    assert servers.running == ["server-1", "server-2"]


@pytest.fixture
async def led(place: Exchange, servers: Servers, market: str) -> str:
    """Open a market that one leads and the other follows, which writes its snapshots by now.

    None is being written: the newest is stored, and the next is some commits away.
    """
    await place.open(market)
    await place.load(market, *LOAD, report=f"{market}.json").verified()
    names = ("server-1", "server-2")
    async with calling(place.nodes) as callers:
        before = {name: stored_by(servers, name, market) for name in names}

        async def one_more_commit() -> None:
            order = {"op": "submit", "side": "buy", "quantity": "1", "price": "1"}
            await asked(callers, f"dex.orders.{market}.alice", order)

        async def look() -> bool | None:
            # Until the leader knows that it is not alone, it writes them; and it may hand the
            # market over yet, for balance.
            await one_more_commit()
            leader = await servers.agree(market)
            (follower,) = {*names} - {leader}
            return True if stored_by(servers, follower, market) != before[follower] else None

        await eventually(look, what=f"a snapshot of {market} by its follower")
        await one_more_commit()
    return market


@pytest.fixture
async def newcomer(servers: Servers) -> AsyncIterator[str]:
    """Name a server that the test starts, and that is ended."""
    yield "server-3"

    assert await servers["server-3"].terminated() == 0
    servers["server-3"].log.unlink()


def lines(servers: Servers, name: str, market: str) -> list[str]:
    """Give what a server printed about a market."""
    return [line for line in servers[name].printed.splitlines() if market in line]


def stored_by(servers: Servers, name: str, market: str) -> list[int]:
    """Tell after which commits a server stored snapshots."""
    found = re.findall(
        r"snapshot at commit (\d+) is stored", "\n".join(lines(servers, name, market))
    )
    return [int(sequence) for sequence in found]


async def test_snapshots_are_written_by_a_follower_and_the_leader_goes_on(
    place: Exchange, servers: Servers, led: str
) -> None:
    leader = await servers.agree(led)
    (follower,) = {"server-1", "server-2"} - {leader}
    by_leader = stored_by(servers, leader, led)
    by_follower = stored_by(servers, follower, led)

    await place.load(led, *LOAD, report=f"{led}.json").verified()
    status = await place.status(led)

    async def look() -> bool | None:
        return True if len(stored_by(servers, follower, led)) > len(by_follower) else None

    await eventually(look, what=f"another snapshot of {led}")
    assert stored_by(servers, leader, led) == by_leader
    assert await servers.agree(led) == leader
    assert (await place.status(led))["term"] == status["term"]


# --- Joining ------------------------------------------------------------------------------------


class Stored(msgspec.Struct):
    """A snapshot in the store."""

    sequence: int
    chunks: str
    """The subject of its parts."""
    description: str
    """The subject of what says where they are."""
    size: int


async def stored(client: Client, market: str) -> list[Stored]:
    """List a market's snapshots, oldest first."""
    jetstream = client.jsm()
    found = []
    subjects = (await jetstream.stream_info(STORE, subjects_filter="$O.*.M.>")).state.subjects
    for subject in subjects or {}:
        name = base64.urlsafe_b64decode(subject.rpartition(".")[2]).decode()
        if name.startswith(f"{market}."):
            message = await jetstream.get_last_msg(STORE, subject)
            about = msgspec.json.decode(message.data or b"")
            chunks = f"$O.DEX-SNAPSHOTS.C.{about['nuid']}"
            found.append(Stored(int(name.split(".")[1]), chunks, subject, about["size"]))
    return sorted(found, key=lambda each: each.sequence)


async def replaced(client: Client, snapshot: Stored, change: Callable[[bytes], bytes]) -> None:
    """Put other bytes in the place of a snapshot's."""
    jetstream = client.jsm()
    data = (await jetstream.get_last_msg(STORE, snapshot.chunks)).data or b""
    assert len(data) == snapshot.size
    await jetstream.purge_stream(STORE, subject=snapshot.chunks)
    if changed := change(data):
        await client.jetstream().publish(snapshot.chunks, changed)


def with_a_bit_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def truncated(data: bytes) -> bytes:
    return data[:-1]


def gone(_: bytes) -> bytes:
    return b""


async def joined(
    place: Exchange, servers: Servers, newcomer: str, market: str
) -> tuple[MarketStanding, list[str]]:
    """Start a server, and wait until it is current and stands as the others do; give how, and what
    it printed of the market."""
    servers.start(newcomer)
    await servers.agree(market)

    async def look() -> MarketStanding | None:
        held = await servers.holding(market)
        ends = {(each.sequence, each.digest) for each in held.values()}
        return held[newcomer] if len(held) == 3 and len(ends) == 1 else None

    standing = await eventually(look, what=f"the same state of {market} everywhere")
    return standing, lines(servers, newcomer, market)


async def trim(client: Client, market: str, first: int) -> None:
    """Remove the log's beginning, so that a snapshot is the only way to a state."""
    await client.jsm().purge_stream(f"DEX-LOG-{market}", seq=first)


async def test_newcomer_begins_with_the_newest_snapshot_and_reads_the_log_behind_it(
    place: Exchange, servers: Servers, led: str, newcomer: str
) -> None:
    async with connected(place.nodes) as client:
        snapshots = await stored(client, led)
        await trim(client, led, snapshots[-1].sequence)

    standing, printed = await joined(place, servers, newcomer, led)

    (caught_up,) = [line for line in printed if "caught up at commit" in line]
    assert f"digest {standing.digest}" in caught_up
    assert standing.sequence > snapshots[-1].sequence
    assert not [line for line in printed if "WARNING" in line or "ERROR" in line]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (with_a_bit_flipped, "found bytes with hash"),
        (truncated, "expected {size} bytes, found {rest}"),
        (gone, "expected {size} bytes, found 0"),
    ],
    ids=["with a bit flipped", "truncated", "gone"],
)
async def test_newcomer_takes_an_older_snapshot_than_the_damaged_one_and_says_why(
    place: Exchange,
    servers: Servers,
    led: str,
    newcomer: str,
    change: Callable[[bytes], bytes],
    why: str,
) -> None:
    """With the log cut before the older one, nothing else would lead there (G17)."""
    async with connected(place.nodes) as client:
        older, newest = (await stored(client, led))[-2:]
        await replaced(client, newest, change)
        await trim(client, led, older.sequence)

    standing, printed = await joined(place, servers, newcomer, led)

    because = why.format(size=newest.size, rest=newest.size - 1)
    said = [line for line in printed if f"snapshot {newest.sequence} cannot be used" in line]
    assert len(said) == 1, printed
    assert because in said[0]
    assert "WARNING" in said[0]
    assert standing.sequence > newest.sequence


async def test_newcomer_reads_the_whole_log_when_no_snapshot_is_good(
    place: Exchange, servers: Servers, led: str, newcomer: str
) -> None:
    """It comes to the state that the others have (G17)."""
    async with connected(place.nodes) as client:
        snapshots = await stored(client, led)
        for snapshot in snapshots:
            await replaced(client, snapshot, with_a_bit_flipped)

    _, printed = await joined(place, servers, newcomer, led)

    for snapshot in snapshots:
        text = f"snapshot {snapshot.sequence} cannot be used"
        assert any(text in line for line in printed), printed


async def test_newcomer_reads_the_whole_log_when_every_snapshot_was_removed(
    place: Exchange, servers: Servers, led: str, newcomer: str
) -> None:
    async with connected(place.nodes) as client:
        for snapshot in await stored(client, led):
            for subject in (snapshot.chunks, snapshot.description):
                await client.jsm().purge_stream(STORE, subject=subject)

    _, printed = await joined(place, servers, newcomer, led)

    assert any("caught up" in line for line in printed), printed
    assert not [line for line in printed if "WARNING" in line or "ERROR" in line]
