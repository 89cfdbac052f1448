"""A peer sends as fast as its market's specification says, and no faster; whoever it floods waits
for nothing."""

from typing import Any

import pytest
from msgspec import UNSET

from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.specification import PeerFields, PeerLimits, SpecificationChange
from dex_server.replication.allowances import Allowances
from dex_server.replication.commits import Waiting
from dex_server.replication.effects import Append, Instant, Request
from tests.builders import a_market, a_specification, amend, buy, cancel, cancel_all, order
from tests.unit.server.harness import Harness, a_leader

FIVE_A_SECOND: dict[str, Any] = {"orders_per_second": 5, "orders_burst": 5}


def limited(**fields: Any) -> Harness:
    return a_leader(specification=a_specification(**fields))


def reasons(leader: Harness, number: int) -> list[str]:
    """Tell how each command of a batch ended: its reason, or `new`."""
    return [
        str(receipt.status if receipt.reason is UNSET else receipt.reason)
        for receipt in leader.receipts(number)
    ]


# --- Rates --------------------------------------------------------------------------------------


def test_order_beyond_the_rate_is_sent_back_at_once_and_leaves_no_commit() -> None:
    """It costs the market nothing (G7, G21)."""
    leader = limited(**FIVE_A_SECOND)
    for number in range(1, 6):
        leader.send(buy("1 @ 100", number))
    leader.run()
    before = leader.end

    sixth = leader.send(buy("1 @ 100", 6))

    assert leader.retries(sixth) == ["rate_limited"]
    receipt = leader.receipt(sixth)
    assert receipt.message == "expected at most 5 orders per second from alice, found more"
    assert (receipt.order_id, receipt.sequence, receipt.duplicate) == (order(6), UNSET, UNSET)
    leader.run()
    assert leader.end == before


def test_order_is_let_in_again_as_soon_as_one_more_is_due() -> None:
    """Five a second are one every 200 ms."""
    leader = limited(**FIVE_A_SECOND)
    leader.send(*(buy("1 @ 100", number) for number in range(1, 6)))
    leader.pass_time(ms=199)
    assert leader.retries(leader.send(buy("1 @ 100", 6))) == ["rate_limited"]

    leader.pass_time(ms=1)
    again = leader.send(buy("1 @ 100", 6))
    leader.run()

    assert leader.receipt(again).status == "new"
    assert leader.retries(leader.send(buy("1 @ 100", 7))) == ["rate_limited"]


def test_batch_is_executed_as_far_as_the_rate_goes_and_the_rest_is_sent_back() -> None:
    """All after the first that is too much: what a peer sends stays in its order."""
    leader = limited(**FIVE_A_SECOND)
    number = leader.send(*(buy("1 @ 100", n) for n in range(1, 7)), cancel(1, 7))
    leader.run()

    assert reasons(leader, number) == ["new"] * 5 + ["rate_limited"] * 2
    assert [receipt.command_id for receipt in leader.receipts(number)][-1] != UNSET


def test_refusal_that_needs_no_state_comes_before_the_rate() -> None:
    leader = limited(orders_per_second=1, orders_burst=1)
    good = encode(buy("1 @ 100", 1)).decode()
    other = encode(buy("1 @ 100", 2)).decode()
    number = leader.send_raw(f'[{{"op":"burn"}},{good},{other},{{"op":"burn"}}]'.encode())
    leader.run()

    assert reasons(leader, number) == ["unknown_value", "new", "rate_limited", "unknown_value"]
    assert leader.receipt(leader.send_raw(b"{")).reason == "malformed"


@pytest.mark.parametrize("repeated", [buy("1 @ 100", 1), buy("2 @ 100", 1)])
def test_what_is_remembered_is_answered_when_nothing_is_left(repeated: Any) -> None:
    """Only the answer to a resent command settles what became of it (G4, G5)."""
    leader = limited(orders_per_second=1, orders_burst=1)
    leader.send(buy("1 @ 100", 1))
    leader.run()
    assert leader.retries(leader.send(buy("1 @ 100", 2))) == ["rate_limited"]

    again = leader.send(repeated)
    leader.run()

    expected = UNSET if repeated.quantity == "1" else "id_reused"
    assert leader.receipt(again).reason == expected
    batch = leader.send(repeated, buy("1 @ 100", 2))
    leader.run()
    assert reasons(leader, batch)[1] == "rate_limited"


def test_amends_count_as_orders_and_cancels_pass_beside_them() -> None:
    """However many orders a peer sends, it can always get rid of them."""
    leader = limited(orders_per_second=2, orders_burst=2)
    leader.send(buy("1 @ 100", 1))
    leader.run()
    one = leader.send(amend(1, 2, quantity="2"))
    assert leader.retries(leader.send(amend(1, 3, quantity="3"))) == ["rate_limited"]

    both = [leader.send(cancel(1, 4)), leader.send(cancel_all(5))]
    third = leader.send(cancel_all(6))
    leader.run()

    assert leader.receipt(one).version == 2
    assert [leader.receipt(number).status for number in both] == ["canceled"] * 2
    assert leader.retries(third) == ["rate_limited"]
    assert leader.receipt(third).message == (
        "expected at most 2 cancels per second from alice, found more"
    )


def test_one_peers_rate_is_not_anothers() -> None:
    """Each is at its own limit, whatever the other sends (G21)."""
    leader = limited(orders_per_second=1, peers={"bob": PeerFields(orders_per_second=2)})
    numbers = [leader.send(buy("1 @ 100", n, peer="bob"), peer="bob") for n in range(1, 6)]
    own = [leader.send(buy("1 @ 100", n)) for n in range(1, 4)]
    leader.run()

    assert [leader.receipt(number).status for number in numbers] == ["new"] * 4 + ["retry"]
    assert [leader.receipt(number).status for number in own] == ["new"] * 2 + ["retry"]


def test_changed_rate_holds_from_its_commit_on() -> None:
    leader = limited(**FIVE_A_SECOND)
    leader.send(*(buy("1 @ 100", n) for n in range(1, 6)))
    leader.administer("change", SpecificationChange(orders_per_second=1_000))
    leader.run()
    leader.pass_time(ms=1)

    number = leader.send(buy("1 @ 100", 6))
    leader.run()

    assert leader.receipt(number).status == "new"


def test_new_term_begins_with_full_buckets() -> None:
    """Rates are the leader's own: nothing of them is in the log (G21)."""
    leader = limited(**FIVE_A_SECOND)
    leader.send(*(buy("1 @ 100", n) for n in range(1, 6)))
    leader.run()
    assert leader.retries(leader.send(buy("1 @ 100", 6))) == ["rate_limited"]
    leader.dismiss()
    leader.run()
    leader.nominate()
    leader.run()

    number = leader.send(buy("1 @ 100", 6))
    leader.run()

    assert leader.receipt(number).status == "new"


def test_order_that_found_no_place_is_not_counted() -> None:
    leader = limited(orders_per_second=1, orders_burst=limits.WAITING_COMMANDS_COUNT_MAX)
    leader.send(buy("1 @ 100", 1))
    half = limits.WAITING_COMMANDS_COUNT_MAX // 2
    for first in range(2, half, 1_000):
        leader.send(*(buy("1 @ 1", n) for n in range(first, first + 1_000)))
    busy = [leader.send(*(buy("1 @ 1", n) for n in range(20_001, 21_001))) for _ in range(20)]
    assert {reason for number in busy for reason in reasons(leader, number)} == {"busy"}
    leader.run()

    again = leader.send(*(buy("1 @ 1", n) for n in range(20_001, 21_001)))
    leader.run()

    assert set(reasons(leader, again)) == {"new"}


def test_flood_of_requests_is_read_then_answered_unread_then_dropped() -> None:
    """Whatever they say: nonsense is refused for nothing, so it is counted before it is read."""
    leader = limited(orders_per_second=1, orders_burst=1)
    read, unread = 2 + limits.READ_REQUESTS_PER_SECOND, limits.UNREAD_REQUESTS_PER_SECOND

    numbers = leader.send_together(*[b"{"] * (read + unread + 10))
    leader.run()

    answers = [leader.answer(number) for number in numbers]
    assert [answer["reason"] for answer in answers[:read]] == ["malformed"] * read
    assert [answer["reason"] for answer in answers[read:-10]] == ["rate_limited"] * unread
    assert answers[-10:] == [None] * 10
    assert leader.receipt(leader.send_raw(b"{", peer="bob")).reason == "malformed"


def test_elements_of_a_batch_are_counted_though_they_are_nonsense() -> None:
    """A thousand of them take as long to refuse as a thousand requests."""
    leader = limited(orders_per_second=1, orders_burst=1)
    nonsense = b"[" + b",".join([b"{}"] * 1_000) + b"]"

    read, unread = leader.send_raw(nonsense), leader.send_raw(nonsense)

    assert {each.reason for each in leader.receipts(read)} == {"malformed"}
    assert leader.retries(unread) == ["rate_limited"]


def test_what_is_remembered_is_lent_no_more_than_a_burst_of() -> None:
    leader = limited(orders_per_second=1, orders_burst=3)
    for number in range(1, 4):
        leader.send(buy("1 @ 100", number))
    leader.run()

    again = leader.send(*[buy("1 @ 100", 1)] * 5)
    leader.run()

    assert [each.reason is UNSET for each in leader.receipts(again)] == [True] * 3 + [False] * 2
    assert reasons(leader, again)[3:] == ["rate_limited"] * 2


def test_peer_within_its_limit_is_read_whatever_it_sends_in_requests_of_one() -> None:
    leader = limited(orders_per_second=5_000, orders_burst=5_000)

    numbers = leader.send_together(*[encode(buy("1 @ 1"))] * 5_000)
    numbers += leader.send_together(*[encode(cancel_all(n)) for n in range(1, 5_001)])

    leader.run()
    answers = [leader.answer(number) for number in numbers]
    assert {answer["status"] for answer in answers} == {"new", "canceled"}


# --- What is remembered of peers ----------------------------------------------------------------


def ask(allowances: Allowances, peer: str, own: PeerLimits, now: Instant) -> None:
    assert allowances.admit(peer, own, now) == "read"
    allowances.take(Waiting(Request(peer, encode(buy("1 @ 1")), 1, 0)), own, now)


def test_peer_that_sends_nothing_for_a_while_is_forgotten() -> None:
    market = a_market(orders_per_second=10, orders_burst=10)
    own = market.rules.limits_of("alice")
    allowances = Allowances(market, now=Instant(0, 0))
    for number in range(1_000):
        ask(allowances, f"peer-{number}", own, Instant(0, 0))
    assert len(allowances) == 1_000
    for _ in range(10):
        ask(allowances, "alice", own, Instant(0, 500_000))

    allowances.forget(Instant(0, 999_999))
    assert len(allowances) == 1_001
    allowances.forget(Instant(0, 1_000_000))
    assert len(allowances) == 1
    allowances.forget(Instant(0, 2_000_000))
    assert len(allowances) == 0


# --- Sizes --------------------------------------------------------------------------------------


def test_request_of_more_bytes_than_its_peer_may_send_is_refused_unread() -> None:
    leader = limited(max_request_bytes=200, peers={"bob": PeerFields(max_request_bytes=300)})
    leader.send(buy("1 @ 100", 1))

    numbers = [leader.send_raw(b"{" * size) for size in (200, 201)]
    bobs = [leader.send_raw(b"{" * size, peer="bob") for size in (300, 301)]

    receipts = [leader.receipt(number) for number in (*numbers, *bobs)]
    assert [receipt.reason for receipt in receipts] == ["malformed", "batch_too_large"] * 2
    assert [receipt.message for receipt in receipts][1::2] == [
        "expected at most 200 bytes in a request, found 201",
        "expected at most 300 bytes in a request, found 301",
    ]


def test_batch_of_more_commands_than_its_peer_may_send_is_refused_whole() -> None:
    leader = limited(max_batch_count=2, peers={"bob": PeerFields(max_batch_count=3)})
    three = [buy("1 @ 100") for _ in range(3)]

    refused = leader.send(*three)
    bobs = leader.send(*three, peer="bob")

    assert leader.receipt(refused).reason == "batch_too_large"
    assert leader.receipt(refused).message == "expected at most 2 commands, found 3"
    leader.run()
    assert reasons(leader, bobs) == ["new"] * 3


def test_refused_size_costs_no_rate() -> None:
    leader = limited(max_batch_count=2, orders_per_second=2, orders_burst=2)
    leader.send(*(buy("1 @ 100") for _ in range(3)))

    number = leader.send(buy("1 @ 100", 1), buy("1 @ 100", 2))
    leader.run()

    assert reasons(leader, number) == ["new"] * 2
    assert len(leader.given(Append)) == leader.end
