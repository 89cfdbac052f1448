"""Flows: the same commands for everybody who is measured, and the same book after them."""

from pathlib import Path

import pytest

from bench.speed import flows
from bench.speed.leader import NOW, a_market
from bench.speed.structures import OurBook, our_order
from bench.speed.textbook import TextbookBook

A_FLOW = flows.make(resting=500, steps=4_000, seed=7)
SPARSE = flows.make(resting=500, steps=4_000, seed=7, distance=flows.SPARSE_DISTANCE)
ONE_LEVEL = flows.one_level(500, seed=7)


def test_seed_makes_the_flow() -> None:
    assert flows.make(resting=500, steps=4_000, seed=7) == A_FLOW
    assert flows.make(resting=500, steps=4_000, seed=8) != A_FLOW


def test_flow_is_read_as_it_was_written(tmp_path: Path) -> None:
    flows.write(A_FLOW, tmp_path / "flow.json")

    assert flows.read(tmp_path / "flow.json") == A_FLOW


def test_orders_of_a_sparse_flow_mostly_stand_alone() -> None:
    prices, sparse_prices = (
        len({(step.is_buy, step.price) for step in flow.resting}) for flow in (A_FLOW, SPARSE)
    )

    assert prices < 0.7 * len(A_FLOW.resting)
    assert sparse_prices > 0.9 * len(SPARSE.resting)


def test_book_stays_about_as_large_as_it_was() -> None:
    cancels = sum(type(step) is flows.Withdrawn for step in A_FLOW.steps)

    assert 0.4 < cancels / len(A_FLOW.steps) < 0.5
    assert 0.8 < A_FLOW.resting_after / len(A_FLOW.resting) < 1.0


@pytest.mark.parametrize("flow", [A_FLOW, SPARSE, ONE_LEVEL])
def test_market_refuses_none_of_it_and_ends_with_the_same_book(flow: flows.Flow) -> None:
    market, _ = a_market()
    for step in [*flow.resting, *flow.steps]:
        peer = flows.PEERS[step.peer]
        receipt, events = market.execute(flows.command_of(step), peer=peer, time=NOW)

        assert receipt.status != "rejected"
        assert "self_trade" not in [getattr(event, "reason", None) for event in events]
    assert len(market.orders) == flow.resting_after


@pytest.mark.parametrize("flow", [A_FLOW, SPARSE, ONE_LEVEL])
def test_our_book_and_the_textbook_end_with_the_same_orders(flow: flows.Flow) -> None:
    ours, textbook = OurBook(), TextbookBook()
    for step in [*flow.resting, *flow.steps]:
        if isinstance(step, flows.Submitted):
            ours.submit(our_order(step))
            textbook.submit(flows.textbook_order(step))
        else:
            ours.cancel(step.order)
            textbook.cancel(step.order)

    left = {number: order.remaining for number, order in textbook.orders.items()}
    assert {number: order.remaining for number, order in ours.orders.items()} == left
    assert len(left) == flow.resting_after
