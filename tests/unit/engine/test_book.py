"""The book by itself: its levels stand by rank, however they come and go."""

from random import Random

import pytest

from dex_engine.book import LEFT_RANKS_COUNT_MAX, BookSide
from dex_engine.order import Order
from dex_protocol.commands import Side


def an_order(side: Side, price: int) -> Order:
    return Order(
        f"order_alice_1_{price}",
        "alice",
        side,
        "limit",
        price,
        1,
        "gtc",
        0,
        False,
        "cancel_taker",
        1,
        1,
    )


def prices(side: BookSide, last: int | None = None) -> list[int]:
    return [level.price for level in side.by_rank(last)]


@pytest.mark.parametrize("name", ["buy", "sell"])
def test_levels_stand_by_rank_however_orders_come_and_go(name: Side) -> None:
    """Also at prices that were left, and came again."""
    random, side, resting = Random(7), BookSide(name), list[Order]()
    for step in range(4_000):
        # It fills up, and empties again, some times.
        if resting and random.random() < (0.3 if step % 1_000 < 500 else 0.7):
            side.remove(resting.pop(random.randrange(len(resting))))
        else:
            resting.append(an_order(name, random.randint(1, 300)))
            side.add(resting[-1])
        best_first = sorted({order.price for order in resting}, reverse=name == "buy")

        assert prices(side) == best_first
        assert (side.best.price if side.best else None) == next(iter(best_first), None)
        assert [order.price for order in side] == sorted(
            (order.price for order in resting), reverse=name == "buy"
        )


def test_levels_are_walked_up_to_a_rank() -> None:
    bids = BookSide("buy")
    for price in (5, 7, 6, 9, 8):
        bids.add(an_order("buy", price))

    assert prices(bids, bids.rank(7)) == [9, 8, 7]
    assert prices(bids, bids.rank(10)) == []


def test_levels_that_come_and_go_leave_few_ranks() -> None:
    """Whatever is left of those that are gone is bounded, and so is what passes over it."""
    asks = BookSide("sell")
    asks.add(an_order("sell", 1))
    for price in range(2, 10_000):
        order = an_order("sell", price)
        asks.add(order)
        asks.remove(order)

        # Two levels is the most that there ever are.
        assert len(asks._ranks) <= 2 * 2 + LEFT_RANKS_COUNT_MAX
    assert prices(asks) == [1]


def test_book_that_was_large_is_soon_swept_when_its_best_levels_go() -> None:
    asks = BookSide("sell")
    orders = [an_order("sell", price) for price in range(1, 1_001)]
    for order in orders:
        asks.add(order)
    for order in orders[1:-1]:
        asks.remove(order)
    asks.remove(orders[0])

    assert prices(asks) == [1_000]
    assert len(asks._ranks) == 1
