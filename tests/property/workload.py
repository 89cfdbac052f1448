"""Makes up what peers and operators might do to a market, aimed at its rules.

A stream of steps: few peers, few price levels, small quantities, so that everything meets
everything: trades, self-trades, refusals of every kind, repeated, changed and late ids, halts.
Every choice is asked of a `Choice`, so one stream serves a seeded loop (`Seeded`) and Hypothesis,
which shrinks it (`Drawn`).

It deliberately does not know the rules, nor any engine: it remembers what was sent, and aims at
open orders only as well as the receipts that it was told of (`History.learn`) allow.
No command here is malformed, in a batch, or in another peer's name (1001 to 1004).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hypothesis import strategies

START_TIME_MICROSECONDS = 1_763_800_000_000_000
START_TIMESTAMP_MILLISECONDS = START_TIME_MICROSECONDS // 1_000

# One name with an underscore: ids are parsed from the right.
PEERS = ["alice", "bob_2", "carol"]
GUESTS_MAX = 20

# Lots of 0.05 and ticks of 0.01. The lists below sit on, beside and beyond their limits.
PRICES = ["99.98", "99.99", "100", "100.01", "100.02"]
PRICES_ODD = ["0", "0.01", "94", "98.5", "101.5", "106", "100.005", "250", "99999999999999999.99"]
QUANTITIES = ["0.5", "1", "1.5", "2", "2.5", "3", "4"]
QUANTITIES_ODD = ["0", "0.05", "0.33", "10", "60", "999999999999999999"]
# Mostly limits that let most commands pass, or else nothing would ever trade.
CHANGES = {
    "min_quantity": ["0.5", "0.5", "1"],
    "max_quantity": ["4", "20", "50", "1000000"],
    "max_price": ["100.01", "105", "200", "1000000"],
    "min_notional": ["1", "40", "100", "150.01"],
    "price_band": ["0", "0.0001", "0.01", "0.05", "0.5"],
    "max_open_orders": [1, 4, 8, 20, 100_000],
    "max_peers": [2, 3, 5, 1_000],
}

RESTING_RULES = ["gtc", "gtc", "gtc", "gtd"]
SELF_TRADE_RULES = ["cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow"]


class Choice(Protocol):
    def integer(self, low: int, high: int) -> int:
        """Choose from low to high, both included."""

    def pick(self, options: list) -> object:
        """Choose one of a list that is not empty."""

    def chance(self, percent: int) -> bool:
        """Choose yes in so many of a hundred cases."""


class Seeded:
    """Chooses by a `random.Random`."""

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def integer(self, low: int, high: int) -> int:
        return self.source.randint(low, high)

    def pick(self, options: list) -> object:
        return self.source.choice(options)

    def chance(self, percent: int) -> bool:
        return self.source.randrange(100) < percent


class Drawn:
    """Chooses by a `draw` of Hypothesis; the simplest choices are the first, the least, and no."""

    def __init__(self, draw: Callable) -> None:
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        return self.draw(strategies.integers(low, high))

    def pick(self, options: list) -> object:
        return self.draw(strategies.sampled_from(options))

    def chance(self, percent: int) -> bool:
        return self.draw(strategies.integers(0, 99)) >= 100 - percent


@dataclass(frozen=True)
class Send:
    """A peer sends a command."""

    peer: str
    command: dict
    time: int


@dataclass(frozen=True)
class Administer:
    """An operator changes, halts, resumes or closes the market."""

    what: str
    fields: dict
    time: int


@dataclass(frozen=True)
class Wait:
    """Nothing happens but time."""

    time: int


Step = Send | Administer | Wait


@dataclass
class PeerHistory:
    """What one peer has sent and heard.

    That is its commands with an id, orders worth aiming at, its counter, and of the orders that
    were open when it last heard of them, the version.
    """

    sent: list[dict] = field(default_factory=list)
    order_ids: list[str] = field(default_factory=list)
    open_versions: dict[str, int] = field(default_factory=dict)
    count: int = 0


@dataclass
class History:
    """What was made up so far; hand the same one to every `next_step` of a market."""

    time: int = START_TIME_MICROSECONDS
    state: str = "trading"
    nameless_submits: int = 0
    peers: dict[str, PeerHistory] = field(default_factory=dict)

    def of(self, peer: str) -> PeerHistory:
        return self.peers.setdefault(peer, PeerHistory())

    def learn(self, peer: str, receipt: dict) -> None:
        """Take note of a receipt; without, open orders are hit by luck alone."""
        if receipt.get("reason") in ("stale_id", "id_reused"):
            return  # They say nothing of the order.
        own = self.of(peer)
        for order_id in receipt.get("canceled", []):
            own.open_versions.pop(order_id, None)
        if "order_id" in receipt:
            own.open_versions.pop(receipt["order_id"], None)
            if receipt["remaining_quantity"] != "0":
                own.open_versions[receipt["order_id"]] = receipt["version"]


def first_specification(choose: Choice) -> dict:
    """Make up a specification: often bare, with some of the optional fields."""
    specification = {"market": "BTC-USD", "tick_size": "0.01", "lot_size": "0.05"}
    for name, options in CHANGES.items():
        if choose.chance(15):
            specification[name] = choose.pick(options)
    return specification


def limits(choose: Choice) -> dict:
    """Make up a market's limits, small enough to be met."""
    return {
        "window": choose.pick([1, 3, 10, 25, 25, 60, 4096]),
        "makers_max": choose.pick([1, 2, 4, 1000]),
        "housekeeping_max": choose.pick([1, 3, 1000]),
        "canceled_max": choose.pick([1, 2, 1000]),
    }


def next_step(choose: Choice, history: History) -> Step:
    """Make up the next step, and note it in the history."""
    if choose.chance(60):
        history.time += choose.integer(0, 10)
    if choose.chance(3):
        history.time += choose.integer(10, 100)
        return Wait(history.time)
    if choose.chance(15 if history.state == "halted" else 2):
        return administration(choose, history)
    peer = choose.pick(PEERS)
    if choose.chance(2):
        peer = f"guest_{choose.integer(1, GUESTS_MAX)}"
    own = history.of(peer)
    if own.sent and choose.chance(12):
        return Send(peer, resent(choose, peer, own), history.time)
    return Send(peer, new_command(choose, peer, history), history.time)


def administration(choose: Choice, history: History) -> Administer:
    # Closing is for good, so it is rare: a market should live some thousand steps.
    if choose.integer(1, 100) == 1:
        history.state = "closed"
        return Administer("close", {}, history.time)
    if history.state == "closed":
        what = choose.pick(["change", "halt", "resume", "close"])
    elif history.state == "halted":
        what = choose.pick(["resume", "resume", "change", "halt"])
    else:
        what = choose.pick(["change", "change", "change", "resume", "halt"])
    if what != "change":
        if history.state != "closed" and what != "close":
            history.state = {"halt": "halted", "resume": "trading"}[what]
        return Administer(what, {}, history.time)
    names = [choose.pick(list(CHANGES)) for _ in range(choose.integer(1, 2))]
    fields = {name: choose.pick(CHANGES[name]) for name in names}
    return Administer("change", fields, history.time)


# New commands.


def new_command(choose: Choice, peer: str, history: History) -> dict:
    kinds = [submit] * 20 + [cancel] * 5 + [amend] * 13 + [cancel_all]
    command = choose.pick(kinds)(choose, peer, history)
    own = history.of(peer)
    is_submit = command["op"] == "submit"
    if choose.chance(8):
        history.nameless_submits += is_submit
        return command
    pair = new_pair(choose, own)
    if is_submit:
        command["order_id"] = f"order_{peer}_{pair}"
        if command.get("time_in_force") in (None, "gtc", "gtd") or choose.chance(20):
            own.order_ids.append(command["order_id"])
    else:
        command["command_id"] = f"command_{peer}_{pair}"
    own.sent.append(command)
    return command


def new_pair(choose: Choice, own: PeerHistory) -> str:
    """Make up a pair: mostly a growing one, with gaps; sometimes a late one, used or not."""
    if own.count and choose.chance(10):
        behind = choose.pick([3, 10, 50])
        return pair_at(choose.integer(max(1, own.count - behind), own.count))
    own.count += choose.pick([1, 1, 1, 2, 3])
    return pair_at(own.count)


def pair_at(count: int) -> str:
    """Write the pair of a count; the timestamp grows now and then, as with a slow clock."""
    return f"{START_TIMESTAMP_MILLISECONDS + count // 4}_{count}"


def submit(choose: Choice, peer: str, history: History) -> dict:
    side = choose.pick(["buy", "sell"])
    command = {"op": "submit", "side": side, "quantity": quantity(choose)}
    if choose.chance(15):
        command["type"] = "market"
        time_in_force = choose.pick(["ioc", "ioc", "fok"])
    else:
        # Sellers mostly ask more than buyers bid, so that books grow.
        likely = PRICES[:-1] if side == "buy" else PRICES[1:]
        command["price"] = choose.pick(likely) if choose.chance(50) else price(choose)
        time_in_force = choose.pick([*RESTING_RULES, "ioc", "fok"])
        if time_in_force == "gtd":
            is_late = choose.chance(10)
            ahead = choose.integer(-5, 0) if is_late else choose.integer(1, 300)
            command["expires_at"] = history.time + ahead
        if time_in_force in ("gtc", "gtd") and choose.chance(15):
            command["post_only"] = True
    if time_in_force != ("ioc" if "type" in command else "gtc") or choose.chance(10):
        command["time_in_force"] = time_in_force
    if choose.chance(70):
        command["self_trade"] = choose.pick(SELF_TRADE_RULES)
    return command


def cancel(choose: Choice, peer: str, history: History) -> dict:
    return {"op": "cancel", **aim(choose, peer, history)}


def amend(choose: Choice, peer: str, history: History) -> dict:
    command = {"op": "amend", **aim(choose, peer, history)}
    what = choose.pick(["price", "quantity", "both"])
    if what != "quantity":
        command["price"] = price(choose)
    if what != "price":
        command["quantity"] = quantity(choose)
    return command


def cancel_all(choose: Choice, peer: str, history: History) -> dict:
    side = {"side": choose.pick(["buy", "sell"])} if choose.chance(50) else {}
    return {"op": "cancel_all", **side}


def price(choose: Choice) -> str:
    return choose.pick(PRICES_ODD if choose.chance(8) else PRICES)


def quantity(choose: Choice) -> str:
    return choose.pick(QUANTITIES_ODD if choose.chance(8) else QUANTITIES)


def aim(choose: Choice, peer: str, history: History) -> dict:
    """Name an order, and sometimes the version that it has or has not."""
    order_id = target(choose, peer, history)
    if not choose.chance(20):
        return {"order_id": order_id}
    version = history.of(peer).open_versions.get(order_id, 1)
    return {"order_id": order_id, "if_version": version + choose.pick([0, 0, 1])}


def target(choose: Choice, peer: str, history: History) -> str:
    """Aim at an open order of the peer, a recent one, an old one, a server's, or an unknown."""
    own = history.of(peer)
    if own.open_versions and choose.chance(60):
        return choose.pick(list(own.open_versions))
    if choose.chance(10):
        return f"order_{peer}_{pair_at(choose.integer(1, own.count + 5))}"
    if history.nameless_submits and choose.chance(10):
        return f"order_{peer}_0_{choose.integer(1, history.nameless_submits)}"
    if not own.order_ids:
        return f"order_{peer}_{pair_at(own.count + 1)}"
    return choose.pick(own.order_ids if choose.chance(10) else own.order_ids[-6:])


# Commands again, by ids that were sent before.


def resent(choose: Choice, peer: str, own: PeerHistory) -> dict:
    """Send an earlier command again: the same, the same said otherwise, or changed."""
    command = dict(choose.pick(own.sent if choose.chance(25) else own.sent[-8:]))
    if choose.chance(60):
        return command
    if choose.chance(40):
        return said_otherwise(command)
    return changed(choose, peer, command)


def said_otherwise(command: dict) -> dict:
    """Write defaults out, and decimals with a zero more: still the same command."""
    command = dict(command)
    if command["op"] == "submit":
        is_limit = command.setdefault("type", "limit") == "limit"
        command.setdefault("time_in_force", "gtc" if is_limit else "ioc")
        command.setdefault("post_only", False)
        command.setdefault("self_trade", "cancel_taker")
    for name in ("price", "quantity"):
        if name in command:
            command[name] += "0" if "." in command[name] else ".0"
    return command


def changed(choose: Choice, peer: str, command: dict) -> dict:
    """Use a command's pair for another one: one field changed, or another kind of command."""
    own_id = command["order_id"] if command["op"] == "submit" else command["command_id"]
    pair = own_id.removeprefix(f"order_{peer}_").removeprefix(f"command_{peer}_")
    if choose.chance(30):
        return {"op": "cancel_all", "command_id": f"command_{peer}_{pair}"}
    if choose.chance(30):
        fields = {"side": "buy", "price": price(choose), "quantity": quantity(choose)}
        return {"op": "submit", "order_id": f"order_{peer}_{pair}", **fields}
    if "quantity" in command:
        return {**command, "quantity": quantity(choose)}
    if command["op"] in ("cancel", "amend"):
        return {**command, "if_version": choose.integer(1, 3)}
    return {**command, "side": choose.pick(["buy", "sell"])}
