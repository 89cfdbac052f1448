"""The retry window keeps the outcomes of the highest pairs; the lowest leaves first (G3, G5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_engine import Bounds, Market
from dex_engine.window import Outcome, RetryWindow
from dex_protocol.commands import Command
from dex_protocol.ids import Pair
from tests.builders import (
    a_market,
    amend,
    buy,
    cancel,
    cancel_all,
    execute,
    order,
    sell,
    send,
)


def remembered(*pairs: int, count_max: int = 3) -> RetryWindow:
    window = RetryWindow(count_max)
    for pair in pairs:
        window.remember(Pair(pair), Outcome(f"command_alice_0_{pair}", "0" * 16))
    return window


@pytest.mark.parametrize(
    ("pairs", "kept", "forgotten"),
    [
        ([1, 2, 3], [1, 2, 3], 0),
        ([1, 2, 3, 4], [2, 3, 4], 1),
        ([4, 3, 2, 1], [2, 3, 4], 1),
        ([10, 20, 30, 15], [15, 20, 30], 10),
        # What comes late and lowest leaves at once.
        ([10, 20, 30, 5], [10, 20, 30], 5),
        ([10, 20, 30, 40, 5], [20, 30, 40], 10),
    ],
)
def test_lowest_pair_leaves_first_whenever_it_came(
    pairs: list[int], kept: list[int], forgotten: int
) -> None:
    window = remembered(*pairs)

    assert sorted(window.outcomes) == kept
    assert window.forgotten == forgotten
    assert window.highest == max(pairs)


@given(st.lists(st.integers(1, 1_000), unique=True), st.integers(1, 10))
def test_window_holds_the_highest_and_remembers_the_highest_that_left(
    pairs: list[int], count_max: int
) -> None:
    window = remembered(*pairs, count_max=count_max)
    ordered = sorted(pairs)

    assert sorted(window.outcomes) == ordered[-count_max:]
    assert window.forgotten == (ordered[-count_max - 1] if len(pairs) > count_max else 0)
    assert window.highest == max(pairs, default=0)


def state_of(window: RetryWindow) -> object:
    return (
        dict(window.outcomes),
        [*window._pairs],
        window.forgotten,
        window.highest,
        [*window.newer],
    )


@given(
    st.lists(st.integers(1, 1_000), unique=True, max_size=12),
    st.lists(st.integers(1_001, 2_000), unique=True, max_size=12),
    st.integers(1, 10),
)
def test_newer_outcomes_are_added_as_one_by_one_and_can_be_taken_back(
    pairs: list[int], newer: list[int], count_max: int
) -> None:
    newer.sort()
    window = remembered(*pairs, count_max=count_max)
    before = state_of(window)
    for pair in newer:
        window.highest = Pair(pair)
        window.newer[Pair(pair)] = Outcome(f"command_alice_0_{pair}", "0" * 16)
    added = window.remember_newer()

    assert state_of(window) == state_of(remembered(*pairs, *newer, count_max=count_max))
    window.forget_newer(added)
    assert state_of(window) == before


def test_pair_is_used_once() -> None:
    with pytest.raises(AssertionError, match="has an outcome already"):
        remembered(1, 1)


# --- One outcome per id -------------------------------------------------------------------------


def small(count: int) -> Market:
    return a_market(Bounds(window_count=count))


def test_resent_submit_is_answered_with_the_order_as_it_stands() -> None:
    market = small(10)
    send(market, buy("3 @ 100", 1))
    send(market, sell("1 @ 100", 1, peer="bob"), peer="bob")
    receipt, events = execute(market, buy("3.0 @ 100.00", 1, time_in_force="gtc"))

    assert events == []
    assert (receipt.status, receipt.duplicate) == ("partially_filled", True)
    assert (receipt.filled_quantity, receipt.remaining_quantity) == ("1", "2")
    assert not receipt.trades


def test_resent_amend_is_answered_with_the_order_as_it_stands() -> None:
    market = small(10)
    send(market, buy("3 @ 100", 1))
    send(market, amend(1, 2, quantity="2"))
    send(market, cancel(1, 3))
    receipt, events = execute(market, amend(1, 2, quantity="2"))

    assert events == []
    assert (receipt.status, receipt.duplicate, receipt.version) == ("canceled", True, 2)


def test_resent_cancel_is_answered_as_it_left_an_order_that_is_forgotten() -> None:
    market = small(2)
    send(market, buy("3 @ 100", 1))
    send(market, sell("1 @ 100", 1, peer="bob"), peer="bob")
    send(market, cancel(1, 2))
    send(market, buy("1 @ 90", 3))
    receipt, _ = execute(market, cancel(1, 2))

    assert (receipt.status, receipt.duplicate) == ("canceled", True)
    assert (receipt.filled_quantity, receipt.average_price) == ("1", "100")


def test_resent_cancel_all_is_answered_with_a_count() -> None:
    market = small(10)
    send(market, buy("1 @ 100", 1))
    send(market, buy("1 @ 99", 2))
    first, _ = execute(market, cancel_all(3))
    again, events = execute(market, cancel_all(3))

    assert (first.canceled, first.more, first.duplicate) == ([order(1), order(2)], False, False)
    assert (again.status, again.count, again.duplicate, events) == ("canceled", 2, True, [])
    assert not again.canceled


def test_amend_that_traded_is_remembered_with_its_trades_outcome() -> None:
    market = small(2)
    send(market, buy("3 @ 100", 1))
    send(market, sell("2 @ 101", 1, peer="bob"), peer="bob")
    send(market, amend(1, 2, price="101"))
    send(market, cancel(1, 3))
    receipt, _ = execute(market, amend(1, 2, price="101"))

    # The order is forgotten, and canceled since; this is how the amend left it.
    assert (receipt.status, receipt.duplicate) == ("partially_filled", True)
    assert (receipt.filled_quantity, receipt.remaining_quantity) == ("2", "1")


@pytest.mark.parametrize(
    "made", [buy("2 @ 100", 1), sell("1 @ 100", 1), cancel(1, 1), amend(1, 1, price="99")]
)
def test_pair_of_an_order_is_used_for_nothing_else(made: Command) -> None:
    market = small(10)
    send(market, buy("1 @ 100", 1))
    receipt, events = execute(market, made)

    assert (receipt.reason, receipt.duplicate, events) == ("id_reused", False, [])
    assert execute(market, buy("1 @ 100", 1)).receipt.duplicate is True


def test_pair_of_a_command_is_used_for_no_order() -> None:
    market = small(10)
    send(market, cancel_all(1))

    assert execute(market, buy("1 @ 100", 1)).receipt.reason == "id_reused"


def test_forgotten_pair_is_stale_used_or_not() -> None:
    market = small(2)
    for number in (10, 20, 30):
        send(market, buy("1 @ 100", number))

    for number in (5, 9, 10):
        assert execute(market, buy("1 @ 100", number)).receipt.reason == "stale_id"
    assert execute(market, buy("1 @ 100", 11)).receipt.status == "new"


def test_pair_between_others_is_new_whatever_its_place() -> None:
    market = small(10)
    send(market, buy("1 @ 100", 10))

    assert execute(market, buy("1 @ 100", 5)).receipt.status == "new"


def test_open_order_that_was_forgotten_is_still_the_peers() -> None:
    market = small(1)
    send(market, buy("1 @ 100", 1))
    send(market, cancel_all(2, side="sell"))

    assert execute(market, buy("1 @ 100", 1)).receipt.reason == "stale_id"
    assert execute(market, cancel(1, 3)).receipt.status == "canceled"
    assert execute(market, cancel(1, 4)).receipt.reason == "unknown_order"


def test_windows_of_peers_are_their_own() -> None:
    market = small(1)
    send(market, buy("1 @ 100", 7))

    receipt, _ = execute(market, buy("1 @ 99", 7, peer="bob"), peer="bob")
    assert (receipt.status, receipt.duplicate) == ("new", False)


def test_command_without_an_id_is_executed_each_time() -> None:
    market = small(10)
    receipts = [execute(market, buy("1 @ 100")).receipt for _ in range(2)]

    assert [receipt.order_id for receipt in receipts] == ["order_alice_0_1", "order_alice_0_2"]
    assert market.peers["alice"].window.outcomes == {}


def test_servers_names_are_counted_over_all_peers() -> None:
    market = small(10)
    execute(market, buy("1 @ 100"))
    execute(market, buy("1 @ 100", 1))
    receipt, _ = execute(market, buy("1 @ 100"), peer="bob")

    assert receipt.order_id == "order_bob_0_2"
