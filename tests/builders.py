"""The few words that all tests share: orders as people say them, ids by number, a market.

`buy("10 @ 100")` is a limit order, `sell("10")` a market order. A number stands for an id of
alice's: order 7 is `order_alice_1763800000000_7`, unless another peer is named.
"""

from typing import Any

from dex_engine import Bounds, Market
from dex_engine.execution import Executed
from dex_protocol.codec import encode
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Side, Submit
from dex_protocol.events import AnyEvent
from dex_protocol.specification import Specification

NOW = 1_763_800_000_000_000
"""The time at which tests begin, in µs."""

TIMESTAMP = NOW // 1_000
"""The timestamp of every id that `order` and `command` make, in ms."""

LONGEST_PEER = "p" * 32


def order(number: int, peer: str = "alice") -> str:
    """Name an order."""
    return f"order_{peer}_{TIMESTAMP}_{number}"


def command(number: int, peer: str = "alice") -> str:
    """Name a command."""
    return f"command_{peer}_{TIMESTAMP}_{number}"


def buy(text: str, number: int | None = None, *, peer: str = "alice", **fields: Any) -> Submit:
    """Make an order to buy: `10 @ 100`, or `10` at any price; without a number, without an id."""
    return _submit("buy", text, number, peer, fields)


def sell(text: str, number: int | None = None, *, peer: str = "alice", **fields: Any) -> Submit:
    """Make an order to sell: as `buy`."""
    return _submit("sell", text, number, peer, fields)


def _submit(side: Side, text: str, number: int | None, peer: str, fields: dict[str, Any]) -> Submit:
    quantity, at, price = text.partition(" @ ")
    submit = Submit(side=side, quantity=quantity, **fields)
    if at:
        submit.price = price
    else:
        submit.type = "market"
    if number is not None:
        submit.order_id = order(number, peer)
    return submit


def cancel(target: int | str, number: int | None = None, **fields: Any) -> Cancel:
    """Cancel an order, given by its number or its id."""
    return _named(Cancel(_id(target), **fields), number)


def amend(target: int | str, number: int | None = None, **fields: Any) -> Amend:
    """Amend an order, given by its number or its id."""
    return _named(Amend(_id(target), **fields), number)


def cancel_all(number: int | None = None, **fields: Any) -> CancelAll:
    """Cancel all orders, or those of a side."""
    return _named(CancelAll(**fields), number)


def _id(target: int | str) -> str:
    return order(target) if isinstance(target, int) else target


def _named(made: Any, number: int | None) -> Any:
    if number is not None:
        made.command_id = command(number)
    return made


def a_specification(**fields: Any) -> Specification:
    """Specify a market in ticks of 0.01 and lots of 0.001."""
    return Specification(**{"market": "BTC-USD", "tick_size": "0.01", "lot_size": "0.001"} | fields)


def a_market(bounds: Bounds = Bounds(), **fields: Any) -> Market:  # noqa: B008  (frozen)
    """Open a market, led in term 1; its commit 1 is sealed."""
    specification = a_specification(**fields)
    market = Market(specification.market, bounds)
    events = market.open(specification, log_id="log", time=NOW)
    seal(market, events + market.lead(server="server-1", term=1, protocol=1, rules=1, time=NOW))
    return market


def seal(market: Market, events: list[AnyEvent]) -> bytes:
    """Close a commit over what was executed, and give its payload."""
    encoded = b",".join(encode(event) for event in events)
    return market.seal(events, encoded, digest=market.digest)


def execute(
    market: Market, made: Command, *, peer: str = "alice", time: int | None = None
) -> Executed:
    """Execute a command at the market's time or later, without closing a commit."""
    return market.execute(made, peer=peer, time=market.time if time is None else time)


def send(market: Market, made: Command, *, peer: str = "alice", time: int | None = None) -> bytes:
    """Execute a command, and close a commit over it alone."""
    return seal(market, execute(market, made, peer=peer, time=time).events)
