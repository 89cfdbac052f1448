"""What happened: the events, and the commit that holds those of one or more commands.

One message of `dex.log.<market>` and `dex.events.<market>` is one commit. Fields equal to their
default are left out. A reader that applies the events in order has the exact book and never needs
the matching rules, which is why nothing here knows them.
"""

from typing import Final, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from dex_protocol.commands import OrderType, SelfTrade, Side, TimeInForce
from dex_protocol.numbers import ZERO
from dex_protocol.specification import Specification

PROTOCOL: Final = 1
"""The version of the wire that a leader of this code speaks."""

RULES: Final = 1
"""The version of the matching rules that a leader of this code follows."""

MarketState = Literal["trading", "halted", "closed"]
CancelReason = Literal[
    "requested", "ioc", "market", "self_trade", "too_many_makers", "market_closed"
]
Priority = Literal["kept", "lost"]

HASH_OF_NOTHING: Final = "0" * 32
"""The `previous` of a market's first commit."""


class Event(Struct, tag_field="event", omit_defaults=True, gc=False):
    """A fact; each kind is a class of its own, its tag the class's name in snake case."""


class MarketOpened(Event, tag="market_opened"):
    """The first event of every log."""

    specification: Specification
    log_id: str


class MarketChanged(Event, tag="market_changed"):
    """The market has another specification, another state, or both; what is UNSET stays."""

    specification: Specification | UnsetType = UNSET
    state: MarketState | UnsetType = UNSET


class LeaderChanged(Event, tag="leader_changed"):
    """A term begins; `protocol` and `rules` are never left out."""

    server: str
    term: int
    protocol: int
    rules: int
    incarnation: str = ""
    """Which start of that server it is: two of one name must not take one entry for theirs. Empty
    in logs of before it was written."""


class Accepted(Event, tag="accepted"):
    """A new order; `resting_quantity` of it is in the book when its command is done."""

    order_id: str
    peer: str
    side: Side
    quantity: str
    type: OrderType = "limit"
    price: str | UnsetType = UNSET
    time_in_force: TimeInForce = "gtc"
    expires_at: int | UnsetType = UNSET
    post_only: bool = False
    self_trade: SelfTrade = "cancel_taker"
    resting_quantity: str = ZERO


class Trade(Event, tag="trade"):
    """A maker and a taker met, at the maker's price."""

    trade_id: int
    price: str
    quantity: str
    maker_order_id: str
    taker_order_id: str
    taker_side: Side


class Amended(Event, tag="amended"):
    """An order has these totals now; as `accepted` for what follows."""

    order_id: str
    price: str
    quantity: str
    priority: Priority
    version: int
    command_id: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    resting_quantity: str = ZERO


class Reduced(Event, tag="reduced"):
    """The self-trade rule `decrement` took a quantity off an order."""

    order_id: str
    quantity: str


class Canceled(Event, tag="canceled"):
    """What was left of an order was taken off; ids and content when a `cancel` asked for it."""

    order_id: str
    quantity: str
    reason: CancelReason
    command_id: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class CanceledAll(Event, tag="canceled_all"):
    """A `cancel_all` is done; its `canceled` events stand before it."""

    count: int
    command_id: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class Expired(Event, tag="expired"):
    """A `gtd` order's time came."""

    order_id: str
    quantity: str


class Rejected(Event, tag="rejected"):
    """A command with an id was refused; `order_id` alone names a refused `submit`."""

    peer: str
    reason: str
    content: str
    order_id: str | UnsetType = UNSET
    command_id: str | UnsetType = UNSET


AnyEvent: TypeAlias = (
    MarketOpened
    | MarketChanged
    | LeaderChanged
    | Accepted
    | Trade
    | Amended
    | Reduced
    | Canceled
    | CanceledAll
    | Expired
    | Rejected
)


class Commit(Struct, gc=False):
    """One entry of a market's log: events that stand together or not at all, in order."""

    market: str
    sequence: int
    term: int
    time: int
    previous: str
    digest: str
    events: list[AnyEvent]
