"""The directory of markets: their names and first specifications, in a key-value bucket.

Opening is decided by the bucket's leader, so of many at once one wins and all learn what it wrote.
What is new is asked for, which needs no consumer, survives every failure of a node, and costs one
small request each time.

Knows nothing of what a specification says; the log of a market is the truth about it.
"""

from typing import Final

from dex_protocol.subjects import MARKETS_BUCKET
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_runtime.topology import bucket_stream, bucket_subject
from dex_server.jetstream import api
from dex_server.replication.ports import LogUnavailable

_STREAM: Final = bucket_stream(MARKETS_BUCKET)
_ALL: Final = bucket_subject(MARKETS_BUCKET, ">")
_BATCH_COUNT: Final = 1_000


class Directory:
    """The markets that were ever opened."""

    def __init__(self, requester: Requester) -> None:
        """Take any connection of a server."""
        self._requester = requester
        self._next_sequence = 1

    async def open(self, market: str, specification: bytes) -> bytes:
        """Write a market's first specification, unless it has one.

        Returns:
            What stands there now, these bytes or those of whoever was first.

        Raises:
            LogUnavailable: no answer; it may or may not be written. Do it again.
        """
        subject = bucket_subject(MARKETS_BUCKET, market)
        last_sequence = 0
        while True:
            headers = {"Nats-Expected-Last-Subject-Sequence": str(last_sequence)}
            try:
                ack = await api.publish(self._requester, subject, specification, headers=headers)
            except (NoResponder, NoReply) as error:
                raise LogUnavailable(str(error)) from error
            if ack.error is None:
                return specification
            if ack.error.err_code not in api.WRONG_LAST_SEQUENCE:
                raise LogUnavailable(f"stream {_STREAM}: {ack.error.description}")
            found = await api.message(self._requester, _STREAM, {"last_by_subj": subject})
            if found is None:
                # Refused because another is under way.
                raise LogUnavailable(f"{market} is being opened by somebody else")
            if not found.is_deletion:
                return found.payload
            # An operator deleted the key, which leaves a marker in its place.
            last_sequence = found.sequence

    async def news(self) -> list[tuple[str, bytes]]:
        """Give the markets that were not given before; see `ports.Directory`."""
        news: list[tuple[str, bytes]] = []
        next_sequence = self._next_sequence
        while True:
            query = {"seq": next_sequence, "batch": _BATCH_COUNT, "next_by_subj": _ALL}
            found = await api.batch(self._requester, _STREAM, query)
            if not found:
                # Only now: what was found before a request that fails is news the next time.
                self._next_sequence = next_sequence
                return news
            for message in found:
                next_sequence = message.sequence + 1
                if not message.is_deletion:
                    news.append((message.subject.rpartition(".")[2], message.payload))
