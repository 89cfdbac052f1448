"""Histories as they should be: a real engine under the workload, with a network that fails.

A leader gathers commands into commits; copies get lost on their way, answers on theirs, and
commands are sent again, twice, late, or changed. All of it is recorded as a peer, or whoever looks
on, would see it. It is what the checker's own tests judge, and then spoil.
"""

import json
import random
from typing import Any, Final

import msgspec

from dex_engine import Bounds, Market
from dex_protocol import queries
from dex_protocol.codec import decode_request, encode
from dex_protocol.events import AnyEvent
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification, SpecificationChange, normalized
from dex_server.replication import views
from tests.builders import seal
from tests.checker.commands import own_id_of_command
from tests.checker.history import NO_RESPONDER, Asked, Copy, End, History, Sent
from tests.property import workload
from tests.property.workload import Administer, Seeded, Send

MARKET: Final = "BTC-USD"
RETRY: Final = {"status": "retry", "reason": "not_leader", "message": "…"}


class Recorder:
    """One market, its leader, its peers, and what was seen of them."""

    def __init__(self, seed: int, *, window: int = 4096, specification: Any = None) -> None:
        self.random = random.Random(seed)
        self.choose = Seeded(self.random)
        self.seen = workload.History()
        self.now = 0.0
        self.term = 0
        self.market = Market(MARKET, Bounds(window_count=window))
        specification = specification or workload.first_specification(self.choose)
        self.history = History(specifications={MARKET: specification}, logs={MARKET: []})
        self.sent: dict[str, Sent] = {}
        self.waiting: list[tuple[Send, Copy | None]] = []
        self.wishes: list[Administer] = []
        opened = self.market.open(
            normalized(msgspec.convert(specification, Specification)),
            log_id="log",
            time=self.seen.time,
        )
        self.append(opened + self.lead())

    def record(self, commands: int, *, chance_of_commit: int = 20) -> History:
        """Let so many commands be sent; give all that was seen."""
        while len(self.history.sent) < commands:
            self.now += 0.001
            step = self.next_step()
            match step:
                case Send():
                    self.send(step)
                case Administer():
                    self.wishes.append(step)
            if self.choose.chance(15):
                self.send_again()
            if self.choose.chance(chance_of_commit):
                self.commit()
            if self.choose.chance(10):
                self.ask()
            if self.choose.chance(2):
                self.append(self.lead())
        self.commit()
        self.end()
        return self.history

    def next_step(self) -> workload.Step:
        return workload.next_step(self.choose, self.seen)

    # Peers.

    def send(self, step: Send) -> None:
        command = dict(step.command)
        own_id = own_id_of_command(command)
        if own_id is None:
            self.waiting.append((step, None))
            return
        if self.choose.chance(2):
            command["quantity"] = 5  # No decimal: malformed.
        sent = Sent(MARKET, step.peer, command)
        self.history.sent.append(sent)
        self.sent[own_id] = sent
        self.send_copy(sent)

    def send_again(self) -> None:
        """Send a copy of a recent command, answered or not."""
        recent = list(self.sent.values())[-12:]
        if recent:
            self.send_copy(self.choose.pick(recent))  # type: ignore[arg-type]

    def send_copy(self, sent: Sent) -> None:
        self.now += 0.0001
        copy = Copy(self.now)
        sent.copies.append(copy)
        if self.choose.chance(5):
            return  # It gets lost.
        if self.choose.chance(8):
            self.now += 0.0001
            copy.ended, copy.answer = self.now, dict(self.choose.pick([RETRY, NO_RESPONDER]))
            return
        self.waiting.append((Send(sent.peer, sent.command, 0), copy))
        if self.choose.chance(4):
            again = Copy(self.now)
            sent.copies.append(again)
            self.waiting.append((Send(sent.peer, sent.command, 0), again))

    def ask(self) -> None:
        """Ask the market's leader something."""
        peer = self.choose.pick(workload.PEERS)
        orders = self.seen.of(peer).order_ids or [f"order_{peer}_1763800000000_1"]
        what, request = self.choose.pick(
            [
                ("status", {}),
                ("status", {"min_sequence": self.market.sequence}),
                ("book", {}),
                ("book", {"depth": 2}),
                ("book", {"orders": True}),
                ("order", {"order_id": self.choose.pick(orders)}),
                ("orders", {}),
                ("orders", {"limit": 2}),
                ("trades", {"limit": 5}),
            ]
        )
        query = msgspec.convert(request, queries.QUERIES[what])
        reply = views.answer(self.market, query, peer=peer, server="server-1")  # type: ignore[arg-type]
        sent, self.now = self.now, self.now + 0.0001
        self.history.asked.append(
            Asked(MARKET, peer, what, request, sent, self.now, json.loads(encode(reply)))
        )

    # The leader.

    def lead(self) -> list[AnyEvent]:
        self.term += 1
        server = f"server-{1 + self.term % 2}"
        time = self.seen.time
        return self.market.lead(server=server, term=self.term, protocol=1, rules=1, time=time)

    def append(self, events: list[AnyEvent]) -> None:
        self.history.logs[MARKET].append(seal(self.market, events).decode())

    def commit(self) -> None:
        """Execute all that waits, in one commit, or in more if housekeeping needs them."""
        time, market = self.seen.time, self.market
        events = market.housekeeping(time)
        for wish in self.wishes:
            change = msgspec.convert(wish.fields, SpecificationChange)
            events += market.administer(wish.what, change, time=time)[2]
        self.wishes.clear()
        while market.is_due(time):
            self.append(events)
            events = market.housekeeping(time)
        answers = []
        for step, copy in self.waiting:
            (element,), _ = decode_request(json.dumps(step.command).encode(), step.peer)
            if isinstance(element, Receipt):
                answers.append((step.peer, copy, element))
                continue
            receipt, made = market.execute(element, peer=step.peer, time=time)
            receipt.sequence = market.sequence + 1
            events += made
            answers.append((step.peer, copy, receipt))
        self.waiting.clear()
        self.append(events)
        for peer, copy, receipt in answers:
            self.answer(peer, copy, json.loads(encode(receipt)))

    def answer(self, peer: str, copy: Copy | None, answer: dict[str, Any]) -> None:
        self.now += 0.00001
        if answer.get("reason") != "malformed":
            self.seen.learn(peer, answer)
        if copy is not None and not self.choose.chance(6):
            copy.ended, copy.answer = self.now, answer

    # When all is over.

    def end(self) -> None:
        market = self.market
        self.history.ends = [
            End("server-1", MARKET, market.sequence, market.hash, market.digest),
            End("alice", MARKET, market.sequence, "", market.digest),
        ]
        for sent in self.history.sent:
            answers = [copy.answer for copy in sent.copies]
            if all(answer and answer["status"] == "retry" for answer in answers):
                sent.believed = "unavailable"
            elif any(answer and answer["status"] != "retry" for answer in answers):
                sent.believed = "receipt"
            else:
                sent.believed = "unknown"
