"""A leadership is as good as its last sign from the log: without one, peers are told to retry."""

import pytest

from dex_protocol.queries import StatusQuery
from dex_server.replication.effects import Append, EndFound, FindEnd
from tests.builders import buy
from tests.unit.server.harness import Harness, beside, cut, leading


def test_leader_asks_where_the_log_ends_after_half_a_second_without_a_sign(
    leader: Harness,
) -> None:
    leader.pass_time(ms=499)
    assert leader.waiting(FindEnd) == []

    leader.pass_time(ms=1)
    leader.pass_time(ms=500)
    assert len(leader.waiting(FindEnd)) == 1
    leader.run()
    leader.pass_time(ms=499)
    assert leader.waiting(FindEnd) == []
    leader.pass_time(ms=1)
    assert len(leader.waiting(FindEnd)) == 1


def test_commit_that_is_stored_is_a_sign(leader: Harness) -> None:
    for number in range(1, 6):
        leader.pass_time(ms=400)
        leader.commit(number)

    assert leader.waiting(FindEnd) == []
    assert leader.end == 6


def test_leader_without_a_sign_for_a_second_and_a_half_sends_all_back(leader: Harness) -> None:
    """Orders, queries and operators' requests: somebody else may lead by now (G7, G14)."""
    asked = leader.ask(StatusQuery(min_sequence=9))
    leader.pass_time(ms=600)
    leader.pass_time(ms=899)
    last = leader.send(buy("1 @ 100", 1))
    assert leader.waiting(Append) != []

    leader.pass_time(ms=1)
    assert leader.retries(asked) == ["unavailable"]
    late = [leader.send(buy("1 @ 100", 2)), leader.ask(), leader.administer("halt")]
    assert leader.retries(*late) == ["unavailable"] * 3
    assert (leader.replica.role, leader.answer(last)) == ("leader", None)


def test_sign_that_comes_late_lets_it_lead_on(leader: Harness) -> None:
    leader.pass_time(ms=1_500)
    assert leader.retries(leader.send(buy("1 @ 100", 1))) == ["unavailable"]

    leader.run()
    number = leader.send(buy("1 @ 100", 1))
    leader.run()
    assert leader.receipt(number).status == "new"
    assert leader.commits()[-1].term == 1


def test_log_that_went_on_without_it_deposes_it_before_it_executes_anything(
    leader: Harness,
) -> None:
    """It learns of its successor by asking, before it is asked itself (G13)."""
    other = leading(beside(leader))
    leader.pass_time(ms=500)
    leader.run()

    assert (leader.replica.role, leader.is_serving) == ("follower", False)
    assert leader.replica.stored == 2
    assert leader.market.snapshot() == other.market.snapshot()
    assert len(leader.given(Append)) == 1
    assert "goes on to 2" in leader.warnings[0]


def test_where_the_log_ended_while_a_commit_was_under_way_deposes_nobody(leader: Harness) -> None:
    leader.pass_time(ms=500)
    asked = leader.take(FindEnd)
    number = leader.send(buy("1 @ 100", 1))
    append = leader.take(Append)
    leader.log.append(append.payload, after=append.after)
    leader.perform(asked)
    leader.perform(append)

    assert leader.receipt(number).status == "new"
    assert leader.replica.role == "leader"


@pytest.mark.parametrize("seconds", [14, 15])
def test_log_that_ends_too_early_for_fifteen_seconds_deposes(leader: Harness, seconds: int) -> None:
    """A node that was cut off would have noticed by then."""
    leader.commit(1, 3)
    whole = leader.log
    leader.log = cut(whole, 2)
    leader.pass_time(ms=500)
    leader.run()
    for _ in range(2 * seconds):
        assert leader.replica.role == "leader"
        leader.pass_time(ms=500)
        leader.run()
    assert leader.replica.role == ("leader" if seconds < 15 else "follower")

    leader.log = whole
    leader.pass_time(ms=1_000)
    leader.run()
    assert leader.replica.stored == 4
    assert leader.replica.is_current
    number = leader.send(buy("1 @ 100", 4))
    leader.run()
    if seconds < 15:
        assert leader.receipt(number).status == "new"
    else:
        assert leader.retries(number) == ["not_leader"]


def test_leader_of_a_log_that_has_lost_commits_stops_in_the_end(leader: Harness) -> None:
    """As leader it gives up after 15 s, and as follower after 15 more (G16)."""
    leader.commit(1, 3)
    leader.log = cut(leader.log, 2)
    for _ in range(70):
        leader.pass_time(ms=500)
        leader.run()

    assert leader.replica.role == "stopped"
    assert "ends at 2" in leader.alarms[0]
    assert "commit 4" in leader.alarms[0]
    leader.log = cut(leader.log, 0)


def test_answers_that_commits_overtook_are_no_doubt_however_often(leader: Harness) -> None:
    """Each was true when it was given."""
    for number in range(1, 40):
        leader.pass_time(ms=500)
        leader.take(FindEnd)
        ended = EndFound(*leader.log.bounds())
        leader.commit(number)
        leader.give(ended)

    assert leader.replica.role == "leader"
    assert leader.end == 40
