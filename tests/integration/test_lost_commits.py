"""Logs that are not what servers know of them: shorter, or with what no leader wrote.

Servers say so, raise an alarm, and lead the market no more; an operator must look. Their other
markets go on.
"""

import signal
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError

from dex_protocol.codec import hash_of
from tests.integration.programs import Exchange, Servers, eventually, exchange
from tests.nats_nodes import connected, running

LOAD = ("--orders", "600", "--in-flight", "4")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """Run a node."""
    directory = tmp_path_factory.mktemp("lost")
    async with running(directory / "node") as nodes, exchange(nodes, directory) as place:
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(place: Exchange) -> AsyncIterator[Servers]:
    """Run two servers."""
    servers = Servers(place, "--snapshot-commits", "20")
    servers.start("server-1", "server-2")
    yield servers

    for name in servers.running:
        assert await servers[name].terminated() == 0
        assert "Traceback" not in servers[name].printed, servers[name].printed


class Alarms:
    """What operators hear of a market."""

    def __init__(self) -> None:
        self.messages: dict[str, str] = {}
        """The newest of each server, by its name."""

    async def hear(self, message: Msg) -> None:
        alarm: dict[str, Any] = msgspec.json.decode(message.data)
        assert message.subject == f"dex.alarm.{alarm['market']}"
        self.messages[alarm["server"]] = alarm["message"]

    async def of(self, *names: str) -> dict[str, str]:
        """Wait until each of some servers has raised one; give them."""

        async def look() -> dict[str, str] | None:
            return self.messages if sorted(self.messages) == sorted(names) else None

        return await eventually(look, what=f"alarms of {names}")


async def listening(client: Client, market: str) -> Alarms:
    """Listen to a market's alarms."""
    alarms = Alarms()
    await client.subscribe(f"dex.alarm.{market}", cb=alarms.hear)
    # A round trip, after which the node knows it.
    await client.request("$SRV.PING.dex-server", b"", timeout=5)
    return alarms


async def shortened(client: Client, market: str, payloads: list[bytes]) -> None:
    """Make a market's log anew with some entries, as an operator may who restores a backup."""
    jetstream = client.jsm()
    stream = (await jetstream.stream_info(f"DEX-LOG-{market}")).config
    await jetstream.delete_stream(f"DEX-LOG-{market}")
    await jetstream.add_stream(stream)
    for payload in payloads:
        await client.jetstream().publish(f"dex.log.{market}", payload)


async def test_log_that_loses_its_end_is_noticed_by_leader_follower_and_newcomer(
    place: Exchange, servers: Servers, market: str
) -> None:
    """The newcomer knows it by a snapshot (G16)."""
    await place.open(market)
    leader = await servers.agree(market)
    (follower,) = {"server-1", "server-2"} - {leader}
    await place.load(market, *LOAD, report=f"{market}.json").verified()
    payloads = await place.log(market)
    end = len(payloads)
    kept = payloads[: end // 2]
    async with (
        connected(place.nodes, role="operator") as operator,
        connected(place.nodes) as client,
    ):
        alarms = await listening(operator, market)
        for name in (leader, follower):
            servers[name].send(signal.SIGSTOP)
        await shortened(client, market, kept)
        for name in (leader, follower):
            servers[name].send(signal.SIGCONT)
        servers.start("server-3")

        told = await alarms.of(follower, "server-3")
        await servers[leader].prints(f"leads no more: the log ends at {len(kept)}")

    assert f"the log ends at {len(kept)}, but commit {end} was stored" in told[follower]
    for message in told.values():
        assert f"the log ends at {len(kept)}" in message
        assert "it has lost commits" in message
    for name in (follower, "server-3"):
        assert f"the log ends at {len(kept)}" in servers[name].printed
        assert not (await servers.stands(name, market, "stopped")).is_current
    assert await place.log(market) == kept


async def test_forged_commit_stops_its_market_on_every_server_and_no_other(
    place: Exchange, servers: Servers, market: str
) -> None:
    """It is in the log, and its digest is another book's (G15)."""
    other = f"{market}-other"
    for name in (market, other):
        await place.open(name)
        await servers.agree(name)
    await place.load(market, *LOAD, report=f"{market}.json").verified()
    async with (
        connected(place.nodes, role="operator") as operator,
        connected(place.nodes) as client,
    ):
        alarms = await listening(operator, market)

        async def forge() -> dict[str, Any] | None:
            payloads = await place.log(market)
            last = msgspec.json.decode(payloads[-1])
            forged: dict[str, Any] = last | {
                "sequence": last["sequence"] + 1,
                "previous": hash_of(payloads[-1]),
                "digest": f"{int(last['digest'], 16) ^ 1:016x}",
                "events": [],
            }
            try:
                await client.jetstream().publish(
                    f"dex.log.{market}",
                    msgspec.json.encode(forged),
                    headers={"Nats-Expected-Last-Sequence": str(last["sequence"])},
                )
            except APIError:
                # The market was handed over for balance just now, which is a commit.
                return None
            return forged

        forged = await eventually(forge, what="a forged commit in the log")
        told = await alarms.of(*servers.running)

    for name, message in told.items():
        assert f"commit {forged['sequence']}" in message, message
        assert not (await servers.stands(name, market, "stopped")).is_current
    assert len(await place.log(market)) == forged["sequence"]
    await servers.agree(other)
    await place.load(other, *LOAD, report=f"{other}.json").verified()
