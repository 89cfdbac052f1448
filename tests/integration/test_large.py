"""What is large stays within the bounds of the wire: commits, replies, pages and parts.

Every reply is measured where it arrives, and every log is followed to its end, where each commit is
measured and the book compared. Orders are sent by the thousand.
"""

import asyncio
import base64
import gzip
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio

from dex_engine import Market
from dex_protocol.events import Commit, Expired
from tests.integration.programs import eventually
from tests.integration.wire import (
    Target,
    Wire,
    attacked,
    command_id,
    order_id,
    wired,
)

BATCH: Final = 1_000
LONGEST: Final = "p" * 32
"""A name as long as names may be."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """Run an exchange that takes snapshots after every 20 commits of a market."""
    directory = tmp_path_factory.mktemp("large")
    async with attacked(directory, "--snapshot-commits", "20") as target:
        yield target


@pytest.fixture
async def wire(target: Target, market: str) -> AsyncIterator[Wire]:
    """Connect to a market that is open."""
    async with wired(target, market) as wire:
        await wire.open()
        yield wire


def submit(number: int, price: str = "100", *, peer: str = "alice", **more: Any) -> dict[str, Any]:
    """Offer one lot."""
    return {
        "op": "submit",
        "order_id": order_id(number, peer),
        "side": "sell",
        "price": price,
        "quantity": "0.001",
        **more,
    }


async def rest(wire: Wire, count: int, *, peer: str = "alice", **more: Any) -> None:
    """Let a peer's orders rest, one lot each, from number 1 on."""
    for first in range(1, count, BATCH):
        receipts = await wire.send(
            [submit(number, peer=peer, **more) for number in range(first, first + BATCH)],
            peer=peer,
        )
        assert {receipt["status"] for receipt in receipts} == {"new"}


def check_spread(commits: list[Commit], *names: str) -> int:
    """Count the events of housekeeping, of which a commit has no more than 1,000."""
    total = 0
    for commit in commits:
        events = [type(event).__name__ for event in commit.events]
        due = sum(
            name in names and getattr(event, "reason", "market_closed") == "market_closed"
            for name, event in zip(events, commit.events, strict=True)
        )
        assert due <= 1_000, Counter(events)
        total += due
    return total


async def test_sweep_of_5000_orders_touches_a_thousand_at_a_time(wire: Wire) -> None:
    await rest(wire, 5_000)
    sweep = {"op": "submit", "side": "buy", "price": "100", "quantity": "5"}
    whole = await wire.send(sweep | {"time_in_force": "fok"}, peer="bob")
    assert whole["reason"] == "fok_not_fillable"

    for number in range(1, 6):
        receipt = await wire.send(sweep | {"order_id": order_id(number, "bob")}, peer="bob")
        assert len(receipt["trades"]) == 1_000
        assert (receipt["filled_quantity"], receipt["remaining_quantity"]) == (
            "1",
            "0" if number < 5 else "4",
        )
        assert receipt["status"] == ("canceled" if number < 5 else "partially_filled")
        assert receipt["trades"][0]["maker_order_id"] == order_id((number - 1) * 1_000 + 1)

    market, commits = await wire.followed()
    assert len(market.orders) == 1
    reasons = [getattr(event, "reason", None) for commit in commits for event in commit.events]
    assert reasons.count("too_many_makers") == 4


@pytest.mark.parametrize("rest_of_batch", ["sweeps", "cancels", "unreadable"])
async def test_batch_whose_reply_would_be_too_large_is_cut_short(
    wire: Wire, rest_of_batch: str
) -> None:
    """However long the receipts of those elements are that are not executed any more."""
    for peer in (LONGEST, f"{LONGEST[:-1]}q"):
        await rest(wire, 3_000, peer=peer, price="92233720368547758.07")
    sweep = {"op": "submit", "side": "buy", "type": "market", "quantity": "1"}
    behind: dict[str, list[Any]] = {
        "sweeps": [sweep] * 995,
        "cancels": [
            {
                "op": "cancel",
                "order_id": f"order_{LONGEST}_{10**14 - 1}_{10**12 - 1}",
                "command_id": f"command_{LONGEST}_{10**14 - 1}_{10**12 - 1 - n}",
            }
            for n in range(995)
        ],
        "unreadable": [{"op": '"' * 160, "order_id": "x" * 80, "command_id": "x" * 80}] * 995,
    }
    batch = [sweep | {"self_trade": "allow"}] * 5 + behind[rest_of_batch]

    receipts = await wire.send(batch, peer=LONGEST)

    assert len(receipts) == 1_000
    done = [receipt for receipt in receipts if receipt.get("trades")]
    assert done
    assert receipts[: len(done)] == done
    others = Counter(receipt.get("reason") for receipt in receipts[len(done) :])
    assert others["busy"] > 0
    assert set(others) <= {"busy", "unknown_value", "malformed"}
    market, _ = await wire.followed()
    assert len(market.orders) == 6_000 - 1_000 * len(done)


async def test_cancel_all_of_5000_takes_five(wire: Wire) -> None:
    await rest(wire, 5_000)
    for turn in range(5):
        receipt = await wire.send({"op": "cancel_all", "command_id": command_id(6_000 + turn)})
        first = turn * 1_000 + 1
        assert receipt["canceled"] == [order_id(n) for n in range(first, first + 1_000)]
        assert receipt["more"] is (turn < 4)
    last = await wire.send({"op": "cancel_all"})
    assert (last["canceled"], last["more"]) == ([], False)

    market, _ = await wire.followed()
    assert market.orders == {}


async def test_batch_of_cancel_alls_is_answered(wire: Wire) -> None:
    """Each names a thousand orders; a thousand that find nothing to cancel cost little."""
    await rest(wire, 10_000)
    receipts = await wire.send([{"op": "cancel_all"}] * 10)
    counts = [len(receipt.get("canceled", [])) for receipt in receipts]
    while any(receipt["status"] == "retry" for receipt in receipts):
        receipts = await wire.send([{"op": "cancel_all"}] * 10)
        counts += [len(receipt.get("canceled", [])) for receipt in receipts]

    assert sum(counts) == 10_000
    nothing = await wire.send([{"op": "cancel_all", "side": "buy"}] * 1_000)
    assert [receipt.get("canceled") for receipt in nothing] == [[]] * 1_000
    await wire.followed()


async def test_market_with_20000_resting_orders_is_closed_in_parts(wire: Wire) -> None:
    for number in range(4):
        await rest(wire, 5_000, peer=f"peer-{number}")
    closed = await wire.administer("close")
    receipt = await wire.send(submit(9_000))

    assert receipt["reason"] == "market_halted"
    market, commits = await wire.followed()
    assert market.orders == {}
    assert check_spread(commits[closed["sequence"] :], "Canceled") == 20_000
    assert (await wire.ask("orders", peer="peer-0"))["orders"] == []


async def test_20000_orders_due_at_once_expire_in_parts(wire: Wire) -> None:
    """Their time is 4 s ahead, or twice as far as it took to send them in vain."""
    due: dict[str, int] = {}
    ahead_us = 4_000_000
    accepted = 0
    for attempt in range(5):
        now = time.time_ns() // 1_000
        peers = [f"gtd-{attempt}-{number}" for number in range(20)]
        due |= dict.fromkeys(peers, now + ahead_us)
        gtd = {"time_in_force": "gtd", "expires_at": now + ahead_us}
        batches = await asyncio.gather(
            *(
                wire.send([submit(n, peer=peer, **gtd) for n in range(1, 1_001)], peer=peer)
                for peer in peers
            )
        )
        counts = Counter(receipt.get("reason") for batch in batches for receipt in batch)
        accepted += counts[None]
        if counts == {None: 20_000}:
            break
        ahead_us = 2 * (time.time_ns() // 1_000 - now)
    assert accepted >= 20_000

    async def look() -> bool | None:
        book = await wire.ask("book")
        return True if book["asks"] == [] else None

    await eventually(look, what="the end of all gtd orders")
    market, commits = await wire.followed()
    assert market.orders == {}
    assert check_spread(commits, "Expired") == accepted
    for commit in commits:
        for event in commit.events:
            if isinstance(event, Expired):
                assert commit.time >= due[event.order_id.split("_")[1]]


async def test_peer_with_5000_open_orders_sees_them_page_by_page(wire: Wire) -> None:
    await rest(wire, 5_000)
    seen: list[str] = []
    query: dict[str, Any] = {}
    while True:
        page = await wire.ask("orders", query)
        seen += [order["order_id"] for order in page["orders"]]
        assert len(page["orders"]) <= 1_000
        if not page["more"]:
            break
        query = {"after": seen[-1]}

    assert seen == [order_id(number) for number in range(1, 5_001)]
    assert (await wire.ask("orders", peer="bob"))["orders"] == []
    # The last of a page may be done when the next one is asked for.
    await wire.send({"op": "cancel", "order_id": order_id(4_000)})
    page = await wire.ask("orders", {"after": order_id(4_000), "limit": 1})
    assert [order["order_id"] for order in page["orders"]] == [order_id(4_001)]


async def test_book_of_20000_levels_is_told_and_written_in_parts(wire: Wire) -> None:
    """By levels, by orders, as a snapshot and as its log; all of it is the same book."""
    choice = random.Random(20_000)
    for side, base in (("buy", 1), ("sell", 20_000)):
        levels = choice.sample(range(base, base + 10_000), 10_000)
        for first in range(0, 10_000, BATCH):
            peer = f"{side}-{first}-".ljust(32, "p")
            orders = [
                {
                    "op": "submit",
                    "order_id": f"order_{peer}_{choice.randrange(1, 10**14)}_{first + n + 1}",
                    "side": side,
                    "price": str(levels[first + n]),
                    "quantity": f"{choice.randrange(1, 10**9)}.{choice.randrange(1, 1_000):03}",
                }
                for n in range(BATCH)
            ]
            receipts = await wire.send(orders, peer=peer)
            assert {receipt["status"] for receipt in receipts} == {"new"}

    book = await wire.ask("book", {"depth": 1_000})
    assert (len(book["bids"]), len(book["asks"])) == (1_000, 1_000)
    assert [level["price"] for level in book["bids"]] == [str(10_000 - n) for n in range(1_000)]
    assert [level["price"] for level in book["asks"]] == [str(20_000 + n) for n in range(1_000)]
    orders = await wire.ask("book", {"depth": 1_000, "orders": True})
    assert (len(orders["bids"]), len(orders["asks"]), orders["more"]) == (1_000, 1_000, False)

    # By the 20th commit of the market, or soon after, there is a snapshot of it.
    async def look() -> dict[str, Any] | None:
        part: dict[str, Any] = await wire.ask("snapshot")
        return part if part["parts"] > 1 else None

    part = await eventually(look, what="a snapshot in parts")
    named = {"snapshot_sequence": part["snapshot_sequence"]}
    parts = await asyncio.gather(
        *(wire.ask("snapshot", named | {"part": n}) for n in range(part["parts"]))
    )
    packed = [base64.b64decode(each["data"]) for each in parts]
    assert [len(each) for each in packed[:-1]] == [512 * 1024] * (len(packed) - 1)
    assert 0 < len(packed[-1]) <= 512 * 1024
    # In a thread, since it may take seconds: a node leaves who answers no ping for 3 s.
    restored = await asyncio.to_thread(Market.restore, gzip.decompress(b"".join(packed)))
    beyond = await wire.ask("snapshot", named | {"part": part["parts"]})
    assert beyond["reason"] == "malformed"

    market, _ = await wire.followed()
    for payload in (await wire.log())[restored.sequence :]:
        restored.apply_commit(payload)
    assert restored.digest == market.digest


async def test_many_large_queries_at_once_are_answered_and_hold_up_no_order(wire: Wire) -> None:
    """None gets silence: what finds no room is told to come again."""
    await rest(wire, 3_000, peer=LONGEST)
    # As many as the node keeps for a connection that reads slowly.
    orders = [wire.ask("orders", peer=LONGEST) for _ in range(100)]
    orders += [wire.ask("status") for _ in range(1_500)]
    logs = [wire.ask("log", {"from_sequence": 1}) for _ in range(50)]
    command = wire.send(submit(1))
    *answers, receipt = await asyncio.gather(*orders, *logs, command)

    assert receipt["status"] in ("new", "retry")
    kinds = Counter(answer.get("reason", "told") for answer in answers)
    assert set(kinds) <= {"told", "busy", "rate_limited", "unavailable"}, kinds
    assert kinds["told"] > 0
    await wire.followed()


async def test_log_of_large_commits_is_told_page_by_page(wire: Wire) -> None:
    """Pages hold at most half a mebibyte of commits, or one commit, whole."""
    for number in range(5):
        await rest(wire, 2_000, peer=f"{LONGEST[:-1]}{number}")
    stored = await wire.log()
    assert sum(map(len, stored)) > 2 * 512 * 1024

    sequence, pages = 1, 0
    while sequence <= len(stored):
        page = await wire.ask("log", {"from_sequence": sequence})
        told = [text.encode() for text in page["commits"]]
        assert told == stored[sequence - 1 : sequence - 1 + len(told)]
        assert len(told) == 1 or sum(map(len, told)) <= 512 * 1024
        sequence += len(told)
        pages += 1
    assert pages > 2
    assert msgspec.json.decode(stored[-1])["sequence"] == len(stored)
    await wire.followed()
