"""How long a new server needs until it could lead a market with a long history.

Theory of operation. Peers place orders far from each other, a batch at a time, and cancel as many
of their older ones, so the log grows while the book does not. At half the length and at the whole,
servers that know nothing are started, one after the other. What each of them has to do (load the
newest snapshot, read the log behind it) is done once more by this process, to see what it costs.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Final

from msgspec import Struct

from bench.failover_results import Count, Result, Times, none_of
from bench.failover_stage import WATCHER, LogLine, Stage, stage
from deploy.embedded import Say
from deploy.keys import LOAD_PEERS
from dex_client import Exchange, Submit, connect
from dex_client.link import linked
from dex_client.queries import Queries
from dex_client.retry import Policy
from dex_engine import Market
from dex_protocol.commands import Cancel, Command
from dex_protocol.limits import SNAPSHOT_EVENTS_COUNT
from dex_protocol.queries import SnapshotQuery, SnapshotReply, StatusReply
from dex_protocol.standing import MarketStanding
from dex_runtime.connection import ConnectionOptions

MARKET: Final = "M-1"
PEERS: Final = 5
BATCH: Final = 1_000
RESTING_BATCHES: Final = 2
"""Batches of each peer that rest: 10,000 orders of all."""

RESTING: Final = PEERS * RESTING_BATCHES * BATCH

STARTS: Final = 3
"""Newcomers at each length."""

PRICE_LEVELS: Final = 2_000
"""Over which each side's orders are spread."""

TIMEOUT_S: Final = 120.0


class Arrival(Struct, frozen=True):
    """A newcomer's way to the end of the log."""

    current: float
    """From the process's start until its standing said that it is current."""
    serving: float | None
    """From there until it logged that it serves."""
    caught_up: float | None
    """From there until it logged that it caught up."""
    digest: str


class Behind(Struct, frozen=True):
    """What a newcomer has to read, and what that costs this process."""

    sequence: int
    events: int
    resting: int
    snapshot_sequence: int
    snapshot_bytes: int
    load_s: float
    restore_s: float
    replayed_commits: int
    replayed_events: int
    replay_s: float


class _Peer:
    # One peer's orders: the same number rests after each round.
    def __init__(self, exchange: Exchange, seed: int) -> None:
        self.events = 0
        self._exchange = exchange
        self._random = Random(seed)
        self._resting: deque[list[str]] = deque()

    async def round(self) -> None:
        if len(self._resting) == RESTING_BATCHES:
            cancels = [Cancel(order_id=order_id) for order_id in self._resting.popleft()]
            await self._batch(cancels)
        self._resting.append(await self._batch([self._order() for _ in range(BATCH)]))

    async def _batch(self, commands: Sequence[Command]) -> list[str]:
        receipts = await self._exchange.batch(MARKET, commands)
        wrong = [each for each in receipts if each.status not in ("new", "canceled")]
        assert not wrong, f"expected no refusal, found {wrong[0]}"
        self.events += len(receipts)
        return [str(each.order_id) for each in receipts]

    def _order(self) -> Submit:
        is_buy = self._random.random() < 0.5
        cents = 1 + int(self._random.random() * PRICE_LEVELS)
        return Submit(
            side="buy" if is_buy else "sell",
            quantity="1",
            price=f"{cents // 100 if is_buy else 100 + cents // 100}.{cents % 100:02d}",
        )


async def newcomer(say: Say, *, events: int) -> Result:
    """Grow a log to a length, and start servers at half of it and at the end."""
    async with AsyncExitStack() as stack:
        on = await stack.enter_async_context(stage([MARKET], servers=2, rate=0, say=say))
        peers = [
            _Peer(
                await stack.enter_async_context(
                    connect(on.exchange.urls, peer=name, credentials=on.exchange.doors.peer(name))
                ),
                seed=number,
            )
            for number, name in enumerate(LOAD_PEERS[:PEERS], start=1)
        ]
        await on.until_current()
        result = Result(
            scenario="newcomer",
            about=f"a market of {RESTING:,} resting orders and a long log; a server that has "
            "nothing is started (default snapshots, no load meanwhile; both lengths are half an "
            "interval behind a snapshot)",
            times=[],
            counts=[],
            notes=[],
        )
        digests_differ = 0
        building_s = 0.0
        for length in _lengths(events):
            began = time.monotonic()
            await _grow(peers, length)
            building_s += time.monotonic() - began
            made = sum(peer.events for peer in peers)
            say(f"{made:,} events after {building_s:.0f} s of building")
            # The snapshot that was due on the way is written, the follower has caught up.
            await on.until_current()
            await asyncio.sleep(3)
            behind = await _what_is_behind(on)
            arrivals = []
            for number in range(1, STARTS + 1):
                arrival = await _arrive(on, f"newcomer-{length}-{number}")
                arrivals.append(arrival)
                leader = (await on.standings())[on.leader(MARKET)].markets[0]
                digests_differ += arrival.digest != leader.digest
                say(f"newcomer at {made:,} events: current after {arrival.current:.2f} s")
            what = f"at {made:,} events"
            result.times += [
                Times(
                    f"process start -> standing is current, {what}",
                    [each.current for each in arrivals],
                ),
                Times(
                    "  of it: process start -> serving (its log)",
                    [each.serving for each in arrivals if each.serving is not None],
                ),
                Times(
                    "  of it: serving -> caught up (its log): snapshot and replay",
                    [
                        each.caught_up - each.serving
                        for each in arrivals
                        if each.serving is not None and each.caught_up is not None
                    ],
                ),
            ]
            result.notes.append(
                f"{what}: commit {behind.sequence:,}, snapshot at {behind.snapshot_sequence:,} "
                f"({behind.snapshot_bytes / 1e6:.1f} MB unpacked), {behind.replayed_commits:,} "
                f"commits with {behind.replayed_events:,} events behind it; the same by this "
                f"process: load {behind.load_s:.2f} s, restore {behind.restore_s:.2f} s, read and "
                f"replay {behind.replay_s:.2f} s; building took {building_s:.0f} s so far"
            )
            is_right = behind.resting == RESTING
            result.counts += [
                Count(f"events {what}", behind.events, "any", is_good=True),
                Count(f"resting orders {what}", behind.resting, f"{RESTING:,}", is_right),
            ]
        result.counts.append(none_of("newcomers whose digest is not the leader's", digests_differ))
        return result


def _lengths(events: int) -> list[int]:
    # As far behind a snapshot in both: half of what is between two, the average.
    between = SNAPSHOT_EVENTS_COUNT
    return [
        length // between * between + between // 2 if length > between else length
        for length in (events // 2, events)
    ]


async def _grow(peers: Sequence[_Peer], events: int) -> None:
    async def grow(peer: _Peer) -> None:
        while peer.events < events / len(peers):
            await peer.round()

    await asyncio.gather(*(grow(peer) for peer in peers))


async def _arrive(on: Stage, name: str) -> Arrival:
    began = time.monotonic()
    on.restart(name)
    held: MarketStanding | None = None
    async with on.patience(f"{name} to be current", timeout_s=TIMEOUT_S):
        while held is None or not held.is_current:
            standing = (await on.standings(quiet_s=0.02)).get(name)
            held = None if standing is None or not standing.markets else standing.markets[0]
    current = time.monotonic() - began
    lines = [
        line for line in on.log_lines(since=began, until=time.monotonic()) if line.server == name
    ]
    await on.server(name).stop()
    return Arrival(
        current,
        _moment(lines, "serving", began),
        _moment(lines, "caught up", began),
        held.digest,
    )


def _moment(lines: Sequence[LogLine], text: str, began: float) -> float | None:
    return next((line.at - began for line in lines if text in line.text), None)


async def _what_is_behind(on: Stage) -> Behind:
    options = ConnectionOptions(
        servers=tuple(on.exchange.urls),
        name="failover-behind",
        credentials=on.exchange.doors.peer(WATCHER),
    )
    async with linked(options) as link:
        queries = Queries(link, WATCHER, policy=Policy(), random=Random(0))
        status = await queries.status(MARKET)
        assert isinstance(status, StatusReply)
        told = await queries.ask(MARKET, SnapshotQuery(), SnapshotReply)
        assert isinstance(told, SnapshotReply)
        began = time.monotonic()
        snapshot = await queries.snapshot(MARKET)
        loaded = time.monotonic()
        market = Market(MARKET) if snapshot is None else Market.restore(snapshot)
        restored = time.monotonic()
        before = (market.sequence, market.events_count)
        async for payload in queries.log(
            MARKET, from_sequence=market.sequence + 1, to_sequence=status.sequence
        ):
            market.apply_commit(payload)
        replayed = time.monotonic()
        assert market.digest == status.digest, "the log leads to another book"
        return Behind(
            sequence=market.sequence,
            events=market.events_count,
            resting=len(market.orders),
            snapshot_sequence=told.snapshot_sequence,
            snapshot_bytes=0 if snapshot is None else len(snapshot),
            load_s=loaded - began,
            restore_s=restored - loaded,
            replayed_commits=market.sequence - before[0],
            replayed_events=market.events_count - before[1],
            replay_s=replayed - restored,
        )
