"""What operators ask for: opening a market at any server, everything else of the market's leader.

Any server takes an operator's request, and hands on what is the leader's to decide.
"""

import asyncio
from typing import Final

from dex_protocol import limits, subjects
from dex_protocol.administration import REQUESTS, AdminReply, OpenRequest, What
from dex_protocol.codec import UNREADABLE, decode_as, decode_reply, encode
from dex_protocol.ids import is_market
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt, refused, retry
from dex_protocol.specification import SpecificationChange, normalized, what_is_wrong
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_runtime.serving import Incoming, ReplyAddress
from dex_server.driver import Driver
from dex_server.markets import Markets
from dex_server.replication.effects import Administered
from dex_server.replication.ports import LogUnavailable

OPENING_S: Final = 5.0
"""How long an opening waits until the market is led: some ms, or NATS elects (4 to 9 s)."""

HANDED_ON_S: Final = 2.0
"""How long a leader may take to answer what was handed on to it: one append."""

LEADERLESS_S: Final = 1.0
"""How long an operator's request waits for a leader: a hand-over takes some ms, a takeover a tenth
of a second, and a server that has just opened the market knows some ms later who leads it."""

LOOK_S: Final = 0.02
"""Between two looks whether somebody leads."""


class Admin:
    """The operators' requests to one server."""

    def __init__(self, markets: Markets, requester: Requester) -> None:
        """Take the server's markets, and the connection to hand requests on over."""
        self._markets = markets
        self._requester = requester
        self._count = 0

    def on_request(self, incoming: Incoming) -> None:
        """Answer an operator's request, or have it answered."""
        _, _, market, what = incoming.subject.split(".", 3)
        read = self._read(market, what, incoming)
        if isinstance(read, Receipt):
            incoming.reply_to.send(encode(read))
        elif self._count >= limits.ADMINISTERED_COUNT_MAX:
            busy = retry(
                RetryReason.busy,
                f"expected at most {limits.ADMINISTERED_COUNT_MAX} operators' requests under way"
                " in a server, found one more",
            )
            incoming.reply_to.send(encode(busy))
        else:
            self._count += 1
            self._markets.spawn(self._take_on(market, read, incoming))

    async def _take_on(
        self, market: str, read: OpenRequest | Administered, incoming: Incoming
    ) -> None:
        try:
            if isinstance(read, OpenRequest):
                await self._open(market, read, incoming.reply_to)
            else:
                await self._administer(market, read, incoming)
        finally:
            self._count -= 1

    def on_handed_on(self, incoming: Incoming) -> None:
        """Answer what another server handed on: as the leader, or not at all."""
        _, _, _, market, what = incoming.subject.split(".", 4)
        read = self._read(market, what, incoming)
        driver = self._markets.drivers.get(market)
        if isinstance(read, Receipt):
            answer = read
        elif driver is None or driver.replica.role != "leader":
            answer = retry(RetryReason.not_leader)
        elif isinstance(read, OpenRequest):
            opened = AdminReply(driver.replica.stored)
            incoming.reply_to.send(encode(opened))
            return
        else:
            driver.give(read)
            return
        incoming.reply_to.send(encode(answer))

    def _read(
        self, market: str, what: str, incoming: Incoming
    ) -> OpenRequest | Administered | Receipt:
        kind = REQUESTS.get(what)
        if kind is None:
            expected = ", ".join(REQUESTS)
            return refused(Reason.unknown_value, f"expected one of {expected}, found {what[:80]!r}")
        request = decode_as(incoming.payload, kind)
        if isinstance(request, Receipt):
            return request
        if isinstance(request, OpenRequest):
            wrong = _wrong_opening(market, request)
            return request if wrong is None else refused(Reason.malformed, wrong)
        change = request if isinstance(request, SpecificationChange) else None
        named: What = what  # type: ignore[assignment]  # a key of REQUESTS is a What
        return Administered(named, change, incoming.reply_to)

    # --- What the leader decides ----------------------------------------------------------------

    async def _administer(self, market: str, wish: Administered, incoming: Incoming) -> None:
        try:
            driver = await self._markets.find(market)
        except LogUnavailable as unavailable:
            again = retry(RetryReason.unavailable, str(unavailable))
            incoming.reply_to.send(encode(again))
            return
        if driver is None:
            answer = refused(Reason.unknown_market, f"there is no market {market[:80]!r}")
            incoming.reply_to.send(encode(answer))
        else:
            payload = await self._decided(driver, wish, incoming.payload)
            if payload is not None:
                incoming.reply_to.send(payload)

    async def _decided(self, driver: Driver, wish: Administered, payload: bytes) -> bytes | None:
        """Have the leader decide, as soon as there is one.

        Returns:
            The answer; None when it is on its way, or nobody knows what became of the request.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LEADERLESS_S
        while True:
            if driver.replica.role == "leader":
                driver.give(wish)
                return None
            answer = await self._handed_on(driver, wish.what, payload)
            if answer is None or not _is_retry(answer) or loop.time() >= deadline:
                return answer
            await asyncio.sleep(LOOK_S)

    async def _handed_on(self, driver: Driver, what: What, payload: bytes) -> bytes | None:
        """Hand a request on to the leader.

        Returns:
            Its answer; None when there is none, so that nobody knows what became of the request.
        """
        standing = driver.replica.standing
        if standing.leader not in ("", driver.replica.server):
            subject = subjects.lead(standing.leader, standing.market, what)
            try:
                return await self._requester.request(subject, payload, timeout_s=HANDED_ON_S)
            except NoReply:
                return None
            except NoResponder:
                # It leads no more, and whoever does now is not known yet.
                pass
        why = f"nobody leads {standing.market} just now"
        return encode(retry(RetryReason.unavailable, why))

    # --- Opening --------------------------------------------------------------------------------

    async def _open(self, market: str, request: OpenRequest, reply_to: ReplyAddress) -> None:
        try:
            async with asyncio.timeout(OPENING_S):
                answer = await self._opened(market, request)
        except TimeoutError:
            answer = retry(RetryReason.unavailable, f"nobody leads {market} yet")
        except LogUnavailable as unavailable:
            answer = retry(RetryReason.unavailable, str(unavailable))
        reply_to.send(encode(answer))

    async def _opened(self, market: str, request: OpenRequest) -> AdminReply | Receipt:
        wanted = encode(normalized(request.specification))
        written = await self._markets.directory.open(market, wanted)
        if written != wanted:
            return refused(
                Reason.malformed,
                f"expected the specification that {market} was opened with,"
                f" {written.decode()}, found another",
            )
        driver = await self._markets.add(market, written)
        # Opened means that an order can be placed.
        while driver.replica.role != "leader":
            payload = await self._handed_on(driver, "open", encode(request))
            if payload is not None and (sequence := _sequence_in(payload)) is not None:
                return AdminReply(sequence)
            await asyncio.sleep(LOOK_S)
        return AdminReply(driver.replica.stored)


def _is_retry(payload: bytes) -> bool:
    try:
        return decode_reply(payload, Receipt).status == "retry"
    except UNREADABLE:
        return False


def _sequence_in(payload: bytes) -> int | None:
    # None for a refusal, which has no such field, or something that nobody can read.
    try:
        return decode_reply(payload, AdminReply).sequence
    except UNREADABLE:
        return None


def _wrong_opening(market: str, request: OpenRequest) -> str | None:
    if not is_market(market):
        return f"expected a market's name of letters, digits and dashes, found {market[:80]!r}"
    if request.specification.market != market:
        return (
            f"expected a specification of {market}, as in the subject,"
            f" found one of {request.specification.market[:80]!r}"
        )
    return what_is_wrong(request.specification)
