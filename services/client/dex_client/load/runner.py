"""Sends a load: a fixed number of workers, each with one request under way.

Theory of operation. Orders go out in requests of `batch`, in turn over the *lanes*: one for each
peer and market, with its own orders, ids and window. A worker takes the next request, makes its
orders (ids are given at the moment of sending, so that they leave in their order), and sends it
until each of them has an outcome. There is no task, no timer and no queue per order; that, and one
`Sending` a request, is what keeps the client cheaper than what it measures.

With a rate the requests have a time at which they should leave, and latency counts from there:
when the exchange or this process falls behind, the orders that had to wait show it.

Knows nothing of what orders look like, nor whether receipts are true.
"""

import asyncio
import time
from random import Random

from dex_client.ids import Ids, Window
from dex_client.load.options import Load
from dex_client.load.profile import Profile
from dex_client.load.record import Record
from dex_client.retry import Answer, Policy, Sending
from dex_protocol import subjects
from dex_protocol.codec import encode
from dex_protocol.commands import Submit
from dex_runtime.messaging import NoReply, NoResponder, Requester


class Lane:
    """What one peer sends to one market."""

    def __init__(self, market: str, *, ids: Ids, profile: Profile, requester: Requester) -> None:
        """Put together what belongs together; `ids` are the peer's, for all its markets."""
        self.market = market
        self.subject = subjects.orders(market, ids.peer)
        self.requester = requester
        self._ids = ids
        self._profile = profile
        self._window = Window()
        self._has_room = asyncio.Event()

    def has_room(self, count: int) -> bool:
        """Tell whether so many more ids may be sent now."""
        return self._window.has_room(count)

    async def wait_for_room(self) -> None:
        """Wait until there may be room again."""
        self._has_room.clear()
        await self._has_room.wait()

    def make(self, count: int) -> tuple[int, list[Submit]]:
        """Make the next orders.

        Returns:
            What `done` wants back, and the orders.

        Ordering: only where there is room.
        """
        first = self._window.sent(count)
        now_ms = time.time_ns() // 1_000_000
        next_id, order = self._ids.next, self._profile.order
        return first, [order(next_id("order", now_ms)) for _ in range(count)]

    def done(self, first: int, count: int) -> None:
        """Note that orders made together are not sent any more."""
        self._window.answered(first, count)
        self._has_room.set()


class Runner:
    """Sends one load over its lanes, and records what comes of it."""

    def __init__(self, load: Load, lanes: list[Lane], record: Record) -> None:
        """Prepare; `run` does it."""
        self.record = record
        self._load = load
        self._lanes = lanes
        self._policy = Policy(deadline_s=load.deadline_s)
        self._random = Random(load.seed)
        self._taken = 0
        self._started = 0.0

    async def run(self) -> None:
        """Send everything and wait for every outcome.

        What was sent and has no outcome when this is canceled is recorded as unknown.

        Raises:
            ProtocolMismatch: the server speaks something else; the first one ends the run.
        """
        self._started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._load.in_flight):
                    workers.create_task(self._work())
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self.record.seconds = time.perf_counter() - self._started

    async def _work(self) -> None:
        load, lanes = self._load, self._lanes
        while (first := self._taken) < load.orders:
            count = min(load.batch, load.orders - first)
            self._taken += count
            lane = lanes[first // load.batch % len(lanes)]
            intended = None
            if load.rate is not None:
                intended = self._started + first / load.rate
                if (early := intended - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
            while not lane.has_room(count):
                await lane.wait_for_room()
            await self._send(lane, count, intended)

    async def _send(self, lane: Lane, count: int, intended: float | None) -> None:
        record, clock = self.record, time.perf_counter
        now = clock()
        since = now if intended is None else intended
        sending = Sending(self._policy, self._random, now=now)
        index, orders = lane.make(count)
        record.sent += count
        answer: Answer
        try:
            while True:
                payload = encode(orders if self._load.batch > 1 else orders[0])
                patience = sending.attempt(now)
                try:
                    reply = await lane.requester.request(lane.subject, payload, timeout_s=patience)
                except NoResponder:
                    answer = "no_responder"
                except NoReply:
                    answer = "silence"
                else:
                    answer, left = record.settle(lane.market, orders, reply)
                    if len(left) < len(orders):
                        record.note_latency(clock() - since, len(orders) - len(left))
                    orders = left
                pause = sending.answered(answer, now=clock())
                if pause is None:
                    return
                record.retried += len(orders)
                await asyncio.sleep(pause)
                now = clock()
        finally:
            if orders:
                unavailable = sending.state == "unavailable"
                record.give_up(lane.market, orders, "unavailable" if unavailable else "unknown")
            lane.done(index, count)
