"""Plans: whom an incoming order meets, looked at alone. The scenarios show whole books."""

from typing import Any

import pytest

from dex_engine.matching import Plan, plan
from tests.builders import a_market, buy, order, sell, send


def planned(**changes: Any) -> list[tuple[str, str, int]]:
    made = plan_of(**changes)
    return [(step.meeting, step.maker.order_id, step.quantity) for step in made.steps]


def plan_of(**changes: Any) -> Plan:
    """Plan a buy of alice's against asks of 1 at 100, 2 at 100 (her own) and 3 at 101."""
    market = a_market()
    send(market, sell("3 @ 101", 1, peer="bob"), peer="bob")
    send(market, sell("1 @ 100", 2, peer="bob"), peer="bob")
    send(market, sell("2 @ 100", 1))
    before = market.snapshot()
    request: dict[str, Any] = {
        "limit": None,
        "quantity": 9_000,
        "peer": "carol",
        "self_trade": "cancel_taker",
        "whole": False,
        "makers_max": 1_000,
    }
    made = plan(market.book.asks, **request | changes)

    assert market.snapshot() == before
    return made


FIRST, OWN, LAST = order(2, "bob"), order(1), order(1, "bob")


def test_best_price_is_met_first_then_the_oldest() -> None:
    """However many levels the quantity takes (G8)."""
    assert planned() == [("trade", FIRST, 1_000), ("trade", OWN, 2_000), ("trade", LAST, 3_000)]


def test_limit_ends_the_search() -> None:
    """No price beyond it is looked at (G8)."""
    made = plan_of(limit=10_000)

    assert [step.maker.order_id for step in made.steps] == [FIRST, OWN]
    assert (made.left, made.ending) == (6_000, None)


def test_taker_that_is_done_ends_the_search() -> None:
    assert planned(quantity=1_500) == [("trade", FIRST, 1_000), ("trade", OWN, 500)]


def test_as_many_makers_as_allowed_end_the_search() -> None:
    made = plan_of(makers_max=2)

    assert (len(made.steps), made.left, made.ending) == (2, 6_000, "too_many_makers")


def test_taker_done_with_the_last_maker_allowed_is_done() -> None:
    made = plan_of(makers_max=2, quantity=3_000)

    assert (made.left, made.ending) == (0, None)


def test_limit_at_the_last_maker_allowed_leaves_the_rest() -> None:
    made = plan_of(makers_max=2, limit=10_000)

    assert (made.left, made.ending) == (6_000, None)


@pytest.mark.parametrize(
    ("rule", "meetings", "left", "ending"),
    [
        ("cancel_taker", ["trade"], 8_000, "self_trade"),
        ("cancel_maker", ["trade", "remove", "trade"], 5_000, None),
        ("cancel_both", ["trade", "remove"], 8_000, "self_trade"),
        ("decrement", ["trade", "reduce", "trade"], 3_000, None),
        ("allow", ["trade", "trade", "trade"], 3_000, None),
    ],
)
def test_self_trade_rule_is_the_takers(
    rule: str, meetings: list[str], left: int, ending: str | None
) -> None:
    made = plan_of(peer="alice", self_trade=rule)

    assert [step.meeting for step in made.steps] == meetings
    assert (made.left, made.ending) == (left, ending)


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("cancel_taker", 3_000),
        ("cancel_maker", 0),
        ("cancel_both", 3_000),
        ("decrement", 3_000),
        ("allow", 0),
    ],
)
def test_own_orders_under_fill_or_kill(rule: str, left: int) -> None:
    """They count as nothing under cancel_maker, and end the search under all but allow."""
    made = plan_of(peer="alice", self_trade=rule, quantity=4_000, whole=True)

    assert made.left == left


def test_nothing_to_meet_leaves_all() -> None:
    market = a_market()
    send(market, buy("1 @ 100", 1))

    assert plan(
        market.book.asks,
        limit=None,
        quantity=5,
        peer="bob",
        self_trade="allow",
        whole=False,
        makers_max=1,
    ) == Plan([], 5, None)
