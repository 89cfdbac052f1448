"""Sends orders over NATS, and measures how fast they are answered, by exchange and echo alike.

Theory of operation. All that is sent is written before the clock starts, and what is answered is
only kept while it runs, and read afterwards: each order must have been executed, each echo be what
was sent. Between, there is one path for both: `Requester.request` of the exchange's own client, so
many at a time. What a request costs this process, the exchange and the echo have to bear alike.

Closed loop: so many requests are under way at all times, and each worker sends the next one when it
has its answer. Open loop: each order leaves at its time, whatever became of those before, and its
latency counts from that time.

Knows nothing of how the exchange runs, nor whether what its receipts say of the book is true.

    python -m bench.speed.load --nats nats://127.0.0.1:4222 --keys .dex/keys
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import click
from msgspec import Struct

from bench.speed import echo, talk
from bench.speed.orders import Writer
from bench.speed.talk import Invalid
from dex_protocol import subjects
from dex_protocol.codec import decode_receipts
from dex_runtime import connection
from dex_runtime.connection import ConnectionOptions, Credentials
from dex_runtime.keys import peer_file
from dex_runtime.messaging import NoReply, NoResponder, Requester

TIMEOUT_S: Final = 20.0
"""How long an answer may take before the measurement is none."""

WARM_UP_SHARE: Final = 0.25
"""How long it sends before the clock starts, as a share of the time that is measured; the speed
then says how much is to be written."""

WARM_UP_SINGLES: Final = 10_000
WARM_UP_BATCHES: Final = 500
"""Requests that are written for that; if they do not last, it is the shorter."""

SPARE: Final = 2.0
"""How many more are written than were sent as fast in the warm-up: it may go faster."""

PACE_S: Final = 0.0005
"""Between two looks at the clock of an open loop: an order leaves 0.25 ms late on average, which
counts as its latency."""

clock: Final = time.perf_counter


class Closed(Struct, tag="closed", kw_only=True, frozen=True):
    """Send so many at a time, for a while."""

    markets: tuple[str, ...]
    """In turn; the echo's among them."""
    in_flight: int
    """Requests under way, over all markets."""
    is_batch: bool
    """Whether each carries a cycle of 100 orders."""
    seconds: float
    peer: str


class Open(Struct, tag="open", kw_only=True, frozen=True):
    """Send single orders by the clock, for a while."""

    market: str
    rate: float
    """Orders per second."""
    seconds: float
    peer: str


class Sent(Struct, kw_only=True, frozen=True):
    """What came of it."""

    orders: int
    """All answered, all executed."""
    seconds: float
    """From the first order to the last answer."""
    p50_ms: float
    p99_ms: float
    """Of requests."""
    load_us: float
    """Processor time of the load itself for each order, without writing and reading them."""
    orders_in_all: int
    """With those of the warm-up, which whoever answers had to answer too."""

    @property
    def rate(self) -> float:
        """Orders per second."""
        return self.orders / self.seconds


class _Lane(Struct, frozen=True):
    # One peer to one market.
    requester: Requester
    subject: str
    writer: Writer


class _Stretch:
    # Requests that were written, and what came of those that were sent.

    def __init__(self, requests: Iterator[tuple[_Lane, bytes]]) -> None:
        self._requests = requests
        self.told: list[tuple[bytes, bytes]] = []
        """What was sent, and what was answered, in order of the answers."""
        self.latencies: list[float] = []
        self.seconds = 0.0
        self.cpu_s = 0.0

    async def closed(self, in_flight: int, *, seconds: float) -> None:
        began, used = clock(), time.process_time()
        async with asyncio.TaskGroup() as workers:
            for _ in range(in_flight):
                workers.create_task(self._work(began + seconds))
        self.seconds, self.cpu_s = clock() - began, time.process_time() - used

    async def open(self, rate: float, *, seconds: float) -> None:
        # A whole tick's orders leave together.
        began, used = clock(), time.process_time()
        sent = 0
        async with asyncio.TaskGroup() as orders:
            while (passed := clock() - began) < seconds:
                due = int(passed * rate)
                for number in range(sent, due):
                    lane, payload = next(self._requests)
                    orders.create_task(self._send(lane, payload, since=began + number / rate))
                sent = due
                await asyncio.sleep(PACE_S)
        self.seconds, self.cpu_s = clock() - began, time.process_time() - used

    async def _work(self, until: float) -> None:
        for lane, payload in self._requests:
            now = clock()
            if now >= until:
                return
            await self._send(lane, payload, since=now)

    async def _send(self, lane: _Lane, payload: bytes, *, since: float) -> None:
        reply = await lane.requester.request(lane.subject, payload, timeout_s=TIMEOUT_S)
        self.latencies.append(clock() - since)
        self.told.append((payload, reply))


class Load:
    """The peers that send, each over a connection of its own."""

    def __init__(self, url: str, keys: Path, undo: AsyncExitStack) -> None:
        """Connect nobody yet."""
        self._url = url
        self._keys = keys
        self._undo = undo
        self._requesters: dict[str, Requester] = {}
        self._lanes: dict[tuple[str, str], _Lane] = {}

    async def measure(self, asked: Closed | Open) -> Sent:
        """Measure what is asked.

        Raises:
            Invalid: not every order was executed, or echoed.
        """
        try:
            if isinstance(asked, Closed):
                return await self._closed(asked)
            return await self._open(asked)
        except* (NoResponder, NoReply) as errors:
            raise Invalid(f"{errors.exceptions[0]}") from errors

    async def _closed(self, asked: Closed) -> Sent:
        lanes = [await self._lane(market, asked.peer) for market in asked.markets]
        written = partial(_written, lanes, is_batch=asked.is_batch)
        warm_up = _Stretch(written(WARM_UP_BATCHES if asked.is_batch else WARM_UP_SINGLES))
        await warm_up.closed(asked.in_flight, seconds=asked.seconds * WARM_UP_SHARE)
        expected = len(warm_up.told) / warm_up.seconds * asked.seconds
        stretch = _Stretch(written(int(expected * SPARE)))
        await stretch.closed(asked.in_flight, seconds=asked.seconds)
        return _sent(stretch, warm_up_orders=_checked(warm_up))

    async def _open(self, asked: Open) -> Sent:
        lanes = [await self._lane(asked.market, asked.peer)]
        count = int(asked.rate * asked.seconds) + 1
        stretch = _Stretch(_written(lanes, count, is_batch=False))
        await stretch.open(asked.rate, seconds=asked.seconds)
        return _sent(stretch, warm_up_orders=0)

    async def _lane(self, market: str, peer: str) -> _Lane:
        lane = self._lanes.get((market, peer))
        if lane is None:
            requester = await self._requester(peer)
            writer = Writer(peer, at_ms=time.time_ns() // 1_000_000)
            lane = self._lanes[market, peer] = _Lane(
                requester, subjects.orders(market, peer), writer
            )
            if market != echo.MARKET:
                depth = _Stretch(iter([(lane, writer.depth())]))
                await depth.closed(1, seconds=TIMEOUT_S)
                _checked(depth)
        return lane

    async def _requester(self, peer: str) -> Requester:
        requester = self._requesters.get(peer)
        if requester is None:
            options = ConnectionOptions(
                servers=(self._url,),
                name=f"load of {peer}",
                credentials=Credentials(nkey=str(peer_file(self._keys, peer))),
            )
            client = await connection.connect(options)
            self._undo.push_async_callback(connection.close, client)
            requester = self._requesters[peer] = await Requester.start(client)
        return requester


def _written(
    lanes: Sequence[_Lane], count: int, *, is_batch: bool
) -> Iterator[tuple[_Lane, bytes]]:
    # So many requests or some more, from lane to lane. Each lane's are in the order of their ids.
    each = -(-count // len(lanes))
    by_lane = [
        [
            (lane, payload)
            for payload in (lane.writer.batches(each) if is_batch else lane.writer.singles(each))
        ]
        for lane in lanes
    ]
    return chain.from_iterable(zip(*by_lane, strict=True))


def _sent(stretch: _Stretch, *, warm_up_orders: int) -> Sent:
    orders = _checked(stretch)
    latencies = sorted(stretch.latencies)
    return Sent(
        orders=orders,
        seconds=stretch.seconds,
        p50_ms=1_000 * latencies[len(latencies) // 2],
        p99_ms=1_000 * latencies[len(latencies) * 99 // 100],
        load_us=1e6 * stretch.cpu_s / orders,
        orders_in_all=warm_up_orders + orders,
    )


def _checked(stretch: _Stretch) -> int:
    if not stretch.told:
        raise Invalid("expected answers, found none in that time")
    return sum(orders_executed(*each) for each in stretch.told)


def orders_executed(payload: bytes, reply: bytes) -> int:
    """Count the orders of a request that was answered as it should be: executed, or echoed.

    Raises:
        Invalid: it was not.
    """
    if reply == payload:
        # An echo; no receipt is its own order.
        return 1
    receipts = decode_receipts(reply)
    count = payload.count(b'"order_id"')
    if len(receipts) != count:
        raise Invalid(f"expected {count} receipts, found {reply[:200]!r}")
    for receipt in receipts:
        is_executed = receipt.status not in ("rejected", "retry") and receipt.duplicate is False
        if not is_executed or str(receipt.order_id).encode() not in payload:
            raise Invalid(f"expected an order to be executed, found {receipt}")
    return count


async def _run(url: str, keys: Path) -> None:
    async with AsyncExitStack() as undo:
        load = Load(url, keys, undo)
        await talk.answer_all(Closed | Open, load.measure)


@click.command()
@click.option("--nats", "url", required=True)
@click.option("--keys", type=click.Path(path_type=Path), required=True)
def main(url: str, keys: Path) -> None:
    """Measure what is asked, until the end of the input."""
    talk.run(_run(url, keys))


if __name__ == "__main__":
    main()
