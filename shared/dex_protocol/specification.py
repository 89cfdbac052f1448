"""A market's specification: what may be traded in which steps, and between which bounds.

Knows nothing of a market's state. Tick size and lot size never change, since every integer inside
a market counts them.
"""

from typing import Final

from msgspec import UNSET, Struct, UnsetType, structs

from dex_protocol import limits
from dex_protocol.ids import is_market
from dex_protocol.numbers import COUNT_MAX, normal, units

DECIMAL_FIELDS: Final = (
    "tick_size",
    "lot_size",
    "min_quantity",
    "max_quantity",
    "max_price",
    "min_notional",
    "price_band",
)
POSITIVE_FIELDS: Final = ("tick_size", "lot_size", "max_quantity", "max_price")
COUNT_FIELDS: Final = ("max_open_orders", "max_peers")
UNCHANGEABLE_FIELDS: Final = ("market", "tick_size", "lot_size")


class Specification(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """A market's rules in numbers: decimal strings, the last two integers.

    What is left out has no bound, but for the open orders and the peers, whose bounds are then
    those of limits.py.
    """

    market: str
    tick_size: str
    lot_size: str
    min_quantity: str | UnsetType = UNSET
    max_quantity: str | UnsetType = UNSET
    max_price: str | UnsetType = UNSET
    min_notional: str | UnsetType = UNSET
    price_band: str | UnsetType = UNSET
    max_open_orders: int | UnsetType = UNSET
    max_peers: int | UnsetType = UNSET


class AskedSpecification(Specification, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A specification as an operator asks for it: no field is misspelt silently."""


class SpecificationChange(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The fields of a specification that may change while a market lives; UNSET stays as it is."""

    min_quantity: str | UnsetType = UNSET
    max_quantity: str | UnsetType = UNSET
    max_price: str | UnsetType = UNSET
    min_notional: str | UnsetType = UNSET
    price_band: str | UnsetType = UNSET
    max_open_orders: int | UnsetType = UNSET
    max_peers: int | UnsetType = UNSET


def changed(specification: Specification, change: SpecificationChange) -> Specification:
    """Give the specification with the change's fields in place."""
    fields = {name: value for name, value in structs.asdict(change).items() if value is not UNSET}
    return structs.replace(specification, **fields)


def normalized(specification: Specification) -> Specification:
    """Write every decimal of a valid specification without trailing zeros, and no default."""
    fields: dict[str, str | UnsetType] = {
        name: normal(value)
        for name in DECIMAL_FIELDS
        if (value := getattr(specification, name)) is not UNSET
    }
    if specification.max_open_orders == limits.OPEN_ORDERS_COUNT_MAX:
        fields["max_open_orders"] = UNSET
    if specification.max_peers == limits.PEERS_COUNT_MAX:
        fields["max_peers"] = UNSET
    return Specification(**(structs.asdict(specification) | fields))


def what_is_wrong(specification: Specification) -> str | None:
    """Tell what makes a specification impossible, in a sentence; None when nothing does."""
    if not is_market(specification.market):
        return (
            "expected market as 1 to 24 letters, digits and dashes, "
            f"found {specification.market[:80]!r}"
        )
    return (
        _wrong_decimals(specification)
        or _wrong_counts(specification)
        or _wrong_quantities(specification)
    )


def _wrong_decimals(specification: Specification) -> str | None:
    for name in DECIMAL_FIELDS:
        text = getattr(specification, name)
        if text is UNSET:
            continue
        value = units(text)
        if value is None:
            return f'expected {name} as a decimal in a string ("0.01"), found {text[:80]!r}'
        if value == 0 and name in POSITIVE_FIELDS:
            return f"expected {name} above 0, found {text!r}"
    return None


def _wrong_counts(specification: Specification) -> str | None:
    for name in COUNT_FIELDS:
        count = getattr(specification, name)
        if count is not UNSET and not 1 <= count <= COUNT_MAX:
            return f"expected {name} from 1 to {COUNT_MAX}, found {count}"
    return None


def _wrong_quantities(specification: Specification) -> str | None:
    least, most = specification.min_quantity, specification.max_quantity
    if most is UNSET:
        return None
    if least is not UNSET and _units(least) > _units(most):
        return f"expected min_quantity of at most max_quantity {most}, found {least}"
    if _units(most) < _units(specification.lot_size):
        return f"expected max_quantity of at least one lot, found {most}"
    return None


def _units(text: str) -> int:
    value = units(text)
    assert value is not None, f"expected a decimal, found {text!r}"
    return value
