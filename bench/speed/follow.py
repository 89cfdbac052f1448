"""How fast a log is followed: read from JetStream and applied, each commit's digest checked.

As a server does it that comes late: page after page by the server's own reader, each commit applied
by `Market.apply_commit`, which raises when the book is not the leader's. Beside it, what nats-py
takes to fetch the same messages, and to do nothing with them.

    python -m bench.speed.follow --nats nats://127.0.0.1:4222 --key server.nk --market BTC-USD
"""

import time
from pathlib import Path
from typing import Final

import click
import nats
from msgspec import Struct
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from bench.speed import talk
from bench.speed.talk import Invalid
from dex_engine.errors import Diverged
from dex_engine.market import Market
from dex_protocol import subjects
from dex_runtime import connection
from dex_runtime.connection import ConnectionOptions, Credentials
from dex_runtime.messaging import Requester
from dex_server.driver import READ_BYTES
from dex_server.jetstream.log import JetStreamLog

FETCH_COUNT: Final = 100
"""Messages of one fetch: commits of 100 orders and more are some MB then."""

FETCH_TIMEOUT_S: Final = 5.0


class Replay(Struct, tag="replay", frozen=True):
    """Read and apply the whole log."""


class Fetch(Struct, tag="fetch", frozen=True):
    """Only fetch its messages, by a pull consumer of nats-py."""


class Followed(Struct, frozen=True, kw_only=True):
    """What was read, and how long it took."""

    commits: int
    payload_bytes: int
    events: int
    """0 for `Fetch`."""
    seconds: float


class Follower:
    """Follows one market's log, over and over."""

    def __init__(self, log: JetStreamLog, plain: Client, market: str) -> None:
        """Take the log, and a plain connection."""
        self._log = log
        self._plain = plain
        self._market = market

    async def measure(self, asked: Replay | Fetch) -> Followed:
        """Measure what is asked.

        Raises:
            Invalid: the log is not what its leader says.
        """
        _, last = await self._log.bounds()
        return await (self._replay(last) if isinstance(asked, Replay) else self._fetch(last))

    async def _replay(self, last: int) -> Followed:
        market = Market(self._market)
        payload_bytes = 0
        began = time.perf_counter()
        while market.sequence < last:
            entries = await self._log.read(
                market.sequence + 1, through_sequence=last, bytes_max=READ_BYTES
            )
            if not entries:
                raise Invalid(f"the log ends at {market.sequence}, expected {last}")
            for entry in entries:
                try:
                    market.apply_commit(entry.payload)
                except Diverged as diverged:
                    raise Invalid(str(diverged)) from diverged
                payload_bytes += len(entry.payload)
        seconds = time.perf_counter() - began
        events = market.events_count
        market.dispose()
        return Followed(commits=last, payload_bytes=payload_bytes, events=events, seconds=seconds)

    async def _fetch(self, last: int) -> Followed:
        subscription = await self._plain.jetstream().pull_subscribe(
            subjects.log(self._market),
            stream=subjects.log_stream(self._market),
            config=ConsumerConfig(ack_policy=AckPolicy.NONE),
        )
        commits = payload_bytes = 0
        began = time.perf_counter()
        while commits < last:
            for message in await subscription.fetch(FETCH_COUNT, timeout=FETCH_TIMEOUT_S):
                commits += 1
                payload_bytes += len(message.data)
        seconds = time.perf_counter() - began
        await subscription.unsubscribe()
        return Followed(commits=commits, payload_bytes=payload_bytes, events=0, seconds=seconds)


async def _run(url: str, key: Path, market: str) -> None:
    client = await connection.connect(
        ConnectionOptions(servers=(url,), name="follower", credentials=Credentials(nkey=str(key)))
    )
    plain = await nats.connect(url, nkeys_seed=str(key), name="fetcher")
    log = JetStreamLog(await Requester.start(client), market)
    await talk.answer_all(Replay | Fetch, Follower(log, plain, market).measure)


@click.command()
@click.option("--nats", "url", required=True)
@click.option("--key", type=click.Path(path_type=Path), required=True)
@click.option("--market", required=True)
def main(url: str, key: Path, market: str) -> None:
    """Measure what is asked, until the end of the input."""
    talk.run(_run(url, key, market))


if __name__ == "__main__":
    main()
