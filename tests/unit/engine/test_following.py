"""A follower applies what fits, and names what does not; a difference stops that replica.

Knows nothing of matching: events are made up by hand here, digests are those that they lead to.
"""

from typing import Any

import pytest

from dex_engine import Diverged, InvariantViolated, Market
from dex_protocol.codec import encode, encode_commit
from dex_protocol.events import (
    HASH_OF_NOTHING,
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    CanceledAll,
    Expired,
    LeaderChanged,
    MarketChanged,
    MarketOpened,
    Reduced,
    Rejected,
    Trade,
)
from tests.builders import (
    NOW,
    a_market,
    a_specification,
    buy,
    command,
    execute,
    order,
    seal,
    sell,
    send,
)

SPECIFICATION = a_specification()
OPENED: list[AnyEvent] = [MarketOpened(SPECIFICATION, "log"), LeaderChanged("server-1", 1, 1, 1)]
ASK = order(1, "bob")
BID = order(1)
NEW = order(5)


def a_follower() -> Market:
    """Follow a market with alice's bid of 3 at 100 and bob's ask of 2 at 101."""
    leader, follower = a_market(), Market("BTC-USD")
    follower.apply_commit(opening())
    for made, peer in ((buy("3 @ 100", 1), "alice"), (sell("2 @ 101", 1, peer="bob"), "bob")):
        follower.apply_commit(send(leader, made, peer=peer))
    return follower


def opening() -> bytes:
    return commit(Market("BTC-USD"), OPENED, term=1, time=NOW)


def commit(market: Market, events: list[AnyEvent], /, **changes: Any) -> bytes:
    """Write the commit that follows a market, with the digest it leads to where it leads anywhere.

    What is in `changes` is written instead.
    """
    trial = Market.restore(market.snapshot()) if market.log_id else Market(market.name)
    try:
        for event in events:
            trial.apply(event)
    except Exception:  # noqa: BLE001  (whatever is wrong with it is the follower's to say)
        trial = market
    head = {
        "market": market.name,
        "sequence": market.sequence + 1,
        "term": trial.term,
        "time": market.time,
        "previous": market.hash,
        "digest": trial.digest,
    }
    encoded = b",".join(encode(event) for event in events)
    return encode_commit(**{**head, **changes, "events": encoded})


def diverged(market: Market, payload: bytes) -> Diverged:
    with pytest.raises(Diverged) as raised:
        market.apply_commit(payload)

    assert raised.value.sequence == market.sequence + 1
    assert str(raised.value).startswith(f"commit {market.sequence + 1}: expected ")
    return raised.value


def accepted(**changes: Any) -> Accepted:
    fields: dict[str, Any] = {
        "order_id": NEW,
        "peer": "alice",
        "side": "buy",
        "quantity": "1",
        "price": "101",
    }
    return Accepted(**fields | changes)


def test_follower_has_the_leaders_state_to_the_byte() -> None:
    """It applied events, and matched nothing (G11)."""
    leader, follower = a_market(), Market("BTC-USD")
    follower.apply_commit(opening())
    follower.apply_commit(send(leader, buy("3 @ 100", 1)))
    events = execute(leader, sell("1 @ 100", 1, peer="bob"), peer="bob", time=NOW + 5).events
    events += execute(leader, sell("2 @ 99", 2, peer="bob"), peer="bob").events
    decoded = follower.apply_commit(seal(leader, events))

    assert decoded.events == events
    assert follower.snapshot() == leader.snapshot()
    assert (follower.sequence, follower.time, follower.hash) == (3, NOW + 5, leader.hash)
    follower.check()


def test_empty_commit_moves_the_log_on() -> None:
    follower = a_follower()
    before = follower.digest
    follower.apply_commit(commit(follower, [], time=follower.time + 7))

    assert (follower.sequence, follower.digest) == (4, before)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("market", {"market": "ETH-USD"}),
        ("sequence", {"sequence": 3}),
        ("sequence", {"sequence": 5}),
        ("sequence", {"sequence": 0}),
        ("previous", {"previous": HASH_OF_NOTHING}),
        ("previous", {"previous": "f" * 32}),
        ("time", {"time": NOW - 1}),
        ("term", {"term": 0}),
        ("term", {"term": 2}),
        ("digest", {"digest": "0" * 16}),
        ("digest", {"digest": "f" * 16}),
        ("digest", {"digest": ""}),
    ],
)
@pytest.mark.parametrize("events", [[], [accepted(resting_quantity="1", price="100")]])
def test_commit_that_does_not_follow_is_named(
    what: str, changes: dict[str, Any], events: list[AnyEvent]
) -> None:
    """By its sequence, with what was expected and what was found (G15)."""
    follower = a_follower()
    error = diverged(follower, commit(follower, events, **changes))

    assert error.what == what
    (written,) = changes.values()
    assert written in (error.found, error.expected)


def test_each_thing_that_does_not_follow_is_asked_before_the_events() -> None:
    follower = a_follower()
    before = follower.snapshot()
    diverged(follower, commit(follower, [accepted(resting_quantity="1")], sequence=9))

    assert follower.snapshot() == before


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b'{"market":"\xff"}', opening()[:-1]])
def test_bytes_that_are_no_commit_are_named(payload: bytes) -> None:
    assert diverged(a_follower(), payload).what == "bytes"


def test_event_that_the_code_cannot_read_is_named() -> None:
    follower = a_follower()
    payload = commit(follower, []).replace(b'"events":[', b'"events":[{"event":"trade"}')

    assert diverged(follower, payload).what == "bytes"


IMPOSSIBLE: dict[str, list[AnyEvent]] = {
    "an order id that is none": [accepted(order_id="17")],
    "an order id without numbers": [accepted(order_id="order_alice_x_y")],
    "an id that was used": [accepted(order_id=BID)],
    "a price off tick": [accepted(price="100.001")],
    "a price that is no decimal": [accepted(price="x")],
    "a quantity off lot": [accepted(quantity="1.0001")],
    "a resting quantity off lot": [accepted(resting_quantity="0.0001")],
    "a trade of nobody": [Trade(1, "101", "1", ASK, BID, "buy")],
    "a trade of another taker": [accepted(), Trade(1, "101", "1", ASK, BID, "buy")],
    "a trade with an unknown maker": [accepted(), Trade(1, "101", "1", order(9), NEW, "buy")],
    "a trade after another command": [
        accepted(),
        Expired(BID, "3"),
        Trade(1, "101", "1", ASK, NEW, "buy"),
    ],
    "a trade of more than the maker has": [
        accepted(quantity="5"),
        Trade(1, "101", "3", ASK, NEW, "buy"),
    ],
    "a trade with a maker that is gone": [
        accepted(quantity="5"),
        Trade(1, "101", "2", ASK, NEW, "buy"),
        Trade(2, "101", "1", ASK, NEW, "buy"),
    ],
    "an amend of an unknown order": [Amended(order(9), "100", "1", "kept", 2)],
    "an amend by a command id that is none": [Amended(BID, "100", "2", "kept", 2, "x", "0")],
    "an amend by an id that was used": [Amended(BID, "100", "2", "kept", 2, command(1), "0")],
    "a reduction of an unknown order": [Reduced(order(9), "1")],
    "a reduction by more than there is": [Reduced(BID, "4")],
    "a cancel of an unknown order": [Canceled(order(9), "1", "requested")],
    "a cancel of another quantity": [Canceled(BID, "1", "requested")],
    "a cancel twice": [Canceled(BID, "3", "requested"), Canceled(BID, "3", "requested")],
    "a cancel by a command id that is none": [Canceled(BID, "3", "requested", "x", "0")],
    "a cancel of all by an id that is none": [CanceledAll(0, "x", "0")],
    "a cancel of all by an id that was used": [CanceledAll(0, command(1), "0")],
    "an expiry of an unknown order": [Expired(order(9), "1")],
    "an expiry of another quantity": [Expired(BID, "1")],
    "a refusal of nothing": [Rejected("alice", "busy", "0")],
    "a refusal by an id that is none": [Rejected("alice", "busy", "0", order_id="x")],
    "a refusal by an id that was used": [Rejected("alice", "busy", "0", order_id=BID)],
    "a refusal of an order that is none": [
        Rejected("alice", "unknown_order", "0", order_id="x", command_id=command(9))
    ],
    "a term left out": [LeaderChanged("server-2", 3, 1, 1)],
    "a term again": [LeaderChanged("server-2", 1, 1, 1)],
}


@pytest.mark.parametrize("events", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_event_is_named(events: list[AnyEvent]) -> None:
    follower = a_follower()

    assert diverged(follower, commit(follower, events)).what == "events"


@pytest.mark.parametrize(
    "event",
    [
        Trade(1, "101", "1", ASK, BID, "buy"),
        Canceled(order(9), "1", "requested"),
        Canceled(BID, "1", "requested"),
        Expired(order(9), "1"),
        Reduced(order(9), "1"),
        LeaderChanged("server-2", 3, 1, 1),
        accepted(price="100.001"),
    ],
)
def test_impossible_event_breaks_an_invariant(event: AnyEvent) -> None:
    with pytest.raises(InvariantViolated):
        a_follower().apply(event)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [LeaderChanged("server-1", 1, 1, 1)],
        [accepted()],
        [MarketChanged(state="halted")],
        [MarketOpened(a_specification(tick_size="0"), "log")],
        [MarketOpened(a_specification(lot_size="x"), "log")],
    ],
)
def test_log_that_does_not_begin_with_the_opening_is_named(events: list[AnyEvent]) -> None:
    market = Market("BTC-USD")

    assert diverged(market, commit(market, events, term=0, time=NOW)).what == "events"


def test_log_of_another_market_is_named() -> None:
    assert diverged(Market("ETH-USD"), opening()).what == "market"


def test_new_term_is_followed() -> None:
    follower = a_follower()
    follower.apply_commit(commit(follower, [LeaderChanged("server-2", 2, 1, 1)]))

    assert (follower.term, follower.leader) == (2, "server-2")


def test_lost_event_is_noticed_by_the_digest() -> None:
    """The commit is good, but for a quantity that is not the leader's (G15)."""
    leader = a_market()
    follower = Market("BTC-USD")
    follower.apply_commit(opening())
    payload = send(leader, buy("3 @ 100", 1))
    sound = payload.index(b"{", 1)
    damaged = payload[:sound] + payload[sound:].replace(b'"quantity":"3"', b'"quantity":"2"')
    damaged = damaged.replace(b'"resting_quantity":"3"', b'"resting_quantity":"2"')

    assert diverged(follower, damaged).what == "digest"
