"""Told to stop, a server finishes what it has in hand and sends the rest elsewhere."""

import pytest

from dex_protocol.queries import StatusQuery
from dex_server.replication.effects import (
    Append,
    AppendUndecided,
    ListSnapshots,
    Start,
    Stopped,
    Unserve,
)
from tests.builders import buy, order, sell
from tests.unit.server.harness import Harness, a_leader, beside, leading


def test_commit_under_way_is_finished_and_answered_and_the_rest_sent_back(
    leader: Harness,
) -> None:
    """To stop is no reason to leave anybody without an answer (G7, G18)."""
    committed = leader.send(buy("1 @ 100", 1))
    told = leader.ask()
    waiting = leader.send(buy("1 @ 100", 2))
    asked = leader.ask(StatusQuery(min_sequence=9))
    wish = leader.administer("halt")
    leader.stop()

    assert (leader.replica.role, leader.is_serving) == ("retiring", False)
    assert leader.retries(waiting, wish) == ["not_leader"] * 2
    assert leader.answer(committed) is leader.answer(told) is None
    assert not leader.is_stopped
    leader.run()
    assert leader.receipt(committed).status == "new"
    assert leader.answer(told)["sequence"] == 2
    assert leader.retries(asked) == ["unavailable"]
    assert leader.is_stopped
    assert leader.replica.role == "stopped"
    assert leader.end == 2


def test_what_arrives_while_it_stops_is_sent_back(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1))
    leader.stop()

    numbers = [leader.send(buy("1 @ 100", 2)), leader.administer("halt")]
    assert leader.retries(*numbers) == ["not_leader", "unavailable"]
    # What is asked about the state is told with the commit that it rests on.
    asked = leader.ask()
    leader.run()
    assert leader.answer(asked)["sequence"] == leader.end == 2


def test_half_of_a_batch_is_finished_and_the_rest_of_it_sent_back(leader: Harness) -> None:
    """Each element says for itself whether it was executed (G7)."""
    for first in range(1, 5_000, 1_000):
        leader.send(*(sell("0.001 @ 100", n) for n in range(first, first + 1_000)))
        leader.run()
    batch = leader.send(*(buy("1 @ 100", n, peer="bob") for n in range(1, 6)), peer="bob")
    leader.stop()
    leader.run()

    receipts = leader.receipts(batch)
    assert [receipt.status for receipt in receipts] == ["filled"] * 3 + ["retry"] * 2
    assert [receipt.order_id for receipt in receipts] == [order(n, "bob") for n in range(1, 6)]
    assert leader.is_stopped


def test_leader_with_nothing_in_hand_stops_at_once(leader: Harness) -> None:
    leader.stop()

    assert leader.is_stopped
    assert len(leader.given(Unserve)) == 1


def test_commit_that_nobody_knows_of_is_settled_first(leader: Harness) -> None:
    committed = leader.send(buy("1 @ 100", 1))
    leader.stop()
    append = leader.take(Append)
    leader.give(AppendUndecided(2, "no answer"))
    assert not leader.is_stopped
    leader.log.append(append.payload, after=append.after)
    leader.run()

    assert leader.receipt(committed).status == "new"
    assert leader.is_stopped


def test_leader_that_is_deposed_while_it_stops_stops(leader: Harness) -> None:
    """It has nothing left to finish, and no reason to read the log again."""
    committed = leader.send(buy("1 @ 100", 1))
    leading(beside(leader))
    leader.stop()
    leader.run()

    assert leader.answer(committed) is None
    assert leader.is_stopped
    assert leader.replica.role == "stopped"
    assert len(leader.given(ListSnapshots)) == 1


@pytest.mark.parametrize("is_begun", [False, True])
def test_follower_stops_at_once(is_begun: bool) -> None:
    server = Harness()
    if is_begun:
        server.give(Start())
    server.stop()

    assert server.is_stopped
    server.run()
    assert server.given(Append) == []


def test_candidate_stops_at_once_and_sends_back_what_it_held() -> None:
    """Its state is the log's, and nobody waits for the beginning of its term."""
    server = Harness()
    server.start()
    server.run(hold=(Append,))
    assert server.is_serving
    held = server.send(buy("1 @ 100", 1))
    asked = server.ask()
    server.stop()

    assert (server.is_stopped, server.is_serving) == (True, False)
    assert server.retries(held, asked) == ["not_leader", "unavailable"]
    server.run()
    assert server.end == 1


def test_gtd_order_that_comes_due_meanwhile_is_left_to_the_next_leader() -> None:
    leader = a_leader()
    leader.send(buy("1 @ 100", 1, time_in_force="gtd", expires_at=leader.wall + 1_000))
    leader.stop()
    leader.wall += 1_000
    leader.run()

    assert leader.is_stopped
    assert leader.end == 2


def test_told_twice_stops_once_more_and_says_so(leader: Harness) -> None:
    leader.stop()
    leader.stop()

    assert len(leader.given(Stopped)) == 2
