"""Whatever is sent, it is answered with its reason, and what is refused leaves no trace (G6).

The reasons, and the order in which they are asked, are those of docs/PROTOCOL.md (*Refusals*).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import combinations
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio

from dex_runtime.messaging import NoResponder
from tests.integration.programs import eventually
from tests.integration.wire import (
    Target,
    Wire,
    attacked,
    command_id,
    encoded,
    order_id,
    raw,
    wired,
)
from tests.nats_nodes import connected

HUGE_TEXT: Final = "x" * 100_000
HUGE_NUMBER: Final = 10**30
DEEP: Final = 100_000
MISSING: Final = object()
"""Stands for a field that is left out."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """Run an exchange of this module's own."""
    async with attacked(tmp_path_factory.mktemp("target")) as target:
        yield target


@pytest.fixture
async def wire(target: Target, market: str) -> AsyncIterator[Wire]:
    """Connect to a market that is not open yet."""
    async with wired(target, market) as wire:
        yield wire


@pytest.fixture
async def opened(wire: Wire) -> Wire:
    """Open the market, and let an order rest in it."""
    await wire.open()
    receipt = await wire.send(LIMIT | {"order_id": order_id(1)})
    assert receipt["status"] == "new"
    return wire


def changed(body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Change fields; those that are MISSING are left out."""
    return {name: value for name, value in (body | fields).items() if value is not MISSING}


# --- What needs no state ------------------------------------------------------------------------

LIMIT = {"op": "submit", "side": "buy", "quantity": "1", "price": "100"}
GTD = LIMIT | {"time_in_force": "gtd", "expires_at": 2**62}
MARKET = {"op": "submit", "side": "buy", "quantity": "1", "type": "market"}
CANCEL = {"op": "cancel", "order_id": order_id(1)}
AMEND = {"op": "amend", "order_id": order_id(1), "price": "99"}
CANCEL_ALL = {"op": "cancel_all"}

NO_TEXTS = (None, 0, 1, -1, 1.5, HUGE_NUMBER, True, [], ["buy"], {}, {"a": 1})
NO_INTEGERS = (None, "", "1", 1.0, 1.5, True, [], {}, HUGE_TEXT)
TOO_LARGE_INTEGERS = (HUGE_NUMBER, -HUGE_NUMBER, 2**63, -(2**63))
NO_BOOLEANS = (None, 0, 1, -1, "", "true", 1.5, HUGE_NUMBER, HUGE_TEXT, [], {})
NO_DECIMALS = ("", "-1", "-0", "+1", "1e3", "0x1", " 1", "1 ", "1.", ".5", "01", "1,5", "1_0")
NO_DECIMALS += ("NaN", "Infinity", "1" * 19, "0." + "1" * 19, "\u0661", HUGE_TEXT, "1\x00")
NO_NAMES = ("", "nobody", "BUY", "Submit", HUGE_TEXT, "\x00", "\U0001f600")
NO_ORDER_IDS = ("", "7", HUGE_TEXT, command_id(7), "order_alice_1", "order_alice_01_1")
NO_ORDER_IDS += ("order_alice_1_0", "order_alice_-1_1", f"order_alice_{10**14}_1")
NO_ORDER_IDS += (f"order_alice_1_{10**12}", f"order_{'p' * 33}_1_1", "order__1_1", "order_a.b_1_1")
NO_COMMAND_IDS = ("", "7", HUGE_TEXT, order_id(7), "command_alice_0_1", "command_alice_1")
NO_COMMAND_IDS += ("command_alice_1_0", f"command_alice_{10**14}_1", "command__1_1")

WRONG_VALUES: Final[list[tuple[dict[str, Any], str, tuple[Any, ...], str]]] = [
    # A command, its field, values of it, and why they are refused.
    *(
        (body, field, (*NO_TEXTS, *((MISSING,) if is_required else ())), "malformed")
        for body, field, is_required in (
            *((body, "op", True) for body in (LIMIT, CANCEL, AMEND, CANCEL_ALL)),
            (LIMIT, "side", True),
            (LIMIT, "quantity", True),
            (LIMIT, "price", True),
            (LIMIT, "type", False),
            (LIMIT, "time_in_force", False),
            (LIMIT, "self_trade", False),
            (LIMIT, "order_id", False),
            (CANCEL, "order_id", True),
            (CANCEL, "command_id", False),
            (AMEND, "order_id", True),
            (AMEND, "command_id", False),
            (AMEND, "price", True),
            (AMEND, "quantity", False),
            (CANCEL_ALL, "command_id", False),
            (CANCEL_ALL, "side", False),
        )
    ),
    *(
        (body, field, NO_DECIMALS, "malformed")
        for body in (LIMIT, AMEND, MARKET)
        for field in ("price", "quantity")
    ),
    *(
        (body, field, (*NO_INTEGERS, *TOO_LARGE_INTEGERS), "malformed")
        for body, field in ((GTD, "expires_at"), (CANCEL, "if_version"), (AMEND, "if_version"))
    ),
    (GTD, "expires_at", (MISSING,), "malformed"),
    (LIMIT, "post_only", NO_BOOLEANS, "malformed"),
    (LIMIT, "order_id", (*NO_ORDER_IDS, "order_alice_0_1"), "malformed"),
    (CANCEL, "order_id", NO_ORDER_IDS, "malformed"),
    (AMEND, "order_id", NO_ORDER_IDS, "malformed"),
    *((body, "command_id", NO_COMMAND_IDS, "malformed") for body in (CANCEL, AMEND, CANCEL_ALL)),
    *(
        (body, "colour", (None, "", 0, [], {}, HUGE_TEXT, HUGE_NUMBER), "malformed")
        for body in (LIMIT, CANCEL, AMEND, CANCEL_ALL)
    ),
    *(
        (body, field, NO_NAMES, "unknown_value")
        for body, field in (
            *((body, "op") for body in (LIMIT, CANCEL, AMEND, CANCEL_ALL)),
            *((LIMIT, field) for field in ("side", "type", "time_in_force", "self_trade")),
            (CANCEL_ALL, "side"),
        )
    ),
    (LIMIT, "order_id", (order_id(7, "bob"), order_id(7, "alice_1")), "wrong_peer"),
    (CANCEL, "order_id", (order_id(7, "bob"), "order_bob_0_1"), "wrong_peer"),
    (AMEND, "order_id", (order_id(7, "bob"), "order_bob_0_1"), "wrong_peer"),
    *(
        (body, "command_id", (command_id(7, "bob"),), "wrong_peer")
        for body in (CANCEL, AMEND, CANCEL_ALL)
    ),
]

NO_COMMANDS: Final = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "null": b"null",
    "a number": b"1",
    "a number of 100,000 digits": b"1" * 100_000,
    "a text": b'"submit"',
    "an empty object": b"{}",
    "an empty array": b"[]",
    "an open array": b"[",
    "an open object": b'{"op":"submit"',
    "two objects": b"{}{}",
    "a command and more": encoded(LIMIT) + b"x",
    "a byte order mark": b"\xef\xbb\xbf" + encoded(LIMIT),
    "UTF-16": encoded(LIMIT).decode().encode("utf-16"),
    "no UTF-8": b"\xff\xfe\xfd",
    "no UTF-8 in a value": encoded(LIMIT).replace(b"buy", b"b\xffy"),
    "no UTF-8 in a name": encoded(LIMIT).replace(b"side", b"s\xffde"),
    "a lone surrogate": encoded(LIMIT).replace(b"buy", b"\\ud800"),
    "no UTF-8 behind a command": encoded(LIMIT) + b"\xff",
    "zeros": bytes(1_000),
    "comments": b"/* buy */" + encoded(LIMIT),
    "single quotes": b"{'op':'cancel_all'}",
    "NaN": b'{"op":"cancel","if_version":NaN}',
    "deep arrays": b"[" * DEEP,
    "deep closed arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"op":' * DEEP,
    "a deep field": encoded(LIMIT)[:-1] + b',"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a deep element": b"[" + encoded(LIMIT)[:-1] + b',"x":' + b"[" * DEEP + b"]" * DEEP + b"}]",
    "a mebibyte of noise": bytes((i * i * 7 + i // 3) % 256 for i in range(1024 * 1024)),
    "a mebibyte of quotes": b'"' * (1024 * 1024),
    "a mebibyte of blanks": b" " * (1024 * 1024),
    "a mebibyte of brackets": b"[" * (1024 * 1024),
    "a mebibyte of a name": b'{"' + b"x" * (1024 * 1024 - 7) + b'":1}',
}


async def test_command_with_a_wrong_value_is_refused_and_leaves_no_trace(opened: Wire) -> None:
    """Every field of every command, by its type, its absence, its form and its list."""
    before = await opened.state()
    wrong: list[str] = []
    for body, field, values, reason in WRONG_VALUES:
        bodies = [changed(body, **{field: value}) for value in values]
        answers = await asyncio.gather(*(opened.send(each) for each in bodies))
        batches = await asyncio.gather(*(opened.send([each]) for each in bodies))
        wrong += [
            f"expected {reason} of {encoded(each)[:200]!r}, found {answer} and {batch}"
            for each, answer, batch in zip(bodies, answers, batches, strict=True)
            if answer.get("reason") != reason
            or answer["status"] != "rejected"
            or batch != [answer]
            or "sequence" in answer
        ]

    assert wrong == []
    assert await opened.state() == before


async def test_bytes_that_are_no_command_are_refused_and_leave_no_trace(opened: Wire) -> None:
    before = await opened.state()
    wrong = []
    for name, payload in NO_COMMANDS.items():
        answer = await opened.send(payload)
        receipt = answer[0] if isinstance(answer, list) else answer
        if (receipt["status"], receipt["reason"]) != ("rejected", "malformed"):
            wrong.append(f"{name}: {answer}")
        assert len(encoded(answer)) < 1_000, name

    assert wrong == []
    assert await opened.state() == before


async def test_batch_of_a_wrong_size_is_refused_as_one(opened: Wire) -> None:
    before = await opened.state()
    too_large = [
        await opened.send([LIMIT] * 1_001),
        await opened.send([LIMIT] * 1_000 + [None]),
        await opened.send([0] * 500_000),
    ]
    empty = [await opened.send(payload) for payload in (b"[]", b" [ ] ")]

    assert [answer["reason"] for answer in too_large] == ["batch_too_large"] * 3
    assert [answer["reason"] for answer in empty] == ["malformed"] * 2
    assert await opened.state() == before


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_bad_element_is_refused_alone(opened: Wire, place: int) -> None:
    """All others are executed, in their order, and the answers are in that order too."""
    for number, (bad, reason) in enumerate(
        [
            (b"null", "malformed"),
            (b"7", "malformed"),
            (b"[[]]", "malformed"),
            (b'{"op":"\xff"}', "malformed"),
            (b'{"op":"submit","side":"\\ud800"}', "malformed"),
            (encoded(LIMIT | {"op": "burn"}), "unknown_value"),
            (encoded(LIMIT | {"order_id": order_id(9, "bob")}), "wrong_peer"),
            (encoded(LIMIT | {"quantity": HUGE_TEXT}), "malformed"),
        ]
    ):
        good = [LIMIT | {"order_id": order_id(10 + 2 * number + n)} for n in (0, 1)]
        elements = [encoded(each) for each in good]
        elements.insert(place, bad)
        answers = await opened.send(b"[" + b",".join(elements) + b"]")

        if b"\xff" in bad or b"\\ud8" in bad:
            # What is no JSON in UTF-8 cannot be taken apart into elements.
            assert isinstance(answers, dict) or answers[place]["reason"] == reason
            continue
        assert [answer.get("reason") for answer in answers] == [
            reason if index == place else None for index in range(3)
        ], bad
        accepted = [answer["order_id"] for index, answer in enumerate(answers) if index != place]
        assert accepted == [each["order_id"] for each in good]
    await opened.followed()


async def test_thousand_unreadable_elements_get_a_receipt_each(opened: Wire) -> None:
    before = await opened.state()
    names = '\\"' * 160
    answers = await opened.send([{"op": names, "order_id": "x" * 80}] * 1_000)

    assert {answer["reason"] for answer in answers} == {"unknown_value"}
    assert len(answers) == 1_000
    assert await opened.state() == before


async def test_request_of_no_peer_is_refused_and_of_no_market_reaches_nobody(
    opened: Wire,
) -> None:
    before = await opened.state()
    for peer in ("a:b", "\u00e9", "p" * 33, "a@b", "\U0001f600", "p" * 2_000, "a\x01b"):
        order = await opened.send(LIMIT, peer=peer)
        query = await opened.ask("status", peer=peer)
        assert (order["reason"], query["reason"]) == ("malformed", "malformed"), peer
    for market in ("NO-SUCH", "a_b", "m" * 25, "\u00e9", "m" * 2_000):
        query = await opened.request(f"dex.query.{market}.status.alice", b"")
        assert query["reason"] == "unknown_market", market
        for what in ("change", "halt", "resume", "close"):
            wish = await opened.administer(what, market=market)
            assert wish["reason"] == "unknown_market", market
        with pytest.raises(NoResponder):
            await opened.request(f"dex.orders.{market}.alice", LIMIT)

    assert await opened.state() == before


# --- What the state says ------------------------------------------------------------------------


async def test_value_that_the_market_does_not_take_is_refused_with_its_reason(wire: Wire) -> None:
    """Zero, off tick, off lot, beyond every bound, too late, of the wrong version."""
    await wire.open()
    await wire.send(LIMIT | {"order_id": order_id(1)})
    greatest = "9" * 18
    for body, field, values, reason in [
        (LIMIT, "price", ("0", "0.00", greatest, "92233720368547758.08"), "price_out_of_range"),
        (LIMIT, "price", ("0.001", "100.001", "0.000000000000000001"), "price_off_tick"),
        (LIMIT, "quantity", ("0", "0.000", greatest), "quantity_out_of_range"),
        (LIMIT, "quantity", ("0.0001", "1.0001", "0.000000000000000001"), "quantity_off_lot"),
        (AMEND, "price", ("0", greatest), "price_out_of_range"),
        (AMEND, "price", ("100.001",), "price_off_tick"),
        (AMEND, "quantity", ("0", greatest), "quantity_out_of_range"),
        (AMEND, "quantity", ("0.0001",), "quantity_off_lot"),
        (GTD, "expires_at", (0, 1, -1, -(2**63 - 1)), "already_expired"),
        (CANCEL, "if_version", (0, -1, 2, 2**63 - 1, -(2**63 - 1)), "version_conflict"),
        (AMEND, "if_version", (0, -1, 2, 2**63 - 1), "version_conflict"),
        (CANCEL, "order_id", (order_id(2), "order_alice_0_1"), "unknown_order"),
        (AMEND, "order_id", (order_id(2), "order_alice_0_9"), "unknown_order"),
        (MARKET, "quantity", ("1",), "no_liquidity"),
        (LIMIT, "time_in_force", ("fok",), "fok_not_fillable"),
    ]:
        for value in values:
            receipt = await wire.send(changed(body, **{field: value}))
            assert (receipt["status"], receipt["reason"]) == ("rejected", reason), (field, value)
            assert receipt["sequence"] > 0

    for body in (
        GTD | {"expires_at": 2**63 - 1},
        LIMIT | {"price": "92233720368547758.07"},
        LIMIT | {"quantity": "9223372036854775.807"},
        LIMIT | {"price": "92233720368547758.07", "quantity": "9223372036854775.807"},
    ):
        receipt = await wire.send(body)
        assert receipt["status"] == "new", body
    await wire.followed()


SUBMIT_FAULTS: Final[list[tuple[str, dict[str, Any]]]] = [
    # In the table's order; "peer" is who sends it.
    ("malformed", {"colour": 1}),
    ("malformed", {"expires_at": 2**63, "time_in_force": "gtd"}),
    ("unknown_value", {"self_trade": "never"}),
    ("unknown_value", {"side": "left"}),
    ("wrong_peer", {"order_id": order_id(1, "nobody")}),
    ("id_reused", {"order_id": order_id(1), "peer": "alice"}),
    ("price_off_tick", {"price": "2000.001"}),
    ("quantity_off_lot", {"quantity": "2000.0001"}),
    ("price_out_of_range", {"price": "2000"}),
    ("price_out_of_range", {"price": "0"}),
    ("quantity_out_of_range", {"quantity": "2000"}),
    ("notional_out_of_range", {"price": "0.01"}),
    ("notional_out_of_range", {"quantity": "0.01"}),
    ("already_expired", {"expires_at": 1, "time_in_force": "gtd"}),
    ("too_many_peers", {"peer": "stranger"}),
    ("too_many_open_orders", {"peer": "full"}),
    ("post_only_would_trade", {"price": "300", "post_only": True, "side": "buy"}),
]
AMEND_FAULTS: Final[list[tuple[str, dict[str, Any]]]] = [
    ("malformed", {"colour": 1}),
    ("malformed", {"if_version": 2**63}),
    ("wrong_peer", {"order_id": order_id(1, "nobody")}),
    ("wrong_peer", {"command_id": command_id(1, "nobody")}),
    ("id_reused", {"command_id": command_id(9)}),
    ("price_off_tick", {"price": "2000.001"}),
    ("quantity_off_lot", {"quantity": "2000.0001"}),
    ("price_out_of_range", {"price": "2000"}),
    ("quantity_out_of_range", {"quantity": "2000"}),
    ("notional_out_of_range", {"price": "0.01", "order_id": order_id(2)}),
    ("unknown_order", {"order_id": order_id(7)}),
    ("order_done", {"order_id": order_id(3)}),
    ("version_conflict", {"if_version": 7}),
    ("amend_below_filled", {"quantity": "0.5", "order_id": order_id(2)}),
]


def combined(
    faults: list[tuple[str, dict[str, Any]]], *, state: str = "trading"
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Combine one, two and three faults that can stand together; the first one's reason counts."""
    early = ("malformed", "unknown_value", "wrong_peer", "id_reused")
    for count in (1, 2, 3):
        for chosen in combinations(faults, count):
            fields = [name for _, each in chosen for name in each]
            if len(fields) > len(set(fields)):
                continue
            reason = chosen[0][0]
            if state != "trading" and reason not in early:
                reason = "market_halted"
            yield reason, {name: value for _, each in chosen for name, value in each.items()}


async def test_of_several_faults_the_first_of_the_table_is_told(wire: Wire) -> None:
    await wire.open(
        max_price="1000", max_quantity="1000", min_notional="10", max_open_orders=2, max_peers=3
    )
    base = LIMIT | {"price": "100", "quantity": "5"}
    for peer, body in [
        ("alice", base | {"order_id": order_id(1), "price": "20"}),
        ("bob", base | {"side": "sell", "price": "200", "quantity": "900"}),
        ("alice", base | {"order_id": order_id(2)}),
        ("full", base),
        ("full", base),
        ("bob", base | {"side": "sell", "quantity": "1"}),
        ("alice", {"op": "cancel", "order_id": order_id(1), "command_id": command_id(9)}),
        ("alice", base | {"order_id": order_id(3), "time_in_force": "ioc"}),
    ]:
        receipt = await wire.send(body, peer=peer)
        assert "reason" not in receipt, receipt
    await wire.send({"op": "cancel_all", "side": "buy"}, peer="bob")

    cases = [
        ("alice", base, SUBMIT_FAULTS),
        ("alice", AMEND | {"order_id": order_id(2), "price": "101"}, AMEND_FAULTS),
    ]
    wrong = []
    for state in ("trading", "halted"):
        if state == "halted":
            await wire.administer("halt")
        for peer, body, faults in cases:
            for reason, fields in combined(faults, state=state):
                sent = body | {name: value for name, value in fields.items() if name != "peer"}
                receipt = await wire.send(sent, peer=fields.get("peer", peer))
                if receipt.get("reason") != reason:
                    wrong.append(f"{state}: expected {reason} of {sent}, found {receipt}")

    assert wrong == []
    await wire.followed()


# --- Queries ------------------------------------------------------------------------------------

PAGES = (*NO_INTEGERS, *TOO_LARGE_INTEGERS, 0, -1, 1_001)
WRONG_QUERIES: Final[list[tuple[str, dict[str, Any], str, tuple[Any, ...], str]]] = [
    *(
        (what, body, "min_sequence", (*NO_INTEGERS, *TOO_LARGE_INTEGERS, -1), "malformed")
        for what, body in (
            ("book", {}),
            ("order", {"order_id": order_id(1)}),
            ("orders", {}),
            ("trades", {}),
            ("status", {}),
            ("snapshot", {}),
            ("log", {"from_sequence": 1}),
        )
    ),
    ("book", {}, "depth", PAGES, "malformed"),
    ("book", {}, "orders", NO_BOOLEANS, "malformed"),
    ("order", {}, "order_id", (*NO_TEXTS, *NO_ORDER_IDS, MISSING), "malformed"),
    ("order", {}, "order_id", (order_id(1, "bob"),), "wrong_peer"),
    ("order", {}, "order_id", (order_id(2), "order_alice_0_1"), "unknown_order"),
    ("orders", {}, "limit", PAGES, "malformed"),
    ("orders", {}, "after", (*NO_TEXTS, *NO_ORDER_IDS), "malformed"),
    ("orders", {}, "after", (order_id(1, "bob"),), "wrong_peer"),
    ("orders", {}, "after", (order_id(2),), "unknown_order"),
    ("trades", {}, "limit", PAGES, "malformed"),
    ("snapshot", {}, "snapshot_sequence", (*NO_INTEGERS, HUGE_NUMBER, 2**63, -1), "malformed"),
    ("snapshot", {}, "part", (*NO_INTEGERS, HUGE_NUMBER, 2**63, -1), "malformed"),
    ("snapshot", {}, "snapshot_sequence", (0, 7, 2**63 - 1), "snapshot_gone"),
    ("log", {}, "from_sequence", (*NO_INTEGERS, *TOO_LARGE_INTEGERS, 0, -1, MISSING), "malformed"),
    ("log", {"from_sequence": 1}, "limit", PAGES, "malformed"),
    *(
        (what, {}, "colour", (None, 1, HUGE_TEXT), "malformed")
        for what in ("book", "order", "orders", "trades", "status", "snapshot", "log")
    ),
]


async def test_query_with_a_wrong_value_is_refused(opened: Wire) -> None:
    before = await opened.state()
    wrong = []
    for what, body, field, values, reason in WRONG_QUERIES:
        bodies = [changed(body, **{field: value}) for value in values]
        answers = await asyncio.gather(*(opened.ask(what, each) for each in bodies))
        wrong += [
            f"expected {reason} of {what} {encoded(each)[:200]!r}, found {answer}"
            for each, answer in zip(bodies, answers, strict=True)
            if answer.get("reason") != reason or len(encoded(answer)) > 1_000
        ]

    assert wrong == []
    assert await opened.state() == before


async def test_bytes_that_are_no_query_are_refused(opened: Wire) -> None:
    for name, payload in NO_COMMANDS.items():
        for what in ("book", "order", "orders", "trades", "status", "snapshot", "log"):
            answer = await opened.ask(what, payload)
            # Nothing, and an empty object, stand for a query's defaults.
            if name in ("nothing", "an empty object") and what not in ("order", "log"):
                assert "reason" not in answer, (name, what)
            else:
                assert answer["reason"] == "malformed", (name, what)


async def test_query_for_what_nobody_knows_is_refused(opened: Wire) -> None:
    for what in ("books", "BOOK", "-", "\u00e9", "x" * 2_000):
        for payload in (b"", b"{", b"\xff"):
            answer = await opened.ask(what, payload)
            assert answer["reason"] == "unknown_value", what


async def test_query_beyond_the_log_is_answered(opened: Wire) -> None:
    for from_sequence in (3, 4, 2**63 - 1):
        answer = await opened.ask("log", {"from_sequence": from_sequence, "limit": 1_000})
        assert (answer["commits"], answer["first_sequence"]) == ([], 1)
    part = await opened.ask("snapshot", {"part": 2**63 - 1})
    assert part.get("parts") == 0 or part["reason"] == "malformed"


# --- Administration -----------------------------------------------------------------------------

NO_DECIMAL_VALUES = (None, 1, 1.5, True, [], {}, HUGE_NUMBER, *NO_DECIMALS)
WRONG_SPECIFICATIONS: Final[list[tuple[str, tuple[Any, ...]]]] = [
    ("market", (*NO_TEXTS, "", "OTHER", HUGE_TEXT, "a.b", MISSING)),
    ("tick_size", (*NO_DECIMAL_VALUES, "0", "0.0", MISSING)),
    ("lot_size", (*NO_DECIMAL_VALUES, "0", "0.0", MISSING)),
    ("min_quantity", NO_DECIMAL_VALUES),
    ("max_quantity", (*NO_DECIMAL_VALUES, "0", "0.0001")),
    ("max_price", (*NO_DECIMAL_VALUES, "0")),
    ("min_notional", NO_DECIMAL_VALUES),
    ("price_band", NO_DECIMAL_VALUES),
    ("max_open_orders", (*NO_INTEGERS, HUGE_NUMBER, 2**63, 0, -1)),
    ("max_peers", (*NO_INTEGERS, HUGE_NUMBER, 2**63, 0, -1)),
    ("colour", (None, "", 1, HUGE_TEXT)),
]


async def test_specification_with_a_wrong_value_opens_nothing(wire: Wire) -> None:
    wrong = []
    for field, values in WRONG_SPECIFICATIONS:
        for value in values:
            specification = changed(wire.specification(), **{field: value})
            answer = await wire.administer("open", {"specification": specification})
            if answer.get("reason") != "malformed" or len(encoded(answer)) > 1_000:
                wrong.append(f"{encoded(specification)[:200]!r}: {answer}")
    for body in (*NO_COMMANDS.values(), {"specification": None}, {"specification": []}):
        answer = await wire.administer("open", body)
        if answer.get("reason") != "malformed":
            wrong.append(f"{encoded(body)[:80]!r}: {answer}")
    extra = await wire.administer("open", {"specification": wire.specification(), "force": True})
    least = await wire.open(min_quantity="2", max_quantity="1")

    assert wrong == []
    assert (extra["reason"], least["reason"]) == ("malformed", "malformed")
    assert (await wire.ask("status"))["reason"] == "unknown_market"


async def test_market_with_no_name_is_not_opened(wire: Wire) -> None:
    for name in ("a_b", "m" * 25, "\u00e9", "a:b", "m" * 2_000):
        specification = wire.specification(market=name)
        answer = await wire.administer("open", {"specification": specification}, market=name)
        assert answer["reason"] == "malformed", name


async def test_change_with_a_wrong_value_changes_nothing(opened: Wire) -> None:
    before = (await opened.ask("status"))["specification"]
    wrong = []
    changes = [
        (field, tuple(value for value in values if value is not MISSING))
        for field, values in WRONG_SPECIFICATIONS
    ]
    for field, values in changes:
        for value in values:
            answer = await opened.administer("change", {field: value})
            if answer.get("reason") != "malformed":
                wrong.append(f"{field} {encoded(value)[:80]!r}: {answer}")
    for field in ("tick_size", "lot_size", "market"):
        answer = await opened.administer("change", {field: opened.specification()[field]})
        if answer.get("reason") != "malformed":
            wrong.append(f"{field} as it is: {answer}")
    for what in ("halt", "resume", "close"):
        for body in (b"{", b"null", b"[]", {"why": 1}, b"[" * DEEP, b"\xff"):
            answer = await opened.administer(what, body)
            if answer.get("reason") != "malformed":
                wrong.append(f"{what} {encoded(body)[:80]!r}: {answer}")
    for what in ("burn", "OPEN", "\u00e9", "x" * 2_000):
        answer = await opened.administer(what, b"{")
        if answer.get("reason") != "unknown_value":
            wrong.append(f"{what}: {answer}")

    assert wrong == []
    _, commits = await opened.followed()
    events = [type(event).__name__ for commit in commits for event in commit.events]
    assert events == ["MarketOpened", "LeaderChanged", "Accepted"]
    assert (await opened.ask("status"))["specification"] == before


async def test_market_is_opened_with_its_first_specification_for_good(
    target: Target, wire: Wire
) -> None:
    """The same one, written otherwise, is the same; another is refused; the bucket has the first,
    whatever became of it."""
    await wire.open(max_price="1000.50", max_peers=1_000)
    for fields in (
        {"max_price": "1000.50", "max_peers": 1_000},
        {"max_price": "1000.5"},
        {"max_price": "1000.500", "tick_size": "0.010", "lot_size": "0.0010"},
    ):
        assert (await wire.open(**fields))["sequence"] == 1
    for other in ({}, {"max_price": "1000"}, {"max_price": "1000.5", "max_peers": 7}):
        assert (await wire.open(**other))["reason"] == "malformed"
    await wire.administer("change", {"max_price": "7", "max_open_orders": 3})
    assert (await wire.open(max_price="1000.5"))["sequence"] == 2
    assert (await wire.open(max_price="7", max_open_orders=3))["reason"] == "malformed"

    async with connected(target.exchange.nodes) as client:
        bucket = await client.jetstream().key_value("DEX-MARKETS")
        written = (await bucket.get(wire.market)).value
    assert msgspec.json.decode(written or b"") == wire.specification(max_price="1000.5")
    status = await wire.ask("status")
    assert status["specification"] == wire.specification(max_price="7", max_open_orders=3)
    await wire.followed()


async def test_every_wish_in_every_state_is_answered_and_stands_in_the_log(wire: Wire) -> None:
    await wire.open()
    for number in (1, 2, 3):
        await wire.send(LIMIT | {"order_id": order_id(number)})

    assert "sequence" in await wire.administer("resume")
    assert "sequence" in await wire.administer("change", {"max_price": "500"})
    assert "sequence" in await wire.administer("change", {"max_price": "500.00"})
    assert "sequence" in await wire.administer("change", {})
    assert "sequence" in await wire.administer("halt")
    assert "sequence" in await wire.administer("halt")
    assert (await wire.ask("status"))["state"] == "halted"
    assert (await wire.send(LIMIT))["reason"] == "market_halted"
    assert (await wire.send(AMEND))["reason"] == "market_halted"
    assert (await wire.send(CANCEL))["status"] == "canceled"
    assert "sequence" in await wire.administer("change", {"min_notional": "1"})
    assert "sequence" in await wire.administer("resume")
    assert (await wire.send(LIMIT | {"price": "500.01"}))["reason"] == "price_out_of_range"
    assert (await wire.send(LIMIT | {"price": "0.01"}))["reason"] == "notional_out_of_range"

    closed = await wire.administer("close")
    assert "sequence" in await wire.administer("close")
    for what in ("halt", "resume", "change"):
        refused = await wire.administer(what)
        assert (refused["status"], refused["reason"]) == ("rejected", "market_halted")
    assert (await wire.administer("change", {"tick_size": "1"}))["reason"] == "malformed"
    assert (await wire.open())["sequence"] >= closed["sequence"]
    assert (await wire.send(LIMIT))["reason"] == "market_halted"
    done = await wire.send(CANCEL | {"order_id": order_id(2)})
    assert (done["reason"], done["order_status"]) == ("order_done", "canceled")
    assert (await wire.send(CANCEL_ALL))["canceled"] == []

    market, commits = await wire.followed()
    assert (market.state, market.orders) == ("closed", {})
    told = [
        {name: value for name, value in msgspec.to_builtins(event).items() if name != "event"}
        for commit in commits
        for event in commit.events
        if type(event).__name__ == "MarketChanged"
    ]
    assert [sorted(each) for each in told] == [
        ["specification"],
        ["state"],
        ["specification"],
        ["state"],
        ["state"],
    ]
    assert [each["state"] for each in told if "state" in each] == ["halted", "trading", "closed"]
    assert told[2]["specification"] == wire.specification(max_price="500", min_notional="1")
    by_close = [
        event.order_id
        for commit in commits
        for event in commit.events
        if getattr(event, "reason", None) == "market_closed"
    ]
    assert by_close == [order_id(2), order_id(3)]


async def test_wishes_that_come_at_once_are_done_or_told_to_come_again(opened: Wire) -> None:
    """However many there are, what is done of them fits commits, and nothing else waits long."""
    answers = await asyncio.gather(
        *(opened.administer("change", {"max_price": str(1 + n)}) for n in range(3_000))
    )

    kinds = {answer.get("reason", "done") for answer in answers}
    assert kinds <= {"done", "busy"}
    done = sum("sequence" in answer for answer in answers)
    _, commits = await opened.followed()
    events = [type(event).__name__ for commit in commits for event in commit.events]
    assert events.count("MarketChanged") == done > 0


async def test_entry_of_the_directory_that_is_none_is_passed_over(
    target: Target, wire: Wire
) -> None:
    """Whoever put it there: the server lives, and holds every market but that one."""
    async with connected(target.exchange.nodes) as client:
        bucket = await client.jetstream().key_value("DEX-MARKETS")
        other = wire.specification(market="OTHER-NAME")
        for index, value in enumerate((b"", b"{", b"\xff", b"{}", encoded(other))):
            await bucket.put(f"{wire.market}-{index}", value)

    await wire.open()
    assert (await wire.send(LIMIT))["status"] == "new"
    for index in range(5):
        answer = await wire.request(f"dex.query.{wire.market}-{index}.status.alice", b"")
        assert answer["reason"] == "unknown_market"


# --- Below the protocol -------------------------------------------------------------------------


async def test_subjects_and_headers_that_cannot_be_read_keep_nobody_from_being_served(
    target: Target, opened: Wire
) -> None:
    """No message that a node takes may end or hold up the reading of a server's connection."""
    lost_before = target.server.printed.count("is lost")
    market = opened.market.encode()
    subjects = (
        *(
            b"dex.orders.%b.%b" % (market, peer)
            for peer in (b"\xff", b"a\x0bb", b"a\x0c1", b"\x00")
        ),
        *(b"dex.query.%b.status.%b" % (market, peer) for peer in (b"\xff", b"a\x0b7", b"\xc3")),
        *(b"dex.query.\xfe\x0b3.status.alice", b"dex.query.x.\xff.alice"),
        *(b"dex.admin.%b.%b" % (market, what) for what in (b"\xff", b"halt\x0b1")),
    )
    replies = (b"\xff", b"a\x0bb", b"a\x0c7", b"a\x0b7\x0b8", b".a", b"a..b", b"\xe2\x80\xa8", b">")
    headers = (
        *(b"", b"NATS/1.0", b"XX", b"NATS/1.0\r\n\r\n", b"NATS/1.0 \xff\xff\xff x\r\n\r\n"),
        *(b"NATS/1.0 100 \xff\r\n\r\n", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0\r\n\xff: \xff\r\n\r\n"),
        *(b"NATS/1.0\r\nfoo\r\n\r\n", b"NATS/1.0 \r\n\r\n", b"\xff" * 3_000),
    )
    served = [
        b"dex.orders.%b.alice" % market,
        b"dex.query.%b.status.alice" % market,
        b"dex.admin.%b.burn" % market,
    ]
    lines = [b"PUB %b 2\r\n{}\r\n" % subject for subject in subjects]
    lines += [
        b"PUB %b %b 2\r\n{}\r\n" % (subject, reply) for subject in served for reply in replies
    ]
    lines += [
        b"HPUB %b %d %d\r\n%b{}\r\n" % (subject, len(header), len(header) + 2, header)
        for subject in served
        for header in headers
    ]
    for line in lines:
        await raw(target, line)
        assert (await opened.ask("status"))["state"] == "trading", line
        assert (await opened.send(b"{"))["reason"] == "malformed", line

    assert target.server.printed.count("is lost") == lost_before


async def test_answer_goes_to_no_subject_that_servers_have_rights_on(
    target: Target, opened: Wire
) -> None:
    """Who asks chooses where the answer goes: into a log it would be a commit that nobody can
    follow, to JetStream an order to purge it, to another server a request in somebody's name."""
    before = await opened.state()
    name = opened.market
    targets = (
        *(f"dex.log.{name}", f"dex.events.{name}", f"dex.alarm.{name}"),
        *(f"dex.orders.{name}.bob", f"dex.query.{name}.book.bob", f"dex.admin.{name}.halt"),
        *(f"$JS.API.STREAM.PURGE.DEX-LOG-{name}", f"$JS.API.STREAM.DELETE.DEX-LOG-{name}"),
        *(f"$KV.DEX-MARKETS.{name}", f"$KV.DEX-MARKETS.{name}-2", f"$O.DEX-SNAPSHOTS.M.{name}"),
    )
    seen: list[str] = []
    async with connected(target.exchange.nodes) as client:

        async def note(message: Any) -> None:
            if message.subject not in asked:
                seen.append(message.subject)

        asked = {
            f"dex.orders.{name}.alice",
            f"dex.query.{name}.status.alice",
            f"dex.query.{name}.log.alice",
            f"dex.query.{name}.nothing.alice",
            f"dex.admin.{name}.change",
            f"dex.admin.{name}.burn",
        }
        await client.subscribe("dex.>", cb=note)
        await client.subscribe("$KV.>", cb=note)
        await client.subscribe("$JS.API.STREAM.PURGE.>", cb=note)
        await client.flush()
        for target in targets:
            for subject in sorted(asked):
                await client.publish(subject, b'{"from_sequence":1}', reply=target)
                await client.publish(subject, b"[{}]", reply=target)
        await client.flush()
        # On each connection, behind all of them.
        assert (await opened.send(b"{"))["reason"] == "malformed"
        await opened.administer("burn")
        await opened.ask("log", {"from_sequence": 1})
        await client.flush()

    assert [subject for subject in seen if name in subject] == []
    assert await opened.state() == before


async def test_command_without_a_reply_subject_is_executed(target: Target, opened: Wire) -> None:
    async with connected(target.exchange.nodes) as client:
        await client.publish(
            f"dex.orders.{opened.market}.alice", encoded(LIMIT | {"order_id": order_id(2)})
        )
        await client.flush()

        async def look() -> bool | None:
            answer = await opened.ask("order", {"order_id": order_id(2)})
            return True if "order" in answer else None

        await eventually(look, what="the order")
    await opened.followed()
