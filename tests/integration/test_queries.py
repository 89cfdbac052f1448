"""What is refused, for which reason, by a server on real NATS; and what happens by itself."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import nats.errors
import pytest

from tests.integration.programs import Exchange
from tests.nats_nodes import Callers, calling

TIMEOUT_S = 30


@pytest.fixture
async def wire(venue: Exchange) -> AsyncIterator[Callers]:
    """Be anybody."""
    async with calling(venue.nodes) as callers:
        yield callers


async def ask(client: Callers, subject: str, body: Any = None) -> dict[str, Any]:
    """Send a request, as bytes or as JSON, and read the answer."""
    payload = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    reply = await client.request(subject, payload, timeout=TIMEOUT_S)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


def specification(name: str, **fields: Any) -> dict[str, Any]:
    """Specify a market."""
    base = {"market": name, "tick_size": "0.01", "lot_size": "0.001"}
    return {"specification": base | fields}


@pytest.fixture
async def opened(wire: Callers, market: str) -> str:
    """Open a market."""
    await ask(wire, f"dex.admin.{market}.open", specification(market))
    return market


QUERIES = [
    ("what", {}, "unknown_value"),
    ("book", b"{", "malformed"),
    ("book", b"\xff", "malformed"),
    ("book", b"[]", "malformed"),
    ("book", {"depth": 0}, "malformed"),
    ("book", {"depth": 1001}, "malformed"),
    ("book", {"depth": "20"}, "malformed"),
    ("book", {"deep": 1}, "malformed"),
    ("book", {"min_sequence": -1}, "malformed"),
    ("book", {"min_sequence": 2**63}, "malformed"),
    ("order", {}, "malformed"),
    ("order", {"order_id": "order_7"}, "malformed"),
    ("order", {"order_id": "order_bob_1_1"}, "wrong_peer"),
    ("order", {"order_id": "order_alice_1_1"}, "unknown_order"),
    ("orders", {"limit": 1001}, "malformed"),
    ("orders", {"after": "order_7"}, "malformed"),
    ("orders", {"after": "order_bob_1_1"}, "wrong_peer"),
    ("orders", {"after": "order_alice_1_1"}, "unknown_order"),
    ("trades", {"limit": 0}, "malformed"),
    ("status", {"limit": 1}, "malformed"),
    ("snapshot", {"part": -1}, "malformed"),
    ("log", {}, "malformed"),
    ("log", {"from_sequence": 0}, "malformed"),
    ("log", {"from_sequence": 1, "limit": 1001}, "malformed"),
]


async def test_bad_query_is_refused_for_the_right_reason(wire: Callers, opened: str) -> None:
    answers = [
        await ask(wire, f"dex.query.{opened}.{what}.alice", body) for what, body, _ in QUERIES
    ]

    assert [(a["status"], a["reason"]) for a in answers] == [
        ("rejected", reason) for _, _, reason in QUERIES
    ]
    assert all(answer["message"] for answer in answers)


async def test_query_of_no_market_or_no_peer_is_refused(wire: Callers, opened: str) -> None:
    nowhere = await ask(wire, "dex.query.NO-SUCH.status.alice")
    nobody = await ask(wire, f"dex.query.{opened}.status.a:b")

    assert (nowhere["reason"], nobody["reason"]) == ("unknown_market", "malformed")


async def test_empty_query_is_one_with_its_defaults(wire: Callers, opened: str) -> None:
    answer = await ask(wire, f"dex.query.{opened}.status.alice", b"")

    assert answer["state"] == "trading"


async def test_peer_that_pulls_the_log_is_limited_and_others_are_answered(
    wire: Callers, opened: str
) -> None:
    """It is told so, and is answered again when it has waited (G21)."""
    for first in (1, 1_001):
        batch = [
            {"op": "submit", "side": "buy", "quantity": "1", "price": "100"}
            | {"order_id": f"order_alice_1_{number}"}
            for number in range(first, first + 1_000)
        ]
        await ask(wire, f"dex.orders.{opened}.alice", batch)
    newest = (await ask(wire, f"dex.query.{opened}.status.bob"))["sequence"]
    log = {"from_sequence": 1}
    pulling = [
        asyncio.create_task(ask(wire, f"dex.query.{opened}.log.alice", log)) for _ in range(300)
    ]
    await asyncio.sleep(0)
    status = await ask(wire, f"dex.query.{opened}.status.bob")
    page = await ask(wire, f"dex.query.{opened}.log.bob", log)
    pulled = await asyncio.gather(*pulling)

    limited = [answer for answer in pulled if answer.get("reason") == "rate_limited"]
    assert limited
    assert {answer["status"] for answer in limited} == {"retry"}
    assert all(answer["message"].startswith("expected ") for answer in limited)
    assert status["sequence"] == page["sequence"] == newest
    assert page in pulled
    # Who waits is answered.
    again = await ask(wire, f"dex.query.{opened}.status.alice")
    while again.get("reason") == "rate_limited":
        await asyncio.sleep(0.1)
        again = await ask(wire, f"dex.query.{opened}.status.alice")
    assert again["sequence"] == newest


async def test_orders_of_no_market_reach_nobody(wire: Callers, market: str) -> None:
    """Nobody can say whether the market is unknown or only without a leader."""
    with pytest.raises(nats.errors.NoRespondersError):
        await wire.request(f"dex.orders.{market}.alice", b"{}", timeout=TIMEOUT_S)


OPENINGS = [
    ({}, {"fields": 1}, "malformed"),
    ({"market": "OTHER"}, None, "malformed"),
    ({"tick_size": "0"}, None, "malformed"),
    ({"tick_size": 0.01}, None, "malformed"),
    ({"lot_size": "1e3"}, None, "malformed"),
    ({"max_peers": 0}, None, "malformed"),
    ({"colour": "red"}, None, "malformed"),
    ({"min_quantity": "2", "max_quantity": "1"}, None, "malformed"),
]


async def test_bad_opening_is_refused_and_opens_nothing(wire: Callers, market: str) -> None:
    for fields, body, reason in OPENINGS:
        wanted = specification(market, **fields) if body is None else body
        answer = await ask(wire, f"dex.admin.{market}.open", wanted)
        assert (answer["status"], answer["reason"]) == ("rejected", reason), wanted

    unknown = await ask(wire, f"dex.query.{market}.status.alice")
    assert unknown["reason"] == "unknown_market"


async def test_bad_wish_of_an_operator_is_refused(wire: Callers, opened: str) -> None:
    wishes = [
        ("burn", {}, "unknown_value"),
        ("halt", {"why": "lunch"}, "malformed"),
        ("change", {"tick_size": "1"}, "malformed"),
        ("change", {"lot_size": "1"}, "malformed"),
        ("change", {"max_price": "none"}, "malformed"),
    ]
    answers = [await ask(wire, f"dex.admin.{opened}.{what}", body) for what, body, _ in wishes]

    assert [answer["reason"] for answer in answers] == [reason for _, _, reason in wishes]
    elsewhere = await ask(wire, "dex.admin.NO-SUCH.halt")
    assert elsewhere["reason"] == "unknown_market"


async def test_market_is_changed_halted_resumed_and_closed(wire: Callers, opened: str) -> None:
    async def wish(what: str, body: Any = None) -> dict[str, Any]:
        return await ask(wire, f"dex.admin.{opened}.{what}", body)

    async def order(number: int) -> dict[str, Any]:
        submit = {"op": "submit", "side": "buy", "quantity": "1", "price": "100"}
        return await ask(
            wire, f"dex.orders.{opened}.alice", submit | {"order_id": f"order_alice_1_{number}"}
        )

    assert (await wish("change", {"max_quantity": "5.0"})) == {"sequence": 2}
    status = await ask(wire, f"dex.query.{opened}.status.alice")
    assert status["specification"] | {"max_quantity": "5"} == status["specification"]
    assert (await order(1))["status"] == "new"
    assert set(await wish("halt")) == {"sequence"}
    assert (await order(2))["reason"] == "market_halted"
    assert set(await wish("resume")) == {"sequence"}
    assert (await order(3))["status"] == "new"
    assert set(await wish("close")) == {"sequence"}
    assert (await order(4))["reason"] == "market_halted"
    assert (await wish("resume"))["reason"] == "market_halted"
    assert (await wish("change", {"max_quantity": "6"}))["reason"] == "market_halted"
    book = await ask(wire, f"dex.query.{opened}.book.alice")
    assert (book["bids"], book["asks"]) == ([], [])


async def test_order_expires_when_nothing_else_happens(wire: Callers, opened: str) -> None:
    listener = await wire.client(f"dex.orders.{opened}.alice")
    events = await listener.subscribe(f"dex.events.{opened}")
    expires_at = time.time_ns() // 1_000 + 300_000
    submit = {"op": "submit", "side": "buy", "quantity": "1", "price": "100"}
    receipt = await ask(
        wire,
        f"dex.orders.{opened}.alice",
        submit | {"time_in_force": "gtd", "expires_at": expires_at},
    )
    assert receipt["status"] == "new"

    accepted = json.loads((await events.next_msg(timeout=TIMEOUT_S)).data)
    expired = json.loads((await events.next_msg(timeout=TIMEOUT_S)).data)

    assert [event["event"] for event in accepted["events"]] == ["accepted"]
    assert expired["events"] == [
        {"event": "expired", "order_id": receipt["order_id"], "quantity": "1"}
    ]
    assert expired["time"] >= expires_at
    assert expired["digest"] == "0" * 16
