"""How a leadership begins: with an entry of its own, and with a clock that is right."""

import pytest

from dex_protocol.events import LeaderChanged, MarketOpened
from dex_server.replication.effects import (
    Append,
    Serve,
    Start,
)
from tests.builders import NOW, a_specification, buy
from tests.unit.server.harness import Harness, a_leader, beside, names


def test_first_commit_opens_the_market_and_begins_term_1(leader: Harness) -> None:
    (commit,) = leader.commits()

    assert commit.sequence == commit.term == 1
    assert commit.events == [
        MarketOpened(specification=a_specification(), log_id="log"),
        LeaderChanged(server="server-1", term=1, protocol=1, rules=1, incarnation="first"),
    ]


def test_new_term_begins_with_its_leader(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1))
    leader.run()
    other = beside(leader)
    other.start()
    other.run()
    other.send(buy("1 @ 100", 2))
    other.run()

    assert [(commit.term, names(commit)) for commit in other.commits()[1:]] == [
        (1, ["accepted"]),
        (2, ["leader_changed"]),
        (2, ["accepted"]),
    ]
    other.check()


def test_follower_that_is_not_named_does_not_append() -> None:
    server = Harness()
    server.give(Start())
    server.run()
    assert (server.replica.role, server.given(Append)) == ("follower", [])

    server.nominate()
    server.run()
    assert server.replica.role == "leader"


# --- Time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_us", [-1_000_001, 1_000_001])
def test_clocks_more_than_a_second_apart_raise_an_alarm_and_nobody_leads(ahead_us: int) -> None:
    """Whichever of the two is wrong, and in whichever direction (G19)."""
    server = Harness()
    server.log_ahead = ahead_us
    server.start()
    server.run()

    (alarm,) = server.alarms
    assert "clock" in alarm
    assert "apart" in alarm
    assert (server.replica.role, server.is_serving) == ("follower", False)
    assert server.given(Serve) != []
    # What it began stands, and is followed like anybody's.
    assert (server.replica.stored, server.replica.is_current) == (1, True)

    server.log_ahead = 0
    server.nominate()
    server.run()
    assert (server.replica.role, server.commits()[-1].term) == ("leader", 2)


def test_server_whose_clock_was_wrong_is_not_to_be_named_for_ten_seconds() -> None:
    server = Harness()
    server.log_ahead = 2_000_000
    server.start()
    server.run()
    held = server.send(buy("1 @ 100", 1))
    assert server.retries(held) == ["not_leader"]

    server.pass_time(ms=9_999)
    server.run()
    assert not server.could_lead
    server.pass_time(ms=1)
    assert server.could_lead


@pytest.mark.parametrize("ahead_us", [-1_000_000, 1_000_000])
def test_clocks_a_second_apart_are_good_enough(ahead_us: int) -> None:
    server = Harness()
    server.log_ahead = ahead_us
    server.start()
    server.run()

    assert (server.replica.role, server.alarms) == ("leader", [])


def test_entry_that_took_long_to_be_stored_says_nothing_of_clocks() -> None:
    """While NATS elects a leader, some seconds pass between an append and its storing."""
    server = Harness()
    server.start()
    server.run(hold=(Append,))
    server.pass_time(ms=5_000)
    server.run()

    assert (server.replica.role, server.alarms) == ("leader", [])


def test_clock_that_is_behind_the_log_does_not_turn_its_time_back(leader: Harness) -> None:
    """The market's time stands still until the clock has come so far (G19)."""
    leader.send(buy("1 @ 100", 1))
    leader.run()
    other = beside(leader, wall=leader.wall - 900_000)
    other.start()
    other.run()
    other.send(buy("1 @ 100", 2))
    other.run()

    times = [commit.time for commit in other.commits()]
    assert times == sorted(times)
    assert (other.replica.role, times[-1]) == ("leader", times[1])


def test_clock_that_is_wrong_expires_nothing_and_leaves_the_time_as_it_was(
    leader: Harness,
) -> None:
    """A clock is compared only when the term has begun, so the beginning must not rest on it
    (G19)."""
    leader.send(
        buy("1 @ 100", 1, time_in_force="gtd", expires_at=NOW + 60_000_000),
    )
    leader.run()
    wrong = beside(leader, wall=leader.wall + 3_600_000_000)
    wrong.start()
    wrong.run()
    assert wrong.replica.role == "follower"
    assert len(wrong.alarms) == 1

    right = beside(leader, server="server-3")
    right.start()
    right.run()
    number = right.ask(peer="alice")
    assert right.replica.role == "leader"
    assert right.answer(number)["term"] == 3
    assert "expired" not in {name for commit in right.commits() for name in names(commit)}
    assert right.commits()[-1].time < NOW + 60_000_000


def test_leader_of_a_market_with_orders_due_expires_them_when_its_clock_is_found_right(
    leader: Harness,
) -> None:
    leader.send(buy("1 @ 100", 1, time_in_force="gtd", expires_at=NOW + 1))
    leader.run()
    other = beside(leader, wall=leader.wall + 500_000)
    other.start()
    other.run()

    assert [names(commit) for commit in other.commits()[2:]] == [["leader_changed"], ["expired"]]
    assert other.is_serving
    other.check()


def test_leader_whose_market_is_led_by_another_does_not_answer_as_leader() -> None:
    """Its append finds the other one's entry in its place (G13)."""
    leader = a_leader()
    other = beside(leader)
    other.start()
    other.run()
    number = leader.send(buy("1 @ 100", 1))
    leader.run()

    assert leader.answer(number) is None
    assert leader.replica.role == "follower"
    assert [commit.term for commit in leader.commits()] == [1, 2]
