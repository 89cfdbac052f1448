"""A specification turned into integers: the bounds that commands are checked against.

Knows nothing of orders or of a market's state.
"""

from functools import partial
from typing import Final

from msgspec import UNSET, UnsetType

from dex_engine.errors import InvariantViolated
from dex_protocol import limits
from dex_protocol.commands import Side
from dex_protocol.memo import memo
from dex_protocol.numbers import COUNT_MAX, UNIT, Scale, normal, units
from dex_protocol.specification import PeerLimits, Specification, limits_of


class Rules:
    """What a specification says, in ticks and lots, inclusive on both ends."""

    __slots__ = (
        "_band_units",
        "_limits",
        "_own_limits",
        "has_band",
        "lot",
        "lots",
        "notional_min",
        "open_orders_count_least",
        "peers_count_max",
        "price_max",
        "quantity_max",
        "quantity_min",
        "specification",
        "tick",
        "ticks",
    )

    def __init__(self, specification: Specification, *, tick: Scale, lot: Scale) -> None:
        self.specification: Final = specification
        self.tick: Final = tick
        self.lot: Final = lot
        # Of a price, or a quantity, as events have it: normal, whole, from 1. Whatever else it is
        # violates an invariant.
        self.ticks: Final = memo(partial(_steps, tick), count_max=limits.CONVERSIONS_COUNT_MAX)
        self.lots: Final = memo(partial(_steps, lot), count_max=limits.CONVERSIONS_COUNT_MAX)
        self.price_max: Final = min(_floor(specification.max_price, tick), COUNT_MAX)
        self.quantity_max: Final = min(_floor(specification.max_quantity, lot), COUNT_MAX)
        self.quantity_min: Final = max(_ceiling(specification.min_quantity, lot.step_units), 1)
        # In ticks times lots.
        self.notional_min: Final = _ceiling(
            specification.min_notional, tick.step_units * lot.step_units, scale=UNIT
        )
        self._band_units: Final = _units(specification.price_band)
        self.has_band: Final = self._band_units is not None
        # Of those that the specification does not name, and of those that it does.
        self._limits: Final = limits_of(specification, "")
        named = () if specification.peers is UNSET else specification.peers
        self._own_limits: Final = {peer: limits_of(specification, peer) for peer in named}
        # What every peer may have: whoever has less need not be asked about by name.
        self.open_orders_count_least: Final = min(
            each.open_orders_count_max for each in (self._limits, *self._own_limits.values())
        )
        self.peers_count_max: Final = _or(specification.max_peers, limits.PEERS_COUNT_MAX)

    def limits_of(self, peer: str) -> PeerLimits:
        """Tell how much a peer may have and send."""
        return self._own_limits.get(peer, self._limits)

    def is_in_band(self, side: Side, price: int, *, last_price: int) -> bool:
        """Tell whether a limit price is not too much worse than the last trade's.

        Args:
            side: Whose limit it is: a buy may not be far above, a sell not far below.
            price: In ticks.
            last_price: In ticks; 0 before the first trade, when everything is in the band.
        """
        if self._band_units is None or last_price == 0:
            return True
        if side == "buy":
            return price * UNIT <= last_price * (UNIT + self._band_units)
        return price * UNIT >= last_price * (UNIT - self._band_units)


def _steps(scale: Scale, text: str) -> int:
    if units(text) is None or normal(text) != text:
        raise InvariantViolated(f"{text[:80]!r} is no decimal without needless zeros")
    count = scale.count(text)
    if count is None or not 1 <= count <= COUNT_MAX:
        raise InvariantViolated(f"{text} is not a whole number of steps, from 1 to {COUNT_MAX}")
    return count


def _units(text: str | UnsetType) -> int | None:
    return None if text is UNSET else units(text)


def _or(value: int | UnsetType, default: int) -> int:
    return default if value is UNSET else value


def _floor(text: str | UnsetType, scale: Scale) -> int:
    value = _units(text)
    return COUNT_MAX if value is None else value // scale.step_units


def _ceiling(text: str | UnsetType, step: int, *, scale: int = 1) -> int:
    value = _units(text)
    return 0 if value is None else -(-value * scale // step)
