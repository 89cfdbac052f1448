"""The audit: an honest log has no violation, and each kind of violation is caught, with its id.

A `Venue` is a market that keeps its log and tells each order what it really did; the tests then
change what was told, or what is in the log.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from dex_client.load.profile import Profile, profile_random
from dex_client.load.record import Told
from dex_client.load.verification import Audit, total
from dex_engine import Market
from dex_protocol.codec import decode_commit, encode, hash_of
from dex_protocol.commands import Submit
from dex_protocol.events import Accepted, AnyEvent, Canceled, Rejected, Trade
from dex_protocol.ids import Pair
from dex_protocol.receipts import Fill, Receipt
from tests.builders import NOW, a_market, amend, buy, cancel_all, order, seal, sell

SEED = 5
PEER = "alice"


class Venue:
    """A market, its log, and what its peers were told."""

    def __init__(self) -> None:
        self.market = a_market()
        self.base = self.market.snapshot()
        self.log: list[bytes] = []
        self.told: list[Told] = []

    def trades(self, *orders: Submit, peer: str = PEER) -> list[Receipt]:
        """Execute orders in one commit and tell their receipts."""
        events: list[AnyEvent] = []
        receipts = []
        for each in orders:
            executed = self.market.execute(each, peer=peer, time=NOW)
            executed.receipt.sequence = self.market.sequence + 1
            events += executed.events
            receipts.append(executed.receipt)
            self.told.append(Told(each, executed.receipt))
        self.log.append(seal(self.market, events))
        return receipts

    def does(self, command: Any, peer: str = PEER) -> None:
        """Execute a command that is not of this run."""
        self.log.append(seal(self.market, self.market.execute(command, peer=peer, time=NOW).events))

    def audit(self) -> Audit:
        """Read the log back, from the snapshot on, and compare it with what was told."""
        audit = Audit(
            Market.restore(self.base),
            by_id(self.told),
            specification=self.market.specification,
            above={PEER: Pair(0)},
        )
        for payload in self.log:
            audit.read(payload)
        audit.finish(sequence=self.market.sequence, digest=self.market.digest)
        return audit

    def rewrites(self, change: Callable[[list[AnyEvent]], None], *, index: int = -1) -> None:
        """Change the events of a commit, and make the chain fit again."""
        commit = decode_commit(self.log[index])
        change(commit.events)
        self.log[index] = encode(commit)
        for later in range(len(self.log) + index + 1, len(self.log)):
            following = decode_commit(self.log[later])
            following.previous = hash_of(self.log[later - 1])
            self.log[later] = encode(following)


def by_id(told: list[Told]) -> dict[str, Told]:
    return {str(each.order.order_id): each for each in told}


def a_venue() -> Venue:
    """Two resting orders, a taker that traded with both, one that was refused."""
    venue = Venue()
    venue.trades(sell("1 @ 100", 1), sell("2 @ 101", 2))
    venue.trades(buy("2 @ 101", 3, self_trade="allow"), buy("1 @ 100.001", 4), sell("1 @ 200", 5))
    return venue


def kinds(audit: Audit) -> dict[str, int]:
    return {kind: count for kind, count in audit.counts.items() if count}


def the_violation(audit: Audit) -> tuple[str, str, str, str]:
    assert len(audit.violations) == 1, [violation.sentence for violation in audit.violations]
    (violation,) = audit.violations
    return violation.kind, violation.id, violation.expected, violation.found


def altered(receipt: Receipt, **fields: Any) -> Receipt:
    return msgspec.structs.replace(receipt, **fields)


def test_an_honest_log_has_no_violation() -> None:
    audit = a_venue().audit()

    assert audit.violations == []
    assert audit.digest_equal
    assert (audit.commits, audit.events) == (2, 7)


def test_an_honest_load_has_no_violation() -> None:
    """All kinds of orders, self-trade rules and refusals of the load, resent ones among them."""
    venue = Venue()
    random = Random(SEED)
    profile = Profile(
        venue.market.specification,
        last_price=None,
        random=profile_random(SEED, "BTC-USD", PEER),
    )
    for number in range(1, 3_000, 10):
        venue.trades(*(profile.order(order(number + index)) for index in range(10)))
        if random.random() < 0.3:
            again = random.randrange(len(venue.told) - 10, len(venue.told))
            resent = venue.market.execute(venue.told[again].order, peer=PEER, time=NOW).receipt
            assert resent.duplicate is True
            venue.told[again] = Told(venue.told[again].order, resent)

    audit = venue.audit()

    assert [violation.sentence for violation in audit.violations] == []
    assert audit.commits == 300


def test_the_doings_of_others_are_followed_too() -> None:
    venue = a_venue()
    venue.does(buy("5 @ 99", 1, peer="bob"), peer="bob")
    venue.does(amend(order(1, "bob"), quantity="7", price="102"), peer="bob")
    venue.does(amend(order(1, "bob"), quantity="6"), peer="bob")
    venue.does(sell("3 @ 99", 2, peer="bob", self_trade="decrement"), peer="bob")
    venue.does(cancel_all(side="buy"), peer="bob")

    assert venue.audit().violations == []


def test_a_log_from_its_first_commit_needs_no_snapshot() -> None:
    market = Market("BTC-USD")
    venue = a_venue()
    opened = a_market()
    assert opened.hash == Market.restore(venue.base).hash
    first = seal_of_the_opening()

    audit = Audit(
        market, by_id(venue.told), specification=venue.market.specification, above={PEER: Pair(0)}
    )
    for payload in [first, *venue.log]:
        audit.read(payload)
    audit.finish(sequence=venue.market.sequence, digest=venue.market.digest)

    assert audit.violations == []
    assert audit.commits == 3


def seal_of_the_opening() -> bytes:
    market = Market("BTC-USD")
    specification = a_market().specification
    events = market.open(specification, log_id="log", time=NOW)
    events += market.lead(server="server-1", term=1, protocol=1, rules=1, time=NOW)
    return seal(market, events)


# --- Orders -------------------------------------------------------------------------------------


def test_an_acknowledged_order_that_is_not_in_the_log_is_missing() -> None:
    venue = a_venue()
    venue.told.append(Told(buy("1 @ 50", 9), Receipt("new", order_id=order(9), sequence=3)))

    audit = venue.audit()

    assert the_violation(audit) == ("missing", order(9), "accepted in the log", "nothing")
    assert total([audit]).missing == 1


def test_an_acknowledged_order_that_the_log_refuses_is_missing() -> None:
    venue = a_venue()
    venue.told[3] = Told(venue.told[3].order, Receipt("new", order_id=order(4), sequence=3))

    assert the_violation(venue.audit()) == (
        "missing",
        order(4),
        "accepted in the log",
        "rejected (price_off_tick)",
    )


def test_an_order_that_is_accepted_twice_is_duplicated() -> None:
    venue = a_venue()

    def twice(events: list[AnyEvent]) -> None:
        events.append(events[-1])

    venue.rewrites(twice)
    audit = venue.audit()

    assert kinds(audit)["duplicated"] == 1
    assert total([audit]).duplicated == 1
    assert order(5) in [v.id for v in audit.violations if v.kind == "duplicated"]


def test_an_order_that_is_refused_and_accepted_is_duplicated() -> None:
    venue = a_venue()
    venue.rewrites(lambda events: events.append(Rejected(PEER, "no_liquidity", "0" * 16, order(3))))

    assert kinds(venue.audit())["duplicated"] == 1


@pytest.mark.parametrize("reason", ["no_liquidity", "market_halted", "malformed"])
def test_a_refused_order_that_was_accepted_is_a_violation(reason: str) -> None:
    venue = a_venue()
    refusal = Receipt("rejected", order_id=order(5), reason=reason, sequence=3)
    venue.told[4] = Told(venue.told[4].order, refusal)

    assert the_violation(venue.audit()) == (
        "refused_accepted",
        order(5),
        f"rejected ({reason})",
        "accepted in the log",
    )


def test_an_unavailable_order_that_was_accepted_is_a_violation() -> None:
    venue = a_venue()
    venue.told[4] = Told(venue.told[4].order, "unavailable")

    assert the_violation(venue.audit()) == (
        "refused_accepted",
        order(5),
        "nothing executed",
        "accepted in the log",
    )


@pytest.mark.parametrize("reason", ["stale_id", "id_reused"])
def test_a_refusal_of_one_copy_says_nothing_of_another(reason: str) -> None:
    venue = a_venue()
    refusal = Receipt("rejected", order_id=order(5), reason=reason, sequence=3)
    venue.told[4] = Told(venue.told[4].order, refusal)

    assert venue.audit().violations == []


def test_an_unknown_order_may_be_in_the_log_or_not() -> None:
    venue = a_venue()
    venue.told[4] = Told(venue.told[4].order, "unknown")
    venue.told.append(Told(buy("1 @ 50", 9), "unknown"))

    audit = venue.audit()

    assert audit.violations == []
    assert audit.unknown_accepted == 1


def test_a_refusal_with_another_reason_in_the_log_is_a_violation() -> None:
    venue = a_venue()
    refusal = altered(told_receipt(venue, 3), reason="market_halted")
    venue.told[3] = Told(venue.told[3].order, refusal)

    assert the_violation(venue.audit()) == (
        "refusal_differs",
        order(4),
        "rejected (market_halted) in the log",
        "rejected (price_off_tick)",
    )


def test_a_refusal_that_is_not_in_the_log_is_a_violation() -> None:
    venue = a_venue()
    refusal = Receipt("rejected", order_id=order(9), reason="no_liquidity", sequence=3)
    venue.told.append(Told(buy("1", 9), refusal))

    assert the_violation(venue.audit()) == (
        "refusal_differs",
        order(9),
        "rejected (no_liquidity) in the log",
        "nothing",
    )


@pytest.mark.parametrize("reason", ["malformed", "wrong_peer", "too_many_peers"])
def test_a_refusal_that_makes_no_event_is_not_looked_for(reason: str) -> None:
    venue = a_venue()
    venue.told.append(Told(buy("1", 9), Receipt("rejected", order_id=order(9), reason=reason)))

    assert venue.audit().violations == []


def test_an_order_of_ours_that_nobody_sent_is_a_violation() -> None:
    venue = a_venue()
    del venue.told[4]

    assert the_violation(venue.audit()) == (
        "unasked",
        order(5),
        "orders that were sent",
        "an order nobody sent",
    )


def test_orders_of_others_and_of_earlier_runs_are_nobody_s_concern() -> None:
    venue = a_venue()
    venue.does(buy("1 @ 50", 1, peer="bob"), peer="bob")

    assert venue.audit().violations == []


@pytest.mark.parametrize(
    ("field", "value", "sent", "stored"),
    [
        ("side", "buy", '"sell"', '"buy"'),
        ("price", "201", "20000", "20100"),
        ("quantity", "2", "1000", "2000"),
        ("post_only", True, "false", "true"),
        ("self_trade", "allow", '"cancel_taker"', '"allow"'),
        ("time_in_force", "ioc", '"gtc"', '"ioc"'),
    ],
)
def test_an_order_that_is_accepted_as_another_is_a_violation(
    field: str, value: Any, sent: str, stored: str
) -> None:
    venue = a_venue()
    venue.rewrites(lambda events: setattr(events[-1], field, value))

    found = [v for v in venue.audit().violations if v.kind == "unasked"]

    assert [(v.id, v.expected, v.found) for v in found] == [
        (order(5), f"accepted with {field} {sent}", f"{field} {stored}")
    ]


# --- Receipts -----------------------------------------------------------------------------------


def told_receipt(venue: Venue, index: int) -> Receipt:
    receipt = venue.told[index].outcome
    assert isinstance(receipt, Receipt)
    return receipt


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "partially_filled"},
        {"filled_quantity": "1.999"},
        {"remaining_quantity": "0.001"},
        {"average_price": "100.4"},
        {"version": 2},
        {"sequence": 2},
        {"trades": []},
        {"trades": [Fill(1, "100", "1", order(1))]},
        {"trades": [Fill(1, "100", "1", order(1)), Fill(2, "101", "1", order(1))]},
        {"trades": [Fill(2, "101", "1", order(2)), Fill(1, "100", "1", order(1))]},
        {"trades": [Fill(1, "100", "1", order(1)), Fill(3, "101", "1", order(2))]},
        {"trades": [Fill(1, "100", "1", order(1)), Fill(2, "100.9", "1", order(2))]},
    ],
)
def test_a_receipt_that_says_other_than_the_log_is_a_violation(fields: dict[str, Any]) -> None:
    venue = a_venue()
    venue.told[2] = Told(venue.told[2].order, altered(told_receipt(venue, 2), **fields))

    kind, found_id, expected, found = the_violation(venue.audit())

    assert (kind, found_id) == ("receipt_differs", order(3))
    (name,) = fields
    assert f"a receipt with {name} " in expected
    assert found.startswith(f"{name} ")


def test_a_trade_of_a_receipt_that_is_not_in_the_log_is_a_violation() -> None:
    venue = a_venue()
    receipt = altered(told_receipt(venue, 4), trades=[Fill(3, "200", "1", order(1))])
    venue.told[4] = Told(venue.told[4].order, receipt)

    assert the_violation(venue.audit())[:2] == ("receipt_differs", order(5))


@pytest.mark.parametrize(
    ("filled", "is_true"), [("0", True), ("0.5", True), ("1", True), ("1.001", False)]
)
def test_a_duplicate_shows_its_order_at_some_time(filled: str, is_true: bool) -> None:
    # Order 1 rested, and was filled later.
    venue = a_venue()
    duplicate = Receipt("new", order(1), filled_quantity=filled, duplicate=True, sequence=3)
    venue.told[0] = Told(venue.told[0].order, duplicate)

    assert kinds(venue.audit()) == ({} if is_true else {"receipt_differs": 1})


# --- Quantities ---------------------------------------------------------------------------------


def test_a_cancel_that_takes_off_less_than_was_open_is_not_conserved() -> None:
    venue = a_venue()
    (receipt,) = venue.trades(buy("5 @ 101", 7, time_in_force="ioc", self_trade="allow"))
    assert receipt.status == "canceled"

    def less(events: list[AnyEvent]) -> None:
        assert isinstance(events[-1], Canceled)
        events[-1].quantity = "3.5"

    venue.rewrites(less)
    audit = venue.audit()

    # The replica finds it impossible, too.
    assert kinds(audit) == {"diverged": 1, "not_conserved": 1}
    assert audit.violations[1].id == order(7)
    assert audit.violations[1].expected == "5000 lots"
    assert audit.violations[1].found == "1000 filled + 3500 taken off + 0 open"


def test_a_trade_of_unequal_sides_is_not_conserved() -> None:
    """Both orders of a trade on one side: as much is not sold as is bought."""
    venue = a_venue()

    def other_side(events: list[AnyEvent]) -> None:
        assert isinstance(events[0], Accepted)
        events[0].side = "sell"

    venue.rewrites(other_side)

    assert "not_conserved" in kinds(venue.audit())


def test_a_trade_with_an_order_that_was_never_accepted_is_not_conserved() -> None:
    venue = a_venue()

    def stranger(events: list[AnyEvent]) -> None:
        assert isinstance(events[1], Trade)
        events[1].maker_order_id = order(77)

    venue.rewrites(stranger)
    audit = venue.audit()

    assert order(77) in [v.id for v in audit.violations if v.kind == "not_conserved"]


# --- The chain and the digests ------------------------------------------------------------------


def test_a_digest_that_is_not_the_books_is_caught_at_its_commit() -> None:
    venue = a_venue()
    venue.log[1] = venue.log[1].replace(venue.market.digest.encode(), b"0" * 16)

    audit = venue.audit()

    assert kinds(audit) == {"diverged": 1}
    assert audit.violations[0].id == "commit 3"
    assert not audit.digest_equal
    assert not total([audit]).digest_equal


def test_a_broken_chain_is_caught() -> None:
    venue = a_venue()
    venue.log[0] = venue.log[0].replace(b'"term":1', b'"term" :1')

    audit = venue.audit()

    assert kinds(audit) == {"diverged": 1}
    assert audit.violations[0].id == "commit 3"
    assert "previous" in audit.violations[0].expected


def test_a_hole_in_the_log_is_caught() -> None:
    venue = a_venue()
    venue.trades(buy("1 @ 10", 6))
    del venue.log[1]

    assert "diverged" in kinds(venue.audit())


def test_a_log_that_ends_early_is_caught() -> None:
    venue = a_venue()
    del venue.log[1]

    audit = venue.audit()

    assert "diverged" in kinds(audit)
    assert audit.counts["missing"] == 2


def test_a_commit_that_is_none_is_caught() -> None:
    venue = a_venue()
    venue.log[1] = b"{}"

    assert "diverged" in kinds(venue.audit())


def test_a_market_that_says_another_digest_at_the_end_is_caught() -> None:
    venue = a_venue()
    audit = Audit(
        Market.restore(venue.base),
        by_id(venue.told),
        specification=venue.market.specification,
        above={PEER: Pair(0)},
    )
    for payload in venue.log:
        audit.read(payload)
    audit.finish(sequence=3, digest="f" * 16)

    assert the_violation(audit) == (
        "diverged",
        "commit 3",
        f"digest {venue.market.digest}",
        "f" * 16,
    )


def test_after_a_divergence_the_orders_are_still_compared() -> None:
    venue = a_venue()
    venue.log[0] = venue.log[0].replace(b'"term":1', b'"term" :1')
    venue.told.append(Told(buy("1 @ 50", 9), Receipt("new", order_id=order(9), sequence=3)))

    assert kinds(venue.audit()) == {"diverged": 1, "missing": 1}


def test_many_violations_are_counted_and_the_first_are_kept() -> None:
    venue = a_venue()
    for number in range(1_000, 1_300):
        receipt = Receipt("new", order_id=order(number), sequence=3)
        venue.told.append(Told(buy("1 @ 50", number), receipt))

    found = total([venue.audit()])

    assert found.missing == found.violations_count == 300
    assert len(found.violations) == 100
