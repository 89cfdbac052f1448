"""What operators ask of a market, and which markets there are.

Every such request may be sent again: a market that is halted already is simply halted. Knows
nothing of peers and orders.
"""

import asyncio
import time
from random import Random
from typing import Final

from msgspec import Struct

from dex_client.errors import NotConfirmed, ProtocolMismatch, Unavailable, no_more
from dex_client.queries import Channel
from dex_client.retry import Answer, Policy, Sending
from dex_protocol import subjects
from dex_protocol.administration import AdminReply, NoFields, OpenRequest, What
from dex_protocol.codec import UNREADABLE, decode_reply, encode
from dex_protocol.receipts import Receipt
from dex_protocol.specification import AskedSpecification, SpecificationChange
from dex_runtime import buckets
from dex_runtime.buckets import BucketUnavailable
from dex_runtime.messaging import Closed, NoReply, NoResponder

ATTEMPT_S: Final = 1.0
"""How long the first copy waits: opening makes a stream and is answered once somebody leads."""

OPERATOR: Final = "operator"
"""The name to ask a market's status under; it sends no orders."""


class Administration:
    """An operator's way to the markets."""

    def __init__(self, channel: Channel, *, deadline_s: float, random: Random) -> None:
        """Ask over a connection, for so long at most."""
        self._channel = channel
        self._policy = Policy(deadline_s=deadline_s, attempt_min_s=min(ATTEMPT_S, deadline_s))
        self._random = random

    async def open(self, specification: AskedSpecification) -> AdminReply | Receipt:
        """Open a market, and wait until orders can be placed.

        Like the other requests: a refusal is a receipt.

        Raises:
            Unavailable: nobody was there to do it.
            NotConfirmed: it may have been done.
            ProtocolMismatch: the answer is not what it should be.
        """
        return await self._ask(specification.market, "open", OpenRequest(specification))

    async def change(self, market: str, change: SpecificationChange) -> AdminReply | Receipt:
        """Change fields of a market's specification; what is UNSET stays."""
        return await self._ask(market, "change", change)

    async def halt(self, market: str) -> AdminReply | Receipt:
        """Take nothing but cancels from now on."""
        return await self._ask(market, "halt", NoFields())

    async def resume(self, market: str) -> AdminReply | Receipt:
        """Trade again after a halt."""
        return await self._ask(market, "resume", NoFields())

    async def close(self, market: str) -> AdminReply | Receipt:
        """End trading for good, and cancel every order."""
        return await self._ask(market, "close", NoFields())

    async def markets(self) -> list[str]:
        """Give the names of all markets that were ever opened, sorted.

        Needs the right to ask JetStream about the directory's stream, which operators have.

        Raises:
            Unavailable: JetStream did not say.
        """
        sending = Sending(self._policy, self._random, now=time.monotonic())
        while True:
            patience_s = sending.attempt(time.monotonic())
            try:
                found = await buckets.keys(
                    self._channel, subjects.MARKETS_BUCKET, timeout_s=patience_s
                )
            except BucketUnavailable:
                pause = sending.answered("no_responder", now=time.monotonic())
            else:
                return sorted(found)
            if pause is None:
                raise Unavailable("JetStream's list of markets", deadline_s=self._policy.deadline_s)
            await asyncio.sleep(pause)

    async def _ask(self, market: str, what: What, request: Struct) -> AdminReply | Receipt:
        subject = subjects.admin(market, what)
        payload = encode(request)
        sending = Sending(self._policy, self._random, now=time.monotonic())
        while True:
            try:
                reply = await self._channel.request(
                    subject, payload, timeout_s=sending.attempt(time.monotonic())
                )
            except Closed:
                answer: Answer = "closed"
            except NoResponder:
                answer = "no_responder"
            except NoReply:
                answer = "silence"
            else:
                answered = _read(reply, what)
                if isinstance(answered, AdminReply) or answered.status != "retry":
                    return answered
                answer = "retry"
            pause = sending.answered(answer, now=time.monotonic())
            if pause is None:
                break
            await asyncio.sleep(pause)
        deadline_s = self._policy.deadline_s
        if answer == "closed" and sending.state == "unavailable":
            raise no_more(deadline_s)
        if sending.state == "unavailable":
            raise Unavailable(f"a server that can {what} {market}", deadline_s=deadline_s)
        raise NotConfirmed(f"{what} of {market}", deadline_s=deadline_s)


def _read(payload: bytes, what: What) -> AdminReply | Receipt:
    # NB: in this order. A refusal may have a sequence too, but only a refusal has a status.
    try:
        return decode_reply(payload, Receipt)
    except UNREADABLE:
        pass
    try:
        return decode_reply(payload, AdminReply)
    except UNREADABLE as error:
        raise ProtocolMismatch(
            f"the reply to {what}", expected="a sequence", found=str(error)
        ) from error
