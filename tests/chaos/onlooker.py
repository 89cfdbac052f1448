"""Who looks on, over connections of its own that nobody cuts: who leads, how all stand, the logs.

Asks as an operator, and follows markets as a peer that sends nothing. When a node is gone it goes
to another one, as everybody does. Knows nothing of what is done to the cluster.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from msgspec import Struct

from dex_client import Exchange, Unavailable, connect
from dex_client.standings import Standings, standings
from dex_protocol import subjects
from dex_protocol.events import LeaderChanged
from dex_protocol.standing import ServerStanding
from dex_runtime import connection
from dex_runtime.connection import ConnectionOptions
from dex_runtime.messaging import NoReply, NoResponder, Requester
from tests.chaos.schedule import Blow
from tests.chaos.stage import Stage
from tests.checker.history import Json

PEER: Final = "default"

CAST_S: Final = 1.0
"""How long it may take to find out who leads a log: otherwise the blow meets whom it names."""

READS_COUNT: Final = 32
"""Commits read at a time."""

READ_S: Final = 60.0
"""How long a log may take to be read, elections in NATS included."""


class Change(Struct, frozen=True):
    """A new leader, as it was heard of."""

    at: float
    """By the monotonic clock; in a report, after the start of the load."""
    market: str
    server: str
    term: int


class LogUnreadable(Exception):
    """A log could not be read; the text says what was answered instead."""


class Onlooker:
    """Use `onlooker`."""

    def __init__(
        self,
        exchange: Exchange,
        asking: Standings,
        requester: Requester,
        markets: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        """Begin to follow with `follow`."""
        self.changes: list[Change] = []
        """All leaders so far, first ones too."""
        self._leaders: dict[str, str] = {}
        self._exchange = exchange
        self._standings = asking
        self._requester = requester
        self._markets = markets
        self._say = say

    async def follow(self) -> None:
        """Follow all markets until canceled."""
        async with asyncio.TaskGroup() as tasks:
            for market in self._markets:
                tasks.create_task(self._follow(market))

    async def _follow(self, market: str) -> None:
        async for commit in self._exchange.events(market, from_sequence=1):
            for event in commit.events:
                if isinstance(event, LeaderChanged):
                    self._leaders[market] = event.server
                    change = Change(time.monotonic(), market, event.server, event.term)
                    self.changes.append(change)
                    self._say(f"{event.server} leads {market} in term {event.term}")

    async def cast(self, blow: Blow) -> str:
        """Find out who is meant by a blow just now."""
        part, _, market = blow.whom.partition(" ")
        if part == "leader":
            return self._leaders.get(market, blow.otherwise)
        if part != "holder":
            return blow.whom
        try:
            async with asyncio.timeout(CAST_S):
                info = await self._stream(market)
        except (TimeoutError, NoResponder, NoReply):
            return blow.otherwise
        return str(info.get("cluster", {}).get("leader") or blow.otherwise)

    async def standings(self) -> dict[str, ServerStanding]:
        """Ask all servers how they stand; of those that answer."""
        try:
            answers = await self._standings.ask()
        except Unavailable:
            return {}
        return {standing.server: standing for standing in answers.standings}

    async def last_sequence(self, market: str) -> int:
        """Give where a log ends.

        Raises:
            NoResponder, NoReply: nobody says.
        """
        last: int = (await self._stream(market))["state"]["last_seq"]
        return last

    async def log(self, market: str) -> list[str]:
        """Read a log from its leader, from commit 1 to its end.

        Raises:
            LogUnreadable: not in time, or not all of it is there.
        """
        try:
            async with asyncio.timeout(READ_S):
                return await self._log(market)
        except TimeoutError:
            raise LogUnreadable(f"the log of {market} took more than {READ_S:g} s") from None

    async def _log(self, market: str) -> list[str]:
        while True:
            try:
                last = await self.last_sequence(market)
            except (NoResponder, NoReply):
                await asyncio.sleep(0.1)
            else:
                break
        free = asyncio.Semaphore(READS_COUNT)

        async def read(sequence: int) -> str:
            async with free:
                return await self._commit(market, sequence)

        async with asyncio.TaskGroup() as tasks:
            reads = [tasks.create_task(read(sequence)) for sequence in range(1, last + 1)]
        return [read.result() for read in reads]

    async def _commit(self, market: str, sequence: int) -> str:
        subject = f"$JS.API.STREAM.MSG.GET.{subjects.log_stream(market)}"
        while True:
            try:
                reply = await self._requester.request(
                    subject, json.dumps({"seq": sequence}).encode(), timeout_s=2
                )
            except (NoResponder, NoReply):
                await asyncio.sleep(0.1)
                continue
            answer = json.loads(reply)
            if "message" not in answer:
                raise LogUnreadable(f"commit {sequence} of {market}: {answer.get('error')}")
            return base64.b64decode(answer["message"]["data"]).decode()

    async def _stream(self, market: str) -> Json:
        subject = f"$JS.API.STREAM.INFO.{subjects.log_stream(market)}"
        reply: Json = json.loads(await self._requester.request(subject, b"", timeout_s=2))
        if "state" not in reply:
            raise NoReply(f"{reply.get('error')}")
        return reply


@asynccontextmanager
async def onlooker(
    stage: Stage, markets: Sequence[str], say: Callable[[str], None]
) -> AsyncIterator[Onlooker]:
    """Look on for as long as the block lasts; say is told who leads."""
    async with AsyncExitStack() as stack:
        exchange = await stack.enter_async_context(
            connect(stage.urls, peer=PEER, credentials=stage.doors.peer(PEER))
        )
        options = ConnectionOptions(
            servers=tuple(stage.urls),
            name="onlooker",
            credentials=stage.doors.role("operator"),
        )
        asking = await stack.enter_async_context(standings(options))
        client = await connection.connect(options)
        stack.push_async_callback(connection.close, client)
        requester = await Requester.start(client)
        stack.push_async_callback(requester.close)
        made = Onlooker(exchange, asking, requester, markets, say)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(made.follow())
            try:
                yield made
            finally:
                following.cancel()
