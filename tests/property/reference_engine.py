"""The reference engine: a market as PROTOCOL.md tells it, obviously right and obviously slow.

The readable twin, and the judge, of the real engine: the same commands must give the same receipts,
the same events and the same digest after every one of them.
It keeps one plain list of orders and sorts it whenever it matches; prices and quantities are exact
fractions of the units people speak in, and become ticks and lots only where the protocol says so.

It deliberately knows nothing of the real engine and of the codec (independence is its worth), and
nothing of what needs no state or no rules: malformed commands, batches, foreign ids (1001 to 1004),
rates, terms, commits and their sequence. It cannot be restored from events; it only executes.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from fractions import Fraction

MAX_TICKS_OR_LOTS = 2**63 - 1
MAX_OPEN_ORDERS_DEFAULT = 100_000
MAX_PEERS_DEFAULT = 1_000
AVERAGE_PRICE_EXTRA_DECIMALS = 8

REQUIRED = ("market", "tick_size", "lot_size")
OPTIONAL_DECIMALS = ("min_quantity", "max_quantity", "max_price", "min_notional", "price_band")
OPTIONAL_INTEGERS = {"max_open_orders": MAX_OPEN_ORDERS_DEFAULT, "max_peers": MAX_PEERS_DEFAULT}

NO_PAIR = (0, 0)


# Numbers, ids and contents, as they are written.


def decimals(value: Fraction) -> int:
    """Count the digits after the point that a decimal needs."""
    count = 0
    while (value * 10**count).denominator != 1:
        count += 1
    return count


def write(value: Fraction) -> str:
    """Write a decimal without trailing zeros."""
    count = decimals(value)
    whole, part = divmod(int(value * 10**count), 10**count)
    return f"{whole}.{part:0{count}}" if count else str(whole)


def pair_of(any_id: str) -> tuple[int, int]:
    """Read timestamp and sequence number off an order id or command id, from the right."""
    _, timestamp, sequence_number = any_id.rsplit("_", 2)
    return int(timestamp), int(sequence_number)


def filled_in(command: dict) -> dict:
    """Say a command in full: defaults filled in, decimals normalized."""
    command = dict(command)
    for name in ("price", "quantity"):
        if name in command:
            command[name] = write(Fraction(command[name]))
    if command["op"] == "submit":
        command.setdefault("type", "limit")
        command.setdefault("time_in_force", "gtc" if command["type"] == "limit" else "ioc")
        command.setdefault("post_only", False)
        command.setdefault("self_trade", "cancel_taker")
    return command


def own_id_name(command: dict) -> str:
    return "order_id" if command["op"] == "submit" else "command_id"


def content_of(command: dict) -> str:
    """Hash all fields of a filled-in command but its own id."""
    fields = {name: value for name, value in command.items() if name != own_id_name(command)}
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def ids_of(command: dict) -> dict:
    return {name: command[name] for name in ("order_id", "command_id") if name in command}


def without_defaults(event: dict, defaults: dict) -> dict:
    """Leave out what equals its default, and what is not there at all (None)."""
    return {
        name: value
        for name, value in event.items()
        if value is not None and not (name in defaults and value == defaults[name])
    }


def specification_of(fields: dict) -> dict:
    """Write a specification in one way only: decimals normalized, defaults left out."""
    is_decimal = {"tick_size", "lot_size", *OPTIONAL_DECIMALS}
    return {
        name: write(Fraction(value)) if name in is_decimal else value
        for name, value in fields.items()
        if OPTIONAL_INTEGERS.get(name) != value
    }


# Orders, and what can happen to them.


@dataclass
class Order:
    """An accepted order; `quantity` is its current total, `value` the sum of price x quantity."""

    order_id: str
    peer: str
    side: str
    type: str
    time_in_force: str
    post_only: bool
    self_trade: str
    price: Fraction | None
    quantity: Fraction
    expires_at: int | None
    filled: Fraction = Fraction(0)
    value: Fraction = Fraction(0)
    version: int = 1
    priority: int | None = None
    ended: str | None = None

    @property
    def remaining(self) -> Fraction:
        return Fraction(0) if self.ended else self.quantity - self.filled

    @property
    def is_open(self) -> bool:
        return self.remaining > 0

    @property
    def status(self) -> str:
        if self.ended:
            return self.ended
        if self.filled == self.quantity:
            return "filled"
        return "partially_filled" if self.filled else "new"

    @property
    def may_rest(self) -> bool:
        return self.time_in_force in ("gtc", "gtd")


def end(order: Order, event: str, **more: str) -> dict:
    """End an open order, `canceled` or `expired`, and tell what was taken off."""
    taken_off = write(order.remaining)
    order.ended = event
    return {"event": event, "order_id": order.order_id, "quantity": taken_off, **more}


def reduce(order: Order, quantity: Fraction) -> dict:
    """Lower an order; one that is lowered to nothing is canceled, without an event of its own."""
    order.quantity -= quantity
    order.version += 1
    if order.quantity == order.filled:
        order.ended = "canceled"
    return {"event": "reduced", "order_id": order.order_id, "quantity": write(quantity)}


def trade(maker: Order, taker: Order) -> dict:
    """Trade as much as both have, at the resting order's price."""
    quantity = min(maker.remaining, taker.remaining)
    for order in (maker, taker):
        order.filled += quantity
        order.value += maker.price * quantity
    return {
        "event": "trade",
        "price": write(maker.price),
        "quantity": write(quantity),
        "maker_order_id": maker.order_id,
        "taker_order_id": taker.order_id,
        "taker_side": taker.side,
    }


def match(taker: Order, makers: list[Order], makers_max: int) -> list[dict]:
    """Match an incoming order with the makers it crosses (best price first, then oldest first).

    Returns:
        Events, in the order they happened, the maker's before the taker's; trades without their id.
    """
    happened = []
    for touched, maker in enumerate(makers):
        if not taker.is_open:
            break
        if touched == makers_max:
            happened.append(end(taker, "canceled", reason="too_many_makers"))
        elif maker.peer != taker.peer or taker.self_trade == "allow":
            happened.append(trade(maker, taker))
        elif taker.self_trade == "decrement":
            smaller = min(maker.remaining, taker.remaining)
            happened += [reduce(maker, smaller), reduce(taker, smaller)]
        else:
            if taker.self_trade in ("cancel_maker", "cancel_both"):
                happened.append(end(maker, "canceled", reason="self_trade"))
            if taker.self_trade in ("cancel_taker", "cancel_both"):
                happened.append(end(taker, "canceled", reason="self_trade"))
    return happened


@dataclass
class Outcome:
    """What is remembered of a command: its content, and the receipt's facts as it left them."""

    content: str
    reason: str | None
    as_left: dict


class ReferenceMarket:
    """One market. Commands, receipts and events are dicts as on the wire."""

    def __init__(
        self,
        specification: dict,
        *,
        window: int = 4096,
        makers_max: int = 1000,
        housekeeping_max: int = 1000,
        canceled_max: int = 1000,
    ) -> None:
        self.specification = specification_of(specification)
        self.window = window
        self.makers_max = makers_max
        self.housekeeping_max = housekeeping_max
        self.canceled_max = canceled_max

        self.state = "trading"
        # Every order that is open or remembered, in order of acceptance.
        self.orders: list[Order] = []
        self.peers: set[str] = set()
        # Of each peer: the outcomes of the highest pairs, and the highest pair that ever left.
        self.outcomes: dict[str, dict[tuple[int, int], Outcome]] = {}
        self.forgotten_pairs: dict[str, tuple[int, int]] = {}
        self.last_price: Fraction | None = None
        self.trade_count = 0
        self.priority_count = 0
        self.server_named_count = 0

    # One command, one outcome.

    def execute(self, peer: str, command: dict, time: int) -> tuple[dict, list[dict]]:
        """Execute one well-formed command; give its receipt and the events it made."""
        command = filled_in(command)
        content = content_of(command)
        own_id = command.get(own_id_name(command))

        if own_id:
            remembered = self.outcomes.get(peer, {}).get(pair_of(own_id))
            if remembered and remembered.content == content:
                return self.duplicate(peer, command, remembered), []
            if remembered:
                return self.rejection(command, "id_reused", self.standing(command, None)), []
            if pair_of(own_id) <= self.forgotten_pairs.get(peer, NO_PAIR):
                return self.rejection(command, "stale_id", self.standing(command, None)), []

        refusal = getattr(self, f"refusal_of_{command['op']}")
        reason = refusal(peer, command, time)
        if reason:
            receipt, events = self.refuse(peer, command, reason, content if own_id else None)
        else:
            marks = {"command_id": own_id, "content": content} if own_id else {}
            execute = getattr(self, command["op"])
            receipt, events = execute(peer, command, marks)

        # Whoever an event names is known; that of a cancel_all without an id names nobody.
        if events and (own_id or command["op"] != "cancel_all"):
            self.peers.add(peer)
            if own_id:
                self.remember(peer, pair_of(own_id), Outcome(content, reason, dict(receipt)))
        self.forget_orders()
        return receipt, events

    def remember(self, peer: str, pair: tuple[int, int], outcome: Outcome) -> None:
        """Keep the outcomes of the highest pairs; the lowest leaves first, even this one."""
        outcomes = self.outcomes.setdefault(peer, {})
        outcomes[pair] = outcome
        if len(outcomes) > self.window:
            lowest = min(outcomes)
            del outcomes[lowest]
            self.forgotten_pairs[peer] = max(self.forgotten_pairs.get(peer, NO_PAIR), lowest)

    def forget_orders(self) -> None:
        """Drop the orders that are neither open nor remembered."""
        self.orders = [
            order
            for order in self.orders
            if order.is_open or pair_of(order.order_id) in self.outcomes.get(order.peer, {})
        ]

    def duplicate(self, peer: str, command: dict, outcome: Outcome) -> dict:
        """Answer a repeated command with its outcome, as the order stands now."""
        if command["op"] == "cancel_all":
            count = len(outcome.as_left["canceled"])
            return {**ids_of(command), "status": "canceled", "count": count, "duplicate": True}
        order = self.find(peer, command["order_id"])
        standing = self.standing(command, order) if order else facts_of(outcome.as_left)
        if outcome.reason:
            return self.rejection(command, outcome.reason, standing, duplicate=True)
        return {**ids_of(command), **standing, "duplicate": True}

    # Refusals: a ladder for each command; the first rung that applies is the reason.

    def refusal_of_submit(self, peer: str, command: dict, time: int) -> str | None:
        order = self.new_order(peer, command)
        makers = self.crossed_by(order.side, order.price)

        if self.state != "trading":
            return "market_halted"
        if reason := self.refusal_of_numbers(
            price=order.price,
            quantity=order.quantity,
            band_side=order.side,
            notional=None if order.price is None else order.price * order.quantity,
        ):
            return reason
        if order.expires_at is not None and order.expires_at <= time:
            return "already_expired"
        if not self.has_room_for(peer):
            return "too_many_peers"
        if order.may_rest and len(self.open_orders(peer)) >= self.count_max("max_open_orders"):
            return "too_many_open_orders"
        if order.post_only and makers:
            return "post_only_would_trade"
        if order.time_in_force == "fok" and not self.fills_whole(order, makers):
            return "fok_not_fillable"
        if order.type == "market" and not makers:
            return "no_liquidity"
        return None

    def refusal_of_amend(self, peer: str, command: dict, time: int) -> str | None:
        order = self.find(peer, command["order_id"])
        is_open = order is not None and order.is_open
        named_price = Fraction(command["price"]) if "price" in command else None
        named_quantity = Fraction(command["quantity"]) if "quantity" in command else None
        price, quantity = new_totals(order, command) if is_open else (None, None)

        if self.state != "trading":
            return "market_halted"
        if reason := self.refusal_of_numbers(
            price=named_price,
            quantity=named_quantity,
            band_side=order.side if is_open else None,
            notional=price * quantity if is_open else None,
        ):
            return reason
        if reason := self.refusal_of_cancel(peer, command, time):
            return reason
        if quantity <= order.filled:
            return "amend_below_filled"
        if (
            order.post_only
            and not keeps_place(order, price, quantity)
            and self.crossed_by(order.side, price)
        ):
            return "post_only_would_trade"
        return None

    def refusal_of_cancel(self, peer: str, command: dict, time: int) -> str | None:
        order = self.find(peer, command["order_id"])
        if order is None:
            return "unknown_order"
        if not order.is_open:
            return "order_done"
        if command.get("if_version", order.version) != order.version:
            return "version_conflict"
        return None

    def refusal_of_cancel_all(self, peer: str, command: dict, time: int) -> str | None:
        return None if self.has_room_for(peer) else "too_many_peers"

    def refusal_of_numbers(
        self,
        *,
        price: Fraction | None,
        quantity: Fraction | None,
        band_side: str | None,
        notional: Fraction | None,
    ) -> str | None:
        """Climb 2003 to 2007; what is None is not asked about."""
        tick_size = Fraction(self.specification["tick_size"])
        lot_size = Fraction(self.specification["lot_size"])

        if price is not None and price % tick_size != 0:
            return "price_off_tick"
        if quantity is not None and quantity % lot_size != 0:
            return "quantity_off_lot"
        if price is not None and (
            price == 0
            or self.is_above("max_price", price)
            or price / tick_size > MAX_TICKS_OR_LOTS
            or (band_side is not None and self.is_worse_than_band(band_side, price))
        ):
            return "price_out_of_range"
        if quantity is not None and (
            quantity == 0
            or self.is_below("min_quantity", quantity)
            or self.is_above("max_quantity", quantity)
            or quantity / lot_size > MAX_TICKS_OR_LOTS
        ):
            return "quantity_out_of_range"
        if notional is not None and self.is_below("min_notional", notional):
            return "notional_out_of_range"
        return None

    def is_above(self, name: str, value: Fraction) -> bool:
        return name in self.specification and value > Fraction(self.specification[name])

    def is_below(self, name: str, value: Fraction) -> bool:
        return name in self.specification and value < Fraction(self.specification[name])

    def is_worse_than_band(self, side: str, price: Fraction) -> bool:
        if "price_band" not in self.specification or self.last_price is None:
            return False
        band = Fraction(self.specification["price_band"])
        if side == "buy":
            return price > self.last_price * (1 + band)
        return price < self.last_price * (1 - band)

    def has_room_for(self, peer: str) -> bool:
        return peer in self.peers or len(self.peers) < self.count_max("max_peers")

    def count_max(self, name: str) -> int:
        return self.specification.get(name, OPTIONAL_INTEGERS[name])

    def fills_whole(self, order: Order, makers: list[Order]) -> bool:
        """Try a fill-or-kill on copies: it must trade all it wants, nothing canceled or reduced."""
        trial = replace(order)
        match(trial, [replace(maker) for maker in makers], self.makers_max)
        return trial.filled == order.quantity

    def refuse(
        self, peer: str, command: dict, reason: str, content: str | None
    ) -> tuple[dict, list[dict]]:
        """Refuse; with an id (so with content) that is an event, unless the market has no room."""
        order = self.find(peer, command["order_id"]) if "order_id" in command else None
        receipt = self.rejection(command, reason, self.standing(command, order))
        if content is None or not self.has_room_for(peer):
            return receipt, []
        event = {"event": "rejected", **ids_of(command), "peer": peer, "reason": reason}
        return receipt, [{**event, "content": content}]

    # Execution of what is not refused.

    def submit(self, peer: str, command: dict, marks: dict) -> tuple[dict, list[dict]]:
        order = self.new_order(peer, command)
        if not order.order_id:
            self.server_named_count += 1
            order.order_id = f"order_{peer}_0_{self.server_named_count}"
        self.orders.append(order)
        accepted = {
            "event": "accepted",
            "order_id": order.order_id,
            "peer": peer,
            "side": order.side,
            "type": order.type,
            "price": command.get("price"),
            "quantity": write(order.quantity),
            "time_in_force": order.time_in_force,
            "expires_at": order.expires_at,
            "post_only": order.post_only,
            "self_trade": order.self_trade,
        }
        happened = self.offer(order)
        accepted["resting_quantity"] = write(order.remaining)
        defaults = {
            "type": "limit",
            "time_in_force": "gtc",
            "post_only": False,
            "self_trade": "cancel_taker",
            "resting_quantity": "0",
        }
        command = {**command, "order_id": order.order_id}
        receipt = self.receipt(command, order, trades=trades_among(happened))
        return receipt, [without_defaults(accepted, defaults), *happened]

    def amend(self, peer: str, command: dict, marks: dict) -> tuple[dict, list[dict]]:
        order = self.find(peer, command["order_id"])
        price, quantity = new_totals(order, command)
        kept = keeps_place(order, price, quantity)
        if (price, quantity) != (order.price, order.quantity):
            order.version += 1
        order.price, order.quantity = price, quantity
        amended = {
            "event": "amended",
            **marks,
            "order_id": order.order_id,
            "price": write(price),
            "quantity": write(quantity),
            "priority": "kept" if kept else "lost",
            "version": order.version,
        }
        happened = [] if kept else self.offer(order)
        amended["resting_quantity"] = write(order.remaining)
        receipt = self.receipt(command, order, trades=trades_among(happened))
        return receipt, [without_defaults(amended, {"resting_quantity": "0"}), *happened]

    def cancel(self, peer: str, command: dict, marks: dict) -> tuple[dict, list[dict]]:
        order = self.find(peer, command["order_id"])
        events = [end(order, "canceled", reason="requested", **marks)]
        return self.receipt(command, order), events

    def cancel_all(self, peer: str, command: dict, marks: dict) -> tuple[dict, list[dict]]:
        asked = [
            order for order in self.open_orders(peer) if command.get("side") in (None, order.side)
        ]
        now = asked[: self.canceled_max]
        events = [end(order, "canceled", reason="requested") for order in now]
        events.append({"event": "canceled_all", **marks, "count": len(now)})
        receipt = {
            **ids_of(command),
            "status": "canceled",
            "canceled": [order.order_id for order in now],
            "more": len(asked) > len(now),
            "duplicate": False,
        }
        return receipt, events

    def offer(self, order: Order) -> list[dict]:
        """Let an incoming order trade; then its rest goes into the book or is canceled."""
        happened = match(order, self.crossed_by(order.side, order.price), self.makers_max)
        for event in happened:
            if event["event"] == "trade":
                self.trade_count += 1
                event["trade_id"] = self.trade_count
                self.last_price = Fraction(event["price"])
        if order.is_open and order.may_rest:
            self.priority_count += 1
            order.priority = self.priority_count
        elif order.is_open:
            reason = "market" if order.type == "market" else "ioc"
            happened.append(end(order, "canceled", reason=reason))
        return happened

    def new_order(self, peer: str, command: dict) -> Order:
        return Order(
            order_id=command.get("order_id", ""),
            peer=peer,
            side=command["side"],
            type=command["type"],
            time_in_force=command["time_in_force"],
            post_only=command["post_only"],
            self_trade=command["self_trade"],
            price=Fraction(command["price"]) if "price" in command else None,
            quantity=Fraction(command["quantity"]),
            expires_at=command.get("expires_at"),
        )

    # What is due without a command, and what operators do.

    def housekeeping(self, time: int) -> list[dict]:
        """Give what comes first in a commit: expiries, then a closed market's cancels."""
        resting = self.open_orders()
        due = [order for order in resting if order.expires_at is not None]
        due = sorted(
            [order for order in due if order.expires_at <= time],
            key=lambda order: order.expires_at,  # Stable, so then by acceptance.
        )
        events = [end(order, "expired") for order in due[: self.housekeeping_max]]
        if self.state == "closed":
            room = self.housekeeping_max - len(events)
            still_open = [order for order in resting if order.is_open]
            events += [
                end(order, "canceled", reason="market_closed") for order in still_open[:room]
            ]
        self.forget_orders()
        return events

    def administer(self, what: str, fields: dict) -> tuple[dict, list[dict]]:
        """Change the specification, halt, resume or close; refusals look like receipts."""
        changeable = {*OPTIONAL_DECIMALS, *OPTIONAL_INTEGERS}
        if not changeable.issuperset(fields):
            return {"status": "rejected", "reason": "malformed"}, []
        if self.state == "closed" and what != "close":
            return {"status": "rejected", "reason": "market_halted"}, []
        if what == "change":
            changed = specification_of({**self.specification, **fields})
            if changed == self.specification:
                return {}, []
            self.specification = changed
            return {}, [{"event": "market_changed", "specification": dict(changed)}]
        state = {"halt": "halted", "resume": "trading", "close": "closed"}[what]
        if state == self.state:
            return {}, []
        self.state = state
        return {}, [{"event": "market_changed", "state": state}]

    # Looking.

    def digest(self) -> str:
        """Sum key x remaining lots over all resting orders, modulo 2^64."""
        tick_size = Fraction(self.specification["tick_size"])
        lot_size = Fraction(self.specification["lot_size"])
        total = 0
        for order in self.open_orders():
            ticks = int(order.price / tick_size)
            text = f"{order.order_id}|{order.side}|{ticks}|{order.priority}"
            key = hashlib.blake2b(text.encode(), digest_size=8).digest()
            total += int.from_bytes(key, "little") * int(order.remaining / lot_size)
        return f"{total % 2**64:016x}"

    def book(self) -> dict:
        """Give both sides: price levels, best price first, with their orders, oldest first."""
        sides = {}
        for name, taker_side in (("bids", "sell"), ("asks", "buy")):
            levels = []
            for order in self.crossed_by(taker_side, None):
                if not levels or levels[-1][0] != write(order.price):
                    levels.append([write(order.price), []])
                levels[-1][1].append([order.order_id, write(order.remaining)])
            sides[name] = levels
        return sides

    def order(self, peer: str, order_id: str) -> dict | None:
        """Give a peer's order as it stands, while open or remembered."""
        order = self.find(peer, order_id)
        if order is None:
            return None
        fields = {
            "order_id": order_id,
            **self.standing({}, order),
            "side": order.side,
            "type": order.type,
            "price": None if order.price is None else write(order.price),
            "quantity": write(order.quantity),
        }
        return without_defaults(fields, {})

    def highest(self, peer: str) -> list[int]:
        return list(max(self.outcomes.get(peer, {}), default=NO_PAIR))

    def forgotten(self, peer: str) -> list[int]:
        return list(self.forgotten_pairs.get(peer, NO_PAIR))

    def open_orders(self, peer: str | None = None) -> list[Order]:
        """Open orders, of all peers or of one, in order of acceptance."""
        return [order for order in self.orders if order.is_open and peer in (None, order.peer)]

    def find(self, peer: str, order_id: str) -> Order | None:
        """Find this peer's order, open or remembered; a refused submit never was one."""
        for order in self.orders:
            if (order.peer, order.order_id) == (peer, order_id):
                return order
        return None

    def crossed_by(self, side: str, price: Fraction | None) -> list[Order]:
        """Resting orders that an incoming one would trade with, best price first, then oldest.

        Without a price, as for a market order, that is the whole opposite side.
        """
        best_first = 1 if side == "buy" else -1
        opposite = [order for order in self.open_orders() if order.side != side]
        return sorted(
            [
                order
                for order in opposite
                if price is None or order.price * best_first <= price * best_first
            ],
            key=lambda order: (order.price * best_first, order.priority),
        )

    # Receipts.

    def receipt(self, command: dict, order: Order, **more: list) -> dict:
        return {**ids_of(command), **self.standing(command, order), "duplicate": False, **more}

    def rejection(
        self, command: dict, reason: str, standing: dict, *, duplicate: bool = False
    ) -> dict:
        receipt = {**ids_of(command), **standing}
        if reason == "order_done":
            receipt.setdefault("order_status", standing["status"])
        return {**receipt, "status": "rejected", "reason": reason, "duplicate": duplicate}

    def standing(self, command: dict, order: Order | None) -> dict:
        """Tell how an order stands; of no order, that nothing is filled and nothing is open."""
        if command.get("op") == "cancel_all":
            return {}
        if order is None:
            return {"filled_quantity": "0", "remaining_quantity": "0"}
        facts = {
            "status": order.status,
            "filled_quantity": write(order.filled),
            "remaining_quantity": write(order.remaining),
            "version": order.version,
        }
        if order.filled:
            tick_decimals = decimals(Fraction(self.specification["tick_size"]))
            # Python rounds fractions half to even.
            average = round(
                order.value / order.filled, tick_decimals + AVERAGE_PRICE_EXTRA_DECIMALS
            )
            facts["average_price"] = write(average)
        return facts


def facts_of(receipt: dict) -> dict:
    """Pick from a remembered receipt what tells how the order stood."""
    numbers = ("filled_quantity", "remaining_quantity", "version", "average_price")
    names = ("status", "order_status", *numbers)
    return {name: receipt[name] for name in names if name in receipt}


def new_totals(order: Order, command: dict) -> tuple[Fraction, Fraction]:
    """Give the price and quantity that an amend asks for."""
    price = Fraction(command["price"]) if "price" in command else order.price
    quantity = Fraction(command["quantity"]) if "quantity" in command else order.quantity
    return price, quantity


def keeps_place(order: Order, price: Fraction, quantity: Fraction) -> bool:
    """Only an amend that lowers the quantity, or changes nothing, keeps the order's place."""
    return price == order.price and quantity <= order.quantity


def trades_among(happened: list[dict]) -> list[dict]:
    names = ("trade_id", "price", "quantity", "maker_order_id")
    return [
        {name: event[name] for name in names} for event in happened if event["event"] == "trade"
    ]
