"""The real engine and the naive one, side by side: same receipts, same events, same digest.

A `Twins` takes the workload's steps and gives each to the reference, to a market that executes
(the leader's way) and to one that applies the commits (everybody else's way). Everything passes
through the wire's codec on the way in and out, and `check()` runs after every step.
"""

import json
from typing import Any

import msgspec

from dex_engine import Bounds, Market
from dex_engine.answers import order_view
from dex_protocol.codec import decode_as, decode_request, encode
from dex_protocol.commands import Command
from dex_protocol.events import AnyEvent
from dex_protocol.ids import split_pair
from dex_protocol.numbers import Scale
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification, SpecificationChange, normalized
from tests.property import workload
from tests.property.reference_engine import ReferenceMarket
from tests.property.workload import Administer, History, Send, Step


class Twins:
    """One market three times, under one workload.

    `check_every` is in steps: laws, whole books and snapshots are compared then, all else always.
    """

    def __init__(self, choose: workload.Choice, *, check_every: int = 1) -> None:
        self.choose = choose
        self.check_every = check_every
        self.steps = 0
        self.history = History()
        specification = workload.first_specification(choose)
        limits = workload.limits(choose)
        self.reference = ReferenceMarket(specification, **limits)
        self.bounds = Bounds(
            window_count=limits["window"],
            makers_count_max=limits["makers_max"],
            housekeeping_count_max=limits["housekeeping_max"],
            canceled_count_max=limits["canceled_max"],
        )
        self.leader = Market("BTC-USD", self.bounds)
        self.follower = Market("BTC-USD", self.bounds)
        opened = self.leader.open(
            normalized(msgspec.convert(specification, Specification)),
            log_id="log",
            time=self.history.time,
        )
        self.commit(
            opened
            + self.leader.lead(
                server="server-1", term=1, protocol=1, rules=1, time=self.history.time
            )
        )

    def step(self) -> None:
        step = workload.next_step(self.choose, self.history)
        events = self.leader.housekeeping(step.time)
        expected_events = self.reference.housekeeping(step.time)
        match step:
            case Administer():
                _, more = self.reference.administer(step.what, step.fields)
                expected_events += more
                change = decode_as(json.dumps(step.fields).encode(), SpecificationChange)
                assert isinstance(change, SpecificationChange)
                _, _, administered = self.leader.administer(step.what, change, time=step.time)
                events += administered
            case Send():
                expected, more = self.reference.execute(step.peer, step.command, step.time)
                expected_events += more
                executed = self.leader.execute(read(step), peer=step.peer, time=step.time)
                events += executed.events

                assert seen(executed.receipt) == expected
                self.history.learn(step.peer, expected)

        assert [json.loads(encode(event)) for event in events] == expected_events
        self.commit(events)

        assert self.leader.digest == self.follower.digest == self.reference.digest()
        self.steps += 1
        if self.steps % self.check_every == 0:
            self.compare_all(step)

    def commit(self, events: list[AnyEvent]) -> None:
        encoded = b",".join(encode(event) for event in events)
        self.follower.apply_commit(self.leader.seal(events, encoded, digest=self.leader.digest))

    def compare_all(self, step: Step) -> None:
        self.leader.check()
        self.follower.check()
        snapshot = self.leader.snapshot()

        assert self.follower.snapshot() == snapshot
        assert pictured(self.leader) == self.reference.book()
        if isinstance(step, Send):
            self.compare_peer(step.peer)
        if self.choose.chance(5):
            # From here on a restored market follows, so all that matters is in the snapshot.
            self.follower = Market.restore(snapshot, self.bounds)

            assert self.follower.snapshot() == snapshot

    def compare_peer(self, name: str) -> None:
        peer = self.leader.peers.get(name)
        window = peer.window if peer else None

        assert list(split_pair(window.highest) if window else (0, 0)) == list(
            self.reference.highest(name)
        )
        assert list(split_pair(window.forgotten) if window else (0, 0)) == list(
            self.reference.forgotten(name)
        )
        for order_id in self.history.of(name).order_ids[-5:]:
            order = peer.order(order_id) if peer else None
            expected = self.reference.order(name, order_id)
            if order is None:
                assert expected is None
            else:
                view = json.loads(encode(order_view(order, self.leader.rules, sequence=1)))
                del view["sequence"], view["duplicate"]

                assert view == expected


def read(step: Send) -> Command:
    """Read a step's command as a server does."""
    (element,), _ = decode_request(json.dumps(step.command).encode(), step.peer)
    assert not isinstance(element, Receipt), element
    return element


def seen(receipt: Receipt) -> dict[str, Any]:
    """Show a receipt as a peer sees it, without the sentence."""
    fields: dict[str, Any] = json.loads(encode(receipt))
    fields.pop("message", None)
    return fields


def pictured(market: Market) -> dict[str, list[Any]]:
    """Draw a market's book as the reference does."""
    tick: Scale = market.rules.tick
    lot: Scale = market.rules.lot
    return {
        name: [
            [
                tick.text(level.price),
                [[order.order_id, lot.text(order.remaining)] for order in level],
            ]
            for level in side.by_rank()
        ]
        for name, side in (("bids", market.book.bids), ("asks", market.book.asks))
    }
