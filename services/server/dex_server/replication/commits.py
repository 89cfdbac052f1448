"""Gathering what was executed into commits of bounded size.

A *draft* is a commit in the making: events, and everybody who waits for it to be stored. Encoded
events are counted as they come; a command whose events do not fit any more opens the next draft.
Knows nothing of the log.
"""

from typing import Final

from msgspec import UNSET

from dex_engine import Market
from dex_protocol import limits
from dex_protocol.codec import Element, decode_request, encode
from dex_protocol.commands import Amend, Submit
from dex_protocol.events import AnyEvent
from dex_protocol.reasons import RetryReason
from dex_protocol.receipts import Receipt, retry
from dex_server.replication.effects import ReplyTo, Request, Send

RECEIPT_BYTES_MAX: Final = 600
"""A receipt without its lists, with the longest ids, decimals and sentence."""

FILL_BYTES_MAX: Final = 230
"""One trade of a receipt, with the longest id and decimals."""

RETRY_BYTES_MAX: Final = 300
"""A receipt that says `retry`, with the longest ids and sentence."""

ID_BYTES_MAX: Final = 70
"""The longest id, with quotes and comma."""

LONGEST_RECEIPT_BYTES: Final = RECEIPT_BYTES_MAX + FILL_BYTES_MAX * limits.MAKERS_COUNT_MAX
"""A receipt of as many trades as one command may make."""

HEAD_BYTES_MAX: Final = 300
"""What a commit has around its events: names, numbers and two hashes, at their longest."""


class Waiting:
    """A request on its way: its elements, and the receipts of those that are done.

    Attributes:
        orders: How many submits and amends it carries; after `Allowances.take` those that count.
        cancels: The same of cancels.
        is_limited: Whether some of it is answered `rate_limited`.
    """

    __slots__ = (
        "_reply_bytes",
        "_rest_bytes",
        "arrived",
        "bytes",
        "cancels",
        "elements",
        "is_batch",
        "is_limited",
        "next",
        "orders",
        "peer",
        "receipts",
        "reply_to",
    )

    def __init__(self, request: Request, *, batch_count_max: int = limits.BATCH_COUNT_MAX) -> None:
        elements, is_batch = decode_request(
            request.payload, request.peer, batch_count_max=batch_count_max
        )
        self.peer = request.peer
        self.reply_to = request.reply_to
        self.arrived = request.arrived
        self.bytes = len(request.payload)
        self.elements = elements
        self.is_batch = is_batch
        self.receipts: list[Receipt] = []
        self.next = 0
        self.is_limited = False
        orders = cancels = 0
        for element in elements:
            if type(element) is Submit or type(element) is Amend:
                orders += 1
            elif type(element) is not Receipt:
                cancels += 1
        self.orders = orders
        self.cancels = cancels
        self._reply_bytes = 0
        # What the receipts of all that is not executed yet take, if none of it is.
        commands = orders + cancels
        self._rest_bytes = RETRY_BYTES_MAX * commands + RECEIPT_BYTES_MAX * (
            len(elements) - commands
        )

    @property
    def is_answered(self) -> bool:
        """Whether no command is left in it: all was refused for reasons that need no state, or is
        too much from its peer now."""
        return all(type(element) is Receipt for element in self.elements)

    def limit(self, first: int, message: str) -> None:
        """Let only the commands before a place be executed: `rate_limited` for the others."""
        self.is_limited = True
        elements = self.elements
        for place in range(first, len(elements)):
            element = elements[place]
            if type(element) is not Receipt:
                elements[place] = _retried(element, RetryReason.rate_limited, message)
                self._rest_bytes += RECEIPT_BYTES_MAX - RETRY_BYTES_MAX

    @property
    def has_room(self) -> bool:
        """Whether the receipt of one more command, of the longest kind, fits into the reply, with
        those of all that come after it."""
        needed = self._reply_bytes + self._rest_bytes + LONGEST_RECEIPT_BYTES
        return needed <= limits.PAYLOAD_BYTES_MAX

    def add(self, receipt: Receipt) -> None:
        """Put in the receipt of the element that is next."""
        self._rest_bytes -= _bytes_unexecuted(self.elements[self.next])
        self.next += 1
        self.receipts.append(receipt)
        self._reply_bytes += RECEIPT_BYTES_MAX
        if receipt.trades:
            self._reply_bytes += FILL_BYTES_MAX * len(receipt.trades)
        elif receipt.canceled:
            self._reply_bytes += ID_BYTES_MAX * len(receipt.canceled)

    @property
    def is_begun(self) -> bool:
        """Whether some of it was executed."""
        return self.next > 0

    def retry_rest(self, why: RetryReason) -> None:
        """Complete the receipts: what was not executed is to be sent again."""
        for element in self.elements[self.next :]:
            if type(element) is Receipt:
                self.receipts.append(element)
            else:
                self.receipts.append(_retried(element, why))
        self.next = len(self.elements)

    def reply(self) -> bytes:
        """Write the reply of a request whose receipts are complete."""
        return encode(self.receipts) if self.is_batch else encode(self.receipts[0])

    def sent_back(self, why: RetryReason) -> Send:
        """Answer at once, `retry` to all that was not refused for good."""
        self.retry_rest(why)
        return Send(self.reply_to, self.reply())


def _retried(command: Element, why: RetryReason, message: str | None = None) -> Receipt:
    return retry(
        why,
        message,
        order_id=getattr(command, "order_id", UNSET),
        command_id=getattr(command, "command_id", UNSET),
    )


def _bytes_unexecuted(element: Element) -> int:
    return RECEIPT_BYTES_MAX if type(element) is Receipt else RETRY_BYTES_MAX


class Draft:
    """A commit in the making.

    Attributes:
        events: In the order they happened.
        receipts: Those that get this commit's sequence.
        replies: Requests whose receipts are complete with this commit.
        answers: Other answers that rest on it, written already.
    """

    __slots__ = ("_encoded", "answers", "bytes", "digest", "events", "receipts", "replies", "time")

    def __init__(self, market: Market, *, time: int) -> None:
        self.time = time
        self.events: list[AnyEvent] = []
        self.receipts: list[Receipt] = []
        self.replies: list[Waiting] = []
        self.answers: list[tuple[ReplyTo, bytes]] = []
        self._encoded: list[bytes] = []
        self.bytes = HEAD_BYTES_MAX
        self.digest = market.digest

    @property
    def is_needed(self) -> bool:
        """Whether anything happened, or anybody waits for the proof that nothing did."""
        return bool(self.events or self.receipts or self.replies or self.answers)

    def has_room(self, encoded: bytes) -> bool:
        """Tell whether a command's events still fit."""
        return not self.events or self.bytes + len(encoded) + 1 <= limits.COMMIT_BYTES_MAX

    def add(self, market: Market, events: list[AnyEvent], encoded: bytes) -> None:
        """Put in the events of what was executed last."""
        if events:
            self.events += events
            self._encoded.append(encoded)
            self.bytes += len(encoded) + 1
            self.digest = market.digest

    def seal(self, market: Market) -> bytes:
        """Make the commit's payload, and tell the receipts its sequence."""
        payload = market.seal(self.events, b",".join(self._encoded), digest=self.digest)
        for receipt in self.receipts:
            receipt.sequence = market.sequence
        return payload


def encoded_events(events: list[AnyEvent]) -> bytes:
    """Write events as JSON, joined by commas."""
    return encode(events)[1:-1]
