"""Ids grow whatever the clock does, and never run further ahead than a market remembers."""

from random import Random

import pytest

from dex_client.ids import COUNT_MAX, TIMESTAMP_MAX, Ids, Window
from dex_protocol.ids import Pair, make_pair, pair_of, parse_id
from dex_protocol.limits import RETRY_WINDOW_COUNT

NOW_MS = 1_763_800_000_000
SEED = 11


def test_a_new_peer_counts_from_one_at_the_time() -> None:
    ids = Ids("alice", above=Pair(0))

    assert ids.next("order", NOW_MS) == "order_alice_1763800000000_1"
    assert ids.next("command", NOW_MS + 5) == "command_alice_1763800000005_2"


def test_a_peer_goes_on_above_its_highest_pair() -> None:
    ids = Ids("alice", above=make_pair(NOW_MS - 1000, 41))

    assert ids.next("order", NOW_MS) == "order_alice_1763800000000_42"


def test_a_clock_behind_the_highest_pair_does_not_go_below_it() -> None:
    ids = Ids("alice", above=make_pair(NOW_MS + 1000, 41))

    assert ids.next("order", NOW_MS) == "order_alice_1763800001000_42"


def test_pairs_grow_with_any_clock() -> None:
    """Also with one that goes back (G19)."""
    random = Random(SEED)
    highest = make_pair(NOW_MS, COUNT_MAX - 500)
    ids = Ids("alice", above=highest)

    for _ in range(1_000):
        made = ids.next("order", NOW_MS + random.randrange(-50, 50))

        assert parse_id(made, "order") is not None
        assert pair_of(made) > highest
        highest = pair_of(made)


def test_a_count_at_its_end_goes_on_with_the_next_timestamp() -> None:
    ids = Ids("alice", above=make_pair(NOW_MS + 1000, COUNT_MAX))

    assert ids.next("order", NOW_MS) == "order_alice_1763800001001_1"


def test_a_peer_without_pairs_left_says_so() -> None:
    ids = Ids("alice", above=make_pair(TIMESTAMP_MAX, COUNT_MAX))

    with pytest.raises(OverflowError, match="alice"):
        ids.next("order", NOW_MS)


def test_the_window_is_what_a_market_remembers() -> None:
    """The client's bound and the market's are one number (G4)."""
    window = Window()

    window.sent(RETRY_WINDOW_COUNT)

    assert window.span_max == RETRY_WINDOW_COUNT
    assert not window.has_room(1)


def test_the_oldest_unanswered_holds_back_the_newest() -> None:
    window = Window(span_max=10)
    oldest = window.sent(1)
    others = [window.sent(3) for _ in range(3)]

    for first in others:
        window.answered(first, 3)
    assert not window.has_room(1)

    window.answered(oldest, 1)
    assert window.has_room(10)
    assert not window.has_room(11)


def test_the_span_is_never_exceeded_in_any_order_of_answers() -> None:
    """The oldest unanswered id is what counts (G4)."""
    random = Random(SEED)
    window = Window(span_max=50)
    unanswered: dict[int, int] = {}
    newest = 0

    for _ in range(5_000):
        count = random.randrange(1, 8)
        if window.has_room(count):
            first = window.sent(count)
            unanswered[first] = count
            newest = first + count
        else:
            # It is full for no other reason than the oldest one.
            assert newest + count - min(unanswered) > 50
        assert newest - min(unanswered, default=newest) <= 50
        while unanswered and random.random() < 0.6:
            first = random.choice(list(unanswered))
            window.answered(first, unanswered.pop(first))

    for first, count in unanswered.items():
        window.answered(first, count)
    assert window.has_room(50)
