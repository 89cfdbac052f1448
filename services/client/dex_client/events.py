"""A market's commits, one after the other, as they are stored: none skipped, none given twice.

Broadcasts come at once and may be lost; the log has everything and has to be asked. `Chain` puts
the two together; here is what it needs of the world. Nothing runs beside: whoever waits for the
next commit does the asking, so what is not waited for costs a bounded buffer and nothing else.
"""

import asyncio
import logging
from types import TracebackType
from typing import Final, Self
from weakref import ref

from dex_client.chain import Chain, StoredCommit
from dex_client.errors import LogTrimmed, ProtocolMismatch, Unavailable, no_more
from dex_client.link import Link
from dex_client.queries import Queries, unexpected
from dex_protocol import limits, subjects
from dex_protocol.queries import LogQuery, LogReply
from dex_protocol.receipts import Receipt
from dex_runtime.listening import Listener
from dex_runtime.messaging import NoResponder

SILENCE_S: Final = 1.0
"""How long no commit comes before it is asked how far the log goes (docs/PROTOCOL.md)."""

PATIENCE_S: Final = 5.0
"""How long one of those questions is asked before what was heard meanwhile is looked at again: a
loaded server may need a second or two for a page of the log."""

_log: Final = logging.getLogger(__name__)


class Events:
    """The commits of one market from a sequence on; use `Exchange.events`.

    An iterator for one task, which may be canceled while it waits and go on later. It begins when
    `async with` enters it, or else with the first commit that is waited for.
    """

    def __init__(
        self,
        link: Link,
        market: str,
        *,
        first: Queries,
        later: Queries,
        from_sequence: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            link: Where broadcasts come from.
            market: Whose commits.
            first: Asks the first question, and gives up where nobody answers.
            later: Asks the others; each gives up soon, and is asked again for ever.
            from_sequence: The first commit to give; None for the next one that is stored.
        """
        self.market = market
        self._link = link
        self._first = first
        self._later = later
        self._from_sequence = from_sequence
        self._chain: Chain | None = None
        # Commits that were read and not given yet: they are given before all that was heard.
        self._read_count = 0
        # Whether the next commit must be read, since one that was heard was refused.
        self._must_read = False
        self._was_read = False
        self._listener: Listener | None = None
        self._wake = asyncio.Event()
        self._must_ask = False
        self._ask_at = 0.0
        self._is_closed = False
        self._is_told = False

    async def __aenter__(self) -> Self:
        """Begin here and now.

        Raises:
            Unavailable: nobody answers for the market.
            UnknownMarket: there is none of that name.
        """
        await self.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Give itself."""
        return self

    async def __anext__(self) -> StoredCommit:
        """Wait for the next commit, through whatever happens to servers, nodes and connections.

        Raises:
            Unavailable, UnknownMarket: it could not begin; later it waits instead.
            LogTrimmed: the next commit is not in the log any more, and was not heard either.
            ProtocolMismatch: the log is not what the protocol says it is.
            Unreachable: no NATS node will have us any more.
            StopAsyncIteration: the exchange was closed.
        """
        chain = await self._begun()
        while True:
            if self._link.is_lost:
                raise no_more()
            if self._is_closed or self._link.is_closed:
                raise StopAsyncIteration
            commit = None if self._must_read else self._take(chain)
            if commit is not None:
                self._put_off_asking()
                return commit
            if self._must_read or chain.missing:
                await self._fetch(chain)
            else:
                await self._listen(chain)
            # It is another one once a commit was refused.
            chain = self._chain or chain

    def refuse(self, commit: StoredCommit) -> bool:
        """Say of the commit given last that it cannot be, and have it given as the log has it.

        Whoever can broadcast can make up a commit that fits the chain; what it leads to only a
        book tells.

        Returns:
            Whether it was heard. One that was read is what the log says, and stays as it is.
        """
        if self._was_read:
            return False
        # What was heard behind it rests on it, or is made up too: the log is asked.
        self._chain = chain = Chain(self.market, commit.sequence)
        chain.tell(commit.sequence)
        self._read_count = 0
        self._must_read = self._must_ask = True
        return True

    async def begin(self) -> None:
        """Begin here and now, as entering does."""
        await self._begun()

    async def aclose(self) -> None:
        """Stop listening; who waits for a commit gets the end of the iteration."""
        self._is_closed = True
        self._wake.set()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop()

    def reconnected(self) -> None:
        """Hear that broadcasts may have been lost."""
        self._must_ask = True
        self._wake.set()

    def _take(self, chain: Chain) -> StoredCommit | None:
        self._was_read = self._read_count > 0
        try:
            commit = chain.take()
        except ProtocolMismatch:
            # It drops the rest of what was read.
            self._read_count = 0
            raise
        if commit is not None and self._was_read:
            self._read_count -= 1
        return commit

    # --- Beginning ------------------------------------------------------------------------------

    async def _begun(self) -> Chain:
        if self._chain is None:
            # First of all: what is stored while it is asked where to begin must be heard.
            await self._start_listening()
            status = await self._first.status(self.market)
            if isinstance(status, Receipt):
                raise unexpected("status", self.market, status)
            start = self._from_sequence
            chain = Chain(self.market, status.sequence + 1 if start is None else start)
            chain.tell(status.sequence)
            self._chain = chain
            self._put_off_asking()
        return self._chain

    async def _start_listening(self) -> None:
        if self._listener is not None:
            return
        # An iterator that nobody has any more, as after a `break`, must not listen for ever.
        this = ref(self)

        def on_message(payload: bytes) -> bool:
            events = this()
            return events is not None and events._hear(payload)

        try:
            self._listener = await self._link.listen(
                subjects.events(self.market), on_message=on_message, follower=self
            )
        except NoResponder as error:
            raise Unavailable(f"the events of {self.market}", deadline_s=0) from error

    def _hear(self, payload: bytes) -> bool:
        if self._chain is None:
            # It is not known yet where to begin, so it is asked once more how far the log goes.
            self._must_ask = True
        else:
            self._chain.hear(payload)
        self._wake.set()
        return not self._is_closed

    # --- Waiting and asking ---------------------------------------------------------------------

    def _put_off_asking(self) -> None:
        self._ask_at = asyncio.get_running_loop().time() + SILENCE_S

    async def _listen(self, chain: Chain) -> None:
        if chain.has_dropped:
            chain.has_dropped = False
            self._must_ask = True
        if not self._must_ask:
            try:
                async with asyncio.timeout_at(self._ask_at):
                    await self._wake.wait()
            except TimeoutError:
                self._must_ask = True
        self._wake.clear()
        if self._must_ask:
            await self._ask(chain)

    async def _ask(self, chain: Chain) -> None:
        self._must_ask = False
        try:
            status = await self._later.status(self.market)
        except Unavailable as error:
            self._say(str(error))
            self._put_off_asking()
            return
        if isinstance(status, Receipt):
            raise unexpected("status", self.market, status)
        chain.tell(status.sequence)
        self._is_told = False
        self._put_off_asking()

    async def _fetch(self, chain: Chain) -> None:
        query = LogQuery(
            from_sequence=chain.next_sequence,
            limit=min(max(chain.missing, 1), limits.PAGE_COUNT_MAX),
            # From a server that is as far, but no further: what was heard may be made up.
            min_sequence=chain.next_sequence,
        )
        try:
            page = await self._later.ask(self.market, query, LogReply)
        except Unavailable as error:
            self._say(str(error))
            self._distrust(chain)
            return
        if isinstance(page, Receipt):
            raise unexpected("log", self.market, page)
        if page.first_sequence > chain.next_sequence:
            raise LogTrimmed(
                self.market,
                from_sequence=chain.next_sequence,
                first_sequence=page.first_sequence,
            )
        self._is_told = False
        if page.commits:
            read = [commit.encode() for commit in page.commits[: query.limit]]
            chain.read(read)
            self._read_count = len(read)
            self._must_read = False
        else:
            self._distrust(chain)

    def _distrust(self, chain: Chain) -> None:
        chain.disbelieve()
        self._must_read = False
        # Whatever was true of it is told again.
        self._must_ask = True

    def _say(self, text: str) -> None:
        if not self._is_told:
            _log.warning("following %s: waiting for an answer: %s", self.market, text)
            self._is_told = True
