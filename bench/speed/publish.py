"""What it costs to publish orders to JetStream one by one, as nats-py does it.

The bytes are those of the exchange's own orders, and go to a plain stream, in a file, with one
replica; with the servers' key, so without a way through other accounts. Nobody matches them, and
nobody answers: it is what durability alone costs where each order is a message.

    python -m bench.speed.publish --nats nats://127.0.0.1:4222 --key server.nk
"""

import asyncio
import time
from pathlib import Path
from statistics import median
from typing import Final

import click
import nats
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import StorageType

from bench.speed import talk
from bench.speed.orders import Writer

PENDING_COUNT_MAX: Final = 256
"""Messages that wait for their acknowledgement, as many as the others have requests in flight."""

STREAM: Final = "BENCH"
SUBJECT: Final = "bench.orders"

MESSAGES_PER_SECOND_MAX: Final = 100_000
"""More than anybody publishes so in a second: so many are written beforehand."""

WARM_UP_S: Final = 0.2


class Async(Struct, tag="async", frozen=True):
    """Publish by `publish_async`, as many as that has pending, for a while."""

    seconds: float


class Single(Struct, tag="single", frozen=True):
    """Publish by `publish`, one after the other, for a while."""

    seconds: float


class Published(Struct, frozen=True):
    """What came of it."""

    rate: float
    """Acknowledged messages per second."""
    p50_us: float
    """Of one after the other, from publishing to its acknowledgement; 0 for `Async`."""


class Publisher:
    """Publishes to a stream of its own, which is made anew each time."""

    def __init__(self, stream: JetStreamContext) -> None:
        """Take the connection."""
        self._stream = stream

    async def measure(self, asked: Async | Single) -> Published:
        """Measure what is asked."""
        writer = Writer("load-1", at_ms=time.time_ns() // 1_000_000)
        orders = writer.singles(int(asked.seconds * MESSAGES_PER_SECOND_MAX))
        await self._stream.add_stream(
            name=STREAM, subjects=[SUBJECT], storage=StorageType.FILE, num_replicas=1
        )
        try:
            publish = self._async if isinstance(asked, Async) else self._single
            await publish(orders, WARM_UP_S)
            return await publish(orders, asked.seconds)
        finally:
            await self._stream.delete_stream(STREAM)

    async def _async(self, orders: list[bytes], seconds: float) -> Published:
        futures = []
        began = time.perf_counter()
        for order in orders:
            futures.append(await self._stream.publish_async(SUBJECT, order))
            if time.perf_counter() - began > seconds:
                break
        await self._stream.publish_async_completed()
        passed = time.perf_counter() - began
        # Those of the library have no exceptions that are not raised here.
        await asyncio.gather(*futures)
        return Published(len(futures) / passed, 0)

    async def _single(self, orders: list[bytes], seconds: float) -> Published:
        took = []
        began = at = time.perf_counter()
        for order in orders:
            await self._stream.publish(SUBJECT, order)
            since, at = at, time.perf_counter()
            took.append(at - since)
            if at - began > seconds:
                break
        return Published(len(took) / (at - began), 1_000_000 * median(took))


async def _run(url: str, key: Path) -> None:
    connection = await nats.connect(url, nkeys_seed=str(key), name="publisher")
    publisher = Publisher(connection.jetstream(publish_async_max_pending=PENDING_COUNT_MAX))
    await talk.answer_all(Async | Single, publisher.measure)


@click.command()
@click.option("--nats", "url", required=True)
@click.option("--key", type=click.Path(path_type=Path), required=True)
def main(url: str, key: Path) -> None:
    """Measure what is asked, until the end of the input."""
    talk.run(_run(url, key))


if __name__ == "__main__":
    main()
