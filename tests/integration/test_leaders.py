"""Exactly once, whoever leads, or believes to.

Of two servers that append to a log one has its entries stored. Peers that know no more of the
exchange than its wire protocol (nats-py and JSON) send each command twice, and again until they
are answered, while leaders change.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from msgspec import Struct
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NoAnswer

from dex_protocol.codec import hash_of
from dex_runtime import topology
from dex_runtime.messaging import Requester
from dex_server.jetstream.log import JetStreamLog
from dex_server.replication.ports import Position, Undecided
from tests.contracts.log_contract import contents
from tests.integration.programs import (
    PATIENCE_S,
    Exchange,
    Servers,
    asked,
    changes_of_leader,
    exchange,
)
from tests.nats_nodes import Callers, Nodes, calling, connected, make, running

SEED: Final = 20
MARKETS: Final = ["M-1", "M-2", "M-3", "M-4", "M-5", "M-6"]
PEERS_COUNT: Final = 12
CHANGES_COUNT: Final = 20
ROUNDS_COUNT: Final = 40


class Sent(Struct):
    """A command, and what its two copies were answered."""

    market: str
    command: dict[str, Any]
    first: dict[str, Any]
    second: dict[str, Any]


class Peer:
    """One peer of the exchange."""

    def __init__(self, name: str, callers: Callers) -> None:
        self.name = name
        self.random = Random(f"{SEED}/{name}")
        self.sent: list[Sent] = []
        self._callers = callers
        self._timestamp = time.time_ns() // 1_000_000
        self._count = 0

    def id(self, kind: str) -> str:
        """Make the next id."""
        self._count += 1
        return f"{kind}_{self.name}_{self._timestamp}_{self._count}"

    async def twice(self, market: str, command: dict[str, Any]) -> Sent:
        """Send a command twice, one copy a moment after the other or long after, and wait for
        both answers."""
        pause = self.random.choice([0.0, self.random.uniform(0, 0.01), self.random.uniform(0, 1)])
        first, second = await asyncio.gather(
            self._once(market, command), self._once(market, command, pause=pause)
        )
        self.sent.append(Sent(market, command, first, second))
        return self.sent[-1]

    async def _once(
        self, market: str, command: dict[str, Any], *, pause: float = 0
    ) -> dict[str, Any]:
        await asyncio.sleep(pause)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    message = await self._callers.request(
                        f"dex.orders.{market}.{self.name}", json.dumps(command).encode(), timeout=1
                    )
                except (NoRespondersError, NoAnswer):
                    answer = {"status": "retry"}
                else:
                    answer = json.loads(message.data)
                if answer["status"] != "retry":
                    return answer
                await asyncio.sleep(self.random.uniform(0.01, 0.05))

    # --- What it does -----------------------------------------------------------------------

    def submit(self, price: int, **fields: Any) -> dict[str, Any]:
        """Make a command to buy."""
        order = {"op": "submit", "order_id": self.id("order"), "side": "buy", "quantity": "3"}
        return order | {"price": str(price)} | fields

    async def rest(self, market: str) -> None:
        """Place an order that nobody trades with, change it, and cancel it."""
        submit = self.submit(self.random.randint(1, 100))
        about = {"order_id": submit["order_id"]}
        placed = await self.twice(market, submit)
        assert_same(placed, status="new", remaining_quantity="3", version=1)
        amend = {"op": "amend", "command_id": self.id("command"), "quantity": "2"} | about
        assert_same(await self.twice(market, amend), remaining_quantity="2", version=2)
        cancel = {"op": "cancel", "command_id": self.id("command")} | about
        assert_same(await self.twice(market, cancel), status="canceled", version=2)

    async def take(self, market: str) -> None:
        """Trade with what is offered."""
        submit = self.submit(200, time_in_force="ioc")
        taken = await self.twice(market, submit)
        assert_same(taken, status="filled", filled_quantity="3", average_price="200")

    async def sweep(self, market: str) -> None:
        """Place two orders, and cancel all there are."""
        for _ in range(2):
            await self.twice(market, self.submit(self.random.randint(1, 100)))
        cancel_all = {"op": "cancel_all", "command_id": self.id("command")}
        sent = await self.twice(market, cancel_all)
        assert_same(sent, status="canceled")
        for answer in (sent.first, sent.second):
            assert answer.get("count", len(answer.get("canceled", []))) == 2, answer

    async def work(self, is_over: asyncio.Event) -> None:
        """Do one after another."""
        while not is_over.is_set():
            do = self.random.choice([self.rest, self.take, self.sweep])
            await do(self.random.choice(MARKETS))


def assert_same(sent: Sent, **expected: Any) -> None:
    """One copy at most was executed when it was answered; both show the order as it stands."""
    assert not (sent.first["duplicate"] is False and sent.second["duplicate"] is False), sent
    for field, value in expected.items():
        assert (sent.first[field], sent.second[field]) == (value, value), sent
    for field in ("order_id", "filled_quantity", "remaining_quantity", "average_price"):
        assert sent.first.get(field) == sent.second.get(field), sent


def executions(log: list[bytes]) -> Counter[str]:
    """Count by id how often commands were executed, by what a log says."""
    found: Counter[str] = Counter()
    for payload in log:
        for event in json.loads(payload)["events"]:
            match event["event"]:
                case "accepted":
                    found[event["order_id"]] += 1
                case "amended" | "canceled" | "canceled_all" if "command_id" in event:
                    found[event["command_id"]] += 1
                case "rejected":
                    found[event.get("command_id") or event["order_id"]] += 1
    return found


# --- Two servers that both believe they lead -----------------------------------------------------


@pytest.mark.parametrize("window", [1, 5])
async def test_two_that_append_at_once_make_one_chain(
    cluster: Nodes, market: str, window: int
) -> None:
    """Each begins several appends from the log's end, as leaders do: what is stored of them is the
    beginning of what one of the two sent (G11, G13)."""
    async with (
        connected(cluster, index=0) as one,
        connected(cluster, index=1) as two,
    ):
        await make(one, topology.log_of(market), replicas=3)
        logs = {
            name: JetStreamLog(await Requester.start(client), market)
            for name, client in (("one", one), ("two", two))
        }
        winners = set()
        random = Random(SEED)
        payloads: list[bytes] = []
        for number in range(ROUNDS_COUNT):
            end = Position(len(payloads), hash_of(payloads[-1]) if payloads else "0" * 32)
            offers = {name: chained(end, f"{name} {number}", window) for name in logs}
            # The one, then the other, is a moment late: about as much as an append takes.
            pauses = [0, random.uniform(0, 0.002)][:: 1 if number % 2 else -1]
            said = await asyncio.gather(
                *(
                    appended(log, offers[name], pause=pause)
                    for (name, log), pause in zip(logs.items(), pauses, strict=True)
                )
            )

            payloads = await contents(logs["one"])
            added = payloads[end.sequence :]
            for name, said_count in zip(logs, said, strict=True):
                offered = [payload for _, payload in offers[name]]
                if offered[0] in added:
                    winners.add(name)
                    assert added == offered[: len(added)]
                assert said_count <= sum(payload in added for payload in offered)

    assert winners == set(logs)
    hashes = [hash_of(payload).encode() for payload in payloads]
    assert [payload.split()[0] for payload in payloads] == [b"0" * 32, *hashes[:-1]]


def chained(end: Position, text: str, count: int) -> list[tuple[Position, bytes]]:
    """Make entries that follow on each other, with their places."""
    entries = []
    for number in range(count):
        payload = f"{end.hash} {text} {number}".encode()
        entries.append((end, payload))
        end = Position(end.sequence + 1, hash_of(payload))
    return entries


async def appended(log: JetStreamLog, offers: list[tuple[Position, bytes]], *, pause: float) -> int:
    """Append all at once, after a pause; give how many are said to be stored."""
    await asyncio.sleep(pause)
    outcomes = await asyncio.gather(
        *(log.append(payload, after=place) for place, payload in offers), return_exceptions=True
    )
    for outcome in outcomes:
        assert outcome is None or isinstance(outcome, Undecided), outcome
    return outcomes.count(None)


# --- Exactly once -------------------------------------------------------------------------------


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Exchange]:
    """Run a node for the test's own servers."""
    async with running(tmp_path / "node") as nodes, exchange(nodes, tmp_path) as place:
        yield place


async def test_commands_sent_twice_are_executed_once_through_twenty_changes_of_leader(
    place: Exchange,
) -> None:
    """Each peer sends its next command when the one before is acknowledged, and it finds that done
    (G3, G4, G5, G12)."""
    servers = Servers(place, "--snapshot-commits", "200")
    servers.start("server-1")
    for market in MARKETS:
        await place.open(market)
    is_over = asyncio.Event()
    async with calling(place.nodes) as callers:
        for market in MARKETS:
            offer = {"op": "submit", "side": "sell", "quantity": "1000000", "price": "200"}
            await asked(callers, f"dex.orders.{market}.maker", offer)
        peers = [Peer(f"peer-{number}", callers) for number in range(PEERS_COUNT)]
        async with asyncio.TaskGroup() as tasks:
            for peer in peers:
                tasks.create_task(peer.work(is_over))
            await change_leaders(place, servers)
            is_over.set()

    handed_over = [servers[name].printed.count("handing ") for name in servers.running]
    assert sum(handed_over) > 0
    sent = [each for peer in peers for each in peer.sent]
    executed: Counter[tuple[str, str]] = Counter()
    changes_count = 0
    for market in MARKETS:
        log = await place.log(market)
        changes_count += len(changes_of_leader(log)) - 1
        executed.update({(market, id_): count for id_, count in executions(log).items()})
    assert changes_count >= CHANGES_COUNT
    assert {name for name in executed if executed[name] != 1} == set()
    named = {(each.market, own_id(each.command)) for each in sent}
    assert named == {(market, id_) for market, id_ in executed if "_maker_" not in id_}
    # A first answer may have been lost, and its copy answered as a duplicate.
    duplicates = [each.first["duplicate"] + each.second["duplicate"] for each in sent]
    assert set(duplicates) <= {1, 2}


def own_id(command: dict[str, Any]) -> str:
    name: str = command["order_id" if command["op"] == "submit" else "command_id"]
    return name


async def change_leaders(place: Exchange, servers: Servers) -> None:
    """Have leaders change often enough: for balance, and when the one that leads the most ends, by
    either way in turn, and comes back."""
    servers.start("server-2")
    await servers.led_counts("server-1", "server-2", markets=MARKETS)
    number = 0
    while (changes_count := await count_changes(place)) < CHANGES_COUNT:
        assert number < CHANGES_COUNT, changes_count
        leaders = Counter([await servers.agree(market) for market in MARKETS])
        ((name, _),) = leaders.most_common(1)
        if number % 2 == 0:
            await servers[name].killed()
        else:
            assert await servers[name].terminated() == 0, servers[name].printed
        servers.start(name)
        number += 1
    assert number >= 2


async def count_changes(place: Exchange) -> int:
    """Count how often leaders changed, all markets together."""
    return sum([(await place.status(market))["term"] - 1 for market in MARKETS])
