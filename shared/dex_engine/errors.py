"""What can go wrong in the engine. Refusals are not here: they are receipts.

Exception
├── InvariantViolated    our code is wrong: let the process die, rebuild the state from the log
└── Diverged             a commit does not fit this replica: stop it, name the commit
"""


class InvariantViolated(AssertionError):
    """A law of the book does not hold; what is printed is what was found."""


class Diverged(Exception):
    """A commit does not follow from this replica's state, or does not lead where it says.

    The replica has applied nothing of the commit. If it was heard, it may be made up: read what the
    log has there. If that differs, build another replica, from a snapshot or from the log's
    beginning; when that one differs too, the log or the rules are broken, and an operator must
    look.
    """

    def __init__(self, sequence: int, what: str, *, expected: object, found: object) -> None:
        super().__init__(f"commit {sequence}: expected {what} {expected}, found {found}")
        self.sequence = sequence
        self.what = what
        self.expected = expected
        self.found = found
