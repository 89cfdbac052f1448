"""Whatever is lost, late, double or made up: each commit comes once, in order, and the book."""

import asyncio
import gc
import logging
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dex_client import events as following
from dex_client import replica as replicas
from dex_client.chain import Chain
from dex_client.errors import (
    BookUnavailable,
    LogTrimmed,
    ProtocolMismatch,
    Unavailable,
    UnknownMarket,
    Unreachable,
)
from dex_client.events import Events
from dex_client.queries import Queries
from dex_client.replica import Divergence, Replica
from dex_client.retry import Policy
from dex_engine import Market
from dex_protocol.codec import decode_as, decode_commit, encode
from dex_protocol.events import LeaderChanged
from dex_protocol.queries import BookLevel, LogQuery, LogReply
from dex_protocol.reasons import Reason
from dex_protocol.receipts import refused
from dex_runtime.messaging import NoResponder
from tests.builders import NOW, a_market, a_specification, buy, seal, sell, send
from tests.unit.client import exchange as fakes

MARKET = "BTC-USD"
LONG_S = 30.0


def a_log(count: int) -> list[bytes]:
    """A log of so many commits, from the first on."""
    market = Market(MARKET)
    opened = market.open(a_specification(), log_id="log", time=NOW)
    led = market.lead(server="server-1", term=1, protocol=1, rules=1, time=NOW)
    log = [seal(market, opened + led)]
    while len(log) < count:
        number = len(log)
        log.append(send(market, (buy if number % 3 else sell)("1 @ 100", number)))
    return log


def changed(payload: bytes, **fields: Any) -> bytes:
    commit = decode_commit(payload)
    for name, value in fields.items():
        setattr(commit, name, value)
    return encode(commit)


# --- The chain ----------------------------------------------------------------------------------


def taken(chain: Chain) -> list[int]:
    sequences = []
    while (commit := chain.take()) is not None:
        sequences.append(commit.sequence)
    return sequences


def hear(chain: Chain, log: list[bytes], *sequences: int) -> None:
    for sequence in sequences:
        chain.hear(log[sequence - 1])


def test_commits_heard_in_order_are_given() -> None:
    log = a_log(5)
    chain = Chain(MARKET, 1)
    hear(chain, log, 1, 2, 3, 4, 5)

    assert taken(chain) == [1, 2, 3, 4, 5]
    assert chain.missing == 0


def test_commit_has_its_bytes_and_what_they_say() -> None:
    log = a_log(2)
    chain = Chain(MARKET, 2)
    hear(chain, log, 2)
    commit = chain.take()

    assert commit is not None
    assert commit.payload == log[1]
    assert commit.events == decode_commit(log[1]).events
    assert repr(commit) == "StoredCommit(BTC-USD 2, 1 events)"


def test_what_was_given_is_not_given_again() -> None:
    log = a_log(4)
    chain = Chain(MARKET, 3)
    hear(chain, log, 1, 2, 3, 3, 2, 4, 1, 4)

    assert taken(chain) == [3, 4]


def test_gap_is_missing_until_it_is_read() -> None:
    log = a_log(6)
    chain = Chain(MARKET, 1)
    hear(chain, log, 1, 5, 6)

    assert taken(chain) == [1]
    assert (chain.next_sequence, chain.missing) == (2, 3)
    chain.read(log[1:3])
    assert taken(chain) == [2, 3]
    assert chain.missing == 1
    chain.read(log[3:4])
    assert taken(chain) == [4, 5, 6]
    assert chain.missing == 0


def test_end_that_was_lost_is_missing_when_it_is_told() -> None:
    log = a_log(3)
    chain = Chain(MARKET, 1)
    hear(chain, log, 1)
    chain.tell(3)
    chain.tell(2)

    assert taken(chain) == [1]
    assert chain.missing == 2


def test_commit_that_does_not_follow_is_not_believed() -> None:
    log = a_log(3)
    chain = Chain(MARKET, 1)
    hear(chain, log, 1)
    chain.hear(changed(log[1], previous="0" * 32))

    assert taken(chain) == [1]
    assert chain.missing == 1
    chain.read(log[1:2])
    hear(chain, log, 3)
    assert taken(chain) == [2, 3]


@pytest.mark.parametrize(
    "noise", [b"", b"\xff", b"[]", encode({"sequence": 2}), changed(a_log(2)[1], market="OTHER")]
)
def test_noise_is_passed_over(noise: bytes) -> None:
    log = a_log(2)
    chain = Chain(MARKET, 1)
    hear(chain, log, 1)
    chain.hear(noise)
    hear(chain, log, 2)

    assert taken(chain) == [1, 2]


def test_made_up_future_blocks_nothing() -> None:
    log = a_log(3)
    chain = Chain(MARKET, 1)
    chain.hear(changed(log[1], sequence=10**12))
    hear(chain, log, 1, 2, 3)

    assert taken(chain) == []
    assert chain.missing > 0
    chain.disbelieve()
    assert taken(chain) == [1, 2, 3]
    assert chain.missing == 0


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"previous": "0" * 32}, "previous"),
        ({"sequence": 3}, "sequence"),
        ({"market": "OTHER"}, "market"),
    ],
)
def test_log_that_does_not_fit_is_an_error(fields: dict[str, Any], what: str) -> None:
    log = a_log(2)
    chain = Chain(MARKET, 1)
    hear(chain, log, 1)
    assert taken(chain) == [1]
    chain.read([changed(log[1], **fields)])

    with pytest.raises(ProtocolMismatch, match=f"commit 2 of the log of BTC-USD: expected {what}"):
        chain.take()
    chain.read(log[1:])
    assert taken(chain) == [2]


def test_log_that_cannot_be_read_is_an_error() -> None:
    chain = Chain(MARKET, 1)
    chain.read([b"{}"])

    with pytest.raises(ProtocolMismatch):
        chain.take()


def test_leader_of_another_protocol_is_an_error() -> None:
    (opened,) = a_log(1)
    events = decode_commit(opened).events
    events[1] = LeaderChanged(server="s", term=1, protocol=2, rules=1)
    chain = Chain(MARKET, 1)
    chain.hear(changed(opened, events=events))

    with pytest.raises(ProtocolMismatch, match="expected protocol 1, found protocol 2"):
        chain.take()


@pytest.mark.parametrize("bound", [{"heard_count_max": 2}, {"heard_bytes_max": 700}])
def test_buffer_is_bounded_and_says_that_it_dropped(bound: dict[str, int]) -> None:
    log = a_log(9)
    chain = Chain(MARKET, 2, **bound)
    hear(chain, log, *range(2, 10))

    given = taken(chain)
    assert 0 < len(given) < 8
    assert chain.has_dropped
    hear(chain, log, 9)
    assert taken(chain) == []
    assert chain.missing == 9 - chain.next_sequence


@pytest.mark.parametrize("seed", range(50))
def test_any_mess_comes_out_as_the_log(seed: int) -> None:
    random = Random(seed)
    log = a_log(40)
    chain = Chain(MARKET, 1, heard_count_max=random.choice([3, 100]))
    given: list[bytes] = []
    heard = 0
    while len(given) < len(log):
        for _ in range(random.randrange(5)):
            match random.randrange(10):
                case 0 | 1:
                    heard += 1
                case 2:
                    hear(chain, log, random.randint(1, max(min(heard, 40), 1)))
                case 3:
                    chain.hear(changed(random.choice(log), previous="f" * 32))
                case 4:
                    chain.hear(b"noise")
                case _ if heard < len(log):
                    heard += 1
                    hear(chain, log, heard)
        commit = chain.take()
        if commit is not None:
            given.append(commit.payload)
        elif chain.missing:
            first = chain.next_sequence - 1
            page = log[first : first + min(chain.missing, random.randint(1, 7))]
            if page and random.random() < 0.9:
                chain.read(page)
            else:
                chain.disbelieve()
        elif heard >= len(log):
            chain.tell(len(log))

    assert given == log


# --- The iterator -------------------------------------------------------------------------------


class Listener:
    """A subscription that remembers whether it was stopped."""

    def __init__(self, on_message: Callable[[bytes], bool]) -> None:
        self.on_message = on_message
        self.is_stopped = False

    async def stop(self) -> None:
        self.is_stopped = True


class Venue:
    """A market whose commits are stored, broadcast or lost as the test says."""

    def __init__(self, *, snapshot: bool = False) -> None:
        self.log = a_log(1)
        self.market = a_market()
        self.queries = fakes.Replica(self.market, self.log)
        self.queries.page_count = 1_000
        self.queries.part_bytes = 100_000
        self.listeners: list[Listener] = []
        self.first_sequence = 1
        self.is_closed = self.is_lost = False
        self.serves = True
        # Hooked in before a query is answered.
        self.before: Callable[[str], None] = lambda what: None

    # --- As the server --------------------------------------------------------------------------

    def store(self, count: int = 1) -> list[bytes]:
        """Store commits that nobody hears of."""
        for _ in range(count):
            number = self.market.sequence
            self.log.append(send(self.market, (buy if number % 3 else sell)("1 @ 100", number)))
        return self.log[-count:]

    def broadcast(self, *payloads: bytes) -> None:
        for payload in payloads:
            for listener in self.listeners:
                if not listener.is_stopped:
                    listener.is_stopped = not listener.on_message(payload)

    def trade(self, count: int = 1) -> None:
        for _ in range(count):
            self.broadcast(*self.store())

    def takes_snapshot(self) -> None:
        self.queries.snapshot = self.market.snapshot()

    # --- As the link ----------------------------------------------------------------------------

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        await asyncio.sleep(0)
        what = subject.split(".")[3]
        self.before(what)
        if not self.serves:
            raise NoResponder("503")
        if what == "log":
            query = decode_as(payload, LogQuery)
            assert isinstance(query, LogQuery)
            first = max(query.from_sequence, self.first_sequence)
            commits = [each.decode() for each in self.log[first - 1 :][: self.queries.page_count]]
            self.queries.asked.append(what)
            return encode(
                LogReply(
                    sequence=len(self.log), first_sequence=self.first_sequence, commits=commits
                )
            )
        return await self.queries.request(subject, payload, timeout_s=timeout_s)

    async def listen(
        self, subject: str, *, on_message: Callable[[bytes], bool], follower: Any
    ) -> Listener:
        assert subject == f"dex.events.{MARKET}"
        self.listeners.append(Listener(on_message))
        return self.listeners[-1]

    # --- As the exchange ------------------------------------------------------------------------

    def asks(self, deadline_s: float) -> Queries:
        policy = Policy(deadline_s=deadline_s, attempt_min_s=0.01, pause_min_s=0.001)
        return Queries(self, "alice", policy=policy, random=Random(1))

    def events(self, from_sequence: int | None = None) -> Events:
        return Events(
            self,  # type: ignore[arg-type]
            MARKET,
            first=self.asks(0.1),
            later=self.asks(0.05),
            from_sequence=from_sequence,
        )

    def replica(self, on_divergence: Callable[[Divergence], None] | None = None) -> Replica:
        return Replica(
            MARKET, queries=self.asks(0.1), follow=self.events, on_divergence=on_divergence
        )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SILENCE_S", 0.01)
    monkeypatch.setattr(replicas, "PAUSE_MIN_S", 0.001)


async def next_ones(events: Events, count: int) -> list[int]:
    async with asyncio.timeout(LONG_S):
        return [(await anext(events)).sequence for _ in range(count)]


async def test_iterator_begins_after_the_newest_commit() -> None:
    venue = Venue()
    venue.trade(4)
    async with venue.events() as events:
        venue.trade(3)

        assert await next_ones(events, 3) == [6, 7, 8]
    assert venue.queries.asked == ["status"]


async def test_iterator_begins_where_it_is_told_to() -> None:
    venue = Venue()
    venue.trade(9)
    async with venue.events(3) as events:
        venue.trade(2)

        assert await next_ones(events, 10) == list(range(3, 13))


async def test_commit_stored_while_it_begins_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "SILENCE_S", LONG_S * 10)
    venue = Venue()
    whole = venue.request

    async def traded_after(subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        reply = await whole(subject, payload, timeout_s=timeout_s)
        if venue.market.sequence == 1:
            venue.trade()
        return reply

    venue.request = traded_after  # type: ignore[method-assign]

    assert await next_ones(venue.events(), 1) == [2]


async def test_gap_is_read_from_the_log() -> None:
    venue = Venue()
    async with venue.events() as events:
        venue.trade()
        venue.store(5)
        venue.trade()

        assert await next_ones(events, 7) == list(range(2, 9))
    assert venue.queries.asked == ["status", "log"]


async def test_lost_end_is_found_by_asking_after_a_silence() -> None:
    venue = Venue()
    async with venue.events() as events:
        venue.store(3)

        assert await next_ones(events, 3) == [2, 3, 4]


async def test_reconnection_asks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SILENCE_S", LONG_S * 10)
    venue = Venue()
    async with venue.events() as events:
        venue.store(2)
        events.reconnected()

        assert await next_ones(events, 2) == [2, 3]


async def test_pages_are_read_one_after_the_other() -> None:
    venue = Venue()
    venue.store(20)
    venue.queries.page_count = 3

    assert await next_ones(venue.events(1), 21) == list(range(1, 22))
    assert venue.queries.asked.count("log") == 7


async def test_what_finds_no_room_is_read_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SILENCE_S", LONG_S * 10)
    venue = Venue()
    async with venue.events() as events:
        assert events._chain is not None
        events._chain._heard_count_max = 5
        venue.trade(50)

        assert await next_ones(events, 50) == list(range(2, 52))


async def test_nobody_to_ask_is_waited_for() -> None:
    venue = Venue()
    async with venue.events() as events:
        venue.store()
        venue.serves = False
        waiting = asyncio.create_task(next_ones(events, 1))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        venue.serves = True

        assert await waiting == [2]


async def test_made_up_broadcasts_change_nothing() -> None:
    venue = Venue()
    async with venue.events() as events:
        (commit,) = venue.store()
        venue.broadcast(changed(commit, sequence=10**9), b"noise", commit)
        venue.trade(2)

        assert await next_ones(events, 3) == [2, 3, 4]


async def test_waiting_may_be_canceled_and_gone_on_with() -> None:
    venue = Venue()
    async with venue.events() as events:
        for expected in range(2, 30):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await anext(events)
            (venue.trade if expected % 2 else venue.store)()

            assert await next_ones(events, 1) == [expected]


async def test_market_that_nobody_serves_cannot_be_begun_with() -> None:
    venue = Venue()
    venue.serves = False
    events = venue.events()

    with pytest.raises(Unavailable):
        await anext(events)
    venue.serves = True
    venue.store()
    assert len(venue.listeners) == 1
    await events.aclose()
    assert venue.listeners[0].is_stopped


async def test_market_that_is_not_there_cannot_be_followed() -> None:
    venue = Venue()
    venue.queries.instead = [encode(refused(Reason.unknown_market))]

    with pytest.raises(UnknownMarket):
        await anext(venue.events())


async def test_trimmed_log_names_its_first_commit() -> None:
    venue = Venue()
    venue.store(9)
    venue.first_sequence = 5

    with pytest.raises(LogTrimmed, match="from commit 2 on, found it to begin with commit 5"):
        await anext(venue.events(2))
    assert await next_ones(venue.events(5), 6) == list(range(5, 11))


async def test_iteration_ends_when_the_exchange_is_closed() -> None:
    venue = Venue()
    events = venue.events()
    waiting = asyncio.create_task(anext(events, None))
    await asyncio.sleep(0.02)
    venue.is_closed = True
    events.reconnected()

    async with asyncio.timeout(LONG_S):
        assert await waiting is None


async def test_iteration_fails_when_no_node_will_have_us() -> None:
    venue = Venue()
    async with venue.events() as events:
        venue.is_closed = venue.is_lost = True

        with pytest.raises(Unreachable):
            await anext(events)


async def test_iterator_that_nobody_has_any_more_stops_listening() -> None:
    venue = Venue()
    venue.store()
    async for _ in venue.events(1):
        break
    gc.collect()
    (listener,) = venue.listeners
    assert not listener.is_stopped
    venue.trade()

    assert listener.is_stopped


@pytest.mark.parametrize("seed", range(10))
async def test_any_loss_comes_out_as_the_log(seed: int) -> None:
    """Broadcasts are lost, doubled and out of order, as Hypothesis likes (G11)."""
    venue = Venue()
    random = Random(seed)

    async def trade() -> None:
        for _ in range(60):
            match random.randrange(6):
                case 0:
                    venue.store(random.randrange(4))
                case 1:
                    events.reconnected()
                case 2:
                    venue.broadcast(random.choice(venue.log))
                case 3:
                    venue.broadcast(changed(venue.store()[0], previous="e" * 32))
                case _:
                    venue.trade()
            if random.random() < 0.3:
                await asyncio.sleep(random.random() / 100)
        # So that there is something to wait for until all is done.
        venue.store()

    async with venue.events(1) as events, asyncio.timeout(LONG_S):
        trading = asyncio.create_task(trade())
        given = []
        while not (trading.done() and len(given) == len(venue.log)):
            given.append((await anext(events)).payload)
            await asyncio.sleep(0)
        await trading

    assert given == venue.log


# --- The replica --------------------------------------------------------------------------------


async def test_replica_is_the_book_from_the_first_commit_on() -> None:
    venue = Venue()
    venue.store(10)
    async with venue.replica() as replica:
        assert (replica.sequence, replica.digest) == (11, venue.market.digest)
        venue.trade(10)
        venue.store(1)
        async with asyncio.timeout(LONG_S):
            await replica.wait_for(22)

        assert replica.digest == venue.market.digest
        assert replica.market.orders.keys() == venue.market.orders.keys()
        assert replica.divergences == 0


async def test_replica_begins_with_the_snapshot() -> None:
    venue = Venue()
    venue.store(10)
    venue.takes_snapshot()
    venue.store(3)
    asked: list[str] = []
    venue.before = asked.append
    async with venue.replica() as replica:
        assert (replica.sequence, replica.digest) == (14, venue.market.digest)
    assert asked == ["snapshot", "status", "status", "log"]


async def test_replica_shows_prices_as_the_wire_does() -> None:
    venue = Venue()
    for number, made in enumerate(
        [buy("1.5 @ 99.5", 901), buy("2 @ 99.5", 902), buy("1 @ 98", 903), sell("3 @ 101", 904)]
    ):
        assert venue.market.sequence == number + 1
        venue.log.append(send(venue.market, made))
    async with venue.replica() as replica:
        assert replica.best_bid == BookLevel("99.5", "3.5", 2)
        assert replica.best_ask == BookLevel("101", "3", 1)
        depth = replica.depth(2)
        assert depth.sequence == 5
        assert depth.bids == [BookLevel("99.5", "3.5", 2), BookLevel("98", "1", 1)]
        assert depth.asks == [BookLevel("101", "3", 1)]
        assert replica.depth(1).bids == [BookLevel("99.5", "3.5", 2)]


async def test_empty_book_has_no_best_price() -> None:
    async with Venue().replica() as replica:
        assert (replica.best_bid, replica.best_ask) == (None, None)


async def test_commits_are_given_when_they_are_in_the_book() -> None:
    venue = Venue()
    async with venue.replica() as replica, asyncio.timeout(LONG_S):
        given: list[int] = []

        async def take() -> None:
            async for commit in replica:
                assert replica.sequence >= commit.sequence
                given.append(commit.sequence)
                if len(given) == 20:
                    return

        taking = asyncio.create_task(take())
        await asyncio.sleep(0.01)
        for _ in range(10):
            venue.trade()
            venue.store()
            await asyncio.sleep(0.001)
        await taking

    assert given == list(range(2, 22))


def wrong_digest(payload: bytes) -> bytes:
    return changed(payload, digest="0123456789abcdef")


def impossible(payload: bytes) -> bytes:
    return payload.replace(b'"price":"100"', b'"price":"100.00001"')


def a_lie(venue: Venue, forge: Callable[[bytes], bytes]) -> bytes:
    """Store a commit, and have it told otherwise, to whoever reads the log too; give it."""
    (commit,) = venue.store()
    venue.log[-1] = forge(commit)
    venue.broadcast(venue.log[-1])
    return commit


@pytest.mark.parametrize("forge", [wrong_digest, impossible])
@pytest.mark.parametrize("has_snapshot", [True, False])
async def test_replica_that_differs_says_so_and_heals(
    forge: Callable[[bytes], bytes], has_snapshot: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Its book is the market's again, from a snapshot or from the log (G15)."""
    venue = Venue()
    venue.store(5)
    if has_snapshot:
        venue.takes_snapshot()
    told: list[Divergence] = []

    def on_divergence(divergence: Divergence) -> None:
        told.append(divergence)
        venue.log[6] = commit

    async with venue.replica(on_divergence) as replica, asyncio.timeout(LONG_S):
        commit = a_lie(venue, forge)
        venue.trade(3)
        await replica.wait_for(10)

        assert replica.digest == venue.market.digest
        assert replica.divergences == 1
        assert told == [replica.last_divergence]
        assert told[0].sequence == 7
        assert replica.market.orders.keys() == venue.market.orders.keys()
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "the replica of BTC-USD differs at commit 7" in record.getMessage()


@pytest.mark.parametrize("forge", [wrong_digest, impossible])
@pytest.mark.parametrize("times", [1, 5])
async def test_made_up_commit_that_fits_the_chain_changes_nothing(
    forge: Callable[[bytes], bytes], times: int
) -> None:
    """The log has another one there, and that is the truth."""
    venue = Venue()
    venue.store(5)
    told: list[Divergence] = []
    async with venue.replica(told.append) as replica, asyncio.timeout(LONG_S):
        for _ in range(times):
            (commit,) = venue.store()
            venue.broadcast(forge(commit))
            venue.trade(3)
            await replica.wait_for(venue.market.sequence)

            assert replica.digest == venue.market.digest
        assert replica.market.orders.keys() == venue.market.orders.keys()
    assert (told, replica.divergences) == ([], 0)


async def test_made_up_commit_that_the_log_does_not_have_is_dropped() -> None:
    venue = Venue()
    venue.store(5)
    async with venue.replica() as replica, asyncio.timeout(LONG_S):
        made_up = changed(venue.log[-1], sequence=7, previous=venue.market.hash, events=[])
        venue.broadcast(wrong_digest(made_up))
        await asyncio.sleep(0.05)
        venue.trade(3)
        await replica.wait_for(9)

        assert replica.digest == venue.market.digest
        assert replica.divergences == 0


@pytest.mark.parametrize("damage", ["unreadable", "of another log"])
async def test_wrong_snapshot_costs_time_only(
    damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The replica says so, and comes to the market's book all the same (G17)."""
    venue = Venue()
    venue.store(5)
    venue.takes_snapshot()
    venue.store(5)
    snapshot = venue.queries.snapshot
    assert snapshot is not None
    if damage == "unreadable":
        venue.queries.snapshot = b"{}"
    else:
        previous = decode_commit(venue.log[6]).previous.encode()
        venue.queries.snapshot = snapshot.replace(previous, b"0" * 32)
    async with asyncio.timeout(LONG_S), venue.replica() as replica:
        assert replica.digest == venue.market.digest
        assert replica.divergences == 1
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_replica_without_a_book_says_why() -> None:
    venue = Venue()
    venue.store(3)
    differs = asyncio.Event()
    async with (
        asyncio.timeout(LONG_S),
        venue.replica(lambda divergence: differs.set()) as replica,
    ):
        commit = a_lie(venue, wrong_digest)
        await differs.wait()
        venue.serves = False
        venue.log[-1] = commit
        # The book is put away in the same turn of the loop that says so, or in the next.
        await asyncio.sleep(0.001)

        with pytest.raises(BookUnavailable, match="expected digest"):
            _ = replica.best_bid
        venue.serves = True
        await replica.wait_for(5)
        assert replica.digest == venue.market.digest


async def test_who_waits_for_a_replica_that_ends_is_told() -> None:
    venue = Venue()
    async with venue.replica() as replica:
        waiting = asyncio.create_task(replica.wait_for(99))
        await asyncio.sleep(0)

    with pytest.raises(BookUnavailable, match="closed"):
        await waiting
    with pytest.raises(BookUnavailable, match="closed"):
        _ = replica.digest
    assert all(listener.is_stopped for listener in venue.listeners)


async def test_bug_in_following_is_raised_and_nobody_waits_for_ever() -> None:
    def bug(divergence: Divergence) -> None:
        raise ZeroDivisionError

    venue = Venue()
    replica = await venue.replica(bug).__aenter__()
    a_lie(venue, wrong_digest)
    async with asyncio.timeout(LONG_S):
        with pytest.raises(BookUnavailable, match="ZeroDivisionError"):
            await replica.wait_for(99)

    with pytest.raises(ZeroDivisionError):
        await replica.__aexit__(None, None, None)
    with pytest.raises(BookUnavailable, match="closed"):
        _ = replica.digest


async def test_error_of_the_caller_leaves_the_block_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Venue().replica():
            _ = 1 / 0


async def test_replica_of_a_market_that_is_not_there_does_not_begin() -> None:
    venue = Venue()
    venue.queries.instead = [encode(refused(Reason.unknown_market))]

    with pytest.raises(UnknownMarket):
        await venue.replica().__aenter__()
