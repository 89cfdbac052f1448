"""Leases on JetStream: who lives and who is to lead, in two key-value buckets (NATS ADR-8).

What changed is asked for, key by key, of the bucket's own leader: any other replica may be behind,
and a record that seems unchanged would pass for a dead server's. It needs no consumer, survives
every failure of a node, and where nothing changed it costs one small request for each bucket.

A revision is the sequence of the stream behind the bucket. A bucket keeps one message for each
key, so a key that is rewritten leaves its place and stands at the end, and who walks from the last
place it knows to the end meets each changed key. Others write meanwhile. A key that is rewritten
just before the walk gets to it is met farther on, so the walk proves something of every key only
when nothing is left to meet. Where others write faster than this reads, that would never be: a
walk that has met more keys again than anew gives up, and asks for each known key that it did not
meet. So a reading ends after at most two requests for each key and one more, and a key that was
missed again and again cannot pass for unchanged.

NB: it looks only beyond the sequences it knows, so a bucket that was deleted and made anew is new
only to servers that start after that.

Knows nothing of what a record means, nor of time.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from dex_protocol.codec import UNREADABLE, encode
from dex_protocol.ids import is_peer
from dex_protocol.subjects import LEADERS_BUCKET, SERVERS_BUCKET, leases
from dex_runtime.connection import Connection
from dex_runtime.listening import Listener
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_runtime.topology import bucket_stream, bucket_subject
from dex_server.jetstream import api
from dex_server.jetstream.api import StoredMessage
from dex_server.replication.ports import (
    LeaderNews,
    LeaderRecord,
    LogUnavailable,
    News,
    ServerNews,
    ServerRecord,
)

TIMEOUT_S: Final = 1.0
"""How long one answer may take: 1 ms, without a leader there is none. A server counts as gone when
it was silent for 2 s, so one that was not answered can still be in time with its next try.
"""

_server_decoder: Final = msgspec.json.Decoder(ServerRecord)
_leader_decoder: Final = msgspec.json.Decoder(LeaderRecord)

T = TypeVar("T")


class JetStreamLeases:
    """The port `Leases` as one server sees it."""

    def __init__(self, requester: Requester) -> None:
        """Take a connection that no flood of orders holds up."""
        self._requester = requester
        self._servers = _Bucket(requester, SERVERS_BUCKET)
        self._leaders = _Bucket(requester, LEADERS_BUCKET)

    async def news(self) -> News:
        """Give what was written since the last news, oldest first; see `ports.Leases`.

        Ordering: one at a time.
        """
        # In this order: whoever is named wrote its own record before, so that is seen too.
        leaders = await self._leaders.read()
        servers = await self._servers.read()
        # Only now: what one bucket gave is news the next time when the other did not answer.
        self._servers.remember(servers)
        self._leaders.remember(leaders)
        return News(
            servers=[
                ServerNews(key, message.sequence, _server_record(key, message))
                for key, message in servers.changed
            ],
            leaders=[
                LeaderNews(
                    key,
                    message.sequence,
                    _leader_record(message),
                    stored_at=message.stored_at,
                )
                for key, message in leaders.changed
            ],
        )

    async def renew(self, record: ServerRecord) -> None:
        """Write a server's record; see `ports.Leases`."""
        ack = await self._write(SERVERS_BUCKET, record.server, encode(record), headers={})
        if ack.error is not None:
            raise LogUnavailable(f"bucket {SERVERS_BUCKET}: {ack.error}")

    async def name(self, market: str, record: LeaderRecord, *, after: int) -> int | None:
        """Write who is to lead a market, if nobody wrote since; see `ports.Leases`."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(after)}
        ack = await self._write(LEADERS_BUCKET, market, encode(record), headers=headers)
        if ack.error is None:
            return ack.seq
        if ack.error.err_code in api.WRONG_LAST_SEQUENCE:
            return None
        raise LogUnavailable(f"bucket {LEADERS_BUCKET}: {ack.error}")

    @staticmethod
    async def watch(client: Connection, on_change: Callable[[], None]) -> Listener:
        """Call a function whenever somebody wrote who is to lead a market.

        Args:
            client: An open connection.
            on_change: Called once for each writing; must not block and must not raise. NB: some
                are lost, so ask for the news now and then in any case.

        Raises:
            NoResponder: the connection is closed.
        """

        def on_message(_: bytes) -> bool:
            on_change()
            return True

        subject = f"{leases(LEADERS_BUCKET)}.>"
        return await Listener.start(client, subject, on_message=on_message)

    async def _write(
        self, bucket: str, key: str, payload: bytes, *, headers: dict[str, str]
    ) -> api.Ack:
        subject = bucket_subject(bucket, key)
        try:
            return await api.publish(
                self._requester, subject, payload, headers=headers, timeout_s=TIMEOUT_S
            )
        except (NoResponder, NoReply) as error:
            raise LogUnavailable(str(error)) from error


class _Reading(Struct, frozen=True):
    # What one walk found: keys and what stands there, oldest first, and where the next begins.
    changed: list[tuple[str, StoredMessage]]
    next_sequence: int


class _Bucket:
    # A bucket's keys, as far as they were read.

    def __init__(self, requester: Requester, name: str) -> None:
        self._requester = requester
        self._stream = bucket_stream(name)
        self._every_key = bucket_subject(name, ">")
        self._key_begins = len(bucket_subject(name, ""))
        self._next_sequence = 1
        self._revisions: dict[str, int] = {}  # By subject, of all that was ever given.

    async def read(self) -> _Reading:
        """Read what changed, and remember nothing yet."""
        met: dict[str, StoredMessage] = {}
        next_sequence = self._next_sequence
        again_count = 0
        while again_count <= len(met):
            query = {"seq": next_sequence, "next_by_subj": self._every_key}
            message = await self._ask(query)
            if message is None:
                break
            again_count += message.subject in met
            met[message.subject] = message
            next_sequence = message.sequence + 1
        else:
            met |= await self._all_but(met)
        changed = [
            (message.subject[self._key_begins :], message)
            for message in sorted(met.values(), key=lambda message: message.sequence)
            # The walk comes to what was asked for by name, too.
            if message.sequence > self._revisions.get(message.subject, 0)
        ]
        return _Reading(changed, next_sequence)

    def remember(self, reading: _Reading) -> None:
        """Begin after it the next time."""
        self._next_sequence = reading.next_sequence
        for _, message in reading.changed:
            self._revisions[message.subject] = message.sequence

    async def _all_but(self, met: dict[str, StoredMessage]) -> dict[str, StoredMessage]:
        found = await asyncio.gather(
            *(
                self._ask({"last_by_subj": subject})
                for subject in self._revisions
                if subject not in met
            )
        )
        return {message.subject: message for message in found if message is not None}

    async def _ask(self, query: dict[str, Any]) -> StoredMessage | None:
        return await api.message(self._requester, self._stream, query, timeout_s=TIMEOUT_S)


def _server_record(key: str, message: StoredMessage) -> ServerRecord | None:
    # Somebody may have written what no server did.
    record = _record(_server_decoder, message)
    return record if record is not None and record.server == key and is_peer(key) else None


def _leader_record(message: StoredMessage) -> LeaderRecord | None:
    record = _record(_leader_decoder, message)
    is_possible = record is not None and (not record.server or is_peer(record.server))
    return record if is_possible else None


def _record(decoder: msgspec.json.Decoder[T], message: StoredMessage) -> T | None:
    if message.is_deletion:
        return None
    try:
        return decoder.decode(message.payload)
    except UNREADABLE:
        return None
