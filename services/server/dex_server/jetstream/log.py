"""One market's log on a JetStream stream.

Theory of operation. Each append says after which sequence it may be stored
(`Nats-Expected-Last-Sequence`), and carries the hash of its bytes as its id (`Nats-Msg-Id`), so
that a copy of a stored entry is confirmed, not stored twice. The hash of the predecessor is checked
here, not by JetStream: an entry never changes once it stands, so it is as good to have looked at
the predecessor before as in the moment of storing. An append whose predecessor this object has
itself seen stored is sent at once; any other looks first, which costs one read, once for each
leadership. Appends that are under way together are sent one after the other: the number alone
fences only the oldest, since one that expects n + 1 would be stored behind a stranger's n + 1.

Why not `Nats-Expected-Last-Msg-Id`, which says just that: since nats-server 2.14 (commit ded629466;
seen in 2.15.1) a replicated stream checks it only when it applies an entry, and takes a refusal for
a failed write: every replica stops, "critical write error", and again at each restart. The market's
log is then lost for good to the first deposed leader. The sequence is checked before an entry is
proposed to the replicas; a refusal there changes nothing.

Nothing stands at n + 1 only says so for now: an append has been seen to land after a read that
found nothing. So every outcome but a confirmation is `Undecided`.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from dex_protocol import limits, subjects
from dex_protocol.codec import hash_of
from dex_runtime.connection import Connection
from dex_runtime.listening import Listener
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_server.jetstream import api
from dex_server.replication.ports import Entry, LogUnavailable, Position, Undecided

APPEND_TIMEOUT_S: Final = 1.0
"""How long to wait for the confirmation of an append: 1 to 3 ms when all is well. While NATS elects
a leader (4 to 9 s) there is none; then it is better to ask again often than to wait long."""

READ_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bytes of one bulk read: more would crowd the connection that appends use."""

BEGINNING: Final = Position(sequence=0, hash="0" * 32)
"""The place before the first entry."""


class JetStreamLog:
    """The port `Log` on the stream of one market, which exists already."""

    def __init__(
        self, requester: Requester, market: str, *, append_timeout_s: float = APPEND_TIMEOUT_S
    ) -> None:
        """Take the connection that log and leases share, not the one that orders arrive on."""
        self._requester = requester
        self._subject = subjects.log(market)
        self._stream = subjects.log_stream(market)
        self._append_timeout_s = append_timeout_s
        self._turn = asyncio.Lock()
        self._seen = BEGINNING
        """An entry that is known to stand: the last one appended or looked at."""

    async def append(self, payload: bytes, *, after: Position) -> None:
        """Append one entry directly after the entry at a position; see `ports.Log`."""
        async with self._turn:
            if after != self._seen:
                await self._look_at(after)
            own = Position(after.sequence + 1, hash_of(payload))
            headers = {
                # NB: 0 is an expectation like any other: the log must be empty (2.15.1).
                "Nats-Expected-Last-Sequence": str(after.sequence),
                "Nats-Msg-Id": own.hash,
            }
            try:
                ack = await api.publish(
                    self._requester,
                    self._subject,
                    payload,
                    headers=headers,
                    timeout_s=self._append_timeout_s,
                )
            except (NoResponder, NoReply) as error:
                raise Undecided(f"append at {own.sequence}: {error}") from error
            if ack.error is not None:
                # Also of a copy of what stands there already: an unreplicated stream checks the
                # sequence before the id (2.15.1), and any stream forgets ids after its window.
                raise Undecided(
                    f"append at {own.sequence}: error {ack.error.err_code}, {ack.error.description}"
                )
            if ack.seq != own.sequence:
                # A copy of an entry elsewhere: with a duplicate id a replicated stream never
                # looks at the expected sequence (2.15.1).
                raise Undecided(f"append at {own.sequence}: confirmed at {ack.seq}")
            self._seen = own

    async def entry(self, sequence: int) -> Entry | None:
        """Look at what stands at a sequence; see `ports.Log`."""
        found = await api.message(self._requester, self._stream, {"seq": sequence})
        return None if found is None else _entry(found)

    async def bounds(self) -> tuple[int, int]:
        """Tell the first and the last sequence; see `ports.Log`."""
        state = await api.state(self._requester, self._stream)
        # A stream that never had a message says 0 and 0, an emptied one last + 1 and last.
        return max(state.first_seq, 1), state.last_seq

    async def read(
        self, from_sequence: int, *, through_sequence: int, bytes_max: int
    ) -> list[Entry]:
        """Read stored entries, oldest first, without holes; see `ports.Log`."""
        query = {
            "seq": from_sequence,
            "batch": min(through_sequence - from_sequence + 1, limits.PAGE_COUNT_MAX),
            "max_bytes": min(bytes_max, READ_BYTES_MAX),
        }
        found = await api.batch(self._requester, self._stream, query)
        entries = _run(found, from_sequence, bytes_max)
        if entries:
            return entries
        # Trimmed, or the replica that answered is behind: the stream's leader knows.
        first = await self.entry(from_sequence)
        return [] if first is None else [first]

    async def trim(self, first_sequence: int) -> None:
        """Remove all entries before one; see `ports.Log`."""
        # NB: only where that entry stands. A purge up to a place beyond the end would leave the
        # stream empty and going on from that place (2.15.1): the entries between would be lost.
        if await self.entry(first_sequence) is not None:
            await api.purge(self._requester, self._stream, {"seq": first_sequence})

    async def _look_at(self, position: Position) -> None:
        where = f"append at {position.sequence + 1}: expected {position.hash} before it"
        if position.sequence == 0:
            raise Undecided(f"{where}, but the log begins there")
        try:
            found = await self.entry(position.sequence)
        except LogUnavailable as error:
            raise Undecided(f"{where}, {error}") from error
        if found is None:
            raise Undecided(f"{where}, found nothing")
        found_hash = hash_of(found.payload)
        if found_hash != position.hash:
            raise Undecided(f"{where}, found {found_hash}")
        self._seen = position


async def listen(client: Connection, market: str, on_entry: Callable[[Entry], None]) -> Listener:
    """Give each entry of a market's log to a function when the stream broadcasts it, once stored.

    Some may be missing. When the log stored them is not told: they are 0 there.

    Raises:
        NoResponder: the connection is closed.
    """
    return await Listener.start_stored(
        client,
        subjects.events(market),
        on_message=lambda sequence, payload: on_entry(Entry(sequence, payload, 0)),
    )


def _run(found: list[api.StoredMessage], from_sequence: int, bytes_max: int) -> list[Entry]:
    # The entries up to the first hole: nats-py drops messages when it is slow. JetStream sends
    # one message more than max_bytes allows.
    entries: list[Entry] = []
    left = bytes_max
    for message in found:
        left -= len(message.payload)
        is_next = message.sequence == from_sequence + len(entries)
        if not is_next or (entries and left < 0):
            break
        entries.append(_entry(message))
    return entries


def _entry(message: api.StoredMessage) -> Entry:
    return Entry(message.sequence, message.payload, message.stored_at)
