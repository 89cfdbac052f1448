"""A market under the workload, and its log: what the laws and the round trips are asked of.

Unlike the twins it knows no reference engine, so it is quick; and it looks at a market from
outside only: commands in, receipts and events out.
"""

from typing import NamedTuple

import msgspec

from dex_engine import Bounds, Market
from dex_protocol.codec import encode
from dex_protocol.events import AnyEvent
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification, SpecificationChange, normalized
from tests.builders import seal
from tests.property import workload
from tests.property.twins import read, seen
from tests.property.workload import Administer, History, Send, Step


class Done(NamedTuple):
    """A step: what became due before it, what it did itself, and the answer to a command."""

    step: Step
    due: list[AnyEvent]
    events: list[AnyEvent]
    receipt: Receipt | None


class Run:
    """One market under one workload; `payloads` is its log, from commit 1."""

    def __init__(self, choose: workload.Choice) -> None:
        self.choose = choose
        self.history = History()
        limits = workload.limits(choose)
        self.bounds = Bounds(
            window_count=limits["window"],
            makers_count_max=limits["makers_max"],
            housekeeping_count_max=limits["housekeeping_max"],
            canceled_count_max=limits["canceled_max"],
        )
        self.market = Market("BTC-USD", self.bounds)
        self.payloads: list[bytes] = []
        specification = msgspec.convert(workload.first_specification(choose), Specification)
        time = self.history.time
        opened = self.market.open(normalized(specification), log_id="log", time=time)
        led = self.market.lead(server="server-1", term=1, protocol=1, rules=1, time=time)
        self.payloads.append(seal(self.market, opened + led))

    def step(self) -> Done:
        step = workload.next_step(self.choose, self.history)
        due = self.market.housekeeping(step.time)
        events: list[AnyEvent] = []
        receipt = None
        match step:
            case Administer():
                change = msgspec.convert(step.fields, SpecificationChange)
                events = self.market.administer(step.what, change, time=step.time)[2]
            case Send():
                receipt, events = self.market.execute(read(step), peer=step.peer, time=step.time)
                self.history.learn(step.peer, seen(receipt))
        # An empty commit now and then, as a leader makes one to prove that it leads.
        if due or events or self.choose.chance(5):
            self.payloads.append(seal(self.market, due + events))
        return Done(step, due, events, receipt)

    def prove(self) -> None:
        """Close the log by an empty commit, with the market's time."""
        self.payloads.append(seal(self.market, []))

    def follower(self) -> Market:
        """Make a market that has heard nothing yet."""
        return Market("BTC-USD", self.bounds)


def joined(events: list[AnyEvent]) -> bytes:
    """Write events as they stand in a commit."""
    return b",".join(encode(event) for event in events)
