"""Peers take turns, and nobody's flood takes the places, or the time, of another."""

import pytest

from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.events import Accepted
from dex_server.replication.commits import Waiting
from dex_server.replication.effects import Append, Request
from dex_server.replication.waiting import FairQueue, Places
from tests.builders import buy
from tests.unit.server.harness import Harness

TURN = limits.TURN_COMMANDS_COUNT
PLACES = limits.WAITING_COMMANDS_COUNT_MAX
BYTES = limits.WAITING_BYTES_MAX


def orders_of(peer: str, count: int) -> Waiting:
    commands = [buy("1 @ 1")] * count
    return Waiting(Request(peer, encode(commands if count > 1 else commands[0]), peer, 0))


def turns(queue: FairQueue) -> list[tuple[str, int]]:
    """Have all that wait executed: whose commands, and how many in a row."""
    runs: list[tuple[str, int]] = []
    while (waiting := queue.first) is not None:
        count = min(queue.left, len(waiting.elements) - waiting.next)
        waiting.next += count
        queue.went_on(count, is_done=waiting.next == len(waiting.elements))
        if runs and runs[-1][0] == waiting.peer:
            count += runs.pop()[1]
        runs.append((waiting.peer, count))
    return runs


def batches(leader: Harness, peer: str, count: int) -> list[int]:
    """Have a peer send so many batches of a thousand orders."""
    return [
        leader.send(*(buy("1 @ 1", peer=peer) for _ in range(1_000)), peer=peer)
        for _ in range(count)
    ]


# --- Turns --------------------------------------------------------------------------------------


def test_requests_of_one_peer_stay_in_order_and_need_no_turns() -> None:
    queue = FairQueue()
    for _ in range(3):
        assert queue.put(orders_of("alice", TURN))

    assert turns(queue) == [("alice", 3 * TURN)]


def test_peers_take_turns_of_so_many_commands() -> None:
    """A long batch waits between its own commands, a short request does not wait for all of it."""
    queue = FairQueue()
    queue.put(orders_of("alice", 2 * TURN + 1))
    queue.put(orders_of("bob", 1))
    for _ in range(TURN + 1):
        queue.put(orders_of("carol", 1))

    assert turns(queue) == [
        ("alice", TURN),
        ("bob", 1),
        ("carol", TURN),
        ("alice", TURN),
        ("carol", 1),
        ("alice", 1),
    ]


def test_all_that_wait_are_given_line_by_line() -> None:
    queue = FairQueue()
    waiting = [orders_of(peer, 1) for peer in ("alice", "bob", "alice")]
    for each in waiting:
        queue.put(each)

    assert list(queue) == [waiting[0], waiting[2], waiting[1]]
    queue.clear()
    assert list(queue) == []
    assert queue.first is None


# --- Places -------------------------------------------------------------------------------------


def holds(places: Places, peer: str, size: int = 1) -> int:
    """Have a peer take all it can, in requests of one command; tell how many that were."""
    count = 0
    while places.take(peer, 1, size):
        count += 1
    return count


def test_peer_holds_as_many_places_as_it_leaves_free() -> None:
    places = Places()

    assert holds(places, "alice") == PLACES // 2
    assert holds(places, "bob") == PLACES // 4
    assert not places.take("alice", 1, 1)
    assert places.take("carol", 1, 1)


def test_peers_that_flood_together_leave_as_much_as_each_has() -> None:
    places = Places()
    flooding = [f"peer-{number}" for number in range(9)]
    while any([places.take(peer, 1, 1) for peer in flooding]):
        pass

    assert places.take("alice", PLACES // 21, 1)


def test_bytes_are_shared_as_places_are() -> None:
    places = Places()
    size = limits.PAYLOAD_BYTES_MAX

    assert holds(places, "alice", size) == BYTES // size // 2
    assert places.take("bob", 1, size)


def test_what_is_given_back_is_free_again() -> None:
    places = Places()
    count = holds(places, "alice")
    for _ in range(count):
        places.give_back("alice", 1, 1)

    assert holds(places, "alice") == count


# --- In a leader --------------------------------------------------------------------------------


def test_order_of_another_peer_is_in_the_next_commit_whatever_one_floods(leader: Harness) -> None:
    """It takes its turn, however much arrived before it (G21)."""
    leader.send(buy("1 @ 100", 1))
    flood = batches(leader, "bob", 8)
    number = leader.send(buy("1 @ 1", 2))
    leader.run()

    assert leader.receipt(number).sequence == 3
    assert [leader.receipts(each)[-1].sequence for each in flood] == [3, 4, 4, 5, 5, 6, 6, 7]


def test_flood_of_one_peer_makes_only_itself_busy(leader: Harness) -> None:
    """Half of the places are left for others (G21)."""
    leader.send(buy("1 @ 100", 1))
    flood = batches(leader, "bob", 17)

    others = [batches(leader, peer, 1)[0] for peer in ("alice", "carol", "dave")]

    assert [leader.answer(number) is None for number in flood] == [True] * 8 + [False] * 9
    assert {receipt.reason for receipt in leader.receipts(flood[8])} == {"busy"}
    leader.run()
    for number in others:
        assert {receipt.status for receipt in leader.receipts(number)} == {"new"}


def test_orders_of_a_peer_are_executed_in_the_order_it_sent_them(leader: Harness) -> None:
    """Alone and in batches, with another peer's between them (G12)."""
    leader.send(buy("1 @ 100", 1))
    for first in range(2, 600, 150):
        leader.send(*(buy("1 @ 1", n) for n in range(first, first + 149)))
        leader.send(buy("1 @ 1", first + 149))
        batches(leader, "bob", 1)
    leader.run()

    ids = [
        event.order_id
        for commit in leader.commits()
        for event in commit.events
        if isinstance(event, Accepted) and event.peer == "alice"
    ]
    numbers = [int(order_id.rpartition("_")[2]) for order_id in ids]
    assert numbers == sorted(numbers) == list(range(1, 602))


def test_begun_batches_of_several_peers_are_sent_back_with_what_was_executed(
    leader: Harness,
) -> None:
    """A leader that retires answers for what it did, and only for that."""
    leader.send(buy("1 @ 100", 1))
    flood = [batches(leader, f"peer-{number}", 1)[0] for number in range(3)]
    leader.perform(leader.take(Append))
    leader.dismiss()
    assert [leader.answer(number) for number in flood] == [None] * 3
    leader.run()

    statuses = [[receipt.status for receipt in leader.receipts(number)] for number in flood]
    assert sum(each.count("new") for each in statuses) == limits.GROUP_COMMANDS_COUNT_MAX
    assert all(each == sorted(each) for each in statuses)
    leader.check()


@pytest.mark.parametrize("count", [1, 20])
def test_up_to_twenty_peers_that_flood_have_a_turn_in_every_commit(
    leader: Harness, count: int
) -> None:
    leader.send(buy("1 @ 100", 1))
    peers = [f"peer-{number}" for number in range(count)]
    for peer in peers:
        leader.send(*(buy("1 @ 1", peer=peer) for _ in range(300)), peer=peer)
    leader.run()

    (third,) = [commit for commit in leader.commits() if commit.sequence == 3]
    accepted = {event.peer for event in third.events if isinstance(event, Accepted)}
    assert accepted == set(peers)
