"""What a run sent, and what it was told: counts, latencies, and each order with its outcome.

While the load runs, only what is cheap is done here: replies are counted, and kept as they came.
Pure. Knows nothing of how an outcome was reached, nor whether it is true.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from dex_client.errors import ProtocolMismatch
from dex_client.retry import Answer
from dex_protocol.codec import UNREADABLE, decode_receipts
from dex_protocol.commands import Submit
from dex_protocol.receipts import Receipt

GivenUp = Literal["unavailable", "unknown"]
"""At the deadline: nothing was executed, or nobody knows."""


class Told(Struct, gc=False):
    """One order, and what its peer was told of it in the end."""

    order: Submit
    outcome: Receipt | GivenUp


class Record:
    """What became of the orders of a run, kept up as their outcomes come.

    Attributes:
        sent: Orders, not copies.
        retried: Copies sent again, counted in orders.
        accepted: Orders whose receipt is no refusal.
        rejected: Refusals, by reason.
        given_up: Orders without an outcome.
        trades: Trades told in receipts, each by its taker's.
        seconds: From the first order to the last outcome.
        latencies: Orders by their latency in whole µs.
    """

    def __init__(self, *, keep: bool) -> None:
        """Begin; what was told of each order is only kept for whom it may concern."""
        self.sent = 0
        self.retried = 0
        self.accepted = 0
        self.rejected: defaultdict[str, int] = defaultdict(int)
        self.given_up: dict[GivenUp, int] = {"unavailable": 0, "unknown": 0}
        self.trades = 0
        self.seconds = 0.0
        self.latencies: defaultdict[int, int] = defaultdict(int)
        self._keep = keep
        # By market: orders, and the reply as it came or that there was none in the end. Decoded
        # receipts of a million orders would be several times as large, and cost the load a third
        # of its speed.
        self._kept: defaultdict[str, list[tuple[list[Submit], bytes | GivenUp]]] = defaultdict(list)

    @property
    def answered(self) -> int:
        """Orders with an outcome."""
        return self.accepted + sum(self.rejected.values())

    def settle(
        self, market: str, orders: list[Submit], reply: bytes
    ) -> tuple[Answer, list[Submit]]:
        """Note what came back for one copy of some orders.

        Args:
            market: Where they were sent to.
            orders: All of the copy, in its order.
            reply: As it came.

        Returns:
            What the answer was to the orders that it left without an outcome, and these orders.

        Raises:
            ProtocolMismatch: it is no reply to so many orders.
        """
        receipts = _receipts(reply, len(orders))
        answer: Answer = "receipt"
        left: list[Submit] = []
        accepted = 0
        for order, receipt in zip(orders, receipts, strict=True):
            if not _is_outcome(order, receipt):
                left.append(order)
                if receipt.status != "retry":
                    # It is about something else, so it says nothing of this order.
                    answer = "silence"
                elif answer == "receipt":
                    answer = "retry"
            elif receipt.status == "rejected":
                self.rejected[str(receipt.reason)] += 1
            else:
                accepted += 1
                if receipt.trades:
                    self.trades += len(receipt.trades)
        self.accepted += accepted
        if self._keep:
            self._kept[market].append((orders, reply))
        return answer, left

    def give_up(self, market: str, orders: list[Submit], outcome: GivenUp) -> None:
        """Note that orders have no outcome and are not sent any more."""
        self.given_up[outcome] += len(orders)
        if self._keep:
            self._kept[market].append((orders, outcome))

    def note_latency(self, latency_s: float, count: int) -> None:
        """Note how long so many orders took to have an outcome."""
        self.latencies[int(latency_s * 1_000_000)] += count

    def told(self, market: str) -> "Outcomes":
        """Give each order sent to a market, by its id, with its outcome."""
        return Outcomes(self._kept[market])


class Outcomes(Mapping[str, Told]):
    """Orders with their outcomes by id, in the order the outcomes came.

    Replies are read when they are asked for, each for all its orders, since what stands together
    in a reply mostly stands together in a log.
    """

    def __init__(self, kept: list[tuple[list[Submit], bytes | GivenUp]]) -> None:
        """Find out which order's outcome is where."""
        self._kept = kept
        self._last = -1
        self._read: dict[str, Told] = {}
        self._where = {
            order_id: index for index in range(len(kept)) for order_id in self._outcomes_of(index)
        }

    def __getitem__(self, order_id: str) -> Told:
        """Give an order's outcome."""
        index = self._where[order_id]
        if index != self._last:
            self._last = index
            self._read = self._outcomes_of(index)
        return self._read[order_id]

    def __iter__(self) -> Iterator[str]:
        """Give all ids."""
        return iter(self._where)

    def __len__(self) -> int:
        """Count the orders."""
        return len(self._where)

    def _outcomes_of(self, index: int) -> dict[str, Told]:
        orders, reply = self._kept[index]
        if isinstance(reply, str):
            return {str(order.order_id): Told(order, reply) for order in orders}
        receipts = _receipts(reply, len(orders))
        return {
            str(order.order_id): Told(order, receipt)
            for order, receipt in zip(orders, receipts, strict=True)
            if _is_outcome(order, receipt)
        }


def _receipts(reply: bytes, count: int) -> list[Receipt]:
    # One for each order, in their order.
    try:
        receipts = decode_receipts(reply)
    except UNREADABLE as error:
        raise ProtocolMismatch(
            "the reply to an order", expected="a receipt for each", found=str(error)
        ) from error
    if len(receipts) == count:
        return receipts
    if len(receipts) == 1 and receipts[0].status in ("rejected", "retry"):
        # For the batch as a whole: it could not be read, or not be taken.
        return receipts * count
    raise ProtocolMismatch(
        "the reply to a batch", expected=f"{count} receipts", found=f"{len(receipts)}"
    )


def _is_outcome(order: Submit, receipt: Receipt) -> bool:
    if receipt.status == "retry":
        return False
    return receipt.order_id == order.order_id or not isinstance(receipt.order_id, str)
