"""Gathering what was executed into commits of bounded size.

A *draft* is a commit in the making: events, and everybody who waits for it to be stored. Encoded
events are counted as they come; a command whose events do not fit any more opens the next draft.
Knows nothing of the log.
"""

from typing import Final

from msgspec import UNSET

from dex_engine import Market
from dex_engine.digest import digest_text
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

EVENT_BYTES_MAX: Final = 512
"""One event of a command, with the longest ids and decimals."""

HEAD_BYTES_MAX: Final = 300
"""What a commit has around its events: names, numbers and two hashes, at their longest."""


class Waiting:
    """A request on its way: its elements, and the receipts of those that are done.

    Attributes:
        orders: How many submits and amends it carries; after `Allowances.take` those that count.
        cancels: The same of cancels.
        is_limited: Whether some of it is answered `rate_limited`.
        room: How many bytes the reply has left when it has the receipt of one more command, of the
            longest kind, and those of all that come after it; below 0 there is none.
    """

    __slots__ = (
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
        "room",
    )

    def __init__(self, request: Request, *, batch_count_max: int = limits.BATCH_COUNT_MAX) -> None:
        payload = request.payload
        elements, is_batch = decode_request(payload, request.peer, batch_count_max)
        self.peer = request.peer
        self.reply_to = request.reply_to
        self.arrived = request.arrived
        self.bytes = len(payload)
        self.elements = elements
        self.is_batch = is_batch
        self.receipts: list[Receipt] = []
        self.next = 0
        self.is_limited = False
        orders = cancels = 0
        for element in elements:
            kind = type(element)
            if kind is Submit or kind is Amend:
                orders += 1
            elif kind is not Receipt:
                cancels += 1
        self.orders = orders
        self.cancels = cancels
        commands = orders + cancels
        self.room = (
            limits.PAYLOAD_BYTES_MAX
            - LONGEST_RECEIPT_BYTES
            - RETRY_BYTES_MAX * commands
            - RECEIPT_BYTES_MAX * (len(elements) - commands)
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
                self.room -= RECEIPT_BYTES_MAX - RETRY_BYTES_MAX

    def add(self, receipt: Receipt) -> None:
        """Put in the receipt of the element that is next."""
        if type(self.elements[self.next]) is not Receipt:
            self.room -= RECEIPT_BYTES_MAX - RETRY_BYTES_MAX
            if receipt.trades:
                self.room -= FILL_BYTES_MAX * len(receipt.trades)
            elif receipt.canceled:
                self.room -= ID_BYTES_MAX * len(receipt.canceled)
        self.next += 1
        self.receipts.append(receipt)

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


class Draft:
    """A commit in the making.

    Events are encoded together, some hundreds at a time: that costs each half of what it costs by
    itself. What is not encoded yet counts as long as it may be at most.

    Attributes:
        time: The commit's.
        receipts: Those that get this commit's sequence.
        replies: Requests whose receipts are complete with this commit.
        answers: Other answers that rest on it, written already.
        digest_value: The book's digest after the last event.
    """

    __slots__ = (
        "_bytes",
        "_encoded",
        "_encoded_count",
        "_events",
        "answers",
        "digest_value",
        "receipts",
        "replies",
        "time",
    )

    def __init__(self, market: Market, *, time: int) -> None:
        self.time = time
        self.receipts: list[Receipt] = []
        self.replies: list[Waiting] = []
        self.answers: list[tuple[ReplyTo, bytes]] = []
        self.digest_value = market.digest_value
        # All events; the first of them encoded, joined by commas, and how many these are.
        self._events: list[AnyEvent] = []
        self._encoded: list[bytes] = []
        self._encoded_count = 0
        # What the commit has at most.
        self._bytes = HEAD_BYTES_MAX

    @property
    def is_needed(self) -> bool:
        """Whether anything happened, or anybody waits for the proof that nothing did."""
        return bool(self._events or self.receipts or self.replies or self.answers)

    @property
    def digest(self) -> str:
        """The book's digest after the last event, as the wire has it."""
        return digest_text(self.digest_value)

    def has_room_for(self, size: int) -> bool:
        """Tell whether so many bytes still fit."""
        self.encode()
        return self._bytes + size <= limits.COMMIT_BYTES_MAX

    def take(self, market: Market, events: list[AnyEvent]) -> bool:
        """Put in the events of what was executed last, if they still fit; tell whether they do."""
        size = EVENT_BYTES_MAX * len(events)
        if (
            self._bytes + size > limits.COMMIT_BYTES_MAX
            and self._events
            and not self.has_room_for(len(encoded_events(events)) + 1)
        ):
            return False
        self._events += events
        self._bytes += size
        self.digest_value = market.digest_value
        return True

    def seal(self, market: Market) -> bytes:
        """Make the commit's payload, and tell the receipts its sequence."""
        self.encode()
        payload = market.seal(self._events, b",".join(self._encoded), digest=self.digest)
        sequence = market.sequence
        for receipt in self.receipts:
            receipt.sequence = sequence
        return payload

    def encode(self) -> None:
        """Encode what is not encoded yet, so that it counts as long as it is."""
        loose = self._events[self._encoded_count :]
        if loose:
            encoded = encoded_events(loose)
            self._encoded.append(encoded)
            self._encoded_count = len(self._events)
            self._bytes += len(encoded) + 1 - EVENT_BYTES_MAX * len(loose)


def encoded_events(events: list[AnyEvent]) -> bytes:
    """Write events as JSON, joined by commas."""
    return encode(events)[1:-1]
