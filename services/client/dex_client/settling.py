"""The commands of one request, from their first copy to what is known of them in the end.

Theory of operation. The commands of a request share their copies, so one `Sending` says what is
known of those that have no outcome yet: none of their copies was executed, or nobody knows. Each
copy carries the commands that have no outcome yet, always with their own ids; whatever came back
for it is told here, and says whether, and when, another copy goes out.

Pure: the time comes in. Knows nothing of connections, nor of where ids come from.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, Literal

from msgspec import UNSET

from dex_client.errors import ProtocolMismatch
from dex_client.retry import Answer, Policy, Sending
from dex_protocol.codec import UNREADABLE, decode_receipts, encode
from dex_protocol.commands import Command, Submit, own_id
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt, retry

Unanswered = Literal["closed", "no_responder", "silence"]
"""What comes back for a copy instead of a reply; see `Answer`."""

OF_ONE_COPY: Final = frozenset(
    reason.name for reason in (Reason.stale_id, Reason.batch_too_large, Reason.too_many_peers)
)
"""Refusals of what may have been executed before: outcomes that were forgotten are not found again,
and what a peer may send, and whether a market has room for it, changes."""


class Settling:
    """One request on its way.

    Attributes:
        is_forgotten: Whether the market has forgotten the outcome of one of the commands.

    Ordering: `copy`, then `answered` with what came back for it, until that gives None; then
    `receipts`.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        policy: Policy,
        random: Random,
        *,
        as_batch: bool,
        is_doubtful: bool = False,
        now: float,
    ) -> None:
        """Begin.

        Args:
            commands: One or more, each with an id; no more than a request may carry.
            policy: How long, and how often.
            random: Spreads the pauses.
            as_batch: Whether they go as an array; they must, if they are several.
            is_doubtful: Whether copies were sent before that may have been executed.
            now: Seconds by any clock that does not go back.
        """
        self.is_forgotten = False
        self._commands = commands
        self._as_batch = as_batch
        self._sending = Sending(policy, random, now=now, is_doubtful=is_doubtful)
        self._receipts: list[Receipt | None] = [None] * len(commands)
        self._refusals: list[Receipt] = [not_sent(command) for command in commands]
        # The places of the commands that the next copy carries.
        self._waiting = list(range(len(commands)))

    @property
    def waiting(self) -> list[Command]:
        """The commands that the next copy carries, in their order."""
        return [self._commands[place] for place in self._waiting]

    @property
    def receipts(self) -> list[Receipt | None]:
        """What is known: a receipt for each command, `retry` for one that was not executed and is
        not going to be, None for one that may have been."""
        receipts = list(self._receipts)
        if self._sending.state == "unavailable":
            for place in self._waiting:
                receipts[place] = self._refusals[place]
        return receipts

    def copy(self, now: float) -> tuple[bytes, float]:
        """Give the next copy's bytes, and how long to wait for its answer, in seconds."""
        waiting = self.waiting
        payload = encode(waiting if self._as_batch else waiting[0])
        return payload, self._sending.attempt(now)

    def answered(self, answer: bytes | Unanswered, *, now: float) -> float | None:
        """Note what came back for the newest copy: a reply, or that there was none.

        Returns:
            How long to pause before the next copy, in seconds; None when there is to be none.

        Raises:
            ProtocolMismatch: the reply is not what it should be.
        """
        said = self._read(answer) if isinstance(answer, bytes) else answer
        return self._sending.answered(said, now=now)

    def _read(self, reply: bytes) -> Answer:
        left: list[int] = []
        for place, receipt in zip(self._waiting, receipts_of(reply, self.waiting), strict=True):
            if receipt.status == "retry":
                self._refusals[place] = receipt
                left.append(place)
            elif self._sending.state == "doubtful" and receipt.reason in OF_ONE_COPY:
                # This copy was not executed; an earlier one may have been, and another copy would
                # be answered the same.
                self.is_forgotten = self.is_forgotten or receipt.reason == Reason.stale_id.name
            else:
                self._receipts[place] = receipt
        self._waiting = left
        return "retry" if left else "receipt"


def receipts_of(reply: bytes, commands: Sequence[Command]) -> list[Receipt]:
    """Read the reply to some commands.

    Returns:
        A receipt for each, in their order.

    Raises:
        ProtocolMismatch: it is none, has another number of receipts, or speaks of another id.
    """
    try:
        receipts = decode_receipts(reply)
    except UNREADABLE as error:
        raise ProtocolMismatch(
            "the reply to an order", expected="a receipt for each command", found=str(error)
        ) from error
    if len(receipts) == 1 and len(commands) > 1 and receipts[0].status in ("rejected", "retry"):
        # For the batch as a whole: it could not be read, or not be taken.
        receipts = receipts * len(commands)
    if len(receipts) != len(commands):
        raise ProtocolMismatch(
            "the reply to a batch", expected=f"{len(commands)} receipts", found=str(len(receipts))
        )
    for command, receipt in zip(commands, receipts, strict=True):
        _check_id(command, receipt)
    return receipts


def _check_id(command: Command, receipt: Receipt) -> None:
    found = receipt.order_id if type(command) is Submit else receipt.command_id
    if found is UNSET and receipt.status in ("rejected", "retry"):
        # The server could not read even the id.
        return
    if found != own_id(command):
        raise ProtocolMismatch(
            "a receipt",
            expected=f"that of {own_id(command)}",
            found="one without an id" if found is UNSET else f"that of {found}",
        )


def not_sent(command: Command) -> Receipt:
    """Give the receipt of a command that nobody took."""
    is_submit = type(command) is Submit
    return retry(
        RetryReason.unavailable,
        "nobody took it before the deadline",
        order_id=own_id(command) if is_submit else UNSET,
        command_id=UNSET if is_submit else own_id(command),
    )
