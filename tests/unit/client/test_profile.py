"""What the load is made of: the same from the same seed, trading, within the market's bounds."""

from collections import Counter

import pytest

from dex_client.load.profile import SHARES_PERCENT, Profile, profile_random
from dex_engine import Market
from dex_protocol.commands import Submit, what_is_malformed
from dex_protocol.numbers import Scale
from dex_protocol.specification import Specification
from tests.builders import NOW, a_market, a_specification, order

SEED = 3
PEERS = ("load-1", "load-2", "load-3")

SPECIFICATIONS = {
    "plain": a_specification(),
    "bounded": a_specification(
        min_quantity="0.02", max_quantity="0.5", max_price="120", min_notional="5"
    ),
    "coarse": a_specification(tick_size="0.5", lot_size="10"),
    "low": a_specification(tick_size="1", lot_size="1", max_price="20"),
    "finest": a_specification(tick_size="0.000000000000000001", lot_size="0.000000000000000001"),
}


def orders(
    specification: Specification, count: int, *, seed: int = SEED, last_price: str | None = None
) -> list[Submit]:
    random = profile_random(seed, specification.market, "load-1")
    profile = Profile(specification, last_price=last_price, random=random)
    return [profile.order(order(number, "load-1")) for number in range(1, count + 1)]


def receipts(market: Market, count: int, peers: tuple[str, ...] = PEERS) -> Counter[str]:
    """Send a load of some peers to a market: how often it gave which reason, or status."""
    profiles = [
        Profile(
            market.specification,
            last_price=None,
            random=profile_random(SEED, market.name, peer),
        )
        for peer in peers
    ]
    outcomes: Counter[str] = Counter()
    for number in range(count):
        peer = peers[number % len(peers)]
        made = profiles[number % len(peers)].order(order(number + 1, peer))
        receipt = market.execute(made, peer=peer, time=NOW).receipt
        outcomes[receipt.reason if isinstance(receipt.reason, str) else receipt.status] += 1
        outcomes["trades"] += len(receipt.trades or ())
    return outcomes


def test_the_same_seed_makes_the_same_orders() -> None:
    assert orders(SPECIFICATIONS["plain"], 500) == orders(SPECIFICATIONS["plain"], 500)


def test_other_seeds_peers_and_markets_make_other_orders() -> None:
    firsts = {
        (seed, market, peer): profile_random(seed, market, peer).random()
        for seed in (1, 2)
        for market in ("BTC-USD", "ETH-USD")
        for peer in ("load-1", "load-2")
    }

    assert len(set(firsts.values())) == len(firsts)


def test_shares_add_up_to_a_hundred() -> None:
    assert sum(SHARES_PERCENT.values()) == 100


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_every_order_is_well_formed(name: str) -> None:
    for made in orders(SPECIFICATIONS[name], 2_000):
        assert what_is_malformed(made) is None


def test_a_few_percent_are_off_their_steps_on_purpose() -> None:
    specification = SPECIFICATIONS["plain"]
    tick, lot = Scale(specification.tick_size), Scale(specification.lot_size)
    made = orders(specification, 10_000)

    off_tick = sum(isinstance(o.price, str) and tick.count(o.price) is None for o in made)
    off_lot = sum(lot.count(o.quantity) is None for o in made)

    assert 100 < off_tick < 300
    assert 100 < off_lot < 300


def test_a_start_at_the_last_price_gathers_around_it() -> None:
    made = orders(SPECIFICATIONS["plain"], 2_000, last_price="250.00")

    prices = [float(o.price) for o in made if isinstance(o.price, str)]
    assert min(prices) > 249
    assert max(prices) < 251


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_orders_trade_and_no_bound_of_the_market_refuses_them(name: str) -> None:
    fields = {
        field: value
        for field in SPECIFICATIONS[name].__struct_fields__
        if isinstance(value := getattr(SPECIFICATIONS[name], field), str)
    }
    outcomes = receipts(a_market(**fields), 3_000)

    assert outcomes["trades"] > 1_000
    assert {reason for reason in outcomes if reason.endswith("_out_of_range")} == set()


def test_one_peer_alone_trades_too() -> None:
    outcomes = receipts(a_market(), 1_000, peers=("load-1",))

    assert outcomes["trades"] > 300


def test_the_demo_always_has_trades_and_refusals() -> None:
    # What `just demo` shows: 1,000 orders by one peer.
    outcomes = receipts(a_market(), 1_000, peers=("load-1",))

    assert outcomes["price_off_tick"] > 0
    assert outcomes["quantity_off_lot"] > 0


def test_the_book_stays_small_however_many_orders_come() -> None:
    market = a_market()

    receipts(market, 20_000)

    assert len(market.orders) < 2_000
