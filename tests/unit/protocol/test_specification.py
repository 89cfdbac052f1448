"""A specification that no market could keep is named; the others are written in one way."""

from typing import Any

import pytest
from msgspec import UNSET

from dex_protocol import limits
from dex_protocol.codec import decode_as, encode
from dex_protocol.numbers import COUNT_MAX
from dex_protocol.receipts import Receipt
from dex_protocol.specification import (
    AskedSpecification,
    PeerFields,
    PeerLimits,
    Specification,
    SpecificationChange,
    changed,
    limits_of,
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
        ({"orders_per_second": 0}, "orders_per_second"),
        ({"orders_burst": COUNT_MAX + 1}, "orders_burst"),
        ({"max_batch_count": 1_001}, "max_batch_count"),
        ({"max_request_bytes": 1024 * 1024 + 1}, "max_request_bytes"),
        ({"peers": {"al.ice": PeerFields()}}, "peers"),
        ({"peers": {f"p{n}": PeerFields(orders_burst=1) for n in range(101)}}, "peers"),
        ({"peers": {"alice": PeerFields(max_open_orders=0)}}, "peers.alice.max_open_orders"),
        ({"peers": {"alice": PeerFields(max_batch_count=0)}}, "peers.alice.max_batch_count"),
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
        {"orders_per_second": 1, "max_batch_count": 1_000, "max_request_bytes": 1024 * 1024},
        {"peers": {f"p{n}": PeerFields(orders_per_second=COUNT_MAX) for n in range(100)}},
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
        orders_per_second=10_000,
        max_batch_count=1_000,
        max_request_bytes=1024 * 1024,
        peers={"alice": PeerFields()},
    )

    assert normalized(specification) == a_specification(tick_size="0.01", min_notional="10")


def test_change_replaces_the_fields_it_names() -> None:
    specification = a_specification(price_band="0.1", max_peers=5)
    change = SpecificationChange(price_band="0.2", min_notional="1")

    assert changed(specification, change) == a_specification(
        price_band="0.2", min_notional="1", max_peers=5
    )
    assert changed(specification, SpecificationChange(max_peers=UNSET)) == specification


# --- The limits of peers ------------------------------------------------------------------------


def test_normalized_peers_are_in_order_of_their_names_and_keep_what_is_said_of_them() -> None:
    """What is the default for all is still an exception where something else holds for all."""
    peers = {"bob": PeerFields(), "carol": PeerFields(orders_per_second=10_000)}
    specification = a_specification(orders_per_second=5, peers=peers | {"al": PeerFields(**FIELDS)})

    written = normalized(specification)

    assert encode(written.peers) == encode(
        {"al": PeerFields(**FIELDS), "carol": PeerFields(orders_per_second=10_000)}
    )


FIELDS: dict[str, Any] = {
    "max_open_orders": 1,
    "orders_per_second": 2,
    "orders_burst": 3,
    "max_batch_count": 4,
    "max_request_bytes": 5,
}


@pytest.mark.parametrize(
    ("fields", "own", "expected"),
    [
        ({}, {}, (100_000, 10_000, 20_000, 1_000, 1024 * 1024)),
        (FIELDS, {}, (1, 2, 3, 4, 5)),
        ({}, FIELDS, (1, 2, 3, 4, 5)),
        (FIELDS, {"orders_per_second": 7}, (1, 7, 14, 4, 5)),
        (FIELDS, {"orders_burst": 7}, (1, 2, 7, 4, 5)),
        (FIELDS, {"max_open_orders": 7, "max_batch_count": 8}, (7, 2, 3, 8, 5)),
        ({"orders_per_second": 100}, {"max_request_bytes": 9}, (100_000, 100, 200, 1_000, 9)),
    ],
)
def test_limits_of_a_peer_are_its_own_then_those_of_all_then_the_defaults(
    fields: dict[str, Any], own: dict[str, Any], expected: tuple[int, ...]
) -> None:
    specification = a_specification(**fields, peers={"alice": PeerFields(**own)})

    assert limits_of(specification, "alice") == PeerLimits(*expected)
    assert limits_of(specification, "bob") == limits_of(a_specification(**fields), "bob")


def test_change_of_peers_replaces_them_all() -> None:
    peers = {"alice": PeerFields(orders_burst=1), "bob": PeerFields(orders_burst=2)}
    specification = a_specification(peers=peers)
    one = decode_as(b'{"peers":{"bob":{"orders_burst":3}}}', SpecificationChange)
    none = decode_as(b'{"peers":{}}', SpecificationChange)

    assert isinstance(one, SpecificationChange)
    assert isinstance(none, SpecificationChange)
    assert normalized(changed(specification, one)) == a_specification(
        peers={"bob": PeerFields(orders_burst=3)}
    )
    assert normalized(changed(specification, none)) == a_specification()


def test_unknown_limit_of_a_peer_is_refused_where_it_is_asked_for_and_passed_over_elsewhere() -> (
    None
):
    payload = (
        b'{"market":"BTC-USD","tick_size":"0.01","lot_size":"0.001",'
        b'"peers":{"alice":{"orders_per_minute":5,"orders_burst":1}}}'
    )

    assert isinstance(decode_as(payload, AskedSpecification), Receipt)
    assert decode_as(payload, Specification) == a_specification(
        peers={"alice": PeerFields(orders_burst=1)}
    )


def test_longest_specification_is_as_long_as_it_may_be() -> None:
    decimal = "9" * 18 + "." + "9" * 18
    names = ("tick_size", "lot_size", "min_quantity", "max_quantity", "max_price", "min_notional")
    decimals: dict[str, Any] = dict.fromkeys((*names, "price_band"), decimal)
    own = dict.fromkeys(FIELDS, COUNT_MAX)
    count = limits.NAMED_PEERS_COUNT_MAX
    peers = {f"{n:032}": PeerFields(**own) for n in range(count)}
    specification = a_specification(**decimals | own, peers=peers)

    assert len(encode(specification)) <= limits.SPECIFICATION_BYTES_MAX
