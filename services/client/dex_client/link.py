"""A peer's one connection to the exchange, which leaves a node that brings no answers.

Theory of operation. Whatever is asked goes through `request`, so it is known here for how long
nothing was answered. A node may let us stay connected and still bring nothing: it is cut off from
the others, or stopped. When nothing at all was answered for `SILENCE_S`, another node is tried; it
need not be better, since perhaps nobody serves, so the next time takes twice as long to come.

"Nobody serves this" (503) is no answer: the node that says so may just not know who does.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol
from weakref import WeakSet

from dex_client.errors import NotPermitted, Unreachable
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, Connection, ConnectionOptions
from dex_runtime.listening import Listener
from dex_runtime.messaging import Closed, NoReply, NoResponder, Requester

SILENCE_S: Final = 2.0
"""How long nothing is answered before another node is tried: a leader's replacement is over by
then, and the pings of the connection notice a dead node no sooner."""

SILENCE_MAX_S: Final = 30.0
"""It doubles up to this while nothing is answered, wherever we are."""

IDLE_S: Final = 1.0
"""Who asked nothing for so long was not left without an answer. Pauses between two copies of a
request are at most half of it."""

ATTEMPT_MIN_S: Final = 0.2
"""No request is cut shorter than this for the sake of leaving in time."""

_log: Final = logging.getLogger(__name__)


class Follower(Protocol):
    """Who wants to know when something may have been missed."""

    def reconnected(self) -> None:
        """Hear that broadcasts may have been lost, or that the link is closed. Must not raise."""
        ...


class Link:
    """One connection, for all that a peer sends, asks and hears."""

    def __init__(self) -> None:
        """Use `linked`."""
        self._client: Connection | None = None
        self._requester: Requester | None = None
        self._followers: WeakSet[Follower] = WeakSet()
        self._silent_since: float | None = None
        self._silence_s = SILENCE_S
        self._under_way = 0
        self._ended = 0.0
        self._who = ""
        # What NATS did not let us publish to, in small letters.
        self._forbidden: set[str] = set()
        self.is_closed = False

    @property
    def is_lost(self) -> bool:
        """Whether it was closed for good, but not by us: the nodes will not have us any more."""
        return self.is_closed and self._client is not None

    @property
    def node(self) -> str | None:
        """The address of the node it is connected to; None while it is to none."""
        url = None if self._client is None else self._client.connected_url
        return None if url is None else str(url.geturl())

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send a request and wait for its reply, as `Requester.request` does.

        NB: the wait may be cut short, to leave a silent node in time.

        Raises:
            NoResponder, NoReply: as there.
            NotPermitted: NATS does not pass it on.
        """
        if self._requester is None:
            raise Closed("the connection is closed")
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._silent_since is None or (not self._under_way and now - self._ended > IDLE_S):
            self._silent_since = now
        patience = max(self._silent_since + self._silence_s - now, ATTEMPT_MIN_S)
        self._under_way += 1
        try:
            reply = await self._requester.request(
                subject, payload, timeout_s=min(timeout_s, patience)
            )
        except (NoResponder, NoReply):
            if subject.lower() in self._forbidden:
                # Perhaps not any more, the next time.
                self._forbidden.clear()
                raise NotPermitted(subject, who=self._who) from None
            await self._leave_if_silent(loop.time())
            raise
        finally:
            self._under_way -= 1
            self._ended = loop.time()
        self._silent_since = None
        self._silence_s = SILENCE_S
        return reply

    async def listen(
        self, subject: str, *, on_message: Callable[[bytes], bool], follower: Follower
    ) -> Listener:
        """Listen to a subject; see `Listener.start`.

        Args:
            subject: What to listen to.
            on_message: Called with each payload.
            follower: Told when something may have been missed; kept only as long as others do.

        Raises:
            NoResponder: the link is closed.
        """
        if self._client is None:
            raise NoResponder("the connection is closed")
        listener = await Listener.start(self._client, subject, on_message=on_message)
        self._followers.add(follower)
        return listener

    async def reconnect(self) -> bool:
        """Leave the node for another one; see `connection.reconnect`."""
        return self._client is not None and await connection.reconnect(self._client)

    async def open(self, options: ConnectionOptions) -> None:
        """Connect.

        Raises:
            Unreachable: no server let us in.
        """
        try:
            self._client = await connection.connect(
                options,
                on_reconnected=self._tell_followers,
                on_closed=self._closed,
                on_error=self._on_error,
            )
        except CannotConnect as error:
            raise Unreachable(
                str(error),
                deadline_s=options.first_connection_timeout_s,
                is_refusal=error.is_refusal,
            ) from error
        self._who = options.credentials.shown
        self._requester = await Requester.start(self._client)

    async def close(self) -> None:
        """Close; who still waits for a reply gets none, and who follows hears no more."""
        requester, self._requester = self._requester, None
        client, self._client = self._client, None
        self._closed()
        if requester is not None:
            await requester.close()
        if client is not None:
            await connection.close(client)

    async def _leave_if_silent(self, now: float) -> None:
        since = self._silent_since
        if since is None or now - since < self._silence_s:
            return
        if await self.reconnect():
            _log.warning("nothing was answered for %.1f s: trying another NATS node", now - since)
        self._silent_since = now
        self._silence_s = min(2 * self._silence_s, SILENCE_MAX_S)

    def _on_error(self, text: str) -> None:
        subject = connection.forbidden_subject(text)
        if subject is None:
            _log.info("NATS: %s", text)
        else:
            # It looks like silence to who asked; `request` says it.
            self._forbidden.add(subject)

    def _closed(self) -> None:
        self.is_closed = True
        self._tell_followers()

    def _tell_followers(self) -> None:
        for follower in list(self._followers):
            follower.reconnected()


@asynccontextmanager
async def linked(options: ConnectionOptions) -> AsyncIterator[Link]:
    """Be connected for as long as the block lasts.

    Raises:
        Unreachable: no server let us in.
    """
    link = Link()
    try:
        await link.open(options)
        yield link
    finally:
        await link.close()
