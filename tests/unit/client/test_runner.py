"""A load over an exchange that loses, delays and refuses: every order gets its one outcome."""

import asyncio
from typing import Any

import pytest

from dex_client.errors import ProtocolMismatch
from dex_client.load.options import Load
from dex_client.load.record import Record
from dex_client.load.runner import Lane, Runner
from dex_client.load.verification import Audit
from dex_engine import Market
from dex_protocol.codec import decode_request
from dex_protocol.commands import Submit
from dex_protocol.ids import Pair, pair_of
from dex_protocol.limits import RETRY_WINDOW_COUNT
from dex_runtime.messaging import NoReply, NoResponder
from tests.unit.client.exchange import Exchange


def load(**fields: Any) -> Load:
    return Load(
        **{
            "orders": 300,
            "markets": ("BTC-USD",),
            "peers": 1,
            "in_flight": 8,
            "batch": 1,
            "rate": None,
            "seed": 1,
            "deadline_s": 30.0,
            "verify": True,
        }
        | fields
    )


async def run(wanted: Load, exchange: Any) -> Record:
    record = Record(keep=wanted.verify)
    lanes: list[Lane] = [exchange.lane(peer) for peer in wanted.peer_names]
    await Runner(wanted, lanes, record).run()
    return record


def orders_of(subject: str, payload: bytes) -> list[Submit]:
    elements, _ = decode_request(payload, subject.rpartition(".")[2])
    assert all(isinstance(element, Submit) for element in elements)
    return elements  # type: ignore[return-value]


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("peers", [1, 3])
async def test_a_healthy_exchange_answers_every_order_once(batch: int, peers: int) -> None:
    exchange = Exchange()

    record = await run(load(batch=batch, peers=peers), exchange)

    assert record.sent == record.answered == 300
    assert record.retried == 0
    assert sum(len(orders_of(*request)) for request in exchange.requests) == 300
    assert len(exchange.requests) == -(-300 // batch)
    assert sum(record.latencies.values()) == 300
    assert {subject for subject, _ in exchange.requests} == {
        f"dex.orders.BTC-USD.load-{number}" for number in range(1, peers + 1)
    }


@pytest.mark.parametrize("batch", [1, 10])
@pytest.mark.parametrize("seed", range(5))
async def test_a_bad_exchange_answers_every_order_once_too(batch: int, seed: int) -> None:
    """Whatever is lost, late, double or refused: settled, and what was told is in the log (G4)."""
    exchange = Exchange(faults_percent=30, seed=seed)

    record = await run(load(batch=batch, peers=2), exchange)

    assert record.given_up == {"unavailable": 0, "unknown": 0}
    assert record.answered == 300
    assert record.retried > 0
    audit = Audit(
        Market.restore(exchange.base),
        record.told("BTC-USD"),
        specification=exchange.market.specification,
        above={"load-1": Pair(0), "load-2": Pair(0)},
    )
    for payload in exchange.log:
        audit.read(payload)
    audit.finish(sequence=exchange.market.sequence, digest=exchange.market.digest)
    assert [violation.sentence for violation in audit.violations] == []


async def test_copies_are_the_same_commands_with_the_same_ids() -> None:
    exchange = Exchange(faults_percent=40)

    await run(load(batch=5), exchange)

    seen: dict[Any, Submit] = {}
    for request in exchange.requests:
        for order in orders_of(*request):
            assert seen.setdefault(order.order_id, order) == order


async def test_first_copies_leave_in_the_order_of_their_ids() -> None:
    exchange = Exchange(faults_percent=20)

    await run(load(batch=3), exchange)

    firsts: dict[Any, None] = {}
    for request in exchange.requests:
        firsts |= dict.fromkeys(order.order_id for order in orders_of(*request))
    pairs = [pair_of(order_id) for order_id in firsts]
    assert pairs == sorted(pairs)


async def test_nobody_runs_further_ahead_than_a_market_remembers() -> None:
    """The oldest unanswered and the newest sent id span at most 4,096 ids (G4)."""
    enough = asyncio.Event()

    class Waiting(Exchange):
        sent_meanwhile = 0

        async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
            if not self.requests:
                self.requests.append((subject, payload))
                await enough.wait()
                # Many turns of the loop, in which more could be sent.
                for _ in range(1_000):
                    await asyncio.sleep(0)
                self.sent_meanwhile = len(self.requests)
                return self.executes(subject, payload)
            reply = await super().request(subject, payload, timeout_s=timeout_s)
            if len(self.requests) == RETRY_WINDOW_COUNT:
                enough.set()
            return reply

    exchange = Waiting()
    record = await run(load(orders=6_000, in_flight=4), exchange)

    assert exchange.sent_meanwhile == RETRY_WINDOW_COUNT
    assert record.answered == 6_000


class Silent(Exchange):
    """Never answers one request, the first; the others it answers at once."""

    def __init__(self, silent: Exception) -> None:
        super().__init__()
        self.silent = silent
        self.first: bytes | None = None

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if self.first is None:
            self.first = payload
        if payload == self.first:
            await asyncio.sleep(0.01)
            raise self.silent
        return await super().request(subject, payload, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("silent", "outcome"), [(NoReply("silence"), "unknown"), (NoResponder("503"), "unavailable")]
)
async def test_what_has_no_outcome_at_the_deadline_is_given_up(
    silent: Exception, outcome: str
) -> None:
    exchange = Silent(silent)

    record = await run(load(orders=20, deadline_s=0.3), exchange)

    assert record.given_up == {"unknown": 0, "unavailable": 0} | {outcome: 1}
    assert record.answered == 19
    outcomes = [told.outcome for told in record.told("BTC-USD").values()]
    assert len(outcomes) == 20
    assert outcomes.count(outcome) == 1  # type: ignore[arg-type]


async def test_orders_under_way_when_it_is_interrupted_are_unknown() -> None:
    enough = asyncio.Event()

    class Hanging(Exchange):
        async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
            if len(self.requests) == 100:
                enough.set()
                await asyncio.Event().wait()
            return await super().request(subject, payload, timeout_s=timeout_s)

    exchange = Hanging()
    record = Record(keep=True)
    runner = Runner(load(), [exchange.lane("load-1")], record)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runner.run())
        await enough.wait()
        task.cancel()

    assert record.answered + record.given_up["unknown"] == record.sent < 300
    assert record.given_up["unknown"] > 0
    assert record.seconds > 0


async def test_a_server_of_another_protocol_ends_the_run() -> None:
    class Foreign(Exchange):
        async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
            await asyncio.sleep(0)
            return b'{"hello": "world"}'

    with pytest.raises(ProtocolMismatch, match="the reply to an order"):
        await run(load(), Foreign())


async def test_a_rate_sends_all_orders_and_counts_latency_from_when_they_were_due() -> None:
    exchange = Exchange()

    record = await run(load(orders=200, rate=2_000.0, in_flight=2), exchange)

    assert record.answered == 200
    # The last order was due 199 / 2,000 s after the first.
    assert record.seconds >= 199 / 2_000
    assert min(record.latencies) >= 0


async def test_an_exchange_that_falls_behind_a_rate_shows_it() -> None:
    class Slow(Exchange):
        async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
            await asyncio.sleep(0.002)
            return await super().request(subject, payload, timeout_s=timeout_s)

    record = await run(load(orders=50, rate=1_000_000.0, in_flight=1), Slow())

    # One after the other takes 2 ms each; all were due at once, so the last waited for 49.
    assert max(record.latencies) >= 49 * 2_000
