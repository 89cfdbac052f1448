"""What no leader can have written is refused, whatever digest stands below it, and changes nothing.

Each row is what stands in one commit behind the same state; its head, chain and digest are right,
so that nothing else can notice. The possible ones beside them differ from those in one thing.

    bids            price   asks
                    103     bob 3: 4
                    101     bob 2: 2, bob 4: 1 (until NOW + 50)
    alice 2: 3      100
    alice 1: 2       99     (until NOW + 20)

The window of alice also has order 3, filled; bob's has order 1.
"""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dex_engine import Diverged, InvariantViolated, Market
from dex_protocol.codec import encode, encode_canonical, encode_commit, hash_of
from dex_protocol.events import (
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
from tests.builders import NOW, a_market, a_specification, buy, command, order, sell, send
from tests.property.runs import Run
from tests.property.workload import Seeded

CONTENT = "0123456789abcdef"
NEW, NEWER = order(9), order(10)
ASK, HIGH, DUE_ASK = order(2, "bob"), order(3, "bob"), order(4, "bob")
BID, DUE_BID = order(2), order(1)


def a_state() -> Market:
    """Make the state of the picture above, at NOW."""
    market = a_market(max_price="1000", max_quantity="1000", max_peers=3, price_band="0.5")
    gtd: dict[str, Any] = {"time_in_force": "gtd"}
    send(market, buy("2 @ 99", 1, expires_at=NOW + 20, **gtd))
    send(market, buy("3 @ 100", 2))
    send(market, buy("1 @ 101", 3))
    send(market, sell("1 @ 101", 1, peer="bob"), peer="bob")
    send(market, sell("2 @ 101", 2, peer="bob"), peer="bob")
    send(market, sell("4 @ 103", 3, peer="bob"), peer="bob")
    send(market, sell("1 @ 101", 4, peer="bob", expires_at=NOW + 50, **gtd), peer="bob")
    return market


BASE = a_state().snapshot()


def accepted(order_id: str = NEW, **changes: Any) -> Accepted:
    """Accept a buy of 1 at 100, which rests."""
    fields: dict[str, Any] = {
        "order_id": order_id,
        "peer": "alice",
        "side": "buy",
        "quantity": "1",
        "price": "100",
        "resting_quantity": "1",
    }
    fields |= changes
    return Accepted(**{name: value for name, value in fields.items() if value is not None})


def taking(quantity: str = "1", **changes: Any) -> Accepted:
    """Accept a buy at 101, nothing of which rests."""
    fields = {"price": "101", "quantity": quantity, "resting_quantity": "0"}
    return accepted(**fields | changes)


def own(self_trade: str, quantity: str = "1", **changes: Any) -> Accepted:
    """Accept a sell of alice's at 99, which meets her own bids, and does not rest."""
    fields = {"side": "sell", "price": "99", "quantity": quantity, "resting_quantity": "0"}
    return accepted(**fields | {"self_trade": self_trade} | changes)


def trade(quantity: str = "1", **changes: Any) -> Trade:
    """Trade with the ask at 101."""
    fields: dict[str, Any] = {
        "trade_id": 2,
        "price": "101",
        "quantity": quantity,
        "maker_order_id": ASK,
        "taker_order_id": NEW,
        "taker_side": "buy",
    }
    return Trade(**fields | changes)


def amended(**changes: Any) -> Amended:
    """Lower alice's bid to 2."""
    fields: dict[str, Any] = {
        "order_id": BID,
        "price": "100",
        "quantity": "2",
        "priority": "kept",
        "version": 2,
        "command_id": command(9),
        "content": CONTENT,
        "resting_quantity": "2",
    }
    return Amended(
        **{name: value for name, value in (fields | changes).items() if value is not None}
    )


def canceled(
    order_id: str = BID, quantity: str = "3", reason: Any = "requested", **ids: Any
) -> Any:
    return Canceled(order_id, quantity, reason, **ids)


def rejected(**changes: Any) -> Rejected:
    fields = {"peer": "alice", "reason": "unknown_order", "content": CONTENT}
    ids = {"order_id": order(8), "command_id": command(9)}
    return Rejected(**{name: value for name, value in (fields | ids | changes).items() if value})


def specified(**changes: Any) -> MarketChanged:
    same = {"max_price": "1000", "max_quantity": "1000", "max_peers": 3, "price_band": "0.5"}
    return MarketChanged(specification=a_specification(**same | changes))


HALTED, CLOSED = MarketChanged(state="halted"), MarketChanged(state="closed")
TERM = LeaderChanged("server-2", 2, 1, 1)

POSSIBLE: dict[str, list[AnyEvent]] = {
    "an order that rests": [accepted()],
    "an order without an id of its own": [accepted("order_alice_0_1")],
    "an order that trades": [taking(), trade()],
    "an order that trades in part and rests": [
        taking("4", resting_quantity="1"),
        trade("2"),
        trade("1", trade_id=3, maker_order_id=DUE_ASK),
    ],
    "a part that is not filled": [
        taking("3", time_in_force="ioc"),
        trade("2"),
        canceled(NEW, "1", "ioc"),
    ],
    "a market order": [
        taking("3", type="market", price=None, time_in_force="ioc"),
        trade("2"),
        canceled(NEW, "1", "market"),
    ],
    "an own maker taken off": [
        own("cancel_maker", price="100", resting_quantity="1"),
        canceled(BID, "3", "self_trade"),
    ],
    "a taker taken off": [own("cancel_taker"), canceled(NEW, "1", "self_trade")],
    "both reduced": [own("decrement", "2"), Reduced(BID, "2"), Reduced(NEW, "2")],
    "an own trade": [
        own("allow"),
        trade(price="100", maker_order_id=BID, taker_side="sell"),
    ],
    "an amend that keeps its place": [amended()],
    "an amend that changes nothing": [amended(quantity="3", resting_quantity="3", version=1)],
    "an amend that loses its place": [
        amended(price="98", priority="lost"),
    ],
    "an amend that trades": [
        amended(price="101", quantity="3", priority="lost", resting_quantity="0"),
        trade("2", taker_order_id=BID),
        trade("1", trade_id=3, maker_order_id=DUE_ASK, taker_order_id=BID),
    ],
    "a cancel": [canceled(command_id=command(9), content=CONTENT)],
    "a cancel of all": [
        canceled(DUE_BID, "2"),
        canceled(),
        CanceledAll(2, command(9), CONTENT),
    ],
    "a refusal": [rejected()],
    "a new specification": [specified(max_price="999")],
    "a halt": [HALTED],
    "a closing": [CLOSED, canceled(DUE_BID, "2", "market_closed")],
    "a term": [TERM],
}


IMPOSSIBLE: dict[str, list[AnyEvent]] = {
    # Where a commit begins, and what the market is.
    "opened again": [MarketOpened(a_specification(), "log")],
    "a term that is not the first event": [accepted(), TERM],
    "two terms": [TERM, LeaderChanged("server-3", 3, 1, 1)],
    "a term left out": [LeaderChanged("server-2", 3, 1, 1)],
    "a term again": [LeaderChanged("server-2", 1, 1, 1)],
    "a leader without a name": [LeaderChanged("", 2, 1, 1)],
    "a leader of no protocol": [LeaderChanged("server-2", 2, 0, 1)],
    "a leader of no rules": [LeaderChanged("server-2", 2, 1, -1)],
    "another tick": [specified(tick_size="0.1")],
    "the same tick, written otherwise": [specified(tick_size="0.010")],
    "another lot": [specified(lot_size="0.1")],
    "a specification of another market": [specified(market="ETH-USD")],
    "an impossible specification": [specified(max_price="0")],
    "a specification with needless zeros": [specified(max_price="99.0")],
    "a specification that did not change": [specified()],
    "a state that did not change": [MarketChanged(state="trading")],
    "a change of nothing": [MarketChanged()],
    "a market that opens after it closed": [CLOSED, MarketChanged(state="trading")],
    "a specification after the closing": [CLOSED, specified(max_price="9")],
    "an order in a halted market": [HALTED, accepted()],
    "an amend in a halted market": [HALTED, amended()],
    "an order in a closed market": [CLOSED, accepted()],
    # Ids.
    "an order id that is none": [accepted("17")],
    "an order id of another peer": [accepted(order(9, "bob"))],
    "an order id with a zero before": [accepted(f"{order(9)[:-1]}09")],
    "an order id of other digits": [accepted(f"{order(9)[:-1]}\u0669")],
    "an order id with a sign": [accepted(f"{order(9)[:-1]}+9")],
    "an order id without a number": [accepted(f"{order(9)[:-1]}0")],
    "an order id beyond all numbers": [accepted(f"{order(9)[:-1]}{10**12}")],
    "a command id for an order": [accepted(command(9))],
    "an id that is remembered": [accepted(order(3))],
    "an id of an open order": [accepted(BID)],
    "a name that no peer has": [accepted("order_a b_1_1", peer="a b")],
    "a server's name left out": [accepted("order_alice_0_2")],
    "a peer too many": [
        accepted("order_carol_1_1", peer="carol"),
        accepted("order_dave_1_1", peer="dave"),
    ],
    "an amend by another peer": [amended(command_id=command(9, "bob"))],
    "an amend by an id that was used": [amended(command_id=command(3))],
    "an amend without content": [amended(content=None)],
    "an amend of content without an id": [amended(command_id=None)],
    "an amend of content that is none": [amended(content="0")],
    "a cancel by another peer": [canceled(command_id=command(9, "bob"), content=CONTENT)],
    "a cancel by an order id": [canceled(command_id=NEW, content=CONTENT)],
    "a command with the timestamp 0": [canceled(command_id="command_alice_0_1", content=CONTENT)],
    "two commands of one id": [
        canceled(command_id=command(9), content=CONTENT),
        CanceledAll(0, command(9), CONTENT),
    ],
    "a refusal of nothing": [rejected(order_id=None, command_id=None)],
    "a refusal of an id that was used": [rejected(command_id=command(3))],
    "a refusal of another peer's command": [rejected(command_id=command(9, "bob"))],
    "a refusal about another peer's order": [rejected(order_id=ASK)],
    "a refusal about no order id": [rejected(order_id="x")],
    "a refusal of a submit with the timestamp 0": [
        rejected(order_id="order_alice_0_1", command_id=None)
    ],
    "a refusal for no reason": [rejected(reason="busy")],
    "a refusal that leaves no event": [rejected(reason="stale_id")],
    "a refusal of content that is none": [rejected(content="G" * 16)],
    # Orders.
    "a price off tick": [accepted(price="100.001")],
    "a price of nothing": [accepted(price="0")],
    "a price above the greatest": [accepted(price="1000.01")],
    "a price outside the band": [accepted(price="152")],
    "a price with needless zeros": [accepted(price="100.0")],
    "a price that is no decimal": [accepted(price="1e2")],
    "a price below nothing": [accepted(price="-1")],
    "a quantity off lot": [accepted(quantity="1.0001")],
    "a quantity of nothing": [accepted(quantity="0", resting_quantity="0")],
    "a quantity above the greatest": [accepted(quantity="1001", resting_quantity="1001")],
    "a limit order without a price": [accepted(price=None)],
    "a market order with a price": [
        taking(type="market", time_in_force="ioc"),
        trade(),
    ],
    "a market order that stays": [taking(type="market", price=None), trade()],
    "an order that expires and does not": [accepted(expires_at=NOW + 9)],
    "an order that is to expire, never": [accepted(time_in_force="gtd")],
    "an order that had expired": [accepted(time_in_force="gtd", expires_at=NOW)],
    "an order that expires beyond all times": [accepted(time_in_force="gtd", expires_at=2**63)],
    "an ioc that rests": [accepted(time_in_force="ioc")],
    "a fok that rests": [accepted(time_in_force="fok")],
    "a post-only ioc": [taking(post_only=True, time_in_force="ioc"), trade()],
    "more rests than there is": [accepted(resting_quantity="2")],
    "less rests than is left": [accepted(quantity="2")],
    "nothing rests, and nobody says why": [accepted(resting_quantity="0")],
    "a crossed book": [accepted(price="101")],
    # Trades.
    "a trade of nobody": [trade()],
    "a trade after another command": [taking(), rejected(), trade()],
    "a trade of another taker": [taking(), trade(taker_order_id=BID)],
    "a trade of the other side": [taking(), trade(taker_side="sell")],
    "a trade with an unknown maker": [taking(), trade(maker_order_id=order(7, "bob"))],
    "a trade with itself": [accepted("order_alice_0_1"), trade(maker_order_id="order_alice_0_1")],
    "a trade with a maker on its own side": [
        taking(self_trade="allow"),
        trade(price="100", maker_order_id=BID),
    ],
    "a trade above the taker's limit": [
        taking(),
        trade(price="103", maker_order_id=HIGH),
    ],
    "a trade at another price than the maker's": [taking(), trade(price="100.99")],
    "a trade id left out": [taking(), trade(trade_id=3)],
    "a trade id again": [taking(), trade(trade_id=1)],
    "a trade of more than the maker has": [taking("3"), trade("3")],
    "a trade of more than the taker has": [taking("1"), trade("2")],
    "a trade of what is to rest": [
        taking("2", resting_quantity="1"),
        trade("2"),
    ],
    "a trade of nothing": [taking(), trade("0")],
    "a trade with oneself, unasked": [
        own("cancel_maker"),
        trade(price="100", maker_order_id=BID, taker_side="sell"),
    ],
    "a trade of a post-only order": [
        taking("2", post_only=True, resting_quantity="1"),
        trade("1"),
    ],
    "a fok filled in part": [
        taking("3", time_in_force="fok"),
        trade("2"),
        canceled(NEW, "1", "ioc"),
    ],
    # Reductions.
    "a reduction of nobody's": [Reduced(BID, "1")],
    "a reduction that the taker did not ask for": [
        own("allow"),
        Reduced(BID, "1"),
        Reduced(NEW, "1"),
    ],
    "a reduction of the maker alone": [own("decrement", "1"), Reduced(BID, "1")],
    "a reduction of the taker alone": [own("decrement", "1"), Reduced(NEW, "1")],
    "a reduction of the two by different quantities": [
        own("decrement", "2"),
        Reduced(BID, "1"),
        Reduced(NEW, "2"),
    ],
    "a reduction of another peer's": [
        taking(self_trade="decrement"),
        Reduced(ASK, "1"),
        Reduced(NEW, "1"),
    ],
    "a reduction by more than there is": [
        own("decrement", "4"),
        Reduced(BID, "4"),
        Reduced(NEW, "4"),
    ],
    # Amends.
    "an amend of an unknown order": [amended(order_id=NEW)],
    "an amend that skips a version": [amended(version=3)],
    "an amend that keeps the version": [amended(version=1)],
    "an amend to less than nothing left": [amended(quantity="0", resting_quantity="0")],
    "an amend that keeps a place at another price": [amended(price="99")],
    "an amend that keeps the place of more": [amended(quantity="4", resting_quantity="4")],
    "an amend that loses the place for less": [amended(priority="lost")],
    "an amend that leaves less than is left": [amended(resting_quantity="1")],
    "an amend that leaves more than is left": [
        amended(price="99", priority="lost", resting_quantity="3")
    ],
    "an amend out of the band": [amended(price="160", priority="lost")],
    "an amend above the greatest quantity": [
        amended(quantity="1001", resting_quantity="1001", priority="lost")
    ],
    "a trade of an amend that kept its place": [amended(), trade(taker_order_id=BID)],
    # Endings.
    "a cancel of an unknown order": [canceled(order(7))],
    "a cancel of another quantity": [canceled(quantity="2")],
    "a cancel twice": [canceled(), canceled()],
    "a cancel by a closing that was not": [canceled(reason="market_closed")],
    "a cancel by a closing and a command": [
        CLOSED,
        canceled(reason="market_closed", command_id=command(9), content=CONTENT),
    ],
    "a taker taken off that rests": [accepted(), canceled(NEW, "1", "self_trade")],
    "a taker taken off twice": [
        taking(time_in_force="ioc"),
        canceled(NEW, "1", "ioc"),
        canceled(NEW, "1", "ioc"),
    ],
    "a trade of a taker that was taken off": [
        taking("2", time_in_force="ioc"),
        canceled(NEW, "2", "ioc"),
        trade(),
    ],
    "a gtc taken off as an ioc": [taking(), canceled(NEW, "1", "ioc")],
    "a limit order taken off as a market one": [
        taking(time_in_force="ioc"),
        canceled(NEW, "1", "market"),
    ],
    "a taker taken off by a command": [
        taking(time_in_force="ioc"),
        canceled(NEW, "1", "ioc", command_id=command(10), content=CONTENT),
    ],
    "a maker taken off unasked": [own("cancel_taker"), canceled(BID, "3", "self_trade")],
    "another peer's maker taken off": [
        taking(self_trade="cancel_maker"),
        canceled(ASK, "2", "self_trade"),
    ],
    "a maker taken off for another reason": [
        own("cancel_maker"),
        canceled(BID, "3", "too_many_makers"),
    ],
    "more canceled of all than there were": [canceled(), CanceledAll(2, command(9), CONTENT)],
    "less than nothing canceled of all": [CanceledAll(-1, command(9), CONTENT)],
    "another peer's canceled of all": [canceled(ASK, "2"), CanceledAll(1, command(9), CONTENT)],
    "all canceled out of order": [
        canceled(),
        canceled(DUE_BID, "2"),
        CanceledAll(2, command(9), CONTENT),
    ],
    "all canceled, one by a command": [
        canceled(command_id=command(9), content=CONTENT),
        CanceledAll(1, command(10), CONTENT),
    ],
    "all canceled long before": [canceled(), rejected(), CanceledAll(1, command(10), CONTENT)],
    "an expiry before its time": [Expired(DUE_BID, "2")],
    "an expiry of what never expires": [Expired(BID, "3")],
}

LATER: dict[str, list[AnyEvent]] = {
    "an expiry of another quantity": [Expired(DUE_BID, "1")],
    "an expiry after a command": [rejected(), Expired(DUE_BID, "2")],
    "an expiry before one that is due earlier": [Expired(DUE_ASK, "1")],
    "an expiry twice": [Expired(DUE_BID, "2"), Expired(DUE_BID, "2")],
}


def loosely_applied(events: list[AnyEvent], time: int) -> tuple[str, int]:
    """Give the digest, and the term, that events lead to as far as they can be applied at all."""
    market = Market.restore(BASE)
    market.time = time
    for event in events:
        try:
            market.apply(event)
        except (AssertionError, KeyError, ValueError):
            break
    return market.digest, market.term


def commit(events: list[AnyEvent], *, time: int = NOW, **head: Any) -> bytes:
    """Write the commit that follows the state."""
    market = Market.restore(BASE)
    digest, term = loosely_applied(events, time)
    fields = {
        "market": "BTC-USD",
        "sequence": market.sequence + 1,
        "term": term,
        "time": time,
        "previous": market.hash,
        "digest": digest,
    }
    encoded = b",".join(encode(event) for event in events)
    return encode_commit(**{**fields, **head, "events": encoded})


def refused(payload: bytes) -> Diverged:
    """Make sure that a commit is refused, and that the market is what it was and goes on."""
    market = Market.restore(BASE)
    with pytest.raises(Diverged) as raised:
        market.apply_commit(payload)

    assert market.snapshot() == BASE
    assert [*market.orders] == [*Market.restore(BASE).orders]
    market.check()
    market.apply_commit(commit([taking(), trade()]))
    market.check()
    return raised.value


@pytest.mark.parametrize("events", POSSIBLE.values(), ids=POSSIBLE)
def test_possible_commit_is_followed(events: list[AnyEvent]) -> None:
    market = Market.restore(BASE)
    market.apply_commit(commit(events))

    market.check()


@pytest.mark.parametrize("events", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_commit_is_refused_and_changes_nothing(events: list[AnyEvent]) -> None:
    """Nothing else would notice, since the digest is right; a crossed book is among them
    (G9, G15)."""
    assert refused(commit(events)).what == "events"


def test_due_orders_expire_first() -> None:
    market = Market.restore(BASE)
    market.apply_commit(
        commit([TERM, Expired(DUE_BID, "2"), Expired(DUE_ASK, "1"), rejected()], time=NOW + 50)
    )

    market.check()


@pytest.mark.parametrize("events", LATER.values(), ids=LATER)
def test_impossible_expiry_is_refused_and_changes_nothing(events: list[AnyEvent]) -> None:
    assert refused(commit(events, time=NOW + 50)).what == "events"


@pytest.mark.parametrize("events", POSSIBLE.values(), ids=POSSIBLE)
def test_commit_with_another_digest_changes_nothing(events: list[AnyEvent]) -> None:
    assert refused(commit(events, digest="0" * 16)).what == "digest"


@pytest.mark.parametrize("events", POSSIBLE.values(), ids=POSSIBLE)
def test_impossible_end_takes_back_what_was_possible(events: list[AnyEvent]) -> None:
    assert refused(commit([*events, CanceledAll(-1)])).what == "events"


def test_names_that_servers_give_are_asked_for_also_of_a_peer_without_other_orders() -> None:
    """Its window is empty, so that every pair is above all that it used."""
    first = accepted("order_carol_0_1", peer="carol")
    for impossible in (
        accepted("order_carol_0_1", peer="carol"),
        accepted("order_carol_0_3", peer="carol"),
        canceled("order_carol_0_1", "1", command_id="command_carol_0_9", content=CONTENT),
    ):
        assert refused(commit([first, impossible])).what == "events"


@pytest.mark.parametrize(
    ("what", "head"),
    [
        ("market", {"market": "ETH-USD"}),
        ("time", {"time": NOW - 1}),
        ("time", {"time": 2**63}),
        ("term", {"term": 2}),
        ("term", {"term": 10**30}),
        ("sequence", {"sequence": -1}),
    ],
)
def test_impossible_head_is_refused(what: str, head: dict[str, Any]) -> None:
    payload = commit([accepted()])
    document = json.loads(payload) | head

    assert refused(json.dumps(document).encode()).what == what


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"term":1,', b'"term":1,"term":1,'),
        (b'"quantity":"1"', b'"quantity":"1","quantity":"1"'),
        (b'"events"', b'"unknown":{"a":1,"a":2},"events"'),
        (b'"term":1', b'"term":1.0'),
        (b'"term":1', b'"term":1e0'),
        (b'"term":1', b'"term":true'),
        (b'"term":1', b'"term":NaN'),
        (b'"side":"buy"', b'"side":"up"'),
        (b'"peer"', b'"peer":' + b"[" * 100_000),
        (b"}]}", b"}]}{}"),
        (b"}]}", b"}]}" + b" " * 512 * 1024),
    ],
    ids=[
        "a field twice",
        "a field of an event twice",
        "an unknown field twice",
        "a fraction",
        "an exponent",
        "a boolean",
        "no number",
        "an unknown value",
        "too deep",
        "something behind",
        "too long",
    ],
)
def test_bytes_that_can_be_read_in_two_ways_are_refused(old: bytes, new: bytes) -> None:
    assert refused(commit([accepted()]).replace(old, new, 1)).what == "bytes"


def test_unknown_fields_and_events_are_passed_over() -> None:
    document = json.loads(commit([accepted()])) | {"region": {"eu": 0.5}}
    document["events"][0]["fee"] = [1.5]
    document["events"].insert(0, {"event": "weather_changed"})
    market = Market.restore(BASE)

    market.apply_commit(json.dumps(document).encode())
    market.check()


# --- A real log, with anything changed ----------------------------------------------------------

SLOW_IS_NOT_WRONG = (HealthCheck.too_slow, HealthCheck.data_too_large)

VALUES = st.one_of(
    st.integers(-2, 6),
    st.sampled_from([None, True, 0.5, 2**63, -(2**70), [], {}, "", "0", "1", "0.5", "100.01"]),
    st.sampled_from(["buy", "sell", "gtc", "gtd", "ioc", "fok", "kept", "lost", "market", "limit"]),
    st.sampled_from(["halted", "closed", "requested", "self_trade", "allow", "decrement"]),
    st.sampled_from(["order_alice_1763800000000_1", "command_bob_2_1763800000001_4", "carol"]),
)


def a_log(seed: int) -> Run:
    run = Run(Seeded(random.Random(seed)))
    while len(run.payloads) < 40:
        run.step()
    return run


RUNS = [a_log(seed) for seed in range(6)]


def changed_somewhere(data: st.DataObject, document: Any) -> None:
    """Change one thing of a commit: a field, or which events there are, and in which order."""
    events = document["events"]
    if events and data.draw(st.integers(0, 3)) == 0:
        index = data.draw(st.integers(0, len(events) - 1))
        event = events.pop(index)
        if data.draw(st.booleans()):
            events.insert(data.draw(st.integers(0, len(events))), event)
            events.insert(data.draw(st.integers(0, len(events))), dict(event))
        return
    part = data.draw(st.sampled_from([*events, *events, document])) if events else document
    names = [name for name in part if name not in ("events", "previous", "sequence", "market")]
    name = data.draw(st.sampled_from(names))
    part[name] = data.draw(VALUES)


@given(st.data())
@settings(max_examples=150, suppress_health_check=SLOW_IS_NOT_WRONG)
def test_log_with_anything_changed_is_refused_or_of_a_possible_state(data: st.DataObject) -> None:
    """Of a change comes that one exception and no other change, or a market that obeys all laws
    (G15)."""
    run = data.draw(st.sampled_from(RUNS))
    index = data.draw(st.integers(1, len(run.payloads) - 1))
    market = run.follower()
    for payload in run.payloads[:index]:
        market.apply_commit(payload)
    document = json.loads(run.payloads[index])
    changed_somewhere(data, document)
    before = market.snapshot()
    try:
        market.apply_commit(json.dumps(document).encode())
    except Diverged as diverged:
        assert market.snapshot() == before
        market.check()
        if diverged.what == "digest":
            # As whoever forges it would: only what is impossible can be noticed then.
            document["digest"] = diverged.found
            try:
                market.apply_commit(json.dumps(document).encode())
            except Diverged:
                assert market.snapshot() == before
    market.check()
    assert Market.restore(market.snapshot(), run.bounds).snapshot() == market.snapshot()


# --- Snapshots ----------------------------------------------------------------------------------


def outcome(document: Any, kind: str) -> Any:
    """Give the first outcome of a kind of alice's."""
    return next(each for each in document["peers"][0]["outcomes"] if each["outcome"] == kind)


SNAPSHOTS: dict[str, Callable[[Any], Any]] = {
    "another market": lambda document: document.update(market="ETH-USD"),
    "a log without a name": lambda document: document.update(log_id=""),
    "a hash that is none": lambda document: document.update(previous="x"),
    "no term": lambda document: document.update(term=0),
    "a time before all": lambda document: document.update(time=-1),
    "a sequence beyond all": lambda document: document.update(sequence=2**63),
    "a leader without a name": lambda document: document.update(leader=""),
    "a last price of no trade": lambda document: document.update(last_price="102"),
    "no last price": lambda document: document.update(last_price=None),
    "a trade forgotten": lambda document: document.update(recent_trades=[]),
    "trades that are not in a row": lambda document: document.update(next_trade_id=9),
    "a trade of a commit to come": lambda document: document["recent_trades"][0].update(
        sequence=99
    ),
    "a trade at a time to come": lambda document: document["recent_trades"][0].update(time=NOW + 9),
    "a trade of no order": lambda document: document["recent_trades"][0].update(maker_order_id="x"),
    "an impossible specification": lambda document: document["specification"].update(max_price="0"),
    "a specification with needless zeros": lambda document: document["specification"].update(
        max_price="1.0"
    ),
    "orders in another order": lambda document: document["orders"].reverse(),
    "an order of an unknown peer": lambda document: document["peers"].pop(0),
    "an order of another peer": lambda document: document["orders"][0].update(peer="bob"),
    "an order id that is none": lambda document: document["orders"][0].update(order_id="x"),
    "an order without acceptance": lambda document: document["orders"][0].update(acceptance=0),
    "an acceptance twice": lambda document: document["orders"][0].update(acceptance=1),
    "a price with needless zeros": lambda document: document["orders"][0].update(price="100.0"),
    "a value without fills": lambda document: document["orders"][0].update(value=1),
    "a version below 1": lambda document: document["orders"][0].update(version=0),
    "a version without the first content": lambda document: document["orders"][0].update(version=2),
    "content that is none": lambda document: document["orders"][0].update(version=2, content="x"),
    "a server's name to come": lambda document: document.update(next_server_named=0),
    "peers in another order": lambda document: document["peers"].reverse(),
    "a peer twice": lambda document: document["peers"].append(document["peers"][-1]),
    "an open order that is not remembered": lambda document: document["peers"][0][
        "outcomes"
    ].remove(outcome(document, "open")),
    "outcomes in another order": lambda document: document["peers"][0]["outcomes"].reverse(),
    "another peer's outcome": lambda document: outcome(document, "order").update(
        peer="bob", order_id=order(3, "bob")
    ),
    "an order filled twice": lambda document: outcome(document, "order").update(
        filled_quantity="2"
    ),
    "a forgotten pair that is remembered": lambda document: document["peers"][0].update(
        forgotten=[NOW, 1]
    ),
    "a forgotten pair that is none": lambda document: document["peers"][0].update(forgotten=[0, 1]),
}


@pytest.mark.parametrize("damage", SNAPSHOTS.values(), ids=SNAPSHOTS)
def test_snapshot_of_an_impossible_state_is_refused(damage: Callable[[Any], Any]) -> None:
    document = json.loads(BASE)
    damage(document)

    with pytest.raises(InvariantViolated):
        Market.restore(encode_canonical(document))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"term":1', b'"term": 1'),
        (b'"term":1', b'"term":1,"term":1'),
        (b'"term":1', b'"term":1.0'),
        (b'"term":1', b'"\\u0074erm":1'),
    ],
    ids=["white space", "a field twice", "a fraction", "an escape"],
)
def test_snapshot_that_is_not_canonical_is_refused(old: bytes, new: bytes) -> None:
    """Also beside a field that this code does not know."""
    unknown = encode_canonical(json.loads(BASE) | {"region": "eu"})
    for snapshot in (BASE, unknown):
        assert Market.restore(snapshot).snapshot() == BASE
        with pytest.raises(InvariantViolated):
            Market.restore(snapshot.replace(old, new, 1))


def test_hash_of_a_commit_that_was_refused_is_not_taken_over() -> None:
    market = Market.restore(BASE)
    payload = commit([accepted()], digest="0" * 16)
    with pytest.raises(Diverged):
        market.apply_commit(payload)

    assert market.hash != hash_of(payload)
