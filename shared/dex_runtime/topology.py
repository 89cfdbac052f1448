"""Every stream, bucket and store of the exchange as data, and how to make them.

Making is idempotent: what exists already is compared with what is wanted, and kept. Knows nothing
of who reads or writes them, nor of who may.

The names are those of `dex_protocol.subjects`; what NATS calls the streams behind buckets and
stores is known here alone.
"""

from typing import Any, Final

import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.js import api

from dex_protocol import subjects

API_TIMEOUT_S: Final = 5.0
"""How long JetStream may take to make a stream: 10 to 100 ms, but for an election (4 to 9 s)."""

DUPLICATE_WINDOW_S: Final = 30.0
"""How long a log remembers `Nats-Msg-Id`. The ids are there to fence; a window is memory of the
node (about 100 bytes an entry, 3 MB at 1,000 commits a second), read again when it restarts. It
must outlive an append that is resent, which is some seconds; later the sequence alone refuses it.
"""

_NAME_IN_USE: Final = 10058
"""JetStream's error code for a stream that exists with another configuration."""


class TopologyUnavailable(Exception):
    """JetStream did not make it, or did not say so; try again, it is idempotent."""


class TopologyDiffers(Exception):
    """It exists in another shape than the exchange needs; an operator must look."""

    def __init__(self, stream: str, differences: list[str]) -> None:
        """Name the stream, and each setting with what was expected and what was found."""
        super().__init__(f"stream {stream} differs: {'; '.join(differences)}")
        self.stream = stream
        self.differences = differences


class Stream(Struct, frozen=True, kw_only=True):
    """A stream, as far as the exchange relies on it; the rest is an operator's choice."""

    name: str
    subjects: tuple[str, ...]
    republish_to: str | None = None
    """Where each stored message is published again, a bucket's with its key; None for nowhere."""
    messages_per_subject_max: int = -1
    """How many of a subject's messages are kept, the newest; -1 for all."""
    denies_delete: bool = True
    """Whether no single message can be deleted."""
    allows_rollup: bool = True
    """Whether a message may replace all others of its subject."""
    is_readable_anywhere: bool = True
    """Whether every replica answers reads (Direct Get), perhaps stale ones."""
    duplicate_window_s: float = DUPLICATE_WINDOW_S


def log_of(market: str) -> Stream:
    """Describe a market's log."""
    return Stream(
        name=subjects.log_stream(market),
        subjects=(subjects.log(market),),
        republish_to=subjects.events(market),
        allows_rollup=False,
    )


def bucket(
    name: str, *, republish_to: str | None = None, is_readable_anywhere: bool = False
) -> Stream:
    """Describe a key-value bucket (NATS ADR-8) that keeps one value for each key."""
    return Stream(
        name=bucket_stream(name),
        subjects=(f"$KV.{name}.>",),
        republish_to=republish_to,
        messages_per_subject_max=1,
        is_readable_anywhere=is_readable_anywhere,
    )


def bucket_stream(name: str) -> str:
    """Name the stream behind a key-value bucket."""
    return f"KV_{name}"


def bucket_subject(name: str, key: str) -> str:
    """Name the subject behind a key of a bucket."""
    return f"$KV.{name}.{key}"


def object_store(name: str) -> Stream:
    """Describe an object store (NATS ADR-20)."""
    return Stream(
        name=object_store_stream(name),
        subjects=(f"$O.{name}.C.>", f"$O.{name}.M.>"),
        denies_delete=False,
    )


def object_store_stream(name: str) -> str:
    """Name the stream behind an object store."""
    return f"OBJ_{name}"


SHARED: Final = (
    # Written once for each market; who reads an old list reads again.
    bucket(subjects.MARKETS_BUCKET, is_readable_anywhere=True),
    # Whoever looks at these decides by what stands there now, so their leaders answer.
    bucket(subjects.LEADERS_BUCKET, republish_to=subjects.leases(subjects.LEADERS_BUCKET)),
    bucket(subjects.SERVERS_BUCKET),
    object_store(subjects.SNAPSHOTS_STORE),
)
"""What all markets share."""


async def make_shared(client: Client, *, replicas: int) -> int:
    """Make the buckets and the store that all markets share, unless they exist.

    Returns:
        How many copies are kept of them: replicas, or what was chosen when they were made.

    Raises:
        TopologyUnavailable, TopologyDiffers: see there.
    """
    return max([await make(client, stream, replicas=replicas) for stream in SHARED])


async def make_log(client: Client, market: str, *, replicas: int) -> None:
    """Make a market's log, unless it exists.

    Raises:
        TopologyUnavailable, TopologyDiffers: see there.
    """
    await make(client, log_of(market), replicas=replicas)


async def make(client: Client, stream: Stream, *, replicas: int) -> int:
    """Make a stream, unless it exists in the same shape.

    Returns:
        How many copies are kept of it.

    Raises:
        TopologyUnavailable: no answer, no leader, or not enough nodes for its replicas.
        TopologyDiffers: it exists in another shape.
    """
    manager = client.jsm(timeout=API_TIMEOUT_S)
    wanted = configuration(stream, replicas=replicas)
    try:
        await manager.add_stream(wanted)
    except nats.js.errors.APIError as error:
        if error.err_code != _NAME_IN_USE:
            raise TopologyUnavailable(f"stream {stream.name}: {error}") from error
    except (TimeoutError, nats.errors.Error) as error:
        raise TopologyUnavailable(f"stream {stream.name}: no answer ({error!r})") from error
    else:
        return replicas
    try:
        found = (await manager.stream_info(stream.name)).config
    except (TimeoutError, nats.errors.Error) as error:
        raise TopologyUnavailable(f"stream {stream.name}: {error!r}") from error
    differences = _differences(wanted, found)
    if differences:
        raise TopologyDiffers(stream.name, differences)
    return found.num_replicas or 1


def configuration(stream: Stream, *, replicas: int) -> api.StreamConfig:
    """Spell a stream out for JetStream."""
    return api.StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        num_replicas=replicas,
        # A full disk must refuse the new, never drop the old.
        discard=api.DiscardPolicy.NEW,
        # No limits: trimming is an operator's choice.
        max_msgs=-1,
        max_bytes=-1,
        max_age=0,
        max_consumers=-1,
        max_msgs_per_subject=stream.messages_per_subject_max,
        # The bound on a commit is kept by who makes it; NATS' own bound is max_payload.
        max_msg_size=-1,
        duplicate_window=stream.duplicate_window_s,
        # No hole in a log. Purging, which trims it from its beginning, stays possible.
        deny_delete=stream.denies_delete,
        deny_purge=False,
        # Buckets and stores replace by rolling up; a log must not be replaced by one message.
        allow_rollup_hdrs=stream.allows_rollup,
        allow_direct=stream.is_readable_anywhere,
        republish=_republished(stream),
    )


def _republished(stream: Stream) -> api.RePublish | None:
    if stream.republish_to is None:
        return None
    (source,) = stream.subjects
    # JetStream 2.15 takes no wildcard in the source that the destination does not have too.
    wildcard = ".>" if source.endswith(".>") else ""
    return api.RePublish(src=source, dest=f"{stream.republish_to}{wildcard}")


_COMPARED: Final = (
    # What the exchange's correctness rests on. Replicas, limits of size and the window of
    # duplicates may be changed by an operator.
    "subjects",
    "retention",
    "discard",
    "max_msgs",
    "max_age",
    "max_msgs_per_subject",
    "deny_delete",
    "allow_rollup_hdrs",
    "allow_direct",
    "republish",
)


def _differences(wanted: api.StreamConfig, found: api.StreamConfig) -> list[str]:
    return [
        f"{field} expected {_plain(expected)}, found {_plain(actual)}"
        for field in _COMPARED
        if _plain(expected := getattr(wanted, field)) != _plain(actual := getattr(found, field))
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, api.RePublish):
        return (value.src, value.dest)
    # What is off may be left out of JetStream's answer, or be False.
    return value or None
