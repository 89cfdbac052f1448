"""How much the exchange takes, how late it then answers, and what each process uses for it.

Nothing is claimed here: these figures are for those who size machines. All processes share the
cores of one machine; what each uses for an order (`cpu`) is what goes elsewhere, not the rates.

Knows nothing of how requests are sent, nor of how an exchange is started.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from bench.speed.exchange import Exchange, cpu_seconds, opened, stretch_s
from bench.speed.load import Sent
from bench.speed.rounds import Figure, Scale, Stage
from bench.speed.talk import Invalid
from bench.speed.together import together

IN_FLIGHT: Final = 256

_RATE: Final = "orders/s"

# --- By the clock -------------------------------------------------------------------------------

SHARES_PERCENT: Final = (25, 50, 75)

GREATEST: Final = f"closed loop, {IN_FLIGHT} in flight"


@asynccontextmanager
async def _open_loop(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    seconds = stretch_s(scale)
    units = {GREATEST: _RATE}
    for percent in SHARES_PERCENT:
        units |= {
            f"at {percent} %": _RATE,
            f"at {percent} %, p50": "ms",
            f"at {percent} %, p99": "ms",
        }

    async with opened() as exchange:

        async def measure() -> dict[str, float]:
            greatest = await exchange.closed(in_flight=IN_FLIGHT, seconds=seconds)
            values = {GREATEST: greatest.rate}
            for percent in SHARES_PERCENT:
                rate = greatest.rate * percent / 100
                sent = await exchange.open_loop(rate=rate, seconds=seconds)
                values |= {
                    f"at {percent} %": sent.rate,
                    f"at {percent} %, p50": sent.p50_ms,
                    f"at {percent} %, p99": sent.p99_ms,
                }
            return values

        yield together(units, measure)


# --- Markets, servers, bytes --------------------------------------------------------------------

SPREAD_S: Final = 20.0
"""How long servers may take until each leads a market: they look around some times a second."""

SPREAD_POLL_S: Final = 0.1

_MARKETS: Final = tuple(f"MARKET-{number}" for number in range(1, 5))


@asynccontextmanager
async def _scaling(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    counts = (1, 2) if scale.is_quick else (1, 2, 4)
    seconds = stretch_s(scale)
    singles, batched = "bytes in the log, singles", "bytes in the log, batches"
    singles_disk, batched_disk = "bytes on disk, singles", "bytes on disk, batches"
    one_server = {f"1 server, {_markets(count)}": _RATE for count in counts}
    bytes_units = dict.fromkeys((singles, singles_disk, batched, batched_disk), "bytes/order")

    async def on_one() -> dict[str, float]:
        async with opened(market_names=_MARKETS[: counts[-1]]) as exchange:
            values = {}
            for count in counts:
                sent = await exchange.batches(seconds=seconds, to=_MARKETS[:count])
                values[f"1 server, {_markets(count)}"] = sent.rate
            market = _MARKETS[0]
            values[singles], values[singles_disk] = await _bytes_an_order(
                exchange,
                market,
                partial(exchange.closed, in_flight=IN_FLIGHT, seconds=seconds, to=(market,)),
            )
            values[batched], values[batched_disk] = await _bytes_an_order(
                exchange, market, partial(exchange.batches, seconds=seconds, to=(market,))
            )
            return values

    async def on_many(count: int) -> dict[str, float]:
        names = _MARKETS[:count]
        async with opened(servers=count, market_names=names) as exchange:
            await _until_spread(exchange, names)
            sent = await exchange.batches(seconds=seconds, to=names)
            return {_servers(count): sent.rate}

    yield [
        *together(one_server | bytes_units, on_one),
        *(
            figure
            for count in counts[1:]
            for figure in together({_servers(count): _RATE}, partial(on_many, count))
        ),
    ]


def _markets(count: int) -> str:
    return "1 market" if count == 1 else f"{count} markets"


def _servers(count: int) -> str:
    return f"{count} servers, {count} markets"


async def _until_spread(exchange: Exchange, names: Sequence[str]) -> None:
    deadline = time.monotonic() + SPREAD_S
    while len({server.name for server in await exchange.leaders(names)}) < len(names):
        if time.monotonic() > deadline:
            raise Invalid(f"expected each server to lead one of {', '.join(names)}")
        await asyncio.sleep(SPREAD_POLL_S)


async def _bytes_an_order(
    exchange: Exchange, market: str, send: Callable[[], Awaitable[Sent]]
) -> tuple[float, float]:
    # By JetStream's count and on disk, with what the warm-up adds to both.
    before, disk_before = await exchange.log_state(market), exchange.log_disk_bytes(market)
    sent = await send()
    after, disk_after = await exchange.log_state(market), exchange.log_disk_bytes(market)
    return (
        (after.bytes - before.bytes) / sent.orders_in_all,
        (disk_after - disk_before) / sent.orders_in_all,
    )


# --- What each process uses ---------------------------------------------------------------------


_NODES: Final = ("busiest node", "second node", "third node")


@asynccontextmanager
async def _cpu(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    async with AsyncExitStack() as undo:
        figures: list[Figure] = []
        for nodes, in_flight in ((1, 256), (3, 1_024)):
            exchange = await undo.enter_async_context(opened(nodes=nodes, servers=2))
            where = "1 node" if nodes == 1 else f"{nodes} nodes"
            sending = {
                "singles": partial(exchange.closed, in_flight=in_flight, seconds=stretch_s(scale)),
                "batches": partial(exchange.batches, seconds=stretch_s(scale)),
            }
            for what, send in sending.items():
                label = f"{where}, {what}: "
                names = ("load", "leader", "follower", *_NODES[:nodes])
                units = {f"{label}{name}": "µs/order" for name in names}
                figures += together(
                    {f"{label}rate": _RATE} | units, partial(_used, label, exchange, send)
                )
        yield figures


async def _used(
    label: str, exchange: Exchange, send: Callable[[], Awaitable[Sent]]
) -> dict[str, float]:
    # All that was used for all orders, those of the warm-up included; but the load tells itself
    # what it used for those that were measured, since it also writes and reads them. Which node
    # has the log's leader, and which the servers' connections, is chance, so they go by use.
    (leader,) = await exchange.leaders()
    (follower,) = (server for server in exchange.running.servers if server != leader)
    pids = [leader.pid, follower.pid, *(node.pid for node in exchange.running.nodes)]
    before = [cpu_seconds(pid) for pid in pids]
    sent = await send()
    after = [cpu_seconds(pid) for pid in pids]
    of_leader, of_follower, *of_nodes = (
        1e6 * (end - begin) / sent.orders_in_all for begin, end in zip(before, after, strict=True)
    )
    values = {"rate": sent.rate, "load": sent.load_us, "leader": of_leader, "follower": of_follower}
    values |= zip(_NODES, sorted(of_nodes, reverse=True), strict=False)
    return {f"{label}{name}": value for name, value in values.items()}


STAGES: Final[tuple[Stage, ...]] = (
    Stage(
        name="open_loop",
        title="single orders by the clock, latency from the time they were due; "
        "one node that syncs at each commit",
        open=_open_loop,
    ),
    Stage(
        name="scaling",
        title="batches of 100 to several markets, on one and on several servers; "
        "one node that syncs at each commit",
        open=_scaling,
    ),
    Stage(
        name="cpu",
        title="processor time by process; two servers, one of which follows; "
        "nodes that sync at each commit",
        open=_cpu,
    ),
)
