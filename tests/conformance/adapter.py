"""The engine behind tracebook's NDJSON protocol, so that a foreign suite can judge it.

Run as a program, once per trace: `hello` is answered `ready`, `event` by `observation`, `snapshot`
by the books, `finish` by `complete`; then it ends at once. It translates and keeps the ids apart;
what trades with what is the engine's doing alone. Every event becomes a commit that a follower
applies, and what is observed is the follower's book.

Where the two worlds differ, the adapter gives way:

- prices come as floats and snap to the tick as the suite's own do (half to even);
- ids may be used again once their order is done, so every order gets a fresh one here;
- `replace` is a cancel and a new limit order, `reduce` an amend of the total;
- what can trade nothing at once is refused here and `applied` there, without trades;
- a symbol may be any text, so markets are numbered.
"""

import hashlib
import json
import math
import sys
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from dex_engine import Market
from dex_engine.order import Order
from dex_protocol.codec import encode
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Submit
from dex_protocol.events import AnyEvent, Trade
from dex_protocol.ids import make_id
from dex_protocol.numbers import Scale
from dex_protocol.receipts import Receipt
from dex_protocol.specification import Specification

PROTOCOL: Final = {"protocol": "tracebook.conformance", "protocol_version": 1}
ENGINE: Final = {"name": "dex", "version": "1", "language": "Python"}

Message = dict[str, Any]

HARMLESS: Final = ("no_liquidity", "fok_not_fillable")
"""Refusals of what cannot trade at once: to the suite the order was taken and came to nothing."""

TIMES_IN_FORCE: Final[dict[str, Any]] = {"LIMIT": "gtc", "IOC": "ioc", "FOK": "fok"}

NOTHING: Final = 1e-12
"""The suite takes no quantity up to this one for a quantity."""


class Refused(Exception):
    """The event is to be observed as rejected, for this reason."""


class SymbolBook:
    """One symbol: a market that executes, and one that follows its commits.

    `active` holds the suite's id of each open order and the engine's, `sources` the way back.
    """

    def __init__(self, number: int, *, tick_size: str, lot_size: str) -> None:
        specification = Specification(
            market=f"M-{number}", tick_size=tick_size, lot_size=lot_size, max_peers=10**9
        )
        self.tick = Scale(tick_size)
        self.lot = Scale(lot_size)
        self.lot_decimal = Decimal(lot_size)
        self.tick_float = float(tick_size)
        self.leader = Market(specification.market)
        self.follower = Market(specification.market)
        self.active: dict[int, str] = {}
        self.sources: dict[str, int] = {}
        self.time = 0
        self.count = 0
        opened = self.leader.open(specification, log_id="conformance", time=self.time)
        led = self.leader.lead(server="adapter", term=1, protocol=1, rules=1, time=self.time)
        self.commit(opened + led)

    # --- The engine -----------------------------------------------------------------------------

    def execute(self, command: Command, peer: str) -> tuple[Receipt, list[AnyEvent]]:
        self.time += 1
        executed = self.leader.execute(command, peer=peer, time=self.time)
        self.commit(executed.events)
        return executed.receipt, executed.events

    def commit(self, events: list[AnyEvent]) -> None:
        encoded = b",".join(encode(event) for event in events)
        self.follower.apply_commit(self.leader.seal(events, encoded, digest=self.leader.digest))

    def next_id(self, kind: Any, peer: str) -> str:
        self.count += 1
        return make_id(kind, peer, 1, self.count)

    def open_order(self, source: int) -> Order:
        order_id = self.active.get(source)
        if order_id is None or order_id not in self.follower.orders:
            raise Refused("ORDER_NOT_ACTIVE")
        return self.follower.orders[order_id]

    # --- The suite's operations -----------------------------------------------------------------

    def new(self, event: Message) -> list[Trade]:
        source = event["order_id"]
        if self.active.get(source) in self.follower.orders:
            raise Refused("DUPLICATE_ORDER_ID")
        is_market = event["order_type"] == "MARKET"
        price = None if is_market else self.snapped(event["price"])
        quantity = event["quantity"]
        if (price is not None and price <= 0) or not quantity > NOTHING:
            raise Refused("INVALID_ORDER")
        command = Submit(side=event["side"].lower(), quantity=self.lot_text(quantity))
        if price is None:
            command.type = "market"
        else:
            command.price = self.tick.text(price)
            command.time_in_force = TIMES_IN_FORCE[event["order_type"]]
        return self.submit(command, source, peer_of(event["owner"]), invalid="INVALID_ORDER")

    def submit(self, command: Submit, source: int, peer: str, *, invalid: str) -> list[Trade]:
        command.order_id = self.next_id("order", peer)
        command.self_trade = "allow"
        self.sources[command.order_id] = source
        self.active[source] = command.order_id
        receipt, events = self.execute(command, peer)
        if receipt.status == "rejected" and receipt.reason not in HARMLESS:
            raise Refused(invalid)
        return [event for event in events if isinstance(event, Trade)]

    def cancel(self, event: Message) -> list[Trade]:
        self.take_out(self.open_order(event["order_id"]))
        return []

    def take_out(self, order: Order) -> None:
        command = Cancel(order.order_id, command_id=self.next_id("command", order.peer))
        receipt, _ = self.execute(command, order.peer)
        assert receipt.status == "canceled"

    def reduce(self, event: Message) -> list[Trade]:
        order = self.open_order(event["order_id"])
        lots = self.lot.count(self.lot_text(event["quantity"]))
        assert lots is not None
        if lots > order.remaining:
            raise Refused("INVALID_ORDER")
        if lots == order.remaining:
            self.take_out(order)
            return []
        command = Amend(
            order.order_id,
            command_id=self.next_id("command", order.peer),
            quantity=self.lot.text(order.quantity - lots),
        )
        receipt, _ = self.execute(command, order.peer)
        if receipt.status == "rejected":
            raise Refused("INVALID_ORDER")
        return []

    def replace(self, event: Message) -> list[Trade]:
        source = event["order_id"]
        order = self.open_order(source)
        price, quantity = event["price"], event["quantity"]
        if (price is not None and price <= 0) or (quantity is not None and quantity <= 0):
            raise Refused("INVALID_REPLACEMENT")
        old_price, old_quantity = self.tick.text(order.price), self.lot.text(order.remaining)
        ticks = order.price if price is None else self.snapped(price)
        command = Submit(side=order.side, price=old_price, quantity=old_quantity)
        if ticks > 0:
            command.price = self.tick.text(ticks)
            if quantity is not None:
                command.quantity = self.lot_text(quantity)
        self.take_out(order)
        trades = self.submit(command, source, order.peer, invalid="INVALID_REPLACEMENT")
        if ticks <= 0:
            # The suite's engine takes the order out, fails, and puts it back, behind the others.
            raise Refused("INVALID_REPLACEMENT")
        return trades

    def clear(self, event: Message) -> list[Trade]:
        for peer in list(self.leader.peers):
            more = True
            while more:
                command = CancelAll(command_id=self.next_id("command", peer))
                more = self.execute(command, peer)[0].more is True
        self.active.clear()
        return []

    # --- Numbers --------------------------------------------------------------------------------

    def snapped(self, price: float) -> int:
        """Give the tick that a price snaps to, as the suite does it: in binary floats."""
        if not math.isfinite(price):
            raise Refused("INVALID_ORDER")
        return round(price / self.tick_float)

    def lot_text(self, quantity: float) -> str:
        """Write a quantity above 0 to the lot's decimals."""
        return format(Decimal(repr(quantity)).quantize(self.lot_decimal, ROUND_HALF_EVEN), "f")

    # --- What is observed -----------------------------------------------------------------------

    def trade_seen(self, symbol: str, trade: Trade) -> Message:
        taker, maker = self.sources[trade.taker_order_id], self.sources[trade.maker_order_id]
        buyer, seller = (taker, maker) if trade.taker_side == "buy" else (maker, taker)
        return {
            "symbol": symbol,
            "buy_order_id": buyer,
            "sell_order_id": seller,
            "price": trade.price,
            "quantity": trade.quantity,
        }

    def seen(self, symbol: str) -> Message:
        book = self.follower.book
        return {
            "symbol": symbol,
            "bids": [self.order_seen(order) for order in book.bids],
            "asks": [self.order_seen(order) for order in book.asks],
        }

    def order_seen(self, order: Order) -> Message:
        return {
            "order_id": self.sources[order.order_id],
            "price": self.tick.text(order.price),
            "remaining_quantity": self.lot.text(order.remaining),
            "owner": int(order.peer.removeprefix("owner_")),
            "order_type": "LIMIT",
        }


class Adapter:
    """All symbols of one trace; a symbol's book is there from the first event that makes one."""

    def __init__(self, config: Message) -> None:
        if config["matching_algorithm"] != "fifo" or config["self_trade_policy"] != "NONE":
            raise ValueError(f"expected fifo without a self-trade policy, found {config}")
        self.tick_size = config["tick_size"]
        self.lot_size = format(Decimal(1).scaleb(-config["quantity_decimal_places"]), "f")
        self.books: dict[str, SymbolBook] = {}
        self.index = 0

    def observe(self, index: int, event: Message) -> Message:
        self.index = index
        outcome: Message = {"status": "applied", "reason": None, "message": None}
        trades: list[Message] = []
        try:
            book = self.book_of(event)
            done = getattr(book, event["op"])(event)
            trades = [book.trade_seen(event["symbol"], trade) for trade in done]
        except Refused as refused:
            outcome = {"status": "rejected", "reason": str(refused), "message": None}
        return {
            "type": "observation",
            "index": index,
            "outcome": outcome,
            "trades": trades,
            "state_hash": hashlib.sha256(canonical(self.state())).hexdigest(),
            "resting_order_count": sum(len(book.follower.orders) for book in self.books.values()),
        }

    def book_of(self, event: Message) -> SymbolBook:
        symbol = event["symbol"]
        if symbol not in self.books:
            if event["op"] not in ("new", "clear"):
                raise Refused("ORDER_NOT_ACTIVE")
            self.books[symbol] = SymbolBook(
                len(self.books) + 1, tick_size=self.tick_size, lot_size=self.lot_size
            )
        return self.books[symbol]

    def state(self) -> Message:
        return {"books": [book.seen(symbol) for symbol, book in sorted(self.books.items())]}


def peer_of(owner: int) -> str:
    if not -(2**63) <= owner < 2**63:
        raise Refused("INVALID_ORDER")
    return f"owner_{owner}"


def canonical(value: Message) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def answer(adapter: Adapter, message: Message) -> Message:
    match message["type"]:
        case "event":
            return adapter.observe(message["index"], message["event"])
        case "snapshot":
            return {"type": "snapshot", "index": adapter.index, "state": adapter.state()}
        case "finish":
            return {"type": "complete", "event_count": adapter.index}
        case unknown:
            raise ValueError(f"expected event, snapshot or finish, found {unknown}")


def send(message: Message) -> None:
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def main() -> int:
    hello = json.loads(sys.stdin.readline())
    if hello["type"] != "hello" or any(hello[name] != PROTOCOL[name] for name in PROTOCOL):
        raise ValueError(f"expected hello of {PROTOCOL}, found {hello}")
    adapter = Adapter(hello["config"])
    send({"type": "ready", **PROTOCOL, "engine": ENGINE})
    for line in sys.stdin:
        message = json.loads(line)
        send(answer(adapter, message))
        if message["type"] == "finish":
            return 0
    raise ValueError("expected finish, found the end of the input")


if __name__ == "__main__":
    sys.exit(main())
