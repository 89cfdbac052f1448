"""A snapshot is the whole state: restored, it is written the same; damaged, it is refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_engine import InvariantViolated, Market
from dex_protocol.codec import encode_canonical
from tests.builders import (
    NOW,
    a_market,
    amend,
    buy,
    cancel,
    cancel_all,
    execute,
    order,
    seal,
    sell,
    send,
)

GOLDEN = Path(__file__).parent / "golden" / "snapshot.json"


def a_busy_market() -> Market:
    """Make a market with everything that a snapshot has a field for."""
    market = a_market(price_band="0.5", max_peers=5)
    gtd: dict[str, Any] = {"time_in_force": "gtd", "expires_at": NOW + 1_000}
    send(market, buy("3 @ 100", 1))
    send(market, buy("2 @ 99", 2, post_only=True, self_trade="decrement", **gtd))
    send(market, buy("1 @ 98.5"))
    send(market, sell("5 @ 100", 1, peer="bob"), peer="bob")
    send(market, sell("2 @ 101", 2, peer="bob", **gtd), peer="bob")
    send(market, amend(order(2, "bob"), quantity="1"), peer="bob")
    send(market, amend(2, 3, price="99.5"), time=NOW + 5)
    send(market, buy("1", 4, self_trade="allow"))
    send(market, cancel(order(999), 5))
    send(market, cancel_all(6, side="sell"))
    send(market, buy("2 @ 98.5", 7))
    send(market, sell("1 @ 100.5", 1, peer="carol", time_in_force="ioc"), peer="carol")
    return market


def test_restored_market_writes_the_same_bytes() -> None:
    market = a_busy_market()
    restored = Market.restore(market.snapshot())

    assert restored.snapshot() == market.snapshot()
    assert restored.digest == market.digest
    assert restored.name == market.name


def test_restored_market_goes_on_as_the_other_does() -> None:
    """Its remembered outcomes and counters are those of the other, too (G17)."""
    market = a_busy_market()
    restored = Market.restore(market.snapshot())
    for made, peer in [
        (buy("9 @ 102", 10, self_trade="cancel_maker"), "alice"),
        (buy("3 @ 100", 1), "alice"),
        (amend(2, 3, price="99.5"), "alice"),
        (sell("9 @ 98", 10, peer="bob"), "bob"),
        (cancel_all(11), "alice"),
        (buy("1 @ 100"), "carol"),
    ]:
        expected = execute(market, made, peer=peer)
        found = execute(restored, made, peer=peer)

        assert found == expected
        assert seal(restored, found.events) == seal(market, expected.events)
        assert restored.snapshot() == market.snapshot()
    assert restored.housekeeping(NOW + 1_000) == market.housekeeping(NOW + 1_000)


def test_snapshot_is_canonical_json() -> None:
    snapshot = a_busy_market().snapshot()
    document = json.loads(snapshot)

    assert json.dumps(document, sort_keys=True, separators=(",", ":")).encode() == snapshot
    assert [each["order_id"] for each in document["orders"]] == [
        order(2),
        "order_alice_0_1",
        order(7),
        order(1, "bob"),
        order(2, "bob"),
    ]


def test_peers_stand_by_name_and_their_outcomes_by_growing_pair() -> None:
    market = a_market()
    for number, peer in ((9, "carol"), (5, "bob"), (7, "carol"), (8, "alice"), (6, "carol")):
        send(market, buy("1 @ 100", number, peer=peer), peer=peer)
    peers = json.loads(market.snapshot())["peers"]

    assert [each["peer"] for each in peers] == ["alice", "bob", "carol"]
    assert [outcome["order_id"] for outcome in peers[2]["outcomes"]] == [
        order(number, "carol") for number in (6, 7, 9)
    ]


def test_market_without_orders_is_restored() -> None:
    market = a_market()

    assert Market.restore(market.snapshot()).snapshot() == market.snapshot()


def test_events_of_all_commits_are_counted_alike_by_whoever_leads_and_follows() -> None:
    """Of a commit that was executed but not sealed, nothing counts yet."""
    leader = a_market()
    assert leader.events_count == 2
    follower = Market.restore(leader.snapshot())
    for made, events in [
        (buy("3 @ 100", 1), 1),
        (sell("1 @ 100"), 2),
        (buy("1 @ 99", 2), 1),
        (cancel_all(3), 3),
        (cancel(order(999)), 0),
    ]:
        count = leader.events_count
        executed = execute(leader, made)
        assert leader.events_count == count

        follower.apply_commit(seal(leader, executed.events))

        assert leader.events_count == count + events
        assert follower.snapshot() == leader.snapshot()


def test_golden_snapshot_is_restored_and_written_the_same() -> None:
    """A server of today takes over from one of yesterday: no release changes the file."""
    data = GOLDEN.read_bytes().rstrip(b"\n")

    assert Market.restore(data).snapshot() == data


# --- What is no snapshot ------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"market":"'])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(InvariantViolated):
        Market.restore(data)


def test_snapshot_cut_short_anywhere_is_refused() -> None:
    data = a_busy_market().snapshot()
    for length in random.Random(1).sample(range(len(data)), 100):
        with pytest.raises(InvariantViolated):
            Market.restore(data[:length])


SNAPSHOT = a_busy_market().snapshot()


@given(st.data())
def test_damaged_snapshot_is_refused_or_of_a_possible_state(data: st.DataObject) -> None:
    """Of a flipped bit comes that one exception, or a market that obeys all laws (G17).

    That it is the very state that was written, the hash of the bytes says, which is kept beside.
    """
    damaged = bytearray(SNAPSHOT)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        restored = Market.restore(bytes(damaged))
    except InvariantViolated:
        return
    written = restored.snapshot()

    assert Market.restore(written).snapshot() == written


def first_order(document: dict[str, Any], **fields: Any) -> None:
    document["orders"][0].update(fields)


DAMAGES: dict[str, Any] = {
    "another digest": lambda document: document.update(digest="0" * 16),
    "an order less": lambda document: document["orders"].pop(),
    "an order twice": lambda document: document["orders"].append(document["orders"][0]),
    "another remaining quantity": lambda document: first_order(document, remaining_quantity="1"),
    "another price": lambda document: first_order(document, price="99"),
    "another priority": lambda document: first_order(document, priority=99),
    "another side": lambda document: first_order(document, side="sell"),
    "another total": lambda document: first_order(document, quantity="7"),
    "a price off tick": lambda document: first_order(document, price="99.501"),
    "no price": lambda document: document["orders"][0].pop("price"),
    "a number for a decimal": lambda document: first_order(document, quantity=2),
    "a queue in another order": lambda document: document["orders"].insert(
        1, document["orders"].pop(2)
    ),
    "a tick of nothing": lambda document: document["specification"].update(tick_size="0"),
    "a tick that is no decimal": lambda document: document["specification"].update(tick_size="x"),
    "a state that is none": lambda document: document.update(state="asleep"),
    "a priority to come that was": lambda document: document.update(next_priority=1),
    "an acceptance to come that was": lambda document: document.update(next_acceptance=1),
    "a trade to come that was": lambda document: document.update(next_trade_id=1),
    "fewer events than trades": lambda document: document.update(events_count=1),
    "no count of events": lambda document: document.pop("events_count"),
    "an outcome of an unknown order": lambda document: document["peers"][0]["outcomes"].append(
        {"outcome": "open", "order_id": order(77)}
    ),
    "an outcome of no id": lambda document: document["peers"][0]["outcomes"][2].update(id="x"),
    "a window that forgot before it was full": lambda document: document["peers"][0].update(
        forgotten=[1, 1]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_snapshot_of_an_impossible_state_is_refused(damage: Any) -> None:
    document = json.loads(SNAPSHOT)
    damage(document)

    with pytest.raises(InvariantViolated):
        Market.restore(encode_canonical(document))


def test_field_that_this_code_does_not_know_is_passed_over() -> None:
    document = json.loads(SNAPSHOT) | {"region": "eu"}

    assert Market.restore(encode_canonical(document)).snapshot() == SNAPSHOT
