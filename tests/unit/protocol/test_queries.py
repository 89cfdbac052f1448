"""Questions and operators' requests are read, or refused as malformed; answers may grow."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from dex_protocol.administration import REQUESTS, OpenRequest
from dex_protocol.codec import decode_as, decode_receipts, decode_reply, encode
from dex_protocol.queries import QUERIES, BookQuery, BookReply, LogQuery, OrdersQuery
from dex_protocol.receipts import Receipt


@pytest.mark.parametrize("what", [what for what in QUERIES if what not in ("order", "log")])
@pytest.mark.parametrize("payload", [b"", b"{}", b'{"min_sequence":7}'])
def test_question_may_name_nothing(what: str, payload: bytes) -> None:
    query = decode_as(payload, QUERIES[what])

    assert not isinstance(query, Receipt), query
    assert query.min_sequence == (7 if payload.endswith(b"7}") else 0)


def test_defaults_are_those_of_the_document() -> None:
    book, orders = decode_as(b"", BookQuery), decode_as(b"", OrdersQuery)

    assert isinstance(book, BookQuery)
    assert (book.depth, book.orders) == (20, False)
    assert isinstance(orders, OrdersQuery)
    assert (orders.after, orders.limit) == (UNSET, 1_000)
    assert decode_as(b'{"from_sequence":1}', LogQuery) == LogQuery(from_sequence=1, limit=1_000)


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("book", {"depth": 0}),
        ("book", {"depth": 1_001}),
        ("book", {"depth": 1.5}),
        ("book", {"depth": "20"}),
        ("book", {"depth": True}),
        ("book", {"depth": None}),
        ("book", {"orders": 1}),
        ("book", {"levels": 5}),
        ("book", {"min_sequence": -1}),
        ("book", {"min_sequence": 2**63}),
        ("order", {}),
        ("order", {"order_id": 5}),
        ("orders", {"after": None}),
        ("orders", {"limit": 0}),
        ("orders", {"limit": 1_001}),
        ("trades", {"limit": 1_001}),
        ("status", {"order_id": "order_alice_1_1"}),
        ("snapshot", {"part": -1}),
        ("snapshot", {"snapshot_sequence": -1}),
        ("log", {}),
        ("log", {"from_sequence": 0}),
        ("log", {"from_sequence": 1, "limit": 1_001}),
    ],
)
def test_question_out_of_its_range_is_malformed(what: str, fields: dict[str, Any]) -> None:
    assert is_malformed(decode_as(json.dumps(fields).encode(), QUERIES[what]))


@pytest.mark.parametrize("payload", [b"x", b"\xff", b"[]", b"null", b"1", b"{" * 100_000, b'{"a"'])
@pytest.mark.parametrize("what", [*QUERIES, *REQUESTS])
def test_request_that_cannot_be_read_is_malformed(what: str, payload: bytes) -> None:
    assert is_malformed(decode_as(payload, {**QUERIES, **REQUESTS}[what]))


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("open", {}),
        ("open", {"specification": {"market": "M", "tick_size": "1"}}),
        ("open", {"specification": {"market": "M", "tick_size": "1", "lot_size": "1", "x": 1}}),
        ("open", {"specification": {"market": "M", "tick_size": 1, "lot_size": "1"}}),
        ("change", {"tick_size": "1"}),
        ("change", {"lot_size": "1"}),
        ("change", {"market": "M"}),
        ("change", {"max_peers": "5"}),
        ("halt", {"reason": "lunch"}),
        ("close", {"now": True}),
    ],
)
def test_operators_request_of_another_shape_is_malformed(what: str, fields: dict[str, Any]) -> None:
    assert is_malformed(decode_as(json.dumps(fields).encode(), REQUESTS[what]))


def test_operators_request_is_read() -> None:
    payload = b'{"specification":{"market":"M","tick_size":"1","lot_size":"1"}}'
    request = decode_as(payload, REQUESTS["open"])

    assert isinstance(request, OpenRequest)
    assert encode(request) == payload


def is_malformed(answer: object) -> bool:
    return isinstance(answer, Receipt) and answer.reason == "malformed"


def test_unknown_fields_of_answers_are_passed_over() -> None:
    receipt = b'{"status":"new","order_id":"order_alice_1_1","fee":"0.1","liquidity":{"a":[]}}'
    reply = b'{"sequence":5,"bids":[{"price":"1","quantity":"1","count":1,"x":0}],"asks":[],"y":1}'

    assert decode_receipts(receipt) == [Receipt("new", "order_alice_1_1")]
    assert decode_receipts(b"[" + receipt + b"]") == [Receipt("new", "order_alice_1_1")]
    assert len(decode_reply(reply, BookReply).bids) == 1


def test_answer_of_a_reason_unknown_to_this_code_is_read() -> None:
    (receipt,) = decode_receipts(b'{"status":"rejected","reason":"full_moon","message":"wait"}')

    assert receipt.reason == "full_moon"


@pytest.mark.parametrize("payload", [b"", b"x", b"[1]", b"{}", b'{"status":"done"}', b"null"])
def test_answer_of_another_protocol_is_told_apart(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_receipts(payload)
