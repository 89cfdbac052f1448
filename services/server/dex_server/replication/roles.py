"""The roles of a server in a market, as a table.

Theory of operation. A *follower* brings its state up to the end of the log. A *candidate* has put
the beginning of a term in front of the log and waits for what becomes of it. A *leader* executes
commands. Whoever finds another's entry where his own should stand is a follower again, with none
of the state he had. *Stopped* is for good: told to stop, or the log and the state do not fit.

Who is to lead is decided elsewhere and arrives as `nominated`. This file knows no log.
"""

from typing import Final, Literal

Role = Literal["follower", "candidate", "leader", "stopped"]
Occasion = Literal["nominated", "term_stored", "outrun", "clocks_differ", "told_to_stop", "broken"]

TRANSITIONS: Final[dict[tuple[Role, Occasion], Role]] = {
    # Caught up with the log, and named to lead: it appends `leader_changed`.
    ("follower", "nominated"): "candidate",
    # Its `leader_changed` stands in the log: nobody else's append can land any more.
    ("candidate", "term_stored"): "leader",
    # Another's entry stands where its own should: somebody else leads.
    ("candidate", "outrun"): "follower",
    ("leader", "outrun"): "follower",
    # Its clock and the log's are too far apart to say what is late or expired.
    ("candidate", "clocks_differ"): "follower",
    # It finishes what it has in hand first.
    ("follower", "told_to_stop"): "stopped",
    ("candidate", "told_to_stop"): "stopped",
    ("leader", "told_to_stop"): "stopped",
    # The log does not lead where it says, or has lost what was applied: an operator must look.
    ("follower", "broken"): "stopped",
}


def next_role(role: Role, occasion: Occasion) -> Role:
    """Give the role that follows; a KeyError here is a bug."""
    return TRANSITIONS[role, occasion]
