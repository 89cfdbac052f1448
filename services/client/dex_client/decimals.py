"""Prices and quantities as a program has them, written as the wire wants them, exactly.

Pure. A float is refused: 0.1 is none of the numbers that a float can be, and what is sent would be
another price than the one that was meant.
"""

from decimal import Decimal
from typing import TypeAlias

Number: TypeAlias = str | Decimal | int
"""A price or a quantity: exact."""


def decimal_text(name: str, number: Number) -> str:
    """Write a price or a quantity as a decimal string.

    Whether the market takes it is the market's to say: what is out of range, off tick or no number
    at all gets its receipt.

    Args:
        name: Of the field, for the error.
        number: A string, which is sent as it stands, a Decimal or an integer.

    Raises:
        TypeError: it is something else, a float for example.
        ValueError: it is a Decimal without a value: NaN or infinite.
    """
    if isinstance(number, str):
        return number
    if isinstance(number, Decimal):
        if not number.is_finite():
            raise ValueError(f"expected {name} as a finite number, found {number}")
        text = format(number, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    # A bool is an integer to Python; nobody means it as a price.
    if isinstance(number, int) and not isinstance(number, bool):
        return str(number)
    raise TypeError(
        f"expected {name} as a str, a Decimal or an int, found the "
        f'{type(number).__name__} {number!r}; write it as "{number}" or as Decimal("{number}")'
    )
