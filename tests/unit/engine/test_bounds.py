"""One command, one commit and one housekeeping hold so much; the largest of each fit the wire.

Ids, prices and quantities are as long as the protocol lets them be.
"""

from typing import Any

import pytest

from dex_engine import Market
from dex_protocol.codec import encode
from dex_protocol.commands import CancelAll, Submit
from dex_protocol.events import AnyEvent, Canceled, CanceledAll, Expired, Reduced, Trade
from dex_protocol.ids import make_id
from dex_protocol.limits import COMMIT_BYTES_MAX, PAYLOAD_BYTES_MAX
from dex_protocol.numbers import COUNT_MAX
from tests.builders import (
    LONGEST_PEER,
    NOW,
    a_market,
    buy,
    cancel_all,
    execute,
    order,
    seal,
    sell,
)

PRICE = "999999999999999999.999999999999999999"
LOT = "999999999999999.999999999999999999"
ALL_LOTS = "999999999999999999.999999999999999"
"""A thousand lots."""

OTHER_PEER = "q" * 32
TIMESTAMP = 10**14 - 1
COUNT = 10**12 - 1


def an_id(kind: Any, peer: str, number: int) -> str:
    return make_id(kind, peer, TIMESTAMP, COUNT - number)


def a_wide_market() -> Market:
    market = a_market(market="M" * 24, tick_size=PRICE, lot_size=LOT)
    market.next_trade_id = COUNT_MAX - 2_000
    market.term = market.time = COUNT_MAX - 10**9
    return market


def fill(market: Market, count: int, **fields: Any) -> None:
    """Let a peer with a long name ask for one lot each, so many times."""
    for number in range(count):
        made = Submit(
            side="sell",
            price=PRICE,
            quantity=LOT,
            order_id=an_id("order", LONGEST_PEER, number),
            **fields,
        )
        assert execute(market, made, peer=LONGEST_PEER).receipt.status == "new"


def taker(peer: str, **fields: Any) -> Submit:
    order_id = an_id("order", peer, 5_000)
    return Submit(side="buy", quantity=ALL_LOTS, price=PRICE, order_id=order_id, **fields)


def sealed(market: Market, events: list[AnyEvent]) -> bytes:
    payload = seal(market, events)

    assert len(payload) <= COMMIT_BYTES_MAX
    # Quoted as a JSON string in a `log` reply it still is one message.
    assert len(encode([payload.decode()])) < PAYLOAD_BYTES_MAX
    market.check()
    return payload


def test_command_trades_with_a_thousand_makers() -> None:
    market = a_wide_market()
    fill(market, 1_000)
    receipt, events = execute(market, taker(OTHER_PEER), peer=OTHER_PEER)

    assert receipt.status == "filled"
    assert [type(event) for event in events[1:]] == [Trade] * 1_000
    assert len(receipt.trades) == 1_000
    assert len(encode(receipt)) < PAYLOAD_BYTES_MAX
    sealed(market, events)


@pytest.mark.parametrize("time_in_force", ["gtc", "ioc"])
def test_taker_that_needs_one_maker_more_has_its_rest_canceled(time_in_force: Any) -> None:
    market = a_market()
    for number in range(1, 1_003):
        made = Submit(side="sell", price="100", quantity="1", order_id=an_id("order", "a", number))
        execute(market, made, peer="a")
    made = Submit(side="buy", price="100", quantity="1002", time_in_force=time_in_force)
    receipt, events = execute(market, made, peer="b")

    assert (receipt.status, receipt.filled_quantity) == ("canceled", "1000")
    assert events[-1] == Canceled("order_b_0_1", "2", "too_many_makers")
    assert len(market.orders) == 2
    sealed(market, events)


def test_fok_that_needs_one_maker_more_is_refused() -> None:
    market = a_market()
    for number in range(1, 1_002):
        made = Submit(side="sell", price="100", quantity="1", order_id=an_id("order", "a", number))
        execute(market, made, peer="a")

    def fok(quantity: str) -> Submit:
        return Submit(side="buy", price="100", quantity=quantity, time_in_force="fok")

    assert execute(market, fok("1001"), peer="b").receipt.reason == "fok_not_fillable"
    assert execute(market, fok("1000"), peer="b").receipt.status == "filled"


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [("decrement", [Reduced, Reduced] * 1_000), ("cancel_maker", [Canceled] * 1_000)],
)
def test_command_meets_a_thousand_own_orders(rule: Any, kinds: list[type]) -> None:
    market = a_wide_market()
    fill(market, 1_000)
    made = taker(LONGEST_PEER, self_trade=rule, expires_at=COUNT_MAX, time_in_force="gtd")
    _, events = execute(market, made, peer=LONGEST_PEER)

    assert [type(event) for event in events[1:]] == kinds
    sealed(market, events)


def test_own_orders_removed_count_as_makers_too() -> None:
    market = a_wide_market()
    fill(market, 1_001)
    made = taker(LONGEST_PEER, self_trade="cancel_maker")
    _, events = execute(market, made, peer=LONGEST_PEER)

    assert len(events) == 1_002
    assert events[-1] == Canceled(made.order_id, ALL_LOTS, "too_many_makers")


def test_cancel_all_cancels_a_thousand_and_says_that_there_are_more() -> None:
    market = a_wide_market()
    fill(market, 1_001)
    ids = list(market.orders)
    made = CancelAll(command_id=an_id("command", LONGEST_PEER, 5_000))
    receipt, events = execute(market, made, peer=LONGEST_PEER)

    assert (receipt.canceled, receipt.more) == (ids[:1_000], True)
    assert [type(event) for event in events] == [Canceled] * 1_000 + [CanceledAll]
    assert len(encode(receipt)) < PAYLOAD_BYTES_MAX
    sealed(market, events)

    made = CancelAll(command_id=an_id("command", LONGEST_PEER, 4_999))
    receipt, _ = execute(market, made, peer=LONGEST_PEER)
    assert (receipt.canceled, receipt.more) == (ids[1_000:], False)


def test_orders_of_both_sides_are_canceled_in_order_of_acceptance() -> None:
    market = a_market()
    for number in range(1, 9):
        execute(market, buy("1 @ 100", number) if number % 3 else sell("1 @ 200", number))

    sells = execute(market, cancel_all(10, side="sell")).receipt
    assert sells.canceled == [order(3), order(6)]
    both = execute(market, cancel_all(11)).receipt
    assert both.canceled == [order(number) for number in (1, 2, 4, 5, 7, 8)]
    assert execute(market, cancel_all(12, side="buy")).receipt.canceled == []
    market.check()


def test_cancel_all_of_a_thousand_says_that_there_are_no_more() -> None:
    market = a_wide_market()
    fill(market, 1_000)
    receipt, _ = execute(market, CancelAll(), peer=LONGEST_PEER)

    assert (len(receipt.canceled), receipt.more) == (1_000, False)


def test_expiries_are_spread_over_commits_of_a_thousand() -> None:
    market = a_wide_market()
    due = market.time + 1
    fill(market, 1_001, time_in_force="gtd", expires_at=due)
    ids = list(market.orders)

    assert not market.is_due(due - 1)
    for expected in (ids[:1_000], ids[1_000:], []):
        assert market.is_due(due) == bool(expected)
        events = market.housekeeping(due)
        assert [event.order_id for event in events if isinstance(event, Expired)] == expected
        sealed(market, events)


def test_closing_is_spread_over_commits_of_a_thousand() -> None:
    market = a_wide_market()
    fill(market, 1_001)
    ids = list(market.orders)
    _, _, events = market.administer("close", time=market.time)
    sealed(market, events)

    for expected in (ids[:1_000], ids[1_000:], []):
        assert market.is_due(market.time) == bool(expected)
        events = market.housekeeping(market.time)
        assert events == [Canceled(each, LOT, "market_closed") for each in expected]
        sealed(market, events)


def test_expiries_come_before_the_cancels_of_a_closing_market() -> None:
    market = a_wide_market()
    due = market.time + 1
    fill(market, 600)
    for number in range(600, 1_200):
        order_id = an_id("order", LONGEST_PEER, number)
        made = Submit("sell", LOT, order_id, price=PRICE, time_in_force="gtd", expires_at=due)
        execute(market, made, peer=LONGEST_PEER)
    market.administer("close", time=market.time)
    first, second = market.housekeeping(due), market.housekeeping(due)

    assert [type(event) for event in first] == [Expired] * 600 + [Canceled] * 400
    assert [type(event) for event in second] == [Canceled] * 200


def test_market_remembers_the_newest_thousand_trades() -> None:
    market = a_market()
    for number in range(1, 1_002):
        for side, peer in (("sell", "a"), ("buy", "b")):
            order_id = an_id("order", peer, number)
            made = Submit(side=side, price="100", quantity="1", order_id=order_id)
            seal(market, execute(market, made, peer=peer, time=NOW + number).events)

    assert [trade.trade_id for trade in market.trades] == list(range(2, 1_002))
