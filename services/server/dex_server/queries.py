"""The queries that peers send: read, checked, and handed to whoever can answer.

What is about the state goes to the market's replica, which answers when the state it speaks of is
stored. `log` and `snapshot` are about what is stored already, and are answered from there.
"""

import asyncio
import base64
import logging
from typing import Final

from msgspec import UNSET, Struct

from dex_protocol import limits
from dex_protocol.codec import decode_as, encode
from dex_protocol.ids import is_peer
from dex_protocol.queries import QUERIES, LogQuery, LogReply, Query, SnapshotQuery, SnapshotReply
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt, refused, retry
from dex_runtime.clock import monotonic_us
from dex_runtime.serving import Incoming
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

WAIT_S: Final = 0.02
"""Between two looks whether `min_sequence` is reached, for queries about what is stored."""

_log: Final = logging.getLogger(__name__)


class Queries:
    """The queries to one server."""

    def __init__(self, markets: Markets, snapshots: Snapshots) -> None:
        """Take the server's markets, and the store of snapshots."""
        self._markets = markets
        self._snapshots = snapshots
        # How many wait for what is stored, and turns to read it.
        self._count = 0
        self._reading = asyncio.Semaphore(limits.READS_COUNT_MAX)
        # The bytes of the snapshot that was asked for last, of each market.
        self._loaded: dict[str, tuple[SnapshotName, bytes]] = {}
        # Of many that ask for its parts at once, one loads it.
        self._loading = asyncio.Lock()

    def on_request(self, incoming: Incoming) -> None:
        """Answer a query, or have it answered."""
        _, _, market, what, peer = incoming.subject.split(".", 4)
        query = self._read(what, peer, incoming.payload)
        driver = self._markets.drivers.get(market)
        if isinstance(query, Receipt):
            self._markets.spawn(incoming.reply_to.send(encode(query)))
        elif driver is not None:
            self._hand_on(driver, peer, query, incoming)
        elif self._has_room():
            self._markets.spawn(self._find_market(market, peer, query, incoming))
        else:
            self._markets.spawn(incoming.reply_to.send(encode(retry(RetryReason.busy))))

    def _hand_on(self, driver: Driver, peer: str, query: Query, incoming: Incoming) -> None:
        if not isinstance(query, LogQuery | SnapshotQuery):
            driver.give(Asked(peer, query, incoming.reply_to, monotonic_us()))
        elif self._has_room():
            self._markets.spawn(self._answer_stored(driver, query, incoming))
        else:
            self._markets.spawn(incoming.reply_to.send(encode(retry(RetryReason.busy))))

    def _has_room(self) -> bool:
        return self._count < limits.WAITING_QUERIES_COUNT_MAX

    async def _find_market(self, market: str, peer: str, query: Query, incoming: Incoming) -> None:
        self._count += 1
        try:
            driver = await self._markets.find(market)
        except LogUnavailable as unavailable:
            answer = retry(RetryReason.unavailable, str(unavailable))
        else:
            if driver is not None:
                self._hand_on(driver, peer, query, incoming)
                return
            answer = refused(Reason.unknown_market, f"there is no market {market[:80]!r}")
        finally:
            self._count -= 1
        await incoming.reply_to.send(encode(answer))

    def _read(self, what: str, peer: str, payload: bytes) -> Query | Receipt:
        if not is_peer(peer):
            return refused(Reason.malformed, f"expected a peer's name, found {peer[:80]!r}")
        kind = QUERIES.get(what)
        if kind is None:
            expected = ", ".join(QUERIES)
            return refused(Reason.unknown_value, f"expected one of {expected}, found {what[:80]!r}")
        return decode_as(payload, kind)

    # --- What is stored -------------------------------------------------------------------------

    async def _answer_stored(
        self, driver: Driver, query: LogQuery | SnapshotQuery, incoming: Incoming
    ) -> None:
        self._count += 1
        try:
            async with asyncio.timeout(limits.MIN_SEQUENCE_WAIT_US / 1e6):
                while driver.replica.stored < max(query.min_sequence, 1):  # noqa: ASYNC110  (rare)
                    await asyncio.sleep(WAIT_S)
                await self._reading.acquire()
            reply: Struct = await self._read_stored(driver, query)
        except TimeoutError:
            reply = retry(RetryReason.unavailable)
        except LogUnavailable as unavailable:
            reply = retry(RetryReason.unavailable, str(unavailable))
        finally:
            self._count -= 1
        await incoming.reply_to.send(encode(reply))

    async def _read_stored(self, driver: Driver, query: LogQuery | SnapshotQuery) -> Struct:
        try:
            if isinstance(query, LogQuery):
                return await self._log(driver, query)
            return await self._snapshot(driver, query)
        finally:
            self._reading.release()

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

    async def _snapshot(self, driver: Driver, query: SnapshotQuery) -> SnapshotReply | Receipt:
        market = driver.replica.name
        stored = driver.replica.stored
        names = await self._snapshots.names(market)
        if query.snapshot_sequence is not UNSET:
            names = [n for n in names if n.position.sequence == query.snapshot_sequence]
            if not names:
                return retry(RetryReason.snapshot_gone)
        for name in names:
            try:
                data = await self._load(name)
            except SnapshotInvalid as invalid:
                _log.warning("snapshot of %s: %s", market, invalid)
                continue
            return _part(name, data, query.part, stored)
        if query.snapshot_sequence is not UNSET:
            return retry(RetryReason.snapshot_gone)
        return SnapshotReply(
            sequence=stored, snapshot_sequence=0, digest="", hash="", part=0, parts=0, data=""
        )

    async def _load(self, name: SnapshotName) -> bytes:
        async with self._loading:
            loaded = self._loaded.get(name.market)
            if loaded is not None and loaded[0] == name:
                return loaded[1]
            data = await self._snapshots.load(name)
            self._loaded[name.market] = (name, data)
            return data


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
