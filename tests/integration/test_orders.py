"""A peer that knows nothing but docs/PROTOCOL.md: nats-py, JSON and hashes, and nothing of ours.

It sends orders, asks all that can be asked, and follows the events with a book of its own, whose
digest it compares with each commit's.
"""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import pytest
from nats.aio.msg import Msg

from tests.integration.programs import Exchange, eventually
from tests.nats_nodes import Callers, calling

TICK, LOT = Decimal("0.01"), Decimal("0.001")
TIMESTAMP = 1_763_800_000_000
PATIENCE_S = 30


def id_of(kind: str, peer: str, number: int) -> str:
    return f"{kind}_{peer}_{TIMESTAMP}_{number}"


def order_id(number: int, peer: str = "alice") -> str:
    return id_of("order", peer, number)


def command_id(number: int, peer: str = "alice") -> str:
    return id_of("command", peer, number)


def submit(
    side: str,
    quantity: str,
    price: str | None,
    number: int | None,
    peer: str = "alice",
    **more: Any,
) -> dict[str, Any]:
    command: dict[str, Any] = {"op": "submit", "side": side, "quantity": quantity, **more}
    if price is None:
        command["type"] = "market"
    else:
        command["price"] = price
    if number is not None:
        command["order_id"] = order_id(number, peer)
    return command


class Book:
    """The book as its events tell it: order id to side, ticks, priority and lots."""

    def __init__(self) -> None:
        self.orders: dict[str, list[Any]] = {}
        self.priority = 0
        self.taker = ""

    @property
    def digest(self) -> str:
        total = 0
        for name, (side, ticks, priority, lots) in self.orders.items():
            text = f"{name}|{side}|{ticks}|{priority}".encode()
            key = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
            total += key * lots
        return f"{total % 2**64:016x}"

    def apply(self, event: dict[str, Any]) -> None:
        name = event.get("order_id", "")
        match event["event"]:
            case "accepted":
                self.taker = name
                self._rest(name, event["side"], event)
            case "amended":
                self.taker = name
                if event["priority"] == "lost":
                    self._rest(name, self.orders.pop(name)[0], event)
                else:
                    self.orders[name][3] = lots(event["resting_quantity"])
            case "trade":
                self._lower(event["maker_order_id"], lots(event["quantity"]))
            case "reduced" if name != self.taker:
                self._lower(name, lots(event["quantity"]))
            case "expired":
                del self.orders[name]
            case "canceled" if event["reason"] in ("requested", "market_closed"):
                del self.orders[name]
            case "canceled" if name != self.taker:
                del self.orders[name]

    def _rest(self, name: str, side: str, event: dict[str, Any]) -> None:
        resting = lots(event.get("resting_quantity", "0"))
        if resting:
            self.priority += 1
            ticks = int(Decimal(event["price"]) / TICK)
            self.orders[name] = [side, ticks, self.priority, resting]

    def _lower(self, name: str, quantity: int) -> None:
        self.orders[name][3] -= quantity
        if self.orders[name][3] == 0:
            del self.orders[name]


def lots(text: str) -> int:
    return int(Decimal(text) / LOT)


def hash_of(payload: bytes) -> str:
    return blake2b(payload, digest_size=16).hexdigest()


class Peer:
    """Anyone with a key and a NATS connection, in one market."""

    def __init__(self, callers: Callers, market: str) -> None:
        self.callers = callers
        self.market = market
        self.payloads: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.has_news = asyncio.Event()

    async def on_event(self, message: Msg) -> None:
        self.payloads.append(message.data)
        self.headers.append(message.headers or {})
        self.has_news.set()

    async def open(self, **more: str) -> dict[str, Any]:
        specification = {"market": self.market, "tick_size": "0.01", "lot_size": "0.001", **more}
        return await self.request(f"dex.admin.{self.market}.open", {"specification": specification})

    async def send(self, *commands: dict[str, Any], peer: str = "alice") -> Any:
        body = commands[0] if len(commands) == 1 else commands
        return await self.request(f"dex.orders.{self.market}.{peer}", body)

    async def ask(self, what: str, peer: str = "alice", **fields: Any) -> dict[str, Any]:
        return await self.request(f"dex.query.{self.market}.{what}.{peer}", fields)

    async def request(self, subject: str, body: Any) -> Any:
        reply = await self.callers.request(subject, json.dumps(body).encode(), timeout=PATIENCE_S)
        return json.loads(reply.data)

    async def log(self) -> list[bytes]:
        """Read the whole log with the query of that name."""
        payloads: list[bytes] = []
        while True:
            page = await self.ask("log", from_sequence=len(payloads) + 1, limit=7)
            payloads += [text.encode() for text in page["commits"]]
            if len(payloads) >= page["sequence"]:
                return payloads

    async def follow(self, sequence: int) -> list[dict[str, Any]]:
        """Wait for the events through a commit, and check all that can be checked."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.payloads) < sequence:
                self.has_news.clear()
                await self.has_news.wait()
        book, previous, commits = Book(), "0" * 32, []
        for number, payload in enumerate(self.payloads, start=1):
            commit = json.loads(payload)
            assert (commit["market"], commit["sequence"]) == (self.market, number)
            assert commit["previous"] == previous
            for event in commit["events"]:
                book.apply(event)
            assert commit["digest"] == book.digest
            commits.append(commit)
            previous = hash_of(payload)
        return commits


@asynccontextmanager
async def trading(venue: Exchange, market: str) -> AsyncIterator[Peer]:
    async with calling(venue.nodes) as callers:
        peer = Peer(callers, market)
        client = await callers.client(f"dex.orders.{market}.alice")
        await client.subscribe(f"dex.events.{market}", cb=peer.on_event)
        await client.flush()
        yield peer


@pytest.fixture
async def peer(venue: Exchange, market: str) -> AsyncIterator[Peer]:
    """Trade in a market that nobody else knows."""
    async with trading(venue, market) as peer:
        assert await peer.open() == {"sequence": 1}
        yield peer


def test_digest_of_the_protocols_example() -> None:
    book = Book()
    book.orders["order_alice_1763800000000_17"] = ["buy", 10_050, 3, 25]
    assert book.digest == "587c8614dad8f225"
    book.orders["order_bob_1763800000001_1"] = ["sell", 10_060, 4, 7]
    assert book.digest == "2863e7a04687e7c2"


async def test_market_is_opened_once_and_its_log_begins_with_that(peer: Peer) -> None:
    assert (await peer.open())["sequence"] >= 1
    other = await peer.open(max_price="7")
    assert (other["status"], other["reason"]) == ("rejected", "malformed")

    (commit,) = await peer.follow(1)
    opened, led = commit["events"]
    assert opened["event"] == "market_opened"
    assert opened["specification"]["tick_size"] == "0.01"
    assert opened["log_id"]
    assert (led["event"], led["server"]) == ("leader_changed", "server-1")
    assert (led["term"], led["protocol"], led["rules"]) == (1, 1, 1)


async def test_order_rests_trades_is_amended_and_canceled(peer: Peer) -> None:
    new = await peer.send(submit("buy", "2.50", "100.50", 1))
    assert new == {
        "status": "new",
        "order_id": order_id(1),
        "filled_quantity": "0",
        "remaining_quantity": "2.5",
        "trades": [],
        "version": 1,
        "sequence": 2,
        "duplicate": False,
    }

    taken = await peer.send(submit("sell", "1", "100", 1, "bob"), peer="bob")
    assert (taken["status"], taken["average_price"]) == ("filled", "100.5")
    assert taken["trades"] == [
        {"trade_id": 1, "price": "100.5", "quantity": "1", "maker_order_id": order_id(1)}
    ]

    amended = await peer.send(
        {"op": "amend", "command_id": command_id(2), "order_id": order_id(1), "price": "101"}
    )
    assert (amended["status"], amended["version"]) == ("partially_filled", 2)
    assert (amended["filled_quantity"], amended["remaining_quantity"]) == ("1", "1.5")

    canceled = await peer.send(
        {"op": "cancel", "command_id": command_id(3), "order_id": order_id(1), "if_version": 2}
    )
    assert (canceled["status"], canceled["remaining_quantity"]) == ("canceled", "0")
    done = await peer.send({"op": "cancel", "order_id": order_id(1)})
    assert (done["reason"], done["order_status"]) == ("order_done", "canceled")

    commits = await peer.follow(done["sequence"])
    assert [[event["event"] for event in commit["events"]] for commit in commits[1:]] == [
        ["accepted"],
        ["accepted", "trade"],
        ["amended"],
        ["canceled"],
        [],
    ]


async def test_every_kind_of_order_leaves_the_book_that_its_events_tell(peer: Peer) -> None:
    """The digest is compared after each commit, by a book that knows no matching rule (G11)."""
    await peer.send(*(submit("sell", "1", f"10{n}", n) for n in range(5)[1:]))
    await peer.send(*(submit("buy", "2", f"9{n}", 10 + n) for n in range(5)[1:]))
    for number, (side, quantity, price, more) in enumerate(
        [
            ("buy", "0.5", "101", {}),
            ("buy", "0.7", "101", {"time_in_force": "ioc"}),
            ("buy", "9", "104", {"time_in_force": "fok"}),
            ("buy", "1", "102", {"time_in_force": "fok"}),
            ("sell", "0.25", None, {}),
            ("buy", "99", None, {"time_in_force": "fok"}),
            ("buy", "1", "99", {"post_only": True}),
            ("buy", "1", "105", {"post_only": True}),
            ("sell", "0.3", "99", {"self_trade": "cancel_maker"}),
            ("sell", "0.3", "94", {"self_trade": "cancel_maker"}),
            ("buy", "3", "98", {}),
            ("sell", "1", "98", {"self_trade": "cancel_taker"}),
            ("sell", "1", "98", {"self_trade": "cancel_both"}),
            ("buy", "3", "98", {}),
            ("sell", "1", "98", {"self_trade": "decrement"}),
            ("sell", "1", "98", {"self_trade": "allow"}),
            ("buy", "1", "50", {"time_in_force": "gtd", "expires_at": 10**18}),
        ],
        start=1,
    ):
        await peer.send(submit(side, quantity, price, number, "bob", **more), peer="bob")
    amends = [
        {"op": "amend", "order_id": order_id(14), "quantity": "1.5"},
        {"op": "amend", "order_id": order_id(14), "quantity": "1.5"},
        {"op": "amend", "order_id": order_id(14), "quantity": "3"},
        {"op": "amend", "order_id": order_id(13), "price": "104", "quantity": "4"},
    ]
    await peer.send(*amends)
    last = await peer.send({"op": "cancel_all", "command_id": command_id(99), "side": "sell"})

    assert last["status"] == "canceled"
    commits = await peer.follow(last["sequence"])
    seen = {event["event"] for commit in commits for event in commit["events"]}
    assert seen >= {"accepted", "trade", "amended", "reduced", "canceled", "canceled_all"}
    assert await peer.log() == peer.payloads


async def test_batch_is_answered_element_by_element(peer: Peer) -> None:
    receipts = await peer.send(
        submit("buy", "1", "100", 1),
        submit("buy", "1", "100.001", 2),
        {"op": "burn", "order_id": order_id(3)},
        submit("buy", "1", "100", 3, "bob"),
        submit("sell", "1", "100", 4, self_trade="allow"),
        submit("buy", "1", "99", None),
    )

    assert [(r["status"], r.get("reason")) for r in receipts] == [
        ("new", None),
        ("rejected", "price_off_tick"),
        ("rejected", "unknown_value"),
        ("rejected", "wrong_peer"),
        ("filled", None),
        ("new", None),
    ]
    assert receipts[5]["order_id"] == "order_alice_0_1"
    await peer.follow(receipts[5]["sequence"])


async def test_resent_command_is_answered_again_and_not_executed_again(peer: Peer) -> None:
    """By hand, with nothing but the protocol (G3, G5)."""
    await peer.send(submit("sell", "1", "100", 1, "bob"), peer="bob")
    first = await peer.send(submit("buy", "3", "100", 1))
    again = await peer.send(submit("buy", "3.000", "100.00", 1))
    other = await peer.send(submit("buy", "4", "100", 1))

    assert (first["filled_quantity"], len(first["trades"])) == ("1", 1)
    assert again["duplicate"] is True
    assert "trades" not in again
    assert again["filled_quantity"] == "1"
    assert again["sequence"] == first["sequence"] + 1
    assert (other["status"], other["reason"]) == ("rejected", "id_reused")

    cancel = {"op": "cancel_all", "command_id": command_id(2)}
    assert (await peer.send(cancel))["canceled"] == [order_id(1)]
    repeated = await peer.send(cancel)
    assert (repeated["duplicate"], repeated["count"]) == (True, 1)
    assert not {"canceled", "more"} & set(repeated)
    refused = [await peer.send(submit("buy", "1", "0", 3)) for _ in range(2)]
    assert [receipt["reason"] for receipt in refused] == ["price_out_of_range"] * 2
    assert refused[1]["duplicate"] is True

    commits = await peer.follow(refused[1]["sequence"])
    named = [event for commit in commits for event in commit["events"] if "order_id" in event]
    assert sum(event["event"] == "accepted" for event in named) == 2
    assert sum(event["event"] == "rejected" for event in named) == 1


async def test_rejected_command_is_in_the_log_with_the_hash_of_its_content(peer: Peer) -> None:
    """`content` says what was asked, so that a repetition is told from another command."""
    receipt = await peer.send(submit("buy", "1.50", "100.001", 1))
    content = {
        "op": "submit",
        "side": "buy",
        "type": "limit",
        "price": "100.001",
        "quantity": "1.5",
        "time_in_force": "gtc",
        "post_only": False,
        "self_trade": "cancel_taker",
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    commits = await peer.follow(receipt["sequence"])
    assert commits[-1]["events"] == [
        {
            "event": "rejected",
            "order_id": order_id(1),
            "peer": "alice",
            "reason": "price_off_tick",
            "content": blake2b(canonical, digest_size=8).hexdigest(),
        }
    ]


async def test_events_are_the_stored_bytes_with_their_sequence(peer: Peer) -> None:
    """The broadcast and the query `log` give the same bytes (G11)."""
    for number in (1, 2, 3):
        receipt = await peer.send(submit("buy", "1", "100", number))
    await peer.follow(receipt["sequence"])

    assert await peer.log() == peer.payloads
    assert [headers["Nats-Sequence"] for headers in peer.headers] == ["1", "2", "3", "4"]
    page = await peer.ask("log", from_sequence=2, limit=2)
    assert (page["first_sequence"], page["sequence"]) == (1, 4)
    assert [text.encode() for text in page["commits"]] == peer.payloads[1:3]
    beyond = await peer.ask("log", from_sequence=5)
    assert beyond["commits"] == []


# --- Queries ------------------------------------------------------------------------------------


async def test_queries_about_the_state_tell_what_the_receipts_told(peer: Peer) -> None:
    """Book, orders and trades, asked as of the last receipt (G14)."""
    await peer.send(submit("sell", "1", "100", 1, "bob"), peer="bob")
    await peer.send(submit("buy", "0.4", "100", 1))
    await peer.send(submit("buy", "1", "99.5", 2), submit("buy", "2", "99.5", 3))
    last = await peer.send(submit("buy", "4", "98", 4))
    as_of = {"min_sequence": last["sequence"]}

    book = await peer.ask("book", **as_of)
    assert book == {
        "sequence": last["sequence"],
        "bids": [
            {"price": "99.5", "quantity": "3", "count": 2},
            {"price": "98", "quantity": "4", "count": 1},
        ],
        "asks": [{"price": "100", "quantity": "0.6", "count": 1}],
    }
    top = await peer.ask("book", depth=1, orders=True)
    assert top["bids"] == [
        {"order_id": order_id(n), "price": "99.5", "remaining_quantity": str(n - 1), "version": 1}
        for n in (2, 3)
    ]
    assert top["more"] is False

    one = await peer.ask("order", order_id=order_id(1))
    assert one["order"]["status"] == "filled"
    assert one["order"] | {"side": "buy", "price": "100", "quantity": "0.4"} == one["order"]
    foreign = await peer.ask("order", order_id=order_id(1, "bob"))
    assert foreign["reason"] == "wrong_peer"

    mine = await peer.ask("orders", limit=2)
    assert [order["order_id"] for order in mine["orders"]] == [order_id(2), order_id(3)]
    assert mine["more"] is True
    rest = await peer.ask("orders", after=order_id(3))
    assert [order["order_id"] for order in rest["orders"]] == [order_id(4)]
    assert rest["more"] is False

    trades = await peer.ask("trades")
    (trade,) = trades["trades"]
    assert (trade["trade_id"], trade["price"], trade["quantity"]) == (1, "100", "0.4")
    assert (trade["taker_order_id"], trade["taker_side"]) == (order_id(1), "buy")
    assert trade["sequence"] == 3

    status = await peer.ask("status")
    assert (status["leader"], status["server"], status["term"]) == ("server-1", "server-1", 1)
    assert (status["state"], status["last_price"]) == ("trading", "100")
    assert (status["highest"], status["forgotten"]) == ([TIMESTAMP, 4], [0, 0])
    assert status["specification"]["lot_size"] == "0.001"
    nobody = await peer.ask("status", peer="nobody")
    assert nobody["highest"] == [0, 0]

    commits = await peer.follow(last["sequence"])
    assert commits[-1]["digest"] == status["digest"]


async def test_min_sequence_that_never_comes_is_to_be_asked_again(peer: Peer) -> None:
    for what, fields in (("status", {}), ("log", {"from_sequence": 1}), ("snapshot", {})):
        answer = await peer.ask(what, min_sequence=1_000, **fields)
        assert (answer["status"], answer["reason"]) == ("retry", "unavailable")


async def test_snapshot_and_the_log_behind_it_are_the_market(peer: Peer) -> None:
    nothing = await peer.ask("snapshot")
    assert (nothing["parts"], nothing["data"]) == (0, "")
    for number in range(1, 26):
        last = await peer.send(submit("buy", "1", f"{100 + number % 7}", number))
    commits = await peer.follow(last["sequence"])

    async def look() -> dict[str, Any] | None:
        answer = await peer.ask("snapshot")
        return answer if answer["parts"] else None

    first = await eventually(look, what="a snapshot")
    sequence = first["snapshot_sequence"]
    parts = [
        (await peer.ask("snapshot", snapshot_sequence=sequence, part=part))["data"]
        for part in range(first["parts"])
    ]
    packed = b"".join(base64.b64decode(part) for part in parts)
    assert hash_of(packed) == first["hash"]
    text = gzip.decompress(packed)
    state = json.loads(text)
    assert text == json.dumps(state, sort_keys=True, separators=(",", ":")).encode()
    assert (state["market"], state["sequence"]) == (peer.market, sequence)
    assert state["previous"] == hash_of(peer.payloads[sequence - 1])
    assert (state["term"], state["time"]) == (1, commits[sequence - 1]["time"])
    book = Book()
    for order in state["orders"]:
        ticks = int(Decimal(order["price"]) / TICK)
        book.orders[order["order_id"]] = [
            order["side"],
            ticks,
            order["priority"],
            lots(order["remaining_quantity"]),
        ]
    assert book.digest == commits[sequence - 1]["digest"] == first["digest"]
    prices = [Decimal(order["price"]) for order in state["orders"]]
    assert prices == sorted(prices, reverse=True)

    book.priority = state["next_priority"] - 1
    for commit in commits[sequence:]:
        for event in commit["events"]:
            book.apply(event)
    assert book.digest == commits[-1]["digest"]
    gone = await peer.ask("snapshot", snapshot_sequence=7)
    assert (gone["status"], gone["reason"]) == ("retry", "snapshot_gone")
    beyond = await peer.ask("snapshot", part=first["parts"])
    assert beyond["reason"] == "malformed"


async def test_peer_that_comes_late_reads_the_log_and_then_follows(
    venue: Exchange, peer: Peer
) -> None:
    for number in (1, 2, 3):
        await peer.send(submit("buy", "1", "100", number))
    async with trading(venue, peer.market) as late:
        late.payloads = await late.log()
        last = await peer.send(submit("buy", "1", "100", 4))

        assert len(await late.follow(last["sequence"])) == last["sequence"]
