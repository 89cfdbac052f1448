"""The Python client through what happens to servers, nodes, connections and slow programs.

No test measures time: what has to happen is waited for, at most for as long as `programs` is
patient.
"""

import ast
import asyncio
import inspect
import re
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

import dex_client
from dex_client import (
    Exchange,
    LogTrimmed,
    OutcomeUnknown,
    Submit,
    Unavailable,
    UnknownMarket,
    connect,
)
from dex_protocol.codec import decode_commit, hash_of
from dex_protocol.events import Accepted, Trade
from dex_protocol.queries import StatusReply
from dex_protocol.receipts import Receipt
from tests.integration import programs
from tests.integration.follower import read
from tests.integration.programs import PATIENCE_S, Program, eventually
from tests.nats_nodes import Nodes, running

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

PLENTY = "1000000"


class Venue:
    """Three NATS nodes and one server, which tests may hurt if they heal it again."""

    def __init__(self, nodes: Nodes, exchange: programs.Exchange, directory: Path) -> None:
        self.nodes = nodes
        self.exchange = exchange
        self.directory = directory
        self.urls = exchange.urls
        self.server = self._start()

    def _start(self) -> Program:
        # With snapshots, so that replicas begin with one.
        return self.exchange.server("--replicas", "3", "--snapshot-commits", "50")

    async def kill_server(self) -> None:
        await self.server.killed()

    def restart_server(self) -> None:
        self.server = self._start()

    def start(self, *command: str, name: str) -> Program:
        return self.exchange._start("python", *command, log=f"{name}.log")

    async def led_again(self, market: str) -> None:
        await self.exchange.status(market)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def venue(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Venue]:
    directory = tmp_path_factory.mktemp("client")
    async with (
        running(directory / "nodes", count=3) as nodes,
        programs.exchange(nodes, directory) as exchange,
    ):
        yield Venue(nodes, exchange, directory)


@pytest.fixture
async def traded(venue: Venue, market: str) -> str:
    """Open a market of the test's own."""
    await venue.exchange.open(market)
    return market


async def status_of(exchange: Exchange, market: str, *, sequence: int = 0) -> StatusReply:
    status = await exchange.status(market, min_sequence=sequence)
    assert isinstance(status, StatusReply), status
    return status


async def offer_plenty(exchange: Exchange, market: str) -> None:
    for side, price in (("buy", "99"), ("sell", "101")):
        receipt = await exchange.submit(market, side=side, quantity=PLENTY, price=price)  # type: ignore[arg-type]
        assert receipt.status == "new"


async def reaches(exchange: Exchange, market: str, sequence: int) -> None:
    """Wait until a market has a commit."""
    async with asyncio.timeout(PATIENCE_S):
        commit = await anext(exchange.events(market, from_sequence=sequence))
    assert commit.sequence == sequence


def position_in(log: list[bytes], peer: str) -> Decimal:
    """Sum up what a peer bought and sold, from the trades of a log alone."""
    position = Decimal(0)
    for payload in log:
        for event in decode_commit(payload).events:
            if isinstance(event, Trade):
                quantity = Decimal(event.quantity)
                takes = event.taker_order_id.startswith(f"order_{peer}_")
                makes = event.maker_order_id.startswith(f"order_{peer}_")
                sign = 1 if event.taker_side == "buy" else -1
                position += sign * quantity * (takes - makes)
    return position


def times_accepted(log: list[bytes], order_id: str) -> int:
    events = [event for payload in log for event in decode_commit(payload).events]
    return sum(isinstance(event, Accepted) and event.order_id == order_id for event in events)


# --- A bot --------------------------------------------------------------------------------------


async def test_bot_of_the_guide_trades_on_through_a_killed_node_and_a_killed_server(
    venue: Venue, traded: str
) -> None:
    """Its position is what its receipts say and what the log says (G4)."""
    rounds = 600
    async with connect(venue.urls, peer="maker") as exchange:
        await offer_plenty(exchange, traded)
        first = (await status_of(exchange, traded)).sequence
    # It knows one node, and so is connected to that; the others it learns of from there.
    bot = venue.start(
        str(DOCS / "examples" / "bot.py"),
        *(venue.nodes.urls[0], "bot", traded, str(rounds)),
        name="bot",
    )

    async with connect(venue.urls, peer="watcher") as exchange:
        await reaches(exchange, traded, first + rounds // 5)
        await venue.nodes.kill(0)
        await reaches(exchange, traded, first + 2 * rounds // 5)
    await venue.kill_server()
    venue.restart_server()
    await venue.nodes.restart(0)
    exit_code = await bot.ended()

    assert exit_code == 0, bot.printed
    assert (await venue.exchange.status(traded))["term"] >= 2
    log = await venue.exchange.log(traded)
    assert Decimal(bot.printed.splitlines()[-1]) == position_in(log, "bot")
    accepted = [
        event.order_id
        for payload in log
        for event in decode_commit(payload).events
        if isinstance(event, Accepted) and event.peer == "bot"
    ]
    assert len(accepted) == len(set(accepted)) == rounds


# --- Following ----------------------------------------------------------------------------------


async def test_followers_miss_nothing_through_reconnections_a_stop_and_a_killed_node(
    venue: Venue, traded: str
) -> None:
    """Every commit once, in order, the same in two processes; the books are the market's (G11)."""
    directory = venue.directory / traded
    directory.mkdir()
    load = venue.exchange.load(
        traded, *("--orders", PLENTY, "--rate", "150", "--in-flight", "16", "--no-verify")
    )
    followers = {
        name: venue.start(
            *("-m", "tests.integration.follower", venue.urls, traded, str(directory), name, count),
            name=name,
        )
        for name, count in (("hurt", "20"), ("calm", "0"))
    }
    hurt = followers["hurt"]

    await hurt.prints("reconnected 20 times")
    hurt.send(signal.SIGSTOP)
    await asyncio.sleep(5)
    hurt.send(signal.SIGCONT)
    async with connect(venue.urls, peer="watcher") as exchange:
        went_on_at = (await status_of(exchange, traded)).sequence
        await written(directory / "hurt.commits", went_on_at)
        node = await node_of(directory / "hurt.node")
        await venue.nodes.kill(venue.nodes.urls.index(node))
        assert await node_of(directory / "hurt.node", other_than=node) in venue.nodes.urls
        killed_at = (await status_of(exchange, traded)).sequence
        await reaches(exchange, traded, killed_at + 50)
        load.program.send(signal.SIGINT)
        await load.program.ended()
        end = await status_of(exchange, traded)
    (directory / "end").write_text(str(end.sequence))
    exit_codes = [await follower.ended() for follower in followers.values()]
    await venue.nodes.restart(venue.nodes.urls.index(node))

    assert exit_codes == [0, 0], [follower.printed for follower in followers.values()]
    log = await venue.exchange.log(traded)
    stored = [f"{number} {hash_of(payload)}" for number, payload in enumerate(log, start=1)]
    for name, follower in followers.items():
        given = (directory / f"{name}.commits").read_text().splitlines()
        assert given[: end.sequence] == stored[: end.sequence]
        assert len(given) == len(set(given))
        state = msgspec.json.decode(follower.printed.splitlines()[-1])
        assert state == {"sequence": end.sequence, "digest": end.digest, "divergences": 0}


async def node_of(path: Path, *, other_than: str = "") -> str:
    async def look() -> str | None:
        address = read(path)
        return address if address not in ("", other_than) else None

    return await eventually(look, what=f"an address in {path}")


async def written(path: Path, sequence: int) -> None:
    async def look() -> bool | None:
        return True if f"\n{sequence} " in read(path) else None

    await eventually(look, what=f"commit {sequence} in {path}")


async def test_forced_reconnection_goes_to_another_node_of_those_that_are_known(
    venue: Venue, traded: str
) -> None:
    # The others are learned of from the first one.
    async with asyncio.timeout(PATIENCE_S), connect(venue.nodes.urls[0], peer="alice") as exchange:
        assert exchange.node == venue.nodes.urls[0]
        for _ in range(10):
            before = exchange.node
            assert await exchange.reconnect()
            # Not while it is under way.
            assert not await exchange.reconnect()
            receipt = await exchange.submit(traded, side="buy", quantity=1, price=1)

            assert receipt.status == "new"
            assert exchange.node in venue.nodes.urls
            assert exchange.node != before


async def test_only_node_there_is_is_not_left(tmp_path: Path) -> None:
    async with running(tmp_path) as node, connect(node.urls, peer="alice") as exchange:
        assert not await exchange.reconnect()


async def test_two_connections_show_the_same_commits_in_the_same_order(
    venue: Venue, traded: str
) -> None:
    """Both trade meanwhile (G11)."""

    async def taken(exchange: Exchange, count: int) -> list[bytes]:
        async with exchange.events(traded) as events:
            begun.release()
            return [(await anext(events)).payload for _ in range(count)]

    begun = asyncio.Semaphore(0)
    async with (
        asyncio.timeout(PATIENCE_S),
        connect(venue.urls, peer="one") as one,
        connect(venue.urls, peer="two") as two,
        asyncio.TaskGroup() as tasks,
    ):
        first, second = (tasks.create_task(taken(peer, 100)) for peer in (one, two))
        for _ in range(2):
            await begun.acquire()
        for number in range(100):
            peer = (one, two)[number % 2]
            await peer.submit(traded, side="buy", quantity=1, price=number + 1)

    log = await venue.exchange.log(traded)
    assert first.result() == second.result() == log[-100:]


async def test_replica_begins_with_a_snapshot_and_is_the_book(venue: Venue, traded: str) -> None:
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        for number in range(120):
            side: dex_client.Side = "buy" if number % 2 else "sell"
            price = 100 - number if side == "buy" else 100 + number
            await exchange.submit(traded, side=side, quantity=1, price=price)

        async def snapshot_taken() -> bool | None:
            return True if await exchange._queries(None).snapshot(traded) else None

        await eventually(snapshot_taken, what="a snapshot")
        async with exchange.replica(traded) as replica:
            receipt = await exchange.cancel_all(traded, side="sell")
            await replica.wait_for(receipt.sequence)

            assert replica.best_ask is None
            assert replica.best_bid == dex_client.BookLevel("99", "1", 1)
            assert replica.depth(1_000) == await exchange.book(
                traded, depth=1_000, min_sequence=receipt.sequence
            )
            assert replica.digest == (await status_of(exchange, traded)).digest
            assert list(replica.market.orders) == [
                order.order_id
                for order in (await exchange.orders(traded, page_count=7)).orders  # type: ignore[union-attr]
            ]
            next_one = asyncio.create_task(anext(aiter(replica)))
            await asyncio.sleep(0.1)
            receipt = await exchange.submit(traded, side="sell", quantity=2, price=150)

            assert (await next_one).sequence == receipt.sequence
            assert replica.best_ask == dex_client.BookLevel("150", "2", 1)
            assert replica.divergences == 0


async def test_following_from_what_was_trimmed_names_the_first_commit_there_is(
    venue: Venue, traded: str
) -> None:
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        for number in range(10):
            await exchange.submit(traded, side="buy", quantity=1, price=number + 1)
        async with programs.connected(venue.nodes) as client:
            await client.jsm().purge_stream(f"DEX-LOG-{traded}", seq=8)

        with pytest.raises(LogTrimmed, match="to begin with commit 8") as caught:
            await anext(exchange.events(traded, from_sequence=3))

        assert caught.value.first_sequence == 8
        assert (await anext(exchange.events(traded, from_sequence=8))).sequence == 8


async def test_market_that_is_not_there_cannot_be_followed_nor_traded(
    venue: Venue, traded: str
) -> None:
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        await exchange.status(traded)
        with pytest.raises(UnknownMarket):
            await anext(exchange.events("NO-SUCH-MARKET"))
        with pytest.raises(UnknownMarket):
            await exchange.replica("NO-SUCH-MARKET").__aenter__()
        receipt = await exchange.submit("NO-SUCH-MARKET", side="buy", quantity=1, price=1)

        assert (receipt.status, receipt.reason) == ("rejected", "unknown_market")


# --- What is not known --------------------------------------------------------------------------


async def test_unknown_outcome_is_settled_by_the_same_id_and_executed_once(
    venue: Venue, traded: str
) -> None:
    """A server is stopped with the order in hand, and goes on later (G4, G5)."""
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        await exchange.submit(traded, side="buy", quantity=1, price=1)
        venue.server.send(signal.SIGSTOP)
        try:
            with pytest.raises(OutcomeUnknown) as caught:
                await exchange.submit(traded, side="buy", quantity=2, price=2, deadline_s=1)
        finally:
            venue.server.send(signal.SIGCONT)
        (receipt,) = await exchange.settle(caught.value)
        (again,) = await exchange.settle(caught.value)

    assert receipt.order_id == again.order_id == caught.value.own_id
    assert receipt.status == again.status == "new"
    assert again.duplicate is True
    assert times_accepted(await venue.exchange.log(traded), caught.value.own_id) == 1


async def test_batch_whose_outcome_is_unknown_is_settled_by_another_leader(
    venue: Venue, traded: str
) -> None:
    """A server is stopped with a batch in hand and never comes back (G4)."""
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        await exchange.submit(traded, side="buy", quantity=1, price=1)
        venue.server.send(signal.SIGSTOP)
        with pytest.raises(OutcomeUnknown) as caught:
            await exchange.batch(
                traded,
                [Submit(side="buy", quantity="1", price=str(n)) for n in range(1, 21)],
                deadline_s=1,
            )
        await venue.kill_server()
        venue.restart_server()
        receipts = await exchange.settle(caught.value)

    log = await venue.exchange.log(traded)
    assert [receipt.order_id for receipt in receipts] == caught.value.unknown_ids
    assert {receipt.status for receipt in receipts} == {"new"}
    assert [times_accepted(log, order_id) for order_id in caught.value.unknown_ids] == [1] * 20


async def test_nothing_happens_while_nobody_serves_and_another_node_is_tried(
    venue: Venue, traded: str
) -> None:
    """What was told to be unavailable is not in the book afterwards (G7)."""
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        receipt = await exchange.submit(traded, side="buy", quantity=1, price=1)
        before = exchange.node
        await venue.kill_server()
        try:
            # Long enough for one change of node, which comes after 2 s, the next after 4 more.
            with pytest.raises(Unavailable):
                await exchange.submit(traded, side="buy", quantity=2, price=2, deadline_s=4)
            assert exchange.node != before
            with pytest.raises(Unavailable):
                await exchange.batch(
                    traded, [Submit(side="buy", quantity="1", price="1")], deadline_s=0.5
                )
            with pytest.raises(Unavailable):
                await exchange.book(traded, deadline_s=0.5)
        finally:
            venue.restart_server()
        await venue.led_again(traded)
        book = await exchange.orders(traded, min_sequence=receipt.sequence)

    assert not isinstance(book, Receipt)
    assert [order.order_id for order in book.orders] == [receipt.order_id]


async def test_cancel_all_goes_on_until_there_are_no_more(venue: Venue, traded: str) -> None:
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        receipts = await exchange.batch(
            traded, [Submit(side="buy", quantity="1", price="1") for _ in range(2_100)]
        )

        canceled = await exchange.cancel_all(traded, all_of_them=True)

        assert canceled.canceled == [receipt.order_id for receipt in receipts]
        left = await exchange.orders(traded, min_sequence=canceled.sequence)
        assert not isinstance(left, Receipt)
        assert left.orders == []


# --- The guide ----------------------------------------------------------------------------------


def examples() -> list[str]:
    guide = (DOCS / "CLIENT.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)


async def test_examples_of_the_guide_run(venue: Venue) -> None:
    """They are run one after the other, each with the names of those before it."""
    await venue.exchange.open("BTC-USD")
    names: dict[str, Any] = {}
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        names["exchange"] = exchange
        for example in examples():
            source = example.replace("nats://127.0.0.1:4222", venue.urls)
            code = compile(source, "CLIENT.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result

    assert len(examples()) >= 8


async def test_example_of_the_package_runs(venue: Venue) -> None:
    await venue.exchange.open("BTC-USD")
    assert dex_client.__doc__ is not None
    lines = re.findall(r"^(?:    (.*))?$", dex_client.__doc__, re.MULTILINE)
    source = "\n".join(lines).replace("nats://127.0.0.1:4222", venue.urls)
    path = venue.directory / "example.py"
    path.write_text(source, encoding="utf-8")

    program = venue.start(str(path), name="example")

    assert await program.ended() == 0, program.printed
    assert "order_alice_" in program.printed


async def test_example_that_follows_a_book_shows_it(venue: Venue, traded: str) -> None:
    async with asyncio.timeout(PATIENCE_S), connect(venue.urls, peer="alice") as exchange:
        program = venue.start(
            str(DOCS / "examples" / "follow_book.py"), venue.urls, traded, name="follow_book"
        )
        await program.prints("bid nobody  ask nobody")
        await exchange.submit(traded, side="buy", quantity="0.5", price="99.5")
        await program.prints("bid 0.5 @ 99.5  ask nobody  1 events")
        program.send(signal.SIGINT)

        assert await program.ended() == 0, program.printed
