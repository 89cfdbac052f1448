"""The few requests of JetStream's API that the adapters are made of, over a `Requester`.

Reads that decide something are answered by a stream's own leader (STREAM.MSG.GET, STREAM.INFO);
reads in bulk by any replica (Direct Get), which may be behind. Every missing or unreadable answer
to a read is `LogUnavailable`. Knows nothing of logs, snapshots or markets.

nats-py's own JetStream client is not used here: it decodes with dataclasses and datetime parsing
what msgspec reads in a tenth of the time, its ordered consumer drops messages silently when it is
slow (2.16.0), and its object store waits for ever for a chunk that is gone.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from dex_protocol.codec import UNREADABLE
from dex_runtime.messaging import NoReply, NoResponder, Reply, Requester
from dex_server.replication.ports import LogUnavailable

API_TIMEOUT_S: Final = 2.0
"""How long an answer may take: 1 ms, some more in bulk; without a leader there is none."""

NO_MESSAGE_FOUND: Final = 10037
WRONG_LAST_SEQUENCE: Final = frozenset((10071, 10164))
"""What a publish with an expectation is refused with; the second when another is under way."""

_END_OF_BATCH: Final = "204"
_NOT_FOUND: Final = "404"
_DELETION: Final = "KV-Operation"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

T = TypeVar("T")


class ApiError(Struct, frozen=True):
    """JetStream's reason for a refusal."""

    code: int
    err_code: int = 0
    description: str = ""


class Ack(Struct, frozen=True):
    """JetStream's answer to a publish."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


class StoredMessage(Struct, frozen=True, gc=False):
    """A message of a stream: where it stands, what it is, when it was stored (µs)."""

    subject: str
    sequence: int
    payload: bytes
    stored_at: int
    is_deletion: bool = False
    """Whether it only says that a key of a bucket was deleted."""


class StreamState(Struct, frozen=True):
    """How far a stream goes."""

    first_seq: int
    last_seq: int
    subjects: dict[str, int] = {}
    """Messages for each subject, of those that were asked for."""


class _Message(Struct):
    subject: str
    seq: int
    time: datetime
    data: bytes = b""  # base64 in JSON, which msgspec decodes
    hdrs: bytes = b""


class _MessageAnswer(Struct):
    message: _Message | None = None
    error: ApiError | None = None


class _InfoAnswer(Struct):
    state: StreamState | None = None
    error: ApiError | None = None


class _PurgeAnswer(Struct):
    success: bool = False
    error: ApiError | None = None


_ack_decoder: Final = msgspec.json.Decoder(Ack)
_message_decoder: Final = msgspec.json.Decoder(_MessageAnswer)
_info_decoder: Final = msgspec.json.Decoder(_InfoAnswer)
_purge_decoder: Final = msgspec.json.Decoder(_PurgeAnswer)


async def publish(
    requester: Requester,
    subject: str,
    payload: bytes,
    *,
    headers: dict[str, str],
    timeout_s: float = API_TIMEOUT_S,
) -> Ack:
    """Publish to a stream and wait for what it says: stored, or an error.

    NB: by request, never by nats-py's `publish_async`, whose future is never resolved when the
    answer is an error (2.16.0, nats.py issue 985).

    Raises:
        NoResponder: no stream took it.
        NoReply: it may be stored, or may yet be.
    """
    answer = await requester.request(subject, payload, timeout_s=timeout_s, headers=headers)
    try:
        return _ack_decoder.decode(answer)
    except UNREADABLE as error:
        raise NoReply(f"unreadable answer from {subject}: {answer[:80]!r}") from error


async def message(
    requester: Requester, stream: str, query: dict[str, Any], *, timeout_s: float = API_TIMEOUT_S
) -> StoredMessage | None:
    """Ask a stream's leader for one message.

    Args:
        requester: Over which connection.
        stream: Which stream.
        query: `{"seq": n}`, `{"last_by_subj": s}` or `{"seq": n, "next_by_subj": s}`.
        timeout_s: How long to wait.

    Returns:
        The message, or None when there is none, as the leader knows now.

    Raises:
        LogUnavailable: no answer, or another error.
    """
    answer = await _ask(
        requester, f"STREAM.MSG.GET.{stream}", msgspec.json.encode(query), timeout_s
    )
    decoded = _decoded(_message_decoder, answer)
    if decoded.error is not None and decoded.error.err_code == NO_MESSAGE_FOUND:
        return None
    found = decoded.message
    if found is None:
        raise LogUnavailable(f"stream {stream}: {decoded.error}")
    return StoredMessage(
        subject=found.subject,
        sequence=found.seq,
        payload=found.data,
        stored_at=_microseconds(found.time),
        is_deletion=_DELETION.encode() in found.hdrs,
    )


async def state(requester: Requester, stream: str, *, subjects: str | None = None) -> StreamState:
    """Ask a stream's leader how far it goes, and which subjects it has.

    Args:
        requester: Over which connection.
        stream: Which stream.
        subjects: Also count the messages of each subject that matches this; None for no subject.

    Raises:
        LogUnavailable: no answer, or an error.
    """
    query = b"" if subjects is None else msgspec.json.encode({"subjects_filter": subjects})
    answer = await _ask(requester, f"STREAM.INFO.{stream}", query, API_TIMEOUT_S)
    decoded = _decoded(_info_decoder, answer)
    if decoded.state is None:
        raise LogUnavailable(f"stream {stream}: {decoded.error}")
    return decoded.state


async def batch(
    requester: Requester, stream: str, query: dict[str, Any], *, timeout_s: float = API_TIMEOUT_S
) -> list[StoredMessage]:
    """Ask any replica for many messages at once, in the order they are stored (NATS ADR-31).

    The replica may be behind and its answer short or empty; messages may be lost on the way, so
    check the sequences.

    Args:
        requester: Over which connection.
        stream: Which stream.
        query: `seq` and `batch`; `max_bytes`, which counts headers too and ends it only after
            the message that exceeds it (2.15.1); `next_by_subj` filters.
        timeout_s: How long to wait for the end of it.

    Raises:
        LogUnavailable: no answer, or it did not end.
    """
    try:
        answer = await requester.request_many(
            f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(query), timeout_s=timeout_s
        )
    except (NoResponder, NoReply) as error:
        raise LogUnavailable(f"stream {stream}: {error}") from error
    if answer.status not in (_END_OF_BATCH, _NOT_FOUND):
        raise LogUnavailable(f"stream {stream}: {answer.status} {answer.description}")
    return [_from_reply(reply) for reply in answer.replies]


async def purge(requester: Requester, stream: str, query: dict[str, Any]) -> None:
    """Remove messages from a stream.

    Args:
        requester: Over which connection.
        stream: Which stream.
        query: `{"filter": s}` for all messages of a subject, `{"seq": n}` for all before the one
            at n. NB: with n beyond the end the stream goes on counting from n, and with n = 0, as
            with an empty query, all messages go (2.15.1).

    Raises:
        LogUnavailable: no answer, or an error; they may or may not be gone.
    """
    answer = await _ask(
        requester, f"STREAM.PURGE.{stream}", msgspec.json.encode(query), API_TIMEOUT_S
    )
    decoded = _decoded(_purge_decoder, answer)
    if not decoded.success:
        raise LogUnavailable(f"stream {stream}: {decoded.error}")


async def _ask(requester: Requester, operation: str, query: bytes, timeout_s: float) -> bytes:
    try:
        return await requester.request(f"$JS.API.{operation}", query, timeout_s=timeout_s)
    except (NoResponder, NoReply) as error:
        raise LogUnavailable(str(error)) from error


def _decoded(decoder: msgspec.json.Decoder[T], answer: bytes) -> T:
    try:
        return decoder.decode(answer)
    except UNREADABLE as error:
        raise LogUnavailable(f"unreadable answer: {answer[:80]!r}") from error


def _from_reply(reply: Reply) -> StoredMessage:
    headers = reply.headers
    return StoredMessage(
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        payload=reply.payload,
        stored_at=_microseconds(msgspec.convert(headers["Nats-Time-Stamp"], datetime)),
        is_deletion=_DELETION in headers,
    )


def _microseconds(time: datetime) -> int:
    # In integers: a float has no room for microseconds since 1970 in every case.
    return (time - _EPOCH) // _MICROSECOND
