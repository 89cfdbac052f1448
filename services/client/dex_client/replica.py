"""A live copy of a market's book, checked at every commit.

Theory of operation. It starts from the newest snapshot, or from the log's beginning when there is
none, and applies every commit that follows. Each commit says what the book's digest is after it;
the engine compares, and sequence, hash chain, time and term too, and asks of each event whether it
can be. A commit that was only heard, and differs, may be made up: the book stays as it was, and
that commit is read from the log. When one that was read differs, this copy is wrong, or was given
something wrong: that is said loudly, and another copy is built, from a snapshot, and if that one
differs too, from the log's beginning.

The book changes only between two of the reader's own steps (`await`), and then by a whole commit.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Final, Protocol, Self

from msgspec import UNSET, Struct, UnsetType

from dex_client.chain import StoredCommit
from dex_client.errors import (
    BookUnavailable,
    ExchangeError,
    LogTrimmed,
    ProtocolMismatch,
    Unavailable,
    UnknownMarket,
    Unreachable,
)
from dex_client.events import Events
from dex_client.queries import Queries, unexpected
from dex_engine import Diverged, InvariantViolated, Market
from dex_engine.book import BookSide
from dex_engine.order import Order
from dex_engine.rules import Rules
from dex_protocol.events import MarketState
from dex_protocol.limits import BOOK_DEPTH
from dex_protocol.queries import BookLevel, BookReply
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification

PAUSE_MIN_S: Final = 0.1
PAUSE_MAX_S: Final = 30.0
"""Between two attempts to build a copy; it doubles while each of them fails. Reading a whole log
costs the servers something, and a log that is broken stays broken until an operator has looked."""

COMMITS_PER_TURN: Final = 50
"""Commits applied before whatever else the program does has its turn, when many are at hand."""

_log: Final = logging.getLogger(__name__)


class MarketView(Protocol):
    """A market's state for readers; see `dex_engine.state` for all of it.

    NB: it is the replica's own. It changes with every commit, is left behind when the replica is
    rebuilt, and must not be changed.
    """

    @property
    def name(self) -> str:
        """The market's name."""
        ...

    @property
    def state(self) -> MarketState:
        """Whether it trades."""
        ...

    @property
    def specification(self) -> Specification:
        """Its rules in numbers."""
        ...

    @property
    def rules(self) -> Rules:
        """The same in integers; `rules.tick` and `rules.lot` convert."""
        ...

    @property
    def orders(self) -> Mapping[str, Order]:
        """Open orders by id, in order of acceptance; prices in ticks, quantities in lots."""
        ...

    @property
    def last_price(self) -> int:
        """The last trade's price in ticks; 0 before the first trade."""
        ...

    @property
    def sequence(self) -> int:
        """The newest commit's sequence."""
        ...

    @property
    def digest(self) -> str:
        """The book in 16 hex digits."""
        ...


class Divergence(Struct, frozen=True):
    """The replica and a commit did not agree."""

    market: str
    sequence: int
    """Of the commit."""
    text: str
    """What was expected, and what was found."""


class Replica:
    """A live book of one market; use `Exchange.replica`, with `async with`.

    Attributes:
        name: The market's.
        sequence: The newest commit that is in the book.
        divergences: How often the replica and a commit did not agree; 0 unless something is wrong.
        last_divergence: The newest of them.
    """

    def __init__(
        self,
        name: str,
        *,
        queries: Queries,
        follow: Callable[[int], Events],
        on_divergence: Callable[[Divergence], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            name: The market's.
            queries: Asks for snapshots, and how far the log goes.
            follow: Gives the commits from a sequence on.
            on_divergence: Called at each divergence; must not raise.
        """
        self.name = name
        self.sequence = 0
        self.divergences = 0
        self.last_divergence: Divergence | None = None
        self._queries = queries
        self._follow = follow
        self._on_divergence = on_divergence
        self._market: Market | None = None
        self._events: Events | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._because = "it was not started"
        self._failure: ExchangeError | None = None
        # Whether the next copy starts from the log, since one from a snapshot differed.
        self._distrusts_snapshots = False

    async def __aenter__(self) -> Self:
        """Build the book, up to what is stored by now, and keep it up from here on.

        Raises:
            Unavailable: nobody answers for the market.
            UnknownMarket: there is none of that name.
            LogTrimmed: there is neither a usable snapshot nor a whole log.
        """
        try:
            await self._build_first()
        except BaseException:
            await self._abandon()
            raise
        # Owned here and ended in __aexit__. NB: not a TaskGroup, which would wrap whatever the
        # caller raises inside the block.
        self._task = asyncio.create_task(self._keep_up())
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop keeping it up; who waits for a commit is told so."""
        assert self._task is not None
        self._task.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._task
        finally:
            self._fail(BookUnavailable(self.name, because="the replica was closed"))
            await self._abandon()

    # --- Reading --------------------------------------------------------------------------------

    @property
    def market(self) -> MarketView:
        """The whole state, to look at.

        Raises:
            BookUnavailable: the replica differed from a commit and is being rebuilt.
        """
        return self._good

    @property
    def digest(self) -> str:
        """The book in 16 hex digits, as the commit `sequence` has it."""
        return self._good.digest

    @property
    def best_bid(self) -> BookLevel | None:
        """The best price to sell at, with what is wanted there; None when nobody buys."""
        return self._best(self._good.book.bids)

    @property
    def best_ask(self) -> BookLevel | None:
        """The best price to buy at, with what is offered there; None when nobody sells."""
        return self._best(self._good.book.asks)

    def depth(self, count: int = BOOK_DEPTH) -> BookReply:
        """Give the best levels of both sides, as the query `book` does."""
        market = self._good
        bids, asks = (
            [_level(market, level.price, level.quantity, level.count) for level in some]
            for some in (
                islice(market.book.bids.by_rank(), count),
                islice(market.book.asks.by_rank(), count),
            )
        )
        return BookReply(sequence=market.sequence, bids=bids, asks=asks)

    async def wait_for(self, sequence: int | UnsetType) -> None:
        """Wait until a commit is in the book: a receipt's `sequence`, say.

        Raises:
            ExchangeError: it will not be, since the replica has ended, and why.
        """
        if sequence is UNSET or sequence <= self.sequence:
            return
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((sequence, future))
        await future

    async def __aiter__(self) -> AsyncIterator[StoredCommit]:
        """Give each commit from now on, in order, when it is in the book.

        The book may be further already by the time that the commit is looked at. Whoever is slow
        slows nobody else, and misses nothing.
        """
        async with self._follow(self.sequence + 1) as events:
            async for commit in events:
                await self.wait_for(commit.sequence)
                yield commit

    @property
    def _good(self) -> Market:
        if self._failure is not None:
            raise self._failure
        if self._market is None:
            raise BookUnavailable(self.name, because=self._because)
        return self._market

    def _best(self, side: BookSide) -> BookLevel | None:
        level = side.best
        if level is None:
            return None
        return _level(self._good, level.price, level.quantity, level.count)

    # --- Keeping up -----------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        pause = PAUSE_MIN_S
        while self._failure is None:
            reached = self.sequence
            try:
                if self._market is None:
                    await self._build()
                assert self._events is not None
                count = 0
                async for commit in self._events:
                    self._apply(commit, self._events)
                    count += 1
                    if count % COMMITS_PER_TURN == 0:
                        await asyncio.sleep(0)
                self._fail(BookUnavailable(self.name, because="the exchange was closed"))
            except Diverged as error:
                self._diverged(error.sequence, str(error))
            except ProtocolMismatch as error:
                self._diverged(self.sequence + 1, str(error))
            except Unreachable as error:
                self._fail(error)
            except (Unavailable, UnknownMarket, LogTrimmed) as error:
                self._because = str(error)
                _log.warning("replica of %s: %s", self.name, error)
            await self._abandon()
            pause = PAUSE_MIN_S if self.sequence > reached else min(2 * pause, PAUSE_MAX_S)
            await asyncio.sleep(pause)

    async def _build_first(self) -> None:
        for is_last in (False, True):
            try:
                await self._build()
            except (Diverged, ProtocolMismatch) as error:
                self._diverged(getattr(error, "sequence", self.sequence + 1), str(error))
                await self._abandon()
                if is_last:
                    raise BookUnavailable(self.name, because=str(error)) from error
            else:
                return

    async def _build(self) -> None:
        # A new copy, and what follows it, up to what is stored by now.
        market = await self._base()
        try:
            self._events = events = self._follow(market.sequence + 1)
            await events.begin()
            status = await self._queries.status(self.name)
            if isinstance(status, Receipt):
                raise unexpected("status", self.name, status)
            while market.sequence < status.sequence:
                commit = await anext(events)
                _follow(market, commit, events)
                if commit.sequence % COMMITS_PER_TURN == 0:
                    await asyncio.sleep(0)
        except StopAsyncIteration:
            market.dispose()
            raise BookUnavailable(self.name, because="the exchange was closed") from None
        except BaseException:
            # Being canceled too: nothing else has it.
            market.dispose()
            raise
        self._market = market
        self._distrusts_snapshots = False
        self._advance(market.sequence)

    async def _base(self) -> Market:
        if self._distrusts_snapshots:
            # Only this time: a log that was trimmed leaves nothing but snapshots.
            self._distrusts_snapshots = False
            return Market(self.name)
        snapshot = await self._queries.snapshot(self.name)
        if snapshot is None:
            return Market(self.name)
        self._distrusts_snapshots = True
        try:
            return Market.restore(snapshot)
        except InvariantViolated as error:
            raise ProtocolMismatch(
                f"the snapshot of {self.name}", expected="a market's state", found=str(error)
            ) from error

    def _apply(self, commit: StoredCommit, events: Events) -> None:
        assert self._market is not None
        _follow(self._market, commit, events)
        self._advance(self._market.sequence)

    def _advance(self, sequence: int) -> None:
        self.sequence = sequence
        if not self._waiting:
            return
        still = []
        for wanted, future in self._waiting:
            if wanted > sequence and not future.done():
                still.append((wanted, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = still

    def _diverged(self, sequence: int, text: str) -> None:
        self.divergences += 1
        self._because = text
        self.last_divergence = Divergence(self.name, sequence, text)
        _log.error("the replica of %s differs at commit %s: %s", self.name, sequence, text)
        if self._on_divergence is not None:
            self._on_divergence(self.last_divergence)

    async def _abandon(self) -> None:
        market, self._market = self._market, None
        events, self._events = self._events, None
        if market is not None:
            market.dispose()
        if events is not None:
            await events.aclose()

    def _ended(self, task: asyncio.Task[None]) -> None:
        # By a bug, that is: whoever waits must not do so for ever; leaving the block raises it.
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._fail(BookUnavailable(self.name, because=repr(bug)))

    def _fail(self, error: ExchangeError) -> None:
        self._failure = error
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)


def _follow(market: Market, commit: StoredCommit, events: Events) -> None:
    # A commit that cannot be changes nothing; if it was heard, the log's own comes instead.
    try:
        market.apply_commit(commit.payload)
    except Diverged as diverged:
        if not events.refuse(commit):
            raise
        _log.warning("what was heard of %s is read from the log: %s", market.name, diverged)


def _level(market: Market, price: int, quantity: int, count: int) -> BookLevel:
    rules = market.rules
    return BookLevel(rules.tick.text(price), rules.lot.text(quantity), count)
