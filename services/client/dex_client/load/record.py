"""What a run sent, and what it was told: counts, latencies, and each order with its outcome.

Pure. Knows nothing of how an outcome was reached, nor whether it is true.
"""

from collections import defaultdict
from typing import Literal

from dex_protocol.commands import Submit
from dex_protocol.receipts import Receipt
from msgspec import Struct

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
        rejected: Refusals, by reason.
        trades: Trades told in receipts, each by its taker's.
        latencies: Orders by their latency in whole µs.
        told: Orders with outcomes by market and order id; None when nobody wants to verify them.
    """

    def __init__(self, markets: tuple[str, ...], *, keep: bool) -> None:
        self.sent = 0
        self.retried = 0
        self.accepted = 0
        self.rejected: defaultdict[str, int] = defaultdict(int)
        self.given_up: dict[GivenUp, int] = {"unavailable": 0, "unknown": 0}
        self.trades = 0
        self.seconds = 0.0
        self.interrupted = False
        self.latencies: defaultdict[int, int] = defaultdict(int)
        self.told: dict[str, dict[str, Told]] | None = (
            {market: {} for market in markets} if keep else None
        )

    @property
    def answered(self) -> int:
        """Orders with an outcome."""
        return self.accepted + sum(self.rejected.values())

    def settle(self, market: str, order: Submit, receipt: Receipt) -> None:
        """Note an order's receipt, which is not a `retry`."""
        if receipt.status == "rejected":
            self.rejected[str(receipt.reason)] += 1
        else:
            self.accepted += 1
            if receipt.trades:
                self.trades += len(receipt.trades)
        if self.told is not None:
            self.told[market][str(order.order_id)] = Told(order, receipt)

    def give_up(self, market: str, order: Submit, outcome: GivenUp) -> None:
        """Note that an order has no outcome and is not sent any more."""
        self.given_up[outcome] += 1
        if self.told is not None:
            self.told[market][str(order.order_id)] = Told(order, outcome)
