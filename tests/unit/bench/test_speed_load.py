"""What the load of the benches takes for an answer."""

import pytest

from bench.speed.load import orders_executed
from bench.speed.orders import CYCLE_COUNT, Writer
from bench.speed.talk import Invalid
from dex_protocol.codec import encode
from dex_protocol.receipts import Receipt

PEER = "load-1"


def an_order() -> bytes:
    return Writer(PEER, at_ms=1).singles(1)[0]


def receipt_of(number: int, **fields: object) -> Receipt:
    order_id = f"order_{PEER}_1_{number}"
    return Receipt(**{"status": "new", "order_id": order_id, "duplicate": False} | fields)  # type: ignore[arg-type]


def test_echo_is_one_order() -> None:
    assert orders_executed(an_order(), an_order()) == 1


def test_receipts_of_what_was_executed_count() -> None:
    (batch,) = Writer(PEER, at_ms=1).batches(1)
    receipts = [receipt_of(number + 1) for number in range(CYCLE_COUNT)]
    assert orders_executed(batch, encode(receipts)) == CYCLE_COUNT
    assert orders_executed(an_order(), encode(receipt_of(1, status="filled"))) == 1


@pytest.mark.parametrize(
    "receipt",
    [
        receipt_of(1, status="rejected", reason="no_liquidity"),
        receipt_of(1, status="retry", reason="busy"),
        receipt_of(1, duplicate=True),
        receipt_of(2),
        [receipt_of(1), receipt_of(1)],
    ],
)
def test_any_other_answer_makes_the_measurement_invalid(receipt: Receipt | list[Receipt]) -> None:
    with pytest.raises(Invalid):
        orders_executed(an_order(), encode(receipt))
