"""How a request is sent again until it has an outcome: short attempts under one deadline.

Theory of operation. What is sent again are *copies* of one request: the same commands with the
same ids, fewer as some of them get their outcome. A copy is answered in one of four ways
(`Answer`); what is known of the request is one of five states, and TRANSITIONS is the whole rule.
As long as every copy was answered `retry`, or reached nobody, nothing was executed (`untouched`).
One copy that nobody answered may have been executed, now or later (`doubtful`), and no other
copy's `retry` takes that back; only a receipt does. At the deadline the first is `unavailable`,
the second `unknown`.

A query goes the same way; it merely has nothing to be executed.

Pure: the time comes in, and so does the Random that spreads the pauses. Knows nothing of NATS.
"""

from random import Random
from typing import Final, Literal

from msgspec import Struct

Answer = Literal["receipt", "retry", "no_responder", "silence", "closed"]
"""What came back for one copy: an outcome for good, a refusal too; that this copy was not and will
not be executed; that it reached nobody; nothing in time, so that it may have been executed, or may
be later; that neither it nor any other can be sent."""

State = Literal["untouched", "doubtful", "settled", "unavailable", "unknown"]
"""What is known of a request: no copy was, or will be, executed; a copy may have been; it has an
outcome; given up, and nothing was executed; given up, and it may have been."""

TRANSITIONS: Final[dict[tuple[State, Answer], State]] = {
    ("untouched", "receipt"): "settled",
    ("untouched", "retry"): "untouched",
    ("untouched", "no_responder"): "untouched",
    ("untouched", "silence"): "doubtful",
    ("untouched", "closed"): "unavailable",
    ("doubtful", "receipt"): "settled",
    ("doubtful", "retry"): "doubtful",
    ("doubtful", "no_responder"): "doubtful",
    ("doubtful", "silence"): "doubtful",
    ("doubtful", "closed"): "unknown",
}
"""What an answer to a copy makes of a request; the other states are ends."""

GIVEN_UP: Final[dict[State, State]] = {
    "untouched": "unavailable",
    "doubtful": "unknown",
}
"""What the deadline makes of a request."""


class Policy(Struct, frozen=True, kw_only=True):
    """How long, and how often."""

    deadline_s: float = 30.0
    """From the first copy to giving up. A NATS node's death takes 4 to 9 s to repair, a server's
    restart by hand longer."""
    attempt_min_s: float = 0.2
    """How long the first copy waits for its answer: a request sent in the very moment of a
    leader's death is swallowed, the next one is told at once. Less resends what is merely slow."""
    attempt_max_s: float = 1.0
    """Waiting doubles from copy to copy up to this: a server does not execute what waited for 1 s,
    so a longer wait is for nothing."""
    pause_min_s: float = 0.01
    """Between the first answer that is none and the second copy; half of it and more, by chance,
    so that peers do not come back all at once. A leader that is gone is replaced in about 0.1 s."""
    pause_max_s: float = 0.5
    """Pauses double up to this: what a recovery may go unnoticed."""


class Sending:
    """One request on its way to an outcome.

    Ordering: `attempt` before each copy, `answered` after it, until `state` is an end.
    """

    __slots__ = (
        "_deadline",
        "_patience_s",
        "_pause_s",
        "_policy",
        "_random",
        "copies_count",
        "state",
    )

    def __init__(
        self, policy: Policy, random: Random, *, now: float, is_doubtful: bool = False
    ) -> None:
        """Begin.

        Args:
            policy: How long, and how often.
            random: Spreads the pauses.
            now: Seconds by any clock that does not go back.
            is_doubtful: Whether copies were sent before that may have been executed.
        """
        self._policy = policy
        self._random = random
        self._deadline = now + policy.deadline_s
        self._patience_s = policy.attempt_min_s
        self._pause_s = policy.pause_min_s
        self.copies_count = 0
        self.state: State = "doubtful" if is_doubtful else "untouched"

    def attempt(self, now: float) -> float:
        """Note that a copy is sent, and give how long to wait for its answer, in seconds."""
        self.copies_count += 1
        patience = self._patience_s
        left = self._deadline - now
        if patience > left:
            return max(left, min(self._policy.attempt_min_s, self._policy.deadline_s))
        self._patience_s = 2 * patience
        if self._patience_s > self._policy.attempt_max_s:
            self._patience_s = self._policy.attempt_max_s
        return patience

    def answered(self, answer: Answer, *, now: float) -> float | None:
        """Note what came back for the newest copy.

        Returns:
            How long to pause before the next copy, in seconds; None when `state` is an end.
        """
        self.state = TRANSITIONS[self.state, answer]
        if self.state not in GIVEN_UP:
            return None
        policy = self._policy
        pause = self._pause_s * (1 + self._random.random()) / 2
        self._pause_s = min(2 * self._pause_s, policy.pause_max_s)
        # The last copy gets a whole first attempt too: one that is cut short would only turn
        # "unavailable" into "unknown".
        if now + pause + policy.attempt_min_s > self._deadline:
            self.state = GIVEN_UP[self.state]
            return None
        return pause
