"""Why a command or a query was refused, or is to be sent again: two closed lists.

Numbers are public and never reused; the sentences may change. Knows nothing of who refuses; the
order in which reasons are asked for is in docs/PROTOCOL.md (*Refusals*).
"""

from enum import Enum


class Reason(Enum):
    """A refusal for good: its number, and the sentence that explains it."""

    malformed = (1001, "the request cannot be read")
    unknown_value = (1002, "a field's value is outside its list")
    batch_too_large = (1003, "the request has more commands or bytes than this peer may send")
    wrong_peer = (1004, "an id names another peer")
    unknown_market = (2001, "there is no such market")
    market_halted = (2002, "the market is halted or closed and takes cancels only")
    price_off_tick = (2003, "the price is not a multiple of the tick size")
    quantity_off_lot = (2004, "the quantity is not a multiple of the lot size")
    price_out_of_range = (2005, "the price is 0, above the greatest, or outside the price band")
    quantity_out_of_range = (2006, "the quantity is 0, below the least, or above the greatest")
    notional_out_of_range = (2007, "price times quantity is below the least notional")
    post_only_would_trade = (3001, "an opposite order stands at that price or better")
    fok_not_fillable = (3002, "the order cannot be filled whole at once")
    no_liquidity = (3003, "nothing rests on the other side")
    unknown_order = (3004, "this peer has no such order")
    version_conflict = (3005, "the order has another version")
    stale_id = (3006, "the id is older than what the market remembers: this copy was not executed")
    id_reused = (3007, "the id was used for something else: this copy was not executed")
    amend_below_filled = (3008, "the new quantity is not above what is filled")
    already_expired = (3009, "expires_at is not after the commit's time")
    order_done = (3010, "the order is filled, canceled or expired already")
    too_many_open_orders = (4002, "this peer has as many open orders as the market allows")
    too_many_peers = (4003, "the market has as many peers as it allows")

    def __init__(self, number: int, sentence: str) -> None:
        self.number = number
        self.sentence = sentence


class RetryReason(Enum):
    """Why this copy was not executed and should be sent again: the sentence that explains it."""

    not_leader = "this server no longer leads the market"
    busy = "more is waiting than the server can commit"
    rate_limited = "this peer sends faster than it may"
    unavailable = "the server cannot reach the log, or not what was asked for, just now"
    late = "the command waited too long in the server"
    snapshot_gone = "that snapshot was replaced by a newer one: start again"

    @property
    def sentence(self) -> str:
        """The sentence that explains the reason."""
        return self.value
