"""The queries that peers send: read, checked, and handed to whoever can answer.

What is about the state goes to the market's replica, which answers when the state it speaks of is
stored. `log` and `snapshot` are about what is stored already, and are answered from there.

Each peer has its share of the answers' bytes, of places to wait, and of turns to read what is
stored. Whose share is used up is told so before anything is done for it.
"""

import asyncio
import base64
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import UNSET, Struct

from dex_protocol import limits
from dex_protocol.codec import decode_as, encode
from dex_protocol.ids import is_peer
from dex_protocol.queries import QUERIES, LogQuery, LogReply, Query, SnapshotQuery, SnapshotReply
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt, refused, retry
from dex_runtime.clock import monotonic_us
from dex_runtime.serving import Incoming, ReplyAddress
from dex_server.driver import Driver
from dex_server.markets import Markets
from dex_server.replication.effects import Asked
from dex_server.replication.ports import (
    Entry,
    LogUnavailable,
    SnapshotInvalid,
    SnapshotName,
    Snapshots,
)
from dex_server.replication.questions import too_many_of
from dex_server.shares import ReadTurns, Shares, Unanswered

WAIT_S: Final = 0.02
"""Between two looks whether `min_sequence` is reached, for queries about what is stored."""

_log: Final = logging.getLogger(__name__)


class Counted(Struct, frozen=True):
    """Where an answer goes that counts as its peer's."""

    reply_to: ReplyAddress
    peer: str
    shares: Shares
    places: Unanswered
    now_us: Callable[[], int]

    def send(self, payload: bytes) -> None:
        """Count the answer, and send it."""
        self.places.give_back(self.peer)
        count = max(len(payload), limits.ANSWER_BYTES_MIN)
        self.shares.take(self.peer, count, now=self.now_us())
        self.reply_to.send(payload)


class Queries:
    """The queries to one server."""

    def __init__(
        self,
        markets: Markets,
        snapshots: Snapshots,
        *,
        now_us: Callable[[], int] = monotonic_us,
    ) -> None:
        """Take the server's markets, the store of snapshots, and a clock that never goes back."""
        self._markets = markets
        self._snapshots = snapshots
        self._now_us = now_us
        self._shares = Shares()
        self._places = Unanswered()
        # How many wait for JetStream, and whose; and turns to read what is stored.
        self._count = 0
        self._waiting: Counter[str] = Counter()
        self._turns = ReadTurns(limits.READS_COUNT_MAX, peer_count_max=limits.PEER_READS_COUNT_MAX)
        # The bytes of the snapshots that there are, of each market, as they were asked for.
        self._loaded: dict[str, dict[SnapshotName, bytes]] = {}
        # Of many that ask for its parts at once, one loads it.
        self._loading = asyncio.Lock()

    def on_request(self, incoming: Incoming) -> None:
        """Answer a query, or have it answered."""
        _, _, market, what, peer = incoming.subject.split(".", 4)
        now = self._now_us()
        if not is_peer(peer):
            # Nothing is remembered of one that cannot be.
            wrong = f"expected a peer's name, found {peer[:80]!r}"
            incoming.reply_to.send(encode(refused(Reason.malformed, wrong)))
            return
        if not self._shares.has_some(peer, now=now):
            incoming.reply_to.send(encode(_too_much_for(peer)))
            return
        if not self._places.take(peer, now=now):
            count_max = limits.PEER_UNANSWERED_COUNT_MAX
            incoming.reply_to.send(encode(too_many_of(peer, count_max=count_max)))
            return
        reply_to = Counted(incoming.reply_to, peer, self._shares, self._places, self._now_us)
        query = _read(what, incoming.payload)
        driver = self._markets.drivers.get(market)
        if isinstance(query, Receipt):
            reply_to.send(encode(query))
            return
        asked = Asked(peer, query, reply_to, now)
        if driver is None:
            # Counted at once: many names may be asked for before the first is looked up.
            self._shares.take(peer, limits.READ_BYTES_MIN, now=now)
            self._begin(asked, lambda: self._find_market(market, asked))
        elif isinstance(query, LogQuery | SnapshotQuery):
            self._begin(asked, lambda: self._answer_stored(driver, asked, query))
        else:
            driver.give(asked)

    # --- What JetStream is asked for ------------------------------------------------------------

    def _begin(self, asked: Asked, answer: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._waiting[asked.peer] >= limits.PEER_QUERIES_COUNT_MAX:
            many = too_many_of(asked.peer, count_max=limits.PEER_QUERIES_COUNT_MAX)
            asked.reply_to.send(encode(many))
        elif self._count >= limits.WAITING_QUERIES_COUNT_MAX:
            asked.reply_to.send(encode(retry(RetryReason.busy)))
        else:
            self._count += 1
            self._waiting[asked.peer] += 1
            self._markets.spawn(self._counted(asked.peer, answer))

    async def _counted(self, peer: str, answer: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await answer()
        finally:
            self._count -= 1
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]

    async def _find_market(self, market: str, asked: Asked) -> None:
        try:
            driver = await self._markets.find(market)
        except LogUnavailable as unavailable:
            answer = retry(RetryReason.unavailable, str(unavailable))
        else:
            if driver is not None:
                if isinstance(asked.query, LogQuery | SnapshotQuery):
                    await self._answer_stored(driver, asked, asked.query)
                else:
                    driver.give(asked)
                return
            answer = refused(Reason.unknown_market, f"there is no market {market[:80]!r}")
        asked.reply_to.send(encode(answer))

    async def _answer_stored(
        self, driver: Driver, asked: Asked, query: LogQuery | SnapshotQuery
    ) -> None:
        try:
            async with asyncio.timeout(limits.MIN_SEQUENCE_WAIT_US / 1e6):
                while driver.replica.stored < max(query.min_sequence, 1):  # noqa: ASYNC110  (rare)
                    await asyncio.sleep(WAIT_S)
                await self._turns.take(asked.peer)
            reply: Struct = await self._read_stored(driver, asked.peer, query)
        except TimeoutError:
            reply = retry(RetryReason.unavailable)
        except LogUnavailable as unavailable:
            reply = retry(RetryReason.unavailable, str(unavailable))
        asked.reply_to.send(encode(reply))

    async def _read_stored(
        self, driver: Driver, peer: str, query: LogQuery | SnapshotQuery
    ) -> Struct:
        try:
            now = self._now_us()
            if not self._shares.has_some(peer, now=now):
                # What was answered meanwhile was more than it had left.
                return _too_much_for(peer)
            if driver.replica.stored < max(query.min_sequence, 1):
                # It was outrun as leader while this waited for a turn, and knows of nothing until
                # it follows: an empty page would be taken for the log's end.
                return retry(RetryReason.unavailable)
            self._shares.take(peer, limits.READ_BYTES_MIN, now=now)
            if isinstance(query, LogQuery):
                return await self._log(driver, query)
            return await self._snapshot(driver, peer, query)
        finally:
            self._turns.give_back(peer)

    async def _log(self, driver: Driver, query: LogQuery) -> LogReply:
        # Nothing beyond what is known to be stored, whatever else may stand there already.
        stored = driver.replica.stored
        first, _ = await driver.log.bounds()
        entries: list[Entry] = []
        start = max(query.from_sequence, first)
        through = min(start + query.limit - 1, stored)
        if start <= through:
            entries = await driver.log.read(
                start, through_sequence=through, bytes_max=limits.REPLY_BYTES_MAX
            )
        commits = _fitting([entry.payload.decode() for entry in entries])
        return LogReply(sequence=stored, first_sequence=first, commits=commits)

    async def _snapshot(
        self, driver: Driver, peer: str, query: SnapshotQuery
    ) -> SnapshotReply | Receipt:
        market = driver.replica.name
        stored = driver.replica.stored
        names = await self._snapshots.names(market)
        loaded = self._loaded.get(market, {})
        self._loaded[market] = {name: loaded[name] for name in names if name in loaded}
        if query.snapshot_sequence is not UNSET:
            names = [n for n in names if n.position.sequence == query.snapshot_sequence]
            if not names:
                return retry(RetryReason.snapshot_gone)
        for name in names:
            try:
                data = await self._load(name, peer)
            except SnapshotInvalid as invalid:
                _log.warning("snapshot of %s: %s", market, invalid)
                continue
            return _part(name, data, query.part, stored)
        if query.snapshot_sequence is not UNSET:
            return retry(RetryReason.snapshot_gone)
        return SnapshotReply(
            sequence=stored, snapshot_sequence=0, digest="", hash="", part=0, parts=0, data=""
        )

    async def _load(self, name: SnapshotName, peer: str) -> bytes:
        async with self._loading:
            loaded = self._loaded[name.market]
            if name not in loaded:
                loaded[name] = await self._snapshots.load(name)
                # Whoever has it loaded pays for all of it; its parts are cheap from then on.
                self._shares.take(peer, len(loaded[name]), now=self._now_us())
            return loaded[name]


def _read(what: str, payload: bytes) -> Query | Receipt:
    kind = QUERIES.get(what)
    if kind is None:
        expected = ", ".join(QUERIES)
        return refused(Reason.unknown_value, f"expected one of {expected}, found {what[:80]!r}")
    return decode_as(payload, kind)


def _too_much_for(peer: str) -> Receipt:
    return retry(
        RetryReason.rate_limited,
        f"expected {peer} to ask for at most {limits.PEER_ANSWERS_BYTES_PER_SECOND} bytes of"
        " answers in a second, found more",
    )


def _fitting(commits: list[str]) -> list[str]:
    # A payload grows when it is quoted as a JSON string; the reply must still fit a message.
    total = 0
    for index, commit in enumerate(commits):
        total += len(commit.encode()) + commit.count('"') + commit.count("\\") + 3
        if total > limits.PAYLOAD_BYTES_MAX - 1_000 and index > 0:
            return commits[:index]
    return commits


def _part(name: SnapshotName, data: bytes, part: int, stored: int) -> SnapshotReply | Receipt:
    size = limits.REPLY_BYTES_MAX
    parts = -(-len(data) // size)
    if part >= parts:
        return refused(Reason.malformed, f"expected part below {parts}, found {part}")
    return SnapshotReply(
        sequence=stored,
        snapshot_sequence=name.position.sequence,
        digest=name.digest,
        hash=name.hash,
        part=part,
        parts=parts,
        data=base64.b64encode(data[part * size : (part + 1) * size]).decode(),
    )
