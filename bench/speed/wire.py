"""The exchange on the wire, beside an echo on nats-py and beside JetStream: what is claimed.

Everything runs as it would elsewhere: real nodes, real servers, a load in a process of its own;
but all on one machine, whose cores they share. So a request that the exchange answers competes with
what it costs to send it; that is the same for the echo, and ratios are what counts.

Knows nothing of how requests are sent, nor of how an exchange is started.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from bench.speed import capacity, echo
from bench.speed.exchange import MARKET, Exchange, opened, stretch_s
from bench.speed.follow import Fetch, Followed, Replay
from bench.speed.publish import Async, Published, Single
from bench.speed.rounds import Claim, Figure, Scale, Stage
from bench.speed.talk import Child, Invalid

IN_FLIGHT: Final = 256
IN_FLIGHT_REPLICATED: Final = 1_024
"""Single orders under way: several commits' worth, where an append takes longer."""

NATS_SYNC: Final = "2m"
"""How often NATS syncs to disk by default."""

FOLLOWED_EVENTS: Final = 300_000
FOLLOWED_EVENTS_QUICK: Final = 50_000

_RATE: Final = "orders/s"

EXCHANGE: Final = "exchange"
ECHO: Final = "echo on nats-py"
PUBLISH: Final = "JetStream publish_async"
BATCHES: Final = "exchange, batches of 100"


def _rates(exchange: Exchange, scale: Scale, *, in_flight: int) -> list[Figure]:
    seconds = stretch_s(scale)

    async def echo_rate() -> float:
        sent = await exchange.closed(in_flight=in_flight, seconds=seconds, to=(echo.MARKET,))
        return sent.rate

    async def exchange_rate() -> float:
        return (await exchange.closed(in_flight=in_flight, seconds=seconds)).rate

    async def batches_rate() -> float:
        return (await exchange.batches(seconds=seconds)).rate

    return [
        Figure(ECHO, _RATE, echo_rate),
        Figure(EXCHANGE, _RATE, exchange_rate),
        Figure(BATCHES, _RATE, batches_rate),
    ]


def _asks(
    child: Child, question: Async | Single, take: Callable[[Published], float]
) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        return take(await child.ask(question, Published))

    return measure


@asynccontextmanager
async def _singles(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    async with opened(sync_interval=NATS_SYNC) as exchange:
        await exchange.echo()
        publisher = await exchange.publisher()
        publish = _asks(publisher, Async(stretch_s(scale)), lambda found: found.rate)
        yield [
            *_rates(exchange, scale, in_flight=IN_FLIGHT),
            Figure(PUBLISH, "messages/s", publish),
        ]


@asynccontextmanager
async def _singles_always(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    async with opened() as exchange:
        await exchange.echo()
        yield _rates(exchange, scale, in_flight=IN_FLIGHT)


@asynccontextmanager
async def _replicated(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    async with opened(nodes=3) as exchange:
        await exchange.echo()
        yield _rates(exchange, scale, in_flight=IN_FLIGHT_REPLICATED)


# --- One at a time ------------------------------------------------------------------------------

LATENCY_PUBLISH: Final = "JetStream publish"


@asynccontextmanager
async def _latency(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    seconds = stretch_s(scale)
    async with opened() as exchange:
        await exchange.echo()
        publisher = await exchange.publisher()

        async def p50_us(market: str) -> float:
            sent = await exchange.closed(in_flight=1, seconds=seconds, to=(market,))
            return 1_000 * sent.p50_ms

        yield [
            Figure(ECHO, "µs", lambda: p50_us(echo.MARKET)),
            Figure(EXCHANGE, "µs", lambda: p50_us(MARKET)),
            Figure(
                LATENCY_PUBLISH,
                "µs",
                _asks(publisher, Single(seconds), lambda found: found.p50_us),
            ),
        ]


# --- Following ----------------------------------------------------------------------------------

REPLICA: Final = "replica"


@asynccontextmanager
async def _follow(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    wanted = FOLLOWED_EVENTS_QUICK if scale.is_quick else FOLLOWED_EVENTS
    async with opened(sync_interval=NATS_SYNC) as exchange:
        follower = await exchange.follower()
        events = (await _replayed(follower)).events
        while events < wanted:
            await exchange.batches(seconds=stretch_s(scale))
            events = (await _replayed(follower)).events
        # So that the server does nothing beside.
        await exchange.running.stop_servers()

        async def replica() -> float:
            return events / (await _replayed(follower)).seconds

        async def fetch() -> float:
            return events / (await follower.ask(Fetch(), Followed)).seconds

        yield [
            Figure(REPLICA, "events/s", replica),
            Figure("nats-py, fetching the same messages", "events/s", fetch),
        ]


async def _replayed(follower: Child) -> Followed:
    followed = await follower.ask(Replay(), Followed)
    if followed.events == 0:
        raise Invalid("expected events in the log, found none")
    return followed


STAGES: Final[tuple[Stage, ...]] = (
    Stage(
        name="singles",
        title=f"single orders, one node, NATS' own sync ({NATS_SYNC}), {IN_FLIGHT} in flight",
        open=_singles,
        claims=(
            Claim(figure=EXCHANGE, against=(ECHO,), ratio=0.9),
            Claim(figure=EXCHANGE, against=(PUBLISH,), ratio=1.1),
            Claim(figure=BATCHES, against=(PUBLISH,), ratio=4),
        ),
    ),
    Stage(
        name="singles_always",
        title=f"single orders, one node that syncs at each commit, {IN_FLIGHT} in flight",
        open=_singles_always,
        claims=(
            Claim(figure=EXCHANGE, against=(ECHO,), ratio=0.85),
            Claim(figure=BATCHES, against=(ECHO,), ratio=4, value=120_000),
        ),
    ),
    Stage(
        name="replicated",
        title="single orders, three nodes that sync at each commit, three copies of the log, "
        f"{IN_FLIGHT_REPLICATED:,} in flight",
        open=_replicated,
        claims=(
            Claim(figure=EXCHANGE, against=(ECHO,), ratio=0.65),
            Claim(figure=BATCHES, against=(ECHO,), ratio=2, value=80_000),
        ),
    ),
    Stage(
        name="latency",
        title="half of the orders are answered within, one at a time, "
        "one node that syncs at each commit",
        open=_latency,
        claims=(
            Claim(figure=EXCHANGE, against=(ECHO, LATENCY_PUBLISH), ratio=1.15, is_at_most=True),
        ),
    ),
    Stage(
        name="follow",
        title="a replica reads the log from JetStream and applies it, each digest checked",
        open=_follow,
        claims=(Claim(figure=REPLICA, value=250_000),),
    ),
    *capacity.STAGES,
)
