"""The stored snapshots of all markets, in a JetStream object store (NATS ADR-20).

Objects are readable with the ordinary tools (`nats object get`). An object's name says all that a
`SnapshotName` does, so that listing them needs no reading; names are never used for other bytes.

Written and read chunk by chunk here, in requests to the store's leader, because nats-py's own
(2.16.0) waits for ever for a chunk that is gone, copies all bytes again for each chunk, and leaves
a marker for each deleted object for good, of which there would be thousands a day. What a process
that dies while it saves leaves behind are chunks without a description, which nobody finds.

Knows nothing of what is in a snapshot, nor of which ones to keep.
"""

import base64
import binascii
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct

from dex_protocol.codec import UNREADABLE, hash_of
from dex_protocol.subjects import SNAPSHOTS_STORE
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_runtime.topology import object_store_stream
from dex_server.jetstream import api
from dex_server.replication.ports import (
    LogUnavailable,
    Position,
    SnapshotInvalid,
    SnapshotName,
)

CHUNK_BYTES: Final = 128 * 1024
"""As other clients cut objects; a read answers it in base64, well below the payload limit."""

_STREAM: Final = object_store_stream(SNAPSHOTS_STORE)
_DESCRIPTIONS: Final = f"$O.{SNAPSHOTS_STORE}.M."
_CHUNKS: Final = f"$O.{SNAPSHOTS_STORE}.C."


class _Options(Struct):
    max_chunk_size: int = CHUNK_BYTES


class _Description(Struct, omit_defaults=True):
    # ObjectInfo of ADR-20, as far as it is used.
    name: str
    bucket: str
    nuid: str
    size: int
    mtime: str = ""
    chunks: int = 0
    digest: str = ""
    deleted: bool = False
    options: _Options | None = None


_description_decoder: Final = msgspec.json.Decoder(_Description)


class JetStreamSnapshots:
    """The port `Snapshots` on the object store, which exists already."""

    def __init__(self, requester: Requester) -> None:
        """Take any connection of a server."""
        self._requester = requester

    async def names(self, market: str) -> list[SnapshotName]:
        """List a market's snapshots, newest first; see `ports.Snapshots`."""
        state = await api.state(self._requester, _STREAM, subjects=f"{_DESCRIPTIONS}>")
        names = [_name_of(subject) for subject in state.subjects]
        return sorted(
            (name for name in names if name is not None and name.market == market),
            key=lambda name: name.position.sequence,
            reverse=True,
        )

    async def load(self, name: SnapshotName) -> bytes:
        """Give the stored bytes; see `ports.Snapshots`."""
        description = await self._description(name)
        if description is None:
            raise SnapshotInvalid(f"{_object_name(name)} is gone, or its description unreadable")
        subject = _CHUNKS + description.nuid
        chunks: list[bytes] = []
        size = 0
        sequence = 1
        while size < description.size:
            chunk = await api.message(
                self._requester, _STREAM, {"seq": sequence, "next_by_subj": subject}
            )
            if chunk is None:
                raise SnapshotInvalid(
                    f"{_object_name(name)}: expected {description.size} bytes, found {size}"
                )
            chunks.append(chunk.payload)
            size += len(chunk.payload)
            sequence = chunk.sequence + 1
        data = b"".join(chunks)
        if hash_of(data) != name.hash:
            raise SnapshotInvalid(f"{_object_name(name)}: found bytes with hash {hash_of(data)}")
        return data

    async def save(self, name: SnapshotName, data: bytes) -> None:
        """Store bytes under a name; see `ports.Snapshots`."""
        if await self._description(name) is not None:
            # Its name holds the hash of its bytes: it is the same. Storing it again would take
            # the chunks away from whoever is reading them.
            return
        nuid = secrets.token_hex(11)
        digest = sha256()
        parts = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        for part in parts:
            digest.update(part)
            await self._put(_CHUNKS + nuid, part, headers={})
        description = _Description(
            name=_object_name(name),
            bucket=SNAPSHOTS_STORE,
            nuid=nuid,
            size=len(data),
            mtime=datetime.now(UTC).isoformat(),
            chunks=len(parts),
            digest=f"SHA-256={base64.urlsafe_b64encode(digest.digest()).decode()}",
            options=_Options(),
        )
        await self._put(
            _subject_of(name), msgspec.json.encode(description), headers={"Nats-Rollup": "sub"}
        )

    async def remove(self, name: SnapshotName) -> None:
        """Forget a snapshot; see `ports.Snapshots`."""
        description = await self._description(name)
        if description is not None:
            # The chunks first: what is left when this ends half way can be found again.
            await api.purge(self._requester, _STREAM, {"filter": _CHUNKS + description.nuid})
        await api.purge(self._requester, _STREAM, {"filter": _subject_of(name)})

    async def _description(self, name: SnapshotName) -> _Description | None:
        found = await api.message(self._requester, _STREAM, {"last_by_subj": _subject_of(name)})
        if found is None:
            return None
        try:
            description = _description_decoder.decode(found.payload)
        except UNREADABLE:
            return None
        return None if description.deleted else description

    async def _put(self, subject: str, payload: bytes, *, headers: dict[str, str]) -> None:
        try:
            ack = await api.publish(self._requester, subject, payload, headers=headers)
        except (NoResponder, NoReply) as error:
            raise LogUnavailable(str(error)) from error
        if ack.error is not None:
            raise LogUnavailable(f"stream {_STREAM}: {ack.error.description}")


def _object_name(name: SnapshotName) -> str:
    position = name.position
    place = f"{name.market}.{position.sequence}.{position.hash}"
    return f"{place}.{name.hash}.{name.digest}.{name.state}"


def _subject_of(name: SnapshotName) -> str:
    return _DESCRIPTIONS + base64.urlsafe_b64encode(_object_name(name).encode()).decode()


def _name_of(subject: str) -> SnapshotName | None:
    # None for what somebody else put there.
    try:
        text = base64.urlsafe_b64decode(subject.removeprefix(_DESCRIPTIONS)).decode()
        market, sequence, position_hash, data_hash, digest, state = text.split(".")
        position = Position(int(sequence), position_hash)
    except (binascii.Error, ValueError):
        return None
    return SnapshotName(
        market=market, position=position, hash=data_hash, digest=digest, state=state
    )
