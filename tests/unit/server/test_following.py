"""A follower keeps its state at the log's end: by what it hears, and by what it reads of the rest.

What does not follow from its state stops it, with an alarm that names the commit.
"""

import pytest

from dex_protocol.codec import encode_commit, hash_of
from dex_protocol.queries import StatusQuery
from dex_server.replication.effects import (
    EndFound,
    FindEnd,
    Heard,
    ListSnapshots,
    LoadSnapshot,
    Look,
    ReadLog,
    Start,
)
from dex_server.replication.following import LAG_COUNT_MAX
from dex_server.replication.ports import Entry
from tests.builders import buy
from tests.unit.server.harness import Harness, a_leader, beside, cut, following, leading


@pytest.fixture
def follower(leader: Harness) -> Harness:
    """Follow the market that is led beside, from its first commit on."""
    return following(beside(leader))


def reads(follower: Harness) -> list[tuple[int, int]]:
    """Tell what was read of the log, in order."""
    return [(read.from_sequence, read.through_sequence) for read in follower.given(ReadLog)]


def is_at_end(follower: Harness, leader: Harness) -> bool:
    """Tell whether the follower has the leader's state, which is the log's."""
    follower.check()
    return follower.market.snapshot() == leader.market.snapshot()


# --- What is heard ------------------------------------------------------------------------------


def test_what_is_heard_is_applied_and_the_log_is_not_asked(
    leader: Harness, follower: Harness
) -> None:
    asked = len(follower.seen)
    leader.commit(1, 2)
    follower.hear()
    leader.commit(3)
    follower.hear()

    assert is_at_end(follower, leader)
    assert follower.replica.stored == 4
    assert follower.seen[asked:] == []


def test_gap_in_what_is_heard_is_read(leader: Harness, follower: Harness) -> None:
    before = len(reads(follower))
    leader.commit(1, 5)
    follower.hear(but=[3, 4])
    assert follower.replica.stored == 2
    follower.run()

    assert is_at_end(follower, leader)
    assert reads(follower)[before:] == [(3, 6)]


def test_what_is_heard_while_a_gap_is_read_is_read_in_its_turn(
    leader: Harness, follower: Harness
) -> None:
    """Both in order; one reading at a time is enough."""
    before = len(reads(follower))
    leader.commit(1, 2)
    follower.hear(but=[2])
    follower.perform(follower.take(FindEnd))
    leader.commit(3, 2)
    follower.hear()
    assert len(follower.waiting(ReadLog)) == 1
    assert follower.waiting(FindEnd) == []
    follower.run()

    assert is_at_end(follower, leader)
    assert reads(follower)[before:] == [(2, 3), (4, 5)]


def test_commit_that_nobody_heard_is_found_after_a_second_of_silence(
    leader: Harness, follower: Harness
) -> None:
    """What is broadcast last may be lost too, and nothing comes after it that would tell."""
    leader.commit(1, 2)
    follower.hear(but=[3])
    follower.pass_time(ms=999)
    assert follower.waiting(FindEnd) == []

    follower.pass_time(ms=1)
    follower.run()
    assert is_at_end(follower, leader)


def test_one_that_hears_something_does_not_ask(leader: Harness, follower: Harness) -> None:
    for number in (1, 2, 3):
        follower.pass_time(ms=900)
        leader.commit(number)
        follower.hear()

    assert follower.waiting(FindEnd) == []


@pytest.mark.parametrize("payload", [None, b"something else"], ids=["the same", "another"])
def test_entry_that_is_not_new_is_ignored(
    leader: Harness, follower: Harness, payload: bytes | None
) -> None:
    """Broadcasts may come twice; what was applied is the log's, whatever is said of it."""
    leader.commit(1, 2)
    follower.hear()
    old = follower.entry(2)
    follower.give(Heard([Entry(2, payload or old.payload, old.stored_at)]))
    leader.commit(3)
    third = follower.entry(4)
    follower.give(Heard([third, third]))

    assert is_at_end(follower, leader)
    assert follower.under_way == type(follower.under_way)()


@pytest.mark.parametrize("is_waited_for", [ListSnapshots, LoadSnapshot, Look, FindEnd, ReadLog])
def test_what_is_heard_before_there_is_a_state_is_found_later(
    is_waited_for: type, leader: Harness
) -> None:
    writer = a_leader(snapshot_commits=3)
    writer.on_duty()
    writer.commit(1, 3)
    follower = beside(writer)
    follower.give(Start())
    follower.run(hold=(is_waited_for,))
    assert follower.waiting(is_waited_for)
    writer.commit(4)
    follower.hear()
    follower.run()

    assert is_at_end(follower, writer)
    assert follower.replica.is_current


def test_heard_behind_the_answer_to_where_the_log_ends_is_no_loss(
    leader: Harness, follower: Harness
) -> None:
    """The answer was true when it was given; on a busy market the broadcasts overtake it."""
    follower.pass_time(ms=1_000)
    follower.take(FindEnd)
    ended = EndFound(*follower.log.bounds())
    leader.commit(1)
    follower.hear()
    follower.give(ended)

    assert follower.replica.is_current
    assert follower.warnings == []


# --- What does not follow -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "word"),
    [({}, "digest"), ({"previous": "1" * 32}, "previous"), ({"sequence": 4}, "sequence")],
    ids=["digest", "chain", "sequence"],
)
@pytest.mark.parametrize("is_heard", [True, False])
def test_commit_that_does_not_follow_stops_the_replica_only_if_it_was_read(
    leader: Harness, follower: Harness, changes: dict[str, object], word: str, is_heard: bool
) -> None:
    """Who can broadcast can make up what he likes; the log is the truth (G15)."""
    leader.commit(1)
    follower.hear()
    fields = {
        "market": "BTC-USD",
        "sequence": 3,
        "term": 1,
        "time": leader.wall,
        "previous": hash_of(follower.entry(2).payload),
        "digest": "0" * 16,
        "events": b"",
    }
    bad = encode_commit(**(fields | changes))  # type: ignore[arg-type]
    if is_heard:
        follower.give(Heard([Entry(3, bad, leader.wall)]))
        assert is_at_end(follower, leader)
        leader.commit(2)
        follower.run()

        assert is_at_end(follower, leader)
        assert (follower.alarms, follower.could_lead) == ([], True)
        (warning,) = follower.warnings
        assert "commit 3" in warning
        assert word in warning
        return
    follower.log = cut(leader.log, 2, instead=bad)
    follower.pass_time(ms=1_000)
    follower.run()

    assert follower.replica.role == "stopped"
    assert (follower.is_listening, follower.could_lead) == (False, False)
    (alarm,) = follower.alarms
    assert "commit 3" in alarm
    assert word in alarm
    follower.nominate()
    follower.run()
    assert follower.replica.role == "stopped"


# --- What is made up ----------------------------------------------------------------------------


def made_up(follower: Harness, sequence: int, payload: bytes = b"") -> None:
    """Let a follower hear what the log does not have."""
    follower.give(Heard([Entry(sequence, payload, 0)]))


@pytest.mark.parametrize("sequence", [6, 1_000, 2**63, 10**4_000])
def test_made_up_place_is_asked_about_and_never_read(
    leader: Harness, follower: Harness, sequence: int
) -> None:
    """Nor is it a commit that the log has lost."""
    leader.commit(1, 3)
    follower.hear()
    before = reads(follower)
    for _ in range(20):
        made_up(follower, sequence)
        follower.run()
        follower.pass_time(ms=1_000)
        follower.run()

        assert follower.replica.standing.lag == 0
        assert (follower.warnings, follower.alarms) == ([], [])
        assert follower.could_lead
    assert reads(follower) == before


def test_made_up_places_cost_a_question_a_second(leader: Harness, follower: Harness) -> None:
    asked = len(follower.given(FindEnd))
    for number in range(100):
        made_up(follower, 10 + number)
        follower.run()

    assert len(follower.given(FindEnd)) == asked + 1


def test_made_up_commits_are_tried_once_a_second(leader: Harness, follower: Harness) -> None:
    """What is stored meanwhile is read."""
    for number in range(1, 6):
        leader.commit(number)
        made_up(follower, number + 1, b"made up")
        follower.hear()
        follower.run()

        assert is_at_end(follower, leader)
    assert len(follower.warnings) == 1
    follower.pass_time(ms=1_000)
    follower.run()
    asked = len(follower.seen)
    leader.commit(6)
    follower.hear()
    assert is_at_end(follower, leader)
    assert follower.seen[asked:] == []


def test_made_up_noise_keeps_nobody_from_asking_after_a_silence(
    leader: Harness, follower: Harness
) -> None:
    leader.commit(1)
    follower.hear(but=[2])
    for _ in range(3):
        made_up(follower, 1)
        follower.pass_time(ms=400)
    follower.run()

    assert is_at_end(follower, leader)


# --- Far behind, or in doubt --------------------------------------------------------------------


@pytest.mark.parametrize("missing", [LAG_COUNT_MAX, LAG_COUNT_MAX + 1])
def test_follower_that_is_far_behind_is_not_current_until_it_has_caught_up(missing: int) -> None:
    leader = a_leader(window=2)
    follower = following(beside(leader))
    leader.commit(1, missing)
    follower.hear(but=range(2, missing + 1))
    follower.run(hold=(ReadLog,))

    assert follower.replica.standing.lag == missing
    assert follower.replica.is_current is follower.could_lead is (missing <= LAG_COUNT_MAX)
    follower.run()
    assert follower.replica.is_current
    assert follower.replica.standing.lag == 0
    assert is_at_end(follower, leader)


def in_doubt(follower: Harness, *, log_end: int) -> None:
    """Let a follower ask a node that does not know the log's end."""
    follower.log = cut(follower.log, log_end)
    follower.pass_time(ms=1_000)
    follower.run()


def test_log_that_ends_too_early_is_asked_again_before_anybody_stops(
    leader: Harness, follower: Harness
) -> None:
    """It may be a node that was cut off, and will notice (G16)."""
    leader.commit(1, 3)
    follower.hear()
    in_doubt(follower, log_end=2)

    (warning,) = follower.warnings
    assert "ends at 2" in warning
    assert "commit 4" in warning
    assert not follower.replica.is_current
    for _ in range(14):
        follower.pass_time(ms=1_000)
        follower.run()
        assert follower.replica.role == "follower"
    assert len(follower.warnings) == 1
    follower.pass_time(ms=1_000)
    follower.run()
    assert follower.replica.role == "stopped"
    assert "lost commits" in follower.alarms[0]


def test_log_that_is_whole_again_is_followed_again(leader: Harness, follower: Harness) -> None:
    leader.commit(1, 3)
    follower.hear()
    in_doubt(follower, log_end=2)
    follower.log = leader.log
    leader.commit(4)
    follower.pass_time(ms=1_000)
    follower.run()

    assert follower.replica.is_current
    assert is_at_end(follower, leader)
    # And what was doubted is forgotten.
    follower.pass_time(ms=14_000)
    in_doubt(follower, log_end=2)
    follower.pass_time(ms=14_000)
    follower.run()
    assert follower.replica.role == "follower"


def test_doubt_ends_although_there_is_never_a_silence(leader: Harness, follower: Harness) -> None:
    """A busy market would never ask where the log ends otherwise, and nobody could lead it."""
    leader.commit(1, 3)
    follower.hear()
    in_doubt(follower, log_end=2)
    follower.log = leader.log
    for number in range(4, 8):
        leader.commit(number)
        follower.hear()
        follower.pass_time(ms=500)
        follower.run()

    assert follower.replica.is_current
    assert is_at_end(follower, leader)


def test_log_that_grew_again_over_what_it_lost_stops_a_follower(
    leader: Harness, follower: Harness
) -> None:
    """To just the length that it had, so that nothing is missing (G16)."""
    leader.commit(1, 2)
    follower.hear()
    in_doubt(follower, log_end=1)
    other = leading(Harness(log=cut(leader.log, 1), server="server-3"))
    other.commit(9)
    assert other.end == leader.end == 3

    follower.log = other.log
    follower.pass_time(ms=1_000)
    follower.run()

    assert follower.replica.role == "stopped"
    (alarm,) = follower.alarms
    assert "another commit 3" in alarm


def test_heard_behind_a_gap_is_no_sign_that_the_log_has_lost_it(
    leader: Harness, follower: Harness
) -> None:
    """Anybody could have said so. Nor is it read again and again without a pause."""
    leader.commit(1, 3)
    follower.log = cut(leader.log, 2)
    follower.give(Heard([leader.entry(4)]))
    follower.run()

    assert follower.replica.is_current
    assert follower.replica.stored == 2
    for _ in range(20):
        follower.pass_time(ms=1_000)
        follower.run()
    assert (follower.replica.role, follower.warnings, follower.alarms) == ("follower", [], [])


def test_follower_that_the_log_was_trimmed_ahead_of_begins_again_from_a_snapshot() -> None:
    writer = a_leader(snapshot_commits=2, trims_log=True)
    follower = following(beside(writer))
    writer.on_duty()
    writer.commit(1, 8)
    assert writer.log.bounds() == (6, 9)
    follower.pass_time(ms=1_000)
    follower.run()

    assert follower.alarms == []
    assert follower.market.snapshot() == writer.market.snapshot()


def test_standing_says_whose_lead_and_how_far(leader: Harness, follower: Harness) -> None:
    leader.commit(1)
    follower.hear()
    leader.send(buy("1 @ 100", 2))
    leader.pass_time(ms=1)

    standing, other = leader.replica.standing, follower.replica.standing
    assert (standing.role, other.role) == ("leader", "follower")
    assert standing.leader == other.leader == "server-1"
    # As of what is stored: the leader's state is a commit ahead.
    assert standing.sequence == other.sequence == 2
    assert standing.digest == other.digest == follower.market.digest
    assert leader.market.sequence == 3


def test_follower_that_is_cut_off_tells_what_it_has_and_waits_for_what_it_has_not(
    leader: Harness, follower: Harness
) -> None:
    """An answer may be of any age, but for `min_sequence` (G14)."""
    leader.commit(1)
    for _ in range(60):
        follower.pass_time(ms=1_000)
        follower.run(hold=(FindEnd,))
    old = follower.ask(StatusQuery())
    new = follower.ask(StatusQuery(min_sequence=2))
    follower.run(hold=(FindEnd,))

    assert follower.answer(old)["sequence"] == 1
    assert follower.answer(new) is None

    follower.pass_time(ms=1_000)
    follower.run(hold=(FindEnd,))

    assert follower.answer(new)["reason"] == "unavailable"
