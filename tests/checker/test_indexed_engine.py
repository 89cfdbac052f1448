"""The indexed engine is the naive one, only quicker: the same answers to everything, always."""

import random

import pytest

from tests.checker.indexed_engine import IndexedMarket
from tests.property import workload
from tests.property.reference_engine import ReferenceMarket, write
from tests.property.workload import Administer, Seeded, Send

STEPS = 150


@pytest.mark.parametrize("seed", range(10))
def test_indexed_engine_does_what_the_naive_one_does(seed: int) -> None:
    choose = Seeded(random.Random(seed))
    history = workload.History()
    specification = workload.first_specification(choose)
    bounds = workload.limits(choose)
    naive = ReferenceMarket(specification, **bounds)
    indexed = IndexedMarket(specification, **bounds)
    for _ in range(STEPS):
        step = workload.next_step(choose, history)
        expected_due = naive.housekeeping(step.time)

        assert indexed.is_due(step.time) == bool(expected_due)
        assert indexed.housekeeping(step.time) == expected_due
        match step:
            case Administer():
                expected = naive.administer(step.what, step.fields)
                assert indexed.administer(step.what, step.fields) == expected
            case Send():
                receipt, events = naive.execute(step.peer, step.command, step.time)
                assert indexed.execute(step.peer, step.command, step.time) == (receipt, events)
                history.learn(step.peer, receipt)
                compare_peer(naive, indexed, step.peer, history)
        assert indexed.digest() == naive.digest()
        assert indexed.book() == naive.book()
        assert levels(indexed) == naive.book()
        assert indexed.open_orders() == naive.open_orders()
    assert sorted(indexed.by_id) == sorted(order.order_id for order in naive.orders)


def compare_peer(
    naive: ReferenceMarket, indexed: IndexedMarket, peer: str, history: workload.History
) -> None:
    assert indexed.highest(peer) == naive.highest(peer)
    assert indexed.forgotten(peer) == naive.forgotten(peer)
    assert indexed.open_orders(peer) == naive.open_orders(peer)
    for order_id in history.of(peer).order_ids[-5:]:
        assert indexed.order(peer, order_id) == naive.order(peer, order_id)


def levels(market: IndexedMarket) -> dict[str, list[list[object]]]:
    return {
        name: [
            [price, [[order.order_id, write(order.remaining)] for order in level]]
            for price, level in market.levels(side, 1_000)
        ]
        for name, side in (("bids", "buy"), ("asks", "sell"))
    }


def test_limit_of_one_peer_holds_for_that_peer_alone() -> None:
    """The naive engine does not know it: docs/PROTOCOL.md (*Market specification*)."""
    market = IndexedMarket(
        {
            "market": "M",
            "tick_size": "1",
            "lot_size": "1",
            "max_open_orders": 3,
            "peers": {"alice": {"max_open_orders": 1}},
        }
    )

    def accepted(peer: str) -> int:
        return sum(
            market.execute(
                peer,
                {
                    "op": "submit",
                    "order_id": f"order_{peer}_1_{number}",
                    "side": "buy",
                    "price": "1",
                    "quantity": "1",
                },
                0,
            )[0]["status"]
            == "new"
            for number in range(1, 6)
        )

    assert accepted("alice") == 1
    assert accepted("bob") == 3
