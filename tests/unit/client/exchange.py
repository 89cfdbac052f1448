"""An exchange in memory behind the client's one seam, with everything that goes wrong on the way.

It stands where a `Requester` does. A market executes for real and keeps its log; requests and
replies are lost, late, refused and delivered twice by a seeded Random. No time passes.
"""

import asyncio
import base64
import gzip
from random import Random
from typing import Any

from dex_client.ids import Ids
from dex_client.load.profile import Profile, profile_random
from dex_client.load.runner import Lane
from dex_engine import Market
from dex_protocol.codec import decode_as, decode_request, encode, hash_of
from dex_protocol.events import AnyEvent
from dex_protocol.ids import Pair
from dex_protocol.queries import (
    LogQuery,
    LogReply,
    SnapshotQuery,
    SnapshotReply,
    StatusReply,
)
from dex_protocol.reasons import RetryReason
from dex_protocol.receipts import Receipt, retry
from dex_runtime.messaging import NoReply, NoResponder
from tests.builders import NOW, a_market, seal

SEED = 1
FAULTS = ("request lost", "request late", "reply lost", "nobody", "busy", "delivered twice")


class Exchange:
    """One market, led by nobody in particular."""

    def __init__(self, *, faults_percent: int = 0, seed: int = SEED, **fields: Any) -> None:
        self.market = a_market(**fields)
        self.base = self.market.snapshot()
        self.log: list[bytes] = []
        self.requests: list[tuple[str, bytes]] = []
        self.late: list[tuple[str, bytes]] = []
        self._random = Random(seed)
        self._faults_percent = faults_percent

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Answer as a Requester does."""
        assert timeout_s > 0
        await asyncio.sleep(0)
        self.requests.append((subject, payload))
        if self.late and self._random.random() < 0.2:
            self.executes(*self.late.pop(0))
        fault = None
        if self._random.randrange(100) < self._faults_percent:
            fault = self._random.choice(FAULTS)
        if fault == "nobody":
            raise NoResponder("nobody")
        if fault == "request lost":
            raise NoReply("lost")
        if fault == "request late":
            self.late.append((subject, payload))
            raise NoReply("late")
        if fault == "delivered twice":
            self.executes(subject, payload)
        reply = self.executes(subject, payload, busy_percent=50 if fault == "busy" else 0)
        if fault == "reply lost":
            raise NoReply("lost")
        return reply

    def executes(self, subject: str, payload: bytes, *, busy_percent: int = 0) -> bytes:
        """Execute a request's commands in one commit, and give the reply."""
        peer = subject.rpartition(".")[2]
        elements, is_batch = decode_request(payload, peer)
        events: list[AnyEvent] = []
        receipts = []
        for element in elements:
            if isinstance(element, Receipt):
                receipts.append(element)
            elif self._random.randrange(100) < busy_percent:
                receipts.append(retry(RetryReason.busy, order_id=element.order_id))  # type: ignore[union-attr]
            else:
                executed = self.market.execute(element, peer=peer, time=NOW)
                events += executed.events
                executed.receipt.sequence = self.market.sequence + 1
                receipts.append(executed.receipt)
        self.log.append(seal(self.market, events))
        return encode(receipts if is_batch else receipts[0])

    def lane(self, peer: str) -> Lane:
        """Make what a peer sends to this market."""
        random = profile_random(SEED, self.market.name, peer)
        profile = Profile(self.market.specification, last_price=None, random=random)
        ids = Ids(peer, above=Pair(0))
        return Lane(self.market.name, ids=ids, profile=profile, requester=self)  # type: ignore[arg-type]


class Replica:
    """Answers queries from a market and its log, a few commits at a time."""

    def __init__(self, market: Market, log: list[bytes], *, snapshot: bytes | None = None) -> None:
        self.market = market
        self.log = log
        self.snapshot = snapshot
        self.asked: list[str] = []
        # What is answered instead, each once: bytes, or an exception.
        self.instead: list[bytes | Exception] = []
        self.page_count = 3
        self.part_bytes = 100

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Answer as a Requester does."""
        assert timeout_s > 0
        what = subject.split(".")[3]
        self.asked.append(what)
        if self.instead:
            answer = self.instead.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return encode(getattr(self, f"_{what}")(payload))

    def _status(self, payload: bytes) -> StatusReply:
        return StatusReply(
            sequence=self.market.sequence,
            leader="server-1",
            server="server-1",
            term=1,
            digest=self.market.digest,
            state=self.market.state,
            specification=self.market.specification,
            highest=(0, 0),
            forgotten=(0, 0),
            last_price=None,
        )

    def _log(self, payload: bytes) -> LogReply:
        query = decode_as(payload, LogQuery)
        assert isinstance(query, LogQuery)
        first = query.from_sequence - 1
        commits = [each.decode() for each in self.log[first : first + self.page_count]]
        return LogReply(sequence=self.market.sequence, first_sequence=1, commits=commits)

    def _snapshot(self, payload: bytes) -> SnapshotReply | Receipt:
        query = decode_as(payload, SnapshotQuery)
        assert isinstance(query, SnapshotQuery)
        packed = b"" if self.snapshot is None else gzip.compress(self.snapshot, mtime=0)
        parts = [
            base64.b64encode(packed[at : at + self.part_bytes]).decode()
            for at in range(0, len(packed), self.part_bytes)
        ]
        return SnapshotReply(
            sequence=self.market.sequence,
            snapshot_sequence=7,
            digest=self.market.digest,
            hash=hash_of(packed),
            part=query.part,
            parts=len(parts),
            data=parts[query.part] if parts else "",
        )
