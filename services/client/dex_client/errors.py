"""What can go wrong for a peer beside refusals, which are receipts.

Exception
└── ExchangeError
    ├── Unavailable         nothing happened: ask again whenever you like
    │   ├── Unreachable     no NATS server lets us in
    │   └── BookUnavailable a replica is being rebuilt, or has ended
    ├── OutcomeUnknown      it may have happened: ask again with the same id, and only with that
    ├── NotConfirmed        an operator's wish may have been done: do it again, which is harmless
    ├── NotPermitted        NATS does not let our key ask for this
    ├── UnknownMarket       there is nothing to follow
    ├── LogTrimmed          what should be followed is not in the log any more
    └── ProtocolMismatch    the other side speaks something else: do not go on
"""

from collections.abc import Sequence
from typing import Final

from dex_protocol.commands import Command, own_id
from dex_protocol.receipts import Receipt


class ExchangeError(Exception):
    """The exchange could not be asked, or not understood."""


class Unavailable(ExchangeError):
    """Nobody serves what was asked for, and nothing was executed."""

    def __init__(self, what: str, *, deadline_s: float) -> None:
        super().__init__(f"expected {what} within {deadline_s:g} s, found nobody who serves it")
        self.what = what
        self.deadline_s = deadline_s


class Unreachable(Unavailable):
    """No NATS server let us in: none answered in time, or one refused who we say we are.

    Attributes:
        is_refusal: Whether it was the latter, or we did not believe who they are.
    """

    def __init__(self, text: str, *, deadline_s: float, is_refusal: bool = False) -> None:
        Exception.__init__(self, text)
        self.is_refusal = is_refusal
        self.what = "a NATS server"
        self.deadline_s = deadline_s


def no_more(deadline_s: float = 0) -> Unreachable:
    """Say that the connection was closed for good, as when a key is taken back."""
    text = "no NATS node lets us in any more: perhaps the key was taken back"
    return Unreachable(text, deadline_s=deadline_s, is_refusal=True)


class NotPermitted(ExchangeError):
    """NATS let us in, and did not pass on what we asked: our key does not allow it.

    Attributes:
        subject: Where it was to go.
        who: Whose key it is, as far as we know.
    """

    def __init__(self, subject: str, *, who: str) -> None:
        is_peers = subject.startswith(("dex.orders.", "dex.query."))
        expected = f"of {subject.rpartition('.')[2]!r}" if is_peers else "of an operator"
        super().__init__(
            f"NATS does not let {who} publish to {subject}, and nothing was done: "
            f"expected the key {expected}"
        )
        self.subject = subject
        self.who = who


class BookUnavailable(Unavailable):
    """A replica has no book: it differed from the log and is being rebuilt, or has ended."""

    def __init__(self, market: str, *, because: str) -> None:
        Exception.__init__(self, f"the replica of {market} has no book to show: {because}")
        self.what = f"a book of {market}"
        self.deadline_s = 0.0


class OutcomeUnknown(ExchangeError):
    """Commands may or may not have been executed; only a resend with their own ids can tell.

    `Exchange.settle` does that resend.

    Attributes:
        market: Where they were sent to.
        commands: All commands of the call, in its order, each with its id.
        receipts: What each of them was answered; None for those whose outcome is unknown.
        own_id: The first id whose outcome is unknown.
        is_forgotten: The market has forgotten an id whose command may have been executed before:
            no resend will ever settle that one, only a look into the log.
    """

    def __init__(
        self,
        market: str,
        commands: Sequence[Command],
        receipts: Sequence[Receipt | None],
        *,
        deadline_s: float,
        is_forgotten: bool = False,
    ) -> None:
        self.market = market
        self.commands = tuple(commands)
        self.receipts = tuple(receipts)
        self.deadline_s = deadline_s
        self.is_forgotten = is_forgotten
        unknown = self.unknown_ids
        self.own_id = unknown[0]
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        found = "that the market has forgotten it" if is_forgotten else "none"
        super().__init__(
            f"expected an outcome of {self.own_id}{others} within {deadline_s:g} s, found {found}"
        )

    @property
    def unknown_ids(self) -> list[str]:
        """The ids whose outcomes are unknown, in the order of the commands."""
        return [
            str(own_id(command))
            for command, receipt in zip(self.commands, self.receipts, strict=True)
            if receipt is None
        ]


class NotConfirmed(ExchangeError):
    """An operator's request may or may not have been carried out; doing it again is harmless."""

    def __init__(self, what: str, *, deadline_s: float) -> None:
        super().__init__(f"expected an answer to {what} within {deadline_s:g} s, found none")
        self.what = what
        self.deadline_s = deadline_s


class UnknownMarket(ExchangeError):
    """A server says that there is no such market."""

    def __init__(self, market: str) -> None:
        super().__init__(f"expected the market {market}, found none of that name")
        self.market = market


class LogTrimmed(ExchangeError):
    """The commits asked for are not in the log any more.

    Start from `first_sequence`, or from a replica, which begins with a snapshot.
    """

    def __init__(self, market: str, *, from_sequence: int, first_sequence: int) -> None:
        super().__init__(
            f"expected the log of {market} from commit {from_sequence} on, "
            f"found it to begin with commit {first_sequence}"
        )
        self.market = market
        self.from_sequence = from_sequence
        self.first_sequence = first_sequence


class ProtocolMismatch(ExchangeError):
    """A reply is not what the protocol says it is."""

    def __init__(self, what: str, *, expected: str, found: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}")
        self.what = what
        self.expected = expected
        self.found = found


WHERE_KEYS_ARE: Final = (
    "; keys are in $DEX_KEYS, or else in .dex/keys, unless --nkey or --creds names one"
)


def unreachable_hint(*, is_refusal: bool) -> str:
    """Say what to do when no NATS server lets us in."""
    if is_refusal:
        return WHERE_KEYS_ARE
    return "; start an exchange with `just up`, or name its NATS servers with --nats"
