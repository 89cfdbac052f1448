"""What the load is: orders that trade, rest, and are sometimes refused, on and around a price.

The same seed, market and peer give the same orders, whatever the exchange answers. The price that
they gather around swings up and down, the same way for all peers, and what takes is somewhat more
than what rests, so that the book stays small however many orders come.

Pure: the Random comes in. Knows nothing of who sends the orders, nor when.
"""

from random import Random
from typing import Final, Literal, TypeVar, get_args

from msgspec import UNSET

from dex_protocol.commands import SelfTrade, Side, Submit, TimeInForce
from dex_protocol.numbers import COUNT_MAX, UNIT, Scale, text_of_units, units
from dex_protocol.specification import Specification

Kind = Literal[
    "rest", "cross", "post_only", "ioc", "fok", "market", "price_off_tick", "quantity_off_lot"
]

T = TypeVar("T")

SHARES_PERCENT: Final[dict[Kind, int]] = {
    "rest": 46,
    "cross": 12,
    "post_only": 8,
    "ioc": 15,
    "fok": 5,
    "market": 10,
    "price_off_tick": 2,
    "quantity_off_lot": 2,
}
"""How often each kind comes. The last two are refused on purpose, so that refusals are part of
what is measured and verified."""

SELF_TRADE_PERCENT: Final[dict[SelfTrade, int]] = {
    "allow": 96,
    "decrement": 1,
    "cancel_maker": 1,
    "cancel_taker": 1,
    "cancel_both": 1,
}
"""Mostly `allow`: one peer alone would otherwise never trade."""

START_TICKS: Final = 10_000
"""Where prices start in a market that has had no trade yet: 100 where the tick is a cent."""

SWING_TICKS: Final = 40
"""How far the price goes from its start, up and down: what is left behind is met again."""

STEP_ORDERS: Final = 10
"""After how many orders of a peer it moves by a tick."""

REST_TICKS_MAX: Final = 12
"""How far behind the price orders rest."""

CROSS_TICKS_MAX: Final = 12
"""How far beyond it they reach when they are to trade."""

REST_LOTS_MAX: Final = 10
TAKE_LOTS_MAX: Final = 26
"""Quantities of both, from 1, in units of the least quantity that the market takes: what takes is
somewhat more than what rests, or the book would grow without end."""


class Profile:
    """The orders of one peer to one market."""

    def __init__(
        self, specification: Specification, *, last_price: str | None, random: Random
    ) -> None:
        """Begin.

        Args:
            specification: The market's, whose bounds the orders keep where they can.
            last_price: Of the last trade, from which the price bands count; None for none.
            random: Makes every choice.
        """
        self._tick = Scale(specification.tick_size)
        self._lot = Scale(specification.lot_size)
        self._random = random.random
        price_max = _price_max(specification, self._tick)
        self._start = _start(self._tick, last_price, price_max)
        self._middle = self._start
        # Nothing rests beyond where the price comes by, or it would stay there for good.
        self._lowest = max(1, self._start - SWING_TICKS)
        self._highest = min(price_max, self._start + SWING_TICKS)
        self._quantity_unit = _quantity_unit(specification, self._tick, self._lot, self._lowest)
        self._quantity_max = _quantity_max(specification, self._lot)
        self._made = 0

    def order(self, order_id: str) -> Submit:
        """Make the next order."""
        # NB: int(random() * n) is several times faster than randrange(n), and as even as a load
        # needs it; a load generator makes as many orders as the exchange takes.
        random = self._random
        if self._made % STEP_ORDERS == 0:
            self._middle = self._start + _swing(self._made // STEP_ORDERS)
        self._made += 1
        kind = _KINDS[int(random() * 100)]
        side, self_trade = _SIDES_AND_SELF_TRADES[int(random() * 200)]
        if kind in _TAKING:
            quantity = self._quantity(1 + int(random() * TAKE_LOTS_MAX))
            if kind == "market":
                return Submit(side, quantity, order_id, "market", self_trade=self_trade)
            price = self._price(side, int(random() * (CROSS_TICKS_MAX + 1)))
            if kind == "cross":
                return Submit(side, quantity, order_id, "limit", price, self_trade=self_trade)
            condition: TimeInForce = "ioc" if kind == "ioc" else "fok"
            return Submit(
                side, quantity, order_id, "limit", price, condition, self_trade=self_trade
            )
        quantity = self._quantity(1 + int(random() * REST_LOTS_MAX))
        price = self._price(side, -1 - int(random() * REST_TICKS_MAX))
        if kind == "price_off_tick":
            price = _beside(price, self._tick)
        elif kind == "quantity_off_lot":
            quantity = _beside(quantity, self._lot)
        return Submit(
            side,
            quantity,
            order_id,
            "limit",
            price,
            post_only=kind == "post_only",
            self_trade=self_trade,
        )

    def _price(self, side: Side, reach: int) -> str:
        # A buy reaches up, a sell down.
        ticks = self._middle + reach if side == "buy" else self._middle - reach
        if not self._lowest <= ticks <= self._highest:
            ticks = self._inside(ticks)
        return self._tick.text(ticks)

    def _inside(self, ticks: int) -> int:
        # Mirrored, not cut off: at one price more would gather than ever trades there.
        mirrored = 2 * (self._lowest if ticks < self._lowest else self._highest) - ticks
        return min(max(mirrored, self._lowest), self._highest)

    def _quantity(self, count: int) -> str:
        lots = count * self._quantity_unit
        return self._lot.text(lots if lots < self._quantity_max else self._quantity_max)


def profile_random(seed: int, market: str, peer: str) -> Random:
    """Give the Random that makes the choices of one peer in one market."""
    return Random(f"{seed}/{market}/{peer}")


def _swing(step: int) -> int:
    # A triangle: from 0 up, down through 0, and back.
    phase = (step + SWING_TICKS) % (4 * SWING_TICKS)
    return min(phase, 4 * SWING_TICKS - phase) - SWING_TICKS


def _one_of_hundred(shares: dict[T, int]) -> list[T]:
    table = [value for value, percent in shares.items() for _ in range(percent)]
    assert len(table) == 100, f"expected shares of 100 percent, found {len(table)}"
    return table


_KINDS: Final = _one_of_hundred(SHARES_PERCENT)
_TAKING: Final = frozenset(("cross", "ioc", "fok", "market"))
_SIDES_AND_SELF_TRADES: Final[list[tuple[Side, SelfTrade]]] = [
    (side, self_trade)
    for side in get_args(Side)
    for self_trade in _one_of_hundred(SELF_TRADE_PERCENT)
]


def _price_max(specification: Specification, tick: Scale) -> int:
    if specification.max_price is UNSET:
        return COUNT_MAX
    most = units(specification.max_price)
    assert most is not None, "a market's specification is valid"
    return max(1, most // tick.step_units)


def _start(tick: Scale, last_price: str | None, price_max: int) -> int:
    last = None if last_price is None else tick.count(last_price)
    return last or max(1, min(START_TICKS, price_max // 2))


def _quantity_unit(specification: Specification, tick: Scale, lot: Scale, lowest: int) -> int:
    # The least quantity that no bound refuses at the lowest price: quantities are its multiples.
    least = 1
    if specification.min_quantity is not UNSET:
        quantity = units(specification.min_quantity)
        assert quantity is not None, "a market's specification is valid"
        least = max(least, -(-quantity // lot.step_units))
    if specification.min_notional is not UNSET:
        notional = units(specification.min_notional)
        assert notional is not None, "a market's specification is valid"
        least = max(least, -(-notional * UNIT // (lowest * tick.step_units * lot.step_units)))
    return least


def _quantity_max(specification: Specification, lot: Scale) -> int:
    if specification.max_quantity is UNSET:
        return COUNT_MAX
    most = units(specification.max_quantity)
    assert most is not None, "a market's specification is valid"
    return max(1, most // lot.step_units)


def _beside(text: str, scale: Scale) -> str:
    # Half a step further; where there is no half (the finest step), on it.
    value = units(text)
    assert value is not None, "it was made by a scale"
    return text_of_units(value + scale.step_units // 2)
