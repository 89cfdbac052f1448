"""What operators ask for: opening a market here, everything else by the market's leader."""

import asyncio
from typing import Final

from dex_protocol.administration import REQUESTS, AdminReply, OpenRequest, What
from dex_protocol.codec import decode_as, encode
from dex_protocol.ids import is_market
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt, refused, retry
from dex_protocol.specification import SpecificationChange, normalized, what_is_wrong
from dex_runtime.serving import Incoming
from dex_server.markets import Markets
from dex_server.replication.effects import Administered
from dex_server.replication.ports import LogUnavailable

OPENING_S: Final = 5.0
"""How long an opening waits until the market is led: some ms, or NATS elects (4 to 9 s)."""


class Admin:
    """The operators' requests to one server."""

    def __init__(self, markets: Markets) -> None:
        """Take the server's markets."""
        self._markets = markets

    def on_request(self, incoming: Incoming) -> None:
        """Answer a request, or have it answered."""
        _, _, market, what = incoming.subject.split(".", 3)
        read = self._read(market, what, incoming)
        if isinstance(read, Receipt):
            self._markets.spawn(incoming.reply_to.send(encode(read)))
        elif isinstance(read, OpenRequest):
            self._markets.spawn(self._open(market, read, incoming))
        elif (driver := self._markets.drivers.get(market)) is not None:
            driver.administer(read)
        else:
            self._markets.spawn(self._find_and_administer(market, read))

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

    async def _find_and_administer(self, market: str, wish: Administered) -> None:
        try:
            driver = await self._markets.find(market)
        except LogUnavailable as unavailable:
            answer = retry(RetryReason.unavailable, str(unavailable))
        else:
            if driver is not None:
                driver.administer(wish)
                return
            answer = refused(Reason.unknown_market, f"there is no market {market[:80]!r}")
        await wish.reply_to.send(encode(answer))

    async def _open(self, market: str, request: OpenRequest, incoming: Incoming) -> None:
        try:
            async with asyncio.timeout(OPENING_S):
                answer = await self._opened(market, encode(normalized(request.specification)))
        except TimeoutError:
            answer = retry(RetryReason.unavailable, f"nobody leads {market} yet")
        except LogUnavailable as unavailable:
            answer = retry(RetryReason.unavailable, str(unavailable))
        await incoming.reply_to.send(encode(answer))

    async def _opened(self, market: str, wanted: bytes) -> AdminReply | Receipt:
        written = await self._markets.directory.open(market, wanted)
        if written != wanted:
            return refused(
                Reason.malformed,
                f"expected the specification that {market} was opened with,"
                f" {written.decode()}, found another",
            )
        driver = await self._markets.add(market, written)
        # Opened means that an order can be placed.
        await driver.leads.wait()
        return AdminReply(driver.replica.stored)


def _wrong_opening(market: str, request: OpenRequest) -> str | None:
    if not is_market(market):
        return f"expected a market's name of letters, digits and dashes, found {market[:80]!r}"
    if request.specification.market != market:
        return (
            f"expected a specification of {market}, as in the subject,"
            f" found one of {request.specification.market[:80]!r}"
        )
    return what_is_wrong(request.specification)
