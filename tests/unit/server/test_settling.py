"""An append that is not confirmed is settled by what stands in its place, and by nothing else."""

import pytest

from dex_protocol.queries import StatusQuery
from dex_server.replication.effects import (
    Append,
    AppendConfirmed,
    AppendUndecided,
    ListSnapshots,
    Look,
    Stands,
    Unserve,
)
from tests.builders import buy, order, sell
from tests.unit.server.harness import Harness, a_leader, beside, leading, names


def lose_answer(leader: Harness, *, is_stored: bool) -> Append:
    """Let the next append end without an answer, stored or not."""
    append = leader.take(Append)
    if is_stored:
        leader.log.append(append.payload, after=append.after)
    leader.give(AppendUndecided(append.after.sequence + 1, "no answer"))
    return append


def overtake(leader: Harness) -> Harness:
    """Have another server begin a term, behind the leader's back."""
    return leading(beside(leader))


# --- One at a time ------------------------------------------------------------------------------


def test_own_bytes_stand_there_so_the_commit_is_stored_and_answered(leader: Harness) -> None:
    """The confirmation was lost, and what stands is as good (G1)."""
    number = leader.send(buy("1 @ 100", 1))
    lose_answer(leader, is_stored=True)

    assert leader.answer(number) is None
    assert [look.sequence for look in leader.waiting(Look)] == [2]
    leader.run()
    assert leader.receipt(number).status == "new"
    assert leader.end == 2
    assert leader.replica.role == "leader"


def test_nothing_stands_there_so_the_same_bytes_are_appended_again(leader: Harness) -> None:
    number = leader.send(buy("1 @ 100", 1))
    first = lose_answer(leader, is_stored=False)
    leader.send(buy("1 @ 100", 2))
    leader.perform(leader.take(Look))

    again = leader.take(Append)
    assert (again.payload, again.after, again.again) == (first.payload, first.after, True)
    assert leader.answer(number) is None
    leader.perform(again)
    leader.run()
    assert leader.receipt(number).sequence == 2
    assert leader.end == 3


def test_entry_that_lands_after_nothing_was_seen_is_stored_once(leader: Harness) -> None:
    """A read that finds nothing decides nothing: an append has been seen to land later (G3)."""
    number = leader.send(buy("1 @ 100", 1))
    first = lose_answer(leader, is_stored=False)
    leader.perform(leader.take(Look))
    leader.log.append(first.payload, after=first.after)
    leader.run()

    assert leader.receipt(number).status == "new"
    assert leader.end == 2


def test_another_entry_there_deposes_and_nothing_is_answered_for_the_commit(
    leader: Harness,
) -> None:
    """Whether what was in it happened, only the log says; its peers ask again (G1, G13)."""
    committed = leader.send(buy("1 @ 100", 1))
    told = leader.ask()
    waiting = leader.send(buy("1 @ 100", 2))
    wish = leader.administer("halt")
    asked = leader.ask(StatusQuery(min_sequence=9))
    overtake(leader)
    leader.run(hold=(ListSnapshots,))

    assert leader.answer(committed) is leader.answer(told) is None
    assert leader.retries(waiting, wish) == ["not_leader"] * 2
    assert leader.answer(asked) is None
    assert leader.replica.role == "follower"
    assert leader.replica.market is None
    assert (leader.is_serving, leader.is_listening) == (False, True)
    assert len(leader.given(Unserve)) == 1
    assert leader.retries(leader.send(buy("1 @ 100", 3))) == ["not_leader"]
    leader.run()
    leader.pass_time(ms=1_000)
    assert leader.retries(asked) == ["unavailable"]


def test_deposed_leader_begins_again_from_the_log_and_leads_when_it_is_named(
    leader: Harness,
) -> None:
    leader.send(buy("1 @ 100", 1))
    other = overtake(leader)
    number = other.send(sell("1 @ 101", 1, peer="bob"), peer="bob")
    other.run()
    leader.run()
    assert other.receipt(number).sequence == 3
    assert (leader.replica.role, leader.replica.stored) == ("follower", 3)

    leader.nominate()
    leader.run()
    assert (leader.replica.role, leader.commits()[-1].term) == ("leader", 3)
    again = leader.send(buy("1 @ 100", 1))
    leader.run()
    assert leader.receipt(again).duplicate is False


def test_half_of_a_batch_in_a_refused_commit_is_not_answered_at_all(leader: Harness) -> None:
    """Neither the half that was executed nor the rest, which shares its answer (G1)."""
    for first in range(1, 5_000, 1_000):
        leader.send(*(sell("0.001 @ 100", n) for n in range(first, first + 1_000)))
        leader.run()
    batch = leader.send(*(buy("1 @ 100", n, peer="bob") for n in range(1, 6)), peer="bob")
    behind = leader.send(buy("1 @ 1", 9_000))
    overtake(leader)
    leader.run()

    assert leader.answer(batch) is None
    assert leader.retries(behind) == ["not_leader"]


# --- Unknown for long ---------------------------------------------------------------------------


def test_log_out_of_reach_for_a_second_sends_back_what_waits(leader: Harness) -> None:
    """What waits is in no commit, so it can be said that it is not executed (G7, G18)."""
    committed = leader.send(buy("1 @ 100", 1))
    leader.pass_time(ms=500)
    waiting = leader.send(buy("1 @ 100", 2))
    wish = leader.administer("halt")
    asked = leader.ask(StatusQuery(min_sequence=9))
    leader.pass_time(ms=499)
    assert leader.answer(waiting) is None

    leader.pass_time(ms=1)
    assert leader.retries(waiting, wish, asked) == ["unavailable"] * 3
    # And what comes now does not wait for that.
    assert leader.retries(leader.send(buy("1 @ 100", 3)), leader.ask()) == ["unavailable"] * 2
    assert leader.answer(committed) is None
    assert leader.replica.role == "leader"


def test_log_in_reach_again_answers_what_was_pending_and_takes_in_more(leader: Harness) -> None:
    """Nobody has to help: the same bytes are sent until they stand (G18)."""
    committed = leader.send(buy("1 @ 100", 1))
    for _ in range(4):
        lose_answer(leader, is_stored=False)
        leader.pass_time(ms=1_000)
        leader.perform(leader.take(Look))
    assert leader.retries(leader.send(buy("1 @ 100", 2))) == ["unavailable"]

    leader.run()
    assert leader.receipt(committed).sequence == 2
    again = leader.send(buy("1 @ 100", 2))
    leader.run()
    assert leader.receipt(again).status == "new"
    assert leader.end == 3


def test_half_of_a_batch_that_is_pending_when_the_log_is_out_of_reach_comes_with_the_commit(
    leader: Harness,
) -> None:
    for first in range(1, 5_000, 1_000):
        leader.send(*(sell("0.001 @ 100", n) for n in range(first, first + 1_000)))
        leader.run()
    batch = leader.send(*(buy("1 @ 100", n, peer="bob") for n in range(1, 6)), peer="bob")
    leader.pass_time(ms=1_000)
    assert leader.answer(batch) is None
    leader.run()

    receipts = leader.receipts(batch)
    assert [receipt.status for receipt in receipts] == ["filled"] * 3 + ["retry"] * 2
    assert [receipt.order_id for receipt in receipts] == [order(n, "bob") for n in range(1, 6)]
    assert receipts[4].reason == "unavailable"


# --- Several under way --------------------------------------------------------------------------


@pytest.fixture
def wide() -> Harness:
    """Lead with three appends under way."""
    leader = a_leader(window=3)
    leader.numbers = [leader.send(buy("1 @ 100", n)) for n in (1, 2, 3)]  # type: ignore[attr-defined]
    return leader


def answered(leader: Harness) -> list[bool]:
    """Tell which of the three have a receipt."""
    return [leader.answer(number) is not None for number in leader.numbers]  # type: ignore[attr-defined]


def test_confirmations_out_of_order_are_answered_in_order(wide: Harness) -> None:
    """A commit is as good as all those before it (G1)."""
    for append in wide.waiting(Append):
        wide.log.append(append.payload, after=append.after)

    wide.give(AppendConfirmed(4))
    assert answered(wide) == [False, False, False]
    wide.give(AppendConfirmed(2))
    assert answered(wide) == [True, False, False]
    wide.give(AppendConfirmed(3))
    assert answered(wide) == [True, True, True]
    wide.check()


def test_later_commits_settle_only_when_all_before_them_have(wide: Harness) -> None:
    """Nothing can stand at a place before its predecessor does, so nobody looks there."""
    appends = [wide.take(Append) for _ in range(3)]
    for sequence in (4, 3):
        wide.give(AppendUndecided(sequence, "no answer"))
    assert wide.waiting(Look) == []

    wide.give(AppendUndecided(2, "no answer"))
    assert [look.sequence for look in wide.waiting(Look)] == [2]
    wide.log.append(appends[0].payload, after=appends[0].after)
    wide.perform(wide.take(Look))
    assert answered(wide) == [True, False, False]
    assert [look.sequence for look in wide.waiting(Look)] == [3]
    wide.run()
    assert answered(wide) == [True, True, True]
    assert wide.end == 4
    wide.check()


def test_first_refused_means_all_refused_and_silence(wide: Harness) -> None:
    """What follows a commit that was refused can never stand (G1, G13)."""
    waiting = wide.send(buy("1 @ 100", 4))
    overtake(wide)
    wide.run()

    assert answered(wide) == [False, False, False]
    assert wide.retries(waiting) == ["not_leader"]
    assert [names(commit) for commit in wide.commits()[1:]] == [["leader_changed"]]


def test_answer_that_comes_after_the_leadership_is_over_is_ignored(wide: Harness) -> None:
    second = wide.waiting(Append)[1]
    overtake(wide)
    wide.perform(wide.take(Append))
    wide.run(hold=(Append, ListSnapshots))
    assert wide.replica.role == "follower"

    wide.give(AppendUndecided(second.after.sequence + 1, "refused"))
    wide.give(Stands(2, wide.log.entry(2)))
    wide.run()
    assert wide.replica.role == "follower"
    assert wide.replica.stored == 2
    wide.check()
