"""All open orders of a market, which stand with their peers."""

import pytest

from tests.builders import a_market, buy, order, sell, send


def test_open_orders_of_all_peers_are_walked_in_order_of_acceptance() -> None:
    market = a_market()
    send(market, buy("1 @ 10", 1, peer="bob"), peer="bob")
    send(market, sell("1 @ 20", 1))
    send(market, buy("1 @ 11", 2))
    send(market, sell("1 @ 21", 2, peer="bob"), peer="bob")
    ids = [order(1, "bob"), order(1), order(2), order(2, "bob")]

    assert list(market.orders) == ids
    assert [each.order_id for each in market.orders.values()] == ids
    assert len(market.orders) == 4
    assert market.orders == {each: market.orders[each] for each in ids}


@pytest.mark.parametrize(
    "text", ["", "_", "__", "order", "order_alice", order(2), order(1, "carol"), "x" + order(1)]
)
def test_text_that_names_no_open_order_finds_none(text: str) -> None:
    market = a_market()
    send(market, buy("1 @ 10", 1))

    assert market.orders.get(text) is None
    assert text not in market.orders
    with pytest.raises(KeyError):
        market.orders[text]
