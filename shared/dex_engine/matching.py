"""The matching policy: whom an incoming order meets, in which order, and with what outcome.

Price, then time, and the taker's self-trade rule. It only looks: the plan it makes is carried out
by whoever asked, so a fill-or-kill order is planned like any other and refused when the plan
leaves something over.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from dex_engine.book import BookSide, PriceLevel
from dex_engine.order import Order
from dex_protocol.commands import SelfTrade

Meeting = Literal["trade", "remove", "reduce"]
Ending = Literal["self_trade", "too_many_makers"]


class Step(Struct, gc=False):
    """What happens to one maker; `reduce` lowers the taker by as much, `remove` takes it all."""

    meeting: Meeting
    maker: Order
    quantity: int


class Plan(Struct, gc=False):
    """What an incoming order will do.

    `steps` in the order they happen; `left` is what neither traded nor was reduced; `ending` says
    why the search ended before the taker, the makers or the prices did.
    """

    steps: list[Step]
    left: int
    ending: Ending | None


def plan(
    makers: BookSide,
    *,
    limit: int | None,
    quantity: int,
    peer: str,
    self_trade: SelfTrade,
    whole: bool,
    makers_max: int,
) -> Plan:
    """Plan an incoming order against the side it trades with, which stays as it is.

    Args:
        makers: The opposite side.
        limit: The rank on that side which no maker may exceed; None for no price limit.
        quantity: What there is to trade, in lots, above 0.
        peer: Whose order it is.
        self_trade: What to do about makers of the same peer.
        whole: Whether it is fill-or-kill; own orders then count as nothing under `cancel_maker`
            and end the search under every other rule but `allow`.
        makers_max: How many makers it may touch.

    Complexity: linear in the makers touched.
    """
    steps: list[Step] = []
    left = quantity
    level = makers.best
    behind: Iterator[PriceLevel] | None = None
    # Not by the side's own iterator: most takers are done with the best level, at its first order.
    while level is not None and (limit is None or level.rank <= limit):
        maker: Order | None = level.oldest
        while maker is not None:
            if len(steps) == makers_max:
                return Plan(steps, left, "too_many_makers")
            remaining = maker.remaining
            traded = remaining if remaining < left else left
            if maker.peer != peer or self_trade == "allow":
                steps.append(Step("trade", maker, traded))
                left -= traded
            elif self_trade == "cancel_maker":
                steps.append(Step("remove", maker, remaining))
            elif self_trade == "cancel_taker" or whole:
                return Plan(steps, left, "self_trade")
            elif self_trade == "cancel_both":
                steps.append(Step("remove", maker, remaining))
                return Plan(steps, left, "self_trade")
            else:
                steps.append(Step("reduce", maker, traded))
                left -= traded
            if left == 0:
                return Plan(steps, 0, None)
            maker = maker.newer
        if behind is None:
            behind = makers.by_rank(limit)
            next(behind)
        level = next(behind, None)
    return Plan(steps, left, None)
