"""Markets of the local exchange: their specifications, opening them, and how they stand.

Speaks to the servers as any operator would, over NATS. Knows nothing of how servers are started.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from msgspec import Struct, structs

from deploy.keys import LOAD_PEERS
from dex_protocol import codec, subjects
from dex_protocol.administration import OpenRequest
from dex_protocol.queries import StatusQuery, StatusReply
from dex_protocol.specification import AskedPeerFields, AskedSpecification, what_is_wrong
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, ConnectionOptions, Credentials
from dex_runtime.messaging import NoReply, NoResponder, Requester

OPEN_TIMEOUT_S: Final = 30.0
"""How long markets may take to open, all together: a second or two, but for an election in NATS
(4 to 9 s) and a long log to read again."""

_ANSWER_TIMEOUT_S: Final = 2.0
"""How long one request may take: making a stream with three replicas takes about 0.1 s."""

_POLL_S: Final = 0.1
"""Pause before a market that is not open is asked again."""

_PEER: Final = "operator"
"""Who asks how a market stands; it sends no orders."""

_DEFAULT: Final = AskedSpecification(
    market="BTC-USD",
    tick_size="0.01",
    lot_size="0.0001",
    min_quantity="0.0001",
    max_quantity="1000",
    max_price="10000000",
    # The load generator shows what the exchange can take, not what a peer may ask of it.
    peers={peer: AskedPeerFields(orders_per_second=1_000_000) for peer in LOAD_PEERS},
)

_SPECIFICATIONS: Final = {
    "BTC-USD": _DEFAULT,
    "ETH-USD": structs.replace(
        _DEFAULT,
        market="ETH-USD",
        lot_size="0.001",
        min_quantity="0.001",
        max_quantity="10000",
        max_price="1000000",
    ),
}


class MarketNotOpen(Exception):
    """A market takes no orders; the text has what the servers said last."""


class MarketView(Struct, frozen=True):
    """How a market stands, as far as a server says so."""

    market: str
    state: str
    """trading, halted or closed; or why nothing is known."""
    leader: str | None = None
    term: int | None = None
    sequence: int | None = None


class _Answer(Struct):
    # Of an operator's request: a sequence, a refusal, or `retry`.
    sequence: int | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None


def specification(market: str) -> AskedSpecification:
    """Give the specification that a market is opened with here; any name may have one.

    Raises:
        ValueError: the name is not one that a market may have.
    """
    found = _SPECIFICATIONS.get(market) or structs.replace(_DEFAULT, market=market)
    wrong = what_is_wrong(found)
    if wrong is not None:
        raise ValueError(wrong)
    return found


async def open_all(
    urls: Sequence[str],
    credentials: Credentials,
    specifications: Sequence[AskedSpecification],
    *,
    check: Callable[[], None],
    timeout_s: float = OPEN_TIMEOUT_S,
) -> None:
    """Open markets, those that are open already too, and wait until each has a leader.

    A market that is there already keeps the specification it has.

    Args:
        urls: Where the NATS nodes take clients.
        credentials: Those of operators.
        specifications: Of the markets.
        check: Called again and again; raises when waiting is of no use any more.
        timeout_s: For all markets together.

    Raises:
        MarketNotOpen: not in time.
    """
    deadline = time.monotonic() + timeout_s
    try:
        async with _requester(urls, credentials) as requester:
            for each in specifications:
                await _open(requester, each, check=check, deadline=deadline)
    except CannotConnect as error:
        raise MarketNotOpen(str(error)) from error


async def look(
    urls: Sequence[str], credentials: Credentials, markets: Sequence[str]
) -> list[MarketView]:
    """Ask how markets stand; one that nobody answers for has no leader."""
    if not urls or not markets:
        return [MarketView(market, "no NATS node runs") for market in markets]
    try:
        async with _requester(urls, credentials) as requester:
            return [await _look(requester, market) for market in markets]
    except CannotConnect as error:
        return [MarketView(market, error.cause) for market in markets]


@asynccontextmanager
async def _requester(urls: Sequence[str], credentials: Credentials) -> AsyncIterator[Requester]:
    options = ConnectionOptions(servers=tuple(urls), name="dex-local", credentials=credentials)
    client = await connection.connect(options)
    try:
        _end_if_canceled()
        requester = await Requester.start(client)
        yield requester
        await requester.close()
    finally:
        await connection.close(client)


def _end_if_canceled() -> None:
    # NB: nats-py 2.16 connects by `asyncio.wait_for`, which before Python 3.12 forgets that it was
    # canceled when its result comes at the same moment: then Ctrl-C would be without effect.
    task = asyncio.current_task()
    if task is not None and task.cancelling() > 0:
        raise asyncio.CancelledError


async def _open(
    requester: Requester,
    specification: AskedSpecification,
    *,
    check: Callable[[], None],
    deadline: float,
) -> None:
    while True:
        check()
        # First, and again each time: it is harmless, a server may have just come, and what a
        # server says of the leader may be what was so before all servers ended.
        is_answered, said = await _ask_to_open(requester, specification)
        if is_answered and (await _look(requester, specification.market)).leader is not None:
            return
        if time.monotonic() >= deadline:
            raise MarketNotOpen(f"the market {specification.market} has no leader: {said}")
        await asyncio.sleep(_POLL_S)


async def _ask_to_open(requester: Requester, specification: AskedSpecification) -> tuple[bool, str]:
    # Whether the answer is for good, and why the market may have no leader yet. It is opened, that
    # is, led, or refused, as one is that is there with another specification.
    try:
        payload = await requester.request(
            subjects.admin(specification.market, "open"),
            codec.encode(OpenRequest(specification)),
            timeout_s=_ANSWER_TIMEOUT_S,
        )
        answer = codec.decode_reply(payload, _Answer)
    except (NoResponder, NoReply, msgspec.DecodeError) as error:
        return False, str(error)
    if answer.sequence is not None:
        return True, "it is open, but nobody says who leads it"
    return answer.status == "rejected", f"{answer.reason}: {answer.message}"


async def _look(requester: Requester, market: str) -> MarketView:
    try:
        payload = await requester.request(
            subjects.query(market, "status", _PEER),
            codec.encode(StatusQuery()),
            timeout_s=_ANSWER_TIMEOUT_S,
        )
        reply = codec.decode_reply(payload, StatusReply)
    except NoResponder:
        return MarketView(market, "no server answers")
    except NoReply as error:
        return MarketView(market, str(error))
    except msgspec.DecodeError:
        # A refusal, or `retry`: a server is there, but holds no such market just now.
        return MarketView(market, "not open")
    return MarketView(
        market,
        state=reply.state,
        leader=reply.leader or None,
        term=reply.term,
        sequence=reply.sequence,
    )
