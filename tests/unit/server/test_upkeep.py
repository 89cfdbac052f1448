"""One server writes a market's snapshots, all others compare their state with them."""

from typing import Any

import pytest

from dex_server.replication.effects import (
    HashState,
    ListSnapshots,
    RemoveSnapshot,
    SnapshotFailed,
    StateHashed,
    TakeSnapshot,
)
from tests.builders import buy
from tests.unit.server.harness import Harness, a_leader, beside, following


def a_pair(**settings: Any) -> tuple[Harness, Harness]:
    """Make a leader that writes the snapshots, and a follower."""
    leader = a_leader(**settings)
    leader.on_duty()
    return leader, following(beside(leader, **settings))


def taken(server: Harness) -> list[int]:
    """Tell after which commits a server wrote its state down."""
    return [effect.position.sequence for effect in server.given(TakeSnapshot)]


def hashed(server: Harness) -> list[int]:
    """Tell after which commits a server hashed its state."""
    return [effect.position.sequence for effect in server.given(HashState)]


def commit(leader: Harness, follower: Harness, first: int, count: int = 1) -> None:
    """Make commits, and have them heard."""
    for number in range(first, first + count):
        leader.commit(number)
        follower.hear()
        follower.run()


# --- When ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ({"snapshot_commits": 5}, [5, 10, 15]),
        # The first commit has two events, each other one.
        ({"snapshot_events": 5}, [4, 9, 14]),
        ({"snapshot_commits": 6, "snapshot_events": 5}, [4, 6, 9, 12, 14]),
    ],
    ids=["commits", "events", "both"],
)
@pytest.mark.parametrize("who", ["leader", "follower"])
def test_snapshot_is_due_after_the_same_commits_for_everybody(
    settings: dict[str, int], due: list[int], who: str
) -> None:
    leader, follower = a_pair(**settings)
    third = following(beside(leader, server="server-3", **settings))
    if who == "follower":
        leader.on_duty(is_mine=False)
        follower.on_duty()
    for number in range(1, 17):
        commit(leader, follower, number)
        third.hear()
        third.run()

    writer, other = (leader, follower) if who == "leader" else (follower, leader)
    assert taken(writer) == hashed(third) == due
    assert [name.position.sequence for name in leader.snapshots.names("BTC-USD")] == due[::-1]
    # A leader that does not write has other things to do.
    assert hashed(other) == (due if other is follower else [])
    assert taken(other) == taken(third) == []


def test_commit_that_was_due_while_another_state_is_written_moves_nothing() -> None:
    """Written after another commit than everybody's, there would be nothing to compare it with."""
    leader = a_leader(snapshot_commits=3)
    leader.on_duty()
    leader.commit(1)
    leader.send(buy("1 @ 100", 2))
    for number in range(3, 7):
        leader.perform(leader.under_way.popleft())
        leader.send(buy("1 @ 100", number))
        leader.under_way.rotate()
    while len(leader.under_way) > 1:
        leader.perform(leader.under_way.popleft())
    leader.run()
    leader.commit(10, 6)

    assert all(sequence % 3 == 0 for sequence in taken(leader))
    assert len(taken(leader)) >= 2


def test_what_is_read_on_the_way_to_the_end_is_not_compared() -> None:
    leader, _ = a_pair(snapshot_commits=3)
    leader.commit(1, 10)

    assert hashed(following(beside(leader, snapshot_commits=3))) == []


def test_entries_heard_together_are_stopped_at_for_the_state_in_between() -> None:
    """It is hashed as it is at that commit, before the next input changes it."""
    leader, follower = a_pair(snapshot_commits=3)
    leader.commit(1, 10)
    follower.hear()
    assert follower.replica.stored == 3
    follower.run()

    assert follower.replica.stored == leader.end
    assert hashed(follower) == [3, 6, 9]


# --- Comparing ----------------------------------------------------------------------------------


def test_equal_states_are_compared_once_and_nobody_says_anything() -> None:
    leader, follower = a_pair(snapshot_commits=3)
    commit(leader, follower, 1, 2)
    listed = len(follower.given(ListSnapshots))
    follower.pass_time(ms=4_999)
    follower.run()
    assert len(follower.given(ListSnapshots)) == listed

    for _ in range(4):
        follower.pass_time(ms=5_000)
        follower.run()
    assert len(follower.given(ListSnapshots)) == listed + 1
    assert (follower.alarms, follower.replica.role) == ([], "follower")


def test_state_that_no_digest_shows_to_be_different_stops_the_replica() -> None:
    """The digest is the book's; what was last paid is only in the state (G15)."""
    leader, follower = a_pair(snapshot_commits=3)
    commit(leader, follower, 1)
    follower.market.last_price = 7
    commit(leader, follower, 2)
    (name,) = leader.snapshots.names("BTC-USD")
    assert name.digest == follower.market.digest
    follower.pass_time(ms=5_000)
    follower.run()

    assert (follower.replica.role, leader.replica.role) == ("stopped", "leader")
    (alarm,) = follower.alarms
    assert name.state in alarm
    assert "commit 3" in alarm
    assert len({word for word in alarm.split() if len(word.strip(",")) == 32}) == 2


def test_snapshot_that_is_not_there_yet_is_looked_for_again() -> None:
    leader, follower = a_pair(snapshot_commits=3)
    leader.on_duty(is_mine=False)
    commit(leader, follower, 1, 2)
    before = len(follower.given(ListSnapshots))
    for _ in range(3):
        follower.pass_time(ms=5_000)
        follower.run()

    assert len(follower.given(ListSnapshots)) == before + 3
    assert follower.replica.role == "follower"


def test_hash_that_could_not_be_made_is_left_out() -> None:
    leader, follower = a_pair(snapshot_commits=3)
    leader.commit(1, 2)
    follower.hear()
    hashed_state = follower.take(StateHashed)
    follower.give(SnapshotFailed(hashed_state.position))
    commit(leader, follower, 3, 3)

    assert hashed(follower) == [3, 6]
    follower.pass_time(ms=5_000)
    follower.run()
    assert follower.replica.role == "follower"


# --- Duty ---------------------------------------------------------------------------------------


def test_only_the_server_on_duty_removes_old_snapshots_after_a_minute_of_it() -> None:
    leader, follower = a_pair(snapshot_commits=2)
    commit(leader, follower, 1, 8)
    leader.on_duty(is_mine=False)
    for server in (leader, follower):
        for _ in range(70):
            server.pass_time(ms=1_000)
            server.run()
    assert len(leader.snapshots.names("BTC-USD")) == 4

    follower.on_duty()
    follower.pass_time(ms=59_999)
    follower.run()
    assert follower.given(RemoveSnapshot) == []
    follower.pass_time(ms=1)
    follower.run()
    stored = [name.position.sequence for name in leader.snapshots.names("BTC-USD")]
    assert stored == [8, 6]
    assert leader.given(RemoveSnapshot) == []


def test_told_twice_of_its_duty_it_looks_once() -> None:
    leader, _ = a_pair()
    before = len(leader.given(ListSnapshots))
    leader.on_duty()

    assert len(leader.given(ListSnapshots)) == before


# --- Trimming -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trims_log", [True, False])
def test_log_is_cut_before_the_older_snapshot_if_the_operator_says_so(trims_log: bool) -> None:
    leader, _ = a_pair(snapshot_commits=3, trims_log=trims_log)
    leader.commit(1, 4)
    assert leader.log.bounds() == (1, 5)
    leader.commit(5)
    assert leader.log.bounds() == (3 if trims_log else 1, 6)
    leader.commit(6, 4)
    assert leader.log.bounds() == (6 if trims_log else 1, 10)

    again = following(beside(leader))
    assert again.market.snapshot() == leader.market.snapshot()
    # The older one is enough, too: its own commit is still there to be compared.
    leader.snapshots.remove(leader.snapshots.names("BTC-USD")[0])
    again = following(beside(leader))
    assert again.market.snapshot() == leader.market.snapshot()
