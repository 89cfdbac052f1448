"""Decimal strings on the wire, integers inside, and the exact way between them.

Knows nothing of prices or quantities beyond their types, and never sees a float. Strings repeat
(the same few prices, the same few quantities), so conversions are remembered, bounded by
`CONVERSIONS_COUNT_MAX`.
"""

import re
from typing import Final, NewType

from dex_protocol.limits import CONVERSIONS_COUNT_MAX
from dex_protocol.memo import memo

Price = NewType("Price", int)
"""A price in ticks of its market."""

Quantity = NewType("Quantity", int)
"""A quantity in lots of its market."""

Sequence = NewType("Sequence", int)
"""A commit's position in its market's log: from 1, no holes."""

Term = NewType("Term", int)
"""The number of a leadership: from 1, strictly growing."""

Time = NewType("Time", int)
"""Microseconds since 1970."""

DECIMALS_MAX: Final = 18
"""Digits after the point, as in the rule for decimals of docs/PROTOCOL.md."""

UNIT: Final = 10**DECIMALS_MAX
"""Decimals are compared as integer counts of 10^-18, which every decimal of the wire is."""

COUNT_MAX: Final = 2**63 - 1
"""The most ticks or lots: what a signed 64-bit integer of any language holds."""

ZERO: Final = "0"
"""The one string for nothing: msgspec leaves out a default when it is the very same object."""

DECIMAL_LENGTH_MAX: Final = 37
"""Characters of the longest decimal: 18 digits, the point, 18 digits."""

_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]{0,17})(?:\.([0-9]{1,18}))?", re.ASCII)


def units(text: str) -> int | None:
    """Read a decimal string.

    Returns:
        Its value in units of 10^-18, exactly; None when the text is no decimal of the protocol.
    """
    # A text of any length may come from outside, and what is remembered must be bounded in bytes.
    return short_units(text) if len(text) <= DECIMAL_LENGTH_MAX else None


def _units_of_short(text: str) -> int | None:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    whole, part = match.groups()
    return int(whole) * UNIT + int((part or "").ljust(DECIMALS_MAX, "0"))


short_units: Final = memo(_units_of_short, count_max=CONVERSIONS_COUNT_MAX)
"""As `units`, of a text that is no longer than a decimal may be."""


def text_of_units(value: int, *, decimals: int = DECIMALS_MAX) -> str:
    """Write a value given in units of 10^-decimals, without trailing zeros."""
    whole, part = divmod(value, 10**decimals)
    if part == 0:
        return str(whole)
    return f"{whole}.{part:0{decimals}d}".rstrip("0")


def normal(text: str) -> str:
    """Write a decimal string without trailing zeros; two are equal when their numbers are."""
    return _normal(text)


def _normal_of(text: str) -> str:
    value = units(text)
    assert value is not None, f"expected a decimal, found {text!r}"
    return text_of_units(value)


_normal: Final = memo(_normal_of, count_max=CONVERSIONS_COUNT_MAX)


class Scale:
    """A step (tick size or lot size) and the exact conversion between strings and steps.

    `count(text)` gives the number of steps, or None when the decimal is not a whole number of
    them; `text(count)` writes it back, without trailing zeros; `read(text)` gives both, or None and
    the text as it was, in one look.
    """

    def __init__(self, step: str) -> None:
        step_units = units(step)
        assert step_units is not None, f"expected a decimal, found {step!r}"
        assert step_units > 0, f"expected a step above 0, found {step!r}"
        self.step_units = step_units
        # Counted after normalizing: "0.10" has one decimal.
        self.decimals = len(normal(step).partition(".")[2])
        self.count = memo(self._count, count_max=CONVERSIONS_COUNT_MAX)
        self.text = memo(self._text, count_max=CONVERSIONS_COUNT_MAX)
        self.read = memo(self._read, count_max=CONVERSIONS_COUNT_MAX)

    def _count(self, text: str) -> int | None:
        value = units(text)
        assert value is not None, f"expected a decimal, found {text!r}"
        count, rest = divmod(value, self.step_units)
        return count if rest == 0 else None

    def _text(self, count: int) -> str:
        return text_of_units(count * self.step_units) if count else ZERO

    def _read(self, text: str) -> tuple[int, str] | tuple[None, str]:
        count = self.count(text)
        return (None, text) if count is None else (count, self.text(count))

    def average_text(self, value: int, quantity: int) -> str:
        """Write value / quantity steps, rounded half to even to the step's decimals plus 8.

        Args:
            value: The sum of steps times quantity, for example ticks times lots.
            quantity: What to divide by, above 0.
        """
        if value % quantity == 0:
            return self.text(value // quantity)
        decimals = self.decimals + 8
        step = self.step_units * 10**8 * 10**self.decimals // UNIT
        quotient, rest = divmod(value * step, quantity)
        if 2 * rest > quantity or (2 * rest == quantity and quotient % 2 == 1):
            quotient += 1
        return text_of_units(quotient, decimals=decimals)
