"""No peer takes more of a server than its share of answers, of places to wait, and of turns."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.queries import LogQuery, SnapshotQuery, StatusQuery
from dex_runtime.messaging import NoReply
from dex_runtime.serving import Incoming
from dex_server.admin import Admin
from dex_server.queries import Queries
from dex_server.replication.effects import Asked
from dex_server.replication.ports import Entry, SnapshotName
from dex_server.shares import LOST_US, ReadTurns, Shares, Unanswered
from tests.contracts.memory import MemorySnapshots, SnapshotsOver
from tests.contracts.snapshot_contract import named

SECOND_US = 1_000_000
BURST = limits.PEER_ANSWERS_BYTES_BURST
PER_SECOND = limits.PEER_ANSWERS_BYTES_PER_SECOND


# --- Shares -------------------------------------------------------------------------------------


def test_peer_is_lent_one_answer_and_waits_until_it_is_paid_back() -> None:
    shares = Shares()
    shares.take("alice", BURST - 1, now=0)
    assert shares.has_some("alice", now=0)
    shares.take("alice", 1 + PER_SECOND // 2, now=0)

    assert not shares.has_some("alice", now=0)
    assert not shares.has_some("alice", now=SECOND_US // 2)
    assert shares.has_some("alice", now=SECOND_US // 2 + 1)
    assert shares.has_some("bob", now=0)


def test_time_without_answers_counts_only_once() -> None:
    shares = Shares()
    shares.take("bob", BURST, now=0)
    shares.take("bob", 0, now=SECOND_US)
    shares.take("bob", PER_SECOND, now=SECOND_US)

    assert not shares.has_some("bob", now=SECOND_US)


def test_peers_are_forgotten_when_they_have_paid_everything_back() -> None:
    shares = Shares()
    for number in range(100):
        shares.take(f"peer-{number}", PER_SECOND, now=0)
    shares.take("debtor", BURST + PER_SECOND, now=0)
    shares.take("alice", 1, now=SECOND_US // 2)
    assert len(shares) == 102

    assert shares.has_some("bob", now=SECOND_US)
    assert len(shares) == 2
    assert not shares.has_some("debtor", now=SECOND_US)


def test_peers_beyond_those_that_are_remembered_share_one_share() -> None:
    shares = Shares()
    for number in range(limits.PEERS_ANSWERED_COUNT_MAX):
        shares.take(f"peer-{number}", PER_SECOND, now=0)
    shares.take("alice", BURST, now=0)

    assert len(shares) == limits.PEERS_ANSWERED_COUNT_MAX
    assert not shares.has_some("alice", now=0)
    assert not shares.has_some("bob", now=0)
    assert shares.has_some("peer-0", now=0)
    assert shares.has_some("bob", now=1)
    # There is room again.
    shares.take("bob", BURST, now=SECOND_US)
    assert len(shares) == 1
    assert shares.has_some("alice", now=SECOND_US)


def test_places_of_queries_that_nobody_answers_are_forgotten() -> None:
    places = Unanswered()
    for number in range(100):
        assert places.take(f"peer-{number}", now=number)
    for number in range(50):
        places.give_back(f"peer-{number}")
    assert len(places) == 50

    assert places.take("alice", now=LOST_US + 98)
    assert len(places) == 2
    places.give_back("peer-50")
    places.give_back("alice")
    assert len(places) == 1


# --- Turns to read ------------------------------------------------------------------------------


class Takers:
    """Who takes turns, in which order they got them."""

    def __init__(self, turns: ReadTurns) -> None:
        self.turns = turns
        self.got: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, *peers: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._take(peer)) for peer in peers]
        self._tasks += tasks
        await settled()
        return tasks

    async def _take(self, peer: str) -> None:
        await self.turns.take(peer)
        self.got.append(peer)

    async def give_back(self, peer: str) -> None:
        self.turns.give_back(peer)
        await settled()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def takers() -> AsyncIterator[Takers]:
    takers = Takers(ReadTurns(4, peer_count_max=2))
    yield takers

    await takers.end()


async def test_a_peer_has_two_turns_at_a_time_and_leaves_the_others_to_others(
    takers: Takers,
) -> None:
    await takers.ask("alice", "alice", "alice", "bob", "carol", "bob")
    assert takers.got == ["alice", "alice", "bob", "carol"]

    await takers.give_back("carol")
    assert takers.got[4:] == ["bob"]
    await takers.give_back("bob")
    assert takers.got[5:] == []
    await takers.give_back("alice")
    assert takers.got[5:] == ["alice"]


async def test_peers_that_wait_are_served_one_after_another(takers: Takers) -> None:
    await takers.ask("zoe", "zoe", "yves", "yves")
    await takers.ask("alice", "alice", "alice", "bob", "bob", "carol")
    for peer in ("zoe", "yves", "zoe", "yves"):
        await takers.give_back(peer)
    assert takers.got[4:] == ["alice", "bob", "carol", "alice"]

    for peer in ("alice", "bob"):
        await takers.give_back(peer)
    assert takers.got[8:] == ["bob", "alice"]


async def test_who_is_canceled_has_no_turn_and_leaves_none_unused(takers: Takers) -> None:
    await takers.ask("zoe", "zoe", "yves", "yves")
    first, second, third = await takers.ask("alice", "alice", "bob")
    # One in the moment before its turn, one in the very moment.
    first.cancel()
    takers.turns.give_back("zoe")
    second.cancel()
    await settled()
    assert (first.cancelled(), second.cancelled()) == (True, True)

    assert takers.got[4:] == ["bob"]
    await takers.ask("carol")
    await takers.give_back("bob")
    assert takers.got[5:] == ["carol"]
    assert third.done()


# --- Queries ------------------------------------------------------------------------------------


class Reply:
    """Where an answer goes."""

    def __init__(self) -> None:
        self.answer: Any = None

    def send(self, payload: bytes) -> None:
        self.answer = msgspec.json.decode(payload)


class Log:
    """A log of long commits, which are given when the test says so."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.reads = 0

    async def bounds(self) -> tuple[int, int]:
        return 1, 1_000

    async def read(
        self, from_sequence: int, *, through_sequence: int, bytes_max: int
    ) -> list[Entry]:
        self.reads += 1
        await self.is_open.wait()
        return [Entry(from_sequence, b"x" * bytes_max, 0)]


class Stored:
    """How far a replica is, and its log; see `Driver`."""

    def __init__(self) -> None:
        self.replica = SimpleNamespace(name="BTC-USD", stored=1_000)
        self.log = Log()
        self.given: list[Asked] = []

    def give(self, asked: Asked) -> None:
        self.given.append(asked)


class Held:
    """One market, and names that are not there; see `Markets`."""

    def __init__(self) -> None:
        self.drivers = {"BTC-USD": Stored()}
        self.looks = 0
        self.is_found = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, market: str) -> Stored | None:
        self.looks += 1
        await self.is_found.wait()
        return None

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Loads(SnapshotsOver):
    """Snapshots, and how often one was fetched."""

    def __init__(self) -> None:
        super().__init__(MemorySnapshots())
        self.count = 0

    async def load(self, name: SnapshotName) -> bytes:
        self.count += 1
        return await super().load(name)


class Server:
    """The queries of a server, with a clock that stands still."""

    def __init__(self, markets: Held) -> None:
        self.markets = markets
        self.stored = markets.drivers["BTC-USD"]
        self.now = 0
        self.snapshots = Loads()
        self._queries = Queries(markets, self.snapshots, now_us=lambda: self.now)  # type: ignore[arg-type]

    def ask(self, what: str, peer: str, query: Any = None, *, market: str = "BTC-USD") -> Reply:
        reply = Reply()
        payload = b"" if query is None else encode(query)
        subject = f"dex.query.{market}.{what}.{peer}"
        self._queries.on_request(Incoming(subject, payload, reply))  # type: ignore[arg-type]
        return reply

    def ask_for_log(self, peer: str) -> Reply:
        return self.ask("log", peer, LogQuery(from_sequence=1))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    markets = Held()
    yield Server(markets)

    await markets.end()


async def pull(server: Server, peer: str) -> int:
    """Ask for the log until it is limited; tell how many answers there were before."""
    count = 0
    while True:
        reply = server.ask_for_log(peer)
        await settled()
        if "reason" in reply.answer:
            assert reply.answer["status"] == "retry"
            assert reply.answer["reason"] == "rate_limited"
            assert f"at most {PER_SECOND} bytes" in reply.answer["message"]
            return count
        count += 1


async def test_peer_that_pulls_the_log_is_limited_and_costs_nothing_more(server: Server) -> None:
    counted = limits.REPLY_BYTES_MAX + limits.READ_BYTES_MIN
    pages = await pull(server, "alice")
    assert BURST - counted < pages * counted < BURST + counted
    reads = server.stored.log.reads
    for what in ("log", "status", "nonsense"):
        refused = server.ask(what, "alice")
        await settled()
        assert refused.answer["reason"] == "rate_limited"
    assert (server.stored.log.reads, server.stored.given) == (reads, [])

    other = server.ask_for_log("bob")
    await settled()
    assert len(other.answer["commits"]) == 1
    server.now += SECOND_US
    again = await pull(server, "alice")
    assert PER_SECOND - 2 * counted < again * counted < PER_SECOND + counted


async def test_snapshots_are_fetched_once_and_paid_for_in_full(server: Server) -> None:
    """However small the part is that is asked for, and whichever of the two it is of."""
    for sequence in (10, 20):
        data = b"x" * (BURST // 2)
        await server.snapshots.save(named("BTC-USD", sequence, data), data)

    async def ask(peer: str, sequence: int) -> dict[str, Any]:
        query = SnapshotQuery(snapshot_sequence=sequence, part=999_999)
        reply = server.ask("snapshot", peer, query)
        await settled()
        return reply.answer

    told = [await ask("alice", sequence) for sequence in (10, 20, 10, 20)]
    assert [answer["reason"] for answer in told] == ["malformed"] * 2 + ["rate_limited"] * 2
    again = [await ask("bob", sequence) for sequence in (10, 20) * 10]
    assert {answer["reason"] for answer in again} == {"malformed"}
    assert server.snapshots.count == 2


async def test_answers_about_the_state_count_too(server: Server) -> None:
    server.ask("book", "alice")
    (asked,) = server.stored.given
    asked.reply_to.send(encode({"bids": "x" * BURST}))
    refused = server.ask("book", "alice")
    await settled()

    assert refused.answer["reason"] == "rate_limited"
    assert len(server.stored.given) == 1


async def test_short_answers_count_as_more_than_they_are(server: Server) -> None:
    for _ in range(BURST // limits.ANSWER_BYTES_MIN):
        answered = server.ask("nonsense", "alice")
        await settled()
        assert answered.answer["reason"] == "unknown_value"
    refused = server.ask("status", "alice")
    await settled()

    assert refused.answer["reason"] == "rate_limited"


async def test_queries_that_are_not_answered_are_bounded_whatever_they_wait_for(
    server: Server,
) -> None:
    for _ in range(limits.PEER_UNANSWERED_COUNT_MAX):
        server.ask("book", "alice")
    beyond = server.ask("book", "alice")
    server.ask("book", "bob")
    await settled()
    assert beyond.answer["reason"] == "rate_limited"
    assert len(server.stored.given) == limits.PEER_UNANSWERED_COUNT_MAX + 1

    server.stored.given[0].reply_to.send(b"{}")
    server.ask("book", "alice")
    assert len(server.stored.given) == limits.PEER_UNANSWERED_COUNT_MAX + 2
    # The others are never answered, as by a leader that was deposed.
    server.now += LOST_US
    server.ask("book", "alice")
    assert len(server.stored.given) == limits.PEER_UNANSWERED_COUNT_MAX + 3


async def test_peer_that_asks_at_once_is_lent_two_reads_at_most(server: Server) -> None:
    """Others of its queries that had a place to wait are told to come again."""
    await pull(server, "alice")
    # A page and a half.
    server.now += SECOND_US // 20
    log = server.stored.log
    log.is_open.clear()
    replies = [server.ask_for_log("alice") for _ in range(limits.PEER_QUERIES_COUNT_MAX)]
    reads = log.reads
    await settled()
    assert log.reads - reads == limits.PEER_READS_COUNT_MAX

    log.is_open.set()
    for _ in range(limits.PEER_QUERIES_COUNT_MAX):
        await settled()
    answered = [reply for reply in replies if "commits" in reply.answer]
    assert len(answered) == limits.PEER_READS_COUNT_MAX
    others = [reply.answer["reason"] for reply in replies if reply not in answered]
    assert set(others) == {"rate_limited"}


async def test_peer_whose_reads_wait_leaves_turns_and_places_to_others(server: Server) -> None:
    """Another one's read begins while it waits for its own (G21)."""
    log = server.stored.log
    log.is_open.clear()
    waiting = [server.ask_for_log("alice") for _ in range(limits.PEER_QUERIES_COUNT_MAX)]
    beyond = server.ask_for_log("alice")
    await settled()
    assert beyond.answer["reason"] == "rate_limited"
    assert log.reads == limits.PEER_READS_COUNT_MAX

    other = server.ask_for_log("bob")
    await settled()
    assert log.reads == limits.PEER_READS_COUNT_MAX + 1
    log.is_open.set()
    await settled()
    assert "commits" in other.answer
    for _ in waiting:
        await settled()
    assert all(reply.answer is not None for reply in waiting)
    # All places are free again.
    log.is_open.clear()
    more = [server.ask_for_log("carol") for _ in range(limits.PEER_QUERIES_COUNT_MAX)]
    await settled()
    assert [reply.answer for reply in more] == [None] * len(more)


async def test_log_that_is_not_known_any_more_when_its_turn_comes_is_unavailable_not_empty(
    server: Server,
) -> None:
    """A server that stood still answers all that waited for it, and learns that it is outrun."""
    log = server.stored.log
    log.is_open.clear()
    for _ in range(limits.PEER_READS_COUNT_MAX):
        server.ask_for_log("alice")
    waiting = server.ask_for_log("alice")
    await settled()
    server.stored.replica.stored = 0

    log.is_open.set()
    await settled()

    assert waiting.answer["status"] == "retry"
    assert waiting.answer["reason"] == "unavailable"


async def test_many_peers_together_are_busy(server: Server) -> None:
    server.stored.log.is_open.clear()
    for number in range(limits.WAITING_QUERIES_COUNT_MAX // limits.PEER_QUERIES_COUNT_MAX):
        for _ in range(limits.PEER_QUERIES_COUNT_MAX):
            server.ask_for_log(f"peer-{number}")
    refused = server.ask_for_log("alice")
    await settled()

    assert refused.answer["reason"] == "busy"


async def test_names_that_do_not_exist_are_looked_up_for_a_peer_only_so_often(
    server: Server,
) -> None:
    server.markets.is_found.set()
    replies = []
    for number in range(10_000):
        replies.append(server.ask("status", "alice", StatusQuery(), market=f"NO-{number}"))
        if number % limits.PEER_QUERIES_COUNT_MAX == 0:
            await settled()
    await settled()
    reasons = [reply.answer["reason"] for reply in replies]

    assert server.markets.looks == reasons.count("unknown_market")
    assert 0 < server.markets.looks <= BURST // limits.READ_BYTES_MIN
    assert set(reasons) == {"unknown_market", "rate_limited"}
    other = server.ask("status", "bob", market="NO-1")
    await settled()
    assert other.answer["reason"] == "unknown_market"


async def test_a_flood_of_names_waits_in_places_of_its_peer_only(server: Server) -> None:
    replies = [server.ask("status", "alice", market=f"NO-{number}") for number in range(10_000)]
    await settled()

    assert server.markets.looks == limits.PEER_QUERIES_COUNT_MAX
    assert replies[-1].answer["reason"] == "rate_limited"
    assert server.ask("status", "bob").answer is None
    assert len(server.stored.given) == 1


async def test_who_cannot_be_a_peer_is_refused_and_not_remembered(server: Server) -> None:
    refused = [server.ask("status", f"a:{number}") for number in range(10)]
    await settled()

    assert {reply.answer["reason"] for reply in refused} == {"malformed"}
    assert len(server._queries._shares) == 0


# --- Operators ----------------------------------------------------------------------------------


class Deaf:
    """A leader that takes its time; see `Requester`."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        self.asked += 1
        await self.answers.wait()
        raise NoReply(subject)


@pytest.fixture
def hand_on(server: Server) -> Callable[[Deaf], Callable[[], Reply]]:
    """Give a function that asks something of a leader elsewhere, as an operator."""

    class replica:
        role = "follower"
        server = "server-1"

        class standing:
            leader = "server-2"
            market = "BTC-USD"

    def over(requester: Deaf) -> Callable[[], Reply]:
        async def find(market: str) -> Stored:
            return server.stored

        server.stored.replica = replica  # type: ignore[assignment,misc]
        server.markets.find = find  # type: ignore[method-assign]
        admin = Admin(server.markets, requester)  # type: ignore[arg-type]

        def halt() -> Reply:
            reply = Reply()
            admin.on_request(Incoming("dex.admin.BTC-USD.halt", b"", reply))  # type: ignore[arg-type]
            return reply

        return halt

    return over


async def test_operators_requests_under_way_are_bounded(
    hand_on: Callable[[Deaf], Callable[[], Reply]],
) -> None:
    leader = Deaf()
    halt = hand_on(leader)
    under_way = [halt() for _ in range(limits.ADMINISTERED_COUNT_MAX)]
    beyond = halt()
    await settled()
    assert (beyond.answer["status"], beyond.answer["reason"]) == ("retry", "busy")
    assert leader.asked == limits.ADMINISTERED_COUNT_MAX

    leader.answers.set()
    await settled()
    assert [reply.answer for reply in under_way] == [None] * len(under_way)
    again = halt()
    await settled()
    assert again.answer is None
    assert leader.asked == limits.ADMINISTERED_COUNT_MAX + 1
