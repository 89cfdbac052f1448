"""Plays the golden texts of `engine/`: reads the commands, puts in what comes of them.

The notation, which is made to be read without this file:

    == a scenario begins; text that is nothing else is for the reader
    market: price_band 0.05, max_open_orders 2     (the specification; ticks and lots are 1)
    bounds: makers_count_max 2                     (of the engine)

          bid | price | ask                        (a book, best prices in the middle)
              |   101 | b1:5
    a1:3 a2:1 |   100 |                            (3 of a1, then 1 of a2: oldest first)

    > a3 buy 2 @ 101 ioc                           (a command)
    < filled 2 at 101                              (its receipt)
    . a3 accepted: buy 2 @ 101 ioc                 (its events, in the order they happened)
    . trade 1: a3 buys 2 @ 101 from b1

`a3` is alice's order, or her command, with the number 3; `b`, `c` and `d` are bob, carol and
dave. `a` alone leaves the id out; an order that a server named instead is `a*1`. The first book of
a scenario is set up, line by line; every later one shows what is left. Commands:

    > a3 buy 2 @ 101            > a3 sell 2 (at any price)       > a4 cancel a3
    > a4 amend a3 to 5 @ 100    > a4 amend a3 to 5               > a4 amend a3 to @ 100
    > a5 cancel all             > a5 cancel all buy              > a4 cancel a3 if version 2
    > halt   > resume   > close   > change price_band 0.1
    > wait 10s  (whatever is due then, happens)    > later 10s  (the next command comes then)

After an order's price come `gtc`, `ioc`, `fok`, `until 10s` (gtd, from the beginning), `post_only`
and a self-trade rule.
"""

import re
from typing import Any, Final

from msgspec import UNSET, convert, structs

from dex_engine import Bounds, Market
from dex_protocol.codec import decode_request, encode
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Submit
from dex_protocol.events import (
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    CanceledAll,
    Expired,
    MarketChanged,
    Reduced,
    Rejected,
    Trade,
)
from dex_protocol.receipts import Receipt
from dex_protocol.specification import SpecificationChange
from tests.builders import NOW, TIMESTAMP, a_specification, seal

PEERS: Final = {"a": "alice", "b": "bob", "c": "carol", "d": "dave"}
LETTERS: Final = {name: letter for letter, name in PEERS.items()}
SELF_TRADES: Final = ("cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow")
COUNTS: Final = {"max_open_orders", "max_peers", *Bounds.__struct_fields__}
"""Fields that are integers; the others are decimals."""

SECOND: Final = 1_000_000
"""In µs."""

HEAD: Final = re.compile(r"\s*bid \| +price \| ask\s*")


class NotUnderstood(Exception):
    """A line of a golden text says nothing that the stage knows."""


class Stage:
    """One scenario: a market, and a follower that must keep up with it."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {"tick_size": "1", "lot_size": "1"}
        self.bounds = Bounds()
        self.is_set_up = False
        self.time = NOW
        self.leader: Market
        self.follower: Market

    # --- Setting up -----------------------------------------------------------------------------

    def specify(self, text: str) -> None:
        self.fields |= named(text)

    def bound(self, text: str) -> None:
        self.bounds = structs.replace(self.bounds, **named(text))

    def open(self) -> None:
        specification = a_specification(**self.fields)
        self.leader = Market(specification.market, self.bounds)
        self.follower = Market(specification.market, self.bounds)
        events = self.leader.open(specification, log_id="log", time=self.time)
        events += self.leader.lead(server="server-1", term=1, protocol=1, rules=1, time=self.time)
        self.commit(events)
        self.is_set_up = True

    def set_up(self, rows: list[str]) -> None:
        self.open()
        for row in rows:
            bids, price, asks = (cell.strip() for cell in row.split("|"))
            for side, cell in (("buy", bids), ("sell", asks)):
                for each in cell.split():
                    name, _, quantity = each.partition(":")
                    receipt, _ = self.execute(f"{name} {side} {quantity} @ {price}")
                    if receipt.status != "new":
                        raise NotUnderstood(f"{row}: {each} does not rest, it is {receipt.status}")

    # --- Playing --------------------------------------------------------------------------------

    def play(self, text: str) -> list[str]:
        """Do what a line says, and tell what came of it."""
        if not self.is_set_up:
            self.open()
        words = text.split()
        if words[0] == "later":
            self.time += seconds(words[1])
            return []
        if words[0] == "wait":
            self.time += seconds(words[1])
            return self.told(self.leader.housekeeping(self.time))
        if words[0] in ("halt", "resume", "close", "change"):
            change = convert(named(" ".join(words[1:])), SpecificationChange)
            what: Any = words[0]
            reason, _, events = self.leader.administer(what, change, time=self.time)
            answer = [] if reason is None else [f"< rejected: {reason.name}"]
            events += self.leader.housekeeping(self.time)
            return answer + self.told(events)
        receipt, events = self.execute(text)
        return [f"< {receipt_text(receipt)}", *event_lines(events)]

    def told(self, events: list[AnyEvent]) -> list[str]:
        self.commit(events)
        return event_lines(events) or [". nothing"]

    def execute(self, text: str) -> tuple[Receipt, list[AnyEvent]]:
        made = command_of(text)
        peer = PEERS[text[0]]
        (command,), _ = decode_request(encode(made), peer)
        if isinstance(command, Receipt):
            return command, []
        housekeeping = self.leader.housekeeping(self.time)
        executed = self.leader.execute(command, peer=peer, time=self.time)
        events = housekeeping + executed.events
        self.commit(events)
        return executed.receipt, events

    def commit(self, events: list[AnyEvent]) -> None:
        """Close a commit; the follower must get to the same bytes by the events alone."""
        self.follower.apply_commit(seal(self.leader, events))
        self.leader.check()
        self.follower.check()
        assert self.follower.snapshot() == self.leader.snapshot()

    def picture(self) -> list[str]:
        """Draw the book, the highest price on top."""
        lot = self.leader.rules.lot
        rows: list[tuple[int, str, str]] = []
        for side in (self.leader.book.bids, self.leader.book.asks):
            for level in side.by_rank():
                cell = " ".join(f"{short(o.order_id)}:{lot.text(o.remaining)}" for o in level)
                bids, asks = (cell, "") if side is self.leader.book.bids else ("", cell)
                rows.append((level.price, bids, asks))
        rows.sort(reverse=True)
        width = max(12, *(len(bids) for _, bids, _ in rows), 0)
        tick = self.leader.rules.tick
        lines = [f"{'bid':>{width}} | price | ask"]
        lines += [f"{bids:>{width}} | {tick.text(price):>5} | {asks}" for price, bids, asks in rows]
        return [line.rstrip() for line in lines]


def played(text: str) -> str:
    """Give a golden text with today's receipts, events and books in it."""
    lines = text.splitlines()
    out: list[str] = []
    stage = Stage()
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if HEAD.fullmatch(line):
            rows = []
            while at < len(lines) and "|" in lines[at]:
                rows.append(lines[at])
                at += 1
            if not stage.is_set_up:
                stage.set_up(rows)
            out += stage.picture()
            continue
        out.append(line)
        if line.startswith("== "):
            stage = Stage()
        elif line.startswith("market: "):
            stage.specify(line.removeprefix("market: "))
        elif line.startswith("bounds: "):
            stage.bound(line.removeprefix("bounds: "))
        elif line.startswith("> "):
            while at < len(lines) and lines[at].startswith(("< ", ". ")):
                at += 1
            out += stage.play(line.removeprefix("> "))
    return "\n".join(out) + "\n"


# --- Commands -----------------------------------------------------------------------------------


def command_of(text: str) -> Command:
    """Read a peer's command."""
    match = re.fullmatch(r"([a-d])(\d*) (\w+) ?(.*)", text)
    if match is None:
        raise NotUnderstood(text)
    letter, number, verb, rest = match.groups()
    rest, _, version = rest.partition("if version ")
    made: Command
    if verb in ("buy", "sell"):
        made = submit_of(verb, rest)
        if number:
            made.order_id = full("order", letter + number)
        return made
    if verb == "cancel" and rest.startswith("all"):
        made = CancelAll()
        if rest != "all":
            made.side = rest.removeprefix("all ")  # type: ignore[assignment]
    elif verb == "cancel":
        made = Cancel(full("order", rest.strip()))
    elif verb == "amend":
        made = amend_of(rest.strip())
    else:
        raise NotUnderstood(text)
    if version:
        made.if_version = int(version)  # type: ignore[union-attr]
    if number:
        made.command_id = full("command", letter + number)
    return made


def submit_of(side: Any, text: str) -> Submit:
    match = re.fullmatch(r"(\S+)(?: @ (\S+))?(.*)", text)
    if match is None:
        raise NotUnderstood(text)
    quantity, price, rest = match.groups()
    made = Submit(side, quantity)
    if price is None:
        made.type = "market"
    else:
        made.price = price
    words = rest.split()
    while words:
        match words.pop(0):
            case "gtc" | "ioc" | "fok" as word:
                made.time_in_force = word  # type: ignore[assignment]
            case "until":
                made.time_in_force = "gtd"
                made.expires_at = NOW + seconds(words.pop(0))
            case "post_only":
                made.post_only = True
            case word if word in SELF_TRADES:
                made.self_trade = word  # type: ignore[assignment]
            case word:
                raise NotUnderstood(f"{text}: {word}")
    return made


def amend_of(text: str) -> Amend:
    match = re.fullmatch(r"(\S+) to(?: (\d\S*))?(?: @ (\S+))?", text)
    if match is None:
        raise NotUnderstood(text)
    name, quantity, price = match.groups()
    return Amend(full("order", name), UNSET, price or UNSET, quantity or UNSET)


def named(text: str) -> dict[str, Any]:
    """Read `price_band 0.05, max_peers 2`."""
    fields: dict[str, Any] = {}
    for each in text.split(","):
        if each.strip():
            name, value = each.split()
            is_count = name.startswith(("max_open", "max_peers")) or name.endswith(
                ("count", "_max")
            )
            fields[name] = int(value) if is_count else value
    return fields


def seconds(text: str) -> int:
    return int(text.removesuffix("s")) * SECOND


def full(kind: str, name: str) -> str:
    """Write `a3` or `a*1` in full."""
    letter, number = name[0], name[1:]
    timestamp = 0 if number.startswith("*") else TIMESTAMP
    return f"{kind}_{PEERS[letter]}_{timestamp}_{number.removeprefix('*')}"


def short(text: str) -> str:
    """Write an id as the golden texts do."""
    _, peer, timestamp, number = text.split("_")
    return f"{LETTERS[peer]}{'*' if timestamp == '0' else ''}{number}"


# --- What came of them --------------------------------------------------------------------------


def receipt_text(receipt: Receipt) -> str:
    parts: list[str] = []
    if receipt.canceled is not UNSET:
        parts.append(" ".join(map(short, receipt.canceled)) or "none")
        if receipt.more:
            parts.append("and more")
    if receipt.count is not UNSET:
        parts.append(f"{receipt.count} orders")
    if receipt.reason is not UNSET:
        parts.append(receipt.reason)
    if receipt.order_status is not UNSET:
        parts.append(f"is {receipt.order_status}")
    if receipt.average_price is not UNSET:
        parts.append(f"{receipt.filled_quantity} at {receipt.average_price}")
    if receipt.remaining_quantity not in (UNSET, "0"):
        parts.append(f"{receipt.remaining_quantity} open")
    if receipt.version is not UNSET and receipt.version > 1:
        parts.append(f"version {receipt.version}")
    if receipt.duplicate:
        parts.append("duplicate")
    return f"{receipt.status}: {', '.join(parts)}" if parts else str(receipt.status)


def event_lines(events: list[AnyEvent]) -> list[str]:
    return [f". {event_text(event)}" for event in events]


def event_text(event: AnyEvent) -> str:
    match event:
        case Accepted():
            parts = [f"{event.side} {event.quantity}"]
            parts += [] if event.price is UNSET else [f"@ {event.price}"]
            parts += [] if event.time_in_force == "gtc" else [event.time_in_force]
            parts += ["post_only"] if event.post_only else []
            parts += [] if event.self_trade == "cancel_taker" else [event.self_trade]
            return f"{short(event.order_id)} accepted: {' '.join(parts)}{rests(event)}"
        case Trade():
            deed = ("buys", "from") if event.taker_side == "buy" else ("sells", "to")
            return (
                f"trade {event.trade_id}: {short(event.taker_order_id)} {deed[0]} {event.quantity}"
                f" @ {event.price} {deed[1]} {short(event.maker_order_id)}"
            )
        case Amended():
            totals = f"{event.quantity} @ {event.price}, place {event.priority}"
            return (
                f"{short(event.order_id)} amended: {totals}, version {event.version}{rests(event)}"
            )
        case Reduced():
            return f"{short(event.order_id)} reduced: by {event.quantity}"
        case Canceled():
            return f"{short(event.order_id)} canceled: {event.quantity}, {event.reason}"
        case CanceledAll():
            return f"all canceled: {event.count}"
        case Expired():
            return f"{short(event.order_id)} expired: {event.quantity}"
        case Rejected():
            own = event.order_id if event.command_id is UNSET else event.command_id
            return f"{short(str(own))} rejected: {event.reason}"
        case MarketChanged():
            return "market changed" if event.state is UNSET else f"market is {event.state}"
    raise AssertionError(f"expected an event of a scenario, found {event}")


def rests(event: Accepted | Amended) -> str:
    return "" if event.resting_quantity == "0" else f", {event.resting_quantity} in the book"
