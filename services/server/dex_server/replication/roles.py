"""The roles of a server in a market, as a table.

Theory of operation. A *follower* brings its state up to the end of the log and keeps it there. A
*candidate* has put the beginning of a term in front of the log and waits for what becomes of it. A
*leader* executes commands. One that is *retiring* takes no more in, and waits for what becomes of
the commits it has under way. Whoever finds another's entry where his own should stand is a
follower again. *Stopped* is for good: told to stop, or the log and the state do not fit.

Who is to lead is decided elsewhere, and arrives as `nominated` and `dismissed`. This file knows no
log.
"""

from typing import Final, Literal

from dex_protocol.standing import Role

Occasion = Literal[
    "nominated",
    "term_stored",
    "outrun",
    "clocks_differ",
    "dismissed",
    "settled",
    "told_to_stop",
    "broken",
]

TRANSITIONS: Final[dict[tuple[Role, Occasion], Role]] = {
    # At the end of the log, and named to lead: it appends `leader_changed`.
    ("follower", "nominated"): "candidate",
    # Its `leader_changed` stands in the log: nobody else's append can land any more.
    ("candidate", "term_stored"): "leader",
    # Another's entry stands where its own should. It tries again while it is named.
    ("candidate", "outrun"): "follower",
    # The same for a leader: somebody else leads, and its state was ahead of the log.
    ("leader", "outrun"): "follower",
    ("retiring", "outrun"): "follower",
    # Its clock and the log's are too far apart to say what is late or expired.
    ("candidate", "clocks_differ"): "follower",
    # Another is to lead. What is under way is waited for, so that it can be answered.
    ("leader", "dismissed"): "retiring",
    # A candidate has nobody to answer; what it appended counts as anybody's.
    ("candidate", "dismissed"): "follower",
    # All that it executed is stored and answered: its state is the log's.
    ("retiring", "settled"): "follower",
    # It finishes what it has under way first, like one that is dismissed.
    ("leader", "told_to_stop"): "retiring",
    # Nothing is under way that anybody waits for.
    ("follower", "told_to_stop"): "stopped",
    ("candidate", "told_to_stop"): "stopped",
    # The log does not lead where it says, or has lost what was applied: an operator must look.
    ("follower", "broken"): "stopped",
    ("candidate", "broken"): "stopped",
}


def next_role(role: Role, occasion: Occasion) -> Role:
    """Give the role that follows; a KeyError here is a bug."""
    return TRANSITIONS[role, occasion]
