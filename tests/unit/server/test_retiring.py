"""A leader that is dismissed finishes what it has under way, and follows with the state it has."""

import pytest

from dex_protocol.queries import StatusQuery
from dex_server.replication.effects import (
    Append,
    AppendUndecided,
    FindEnd,
    ListSnapshots,
    Look,
)
from tests.builders import buy
from tests.unit.server.harness import Harness, a_leader, beside, following, leading


@pytest.mark.parametrize("window", [1, 5])
def test_what_is_in_a_commit_is_answered_when_stored_and_what_waited_sent_back(
    window: int,
) -> None:
    """Whoever it can answer, it answers itself (G7, G18)."""
    leader = a_leader(window=window)
    numbers = [leader.send(buy("1 @ 100", n)) for n in range(1, 8)]
    told = leader.ask()
    wish = leader.administer("halt")
    leader.dismiss()

    assert (leader.replica.role, leader.is_serving) == ("retiring", False)
    under_way, waiting = numbers[:window], numbers[window:]
    assert leader.retries(*waiting, wish) == ["not_leader"] * (len(waiting) + 1)
    assert [leader.answer(number) for number in [*under_way, told]] == [None] * (window + 1)
    leader.run()
    assert {leader.receipt(number).status for number in under_way} == {"new"}
    assert leader.answer(told)["sequence"] == 1 + window
    assert leader.end == 1 + window
    assert leader.replica.role == "follower"
    leader.check()


def test_retired_leader_keeps_its_state_and_follows(leader: Harness) -> None:
    market = leader.replica.market
    leader.send(buy("1 @ 100", 1))
    leader.dismiss()
    leader.run()
    other = leading(beside(leader))
    other.commit(2, 2)
    leader.hear()

    assert leader.replica.market is market
    assert len(leader.given(ListSnapshots)) == 1
    assert (leader.replica.role, leader.replica.is_current) == ("follower", True)
    assert leader.replica.stored == 5
    assert leader.market.snapshot() == other.market.snapshot()
    assert leader.warnings == []


def test_leader_with_nothing_under_way_follows_at_once(leader: Harness) -> None:
    leader.dismiss()

    assert (leader.replica.role, leader.is_serving) == ("follower", False)
    assert (leader.replica.is_current, leader.is_listening) == (True, True)


def test_what_arrives_while_it_retires_is_sent_back_and_queries_are_not(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1))
    leader.dismiss()

    late = [leader.send(buy("1 @ 100", 2)), leader.administer("halt")]
    assert leader.retries(*late) == ["not_leader", "unavailable"]
    now, later = leader.ask(), leader.ask(StatusQuery(min_sequence=3))
    assert leader.answer(now) is None
    leader.run()
    assert leader.answer(now)["sequence"] == 2
    assert leader.answer(later) is None
    leading(beside(leader))
    leader.hear()
    assert leader.answer(later)["leader"] == "server-2"


def test_order_that_comes_due_meanwhile_is_left_to_the_next_leader(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1, time_in_force="gtd", expires_at=leader.wall + 1_000))
    leader.dismiss()
    leader.pass_time(ms=1)
    leader.run()

    assert leader.replica.role == "follower"
    assert leader.end == 2


def test_commit_that_nobody_knows_of_is_settled_first(leader: Harness) -> None:
    committed = leader.send(buy("1 @ 100", 1))
    leader.dismiss()
    leader.take(Append)
    leader.give(AppendUndecided(2, "no answer"))
    leader.perform(leader.take(Look))
    assert leader.replica.role == "retiring"
    leader.run()

    assert leader.receipt(committed).sequence == 2
    assert (leader.replica.role, leader.end) == ("follower", 2)


def test_retiring_leader_that_is_outrun_says_nothing_and_begins_again(leader: Harness) -> None:
    """Its state holds what the log refused (G13)."""
    committed = leader.send(buy("1 @ 100", 1))
    waiting = leader.send(buy("1 @ 100", 2))
    leader.dismiss()
    other = leading(beside(leader))
    leader.run()

    assert leader.answer(committed) is None
    assert leader.retries(waiting) == ["not_leader"]
    assert leader.replica.role == "follower"
    assert leader.market.snapshot() == other.market.snapshot()
    assert len(leader.given(ListSnapshots)) == 2


def test_retiring_leader_that_is_told_to_stop_answers_first(leader: Harness) -> None:
    committed = leader.send(buy("1 @ 100", 1))
    leader.dismiss()
    leader.stop()
    assert not leader.is_stopped
    leader.run()

    assert leader.receipt(committed).status == "new"
    assert (leader.is_stopped, leader.replica.role) == (True, "stopped")


def test_named_again_while_it_retires_it_does_not_lead_on(leader: Harness) -> None:
    """Whoever names it asks again; what it had waiting was sent back."""
    leader.send(buy("1 @ 100", 1))
    leader.dismiss()
    leader.nominate()
    leader.run()
    assert (leader.replica.role, leader.end) == ("follower", 2)

    leader.nominate()
    leader.run()
    assert (leader.replica.role, leader.market.term) == ("leader", 2)


def test_follower_and_leader_change_places_again_and_again(leader: Harness) -> None:
    other = following(beside(leader))
    for turn in range(1, 7):
        leading_one, next_one = (leader, other) if turn % 2 else (other, leader)
        numbers = [leading_one.send(buy("1 @ 100", 2 * turn + n)) for n in (0, 1)]
        leading_one.dismiss()
        leading_one.run()
        next_one.nominate()
        next_one.hear()
        next_one.run()
        leading_one.hear()
        assert leading_one.receipt(numbers[0]).status == "new"
        assert leading_one.retries(numbers[1]) == ["not_leader"]

        assert next_one.replica.role == "leader"
        assert next_one.market.snapshot() == leading_one.market.snapshot()
    assert len(leader.given(ListSnapshots)) == len(other.given(ListSnapshots)) == 1


def test_question_of_an_earlier_lead_does_not_keep_a_later_one_from_asking(
    leader: Harness,
) -> None:
    """A leader that never asked again would count as cut off from its log, for good."""
    leader.pass_time(ms=500)
    asked = leader.take(FindEnd)
    leader.dismiss()
    leader.perform(asked)
    leader.run()
    leader.nominate()
    leader.run()
    for _ in range(4):
        leader.pass_time(ms=500)
        leader.run()

    number = leader.send(buy("1 @ 100", 1))
    leader.run()
    assert leader.receipt(number).status == "new"
