"""Everything of ours that reads bytes from outside, and what must be true of it.

An exception that is not documented is a fault; and what was read must be written and read again to
the same. The first byte of what is tried says who reads the rest.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

from dex_engine import Market
from dex_engine.errors import Diverged, InvariantViolated
from dex_protocol.administration import REQUESTS
from dex_protocol.codec import (
    UNREADABLE,
    decode_as,
    decode_commit,
    decode_receipts,
    decode_request,
    encode,
)
from dex_protocol.content import content_of
from dex_protocol.queries import QUERIES
from dex_protocol.receipts import Receipt
from tests.builders import NOW, a_specification, amend, buy, cancel, cancel_all, seal, sell, send
from tests.fuzz import oracle
from tests.fuzz.corpus import CORPUS

PEER: Final = "alice"
ASKED: Final = [*QUERIES.values(), *REQUESTS.values()]

STATELESS: Final = {"malformed", "unknown_value", "batch_too_large", "wrong_peer"}
RECEIPT_BYTES_MAX: Final = 600
"""What a leader counts for a receipt without lists."""


def a_request(data: bytes) -> None:
    """Read a request; the oracle says whether each of its commands is refused, and why."""
    elements, is_array = decode_request(data, PEER)
    judged = oracle.judge(data, PEER)
    assert is_array == judged.is_array
    for verdict, element in zip(judged.verdicts, elements, strict=True):
        if isinstance(element, Receipt):
            assert element.reason in STATELESS
            assert verdict.is_open or element.reason == verdict.reason, (verdict, element)
            assert len(encode(element)) <= RECEIPT_BYTES_MAX
        else:
            assert verdict.reason is None, (verdict, element)
            again, _ = decode_request(encode(element), PEER)
            assert again == [element]
            assert content_of(again[0]) == content_of(element)  # type: ignore[arg-type]


def a_question(data: bytes) -> None:
    """Read a query or an operator's request, of each kind."""
    for kind in ASKED:
        asked = decode_as(data, kind)
        if isinstance(asked, Receipt):
            assert asked.reason == "malformed"
            assert len(encode(asked)) <= RECEIPT_BYTES_MAX
        else:
            assert decode_as(encode(asked), kind) == asked


def a_commit(data: bytes) -> None:
    """Read a commit."""
    try:
        commit = decode_commit(data)
    except UNREADABLE:
        return
    assert decode_commit(encode(commit)) == commit


def a_reply(data: bytes) -> None:
    """Read what a server answered."""
    try:
        receipts = decode_receipts(data)
    except UNREADABLE:
        return
    assert decode_receipts(encode(receipts)) == receipts


def a_next_commit(data: bytes) -> None:
    """Follow a log whose next entry is these bytes."""
    market = Market("BTC-USD")
    for payload in a_log()[:-1]:
        market.apply_commit(payload)
    try:
        market.apply_commit(data)
    except (Diverged, InvariantViolated):
        return
    market.check()


def a_snapshot(data: bytes) -> None:
    """Restore a market from these bytes."""
    try:
        market = Market.restore(data)
    except InvariantViolated:
        return
    again = Market.restore(market.snapshot())
    assert again.snapshot() == market.snapshot()


READERS: Final[list[Callable[[bytes], None]]] = [
    a_request,
    a_question,
    a_commit,
    a_reply,
    a_next_commit,
    a_snapshot,
]


def read(data: bytes) -> None:
    """Have one of the readers read."""
    if data:
        READERS[data[0] % len(READERS)](data[1:])


# --- Where to begin -----------------------------------------------------------------------------


def _market_and_log() -> tuple[Market, list[bytes]]:
    market = Market("BTC-USD")
    events = market.open(a_specification(), log_id="log", time=NOW)
    events += market.lead(server="server-1", term=1, protocol=1, rules=1, time=NOW)
    payloads = [seal(market, events)]
    for peer, command in (
        ("alice", buy("10 @ 100", 1, time_in_force="gtd", expires_at=NOW + 10)),
        ("bob", sell("4 @ 100", 2, peer="bob")),
        ("alice", amend(1, 3, quantity="9")),
        ("alice", cancel(1, 4, if_version=7)),
        ("alice", buy("5", 5)),
        ("alice", sell("3 @ 100", 6, self_trade="decrement")),
        ("bob", sell("1 @ 101", peer="bob")),
        ("alice", cancel_all(7)),
        ("alice", buy("2 @ 101", 8)),
    ):
        payloads.append(send(market, command, peer=peer))
    return market, payloads


@cache
def a_log() -> list[bytes]:
    """Give a short log of all kinds of events; its last commit trades."""
    return _market_and_log()[1]


def seeds() -> list[bytes]:
    """Give what is worth beginning with: for each reader, bytes of the kind that it reads."""
    log = a_log()
    state = _market_and_log()[0].snapshot()
    questions = [
        b'{"depth":5,"orders":true,"min_sequence":3}',
        b'{"order_id":"order_alice_1_1"}',
        b'{"after":"order_alice_1_1","limit":7}',
        b'{"from_sequence":1,"limit":7}',
        b'{"snapshot_sequence":1,"part":0}',
        b'{"specification":{"market":"M","tick_size":"0.01","lot_size":"1","max_peers":3}}',
        b'{"price_band":"0.5","max_open_orders":10}',
        b"{}",
    ]
    replies = [
        b'{"status":"new","order_id":"o","trades":[],"sequence":4,"duplicate":false}',
        b'[{"status":"retry","reason":"busy","message":"later"}]',
    ]
    known = b'"event":"trade"'
    deep = b"[" * 2_000 + b"]" * 2_000
    odd = [
        log[-1].replace(known, b'"event":"news"'),
        log[-1].replace(known, b'"event":"news","deep":' + deep),
        log[-1].replace(b'"term"', b'"deep":%b,"term"' % deep),
        log[-1].replace(b'"term"', b'"text":"\xff","term"'),
    ]
    begins: dict[Callable[[bytes], None], list[bytes]] = {
        a_request: [payload for _, payload, _ in CORPUS if len(payload) < 4_000],
        a_question: questions,
        a_commit: [*log, *odd],
        a_reply: replies,
        a_next_commit: [*log, *odd],
        a_snapshot: [state, state.replace(b'"term"', b'"deep":%b,"term"' % deep)],
    }
    return [
        bytes([READERS.index(reader)]) + data for reader, some in begins.items() for data in some
    ]
