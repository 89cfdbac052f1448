"""The table of roles says what it should: every role is reached, and the last one is for good."""

from typing import get_args

import pytest

from dex_protocol.standing import Role
from dex_server.replication.roles import TRANSITIONS, Occasion, next_role

ROLES: frozenset[Role] = frozenset(get_args(Role))


def test_every_role_is_reached_from_follower() -> None:
    reached: set[Role] = {"follower"}
    while True:
        further = {role for (before, _), role in TRANSITIONS.items() if before in reached}
        if further <= reached:
            break
        reached |= further

    assert reached == ROLES


def test_every_occasion_is_one_of_some_role() -> None:
    assert {occasion for _, occasion in TRANSITIONS} == set(get_args(Occasion))


def test_stopped_is_for_good_and_every_other_role_can_be_told_to_stop() -> None:
    """One that is retiring follows as soon as it can be told."""
    assert all(before != "stopped" for before, _ in TRANSITIONS)
    assert {before for before, what in TRANSITIONS if what == "told_to_stop"} == (
        ROLES - {"stopped", "retiring"}
    )


def test_leader_gives_up_its_state_or_settles_it_before_it_is_anything_else() -> None:
    """What it executed is either stored, or is of a state that nobody will ever have."""
    ways = {(role, what) for (before, what), role in TRANSITIONS.items() if before == "leader"}
    assert ways == {
        ("follower", "outrun"),
        ("retiring", "dismissed"),
        ("retiring", "told_to_stop"),
    }
    ends = {(role, what) for (before, what), role in TRANSITIONS.items() if before == "retiring"}
    assert ends == {("follower", "outrun"), ("follower", "settled")}


def test_leader_is_only_who_was_candidate() -> None:
    """Nobody leads before the beginning of its term stands in the log (G13)."""
    ways = {way for way, role in TRANSITIONS.items() if role == "leader"}

    assert ways == {("candidate", "term_stored")}


def test_what_the_table_does_not_have_is_a_bug() -> None:
    with pytest.raises(KeyError):
        next_role("stopped", "nominated")
