"""When a leader writes its state down, which of them are kept, and what is never stored."""

import gzip
from typing import Any

import pytest

from dex_engine import Market
from dex_protocol.codec import hash_of
from dex_server import snapshotting
from dex_server.replication.effects import (
    Append,
    RemoveSnapshot,
    SaveSnapshot,
    SnapshotFailed,
    TakeSnapshot,
    Tick,
)
from tests.builders import a_market, buy, sell, send
from tests.unit.server.harness import Harness, a_leader, beside, leading


def a_writer(**how: Any) -> Harness:
    """Make a leader that writes the market's snapshots."""
    leader = a_leader(**how)
    leader.on_duty()
    return leader


def sequences(leader: Harness) -> list[int]:
    """Tell which snapshots are stored, newest first."""
    return [name.position.sequence for name in leader.snapshots.names("BTC-USD")]


def test_snapshot_is_stored_every_so_many_commits_and_restores_to_the_same_state() -> None:
    leader = a_writer(snapshot_commits=4)
    leader.commit(1, 7)
    (name, _) = leader.snapshots.names("BTC-USD")

    assert sequences(leader) == [8, 4]
    state = gzip.decompress(leader.snapshots.load(name))
    assert Market.restore(state).snapshot() == leader.market.snapshot()
    assert (name.digest, name.state) == (leader.market.digest, hash_of(state))


def test_snapshot_is_stored_after_so_many_events_too() -> None:
    leader = a_writer(snapshot_events=10)
    leader.send(*(buy("1 @ 100", number) for number in range(1, 8)))
    leader.run()
    assert sequences(leader) == []

    leader.commit(8)
    assert sequences(leader) == [3]
    leader.commit(9, 9)
    assert sequences(leader) == [3]
    leader.commit(18)
    assert sequences(leader) == [13, 3]


def test_state_is_written_down_as_it_is_at_a_commit_while_the_loop_goes_on() -> None:
    leader = a_writer(snapshot_commits=2)
    leader.send(buy("1 @ 100", 1))
    (taken,) = leader.given(TakeSnapshot)
    assert taken.position.sequence == 2
    leader.commit(2)

    assert 2 in sequences(leader)


def test_only_one_snapshot_is_under_way() -> None:
    leader = a_writer(snapshot_commits=2)
    leader.send(buy("1 @ 100", 1))
    leader.perform(leader.take(Append))
    for number in range(2, 8):
        leader.send(buy("1 @ 100", number))
        leader.perform(leader.take(Append))
    assert len(leader.given(TakeSnapshot)) == 1

    leader.run()
    leader.commit(8, 2)
    assert [effect.position.sequence for effect in leader.given(TakeSnapshot)] == [2, 10]


def test_snapshot_that_could_not_be_written_is_tried_again_later() -> None:
    leader = a_writer(snapshot_commits=2)
    leader.send(buy("1 @ 100", 1))
    leader.perform(leader.take(Append))
    leader.under_way.clear()
    (taking,) = leader.given(TakeSnapshot)
    leader.give(SnapshotFailed(taking.position))

    leader.commit(2, 2)
    assert sequences(leader) == [4]


def test_two_are_kept_and_an_older_one_for_a_minute_more() -> None:
    leader = a_writer(snapshot_commits=2)
    leader.commit(1, 6)
    assert sequences(leader) == [6, 4, 2]

    leader.pass_time(ms=59_999)
    leader.run()
    assert sequences(leader) == [6, 4, 2]
    leader.pass_time(ms=1)
    leader.run()
    assert sequences(leader) == [6, 4]


def test_old_snapshots_go_while_there_is_never_a_quiet_moment() -> None:
    leader = a_writer(snapshot_commits=20)
    for number in range(1, 200):
        leader.wall += 1_000_000
        leader.monotonic += 1_000_000
        leader.give(Tick())
        leader.commit(number)

    assert sequences(leader) == [200, 180, 160, 140, 120]
    assert len(leader.given(RemoveSnapshot)) == 5
    leader.check()


def test_snapshots_of_a_server_before_are_counted() -> None:
    leader = a_writer(snapshot_commits=2)
    leader.commit(1, 6)
    leader.stop()
    again = leading(beside(leader, snapshot_commits=2))
    again.on_duty()
    again.commit(7, 4)
    assert sequences(again) == [12, 10, 6, 4, 2]
    again.pass_time(ms=60_000)
    again.run()

    assert sequences(again) == [12, 10]


@pytest.mark.parametrize("is_led_again", [False, True])
def test_state_of_a_leadership_that_was_lost_is_never_stored(is_led_again: bool) -> None:
    """It is of a commit that the log does not have; peers are given what is stored as it is
    (G17)."""
    leader = a_writer(snapshot_commits=2)
    leader.send(buy("1 @ 100", 1))
    assert len(leader.given(TakeSnapshot)) == 1
    writing = leader.under_way.pop()
    leading(beside(leader))
    leader.run()
    assert leader.replica.role == "follower"
    if is_led_again:
        leader.nominate()
        leader.run()
        leader.commit(2, 3)
    stored = sequences(leader)
    leader.perform(writing)
    leader.run()

    assert sequences(leader) == stored
    for name in leader.snapshots.names("BTC-USD"):
        entry = leader.log.entry(name.position.sequence)
        assert entry is not None
        assert (
            Market.restore(gzip.decompress(leader.snapshots.load(name))).hash == name.position.hash
        )
    leader.check()


def test_state_ahead_of_the_log_is_stored_when_the_log_is_that_far() -> None:
    """Writing is often faster than the append that it is the state after."""
    leader = a_writer(snapshot_commits=2)
    leader.send(buy("1 @ 100", 1))
    leader.run(hold=(Append,))
    assert leader.given(TakeSnapshot)
    assert leader.given(SaveSnapshot) == []

    leader.run()
    assert sequences(leader) == [2]


def test_equal_states_are_packed_to_equal_bytes_however_they_were_reached() -> None:
    market, other = a_market(), a_market()
    for each in (market, other):
        send(each, buy("1 @ 100", 1))
        send(each, sell("1 @ 100", 1, peer="bob"), peer="bob")

    packed = snapshotting.pack(market.snapshot())
    assert packed == snapshotting.pack(Market.restore(other.snapshot()).snapshot())
    assert gzip.decompress(packed) == market.snapshot()
