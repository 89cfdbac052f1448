"""Ids are read from the right, so a peer may be called anything that a peer may be called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_protocol.ids import (
    is_market,
    is_peer,
    make_id,
    make_pair,
    pair_of,
    parse_id,
    split_pair,
)

peers = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)
timestamps = st.integers(0, 10**14 - 1)
counts = st.integers(1, 10**12 - 1)
kinds = st.sampled_from(["order", "command"])


@given(kinds, peers, timestamps, counts)
def test_made_id_is_read_back(kind: str, peer: str, timestamp: int, count: int) -> None:
    text = make_id(kind, peer, timestamp, count)

    assert parse_id(text, kind) == (peer, make_pair(timestamp, count))
    assert parse_id(text, "order" if kind == "command" else "command") is None
    assert pair_of(text) == make_pair(timestamp, count)
    assert split_pair(pair_of(text)) == (timestamp, count)


@given(timestamps, counts, timestamps, counts)
def test_pairs_are_in_order_of_timestamp_then_count(t1: int, n1: int, t2: int, n2: int) -> None:
    assert (make_pair(t1, n1) < make_pair(t2, n2)) == ((t1, n1) < (t2, n2))


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("order_alice_1763800000000_17", "alice"),
        ("order_bob_2_1763800000000_17", "bob_2"),
        ("order___1_1", "_"),
        ("order_order_1_1_2_3", "order_1_1"),
        ("order_-_1_1", "-"),
        (f"order_{'p' * 32}_{10**14 - 1}_{10**12 - 1}", "p" * 32),
        ("order_alice_0_1", "alice"),
    ],
)
def test_id_names_its_peer(text: str, peer: str) -> None:
    parsed = parse_id(text, "order")

    assert parsed is not None
    assert parsed[0] == peer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "order",
        "order_alice_1",
        "order__1_1",
        "order_alice_1_0",
        "order_alice_01_1",
        "order_alice_1_01",
        "order_alice_-1_1",
        "order_alice_1_-1",
        "order_alice_+1_1",
        f"order_alice_{10**14}_1",
        f"order_alice_1_{10**12}",
        f"order_{'p' * 33}_1_1",
        "order_al.ice_1_1",
        "order_alïce_1_1",
        "order_alice_1_1\n",
        " order_alice_1_1",
        "order_alice_1_1_",
        "Order_alice_1_1",
        "order_alice_\u0661_1",
        "order_alice_1_\uff11",
    ],
)
def test_text_that_is_no_id_is_not_read(text: str) -> None:
    assert parse_id(text, "order") is None


@pytest.mark.parametrize("text", ["BTC-USD", "a", "-", "0", "x" * 24])
def test_market_is_letters_digits_and_dashes(text: str) -> None:
    assert is_market(text)


@pytest.mark.parametrize(
    "text", ["", "x" * 25, "BTC_USD", "BTC.USD", "BTC USD", "Ü", "A\n", "*", ">"]
)
def test_other_text_names_no_market(text: str) -> None:
    assert not is_market(text)


@pytest.mark.parametrize("text", ["alice", "_", "-", "bob_2", "p" * 32])
def test_peer_is_letters_digits_dashes_and_underscores(text: str) -> None:
    assert is_peer(text)


@pytest.mark.parametrize("text", ["", "p" * 33, "al.ice", "al ice", "ä", "a\n", "*", ">"])
def test_other_text_names_no_peer(text: str) -> None:
    assert not is_peer(text)
