"""Whatever is sent is answered once, with its reason, and what is refused leaves no trace (G6).

A small share of `just fuzz`, which sends a million requests. What each world is held to stands in
world.py; a round is the same for the same seed.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_protocol.codec import decode_request
from dex_protocol.receipts import Receipt
from tests.fuzz import oracle, readers
from tests.fuzz.campaign import fuzz_round
from tests.fuzz.corpus import CORPUS, Reasons
from tests.fuzz.requests import damaged
from tests.fuzz.world import World

ROWS = [pytest.param(payload, reasons, id=name) for name, payload, reasons in CORPUS]


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_requests_are_answered_as_the_document_says(seed: int) -> None:
    counted = fuzz_round(seed, worlds=6)

    # A round in which hardly anything was refused, or executed, would have shown nothing.
    assert counted["requests"] >= 200
    assert counted["malformed"] >= 50
    assert counted["new"] >= 5
    assert counted["busy"] + counted["rate_limited"] == 0


@pytest.mark.parametrize("data", readers.seeds())
def test_bytes_to_begin_with_are_read_or_refused_as_documented(data: bytes) -> None:
    readers.read(data)


@given(
    data=st.sampled_from(readers.seeds()),
    damage=st.lists(
        st.tuples(st.integers(0, 3_000), st.integers(0, 4), st.binary(max_size=4)), max_size=4
    ),
)
def test_damaged_bytes_are_read_or_refused_as_documented(
    data: bytes, damage: list[tuple[int, int, bytes]]
) -> None:
    readers.read(data[:1] + damaged(data[1:], tuple(damage)))


@pytest.mark.parametrize(("payload", "reasons"), ROWS)
def test_request_of_the_corpus_is_read_or_refused_as_the_document_says(
    payload: bytes, reasons: Reasons
) -> None:
    judged = oracle.judge(payload, "alice")
    elements, is_array = decode_request(payload, "alice")
    expected = reasons if isinstance(reasons, list) else [reasons]

    assert [verdict.reason for verdict in judged.verdicts] == expected
    assert [each.reason if isinstance(each, Receipt) else None for each in elements] == expected
    assert is_array == judged.is_array == isinstance(reasons, list)


def test_corpus_in_one_market_leaves_the_trace_of_what_was_executed_alone() -> None:
    world = World({}, seed=0)
    for _, payload, _ in CORPUS:
        world.pass_time(1)
        world.send([("alice", payload)])
    world.check_replay()

    assert world.counted["requests"] == len(CORPUS)
    assert world.counted["malformed"] > 20
