"""A run summed up: for machines by names that stay, for people in a table."""

import json
from typing import Any

import pytest

from dex_client.load.options import Load
from dex_client.load.record import Record
from dex_client.load.report import VIOLATIONS_SHOWN_MAX, make_report, to_json, to_text
from dex_client.load.verification import Verified, Violation
from dex_protocol.codec import encode
from dex_protocol.receipts import Fill, Receipt
from tests.builders import buy, order

LOAD = Load(
    orders=6,
    markets=("BTC-USD", "ETH-USD"),
    peers=2,
    in_flight=64,
    batch=3,
    rate=None,
    seed=42,
    deadline_s=30.0,
    verify=True,
)
GOOD = Verified(
    missing=0,
    duplicated=0,
    refused_accepted=0,
    refusal_differs=0,
    unasked=0,
    receipt_differs=0,
    not_conserved=0,
    diverged=0,
    digest_equal=True,
    unknown_accepted=0,
    commits=12,
    events=34,
    violations=[],
)


def verified(**fields: Any) -> Verified:
    return Verified(**{name: getattr(GOOD, name) for name in GOOD.__struct_fields__} | fields)


def a_record() -> Record:
    """Six orders: four accepted with three trades, two refused."""
    record = Record(keep=False)
    record.sent = 6
    record.seconds = 0.5
    record.retried = 1_234
    fills = [Fill(number, "100", "1", order(50)) for number in (1, 2, 3)]
    orders = [buy("1 @ 100", number) for number in range(1, 7)]
    receipts = [
        Receipt("filled", order_id=order(1), trades=fills),
        *(Receipt("new", order_id=order(number)) for number in (2, 3, 4)),
        Receipt("rejected", order_id=order(5), reason="price_off_tick"),
        Receipt("rejected", order_id=order(6), reason="market_halted"),
    ]
    record.settle("BTC-USD", orders, encode(receipts))
    for latency_s in (0.001, 0.002, 0.003, 0.004, 0.0055, 2.0):
        record.note_latency(latency_s, 1)
    return record


def test_json_has_the_names_that_others_read() -> None:
    report = json.loads(to_json(make_report(LOAD, a_record(), GOOD)))

    assert report["orders"] == 6
    assert report["accepted"] == 4
    assert report["rejected"] == {"market_halted": 1, "price_off_tick": 1}
    assert report["accepted"] + sum(report["rejected"].values()) == report["orders"]
    assert report["retried"] == 1_234
    assert report["unknown"] == report["unavailable"] == 0
    assert report["trades"] == 3
    assert report["seconds"] == 0.5
    assert report["orders_per_second"] == 12.0
    assert set(report["latency_ms"]) == {"p50", "p90", "p99", "p99_9", "max"}
    assert report["verified"]["missing"] == report["verified"]["duplicated"] == 0
    assert report["verified"]["digest_equal"] is True
    assert report["markets"] == ["BTC-USD", "ETH-USD"]
    assert (report["peers"], report["in_flight"], report["batch"]) == (2, 64, 3)
    assert report["seed"] == 42


def test_json_is_one_object_and_ends_its_line() -> None:
    written = to_json(make_report(LOAD, a_record(), GOOD))

    assert written.startswith(b"{")
    assert written.endswith(b"}\n")


def test_percentiles_are_those_of_the_orders_and_never_above_the_greatest() -> None:
    latency = make_report(LOAD, a_record(), GOOD).latency_ms

    assert latency is not None
    assert latency.p50 == pytest.approx(3, rel=0.001)
    assert latency.p90 == pytest.approx(5.5, rel=0.001)
    assert latency.p99 == latency.p99_9 == latency.max == 2000.0


def test_nothing_answered_has_no_latency_and_no_rate() -> None:
    report = make_report(LOAD, Record(keep=False), None)

    assert report.latency_ms is None
    assert report.orders_per_second == 0
    assert "no order was answered" in to_text(report)


def test_text_is_an_aligned_table() -> None:
    assert (
        to_text(make_report(LOAD, a_record(), GOOD))
        == """\
6 orders to BTC-USD, ETH-USD by 2 peers: 64 requests in flight, 3 orders each, seed 42

accepted                     4
rejected                     2   market_halted 1, price_off_tick 1
retried                  1,234   copies sent again
unavailable                  0
unknown                      0
trades                       3
orders per second           12   in 0.500 s

latency, ms          p50       p90       p99     p99.9       max
                    3.00      5.50  2,000.00  2,000.00  2,000.00

verified: 12 commits with 34 events read back; each order as its receipt says, \
quantities conserved, digests equal
"""
    )


def test_a_violation_is_shown_whole_and_many_are_counted() -> None:
    violation = Violation("missing", "BTC-USD", order(1), "accepted in the log", "nothing")
    report = make_report(LOAD, a_record(), verified(missing=120, violations=[violation] * 100))

    lines = to_text(report).splitlines()
    assert (
        lines[-VIOLATIONS_SHOWN_MAX - 2]
        == "NOT VERIFIED: 120 violations in 12 commits with 34 events"
    )
    assert lines[-2] == (
        f"  BTC-USD {order(1)}: expected accepted in the log, found nothing (missing)"
    )
    assert lines[-1] == "  and 100 more"


@pytest.mark.parametrize(
    ("given_up", "found", "because", "interrupted", "is_good"),
    [
        ({}, GOOD, None, False, True),
        ({}, None, None, False, True),
        ({"unknown": 1}, GOOD, None, False, False),
        ({"unavailable": 1}, GOOD, None, False, False),
        ({}, verified(duplicated=1), None, False, False),
        ({}, None, "nobody answered", False, False),
        ({}, GOOD, None, True, False),
    ],
)
def test_a_run_is_good_when_every_order_has_an_outcome_that_nothing_contradicts(
    given_up: dict[str, int],
    found: Verified | None,
    because: str | None,
    interrupted: bool,
    is_good: bool,
) -> None:
    record = a_record()
    record.given_up |= given_up  # type: ignore[arg-type]

    report = make_report(LOAD, record, found, unverified_because=because, interrupted=interrupted)

    assert report.is_good is is_good


def test_why_nothing_was_verified_is_said() -> None:
    report = make_report(LOAD, a_record(), None, unverified_because="interrupted")

    assert to_text(report).splitlines()[-1] == "not verified: interrupted"
