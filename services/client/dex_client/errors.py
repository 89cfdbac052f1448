"""What can go wrong for a peer beside refusals, which are receipts.

Exception
└── ExchangeError
    ├── Unavailable         nothing happened: ask again whenever you like
    ├── OutcomeUnknown      it may have happened: ask again with the same id, and only with that
    └── ProtocolMismatch    the other side speaks something else: do not go on
"""


class ExchangeError(Exception):
    """The exchange could not be asked, or not understood."""


class Unavailable(ExchangeError):
    """Nobody serves what was asked for, and nothing was executed."""

    def __init__(self, what: str, *, deadline_s: float) -> None:
        super().__init__(f"expected {what} within {deadline_s:g} s, found nobody who serves it")
        self.what = what
        self.deadline_s = deadline_s


class OutcomeUnknown(ExchangeError):
    """A command may or may not have been executed; only a resend with its own id can tell."""

    def __init__(self, own_id: str, *, deadline_s: float) -> None:
        super().__init__(f"expected an outcome of {own_id} within {deadline_s:g} s, found none")
        self.own_id = own_id
        self.deadline_s = deadline_s


class ProtocolMismatch(ExchangeError):
    """A reply is not what the protocol says it is."""

    def __init__(self, what: str, *, expected: str, found: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}")
        self.what = what
        self.expected = expected
        self.found = found
