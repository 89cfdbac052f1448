"""One append under way, requests gather behind it; nobody is told anything before it is stored."""

import msgspec
import pytest

from dex_protocol.codec import encode
from dex_protocol.commands import Command
from dex_protocol.queries import BookQuery, OrderQuery, StatusQuery
from dex_protocol.specification import SpecificationChange
from dex_server.replication.effects import Append, AppendConfirmed
from tests.builders import a_specification, amend, buy, cancel, cancel_all, order, sell
from tests.unit.server.harness import Harness, a_leader, names


def test_requests_gather_while_one_append_is_under_way(leader: Harness) -> None:
    first = leader.send(buy("1 @ 100", 1))
    later = [leader.send(buy("1 @ 100", number)) for number in range(2, 7)]

    assert len(leader.waiting(Append)) == 1
    leader.run()
    assert [len(commit.events) for commit in leader.commits()] == [2, 1, 5]
    assert leader.receipt(first).sequence == 2
    assert {leader.receipt(number).sequence for number in later} == {3}


def test_window_of_three_has_three_appends_under_way() -> None:
    leader = a_leader(window=3)

    for number in range(1, 6):
        leader.send(buy("1 @ 100", number))

    assert [append.after.sequence for append in leader.waiting(Append)] == [1, 2, 3]
    leader.run()
    assert [len(commit.events) for commit in leader.commits()] == [2, 1, 1, 1, 2]
    leader.check()


KINDS: list[tuple[str, list[Command], Command, str | None]] = [
    ("accepted", [], buy("1 @ 100", 9), None),
    ("accepted without an id", [], buy("1 @ 100"), None),
    ("a trade", [sell("1 @ 100", 1)], buy("1 @ 100", 9), None),
    ("a cancel", [buy("1 @ 100", 1)], cancel(1, 9), None),
    ("an amend", [buy("1 @ 100", 1)], amend(1, 9, quantity="2"), None),
    ("cancel_all", [buy("1 @ 100", 1)], cancel_all(9), None),
    ("a duplicate", [buy("1 @ 100", 9)], buy("1 @ 100", 9), None),
    ("2003", [], buy("1 @ 100.001", 9), "price_off_tick"),
    ("2004", [], buy("0.0001 @ 100", 9), "quantity_off_lot"),
    ("2005", [], buy("1 @ 0", 9), "price_out_of_range"),
    ("2006", [], buy("0 @ 100", 9), "quantity_out_of_range"),
    ("3001", [sell("1 @ 100", 1)], buy("1 @ 100", 9, post_only=True), "post_only_would_trade"),
    ("3002", [], buy("1 @ 100", 9, time_in_force="fok"), "fok_not_fillable"),
    ("3003", [], buy("1", 9), "no_liquidity"),
    ("3003 without an id", [], buy("1"), "no_liquidity"),
    ("3004", [], cancel(8, 9), "unknown_order"),
    ("3005", [buy("1 @ 100", 1)], cancel(1, 9, if_version=7), "version_conflict"),
    ("3007", [buy("1 @ 100", 9)], buy("2 @ 100", 9), "id_reused"),
    ("3010", [buy("1 @ 100", 1), cancel(1, 2)], cancel(1, 9), "order_done"),
]


@pytest.mark.parametrize(
    ("before", "command", "reason"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS]
)
def test_receipt_is_sent_only_when_its_commit_is_stored(
    leader: Harness, before: list[Command], command: Command, reason: str | None
) -> None:
    """Refusals and duplicates too rest on a state that only the log makes true (G1)."""
    for earlier in before:
        leader.send(earlier)
        leader.run()

    number = leader.send(command)

    append = leader.take(Append)
    assert leader.answer(number) is None
    leader.perform(append)
    receipt = leader.receipt(number)
    assert receipt.sequence == append.after.sequence + 1 == leader.end
    assert receipt.reason is (msgspec.UNSET if reason is None else receipt.reason)
    assert reason is None or receipt.reason == reason


def test_too_many_peers_and_open_orders_are_answered_after_the_append() -> None:
    """They rest on how many there are, which only the log makes true (G1)."""
    leader = a_leader(specification=a_specification(max_peers=1, max_open_orders=1))
    leader.send(buy("1 @ 100", 1))
    leader.run()

    fourth = [
        leader.send(buy("1 @ 100", 2)),
        leader.send(buy("1 @ 100", 1, peer="bob"), peer="bob"),
    ]

    assert [leader.answer(number) for number in fourth] == [None, None]
    leader.run()
    assert [leader.receipt(number).reason for number in fourth] == [
        "too_many_open_orders",
        "too_many_peers",
    ]
    leader.check()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "malformed"),
        (b"\xff", "malformed"),
        (b"[]", "malformed"),
        (b'{"op":"submit","side":"buy"}', "malformed"),
        (b'{"op":"burn"}', "unknown_value"),
        (b"[" + b"{}," * 1_000 + b"{}]", "batch_too_large"),
        (encode(buy("1 @ 100", 1, peer="bob")), "wrong_peer"),
    ],
)
def test_refusal_that_needs_no_state_is_sent_at_once_and_leaves_no_commit(
    leader: Harness, payload: bytes, reason: str
) -> None:
    """It rests on nothing that could still change (G6)."""
    leader.send(buy("1 @ 100", 1))

    number = leader.send_raw(payload)

    assert leader.receipt(number).reason == reason
    leader.run()
    assert leader.end == 2


def test_batch_with_a_malformed_element_is_answered_with_the_others(leader: Harness) -> None:
    number = leader.send_raw(
        b'[{"op":"burn"},%b,{"op":"submit"}]' % encode(buy("1 @ 100", 1)), peer="alice"
    )

    assert leader.answer(number) is None
    leader.run()
    receipts = leader.receipts(number)
    assert [receipt.status for receipt in receipts] == ["rejected", "new", "rejected"]
    assert [receipt.reason for receipt in receipts if receipt.status == "rejected"] == [
        "unknown_value",
        "malformed",
    ]
    assert receipts[1].sequence == 2


def test_duplicate_is_proven_by_an_empty_commit(leader: Harness) -> None:
    """Whether the first copy's commit still is the market's, only a newer one says (G1, G5)."""
    leader.send(buy("1 @ 100", 1))
    leader.run()

    number = leader.send(buy("1 @ 100", 1))
    leader.run()

    assert leader.receipt(number).duplicate is True
    assert leader.receipt(number).sequence == leader.end == 3
    assert leader.commits()[-1].events == []


def test_duplicate_beside_another_command_needs_no_commit_of_its_own(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1))
    copy = leader.send(buy("1 @ 100", 1))
    other = leader.send(buy("1 @ 100", 2))
    leader.run()

    assert leader.receipt(copy).sequence == leader.receipt(other).sequence == leader.end == 3


# --- Queries ------------------------------------------------------------------------------------


def test_query_of_a_stored_state_is_answered_at_once_without_a_commit(leader: Harness) -> None:
    number = leader.ask()

    assert leader.answer(number)["sequence"] == 1
    assert leader.end == 1
    assert leader.under_way == type(leader.under_way)()


def test_query_while_a_commit_is_pending_is_answered_as_of_it_once_it_is_stored(
    leader: Harness,
) -> None:
    """Only stored state is ever told: the book is ahead of the log until then (G14)."""
    leader.send(buy("1 @ 100", 1))
    numbers = [leader.ask(BookQuery()), leader.ask(OrderQuery(order_id=order(1))), leader.ask()]

    assert [leader.answer(number) for number in numbers] == [None] * 3
    leader.run()
    book, one, status = (leader.answer(number) for number in numbers)
    assert book["sequence"] == one["sequence"] == status["sequence"] == 2
    assert book["bids"] == [{"price": "100", "quantity": "1", "count": 1}]
    assert one["order"]["status"] == "new"
    assert status["highest"] == [1_763_800_000_000, 1]


def test_query_of_the_newest_commit_waits_for_all_before_it() -> None:
    """A commit that is stored may rest on one that nobody has confirmed yet (G14)."""
    leader = a_leader(window=3)
    leader.send(buy("1 @ 100", 1))
    early = leader.ask()
    leader.send(buy("1 @ 100", 2))
    late = leader.ask()
    first, second = leader.take(Append), leader.take(Append)
    for append in (first, second):
        leader.log.append(append.payload, after=append.after)

    leader.give(AppendConfirmed(3))
    assert leader.answer(early) is leader.answer(late) is None
    leader.give(AppendConfirmed(2))
    assert leader.answer(early)["sequence"] == 2
    assert leader.answer(late)["sequence"] == 3
    leader.check()


def test_min_sequence_waits_for_that_commit(leader: Harness) -> None:
    """Whoever passes the sequence of a receipt reads what it wrote (G14)."""
    number = leader.ask(StatusQuery(min_sequence=3))
    leader.send(buy("1 @ 100", 1))
    leader.run()
    assert leader.answer(number) is None

    leader.send(buy("1 @ 100", 2))
    assert leader.answer(number) is None
    leader.run()
    assert leader.answer(number)["sequence"] == 3


def test_min_sequence_that_does_not_come_is_unavailable_after_a_second(leader: Harness) -> None:
    """Rather no answer than an older one (G14)."""
    number = leader.ask(StatusQuery(min_sequence=2))

    leader.pass_time(ms=999)
    assert leader.answer(number) is None
    leader.pass_time(ms=1)
    assert leader.retries(number) == ["unavailable"]


def test_queries_are_answered_although_every_commit_is_full(leader: Harness) -> None:
    """A command that does not fit opens the next commit. Under a load that never ends there would
    always be one, and no moment at which the state is that after a commit."""
    for first in range(1, 12_000, 1_000):
        leader.send(*(sell("0.001 @ 100", number) for number in range(first, first + 1_000)))
        leader.run()
    # Two of these fit into a commit, the third opens the next.
    sweeps = [leader.send(buy("1 @ 100", n, peer="bob"), peer="bob") for n in range(1, 13)]

    leader.perform(leader.take(Append))
    asked = leader.ask()
    answered_before = 0
    while leader.answer(asked) is None:
        leader.perform(leader.take(Append))
        answered_before = sum(leader.answer(sweep) is not None for sweep in sweeps)

    assert answered_before < 8
    leader.run()
    assert len(leader.given(Append)) == leader.end


# --- Administration -----------------------------------------------------------------------------


def test_wish_of_an_operator_is_answered_after_its_append_and_comes_before_commands(
    leader: Harness,
) -> None:
    """Operators are told nothing earlier than peers are (G1)."""
    leader.send(buy("1 @ 100", 1))
    waiting = leader.send(buy("1 @ 100", 2))
    wish = leader.administer("halt")
    assert leader.answer(wish) is None
    leader.run()

    assert leader.answer(wish) == {"sequence": 3}
    assert names(leader.commits()[2]) == ["market_changed", "rejected"]
    assert leader.receipt(waiting).reason == "market_halted"


def test_wish_that_changes_nothing_is_proven_by_an_empty_commit(leader: Harness) -> None:
    number = leader.administer("resume")
    leader.run()

    assert leader.answer(number) == {"sequence": 2}
    assert leader.commits()[1].events == []


def test_refused_wish_says_so_after_the_append(leader: Harness) -> None:
    number = leader.administer("change", SpecificationChange(max_price="0"))
    assert leader.answer(number) is None
    leader.run()

    assert leader.answer(number)["reason"] == "malformed"
    assert leader.answer(number)["sequence"] == 2
