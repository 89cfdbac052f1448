"""What a peer sends is read as commands, or refused for the first reason that applies (G6).

Asked here are the reasons 1001 to 1004, which need no state. The table is in the order of the
ladder: malformed before unknown_value before wrong_peer.
"""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_protocol.codec import Element, decode_request, encode
from dex_protocol.commands import Amend, Cancel, CancelAll, Submit, what_is_malformed
from dex_protocol.limits import BATCH_COUNT_MAX
from dex_protocol.receipts import Receipt

ORDER = "order_alice_1763800000000_17"
COMMAND = "command_alice_1763800000000_18"
FOREIGN_ORDER = "order_bob_1763800000000_17"
FOREIGN_COMMAND = "command_bob_1763800000000_18"

LIMIT = {"op": "submit", "side": "buy", "price": "100.5", "quantity": "2"}
MARKET = {"op": "submit", "side": "buy", "type": "market", "quantity": "2"}
CANCEL = {"op": "cancel", "order_id": ORDER}
AMEND = {"op": "amend", "order_id": ORDER, "price": "100.6"}
CANCEL_ALL = {"op": "cancel_all"}

REFUSAL_BYTES_MAX = 600
"""What a leader counts for a receipt: so a thousand of them fit one reply."""

NULL = object()
"""Stands for a field that is left out of a command below."""


def changed(command: dict[str, Any], **fields: Any) -> bytes:
    """Write a command with some fields changed, or left out."""
    merged = {name: value for name, value in (command | fields).items() if value is not NULL}
    return json.dumps(merged).encode()


def raw(name: str, text: str) -> bytes:
    """Write a limit order with one field as it could never be written by a JSON library."""
    return b'{"op":"submit","side":"buy","price":"1","quantity":"1","%b":%b}' % (
        name.encode(),
        text.encode(),
    )


NOT_JSON = {
    "nothing": b"",
    "white space": b" \n\t",
    "a word": b"buy",
    "a byte that is no UTF-8": b"\xff",
    "text that is no UTF-8": b'{"op":"cancel_all","side":"\xff"}',
    "an id that is no UTF-8": b'{"op":"cancel","order_id":"\xc3\x28"}',
    "UTF-16": json.dumps(CANCEL_ALL).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(CANCEL_ALL).encode(),
    "a form feed before it": b"\x0c" + json.dumps(CANCEL_ALL).encode(),
    "cut short": b'{"op":"cancel_all"',
    "two values": b'{"op":"cancel_all"}{"op":"cancel_all"}',
    "a comma too many": b'{"op":"cancel_all",}',
    "single quotes": b"{'op':'cancel_all'}",
    "a comment": b'{"op":"cancel_all"} // all',
    "a control character in a text": b'{"op":"cancel_all\n"}',
    "a lone surrogate": b'{"op":"cancel_all","side":"\\ud800"}',
    "a lone surrogate as an id": b'{"op":"cancel","order_id":"\\udfff"}',
    "half a surrogate pair": b'{"op":"cancel_all","side":"\\ud83d\\u0041"}',
    "NaN": raw("expires_at", "NaN"),
    "Infinity": raw("expires_at", "-Infinity"),
    "objects without end": b'{"a":' * 100_000,
    "a command around arrays without end": raw("x", "[" * 50_000 + "]" * 50_000),
}

NO_COMMAND = {
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a text": b'"submit"',
    "an object without op": b"{}",
    "op null": changed(CANCEL_ALL, op=None),
    "op a number": changed(CANCEL_ALL, op=1),
    "op twice, otherwise": b'{"op":"submit","op":"cancel_all"}',
    "op in capitals as a field": b'{"OP":"cancel_all"}',
}

WRONG_SHAPE = {
    "a field missing, side": changed(LIMIT, side=NULL),
    "a field missing, quantity": changed(LIMIT, quantity=NULL),
    "a field missing, order_id of a cancel": changed(CANCEL, order_id=NULL),
    "a field missing, order_id of an amend": changed(AMEND, order_id=NULL),
    "a field unknown": changed(LIMIT, quantitty="2"),
    "a field in other letters": changed(LIMIT, Post_Only=True),
    "a field of another command": changed(LIMIT, if_version=1),
    "a command_id in a submit": changed(LIMIT, command_id=COMMAND),
    "an order_id in a cancel_all": changed(CANCEL_ALL, order_id=ORDER),
    "null for an optional field": changed(LIMIT, self_trade=None),
    "null for an id": changed(LIMIT, order_id=None),
    "null for a price": changed(LIMIT, price=None),
    "a number for a text": changed(LIMIT, side=1),
    "a number for an id": changed(LIMIT, order_id=17),
    "an object for a text": changed(LIMIT, side={"buy": True}),
    "an array for a text": changed(LIMIT, side=["buy"]),
    "a number for a price": changed(LIMIT, price=100.5),
    "an integer for a quantity": changed(LIMIT, quantity=2),
    "an integer for a boolean": changed(LIMIT, post_only=1),
    "a text for a boolean": changed(LIMIT, post_only="true"),
    "a boolean for an integer": changed(CANCEL, if_version=True),
    "a text for an integer": changed(CANCEL, if_version="1"),
    "a fraction for an integer": changed(CANCEL, if_version=1.5),
    "a whole float for an integer": raw("expires_at", "1.0"),
    "an exponent for an integer": raw("expires_at", "1e15"),
    "an integer above 2^63 - 1": changed(CANCEL, if_version=2**63),
    "an integer below -(2^63 - 1)": changed(CANCEL, if_version=-(2**63)),
    "an integer of more than 64 bits, below 0": changed(CANCEL, if_version=-(2**64)),
    "an integer of 5,000 digits": raw("expires_at", "9" * 5_000),
    "a time above 2^63 - 1": changed(LIMIT, time_in_force="gtd", expires_at=2**63),
}

NO_DECIMALS_TEXTS = [
    *("", "1e5", "+1", "-1", "01", " 1", "1 ", "1.", ".5", "1" * 19, "0." + "1" * 19, "NaN"),
    *("\u0661", "\uff11", "1,5", "1_0", "x" * 100_000),
]
NO_DECIMALS = {
    f"{name} {text[:21]!r} of {command['op']}": changed(command, **{name: text})
    for name, command in (("price", LIMIT), ("quantity", MARKET), ("price", AMEND))
    for text in NO_DECIMALS_TEXTS
}

NO_IDS = {
    "an order id that is none": changed(LIMIT, order_id="17"),
    "an order id of kind command": changed(LIMIT, order_id=COMMAND),
    "a command id of kind order": changed(CANCEL, command_id=ORDER),
    "a target that is none": changed(CANCEL, order_id=COMMAND),
    "an order id with a server's timestamp": changed(LIMIT, order_id="order_alice_0_1"),
    "a command id with a server's timestamp": changed(CANCEL, command_id="command_alice_0_1"),
    "an id with a line's end": changed(LIMIT, order_id=ORDER + "\n"),
    "an id with a count of 0": changed(AMEND, command_id="command_alice_1_0"),
    "an id with a zero before its count": changed(CANCEL_ALL, command_id="command_alice_1_01"),
    "an id too long": changed(LIMIT, order_id=f"order_{'p' * 33}_1_1"),
}

CONTRADICTIONS = {
    "a limit order without a price": changed(LIMIT, price=NULL),
    "a market order with a price": changed(MARKET, price="100.5"),
    "a market order that is gtc": changed(MARKET, time_in_force="gtc"),
    "a market order that is gtd": changed(MARKET, time_in_force="gtd", expires_at=1),
    "a market order that is post-only": changed(MARKET, post_only=True),
    "ioc and post-only": changed(LIMIT, time_in_force="ioc", post_only=True),
    "fok and post-only": changed(LIMIT, time_in_force="fok", post_only=True),
    "gtd without a time": changed(LIMIT, time_in_force="gtd"),
    "a time without gtd": changed(LIMIT, expires_at=1),
    "a time with ioc": changed(LIMIT, time_in_force="ioc", expires_at=1),
    "an amend that changes nothing": changed(AMEND, price=NULL),
}

# Each has an unknown value, and a foreign id beside something that is malformed.
MALFORMED_BEFORE_ALL = {
    "and an unknown side": changed(LIMIT, side="up", quantity="x", order_id=FOREIGN_ORDER),
    "and an unknown type": changed(LIMIT, type="stop", price="x", order_id=FOREIGN_ORDER),
    "and an unknown time in force": changed(LIMIT, time_in_force="day", order_id="x"),
    "and an unknown self_trade, a field unknown": changed(LIMIT, self_trade="no", extra=1),
    "and an unknown side of a market order": changed(MARKET, side="up", price="1"),
    "and an unknown side of a cancel_all": changed(CANCEL_ALL, side="up", command_id="x"),
    "and an unknown side, null": changed(LIMIT, side="up", price=None),
}

UNKNOWN_VALUES = {
    "op": b'{"op":"replace","anything":[1]}',
    "op in capitals": changed(CANCEL_ALL, op="CANCEL_ALL"),
    "op empty": changed(CANCEL_ALL, op=""),
    "side": changed(LIMIT, side="BUY"),
    "side of a cancel_all": changed(CANCEL_ALL, side="both"),
    "type": changed(LIMIT, type="stop"),
    "type, without a price": changed(LIMIT, type="pegged", price=NULL),
    "time_in_force": changed(LIMIT, time_in_force="day"),
    "time_in_force, with a time": changed(LIMIT, time_in_force="gtt", expires_at=1),
    "time_in_force of a market order": changed(MARKET, time_in_force="GTC"),
    "self_trade": changed(LIMIT, self_trade="cancel"),
    "self_trade, of an emoji": changed(LIMIT, self_trade="\U0001f600"),
    # Foreign as well: what is unknown is said first.
    "side, and a foreign order": changed(LIMIT, side="up", order_id=FOREIGN_ORDER),
    "side, and a foreign command": changed(CANCEL_ALL, side="up", command_id=FOREIGN_COMMAND),
}

WRONG_PEER = {
    "order of a submit": changed(LIMIT, order_id=FOREIGN_ORDER),
    "order of a cancel": changed(CANCEL, order_id=FOREIGN_ORDER, command_id=COMMAND),
    "order of a cancel, named by a server": changed(CANCEL, order_id="order_bob_0_1"),
    "command of a cancel": changed(CANCEL, command_id=FOREIGN_COMMAND),
    "order of an amend": changed(AMEND, order_id=FOREIGN_ORDER),
    "command of an amend": changed(AMEND, command_id=FOREIGN_COMMAND),
    "command of a cancel_all": changed(CANCEL_ALL, command_id=FOREIGN_COMMAND),
    "a peer that begins alike": changed(LIMIT, order_id="order_alice_2_1763800000000_17"),
    "a peer in capitals": changed(LIMIT, order_id="order_Alice_1763800000000_17"),
}

TABLE = [
    pytest.param(payload, reason, id=f"{reason}, {group}: {name}")
    for reason, group, rows in (
        ("malformed", "no JSON", NOT_JSON),
        ("malformed", "no command", NO_COMMAND),
        ("malformed", "wrong shape", WRONG_SHAPE),
        ("malformed", "no decimal", NO_DECIMALS),
        ("malformed", "no id", NO_IDS),
        ("malformed", "contradiction", CONTRADICTIONS),
        ("malformed", "before all else", MALFORMED_BEFORE_ALL),
        ("unknown_value", "of", UNKNOWN_VALUES),
        ("wrong_peer", "in", WRONG_PEER),
    )
    for name, payload in rows.items()
]


def only(payload: bytes) -> Element:
    (element,), is_array = decode_request(payload, "alice")

    assert not is_array
    return element


@pytest.mark.parametrize(("payload", "reason"), TABLE)
def test_bad_command_is_refused_for_its_first_reason(payload: bytes, reason: str) -> None:
    receipt = only(payload)

    assert isinstance(receipt, Receipt)
    assert (receipt.status, receipt.reason) == ("rejected", reason)
    assert receipt.message
    assert len(encode(receipt)) <= REFUSAL_BYTES_MAX


GOOD = {
    "limit": changed(LIMIT),
    "limit with all fields": changed(
        LIMIT,
        order_id=ORDER,
        type="limit",
        time_in_force="gtd",
        expires_at=2**63 - 1,
        post_only=True,
        self_trade="decrement",
    ),
    "defaults that contradict nothing": changed(
        MARKET, time_in_force="ioc", post_only=False, self_trade="cancel_taker"
    ),
    "ioc, not post-only": changed(LIMIT, time_in_force="ioc", post_only=False),
    "the same field twice": raw("price", '"2"'),
    "zeros and 0": changed(LIMIT, price="0.00", quantity="0"),
    "a time long gone": changed(LIMIT, time_in_force="gtd", expires_at=-1),
    "cancel": changed(CANCEL, command_id=COMMAND, if_version=0),
    "cancel of the least version": changed(CANCEL, if_version=-(2**63) + 1),
    "cancel of an order that a server named": changed(CANCEL, order_id="order_alice_0_1"),
    "amend": changed(AMEND, command_id=COMMAND, quantity="3", if_version=2**63 - 1),
    "cancel_all": changed(CANCEL_ALL),
    "cancel_all of a side": changed(CANCEL_ALL, command_id=COMMAND, side="sell"),
    "white space around it": b" \r\n\t" + changed(CANCEL_ALL) + b"\n",
    "escapes in it": b'{"\\u006fp":"cancel\\u005fall"}',
}


@pytest.mark.parametrize("payload", GOOD.values(), ids=GOOD)
def test_good_command_is_read(payload: bytes) -> None:
    command = only(payload)

    assert isinstance(command, Submit | Cancel | Amend | CancelAll)
    assert only(encode(command)) == command


def test_peer_named_alike_from_the_right_is_its_own() -> None:
    payload = changed(LIMIT, order_id="order_bob_2_1763800000000_17")

    assert isinstance(decode_request(payload, "bob_2")[0][0], Submit)


@pytest.mark.parametrize(
    ("payload", "order_id", "command_id"),
    [
        (changed(LIMIT, order_id=ORDER, side="up"), ORDER, None),
        (changed(LIMIT, order_id=ORDER, quantity=None), ORDER, None),
        (changed(LIMIT, order_id="mine"), "mine", None),
        (changed(LIMIT, order_id=FOREIGN_ORDER), FOREIGN_ORDER, None),
        (changed(AMEND, command_id=COMMAND, price="x"), ORDER, COMMAND),
        (changed(AMEND, command_id=7), ORDER, None),
        (b'{"op":"nothing","command_id":"%b"}' % COMMAND.encode(), None, COMMAND),
    ],
)
def test_refused_command_is_named_by_the_ids_that_were_sent(
    payload: bytes, order_id: str | None, command_id: str | None
) -> None:
    receipt = json.loads(encode(only(payload)))

    assert (receipt.get("order_id"), receipt.get("command_id")) == (order_id, command_id)


LONG = {
    "an order id": changed(LIMIT, order_id="x" * 1_000_000),
    "both ids": changed(AMEND, order_id="x" * 500_000, command_id="x" * 500_000),
    "an id of quotes": changed(LIMIT, order_id='"' * 80),
    "an id of control characters": changed(LIMIT, order_id="\x01" * 80),
    "an unknown value": changed(LIMIT, side="x" * 1_000_000),
    "an unknown value of backslashes": changed(LIMIT, side="\\" * 1_000),
    "an unknown op": changed(LIMIT, op="\x01" * 100_000),
    "an unknown field": changed(LIMIT, **{"x" * 1_000_000: 1}),
    "an unknown field of emojis": changed(LIMIT, **{"\U0001f600" * 100: 1}),
    "a price": changed(LIMIT, price="\x01" * 100_000),
    "a price of quotes, with ids": changed(
        AMEND, order_id="o" * 80, command_id="c" * 80, price="\"'" * 1_000
    ),
}


@pytest.mark.parametrize("payload", LONG.values(), ids=LONG)
def test_refusal_is_not_as_long_as_what_was_sent(payload: bytes) -> None:
    receipt = only(payload)

    assert isinstance(receipt, Receipt)
    assert receipt.reason in ("malformed", "unknown_value")
    assert len(encode(receipt)) <= REFUSAL_BYTES_MAX


# --- Batches ------------------------------------------------------------------------------------


def batch(*payloads: bytes) -> bytes:
    return b"[" + b",".join(payloads) + b"]"


def test_batch_is_read_in_order() -> None:
    elements, is_array = decode_request(batch(*GOOD.values()), "alice")

    assert elements == [only(payload) for payload in GOOD.values()]
    assert is_array


def test_bad_element_is_refused_by_itself() -> None:
    bad = [
        payload
        for _, payload in (*WRONG_SHAPE.items(), *UNKNOWN_VALUES.items(), *WRONG_PEER.items())
    ]
    mixed = [payload for each in bad for payload in (each, changed(CANCEL_ALL))]
    elements, is_array = decode_request(batch(*mixed), "alice")

    assert elements == [only(payload) for payload in mixed]
    assert is_array


def test_element_that_is_no_utf_8_is_refused_by_itself() -> None:
    payload = batch(changed(CANCEL_ALL), NOT_JSON["text that is no UTF-8"], changed(LIMIT))
    elements, _ = decode_request(payload, "alice")

    assert [getattr(element, "reason", None) for element in elements] == [None, "malformed", None]


@pytest.mark.parametrize("payload", [b"[1]", b'["submit"]', b"[null]", b"[[]]", b"[{}]"])
def test_element_that_is_no_object_is_refused_by_itself(payload: bytes) -> None:
    elements, is_array = decode_request(payload, "alice")

    assert [element.reason for element in elements if isinstance(element, Receipt)] == ["malformed"]
    assert is_array


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b" [ ] ",
        b"[,]",
        b'[{"op":"cancel_all"},]',
        b'[{"op":"cancel_all"}',
        b'[{"op":"cancel_all"}]]',
        b"[" * 100_000,
        b"[\xff]",
    ],
)
def test_array_that_cannot_be_read_at_all_gets_one_receipt(payload: bytes) -> None:
    receipt = only(payload)

    assert isinstance(receipt, Receipt)
    assert receipt.reason == "malformed"


@pytest.mark.parametrize("element", [changed(LIMIT), b"1", b'{"op":"nothing"}'])
def test_batch_of_a_thousand_is_read_and_one_more_is_too_large(element: bytes) -> None:
    elements, is_array = decode_request(batch(*[element] * BATCH_COUNT_MAX), "alice")
    too_large = only(batch(*[element] * (BATCH_COUNT_MAX + 1)))

    assert len(elements) == 1_000
    assert is_array
    assert isinstance(too_large, Receipt)
    assert too_large.reason == "batch_too_large"


# --- Whatever is sent ---------------------------------------------------------------------------

texts = st.sampled_from(
    [ORDER, COMMAND, FOREIGN_ORDER, "buy", "gtd", "ioc", "limit", "market", "1", "0.50", "-1"]
) | st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
names = st.sampled_from(
    [field.name for struct in (Submit, Cancel, Amend) for field in msgspec.structs.fields(struct)]
)
almost = st.builds(
    lambda command, fields: command | fields,
    st.sampled_from([LIMIT, MARKET, CANCEL, AMEND, CANCEL_ALL, {}]),
    st.dictionaries(names | st.just("op") | st.text(max_size=3), values, max_size=3),
)


@given(st.lists(almost | values, max_size=4) | almost | values)
def test_any_structure_is_answered_element_by_element(structure: Any) -> None:
    elements, is_array = decode_request(json.dumps(structure).encode(), "alice")

    if is_array:
        assert len(elements) == len(structure)
        # In a batch each element is read as it is alone.
        assert [outcome(element) for element in elements] == [
            outcome(decode_request(json.dumps(element).encode(), "alice")[0][0])
            if not isinstance(element, list)
            else "malformed"
            for element in structure
        ]
    else:
        assert len(elements) == 1


def outcome(element: Element) -> object:
    if isinstance(element, Receipt):
        encode(element)
        return element.reason
    assert what_is_malformed(element) is None
    return element


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_once(payload: bytes) -> None:
    elements, _ = decode_request(payload, "alice")

    assert len(elements) >= 1
    for element in elements:
        encode(element)


@given(st.data())
def test_damaged_request_is_answered(data: st.DataObject) -> None:
    payload = bytearray(data.draw(st.sampled_from([*GOOD.values(), batch(*GOOD.values())])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not payload:
            break
    elements, _ = decode_request(bytes(payload), "alice")

    assert len(elements) >= 1
    for element in elements:
        encode(element)
