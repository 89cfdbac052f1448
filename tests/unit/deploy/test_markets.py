"""What the markets of the local exchange are opened with."""

import pytest

from deploy import markets, state
from dex_protocol.specification import what_is_wrong


@pytest.mark.parametrize("market", [*state.MARKETS, "SOL-USD"])
def test_specification_of_any_market_is_possible_and_has_its_name(market: str) -> None:
    specification = markets.specification(market)

    assert specification.market == market
    assert what_is_wrong(specification) is None


def test_impossible_name_is_refused() -> None:
    with pytest.raises(ValueError, match="expected market as 1 to 24 letters"):
        markets.specification("BTC/USD")


async def test_markets_without_a_node_have_no_leader() -> None:
    (view,) = await markets.look([], ["BTC-USD"])

    assert view.leader is None
    assert view.state == "no NATS node runs"
