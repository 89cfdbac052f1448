"""A specification that no market could keep is named; the others are written in one way."""

from typing import Any

import pytest
from msgspec import UNSET

from dex_protocol.numbers import COUNT_MAX
from dex_protocol.specification import (
    SpecificationChange,
    changed,
    normalized,
    what_is_wrong,
)
from tests.builders import a_specification


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"market": "BTC_USD"}, "market"),
        ({"market": ""}, "market"),
        ({"tick_size": "0"}, "tick_size"),
        ({"tick_size": "0.00"}, "tick_size"),
        ({"tick_size": ".01"}, "tick_size"),
        ({"tick_size": "-1"}, "tick_size"),
        ({"lot_size": "0"}, "lot_size"),
        ({"lot_size": "1e-3"}, "lot_size"),
        ({"min_quantity": "x"}, "min_quantity"),
        ({"max_quantity": "0"}, "max_quantity"),
        ({"max_price": "0"}, "max_price"),
        ({"min_notional": ""}, "min_notional"),
        ({"price_band": "5%"}, "price_band"),
        ({"max_open_orders": 0}, "max_open_orders"),
        ({"max_open_orders": -1}, "max_open_orders"),
        ({"max_peers": 0}, "max_peers"),
        ({"max_peers": COUNT_MAX + 1}, "max_peers"),
        ({"min_quantity": "2", "max_quantity": "1"}, "min_quantity"),
        ({"max_quantity": "0.0009"}, "max_quantity"),
    ],
)
def test_impossible_specification_is_named(fields: dict[str, Any], word: str) -> None:
    wrong = what_is_wrong(a_specification(**fields))

    assert wrong is not None
    assert wrong.startswith(f"expected {word}")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"min_quantity": "0", "min_notional": "0", "price_band": "0"},
        {"min_quantity": "1", "max_quantity": "1", "max_price": "0.001", "price_band": "2"},
        {"max_open_orders": 1, "max_peers": COUNT_MAX},
    ],
)
def test_possible_specification_is_not(fields: dict[str, Any]) -> None:
    assert what_is_wrong(a_specification(**fields)) is None


def test_normalized_specification_is_written_without_zeros_and_defaults() -> None:
    specification = a_specification(
        tick_size="0.010",
        min_notional="10.0",
        max_open_orders=100_000,
        max_peers=1_000,
    )

    assert normalized(specification) == a_specification(tick_size="0.01", min_notional="10")


def test_change_replaces_the_fields_it_names() -> None:
    specification = a_specification(price_band="0.1", max_peers=5)
    change = SpecificationChange(price_band="0.2", min_notional="1")

    assert changed(specification, change) == a_specification(
        price_band="0.2", min_notional="1", max_peers=5
    )
    assert changed(specification, SpecificationChange(max_peers=UNSET)) == specification
