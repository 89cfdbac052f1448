"""The polite peers of an attack: the load generator, as a process that says how far it is.

It prints `began` when the first order is due and `ended` when each has its outcome; then it reads
the log back, and prints what it came to as a line of JSON.

    python -m bench.attack_peers --nats nats://127.0.0.1:4222 --peers 9 --rate 900 --orders 9000
"""

import asyncio
import selectors
import time
from typing import Final

import click
import msgspec
from msgspec import Struct

from bench.attack_results import Machine, Seen
from bench.failover_results import longest_gap
from dex_client.load.options import Load
from dex_client.load.record import Record
from dex_client.load.report import Report
from dex_client.load.session import Session
from dex_client.retry import Answer
from dex_protocol.commands import Submit

BEGAN: Final = "began"
ENDED: Final = "ended"

IN_FLIGHT: Final = 512
"""Requests under way at once: with 900 orders a second all others are held up only when one takes
longer than 0.6 s, and their latencies count from when they were due all the same."""

DEADLINE_S: Final = 30.0
"""How long each order is sent again: as the client itself would."""

LOOK_S: Final = 0.01
"""Between two looks at how far it is."""


class Polite(Struct, frozen=True, kw_only=True):
    """What the polite peers came to."""

    began: float
    ended: float
    """By the machine's monotonic clock."""
    longest_gap_s: float
    """Between two acknowledgements."""
    report: Report

    def seen(self, machine: Machine) -> Seen:
        """Give what counts of it, with how busy the machine was meanwhile."""
        report = self.report
        latency = report.latency_ms
        verified = report.verified
        # What could not be verified is no better than what is wrong.
        violations = 1
        if verified is not None:
            violations = verified.violations_count + (not verified.digest_equal)
        return Seen(
            orders_per_second=report.orders_per_second,
            p50_ms=float("nan") if latency is None else latency.p50,
            p99_ms=float("nan") if latency is None else latency.p99,
            longest_gap_s=self.longest_gap_s,
            retried=report.retried,
            lost=report.unavailable + report.unknown,
            violations=violations,
            machine=machine,
        )


class TimedRecord(Record):
    """A record that knows when outcomes came, too."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__(keep=True)
        self.moments: list[float] = []

    def settle(
        self, market: str, orders: list[Submit], reply: bytes
    ) -> tuple[Answer, list[Submit]]:
        """Note what came back for one copy of some orders."""
        answer, left = super().settle(market, orders, reply)
        if len(left) < len(orders):
            self.moments.append(time.monotonic())
        return answer, left


async def _run(load: Load, servers: tuple[str, ...]) -> Polite:
    session = Session(load, servers)
    record = session.record = TimedRecord()
    moments: dict[str, float] = {}
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(session.run())
        while not run.done():
            if session.phase != "beginning":
                _tell(BEGAN, moments)
            if session.phase == "verifying":
                _tell(ENDED, moments)
            await asyncio.wait((run,), timeout=LOOK_S)
    began = moments[BEGAN]
    ended = max(record.moments, default=began)
    return Polite(
        began=began,
        ended=ended,
        longest_gap_s=longest_gap(record.moments, since=began, until=ended),
        report=session.report(),
    )


def _tell(what: str, moments: dict[str, float]) -> None:
    if what not in moments:
        moments[what] = time.monotonic()
        print(what, flush=True)  # noqa: T201  (whoever started it reads it)


@click.command()
@click.option("--nats", "servers", multiple=True, required=True)
@click.option("--market", required=True)
@click.option("--peers", type=int, required=True)
@click.option("--orders", type=int, required=True)
@click.option("--rate", type=float, help="Orders per second, of all peers together.")
@click.option("--batch", type=int, default=1)
@click.option("--in-flight", type=int, default=IN_FLIGHT)
@click.option("--seed", type=int, default=1)
def main(
    servers: tuple[str, ...],
    market: str,
    peers: int,
    orders: int,
    rate: float | None,
    batch: int,
    in_flight: int,
    seed: int,
) -> None:
    """Send orders politely, and verify them; the keys are those that are found."""
    load = Load(
        orders=orders,
        markets=(market,),
        peers=peers,
        in_flight=in_flight,
        batch=batch,
        rate=rate,
        seed=seed,
        deadline_s=DEADLINE_S,
        verify=True,
    )
    # select() does not round timers up to the next millisecond, as the usual loop does.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        polite = runner.run(_run(load, servers))
    click.echo(msgspec.json.encode(polite))


if __name__ == "__main__":
    main()
