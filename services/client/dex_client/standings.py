"""What servers tell of themselves: the seam to NATS' service discovery (ADR-32).

Every server answers the one request, each for itself, so how many answers there will be is known
to nobody. Whoever may publish can answer too, so what is not a server's is passed over, and said.
Knows nothing of what the answers are good for.
"""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from dex_client.errors import NotPermitted, Unavailable, Unreachable
from dex_protocol.codec import UNREADABLE, decode_reply
from dex_protocol.ids import is_market, is_peer
from dex_protocol.standing import ENDPOINT, SERVICE, MarketStanding, ServerStanding
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, Connection, ConnectionOptions
from dex_runtime.messaging import NoReply, NoResponder, Requester

SUBJECT: Final = f"$SRV.STATS.{SERVICE}"

QUIET_S: Final = 0.15
"""How long after an answer no other may come: a distant server's takes some tens of milliseconds
longer than a near one's, and a busy one's as long as it takes to execute a commit."""

TIMEOUT_S: Final = 1.0
"""How long all of it may take: the first answer takes milliseconds."""

FOREIGN_LENGTH_MAX: Final = 80
"""Characters that are shown of what somebody else wrote."""

_DIGEST: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)

_log: Final = logging.getLogger(__name__)


class Answers(Struct, frozen=True):
    """What was answered."""

    standings: list[ServerStanding]
    """In order of arrival."""
    passed_over: list[str]
    """A sentence for each answer that is not a server's."""


class Standings:
    """Asks all servers at once how they stand; use `standings`."""

    def __init__(
        self, client: Connection, requester: Requester, who: str, forbidden: set[str]
    ) -> None:
        """Ask over a connection, as somebody; whoever made it adds what NATS does not pass on."""
        self._client = client
        self._requester = requester
        self._who = who
        self._forbidden = forbidden

    async def ask(self, *, timeout_s: float = TIMEOUT_S, quiet_s: float = QUIET_S) -> Answers:
        """Ask once.

        Args:
            timeout_s: How long all of it may take.
            quiet_s: After how long without another answer it is over.

        Raises:
            Unavailable: no server answers.
            NotPermitted: our key is no operator's.
            Unreachable: the nodes closed the connection for good.
        """
        try:
            replies = await self._requester.gather(
                SUBJECT, b"", quiet_s=quiet_s, timeout_s=timeout_s
            )
        except (NoResponder, NoReply) as error:
            if SUBJECT.lower() in self._forbidden:
                # Perhaps not any more, the next time.
                self._forbidden.clear()
                raise NotPermitted(SUBJECT, who=self._who) from error
            if self._client.is_closed:
                text = "the connection to NATS was closed for good"
                raise Unreachable(text, deadline_s=timeout_s) from error
            raise Unavailable("an answer of a server", deadline_s=timeout_s) from error
        found: dict[tuple[str, str], ServerStanding] = {}
        passed_over = []
        for reply in replies:
            standing = read(reply.payload)
            if isinstance(standing, str):
                passed_over.append(standing)
            else:
                found[standing.server, standing.incarnation] = standing
        return Answers(list(found.values()), passed_over)


@asynccontextmanager
async def standings(options: ConnectionOptions) -> AsyncIterator[Standings]:
    """Be connected for as long as the block lasts.

    Raises:
        Unreachable: no NATS server lets us in.
    """
    forbidden: set[str] = set()

    def on_error(text: str) -> None:
        subject = connection.forbidden_subject(text)
        if subject is None:
            _log.info("NATS: %s", text)
        else:
            forbidden.add(subject)

    try:
        client = await connection.connect(options, on_error=on_error)
    except CannotConnect as error:
        raise Unreachable(
            str(error),
            deadline_s=options.first_connection_timeout_s,
            is_refusal=error.is_refusal,
        ) from error
    try:
        requester = await Requester.start(client)
        try:
            yield Standings(client, requester, options.credentials.shown, forbidden)
        finally:
            await requester.close()
    finally:
        await connection.close(client)


class _Endpoint(Struct):
    name: str
    data: Any = UNSET


class _Stats(Struct):
    # What matters here of an answer to `$SRV.STATS`.
    id: str
    endpoints: list[_Endpoint]


def read(payload: bytes) -> ServerStanding | str:
    """Read an answer.

    Returns:
        What a server tells, or a sentence on what was found instead.
    """
    try:
        stats = decode_reply(payload, _Stats)
    except UNREADABLE as error:
        return f"passed over an answer that cannot be read: {_shown(str(error))}"
    about = f"passed over the service {_shown(stats.id)}, which is named {SERVICE}"
    data = [endpoint.data for endpoint in stats.endpoints if endpoint.name == ENDPOINT]
    if len(data) != 1 or data[0] is UNSET or data[0] is None:
        return f"{about} and does not tell how it stands"
    try:
        standing = msgspec.convert(data[0], ServerStanding)
    except UNREADABLE as error:
        return f"{about} and tells what cannot be read: {_shown(str(error))}"
    wrong = _what_is_wrong(standing)
    return standing if wrong is None else f"{about} and tells what cannot be: {wrong}"


def _what_is_wrong(standing: ServerStanding) -> str | None:
    # All of it goes to a terminal, and who wrote it is not known.
    if not is_peer(standing.server):
        return f"the server {_shown(standing.server)}"
    if not standing.incarnation.isprintable():
        return f"the incarnation {_shown(standing.incarnation)}"
    names = [held.market for held in standing.markets]
    if len(set(names)) < len(names):
        return "a market twice"
    for held in standing.markets:
        wrong = _what_is_wrong_in(held)
        if wrong is not None:
            return wrong
    return None


def _what_is_wrong_in(held: MarketStanding) -> str | None:
    if not is_market(held.market):
        return f"the market {_shown(held.market)}"
    if held.leader and not is_peer(held.leader):
        return f"the leader {_shown(held.leader)}"
    if held.digest and _DIGEST.fullmatch(held.digest) is None:
        return f"the digest {_shown(held.digest)}"
    if min(held.term, held.sequence, held.lag) < 0:
        return f"a number below 0 in {held.market}"
    return None


def _shown(text: str) -> str:
    return repr(text[:FOREIGN_LENGTH_MAX])
