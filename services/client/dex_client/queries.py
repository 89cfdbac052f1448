"""Questions to a market, asked until somebody answers: the seam to the query subjects.

Knows nothing of what the answers are good for. Sending a question again is always harmless.
"""

import asyncio
import binascii
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Final, Protocol, TypeVar

from dex_client.errors import (
    ExchangeError,
    ProtocolMismatch,
    Unavailable,
    UnknownMarket,
    no_more,
)
from dex_client.retry import Answer, Policy, Sending
from dex_protocol import limits, subjects
from dex_protocol.codec import UNREADABLE, NotPacked, decode_reply, encode, hash_of, unpacked
from dex_protocol.queries import (
    QUERIES,
    LogQuery,
    LogReply,
    Query,
    Reply,
    SnapshotQuery,
    SnapshotReply,
    StatusQuery,
    StatusReply,
)
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt
from dex_runtime.messaging import Closed, NoReply, NoResponder

WHAT: Final = {query: what for what, query in QUERIES.items()}
"""The last but one token of each query's subject."""

PARTS_COUNT_MAX: Final = limits.SNAPSHOT_BYTES_MAX // limits.REPLY_BYTES_MAX
"""Parts of a snapshot: packed, it is no longer than unpacked."""

R = TypeVar("R", bound=Reply)


class Channel(Protocol):
    """Where requests go: a `Requester`, or what stands before one."""

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send a request and wait for its reply, as `Requester.request` does."""
        ...


class Queries:
    """Asks in the name of one peer."""

    def __init__(
        self,
        requester: Channel,
        peer: str,
        *,
        policy: Policy,
        random: Random,
        known: set[str] | None = None,
    ) -> None:
        """Ask over a connection.

        Args:
            requester: Where requests go.
            peer: In whose name.
            policy: How patiently.
            random: Spreads the pauses.
            known: Markets that were answered for before, kept up here and shared with others. Such
                a market is there for good, so a server that does not know it has just come.
        """
        self._requester = requester
        self._peer = peer
        self._policy = policy
        self._random = random
        self._known = set() if known is None else known

    async def ask(self, market: str, query: Query, reply: type[R]) -> R | Receipt:
        """Ask until there is an answer.

        Returns:
            The answer, or the refusal; `snapshot_gone` too, after which the question is another.

        Raises:
            Unavailable: nobody answered within the policy's deadline.
            Unreachable: the connection is closed for good.
            ProtocolMismatch: what came back is neither.
        """
        what = WHAT[type(query)]
        subject = subjects.query(market, what, self._peer)
        payload = encode(query)
        sending = Sending(self._policy, self._random, now=time.monotonic())
        while True:
            try:
                answer = await self._requester.request(
                    subject, payload, timeout_s=sending.attempt(time.monotonic())
                )
            except Closed:
                outcome: Answer = "closed"
            except NoResponder:
                outcome = "no_responder"
            except NoReply:
                outcome = "silence"
            else:
                answered = _read(answer, what, reply)
                if not isinstance(answered, Receipt):
                    self._known.add(market)
                    return answered
                if not _is_retry(answered) and not self._is_premature(market, answered):
                    return answered
                outcome = "retry"
            pause = sending.answered(outcome, now=time.monotonic())
            if outcome == "closed":
                raise no_more(self._policy.deadline_s)
            if pause is None:
                raise Unavailable(
                    f"an answer to {what} of {market}", deadline_s=self._policy.deadline_s
                )
            await asyncio.sleep(pause)

    def _is_premature(self, market: str, refusal: Receipt) -> bool:
        return refusal.reason == Reason.unknown_market.name and market in self._known

    async def status(self, market: str, *, min_sequence: int = 0) -> StatusReply | Receipt:
        """Ask how a market stands, once it stands at least there."""
        return await self.ask(market, StatusQuery(min_sequence=min_sequence), StatusReply)

    async def snapshot(self, market: str) -> bytes | None:
        """Fetch the newest stored snapshot, all its parts, unpacked.

        Returns:
            Canonical JSON; None when there is no snapshot yet.

        Raises:
            UnknownMarket: there is no such market.
        """
        while True:
            first = await self.ask(market, SnapshotQuery(), SnapshotReply)
            parts = await self._parts(market, first)
            if parts is not None:
                return _unpacked(parts, first) if parts else None

    async def _parts(self, market: str, reply: SnapshotReply | Receipt) -> list[str] | None:
        # None: it was replaced by a newer one meanwhile.
        parts: list[str] = []
        while isinstance(reply, SnapshotReply) and len(parts) < min(reply.parts, PARTS_COUNT_MAX):
            parts.append(reply.data)
            if len(parts) == reply.parts:
                break
            query = SnapshotQuery(snapshot_sequence=reply.snapshot_sequence, part=len(parts))
            reply = await self.ask(market, query, SnapshotReply)
        if isinstance(reply, Receipt):
            if reply.reason == RetryReason.snapshot_gone.name:
                return None
            raise unexpected("snapshot", market, reply)
        return parts

    async def log(
        self, market: str, *, from_sequence: int, to_sequence: int
    ) -> AsyncIterator[bytes]:
        """Read stored commits, oldest first, up to one that is stored already.

        Ends early where the log has no more, and begins late where it was trimmed: whoever
        applies them sees that.
        """
        sequence = from_sequence
        while sequence <= to_sequence:
            query = LogQuery(from_sequence=sequence, min_sequence=to_sequence)
            page = await self.ask(market, query, LogReply)
            if isinstance(page, Receipt):
                raise unexpected("log", market, page)
            if not page.commits:
                return
            sequence = max(sequence, page.first_sequence)
            for commit in page.commits:
                if sequence > to_sequence:
                    return
                yield commit.encode()
                sequence += 1


def _read(payload: bytes, what: str, reply: type[R]) -> R | Receipt:
    try:
        return decode_reply(payload, reply)
    except UNREADABLE as error:
        # A refusal has none of the reply's fields.
        try:
            return decode_reply(payload, Receipt)
        except UNREADABLE:
            raise ProtocolMismatch(
                f"the reply to {what}", expected=reply.__name__, found=str(error)
            ) from error


def _is_retry(refusal: Receipt) -> bool:
    return refusal.status == "retry" and refusal.reason != RetryReason.snapshot_gone.name


def unexpected(what: str, market: str, refusal: Receipt) -> ExchangeError:
    """Give the error for a refusal where there should have been an answer."""
    if refusal.reason == Reason.unknown_market.name:
        return UnknownMarket(market)
    found = refusal.reason if isinstance(refusal.reason, str) else refusal.status
    return ProtocolMismatch(f"the reply to {what}", expected="an answer", found=found)


def _unpacked(parts: list[str], first: SnapshotReply | Receipt) -> bytes:
    assert isinstance(first, SnapshotReply)
    try:
        packed = b"".join(binascii.a2b_base64(part, strict_mode=True) for part in parts)
        if hash_of(packed) != first.hash:
            raise ProtocolMismatch("a snapshot", expected=first.hash, found=hash_of(packed))
        return unpacked(packed, bytes_max=limits.SNAPSHOT_BYTES_MAX)
    except (binascii.Error, NotPacked) as error:
        raise ProtocolMismatch("a snapshot", expected="gzip in base64", found=str(error)) from error
