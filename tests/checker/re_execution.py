"""A market's log executed again by the naive engine, and compared with it.

Theory of operation. Commands are found by the ids in the events; what they lead to is the naive
engine's to say. So is what is due without a command, and that comes first in a commit. Between two
commands of a commit the engine is asked what it would answer to the receipts without events that
name that commit (*probes*): it must give the same answer at one of these places. After the commit
it is asked what replies to queries say.

A command without an id is not in the history, and is made up from its events; so is one that
nobody sent, so that its consequences are no faults of others. Where the engine does something else
than the log says, there is no more to compare: the re-execution ends there.

Deliberately knows nothing of when anything was sent or answered.
"""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from tests.checker import replies
from tests.checker.commands import Answered, Commands, Known, essence, pair_or_none, submit_of
from tests.checker.history import Asked, Json
from tests.checker.indexed_engine import IndexedMarket
from tests.checker.logs import (
    OPENING,
    UNREADABLE,
    Commit,
    Execution,
    Log,
    is_server_named,
    own_id_of,
    peer_of,
)
from tests.checker.verdict import Rule, Verdict, shown
from tests.property.reference_engine import (
    NO_PAIR,
    OPTIONAL_DECIMALS,
    OPTIONAL_INTEGERS,
    REQUIRED,
    Outcome,
    content_of,
    filled_in,
    specification_of,
    write,
)

CHANGES: Final = {"halted": "halt", "trading": "resume", "closed": "close"}
"""What an operator does to bring a state about."""


class Probe(Struct):
    """A receipt without events, to be had from the naive engine at some place of its commit."""

    known: Known
    answered: Answered
    found: Json
    expected: Json | None = None
    """The engine's newest answer; None when it would execute the command instead."""

    @property
    def rule(self) -> Rule:
        """The rule that is broken when the engine gives no such answer."""
        if self.answered.kind != "fresh":
            return "repeated"
        execution = self.known.execution
        if execution is None or execution.event.get("reason") == self.found.get("reason"):
            return "acknowledged"
        return "refused"


class _Ended(Exception):
    """The naive engine cannot follow the log any further; `text` says why, if that is news."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.text = text


class ReExecution:
    """One market's; `engine` is the naive engine after the commit executed last."""

    def __init__(
        self,
        log: Log,
        commands: Commands,
        *,
        probes: dict[int, list[Probe]],
        asked: dict[int, list[Asked]],
        window: int,
        verdict: Verdict,
    ) -> None:
        self.log = log
        self.commands = commands
        self.probes = probes
        self.asked = asked
        self.window = window
        self.verdict = verdict
        self.reached = 0
        self.trades: list[Json] = []
        self.engine: IndexedMarket

    def run(self) -> None:
        """Execute all commits, as far as the engine can follow."""
        why = ""
        try:
            for commit in self.log.commits:
                self.execute_commit(commit)
                self.reached = commit.sequence
        except _Ended as ended:
            why = ended.text
        except UNREADABLE as error:
            why = f"expected what can be executed, found {error!r}"
        if why:
            text = f"{why}; nothing is re-executed from here on"
            what = f"commit {self.reached + 1}"
            self.verdict.report("re_executed", self.log.market, what, text)
        self.verdict.re_executed[self.log.market] = self.reached

    # One commit.

    def execute_commit(self, commit: Commit) -> None:
        events = commit.events
        index = self.begin(commit)
        begins_term = index > 0
        # Of a commit that only begins a term what is due may be left out.
        if not begins_term or index < len(events):
            index = self.compare(commit, index, self.engine.housekeeping(commit.time))
        self.ask_probes(commit, None)
        while index < len(events):
            before, event = index, events[index]
            if event["event"] in OPENING:
                index += 1
                continue
            if event["event"] == "market_changed":
                index = self.compare(commit, index, [self.administer(event)])
                self.ask_probes(commit, None)
                continue
            if self.engine.is_due(commit.time):
                raise _Ended(f"expected first what is due, found {shown(event)}")
            index = self.compare(commit, index, self.execute(commit, index))
            self.ask_probes(commit, events[before:index])
        self.end(commit)

    def begin(self, commit: Commit) -> int:
        # Past the events that open a commit; at first, makes the engine.
        index = 0
        while index < len(commit.events) and commit.events[index]["event"] in OPENING:
            event = commit.events[index]
            if commit.sequence == 1 and event["event"] == "market_opened":
                self.engine = IndexedMarket(event["specification"], window=self.window)
            index += 1
        if not hasattr(self, "engine"):
            raise _Ended(f"expected market_opened, found {shown(commit.events)}")
        return index

    def compare(self, commit: Commit, index: int, expected: list[Json]) -> int:
        found = commit.events[index : index + len(expected)]
        if found != expected:
            # The first that differs says most.
            for place, event in enumerate(expected):
                there = found[place] if place < len(found) else None
                if there != event:
                    what = f"event {index + place + 1}"
                    raise _Ended(f"expected as {what} {shown(event)}, found {shown(there)}")
        return index + len(expected)

    def end(self, commit: Commit) -> None:
        what = f"commit {commit.sequence}"
        digest = self.engine.digest()
        if commit.digest != digest:
            text = f"expected digest {digest}, found {commit.digest}"
            self.verdict.report("digest", self.log.market, what, text)
        for probe in self.probes.pop(commit.sequence, ()):
            expected = "that it is executed" if probe.expected is None else shown(probe.expected)
            self.verdict.report(
                probe.rule,
                self.log.market,
                probe.known.own_id,
                f"expected in {what} at its end {expected}, found {shown(probe.found)}",
            )
        self.trades += [
            {**event, "time": commit.time, "sequence": commit.sequence}
            for event in commit.events
            if event["event"] == "trade"
        ]
        for asked in self.asked.get(commit.sequence, ()):
            expected_reply = replies.expected(asked, self.engine, commit, self.trades)
            if expected_reply is not None:
                self.verdict.queries += 1
                replies.compare(asked, expected_reply, self.verdict)

    # Receipts without events.

    def ask_probes(self, commit: Commit, happened: list[Json] | None) -> None:
        """Ask for the answers that may have changed; None when that may be any."""
        waiting = self.probes.get(commit.sequence)
        if not waiting:
            return
        touched = None if happened is None else set(peers_among(happened))
        left = []
        for probe in waiting:
            is_newcomer = not self.engine.has_room_for(probe.known.peer)
            if touched is None or is_newcomer or probe.known.peer in touched:
                self.ask(probe, commit)
                if probe.expected == probe.found:
                    self.verdict.repeated += 1
                    continue
            left.append(probe)
        self.probes[commit.sequence] = left

    def ask(self, probe: Probe, commit: Commit) -> None:
        engine, known = self.engine, probe.known
        pair = pair_or_none(known.own_id)
        is_old = pair is not None and (
            pair in engine.outcomes.get(known.peer, {})
            or pair <= engine.forgotten_pairs.get(known.peer, NO_PAIR)
        )
        if not is_old and engine.has_room_for(known.peer):
            probe.expected = None
            return
        before = self.state(known.peer)
        try:
            receipt, events = engine.execute(known.peer, known.command, commit.time)
        except UNREADABLE as error:
            probe.expected = {"found": f"a command that cannot be read: {error!r}"}
            return
        assert not events, f"{known.own_id} was asked about, and executed: {events}"
        assert self.state(known.peer) == before, (
            f"{known.own_id} was asked about, and did something"
        )
        probe.expected = essence({**receipt, "sequence": commit.sequence})

    def state(self, peer: str) -> tuple[Any, ...]:
        engine = self.engine
        return (
            engine.digest_sum,
            engine.trade_count,
            engine.priority_count,
            engine.server_named_count,
            len(engine.open),
            len(engine.by_id),
            len(engine.peers),
            len(engine.outcomes.get(peer, ())),
            engine.forgotten_pairs.get(peer),
        )

    # Operators' commands.

    def administer(self, event: Json) -> Json:
        """Do what an operator must have asked for; give the event that it makes."""
        engine = self.engine
        expected: Json = {"event": "market_changed"}
        if "specification" in event:
            before = engine.specification
            if self.change(event["specification"]) != before:
                expected["specification"] = dict(engine.specification)
        if "state" in event:
            what = CHANGES.get(str(event["state"]), "resume")
            for made in engine.administer(what, {})[1]:
                expected |= made
        return expected

    def change(self, wanted: Json) -> Json:
        engine = self.engine
        changeable = (*OPTIONAL_DECIMALS, *OPTIONAL_INTEGERS)
        wanted = specification_of(wanted)
        # What the naive engine knows is its to change. The rest is taken over as it is.
        others = {
            name: value
            for name, value in wanted.items()
            if name not in changeable and name not in REQUIRED
        }
        before = engine.specification
        engine.specification = {
            **{name: before[name] for name in before if name in changeable or name in REQUIRED},
            **others,
        }
        fields = {name: wanted.get(name, OPTIONAL_INTEGERS.get(name)) for name in changeable}
        engine.administer("change", {n: v for n, v in fields.items() if v is not None})
        if engine.state == "closed":
            engine.specification = before
        return dict(engine.specification)

    # Peers' commands.

    def execute(self, commit: Commit, index: int) -> list[Json]:
        """Execute the command whose first event this is; give the events that it makes."""
        place = self.outcome_of(commit, index)
        event = commit.events[place]
        own_id = own_id_of(event)
        if event["event"] == "canceled_all" and own_id is None and event["count"] == 0:
            return [event]  # Somebody had nothing to cancel: nobody is named, and nothing changes.
        if event["event"] in ("trade", "reduced", "expired") or (
            event["event"] == "canceled" and event.get("reason") != "requested"
        ):
            raise _Ended(f"expected a command's first event, found {shown(event)}")
        if (commit.sequence, place) in self.log.repeated:
            # Told already. One that changes no book can be passed over.
            if event["event"] == "rejected":
                return [event]
            raise _Ended
        if own_id is None:
            peer, command = self.made_up(commit, index, event)
            return self.execute_here(peer, command, commit)[1]
        execution = Execution(own_id, peer_of(own_id), commit.sequence, place, event)
        known = self.commands.find(self.log.market, execution)
        if known is None:
            return self.execute_unasked(commit, index, execution)
        receipt, events = self.execute_here(known.peer, known.command, commit)
        known.expected = essence({**receipt, "sequence": commit.sequence})
        return events

    def execute_here(self, peer: str, command: Json, commit: Commit) -> tuple[Json, list[Json]]:
        receipt, events = self.engine.execute(peer, command, commit.time)
        if not events:
            raise _Ended(f"expected no event of {shown(command)}, but {shown(receipt)}")
        return receipt, events

    def outcome_of(self, commit: Commit, index: int) -> int:
        """Tell where a command's outcome stands: behind its cancels, if it is a `canceled_all`."""
        end = index
        while end < len(commit.events) and is_plain_cancel(commit.events[end]):
            end += 1
        if index < end < len(commit.events):
            last = commit.events[end]
            if last["event"] == "canceled_all" and end - index <= last["count"]:
                return end
        return index

    # Commands that are not in the history.

    def execute_unasked(self, commit: Commit, index: int, execution: Execution) -> list[Json]:
        event, peer = execution.event, execution.peer
        if event["event"] == "rejected":
            # What was refused cannot be known, but that it was.
            engine, pair = self.engine, pair_or_none(execution.own_id)
            if pair is not None:
                engine.peers.add(peer)
                engine.remember(peer, pair, Outcome(event["content"], event["reason"], {}))
                engine.put_in_place([])
            return [event]
        peer, command = self.made_up(commit, index, event)
        _, events = self.execute_here(peer, command, commit)
        for made in events:
            # Where the content was not found, the one that stands there is taken for good.
            if "content" in made and "content" in event:
                made["content"] = event["content"]
        return events

    def made_up(self, commit: Commit, index: int, event: Json) -> tuple[str, Json]:
        """Make up a command, and its peer, from its outcome."""
        match event["event"]:
            case "accepted":
                command = submit_of(event)
                if is_server_named(event["order_id"]):
                    del command["order_id"]
                return event["peer"], command
            case "amended" | "canceled":
                candidates = self.changes_of_order(event)
                peer = peer_of(event["order_id"])
            case _:
                canceled = [
                    each["order_id"]
                    for each in commit.events[index : index + event["count"]]
                    if each["event"] == "canceled"
                ]
                own_id = event.get("command_id")
                peer = peer_of(own_id or canceled[0])
                candidates = self.cancels_of_all(peer, canceled, event)
        if "command_id" in event:
            candidates = [{**each, "command_id": event["command_id"]} for each in candidates]
            for candidate in candidates:
                if content_of(filled_in(candidate)) == event.get("content"):
                    return peer, candidate
        return peer, candidates[0]

    def changes_of_order(self, event: Json) -> list[Json]:
        # What a cancel or an amend may have said, the likeliest first: an amend names what it
        # changes, and perhaps the version.
        target = {"order_id": event["order_id"]}
        order = self.engine.find(peer_of(event["order_id"]), event["order_id"])
        if order is None:
            raise _Ended(f"expected an order that is known, found {shown(event)}")
        if event["event"] == "canceled":
            said = [{"op": "cancel", **target}]
        else:
            price = {"price": event["price"]}
            quantity = {"quantity": event["quantity"]}
            said = [{"op": "amend", **target, **each} for each in (quantity, price)]
            said.append({"op": "amend", **target, **price, **quantity})
            assert order.price is not None
            is_new_price = event["price"] != write(order.price)
            is_new_quantity = event["quantity"] != write(order.quantity)
            if is_new_price:
                said.insert(0, said.pop(2 if is_new_quantity else 1))
        return said + [{**each, "if_version": order.version} for each in said]

    def cancels_of_all(self, peer: str, canceled: list[str], event: Json) -> list[Json]:
        said: list[Json] = [{"op": "cancel_all"}]
        said += [{"op": "cancel_all", "side": side} for side in ("buy", "sell")]
        own = self.engine.open_orders(peer)
        most = self.engine.canceled_max
        fitting = [
            command
            for command in said
            if canceled
            == [order.order_id for order in own if command.get("side") in (None, order.side)][:most]
        ]
        return fitting or said


def is_plain_cancel(event: Json) -> bool:
    return (
        event["event"] == "canceled"
        and event.get("reason") == "requested"
        and "command_id" not in event
    )


def peers_among(events: list[Json]) -> Iterator[str]:
    """Give the peers whom events are about."""
    for event in events:
        for name in ("order_id", "maker_order_id", "taker_order_id", "command_id"):
            if name in event:
                yield peer_of(event[name])
