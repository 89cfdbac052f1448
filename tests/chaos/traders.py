"""One load generator: some peers in a process of their own, and a live book of each market.

    python -m tests.chaos.traders

Theory of operation. Each peer has a connection, as its own process would, and two things on it: the
client's own sender, which sends each command until it has an outcome, and a record of all that
passes. Commands leave at their own pace, whatever became of those before, but for a bound on how
many wait. Told first what to do, then `go`, `stop` (no more is sent; said `quiet` when all have
their outcome) and `finish` (wait for all books to stand somewhere, and write all down). Answers are
told as they come, ten times a second.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from msgspec import Struct

from dex_client import Exchange
from dex_client.errors import BookUnavailable, ExchangeError, OutcomeUnknown, Unavailable
from dex_client.ids import Ids
from dex_client.link import Link, linked
from dex_client.queries import Queries
from dex_client.replica import Divergence, Replica
from dex_client.retry import Policy
from dex_client.sending import Sender
from dex_protocol.codec import encode
from dex_protocol.commands import Command
from dex_protocol.ids import Pair
from dex_protocol.queries import (
    BookQuery,
    BookReply,
    OrderQuery,
    OrderReply,
    OrdersQuery,
    OrdersReply,
    Query,
    Reply,
    StatusQuery,
    StatusReply,
    TradesQuery,
    TradesReply,
)
from dex_protocol.receipts import Receipt
from dex_runtime.connection import ConnectionOptions, Credentials
from tests.chaos.helpers import Told, told
from tests.chaos.record import Record, Watched
from tests.chaos.workload import Ask, Mind, Send
from tests.checker.history import Belief, End, History

PATIENT: Final = Policy(deadline_s=20.0)
"""Longer than any fault lasts, with an election in NATS behind it."""

IMPATIENT: Final = Policy(deadline_s=1.2)
"""So short that outcomes stay unknown."""

IMPATIENT_SHARE: Final = 0.3

SETTLED_SHARE: Final = 0.5
"""How many of the unknown outcomes are asked for again."""

UNDER_WAY_MAX: Final = 30
"""Requests of one peer under way: what gathers while nobody answers, and then comes at once."""

TELL_S: Final = 0.1

CATCH_UP_S: Final = 30.0
"""How long a book may take to stand where it should."""

REPLIES: Final[dict[type[Query], type[Reply]]] = {
    BookQuery: BookReply,
    OrderQuery: OrderReply,
    OrdersQuery: OrdersReply,
    StatusQuery: StatusReply,
    TradesQuery: TradesReply,
}


class Settings(Struct, frozen=True):
    """What a load generator is told first."""

    name: str
    seed: int
    urls: list[str]
    peers: dict[str, Credentials]
    markets: list[str]
    rate: float
    """Actions of each peer in a second."""


class Finish(Struct, frozen=True):
    """What it is told last."""

    sequences: dict[str, int]
    """Where all stands, by market."""
    file: str


class Part(Struct):
    """What it has seen."""

    history: History
    """What its peers sent and heard, and where its books ended."""
    complaints: list[str]
    """What books and their readers said was wrong; empty in a good run."""


class Peer:
    """One peer on one connection."""

    def __init__(
        self,
        name: str,
        link: Link,
        settings: Settings,
        record: Record,
        complain: Callable[[str], None],
    ) -> None:
        """Begin; `trade` sends, and complains of answers that cannot be read."""
        self._name = name
        self._complain = complain
        self._rate = settings.rate
        self._markets = settings.markets
        self._record = record
        self._random = Random(f"{settings.seed} {name}")
        watched = Watched(link, record)
        known: set[str] = set()
        self._sender = Sender(watched, name, random=self._random, known=known)
        self._queries = Queries(watched, name, policy=PATIENT, random=self._random, known=known)
        ids = Ids(name, above=Pair(0))
        self._minds = {
            market: Mind(ids, Random(f"{settings.seed} {name} {market}"))
            for market in settings.markets
        }

    async def trade(self, has_stopped: asyncio.Event) -> None:
        """Send until told to stop, and wait for all outcomes."""
        free = asyncio.Semaphore(UNDER_WAY_MAX)
        async with asyncio.TaskGroup() as tasks:
            while not has_stopped.is_set():
                await asyncio.sleep(self._random.uniform(0.5, 1.5) / self._rate)
                await free.acquire()
                task = tasks.create_task(self._act())
                task.add_done_callback(lambda _: free.release())

    async def _act(self) -> None:
        market = self._random.choice(self._markets)
        mind = self._minds[market]
        action = mind.next(time.time_ns() // 1_000_000)
        try:
            if isinstance(action, Ask):
                await self._queries.ask(market, action.query, REPLIES[type(action.query)])
            else:
                await self._send(market, mind, action)
        except Unavailable:
            # Nobody answered; there is nothing to tell of.
            return
        except ExchangeError as error:
            self._complain(f"{self._name} was answered strangely: {error}")

    async def _send(self, market: str, mind: Mind, action: Send) -> None:
        policy = IMPATIENT if self._random.random() < IMPATIENT_SHARE else PATIENT
        commands: list[Command] = list(action.commands)
        try:
            receipts: list[Receipt | None] = [
                *await self._sender.send(market, commands, policy, as_batch=action.as_batch)
            ]
        except Unavailable:
            self._believe(market, commands, "unavailable")
            return
        except OutcomeUnknown as error:
            self._learn(market, mind, commands, list(error.receipts))
            if self._random.random() > SETTLED_SHARE:
                return
            try:
                receipts = [*await self._sender.settle(error, PATIENT)]
            except OutcomeUnknown as still:
                receipts = list(still.receipts)
        self._learn(market, mind, commands, receipts)

    def _learn(
        self, market: str, mind: Mind, commands: list[Command], receipts: list[Receipt | None]
    ) -> None:
        for command, receipt in zip(commands, receipts, strict=True):
            if receipt is None:
                self._believe(market, [command], "unknown")
            elif receipt.status == "retry":
                self._believe(market, [command], "unavailable")
            else:
                self._believe(market, [command], "receipt")
                mind.settled(command, receipt.sequence)

    def _believe(self, market: str, commands: list[Command], belief: Belief) -> None:
        for command in commands:
            as_sent = msgspec.json.decode(encode(command))
            self._record.believe(market, self._name, as_sent, belief)


class Generator:
    """All peers of this process."""

    def __init__(self, settings: Settings, lines: Told) -> None:
        """Begin; `run` does it all."""
        self._settings = settings
        self._lines = lines
        self._receipts: list[tuple[str, float]] = []
        self._complaints: list[str] = []
        self._record = Record(lambda market, at: self._receipts.append((market, at)))

    async def run(self) -> None:
        """Do as told, until there is nothing more to be told."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            peers: list[Peer] = []
            replicas: list[Replica] = []
            for name, credentials in settings.peers.items():
                options = ConnectionOptions(
                    servers=tuple(settings.urls), name=name, credentials=credentials
                )
                link = await stack.enter_async_context(linked(options))
                peers.append(Peer(name, link, settings, self._record, self._complain))
                if not replicas:
                    exchange = Exchange(link, name, policy=PATIENT, random=Random(name))
                    for market in settings.markets:
                        replica = exchange.replica(market, on_divergence=self._diverged)
                        replicas.append(await stack.enter_async_context(replica))
            self._lines.say({"ready": True})
            if await self._lines.next() is None:
                return
            has_stopped = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self._tell())
                trading = [tasks.create_task(peer.trade(has_stopped)) for peer in peers]
                if await self._lines.next() is None:
                    for task in (telling, *trading):
                        task.cancel()
                    return
                has_stopped.set()
                await asyncio.gather(*trading)
                telling.cancel()
            self._lines.say({"quiet": True})
            # Again when the markets went on meanwhile.
            while (line := await self._lines.next()) is not None:
                await self._finish(msgspec.json.decode(line, type=Finish), replicas)
                self._lines.say({"written": True})

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            receipts = self._receipts[:]
            self._receipts.clear()
            if receipts:
                self._lines.say({"receipts": receipts})

    async def _finish(self, finish: Finish, replicas: list[Replica]) -> None:
        ends = []
        for replica in replicas:
            try:
                async with asyncio.timeout(CATCH_UP_S):
                    await replica.wait_for(finish.sequences[replica.name])
                end = End(
                    who=f"a replica of {self._settings.name}",
                    market=replica.name,
                    sequence=replica.sequence,
                    hash="",
                    digest=replica.digest,
                )
            except (TimeoutError, ExchangeError, BookUnavailable) as error:
                self._complain(
                    f"its book of {replica.name} should stand at {finish.sequences[replica.name]}, "
                    f"and stands at {replica.sequence}: {error!r}"
                )
                continue
            ends.append(end)
        seen = History(sent=self._record.sent, asked=self._record.asked, ends=ends)
        part = Part(seen, self._complaints)
        await asyncio.to_thread(Path(finish.file).write_bytes, msgspec.json.encode(part))

    def _diverged(self, divergence: Divergence) -> None:
        self._complain(
            f"its book of {divergence.market} differs at {divergence.sequence}: {divergence.text}"
        )

    def _complain(self, text: str) -> None:
        self._complaints.append(f"{self._settings.name}: {text}")


async def _main() -> None:
    lines = await told()
    first = await lines.next()
    if first is not None:
        await Generator(msgspec.json.decode(first, type=Settings), lines).run()


if __name__ == "__main__":
    asyncio.run(_main())
