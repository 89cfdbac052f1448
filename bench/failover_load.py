"""A steady load by the Python client, and what came of each order and each copy of it.

Theory of operation. Each market gets an order at fixed moments, whatever became of those before: a
market that answers nobody for a while shows it as a gap between acknowledgements, and the first
order after the gap does not wait for an older one's pause. Each order goes the client's own way
(`dex_client.sending`), copies and all, until it has an outcome; between it and the connection
stands `Watched`, which notes how each copy fared. In the end every log is read from its beginning,
and compared with all that was told (`dex_client.load.verification`).

Buys and sells of the same quantity at one price take turns, so each other order trades, and the
book stays as small as what is under way.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final, Literal

from msgspec import Struct

from bench.failover_results import longest_gap
from deploy.keys import LOAD_PEERS
from dex_client.errors import OutcomeUnknown, Unavailable
from dex_client.ids import Ids
from dex_client.link import Link, linked
from dex_client.load.record import Told
from dex_client.load.verification import Audit, total
from dex_client.queries import Queries
from dex_client.retry import Policy
from dex_client.sending import Sender
from dex_engine import Market
from dex_protocol.codec import decode_commit
from dex_protocol.commands import Submit
from dex_protocol.events import LeaderChanged
from dex_protocol.ids import Pair
from dex_protocol.queries import StatusReply
from dex_protocol.receipts import Receipt
from dex_runtime.connection import ConnectionOptions, Credentials
from dex_runtime.messaging import NoReply, NoResponder

PEER: Final = LOAD_PEERS[0]

PRICE: Final = "100"
QUANTITY: Final = "1"

CHECK_S: Final = 0.005
"""How often somebody who waits for an acknowledgement looks."""

Fate = Literal["answered", "no_responder", "swallowed"]


class Copy(Struct, frozen=True, gc=False):
    """One copy of an order, or one question, on its way."""

    market: str
    began: float
    ended: float
    fate: Fate


class Acknowledgement(Struct, frozen=True, gc=False):
    """An order that has its receipt."""

    sent: float
    """When its first copy left."""
    at: float
    sequence: int
    """The commit it rests on."""
    is_duplicate: bool
    """Whether a copy before the one that was answered had been executed."""


class Term(Struct, frozen=True):
    """A leadership, as the log has it."""

    sequence: int
    term: int
    server: str


class Verdict(Struct, frozen=True):
    """What the logs say of the load."""

    violations: int
    """Orders missing, twice, other than told; books, chains, quantities that do not add up."""
    sentences: list[str]
    commits: int
    orders: int
    terms: dict[str, list[Term]]
    """The leaderships of each market, in order."""
    stale: int
    """Entries of a term behind an entry of a later one."""


class Watched:
    """A link that is watched; a `Channel`."""

    def __init__(self, link: Link, copies: list[Copy]) -> None:
        """Note each request's fate in a list."""
        self._link = link
        self._copies = copies

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send a request and wait for its reply."""
        began = time.monotonic()
        fate: Fate = "answered"
        try:
            return await self._link.request(subject, payload, timeout_s=timeout_s)
        except NoResponder:
            fate = "no_responder"
            raise
        except NoReply:
            fate = "swallowed"
            raise
        finally:
            market = subject.split(".")[2]
            self._copies.append(Copy(market, began, time.monotonic(), fate))


class SteadyLoad:
    """Sends orders to some markets, each at the same rate.

    Attributes:
        copies: Of all orders, as they ended.
        refused: Orders that were refused.
        unknown: Orders of unknown outcome.
        unavailable: Orders that nobody took before the deadline.
        late_s: By how much an order was sent too late at most: what this process itself, or the
            machine, adds to every gap.
    """

    def __init__(self, link: Link, markets: Sequence[str], *, rate: float, policy: Policy) -> None:
        """Prepare to send so many orders a second to each market."""
        self.copies: list[Copy] = []
        self.refused = self.unknown = self.unavailable = 0
        self.late_s = 0.0
        self.markets = tuple(markets)
        self._period_s = 1 / rate if rate else 0.0
        self._policy = policy
        channel = Watched(link, self.copies)
        self._sender = Sender(channel, PEER, random=Random(0), known=set())
        self._queries = Queries(channel, PEER, policy=policy, random=Random(0))
        self._ids = Ids(PEER, above=Pair(0))
        self._made = 0
        self._told: dict[str, dict[str, Told]] = {market: {} for market in markets}
        self._acknowledged: dict[str, list[Acknowledgement]] = {market: [] for market in markets}
        self._pulses: list[asyncio.Task[None]] = []
        self._has_ended = asyncio.Event()

    @property
    def orders(self) -> int:
        """How many have an outcome, or were given up."""
        return sum(len(told) for told in self._told.values())

    @property
    def errors(self) -> int:
        """Orders without a receipt that accepts them."""
        return self.refused + self.unknown + self.unavailable

    async def run(self) -> None:
        """Send until told to finish, and wait for the last outcome."""
        async with asyncio.TaskGroup() as tasks:
            for index, market in enumerate(self.markets):
                # Side by side, not all at once.
                offset = self._period_s * index / len(self.markets)
                pulse = tasks.create_task(self._pulse(market, offset, tasks))
                self._pulses.append(pulse)
        self._has_ended.set()

    async def finish(self) -> None:
        """Send no more, and wait for the last outcome."""
        for pulse in self._pulses:
            pulse.cancel()
        await self._has_ended.wait()

    async def _pulse(self, market: str, offset: float, tasks: asyncio.TaskGroup) -> None:
        due = time.monotonic() + offset
        while True:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            now = time.monotonic()
            self.late_s = max(self.late_s, now - due)
            tasks.create_task(self._send(market))
            # What was missed is not made up for: a burst would hide the gap's end.
            due = max(due + self._period_s, now)

    async def _send(self, market: str) -> None:
        self._made += 1
        order = Submit(
            side="sell" if self._made % 2 else "buy",
            quantity=QUANTITY,
            order_id=self._ids.next("order", time.time_ns() // 1_000_000),
            price=PRICE,
            self_trade="allow",
        )
        told = self._told[market]
        sent = time.monotonic()
        try:
            (receipt,) = await self._sender.send(market, [order], self._policy, as_batch=False)
        except OutcomeUnknown:
            self.unknown += 1
            told[str(order.order_id)] = Told(order, "unknown")
            return
        except Unavailable:
            self.unavailable += 1
            told[str(order.order_id)] = Told(order, "unavailable")
            return
        told[str(order.order_id)] = Told(order, receipt)
        if receipt.status == "rejected":
            self.refused += 1
            return
        assert isinstance(receipt.sequence, int)
        self._acknowledged[market].append(
            Acknowledgement(
                sent, time.monotonic(), receipt.sequence, is_duplicate=receipt.duplicate is True
            )
        )

    # --- What was seen --------------------------------------------------------------------------

    def acknowledged(self, market: str, *, since: float) -> list[Acknowledgement]:
        """Give the acknowledgements of a market from a moment on, in order."""
        newest_first = []
        for each in reversed(self._acknowledged[market]):
            if each.at < since:
                break
            newest_first.append(each)
        return newest_first[::-1]

    async def first_sent_since(self, market: str, moment: float) -> Acknowledgement:
        """Wait for the first acknowledgement of an order that was sent after a moment."""
        while True:
            for each in self.acknowledged(market, since=moment):
                if each.sent >= moment:
                    return each
            await asyncio.sleep(CHECK_S)

    async def first_of_term(self, market: str, sequence: int, *, since: float) -> Acknowledgement:
        """Wait for the first acknowledgement by the leader whose term begins at a sequence."""
        while True:
            for each in self.acknowledged(market, since=since):
                if each.sequence >= sequence or each.is_duplicate:
                    return each
            await asyncio.sleep(CHECK_S)

    def gap(self, market: str, *, since: float, until: float) -> float:
        """Give the longest time between two acknowledgements of a market."""
        moments = [each.at for each in self.acknowledged(market, since=since - 60)]
        return longest_gap(moments, since=since, until=until)

    def slowest(self, market: str, *, since: float, until: float) -> float:
        """Give how long the slowest order took of those sent in a time that have a receipt."""
        found = self.acknowledged(market, since=since)
        return max(
            (each.at - each.sent for each in found if since <= each.sent <= until), default=0.0
        )

    def swallowed(self, *, since: float, until: float) -> int:
        """Count the copies that left in a time, and were answered by nobody in theirs."""
        return sum(copy.fate == "swallowed" and since <= copy.began < until for copy in self.copies)

    def told_of_swallowed(self, *, since: float) -> list[str]:
        """Tell of such copies, when each left and how long it waited."""
        return [
            f"  +{1_000 * (copy.began - since):.0f} ms a copy to {copy.market}, "
            f"given up after {1_000 * (copy.ended - copy.began):.0f} ms"
            for copy in self.copies
            if copy.fate == "swallowed" and copy.began >= since
        ]

    def last_swallowed(self, *, since: float, until: float) -> float:
        """Tell when the last such copy left; since, when there was none."""
        return max(
            (
                copy.began
                for copy in self.copies
                if copy.fate == "swallowed" and since <= copy.began < until
            ),
            default=since,
        )

    # --- Whether it is true ---------------------------------------------------------------------

    async def verify(self) -> Verdict:
        """Read the logs, and compare them with what was told; ask only when nothing is sent."""
        audits: list[Audit] = []
        terms: dict[str, list[Term]] = {}
        stale = 0
        for market in self.markets:
            told = self._told[market]
            status = await self._status(market)
            audit = Audit(
                Market(market),
                told,
                specification=status.specification,
                above={PEER: Pair(0)},
            )
            end = await self._status(market, min_sequence=audit.newest_told)
            newest_term = 0
            terms[market] = []
            async for payload in self._queries.log(
                market, from_sequence=1, to_sequence=end.sequence
            ):
                audit.read(payload)
                commit = decode_commit(payload)
                stale += commit.term < newest_term
                newest_term = max(newest_term, commit.term)
                terms[market] += [
                    Term(commit.sequence, event.term, event.server)
                    for event in commit.events
                    if isinstance(event, LeaderChanged)
                ]
            audit.finish(sequence=end.sequence, digest=end.digest)
            audits.append(audit)
        verified = total(audits)
        return Verdict(
            violations=verified.violations_count + (not verified.digest_equal),
            sentences=[violation.sentence for violation in verified.violations[:5]],
            commits=verified.commits,
            orders=self.orders,
            terms=terms,
            stale=stale,
        )

    async def _status(self, market: str, *, min_sequence: int = 0) -> StatusReply:
        status = await self._queries.status(market, min_sequence=min_sequence)
        assert not isinstance(status, Receipt), f"expected the status of {market}, found {status}"
        return status


@asynccontextmanager
async def steady_load(
    urls: Sequence[str],
    markets: Sequence[str],
    *,
    credentials: Credentials,
    rate: float,
    deadline_s: float,
) -> AsyncIterator[SteadyLoad]:
    """Send a load until it is finished, or the block ends; the credentials are those of PEER."""
    options = ConnectionOptions(servers=tuple(urls), name="failover-load", credentials=credentials)
    async with linked(options) as link:
        load = SteadyLoad(link, markets, rate=rate, policy=Policy(deadline_s=deadline_s))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(load.run())
            try:
                yield load
            finally:
                running.cancel()
