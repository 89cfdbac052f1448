"""Does a server's memory stay flat while orders come and go?

A real server on a real node takes orders in batches of 100. Each order rests, and is canceled some
batches later, so the book stays small while ids, price levels and outcomes pass through. The
server's resident memory is read from the system after each tenth of the way.

    uv run just bench-memory --orders 1000000
"""

import asyncio
import platform
import random
import sys
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import click

from deploy.embedded import Embedded, embedded
from deploy.keys import LOAD_PEERS
from dex_protocol import subjects
from dex_protocol.codec import decode_receipts, encode
from dex_protocol.commands import Cancel, Command, Submit
from dex_protocol.ids import make_id
from dex_runtime.connection import Connection, ConnectionOptions, close, connect
from dex_runtime.messaging import Requester

MARKET: Final = "BTC-USD"
PEERS: Final = len(LOAD_PEERS)
BATCH: Final = 100
RESTING_BATCHES: Final = 20
"""How many batches of each peer rest before the oldest is canceled."""
STEPS: Final = 10
TIMESTAMP: Final = 1_763_800_000_000


class Flow:
    """One peer's commands: a batch of orders that rest, and the cancels of an older one."""

    def __init__(self, peer: str, seed: int) -> None:
        self.peer = peer
        self._random = random.Random(seed)
        self._count = 0
        self._resting: deque[list[str]] = deque()

    def batches(self) -> list[list[Command]]:
        """Make the next batch of orders, and the cancels that go with it."""
        order_ids = [self._next_id("order") for _ in range(BATCH)]
        self._resting.append(order_ids)
        batches: list[list[Command]] = [[self._order(order_id) for order_id in order_ids]]
        if len(self._resting) > RESTING_BATCHES:
            batches.append(
                [
                    Cancel(order_id=order_id, command_id=self._next_id("command"))
                    for order_id in self._resting.popleft()
                ]
            )
        return batches

    def _order(self, order_id: str) -> Submit:
        # Prices wander over a million levels: an index that kept empty ones would grow.
        side = self._random.choice(("buy", "sell"))
        cents = self._random.randrange(1_000_000)
        price = 10_000_00 + cents if side == "sell" else 1 + cents // 2
        return Submit(
            side=side,  # type: ignore[arg-type]
            quantity="0.5",
            price=f"{price // 100}.{price % 100:02d}",
            order_id=order_id,
        )

    def _next_id(self, kind: str) -> str:
        self._count += 1
        return make_id(kind, self.peer, TIMESTAMP, self._count)  # type: ignore[arg-type]


async def measure(orders: int) -> list[tuple[int, int]]:
    """Send the orders.

    Returns:
        (orders so far, the server's resident KiB), from none to all.
    """
    points: list[tuple[int, int]] = []
    async with embedded([MARKET], say=_say) as exchange, AsyncExitStack() as stack:
        flows = []
        for seed, peer in enumerate(LOAD_PEERS):
            client = await _connect(exchange, peer)
            stack.push_async_callback(close, client)
            flows.append((await Requester.start(client), Flow(peer, seed=seed)))
        pid = exchange.server.process.pid
        points.append((0, _resident_kib(pid)))
        for step in range(1, STEPS + 1):
            rounds = orders // (STEPS * PEERS * BATCH)
            await asyncio.gather(*(_send(requester, flow, rounds) for requester, flow in flows))
            points.append((step * rounds * PEERS * BATCH, _resident_kib(pid)))
            _say(f"{points[-1][0]:>9,} orders  {points[-1][1] / 1024:>7.1f} MiB")
    return points


async def _connect(exchange: Embedded, peer: str) -> Connection:
    credentials = exchange.doors.peer(peer)
    return await connect(
        ConnectionOptions(servers=(exchange.url,), name="bench-memory", credentials=credentials)
    )


async def _send(requester: Requester, flow: Flow, rounds: int) -> None:
    subject = subjects.orders(MARKET, flow.peer)
    for _ in range(rounds):
        for batch in flow.batches():
            reply = await requester.request(subject, encode(batch), timeout_s=30)
            refused = [r for r in decode_receipts(reply) if r.status in ("rejected", "retry")]
            assert not refused, f"expected no refusal, found {refused[0]}"


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise LookupError(f"expected VmRSS of process {pid}, found none")


def _say(text: str) -> None:
    click.echo(text, err=True)


@click.command()
@click.option("--orders", type=click.IntRange(8_000), default=1_000_000, show_default=True)
def main(orders: int) -> None:
    """Record a server's memory over many orders that come and go (Linux)."""
    if not Path("/proc/self/status").exists():
        raise click.ClickException("expected /proc, to read a process's memory; found none")
    points = asyncio.run(measure(orders))
    click.echo(f"{platform.platform()}, Python {sys.version.split()[0]}")
    for sent, kib in points:
        click.echo(f"{sent:>9,} orders  {kib / 1024:>7.1f} MiB")
    # The windows and caches fill in the first part of the way; from then on nothing may grow.
    middle, end = points[STEPS // 2][1], points[-1][1]
    click.echo(f"second half: {100 * (end - middle) / middle:+.1f} % of resident memory")


if __name__ == "__main__":
    main()
