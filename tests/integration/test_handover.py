"""Markets that change hands as they should: for balance, when a server comes and when it leaves.

Each test has a node and servers of its own: what counts is which server leads how many markets.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.programs import Exchange, Load, Servers, changes_of_leader, exchange
from tests.integration.test_cli import command
from tests.nats_nodes import running

LOAD = ("--orders", "3000", "--rate", "600", "--in-flight", "64", "--peers", "2")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Exchange]:
    """Run a node for the test's own servers and clients."""
    async with running(tmp_path / "node") as nodes, exchange(nodes, tmp_path) as place:
        yield place


@pytest.fixture
def servers(place: Exchange) -> Servers:
    """Give servers of which none runs yet."""
    return Servers(place)


async def test_markets_are_shared_evenly_by_servers_that_come_and_go_under_load(
    place: Exchange, servers: Servers
) -> None:
    """No order is lost meanwhile, nor executed twice (G2, G18)."""
    markets = [f"M-{number}" for number in range(10)]
    first = ("server-1", "server-2", "server-3")
    servers.start(*first)
    for market in markets:
        await place.open(market)
    assert await servers.led_counts(*first, markets=markets) == [3, 3, 4]
    before = {name: servers[name].pid for name in first}
    incarnations = await incarnations_of(place)

    load = load_on(place, markets, report="coming.json")
    await place.reaches(markets[0], 20)
    servers.start("server-4")
    assert await servers.led_counts(*first, "server-4", markets=markets) == [2, 2, 3, 3]
    await load.verified()

    everybody = {**incarnations, **await incarnations_of(place)}
    load = load_on(place, markets, report="going.json")
    end = (await place.status(markets[0]))["sequence"]
    await place.reaches(markets[0], end + 20)
    assert await servers["server-2"].terminated() == 0
    rest = ("server-1", "server-3", "server-4")
    assert await servers.led_counts(*rest, markets=markets) == [3, 3, 4]
    await load.verified()

    assert {name: servers[name].pid for name in first} == before
    ended = await command("status", "--nats", place.nodes.urls[0])
    assert ended.exit_code == 0, ended
    assert "all is well: 10 markets, 3 servers" in ended.stdout + ended.stderr
    after = await incarnations_of(place)
    assert after == {name: everybody[name] for name in rest}
    assert {name: after[name] for name in ("server-1", "server-3")} == {
        name: incarnations[name] for name in ("server-1", "server-3")
    }
    for market in markets:
        changes_of_leader(await place.log(market))


def load_on(place: Exchange, markets: list[str], *, report: str) -> Load:
    more = [word for market in markets[1:] for word in ("--market", market)]
    return place.load(markets[0], *more, *LOAD, report=report)


async def incarnations_of(place: Exchange) -> dict[str, str]:
    return {name: told.incarnation for name, told in (await place.standings()).items()}


async def test_last_server_told_to_stop_ends_well_and_leads_at_once_when_it_is_back(
    place: Exchange, servers: Servers, market: str
) -> None:
    """Nobody was there to take over, and nothing is missing (G18)."""
    servers.start("server-1", "server-2")
    await place.open(market)
    leader = await servers.agree(market)
    (other,) = {"server-1", "server-2"} - {leader}
    await place.load(market, "--orders", "300", "--in-flight", "16").verified()

    assert await servers[leader].terminated() == 0
    assert await servers.agree(market) == other
    assert await servers[other].terminated() == 0
    stopped = await place.log(market)
    servers.start(other)
    assert await servers.agree(market) == other

    await place.load(market, "--orders", "300", "--in-flight", "16", report="again.json").verified()
    log = await place.log(market)
    assert changes_of_leader(log) == [(1, leader), (2, other), (3, other)]
    assert log[: len(stopped)] == stopped
    # Whoever left had named the other, or nobody, so that nothing had to be found out.
    for name in (leader, other):
        assert f"taking {market} over" not in servers[name].printed
        assert "Traceback" not in servers[name].printed
