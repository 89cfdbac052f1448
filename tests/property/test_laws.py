"""Laws that hold of every market, whatever is done to it: told by the events alone.

The ledger keeps its own books by what events say, and sorts a plain list where it needs an order.
"""

import random
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from dex_protocol.events import (
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    Expired,
    Reduced,
    Trade,
)
from dex_protocol.ids import parse_id
from dex_protocol.numbers import Scale
from tests.property.runs import Done, Run
from tests.property.twins import read
from tests.property.workload import Drawn, Seeded, Send

SEEDS = range(24)
STEPS = 400

SLOW_IS_NOT_WRONG = (HealthCheck.too_slow, HealthCheck.data_too_large)
"""Whole workloads are drawn here, on machines that do much else."""

TICK, LOT = Scale("0.01"), Scale("0.05")


@dataclass
class Entry:
    """What is known of an order: totals in lots, its limit in ticks (None: at any price)."""

    side: str
    peer: str
    limit: int | None
    quantity: int
    filled: int = 0
    taken_off: int = 0
    resting: int = 0
    entered: int = 0


def whole(scale: Scale, text: str) -> int:
    count = scale.count(text)
    assert count is not None, text
    return count


class Ledger:
    """All orders of a market, kept by the events."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.trade_ids: list[int] = []
        self.entered = 0

    def opposite(self, side: str) -> list[str]:
        """List the resting orders that orders of a side meet: best price first, oldest first."""
        makers = [
            (entry.limit if side == "buy" else -entry.limit, entry.entered, order_id)
            for order_id, entry in self.entries.items()
            if entry.resting and entry.side != side and entry.limit is not None
        ]
        return [order_id for _, _, order_id in sorted(makers)]

    def note(self, events: list[AnyEvent]) -> None:
        """Write down what happened by one command, and ask the laws of it."""
        taker = None
        makers: list[str] = []
        touched: list[str] = []
        for event in events:
            match event:
                case Accepted():
                    taker = event.order_id
                    makers = self.opposite(event.side)
                    limit = None if event.price is UNSET else whole(TICK, event.price)
                    quantity = whole(LOT, event.quantity)
                    self.entries[taker] = Entry(event.side, event.peer, limit, quantity)
                    self.rest(taker, whole(LOT, event.resting_quantity))
                case Amended():
                    taker = event.order_id
                    entry = self.entries[taker]
                    makers = self.opposite(entry.side)
                    entry.limit = whole(TICK, event.price)
                    entry.quantity = whole(LOT, event.quantity)
                    if event.priority == "lost":
                        self.rest(taker, whole(LOT, event.resting_quantity))
                    else:
                        entry.resting = whole(LOT, event.resting_quantity)
                case Trade():
                    assert event.taker_order_id == taker
                    touched.append(event.maker_order_id)
                    self.trade(event)
                case Reduced():
                    if event.order_id != taker:
                        touched.append(event.order_id)
                    self.lower(event.order_id, whole(LOT, event.quantity), taker)
                    self.entries[event.order_id].quantity -= whole(LOT, event.quantity)
                case Canceled() | Expired():
                    if taker is not None and event.order_id != taker:
                        touched.append(event.order_id)
                    elif taker is not None:
                        # What its own command cancels never was in the book.
                        assert self.entries[taker].resting == 0
                    self.take_off(event.order_id, whole(LOT, event.quantity))

        # Older first: those that were met are the first there were, in order.
        assert touched == makers[: len(touched)]
        for order_id in touched[:-1]:
            assert self.entries[order_id].resting == 0, f"{order_id} was passed over in part"

    def rest(self, order_id: str, resting: int) -> None:
        self.entered += 1
        self.entries[order_id].entered = self.entered
        self.entries[order_id].resting = resting

    def trade(self, event: Trade) -> None:
        price, quantity = whole(TICK, event.price), whole(LOT, event.quantity)
        maker, taker = self.entries[event.maker_order_id], self.entries[event.taker_order_id]

        assert quantity > 0
        assert event.taker_side == taker.side != maker.side
        # No fill is worse than its limit, and it is at the resting order's price.
        assert price == maker.limit
        if taker.limit is not None:
            assert price <= taker.limit if taker.side == "buy" else price >= taker.limit
        self.lower(event.maker_order_id, quantity, event.taker_order_id)
        maker.filled += quantity
        taker.filled += quantity
        self.trade_ids.append(event.trade_id)

    def lower(self, order_id: str, quantity: int, taker: str | None) -> None:
        # The taker's `resting_quantity` holds the outcome already.
        if order_id != taker:
            self.entries[order_id].resting -= quantity

            assert self.entries[order_id].resting >= 0

    def take_off(self, order_id: str, quantity: int) -> None:
        entry = self.entries[order_id]
        entry.taken_off += quantity
        entry.resting = 0

    def ask(self, run: Run) -> None:
        """Ask the laws of the books as they stand between two commands."""
        filled = {"buy": 0, "sell": 0}
        for order_id, entry in self.entries.items():
            # Quantity is conserved.
            total = entry.filled + entry.taken_off + entry.resting
            assert entry.quantity == total, f"{order_id}: {entry}"
            filled[entry.side] += entry.filled
        assert filled["buy"] == filled["sell"]
        assert self.trade_ids == list(range(1, len(self.trade_ids) + 1))
        resting = {i: entry for i, entry in self.entries.items() if entry.resting}
        assert {i: order.remaining for i, order in run.market.orders.items()} == {
            i: entry.resting for i, entry in resting.items()
        }
        # The book never crosses.
        bids = [entry.limit for entry in resting.values() if entry.side == "buy"]
        asks = [entry.limit for entry in resting.values() if entry.side == "sell"]
        assert not bids or not asks or max(bids) < min(asks)
        # Both sides stand in order of price, then of entry.
        book = run.market.book
        assert [order.order_id for order in book.asks] == self.opposite("buy")
        assert [order.order_id for order in book.bids] == self.opposite("sell")

    def follow(self, run: Run, done: Done) -> None:
        for event in done.due:
            self.note([event])
        self.note(done.events)
        self.ask(run)


@pytest.mark.parametrize("seed", SEEDS)
def test_laws_hold_under_a_seeded_workload(seed: int) -> None:
    """Priority, an uncrossed book and conserved quantities, after every command (G8, G9, G10)."""
    run, ledger = Run(Seeded(random.Random(seed))), Ledger()
    for _ in range(STEPS):
        ledger.follow(run, run.step())
    run.market.check()

    assert ledger.trade_ids, "expected a workload that trades"


@given(st.data())
@settings(max_examples=25, suppress_health_check=SLOW_IS_NOT_WRONG)
def test_laws_hold_whatever_is_done(data: st.DataObject) -> None:
    """The same laws, with whatever Hypothesis draws (G8, G9, G10)."""
    run, ledger = Run(Drawn(data.draw)), Ledger()
    for _ in range(30):
        ledger.follow(run, run.step())
    run.market.check()


@pytest.mark.parametrize("seed", range(100, 108))
def test_no_id_is_executed_twice(seed: int) -> None:
    """Whatever was sent may be sent again, at any time: it makes no event (G3, G5)."""
    run = Run(Seeded(random.Random(seed)))
    sent: list[Send] = []
    for _ in range(STEPS):
        done = run.step()
        if isinstance(done.step, Send) and is_remembered(done.step, run):
            sent.append(done.step)
    again = [
        (step, run.market.execute(read(step), peer=step.peer, time=run.market.time))
        for step in sent
    ]

    assert len(sent) > STEPS // 2
    assert [(step, answer) for step, answer in again if answer.events] == []


def is_remembered(step: Send, run: Run) -> bool:
    # A command without an id is executed each time; a peer too many is not remembered.
    name = "order_id" if step.command["op"] == "submit" else "command_id"
    return name in step.command and step.peer in run.market.peers


@pytest.mark.parametrize("seed", range(200, 208))
def test_receipt_says_what_the_events_say(seed: int) -> None:
    """Trade by trade, in their order (G1)."""
    run = Run(Seeded(random.Random(seed)))
    for _ in range(STEPS):
        done = run.step()
        receipt = done.receipt
        if receipt is None or receipt.trades is UNSET:
            continue
        trades = [event for event in done.events if isinstance(event, Trade)]

        assert [(t.trade_id, t.price, t.quantity, t.maker_order_id) for t in trades] == [
            (f.trade_id, f.price, f.quantity, f.maker_order_id) for f in receipt.trades
        ]
        assert parse_id(str(receipt.order_id), "order") is not None
        if receipt.status == "filled":
            assert receipt.remaining_quantity == "0"
