"""Reading the keys of a key-value bucket (NATS ADR-8), by JetStream's own API.

A plain request, without a consumer. Knows nothing of what keys mean. No error of nats-py leaves
this module.
"""

from typing import Final, Protocol

import msgspec
from msgspec import Struct

from dex_runtime.messaging import NoReply, NoResponder
from dex_runtime.topology import bucket_stream, bucket_subject

_STREAM_NOT_FOUND: Final = 10059
"""JetStream's error code where there is no such stream."""


class BucketUnavailable(Exception):
    """JetStream did not answer, or with an error; ask again."""


class Channel(Protocol):
    """Where requests go: a `Requester`, or what stands before one."""

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send a request and wait for its reply, as `Requester.request` does."""
        ...


class _Query(Struct):
    subjects_filter: str
    offset: int


class _State(Struct):
    subjects: dict[str, int] = {}


class _Error(Struct):
    err_code: int = 0
    description: str = ""


class _Answer(Struct):
    state: _State | None = None
    error: _Error | None = None
    total: int = 0
    """Subjects there are, when they do not all fit one answer (100,000 do)."""


async def keys(channel: Channel, bucket: str, *, timeout_s: float) -> list[str]:
    """Give the keys of a bucket, in no order; none when there is no such bucket.

    NB: a key that was deleted leaves a marker, and is given too.

    Raises:
        BucketUnavailable: see there.
    """
    stream = bucket_stream(bucket)
    every_key = bucket_subject(bucket, ">")
    found: list[str] = []
    while True:
        query = _Query(every_key, offset=len(found))
        try:
            payload = await channel.request(
                f"$JS.API.STREAM.INFO.{stream}", msgspec.json.encode(query), timeout_s=timeout_s
            )
            answer = msgspec.json.decode(payload, type=_Answer)
        except (NoResponder, NoReply, msgspec.DecodeError) as error:
            raise BucketUnavailable(f"bucket {bucket}: {error}") from error
        if answer.error is not None and answer.error.err_code == _STREAM_NOT_FOUND:
            return []
        if answer.state is None:
            raise BucketUnavailable(f"bucket {bucket}: {answer.error}")
        page = [subject.rpartition(".")[2] for subject in answer.state.subjects]
        found += page
        if not page or len(found) >= answer.total:
            return found
