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

from dex_protocol import subjects
from dex_protocol.codec import UNREADABLE, decode_receipts, encode
from dex_protocol.commands import Submit
from dex_protocol.receipts import Receipt
from dex_runtime.messaging import NoReply, NoResponder, Requester

from dex_client.errors import ProtocolMismatch
from dex_client.ids import Ids, Window
from dex_client.load.options import Load
from dex_client.load.profile import Profile
from dex_client.load.record import GivenUp, Record
from dex_client.retry import Answer, Policy, Sending, State


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

    async def wait_for_room(self, count: int) -> None:
        """Wait until so many more ids may be sent."""
        while not self._window.has_room(count):
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
            await lane.wait_for_room(count)
            await self._send(lane, count, intended)

    async def _send(self, lane: Lane, count: int, intended: float | None) -> None:
        record, clock = self.record, time.perf_counter
        now = clock()
        since = now if intended is None else intended
        sending = Sending(self._policy, self._random, now=now)
        index, orders = lane.make(count)
        record.sent += count
        try:
            while True:
                answer, orders = await self._send_copy(lane, orders, sending, since)
                pause = sending.answered(answer, now=clock())
                if pause is None:
                    return
                record.retried += len(orders)
                await asyncio.sleep(pause)
        finally:
            outcome: GivenUp = "unavailable" if sending.state is State.unavailable else "unknown"
            for order in orders:
                record.give_up(lane.market, order, outcome)
            lane.done(index, count)

    async def _send_copy(
        self, lane: Lane, orders: list[Submit], sending: Sending, since: float
    ) -> tuple[Answer, list[Submit]]:
        # The orders that are left without an outcome, and what became of this copy of them.
        payload = encode(orders if self._load.batch > 1 else orders[0])
        try:
            reply = await lane.requester.request(
                lane.subject, payload, timeout_s=sending.attempt(time.perf_counter())
            )
        except NoResponder:
            return Answer.no_responder, orders
        except NoReply:
            return Answer.silence, orders
        receipts = _read(reply, len(orders))
        answer = Answer.receipt
        left: list[Submit] = []
        record = self.record
        for order, receipt in zip(orders, receipts, strict=True):
            if receipt.order_id != order.order_id and isinstance(receipt.order_id, str):
                # It is about something else, so it says nothing of this order.
                answer = Answer.silence
                left.append(order)
            elif receipt.status == "retry":
                if answer is Answer.receipt:
                    answer = Answer.retry
                left.append(order)
            else:
                record.settle(lane.market, order, receipt)
        if len(left) < len(orders):
            latency_us = int((time.perf_counter() - since) * 1_000_000)
            record.latencies[latency_us] += len(orders) - len(left)
        return answer, left


def _read(reply: bytes, count: int) -> list[Receipt]:
    try:
        receipts = decode_receipts(reply)
    except UNREADABLE as error:
        raise ProtocolMismatch(
            "the reply to an order", expected="receipts", found=str(error)
        ) from error
    if len(receipts) == count:
        return receipts
    if len(receipts) == 1 and receipts[0].status in ("rejected", "retry"):
        # A batch as a whole: it could not be read, or not be taken.
        return receipts * count
    raise ProtocolMismatch(
        "the reply to a batch", expected=f"{count} receipts", found=f"{len(receipts)}"
    )
