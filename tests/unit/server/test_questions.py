"""Queries are answered by whoever has the state, and wait a second for it at most."""

import pytest

from dex_protocol import limits
from dex_protocol.queries import BookQuery, StatusQuery
from dex_server.replication.effects import ReadLog, Start
from dex_server.replication.following import LAG_COUNT_MAX
from tests.builders import sell
from tests.unit.server.harness import Harness, beside, cut, following


@pytest.fixture
def follower(leader: Harness) -> Harness:
    """Follow the market that is led beside."""
    return following(beside(leader))


def test_follower_answers_from_its_own_state_in_its_own_name(
    leader: Harness, follower: Harness
) -> None:
    leader.commit(1)
    number = follower.ask()
    follower.hear()
    later = follower.ask()

    first, second = follower.answer(number), follower.answer(later)
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert (second["server"], second["leader"]) == ("server-2", "server-1")


def test_follower_answers_once_it_has_the_commit_that_is_asked_for(
    leader: Harness, follower: Harness
) -> None:
    """It waits, rather than tell what was before (G14)."""
    number = follower.ask(StatusQuery(min_sequence=3))
    leader.commit(1)
    follower.hear()
    assert follower.answer(number) is None

    leader.commit(2)
    follower.hear()
    assert follower.answer(number)["sequence"] == 3


def test_follower_gives_up_after_a_second(follower: Harness) -> None:
    number = follower.ask(StatusQuery(min_sequence=3))

    follower.pass_time(ms=999)
    assert follower.answer(number) is None
    follower.pass_time(ms=1)
    assert follower.retries(number) == ["unavailable"]


def test_replica_without_a_state_holds_queries_until_it_has_one_or_a_second(
    leader: Harness,
) -> None:
    server = beside(leader)
    early = server.ask()
    server.give(Start())
    server.pass_time(ms=999)
    later = server.ask()
    assert server.answer(early) is None

    server.pass_time(ms=1)
    assert server.retries(early) == ["unavailable"]
    server.run()
    assert server.answer(later)["sequence"] == 1


def test_replica_that_is_far_behind_holds_queries_until_it_has_caught_up(
    leader: Harness, follower: Harness
) -> None:
    """What it has is stored, and too old to be told (G14)."""
    leader.commit(1, LAG_COUNT_MAX + 1)
    follower.hear(but=range(LAG_COUNT_MAX))
    follower.run(hold=(ReadLog,))
    number = follower.ask()
    assert follower.answer(number) is None

    follower.run()
    assert follower.answer(number)["sequence"] == leader.end


def test_replica_in_doubt_of_its_log_answers_nothing(leader: Harness, follower: Harness) -> None:
    """What it has may be lost, or the log it asks may be behind (G14, G16)."""
    leader.commit(1)
    follower.hear()
    follower.log = cut(leader.log, 1)
    follower.pass_time(ms=1_000)
    follower.run()
    number = follower.ask()
    assert follower.answer(number) is None

    follower.log = leader.log
    follower.pass_time(ms=999)
    follower.run()
    assert follower.answer(number) is None
    follower.pass_time(ms=1)
    follower.run()
    assert follower.retries(number) == ["unavailable"]


def test_more_queries_than_may_wait_are_busy(follower: Harness) -> None:
    far = StatusQuery(min_sequence=9)
    peers = limits.WAITING_QUERIES_COUNT_MAX // limits.PEER_QUERIES_COUNT_MAX
    for number in range(peers):
        for _ in range(limits.PEER_QUERIES_COUNT_MAX):
            follower.ask(far, peer=f"peer-{number}")

    assert follower.retries(follower.ask(far)) == ["busy"]


def test_peer_with_more_queries_than_one_may_have_waiting_takes_no_place_of_others(
    leader: Harness, follower: Harness
) -> None:
    far = StatusQuery(min_sequence=2)
    waiting = [follower.ask(far) for _ in range(limits.PEER_QUERIES_COUNT_MAX)]
    beyond = [follower.ask(far) for _ in range(limits.WAITING_QUERIES_COUNT_MAX)]
    others = follower.ask(far, peer="bob")

    assert set(follower.retries(*beyond)) == {"rate_limited"}
    assert follower.receipt(beyond[0]).message == (
        "expected at most 64 queries of alice waiting at a time, found one more"
    )
    leader.commit(1)
    follower.hear()
    follower.run()
    assert {follower.answer(number)["sequence"] for number in [*waiting, others]} == {2}
    # Its places are free again.
    again = [follower.ask(StatusQuery(min_sequence=3)) for _ in waiting]
    assert [follower.answer(number) for number in again] == [None] * len(again)


def test_queries_that_are_given_up_or_sent_back_leave_their_places(follower: Harness) -> None:
    far = StatusQuery(min_sequence=9)
    for _ in range(limits.PEER_QUERIES_COUNT_MAX):
        follower.ask(far)
    follower.pass_time(ms=1_000)
    again = [follower.ask(far) for _ in range(limits.PEER_QUERIES_COUNT_MAX)]

    assert [follower.answer(number) for number in again] == [None] * len(again)


def test_peers_take_turns(leader: Harness, follower: Harness) -> None:
    """Whoever asks last waits for one query of each other peer, not for all of them (G21)."""
    leader.send(*(sell("0.001 @ 100", n) for n in range(1, 1_001)))
    leader.run()
    long = BookQuery(min_sequence=2, depth=1_000, orders=True)
    many = [follower.ask(long) for _ in range(limits.PEER_QUERIES_COUNT_MAX)]
    late = [follower.ask(long, peer=f"peer-{number}") for number in range(4)]
    follower.hear()

    assert follower.replica.has_more_to_tell
    assert all(follower.answer(number) is not None for number in late)
    assert follower.answer(many[-1]) is None
    follower.run()
    assert all(follower.answer(number) is not None for number in many)


@pytest.mark.parametrize("is_long", [True, False])
def test_follower_answers_a_flood_a_few_at_a_time_and_goes_on_at_once(
    leader: Harness, follower: Harness, is_long: bool
) -> None:
    leader.send(*(sell("0.001 @ 100", n) for n in range(1, 1_001)))
    leader.run()
    query = BookQuery(min_sequence=2, depth=1_000, orders=is_long)
    count = 3 * limits.TOLD_QUERIES_COUNT_MAX
    numbers = [follower.ask(query, peer=f"peer-{number % 3}") for number in range(count)]
    follower.hear()

    told = [follower.answer(number) is not None for number in numbers]
    assert 0 < told.index(False) == sum(told) <= limits.TOLD_QUERIES_COUNT_MAX
    assert follower.replica.has_more_to_tell
    # Without a moment passing.
    follower.run()
    assert {follower.answer(number)["sequence"] for number in numbers} == {2}


def test_stopped_replica_sends_queries_elsewhere(follower: Harness) -> None:
    waiting = follower.ask(StatusQuery(min_sequence=9))
    follower.stop()

    assert follower.retries(waiting, follower.ask()) == ["unavailable"] * 2
