"""A cluster under load, and what is seen of it from outside: who leads, since when, how all stand.

Knows nothing of what is done to it.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Final

from msgspec import Struct

from bench.failover_load import CHECK_S, PEER, SteadyLoad, steady_load
from bench.failover_results import Count, Result, none_of
from deploy.embedded import Embedded, Say, cluster
from deploy.servers import ServerProcess
from dex_client import Exchange, Unavailable, connect
from dex_client.standings import QUIET_S, Standings, standings
from dex_protocol import subjects
from dex_protocol.events import LeaderChanged
from dex_protocol.standing import ServerStanding
from dex_runtime import connection
from dex_runtime.connection import ConnectionOptions
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_server.jetstream.leases import JetStreamLeases
from dex_server.replication.elections import RESTLESS_US, RESTLESS_US_MAX
from dex_server.replication.ports import LogUnavailable

RULE: Final = (
    "markets take turns when their leader's markets are rested: since their last change of leader "
    "and since the last start of a server, twice the time has passed that the record of who leads "
    "makes them restless; all servers are current, and up for 3 s"
)
"""Whom `Stage.turn` chooses. A server that starts takes each leader for a new one."""

WATCHER: Final = "default"
"""The peer that looks on, and sends nothing."""

DEADLINE_S: Final = 30.0
"""How long each order is sent again: as the client itself would."""

SETTLE_TIMEOUT_S: Final = 60.0
"""How long anything may take that is merely waited for."""

UP_S: Final = 3.0
"""How long all servers must have been up before one is hurt: a server believes that nobody answers
for another only over a connection that has been up for 2 s."""

CALM_S: Final = 0.5
"""How much longer is waited than must be: the servers see changes some ms later."""

_LINE: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z (\w+) +(.*)")


class Change(Struct, frozen=True):
    """A new leader, as it was broadcast."""

    at: float
    sequence: int
    term: int
    server: str


class Stuck(Exception):
    """What was waited for did not happen; the text has how all stand, and what servers logged."""


class LogLine(Struct, frozen=True):
    """A line of a server's log."""

    at: float
    """By this process's monotonic clock."""
    server: str
    text: str


class Leaders:
    """Who leads which market, since when, by what is broadcast."""

    def __init__(self, exchange: Exchange, markets: Sequence[str]) -> None:
        """Prepare; `follow` does it."""
        self.changes: dict[str, list[Change]] = {market: [] for market in markets}
        self._exchange = exchange

    async def follow(self) -> None:
        """Follow all markets until canceled."""
        async with asyncio.TaskGroup() as tasks:
            for market in self.changes:
                tasks.create_task(self._follow(market))

    async def _follow(self, market: str) -> None:
        async for commit in self._exchange.events(market, from_sequence=1):
            for event in commit.events:
                if isinstance(event, LeaderChanged):
                    self._note(market, commit.sequence, event)

    def _note(self, market: str, sequence: int, event: LeaderChanged) -> None:
        self.changes[market].append(Change(time.monotonic(), sequence, event.term, event.server))

    def of(self, market: str) -> Change | None:
        """Give a market's newest leader."""
        changes = self.changes[market]
        return changes[-1] if changes else None

    def led_by(self, server: str) -> list[str]:
        """Give the markets that a server leads."""
        return [
            market
            for market, changes in self.changes.items()
            if changes and changes[-1].server == server
        ]

    def changed_at(self) -> float:
        """Tell when any market changed its leader last."""
        return max((changes[-1].at for changes in self.changes.values() if changes), default=0.0)

    def since(self, market: str, moment: float) -> list[Change]:
        """Give the changes since a moment."""
        return [change for change in self.changes[market] if change.at >= moment]

    async def changed(self, market: str, *, since: float) -> Change:
        """Wait for a change after a moment."""
        while True:
            if found := self.since(market, since):
                return found[0]
            await asyncio.sleep(CHECK_S)


class Stage:
    """A cluster under load."""

    def __init__(
        self,
        exchange: Embedded,
        markets: Sequence[str],
        *,
        leaders: Leaders,
        asking: Standings,
        requester: Requester,
        rate: float,
    ) -> None:
        """Put together what `stage` made."""
        self.exchange = exchange
        self.markets = tuple(markets)
        self.leaders = leaders
        self.rate = rate
        self.load: SteadyLoad
        self._requester = requester
        self._standings = asking
        self._turns = list(markets)
        self._leases = JetStreamLeases(requester)
        self._changes_count: dict[str, int] = {}
        self._up_since: dict[str, float] = {}
        # Between the clock of the logs and the one that everything is measured by.
        self._wall_ahead = time.time() - time.monotonic()

    # --- How it stands --------------------------------------------------------------------------

    async def standings(self, *, quiet_s: float = QUIET_S) -> dict[str, ServerStanding]:
        """Ask all servers how they stand; see `Standings.ask`."""
        try:
            answers = await self._standings.ask(quiet_s=quiet_s)
        except Unavailable:
            return {}
        return {standing.server: standing for standing in answers.standings}

    async def counts(self) -> Counter[str]:
        """Count the markets that each server leads, by its own words."""
        return Counter(
            {
                server: sum(held.role == "leader" for held in standing.markets)
                for server, standing in (await self.standings()).items()
            }
        )

    async def all_current(self) -> bool:
        """Tell whether each running server holds each market, up to its end, and each is led."""
        found = await self.standings()
        running = {server.name for server in self.exchange.servers if server.is_running()}
        now = time.monotonic()
        is_good = running == found.keys()
        for name, standing in found.items():
            is_up = len(standing.markets) == len(self.markets) and all(
                held.is_current for held in standing.markets
            )
            is_good = is_good and is_up
            if is_up:
                self._up_since.setdefault(name, now)
        leading = [
            held.market
            for standing in found.values()
            for held in standing.markets
            if held.role == "leader"
        ]
        return is_good and sorted(leading) == sorted(self.markets)

    async def until(self, is_so: Callable[[Counter[str]], bool]) -> float:
        """Wait until the counts of led markets are so; give how long it took."""
        began = time.monotonic()
        async with self.patience("an even share of markets"):
            while True:
                if is_so(await self.counts()):
                    return time.monotonic() - began
                await asyncio.sleep(CHECK_S)

    async def until_current(self) -> None:
        """Wait until all servers that run could lead all markets."""
        async with self.patience("all servers to be current in all markets"):
            while True:
                if await self.all_current():
                    return
                await asyncio.sleep(CHECK_S)

    async def until_up(self) -> None:
        """Wait until all servers that run have been up for a while."""
        await self.until_current()
        longest = max(self._up_since.values()) + UP_S - time.monotonic()
        if longest > 0:
            await asyncio.sleep(longest)

    async def turn(self, *, rested: bool) -> str:
        """Wait until the leader of some market may be hurt, and give that market.

        All servers have been up for a while, and no leader changed a moment ago, so that no
        hand-over for balance is under way. Of several it is the market whose turn is the longest
        ago.

        Args:
            rested: Whether all markets that it leads have to be rested, too.
        """
        longest_s = SETTLE_TIMEOUT_S + 2 * RESTLESS_US_MAX / 1e6
        async with self.patience("a market's turn", timeout_s=longest_s):
            while True:
                await self.until_up()
                await self._read_records()
                now = time.monotonic()
                for market in self._turns:
                    led = self.leaders.led_by(self.leader(market))
                    rested_at = max(map(self._rested_at, led)) if rested else 0.0
                    if max(rested_at, self.leaders.changed_at()) + CALM_S < now:
                        self._turns.remove(market)
                        self._turns.append(market)
                        return market
                await asyncio.sleep(0.05)

    async def _read_records(self) -> None:
        try:
            news = await self._leases.news()
        except LogUnavailable:
            return
        for each in news.leaders:
            self._changes_count[each.market] = 0 if each.record is None else each.record.changes

    def _rested_at(self, market: str) -> float:
        changes = self._changes_count.get(market, 0)
        if not changes:
            return 0.0
        # As the elections count.
        restless_s = min(RESTLESS_US << min(changes - 1, 8), RESTLESS_US_MAX) / 1e6
        newest = self.leaders.of(market)
        changed_at = 0.0 if newest is None else newest.at
        return max(changed_at, *self._up_since.values()) + 2 * restless_s

    def leader(self, market: str) -> str:
        """Give who leads a market."""
        newest = self.leaders.of(market)
        assert newest is not None, f"expected a leader of {market}, found none"
        return newest.server

    def server(self, name: str) -> ServerProcess:
        """Give a server by its name."""
        return next(each for each in self.exchange.servers if each.name == name)

    def restart(self, name: str) -> None:
        """Start a server that has ended."""
        self._up_since.pop(name, None)
        self.exchange.start_server(name)

    async def stream_leader(self, market: str) -> str:
        """Give the NATS node that leads the stream of a market's log."""
        subject = f"$JS.API.STREAM.INFO.{subjects.log_stream(market)}"
        async with self.patience(f"a leader of the stream of {market}"):
            while True:
                try:
                    reply = await self._requester.request(subject, b"", timeout_s=2)
                except (NoReply, NoResponder):
                    await asyncio.sleep(0.1)
                    continue
                leader = json.loads(reply).get("cluster", {}).get("leader")
                if leader:
                    return str(leader)
                await asyncio.sleep(0.1)

    def log_lines(self, *, since: float, until: float) -> list[LogLine]:
        """Give what the servers logged in a time, in order."""
        lines = []
        for server in self.exchange.servers:
            for line in server.log.read_text(errors="replace").splitlines():
                match = _LINE.match(line)
                if match is None:
                    continue
                at = datetime.fromisoformat(f"{match[1]}+00:00").timestamp() - self._wall_ahead
                # Logs tell whole milliseconds.
                if since - 0.001 <= at <= until:
                    lines.append(LogLine(at, server.name, match[3]))
        return sorted(lines, key=lambda line: line.at)

    @asynccontextmanager
    async def patience(
        self, what: str, *, timeout_s: float = SETTLE_TIMEOUT_S
    ) -> AsyncIterator[None]:
        """Give a block so much time.

        Raises:
            Stuck: it takes longer.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            text = [f"waited {timeout_s:g} s for {what}"]
            for name, standing in sorted((await self.standings()).items()):
                text += [f"  {name} says: {held}" for held in standing.markets]
            text += [
                f"  {line.at - began:+8.3f} {line.server}: {line.text}"
                for line in self.log_lines(since=began - 20, until=time.monotonic())
            ]
            raise Stuck("\n".join(text)) from error

    # --- The end --------------------------------------------------------------------------------

    async def conclude(self, scenario: str, about: str) -> Result:
        """End the load, verify it, and begin a result with what came of it."""
        await self.load.finish()
        verdict = await self.load.verify()
        result = Result(scenario=scenario, about=about, times=[], counts=[], notes=[])
        result.counts += [
            none_of("orders refused, unknown or not taken", self.load.errors),
            none_of("violations of exactly-once in the logs", verdict.violations),
            none_of("entries of an old term behind a newer one", verdict.stale),
            Count("orders, all verified", verdict.orders, "> 0", verdict.orders > 0),
        ]
        result.notes += verdict.sentences
        result.notes.append(
            f"{len(self.markets)} markets, {self.rate:g} orders/s each, sent at most "
            f"{1_000 * self.load.late_s:.0f} ms late by this process"
        )
        return result


@asynccontextmanager
async def stage(
    markets: Sequence[str], *, servers: int, rate: float, say: Say
) -> AsyncIterator[Stage]:
    """Run a cluster of three nodes and some servers.

    Args:
        markets: The markets to open.
        servers: How many: server-1, server-2, ...
        rate: Orders per second to each market; 0 for none.
        say: Told what happens.
    """
    async with AsyncExitStack() as stack:
        exchange = await stack.enter_async_context(
            cluster(markets, node_count=3, server_count=servers, say=say)
        )
        observer = await stack.enter_async_context(
            connect(exchange.urls, peer=WATCHER, credentials=exchange.doors.peer(WATCHER))
        )
        options = ConnectionOptions(
            servers=tuple(exchange.urls),
            name="failover",
            credentials=exchange.doors.role("operator"),
        )
        asking = await stack.enter_async_context(standings(options))
        client = await connection.connect(options)
        stack.push_async_callback(connection.close, client)
        requester = await Requester.start(client)
        leaders = Leaders(observer, markets)
        made = Stage(
            exchange, markets, leaders=leaders, asking=asking, requester=requester, rate=rate
        )
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(leaders.follow())
            try:
                loaded = markets if rate else ()
                async with steady_load(
                    exchange.urls,
                    loaded,
                    credentials=exchange.doors.peer(PEER),
                    rate=rate,
                    deadline_s=DEADLINE_S,
                ) as made.load:
                    yield made
            finally:
                following.cancel()
