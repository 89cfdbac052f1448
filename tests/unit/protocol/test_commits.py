"""Commits are read by any version of the code, and written the same by both writers."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_protocol.codec import decode_commit, encode, encode_commit, hash_of
from dex_protocol.events import (
    HASH_OF_NOTHING,
    Accepted,
    AnyEvent,
    Canceled,
    Commit,
    LeaderChanged,
    Trade,
)

EVENTS: list[AnyEvent] = [
    Accepted("order_alice_1_1", "alice", "buy", "2", price="100", resting_quantity="1"),
    Trade(7, "99.5", "1", "order_bob_1_1", "order_alice_1_1", "buy"),
    Canceled("order_bob_1_2", "3", "self_trade"),
]
HEAD: dict[str, Any] = {
    "market": "BTC-USD",
    "sequence": 1042,
    "term": 7,
    "time": 1_763_800_000_123_456,
    "previous": "5d" * 16,
    "digest": "00c1f39a77e2b044",
}


def written(events: list[AnyEvent], **head: Any) -> bytes:
    encoded = b",".join(encode(event) for event in events)
    return encode_commit(**HEAD | head, events=encoded)


GOLDEN = [
    event
    for path in sorted(Path(__file__).parent.joinpath("golden").glob("commit.*.json"))
    for event in decode_commit(path.read_bytes()).events
]


@given(
    st.lists(st.sampled_from(GOLDEN), max_size=5),
    st.integers(1, 2**63 - 1),
    st.integers(0, 2**63 - 1),
)
def test_commit_of_encoded_events_is_the_encoded_commit(
    events: list[AnyEvent], sequence: int, time: int
) -> None:
    payload = written(events, sequence=sequence, time=time)

    assert payload == encode(Commit(**HEAD | {"sequence": sequence, "time": time}, events=events))


def test_commit_is_read_back() -> None:
    assert decode_commit(written(EVENTS)) == Commit(**HEAD, events=EVENTS)
    assert decode_commit(written([])) == Commit(**HEAD, events=[])


def test_event_of_unknown_name_is_passed_over() -> None:
    """An event of unknown name may only be one that changes no book."""
    document = json.loads(written(EVENTS))
    document["events"].insert(0, {"event": "weather_changed", "to": {"rain": [1, None]}})
    document["events"].append({"event": "fee_charged", "order_id": 5})

    assert decode_commit(json.dumps(document).encode()) == Commit(**HEAD, events=EVENTS)


def test_unknown_fields_are_passed_over() -> None:
    document = json.loads(written(EVENTS)) | {"region": "eu"}
    document["events"][0]["fee"] = {"rate": "0.1"}
    document["events"][1]["maker_fee"] = None

    assert decode_commit(json.dumps(document).encode()) == Commit(**HEAD, events=EVENTS)


def test_unknown_fields_of_a_specification_are_passed_over() -> None:
    """Unknown fields are ignored in replies and events."""
    opened: dict[str, Any] = {"event": "market_opened", "log_id": "log"}
    opened["specification"] = {"market": "M", "tick_size": "1", "lot_size": "1", "fee": "0.1"}
    document = json.loads(written([])) | {"events": [opened]}

    assert len(decode_commit(json.dumps(document).encode()).events) == 1


def test_unknown_fields_beside_an_event_of_unknown_name_are_passed_over() -> None:
    document = json.loads(written(EVENTS)) | {"region": "eu"}
    document["events"][0]["fee"] = "1"
    document["events"].append({"event": "fee_charged"})

    assert decode_commit(json.dumps(document).encode()) == Commit(**HEAD, events=EVENTS)


def test_known_event_that_is_malformed_is_not_passed_over() -> None:
    document = json.loads(written(EVENTS))
    document["events"].append({"event": "weather_changed"})
    document["events"][1]["trade_id"] = "7"

    with pytest.raises(msgspec.DecodeError):
        decode_commit(json.dumps(document).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        written(EVENTS)[:-1],
        written(EVENTS) + b"x",
        written(EVENTS).replace(b'"sequence":1042', b'"sequence":"1042"'),
        written(EVENTS).replace(b'"events":[', b'"events":[{},'),
        written(EVENTS).replace(b'"events":[', b'"events":[1,'),
        written(EVENTS).replace(b'"buy"', b'"up"', 1),
    ],
)
def test_bytes_that_are_no_commit_are_not_read(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_commit(payload)


def test_text_that_is_no_utf_8_is_not_read() -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode_commit(written(EVENTS).replace(b"alice", b"al\xffce"))


def test_defaults_are_left_out_of_events() -> None:
    event = Accepted("order_alice_1_1", "alice", "buy", "2")

    assert json.loads(encode(event)) == {
        "event": "accepted",
        "order_id": "order_alice_1_1",
        "peer": "alice",
        "side": "buy",
        "quantity": "2",
    }


def test_versions_of_protocol_and_rules_are_never_left_out() -> None:
    assert json.loads(encode(LeaderChanged("server-1", 1, 1, 1))) == {
        "event": "leader_changed",
        "server": "server-1",
        "term": 1,
        "protocol": 1,
        "rules": 1,
    }


def test_hash_of_a_payload_has_32_hex_digits() -> None:
    assert hash_of(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert len(HASH_OF_NOTHING) == len(hash_of(b"x")) == 32
