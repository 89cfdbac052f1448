"""How a request is sent again: what settles it, how long it waits, and how it is given up."""

from random import Random
from typing import get_args

import pytest

from dex_client.retry import GIVEN_UP, TRANSITIONS, Answer, Policy, Sending, State

SEED = 7


class Peer:
    """Sends a request by a clock of its own, and is answered as the test says."""

    def __init__(self, policy: Policy) -> None:
        self.now = 100.0
        self.sending = Sending(policy, Random(SEED), now=self.now)
        self.waits: list[float] = []
        self.pauses: list[float | None] = []

    def is_answered(self, answer: Answer, *, after_s: float | None = None) -> None:
        """Send a copy and be answered; silence lasts as long as the peer waits."""
        wait = self.sending.attempt(self.now)
        self.waits.append(wait)
        self.now += wait if after_s is None else after_s
        pause = self.sending.answered(answer, now=self.now)
        self.pauses.append(pause)
        self.now += pause or 0

    def goes_on_until_given_up(self, answer: Answer, *, after_s: float | None = None) -> None:
        while not self.pauses or self.pauses[-1] is not None:
            self.is_answered(answer, after_s=after_s)


@pytest.mark.parametrize("before", ["untouched", "doubtful"])
@pytest.mark.parametrize("answer", get_args(Answer))
def test_every_answer_has_a_transition(before: State, answer: Answer) -> None:
    assert TRANSITIONS[before, answer] in get_args(State)


def test_only_silence_makes_a_request_doubtful_and_only_a_receipt_settles_it() -> None:
    assert {
        (before, answer) for (before, answer), after in TRANSITIONS.items() if after == "settled"
    } == {("untouched", "receipt"), ("doubtful", "receipt")}
    assert {answer for (_, answer), after in TRANSITIONS.items() if after == "doubtful"} == {
        "silence",
        "retry",
        "no_responder",
    }
    assert TRANSITIONS["untouched", "silence"] == "doubtful"
    assert GIVEN_UP == {"untouched": "unavailable", "doubtful": "unknown"}


def test_a_receipt_settles_at_once() -> None:
    peer = Peer(Policy())

    peer.is_answered("receipt", after_s=0.001)

    assert peer.sending.state == "settled"
    assert peer.pauses == [None]
    assert peer.sending.copies_count == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [((), "unavailable"), (("silence",), "unknown"), (("retry",), "unavailable")],
)
def test_closed_connection_ends_it_at_once_with_what_is_known(
    before: tuple[Answer, ...], after: State
) -> None:
    peer = Peer(Policy())
    for answer in before:
        peer.is_answered(answer)

    peer.is_answered("closed", after_s=0)

    assert peer.sending.state == after
    assert peer.pauses[-1] is None


def test_waiting_doubles_from_200_ms_to_1_s() -> None:
    peer = Peer(Policy(deadline_s=1000))

    for _ in range(6):
        peer.is_answered("silence")

    assert peer.waits == [0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_pauses_double_up_to_a_bound_and_are_spread_over_half_of_themselves() -> None:
    policy = Policy(deadline_s=1000)
    peer = Peer(policy)

    for _ in range(12):
        peer.is_answered("retry", after_s=0.001)

    longest = policy.pause_min_s
    for pause in peer.pauses:
        assert pause is not None
        assert longest / 2 <= pause <= longest
        longest = min(2 * longest, policy.pause_max_s)


def test_two_peers_do_not_pause_alike() -> None:
    pauses = []
    for seed in (1, 2):
        sending = Sending(Policy(), Random(seed), now=0.0)
        sending.attempt(0.0)
        pauses.append(sending.answered("retry", now=0.001))

    assert pauses[0] != pauses[1]


@pytest.mark.parametrize("answer", ["retry", "no_responder"])
def test_every_copy_refused_until_the_deadline_is_unavailable(answer: Answer) -> None:
    peer = Peer(Policy(deadline_s=5))

    peer.goes_on_until_given_up(answer, after_s=0.001)

    assert peer.sending.state == "unavailable"


@pytest.mark.parametrize("silent_copy", [0, 1, 3])
def test_one_silent_copy_makes_the_deadline_unknown(silent_copy: int) -> None:
    peer = Peer(Policy(deadline_s=5))

    for _ in range(silent_copy):
        peer.is_answered("retry", after_s=0.001)
    peer.is_answered("silence")
    peer.goes_on_until_given_up("retry", after_s=0.001)

    assert peer.sending.state == "unknown"


def test_a_receipt_after_silence_settles() -> None:
    peer = Peer(Policy())

    peer.is_answered("silence")
    peer.is_answered("receipt", after_s=0.001)

    assert peer.sending.state == "settled"
    assert peer.sending.copies_count == 2


@pytest.mark.parametrize("answer", ["retry", "no_responder", "silence"])
@pytest.mark.parametrize("deadline_s", [0.01, 0.3, 1.0, 5.0, 3600.0])
def test_giving_up_is_on_time_and_the_last_copy_has_a_whole_attempt(
    answer: Answer, deadline_s: float
) -> None:
    policy = Policy(deadline_s=deadline_s)
    peer = Peer(policy)

    peer.goes_on_until_given_up(answer, after_s=None if answer == "silence" else 0.001)

    assert peer.now <= 100 + deadline_s + 1e-6
    assert min(peer.waits) >= min(policy.attempt_min_s, deadline_s) - 1e-6
    # Not early either: another pause and another attempt did not fit.
    assert peer.now >= 100 + deadline_s - policy.pause_max_s - policy.attempt_min_s


def test_the_first_copy_is_sent_however_short_the_deadline() -> None:
    peer = Peer(Policy(deadline_s=0.01))

    peer.is_answered("receipt", after_s=0.005)

    assert peer.waits == [pytest.approx(0.01)]
    assert peer.sending.state == "settled"


def test_a_process_that_was_held_up_does_not_wait_for_negative_times() -> None:
    peer = Peer(Policy(deadline_s=1))

    peer.is_answered("retry", after_s=0.001)
    peer.now += 60

    assert peer.sending.attempt(peer.now) == 0.2
