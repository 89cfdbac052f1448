"""Questions to a market, asked until somebody answers: the seam to the query subjects.

Knows nothing of what the answers are good for. Sending a question again is always harmless.
"""

import asyncio
import binascii
import gzip
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Final, Protocol, TypeVar

from dex_client.errors import ProtocolMismatch, Unavailable
from dex_client.retry import Answer, Policy, Sending
from dex_protocol import subjects
from dex_protocol.codec import UNREADABLE, decode_reply, encode, hash_of
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
from dex_protocol.reasons import RetryReason
from dex_protocol.receipts import Receipt
from dex_runtime.messaging import NoReply, NoResponder

WHAT: Final = {query: what for what, query in QUERIES.items()}
"""The last but one token of each query's subject."""

R = TypeVar("R", bound=Reply)


class Channel(Protocol):
    """Where requests go: a `Requester`, or what stands before one."""

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send a request and wait for its reply, as `Requester.request` does."""
        ...


class Queries:
    """Asks in the name of one peer."""

    def __init__(self, requester: Channel, peer: str, *, policy: Policy, random: Random) -> None:
        """Ask over a connection, as patiently as the policy says."""
        self._requester = requester
        self._peer = peer
        self._policy = policy
        self._random = random

    async def ask(self, market: str, query: Query, reply: type[R]) -> R | Receipt:
        """Ask until there is an answer.

        Returns:
            The answer, or the refusal; `snapshot_gone` too, after which the question is another.

        Raises:
            Unavailable: nobody answered within the policy's deadline.
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
            except NoResponder:
                outcome: Answer = "no_responder"
            except NoReply:
                outcome = "silence"
            else:
                answered = _read(answer, what, reply)
                if not _is_retry(answered):
                    return answered
                outcome = "retry"
            pause = sending.answered(outcome, now=time.monotonic())
            if pause is None:
                raise Unavailable(
                    f"an answer to {what} of {market}", deadline_s=self._policy.deadline_s
                )
            await asyncio.sleep(pause)

    async def status(self, market: str, *, min_sequence: int = 0) -> StatusReply | Receipt:
        """Ask how a market stands, once it stands at least there."""
        return await self.ask(market, StatusQuery(min_sequence=min_sequence), StatusReply)

    async def snapshot(self, market: str) -> bytes | None:
        """Fetch the newest stored snapshot, all its parts, unpacked.

        Returns:
            Canonical JSON; None when there is no snapshot yet.
        """
        while True:
            first = await self.ask(market, SnapshotQuery(), SnapshotReply)
            parts = await self._parts(market, first)
            if parts is not None:
                return _unpacked(parts, first) if parts else None

    async def _parts(self, market: str, reply: SnapshotReply | Receipt) -> list[str] | None:
        # None: it was replaced by a newer one meanwhile.
        parts: list[str] = []
        while isinstance(reply, SnapshotReply) and len(parts) < reply.parts:
            parts.append(reply.data)
            if len(parts) == reply.parts:
                break
            query = SnapshotQuery(snapshot_sequence=reply.snapshot_sequence, part=len(parts))
            reply = await self.ask(market, query, SnapshotReply)
        if isinstance(reply, Receipt):
            if reply.reason == RetryReason.snapshot_gone.name:
                return None
            raise _unexpected("snapshot", reply)
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
                raise _unexpected("log", page)
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


def _is_retry(answered: Reply | Receipt) -> bool:
    return (
        isinstance(answered, Receipt)
        and answered.status == "retry"
        and answered.reason != RetryReason.snapshot_gone.name
    )


def _unexpected(what: str, receipt: Receipt) -> ProtocolMismatch:
    found = receipt.reason if isinstance(receipt.reason, str) else receipt.status
    return ProtocolMismatch(f"the reply to {what}", expected="an answer", found=found)


def _unpacked(parts: list[str], first: SnapshotReply | Receipt) -> bytes:
    assert isinstance(first, SnapshotReply)
    try:
        packed = b"".join(binascii.a2b_base64(part, strict_mode=True) for part in parts)
        if hash_of(packed) != first.hash:
            raise ProtocolMismatch("a snapshot", expected=first.hash, found=hash_of(packed))
        return gzip.decompress(packed)
    except (binascii.Error, OSError, EOFError) as error:
        raise ProtocolMismatch("a snapshot", expected="gzip in base64", found=str(error)) from error
