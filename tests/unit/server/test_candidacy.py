"""Becoming leader: what is asked meanwhile is held, and whoever loses the race keeps its state."""

from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.events import LeaderChanged, MarketOpened
from dex_server.replication.effects import (
    Append,
    AppendConfirmed,
    AppendUndecided,
    FindEnd,
    ListSnapshots,
    Look,
    ReadLog,
    Serve,
    Start,
    Unserve,
)
from tests.builders import buy
from tests.unit.server.harness import Harness, a_leader, beside, following, leading, names, terms


def a_candidate(leader: Harness) -> Harness:
    """Make another server that has put the beginning of its term on the way."""
    candidate = following(beside(leader))
    candidate.nominate()
    candidate.run(hold=(Append,))

    assert candidate.replica.role == "candidate"
    return candidate


# --- What is asked meanwhile --------------------------------------------------------------------


def test_current_replica_serves_as_soon_as_it_is_named(leader: Harness) -> None:
    follower = following(beside(leader))
    follower.nominate()

    assert (follower.replica.role, follower.is_serving) == ("follower", True)
    assert follower.waiting(FindEnd) != []


def test_replica_that_is_not_current_serves_when_it_is() -> None:
    leader = a_leader()
    leader.commit(1, 3)
    server = beside(leader)
    server.start()
    server.run(hold=(ReadLog,))
    assert (server.replica.role, server.is_serving) == ("follower", False)

    server.run()
    assert (server.replica.role, server.is_serving) == ("leader", True)


def test_held_requests_are_answered_in_order_once_the_term_is_stored(leader: Harness) -> None:
    candidate = following(beside(leader))
    candidate.nominate()
    first = candidate.send(buy("1 @ 100", 1))
    candidate.run(hold=(Append,))
    second, third = candidate.send(buy("1 @ 100", 2)), candidate.send(buy("1 @ 100", 3))
    candidate.perform(candidate.take(Append))
    assert candidate.replica.role == "candidate"
    fourth = candidate.send(buy("1 @ 100", 4))
    numbers = [first, second, third, fourth]
    assert [candidate.answer(number) for number in numbers] == [None] * 4
    candidate.run()

    assert [candidate.receipt(number).status for number in numbers] == ["new"] * 4
    begun, commit = candidate.commits()[1:]
    assert names(begun) == ["leader_changed"]
    assert [event.order_id.rpartition("_")[2] for event in commit.events] == list("1234")  # type: ignore[union-attr]


def test_request_that_waits_a_second_for_a_leader_is_late(leader: Harness) -> None:
    candidate = a_candidate(leader)
    early = candidate.send(buy("1 @ 100", 1))
    candidate.pass_time(ms=1)
    later = candidate.send(buy("1 @ 100", 2))
    candidate.pass_time(ms=998)
    assert candidate.answer(early) is None

    candidate.pass_time(ms=1)
    assert candidate.retries(early) == ["late"]
    candidate.run()
    assert candidate.receipt(later).status == "new"


def test_thousands_that_were_held_too_long_are_late_at_once(leader: Harness) -> None:
    candidate = a_candidate(leader)
    payload = encode(buy("1 @ 100"))
    numbers = candidate.send_together(*[payload] * (limits.WAITING_COMMANDS_COUNT_MAX // 2))
    candidate.pass_time(ms=1_000)

    assert set(candidate.retries(*numbers)) == {"late"}


def test_more_than_may_be_held_is_busy(leader: Harness) -> None:
    """No peer's requests take more places than they leave free."""
    candidate = a_candidate(leader)
    payload = encode(buy("1 @ 100"))
    candidate.send_together(*[payload] * (limits.WAITING_COMMANDS_COUNT_MAX // 2))
    assert candidate.retries(candidate.send(buy("1 @ 100", 2))) == ["busy"]
    assert candidate.answer(candidate.send(buy("1 @ 100"), peer="bob")) is None

    candidate = a_candidate(leader)
    wide = payload.ljust(limits.PAYLOAD_BYTES_MAX)
    candidate.send_together(*[wide] * (limits.WAITING_BYTES_MAX // len(wide) // 2))
    assert candidate.retries(candidate.send(buy("1 @ 100", 2))) == ["busy"]
    assert candidate.answer(candidate.send(buy("1 @ 100"), peer="bob")) is None


def test_operator_is_told_to_ask_the_leader(leader: Harness) -> None:
    candidate = a_candidate(leader)

    assert candidate.retries(candidate.administer("halt")) == ["unavailable"]


def test_query_to_a_candidate_is_answered_from_the_state_before_its_term(leader: Harness) -> None:
    candidate = a_candidate(leader)
    number = candidate.ask()

    assert candidate.answer(number)["sequence"] == 1
    assert candidate.answer(number)["leader"] == "server-1"


def test_query_of_a_market_that_is_not_open_yet_is_answered_when_it_is() -> None:
    server = Harness()
    server.start()
    server.run(hold=(Append,))
    number = server.ask()
    assert server.answer(number) is None

    server.run()
    assert server.answer(number)["sequence"] == 1


# --- The race -----------------------------------------------------------------------------------


def test_candidate_that_is_outrun_tries_again_with_its_state_and_wins(leader: Harness) -> None:
    candidate = a_candidate(leader)
    market = candidate.replica.market
    held = candidate.send(buy("1 @ 100", 9))
    leader.commit(1)
    candidate.perform(candidate.take(Append))
    candidate.perform(candidate.take(Look))

    assert (candidate.replica.role, candidate.is_serving) == ("follower", True)
    assert candidate.replica.market is market
    candidate.run()
    assert candidate.replica.role == "leader"
    assert candidate.replica.market is market
    assert len(candidate.given(ListSnapshots)) == len(candidate.given(Serve)) == 1
    assert candidate.receipt(held).sequence == 4
    assert terms(candidate.log) == [(1, "server-1"), (2, "server-2")]
    candidate.check()


def test_candidate_is_outrun_as_often_as_others_are_faster(leader: Harness) -> None:
    candidate = a_candidate(leader)
    for number in range(1, 6):
        leader.commit(number)
        candidate.run(hold=(Append,))
        candidate.perform(candidate.take(Append))
        candidate.run(hold=(Append,))
        assert candidate.replica.role == "candidate"

    candidate.run()
    assert candidate.replica.role == "leader"


def test_what_is_heard_while_a_candidate_is_applied_when_it_lost(leader: Harness) -> None:
    """Until then the next entry is to be its own."""
    candidate = a_candidate(leader)
    leader.commit(1, 2)
    candidate.hear()
    assert candidate.replica.stored == 1

    candidate.run()
    assert (candidate.replica.role, candidate.replica.stored) == ("leader", 4)


def test_two_candidates_for_an_empty_market_open_it_once() -> None:
    """The one that was outrun stands back: somebody began a term, so both cannot be named."""
    one = Harness()
    two = beside(one)
    for server in (one, two):
        server.start()
        server.run(hold=(Append,))
        assert server.replica.role == "candidate"
    two.run()
    one.run()

    (first,) = one.commits()
    assert [type(event) for event in first.events] == [MarketOpened, LeaderChanged]
    assert first.events[1].server == "server-2"  # type: ignore[union-attr]
    assert two.replica.role == "leader"
    assert one.replica.role == "follower"
    assert not one.is_serving

    one.nominate()
    one.run()

    assert one.replica.role == "leader"
    assert terms(one.log) == [(1, "server-2"), (2, "server-1")]
    one.check()


def test_two_processes_of_one_name_do_not_take_one_entry_for_theirs(leader: Harness) -> None:
    """One that was only paused, and the one that was started in its place (G13)."""
    older = following(beside(leader, incarnation="older"))
    newer = following(beside(leader, incarnation="newer"))
    for server in (older, newer):
        server.nominate()
        server.run(hold=(Append,))
    older.run()
    newer.run()

    assert older.replica.role == "leader"
    assert newer.replica.role == "follower"


def test_entry_that_is_stored_without_an_answer_begins_the_term_all_the_same() -> None:
    server = Harness()
    server.start()
    server.run(hold=(Append,))
    append = server.take(Append)
    server.log.append(append.payload, after=append.after)
    server.give(AppendUndecided(1, "no answer"))
    server.run()

    assert server.replica.role == "leader"
    assert server.end == 1


def test_entry_that_nobody_knows_of_is_sent_again(leader: Harness) -> None:
    candidate = a_candidate(leader)
    first = candidate.take(Append)
    candidate.give(AppendUndecided(2, "no answer"))
    candidate.perform(candidate.take(Look))

    again = candidate.take(Append)
    assert (again.payload, again.after, again.again) == (first.payload, first.after, True)
    # The first lands after all, and is the same entry.
    candidate.log.append(first.payload, after=first.after)
    candidate.perform(again)
    candidate.run()
    assert candidate.replica.role == "leader"
    assert candidate.end == 2


# --- Named no more ------------------------------------------------------------------------------


def test_candidate_that_is_dismissed_sends_back_what_it_held_and_follows(leader: Harness) -> None:
    """What was held was never executed (G7)."""
    candidate = a_candidate(leader)
    held = candidate.send(buy("1 @ 100", 1))
    candidate.dismiss()

    assert (candidate.replica.role, candidate.is_serving) == ("follower", False)
    assert len(candidate.given(Unserve)) == 1
    assert candidate.retries(held, candidate.send(buy("1 @ 100", 2))) == ["not_leader"] * 2
    leader.commit(1)
    candidate.run()
    candidate.hear()
    assert candidate.replica.stored == 2
    assert candidate.replica.is_current


def test_entry_of_a_dismissed_candidate_that_stands_is_followed_like_anybodys(
    leader: Harness,
) -> None:
    candidate = a_candidate(leader)
    candidate.dismiss()
    candidate.run()
    candidate.hear()

    assert candidate.replica.role == "follower"
    assert (candidate.replica.stored, candidate.market.leader) == (2, "server-2")
    candidate.nominate()
    candidate.run()
    assert (candidate.replica.role, candidate.market.term) == ("leader", 3)


def test_replica_that_is_dismissed_before_it_stands_sends_back_what_it_held(
    leader: Harness,
) -> None:
    server = following(beside(leader))
    server.nominate()
    held = server.send(buy("1 @ 100", 1))
    server.dismiss()
    server.run()

    assert server.retries(held) == ["not_leader"]
    assert (server.replica.role, server.is_serving) == ("follower", False)
    assert server.given(Append) == []


def test_dismissed_while_it_looks_for_a_state_it_does_not_stand(leader: Harness) -> None:
    server = beside(leader)
    server.start()
    server.dismiss()
    server.run()

    assert (server.replica.role, server.given(Append)) == ("follower", [])


def test_named_before_it_has_a_state_it_leads_when_it_has(leader: Harness) -> None:
    server = beside(leader)
    server.give(Start())
    server.nominate()
    server.nominate()

    assert leading(server).replica.market is not None


def test_confirmation_of_an_earlier_candidacys_entry_begins_no_term() -> None:
    """Both are to stand at 1, and say so at another time: the state must be of what stands."""
    server = Harness()
    server.start()
    server.run(hold=(Append,))
    first = server.take(Append)
    server.dismiss()
    server.wall += 1_000
    server.nominate()
    server.run(hold=(Append,))
    assert server.take(Append).payload != first.payload
    server.log.append(first.payload, after=first.after)
    server.give(AppendConfirmed(1))
    server.run()

    assert server.replica.role == "follower"
    assert terms(server.log) == [(1, "server-1")]
    server.nominate()
    server.run()
    assert server.replica.role == "leader"
    server.check()


def test_candidate_whose_entry_is_never_settled_gives_up_after_15_s(leader: Harness) -> None:
    """Somebody else is to try; and perhaps the log has lost what the entry is to stand behind."""
    server = following(beside(leader))
    server.nominate()
    server.run(hold=(Append,))
    waiting = server.send(buy("1 @ 100", 1))

    server.pass_time(ms=14_999)
    assert server.could_lead

    server.pass_time(ms=1)

    assert server.replica.role == "follower"
    assert not server.is_serving
    assert server.answer(waiting) is not None
