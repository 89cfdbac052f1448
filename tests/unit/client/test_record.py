"""What comes back is counted once, kept as it came, and belongs to the order it names."""

import pytest

from dex_client.errors import ProtocolMismatch
from dex_client.load.record import Record, Told
from dex_protocol.codec import encode
from dex_protocol.receipts import Fill, Receipt
from tests.builders import buy, order

ORDERS = [buy("1 @ 100", number) for number in (1, 2, 3)]
ACCEPTED = Receipt("new", order_id=order(1), sequence=2)
REJECTED = Receipt("rejected", order_id=order(2), reason="price_off_tick", sequence=2)
RETRY = Receipt("retry", order_id=order(3), reason="busy")
FOREIGN = Receipt("new", order_id=order(99), sequence=2)


@pytest.fixture
def record() -> Record:
    return Record(keep=True)


def test_each_order_gets_its_own_receipt(record: Record) -> None:
    answer, left = record.settle("BTC-USD", ORDERS, encode([ACCEPTED, REJECTED, RETRY]))

    assert (answer, left) == ("retry", [ORDERS[2]])
    assert record.accepted == 1
    assert record.rejected == {"price_off_tick": 1}
    assert dict(record.told("BTC-USD")) == {
        order(1): Told(ORDERS[0], ACCEPTED),
        order(2): Told(ORDERS[1], REJECTED),
    }


def test_a_single_order_gets_a_single_receipt(record: Record) -> None:
    assert record.settle("BTC-USD", ORDERS[:1], encode(ACCEPTED)) == ("receipt", [])
    assert record.accepted == 1


def test_a_receipt_for_another_id_is_dropped_and_says_nothing(record: Record) -> None:
    answer, left = record.settle("BTC-USD", ORDERS, encode([FOREIGN, REJECTED, RETRY]))

    assert (answer, left) == ("silence", [ORDERS[0], ORDERS[2]])
    assert record.accepted == 0


def test_a_batch_that_was_refused_whole_is_refused_for_each_order(record: Record) -> None:
    refusal = Receipt("rejected", reason="batch_too_large")

    assert record.settle("BTC-USD", ORDERS, encode(refusal)) == ("receipt", [])
    assert record.rejected == {"batch_too_large": 3}
    assert [told.outcome for told in record.told("BTC-USD").values()] == [refusal] * 3


def test_a_batch_that_was_not_taken_is_sent_again_whole(record: Record) -> None:
    reply = encode(Receipt("retry", reason="busy"))

    assert record.settle("BTC-USD", ORDERS, reply) == ("retry", ORDERS)
    assert list(record.told("BTC-USD")) == []


@pytest.mark.parametrize(
    "reply", [b"", b"{}", b"[1]", b"\xff", encode([ACCEPTED]), encode([ACCEPTED] * 4)]
)
def test_what_is_no_reply_to_these_orders_is_a_mismatch(record: Record, reply: bytes) -> None:
    with pytest.raises(ProtocolMismatch):
        record.settle("BTC-USD", ORDERS, reply)

    assert record.answered == 0


def test_trades_are_counted_where_their_taker_is_told_of_them(record: Record) -> None:
    fills = [Fill(7, "100", "0.5", order(8)), Fill(8, "100", "0.5", order(9))]

    record.settle("BTC-USD", ORDERS[:1], encode(Receipt("filled", order(1), trades=fills)))

    assert record.trades == 2


def test_what_is_given_up_is_told_as_such(record: Record) -> None:
    record.give_up("BTC-USD", ORDERS[:2], "unknown")
    record.give_up("ETH-USD", ORDERS[2:], "unavailable")

    assert record.given_up == {"unknown": 2, "unavailable": 1}
    assert [told.outcome for told in record.told("BTC-USD").values()] == ["unknown", "unknown"]
    assert [told.outcome for told in record.told("ETH-USD").values()] == ["unavailable"]


def test_outcomes_are_found_across_replies_in_any_order(record: Record) -> None:
    record.settle("BTC-USD", ORDERS, encode([ACCEPTED, REJECTED, RETRY]))
    record.settle("BTC-USD", ORDERS[2:], encode([RETRY]))
    last = Receipt("filled", order_id=order(3), duplicate=True)
    record.settle("BTC-USD", ORDERS[2:], encode([last]))

    told = record.told("BTC-USD")

    assert len(told) == 3
    for number, outcome in [(3, last), (1, ACCEPTED), (2, REJECTED), (3, last), (1, ACCEPTED)]:
        assert told[order(number)] == Told(ORDERS[number - 1], outcome)
    assert told.get(order(4)) is None


def test_nothing_is_kept_when_nobody_will_ask() -> None:
    record = Record(keep=False)

    record.settle("BTC-USD", ORDERS[:1], encode(ACCEPTED))

    assert record.accepted == 1
    assert list(record.told("BTC-USD")) == []
