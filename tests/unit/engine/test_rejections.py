"""The ladder of refusals: the first reason that applies is given, in the order of docs/PROTOCOL.md
(G6).

Each table has one row per rung, in that order, and each row's command is refused by every later
rung too, as far as one command can be.
"""

import json
from typing import Any

import pytest

from dex_engine import Bounds, Market
from dex_protocol.codec import encode
from dex_protocol.commands import Command, Submit, own_id
from dex_protocol.content import content_of
from dex_protocol.numbers import COUNT_MAX
from dex_protocol.reasons import Reason
from dex_protocol.specification import PeerFields, SpecificationChange
from tests.builders import (
    NOW,
    a_market,
    amend,
    buy,
    cancel,
    cancel_all,
    command,
    execute,
    order,
    seal,
    sell,
    send,
)

# Numbers of alice's commands; of the window's two places the later two have one each.
FORGOTTEN, FILLED, OPEN, NEW = 1, 2, 3, 50
UNKNOWN = order(999)

LIMITS: dict[str, Any] = {
    "min_quantity": "0.01",
    "max_quantity": "1000",
    "max_price": "1000",
    "min_notional": "10",
    "price_band": "0.5",
    "max_open_orders": 1,
    "max_peers": 2,
}


def prepared(*, halted: bool = False, asked: bool = True, **changes: Any) -> Market:
    """Make a market with every limit, last traded at 100, with a bid at 100 and 1 asked at 101.

    The bid is alice's: 1 of 2 is filled. The ask is bob's.
    """
    market = a_market(Bounds(window_count=2), **LIMITS)
    send(market, cancel(UNKNOWN, FORGOTTEN))
    send(market, sell("1 @ 100", 1, peer="bob"), peer="bob")
    send(market, buy("1 @ 100", FILLED))
    send(market, buy("2 @ 100", OPEN))
    send(market, sell("1 @ 100", 2, peer="bob"), peer="bob")
    if asked:
        send(market, sell("1 @ 101", 3, peer="bob"), peer="bob")
    if changes:
        seal(market, market.administer("change", SpecificationChange(**changes), time=NOW)[2])
    if halted:
        seal(market, market.administer("halt", time=NOW)[2])
    return market


ALL_WRONG = "0.0005 @ 2000.005"
BAD: dict[str, Any] = {"post_only": True, "time_in_force": "gtd", "expires_at": NOW}

SUBMITS: list[tuple[str, Command, dict[str, Any]]] = [
    ("id_reused", buy(ALL_WRONG, OPEN, **BAD), {"halted": True}),
    ("stale_id", buy(ALL_WRONG, FORGOTTEN, **BAD), {"halted": True}),
    ("market_halted", buy(ALL_WRONG, NEW, **BAD), {"halted": True}),
    ("price_off_tick", buy(ALL_WRONG, NEW, **BAD), {}),
    ("quantity_off_lot", buy("0.0005 @ 2000", NEW, **BAD), {}),
    ("price_out_of_range", buy("0.001 @ 2000", NEW, **BAD), {}),
    ("quantity_out_of_range", buy("0.001 @ 150", NEW, **BAD), {}),
    ("notional_out_of_range", buy("0.05 @ 150", NEW, **BAD), {}),
    ("already_expired", buy("1 @ 150", NEW, **BAD), {}),
    ("too_many_open_orders", buy("1 @ 150", NEW, post_only=True), {}),
    ("post_only_would_trade", buy("1 @ 150", NEW, post_only=True), {"max_open_orders": 2}),
    ("fok_not_fillable", buy("5", NEW, time_in_force="fok"), {"asked": False}),
    ("no_liquidity", buy("5", NEW), {"asked": False}),
]

AMENDS: list[tuple[str, Command, dict[str, Any]]] = [
    ("id_reused", amend(UNKNOWN, OPEN, price="2000.005", quantity="0.0005"), {"halted": True}),
    ("stale_id", amend(UNKNOWN, FORGOTTEN, price="2000.005", quantity="0"), {"halted": True}),
    ("market_halted", amend(OPEN, NEW, price="2000.005", quantity="0.0005"), {"halted": True}),
    ("price_off_tick", amend(OPEN, NEW, price="2000.005", quantity="0.0005", if_version=9), {}),
    ("quantity_off_lot", amend(OPEN, NEW, price="2000", quantity="0.0005", if_version=9), {}),
    ("price_out_of_range", amend(OPEN, NEW, price="2000", quantity="0.001", if_version=9), {}),
    ("quantity_out_of_range", amend(OPEN, NEW, quantity="0.001", if_version=9), {}),
    ("notional_out_of_range", amend(OPEN, NEW, quantity="0.05", if_version=9), {}),
    ("unknown_order", amend(UNKNOWN, NEW, price="0.01", quantity="0.01", if_version=9), {}),
    ("order_done", amend(FILLED, NEW, price="0.01", quantity="0.01", if_version=9), {}),
    ("version_conflict", amend(OPEN, NEW, quantity="1", if_version=9), {}),
    ("amend_below_filled", amend(OPEN, NEW, quantity="1"), {}),
]

CANCELS: list[tuple[str, Command, dict[str, Any]]] = [
    ("id_reused", cancel(UNKNOWN, OPEN), {"halted": True}),
    ("stale_id", cancel(UNKNOWN, FORGOTTEN, if_version=9), {"halted": True}),
    ("unknown_order", cancel(UNKNOWN, NEW, if_version=9), {"halted": True}),
    ("order_done", cancel(FILLED, NEW, if_version=9), {"halted": True}),
    ("version_conflict", cancel(OPEN, NEW, if_version=9), {"halted": True}),
]

CANCEL_ALLS: list[tuple[str, Command, dict[str, Any]]] = [
    ("id_reused", cancel_all(OPEN), {"halted": True}),
    ("stale_id", cancel_all(FORGOTTEN, side="buy"), {"halted": True}),
]

TABLE = [
    pytest.param(reason, made, changes, id=f"{type(made).__name__.lower()}, {reason}")
    for reason, made, changes in SUBMITS + AMENDS + CANCELS + CANCEL_ALLS
]


@pytest.mark.parametrize(("reason", "made", "changes"), TABLE)
def test_first_reason_of_the_ladder_is_given(
    reason: str, made: Command, changes: dict[str, Any]
) -> None:
    market = prepared(**changes)
    digest = market.digest
    receipt, _ = execute(market, made)

    assert (receipt.status, receipt.reason) == ("rejected", reason)
    assert receipt.message == Reason[reason].sentence
    assert receipt.duplicate is False
    assert market.digest == digest
    market.check()


@pytest.mark.parametrize(
    ("reason", "made", "changes"), [row for row in TABLE if not row.id.endswith("stale_id")]
)
def test_refusal_is_remembered_by_one_event(
    reason: str, made: Command, changes: dict[str, Any]
) -> None:
    """A copy is refused for the same reason, whatever the book is by then (G5)."""
    market = prepared(**changes)
    receipt, events = execute(market, made)
    if reason == "id_reused":
        # The id keeps the outcome that it has.
        assert events == []
        return
    (event,) = events
    fields = json.loads(encode(event))

    assert fields.pop("event") == "rejected"
    assert fields.pop("content") == content_of(made)
    assert fields.pop("reason") == reason
    assert fields.pop("peer") == "alice"
    assert fields == {
        name: value
        for name in ("order_id", "command_id")
        if (value := getattr(made, name, None)) is not None
    }
    again, events = execute(market, made)
    assert events == []
    assert (again.status, again.reason, again.duplicate) == ("rejected", reason, True)
    assert again.order_id == receipt.order_id
    assert again.command_id == receipt.command_id


def test_every_reason_of_the_engine_has_its_row() -> None:
    elsewhere = {"malformed", "unknown_value", "batch_too_large", "wrong_peer", "unknown_market"}
    tested_below = {"too_many_peers"}
    in_tables = {reason for reason, *_ in SUBMITS + AMENDS + CANCELS}

    assert {reason.name for reason in Reason} == elsewhere | tested_below | in_tables


@pytest.mark.parametrize(
    "made",
    [
        buy(ALL_WRONG, NEW, **BAD),
        amend(UNKNOWN, NEW, price="2000.005", quantity="0.0005"),
        cancel(UNKNOWN, NEW),
    ],
)
def test_refused_command_without_an_id_leaves_no_trace(made: Command) -> None:
    market = prepared()
    before = market.snapshot()
    if isinstance(made, Submit):
        made = buy(ALL_WRONG, **BAD)
    else:
        made.command_id = cancel(UNKNOWN).command_id  # type: ignore[union-attr]
    receipt, events = execute(market, made)

    assert receipt.status == "rejected"
    assert events == []
    assert market.snapshot() == before


# --- A peer that the market has no room for -----------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "made"),
    [
        ("price_off_tick", buy(ALL_WRONG, 1, peer="carol", **BAD)),
        ("already_expired", buy("1 @ 150", 1, peer="carol", **BAD)),
        ("too_many_peers", buy("1 @ 150", 1, peer="carol", post_only=True)),
        ("too_many_peers", buy("5", 1, peer="carol", time_in_force="fok")),
        ("unknown_order", cancel(order(1, "carol"))),
        ("unknown_order", amend(order(1, "carol"), price="100")),
        ("too_many_peers", cancel_all()),
    ],
)
def test_peer_too_many_is_refused_and_not_remembered(reason: str, made: Command) -> None:
    market = prepared()
    before = market.snapshot()
    if not isinstance(made, Submit):
        made.command_id = command(2, "carol")
    for _ in range(2):
        receipt, events = execute(market, made, peer="carol")

        assert (receipt.reason, receipt.duplicate, events) == (reason, False, [])
    assert market.snapshot() == before


def test_peer_of_a_full_market_may_go_on() -> None:
    market = prepared(max_open_orders=2, max_peers=1)

    assert execute(market, buy("1 @ 100", NEW)).receipt.status == "new"


# --- The bounds themselves ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "side", "reason"),
    [
        ("1 @ 0", "buy", "price_out_of_range"),
        ("1 @ 1000.01", "sell", "price_out_of_range"),
        (f"1 @ {COUNT_MAX // 100 + 1}", "sell", "price_out_of_range"),
        ("1 @ 999999999999999999.99", "sell", "price_out_of_range"),
        ("1 @ 150.01", "buy", "price_out_of_range"),
        ("1 @ 49.99", "sell", "price_out_of_range"),
        ("1 @ 150", "buy", None),
        ("1 @ 50", "sell", None),
        # The band stops prices that are too much worse for the order, not better ones.
        ("1 @ 49.99", "buy", None),
        ("1 @ 1000", "sell", None),
        ("0 @ 100", "buy", "quantity_out_of_range"),
        ("0.009 @ 150", "buy", "quantity_out_of_range"),
        ("1000.001 @ 100", "buy", "quantity_out_of_range"),
        (f"{COUNT_MAX // 1000 + 1} @ 100", "buy", "quantity_out_of_range"),
        ("999999999999999999.999", "buy", "quantity_out_of_range"),
        ("1000 @ 100", "buy", None),
        ("0.1 @ 99.99", "buy", "notional_out_of_range"),
        ("0.1 @ 100", "buy", None),
        ("0.01", "buy", None),
        ("0.009", "buy", "quantity_out_of_range"),
    ],
)
def test_bounds_are_inclusive(text: str, side: str, reason: str | None) -> None:
    market = prepared(max_open_orders=2)
    made = buy(text, NEW) if side == "buy" else sell(text, NEW)
    receipt, _ = execute(market, made)

    assert (receipt.status == "rejected") == (reason is not None)
    assert receipt.reason == reason or reason is None


@pytest.mark.parametrize("text", [f"1 @ {COUNT_MAX // 100 + 1}", f"{COUNT_MAX // 1000 + 1} @ 1"])
def test_no_integer_leaves_63_bits_without_any_limits(text: str) -> None:
    receipt, _ = execute(a_market(), buy(text, NEW))

    assert receipt.reason in ("price_out_of_range", "quantity_out_of_range")


def test_greatest_price_and_quantity_are_taken() -> None:
    market = a_market()
    greatest = f"{COUNT_MAX // 1000}.{COUNT_MAX % 1000} @ {COUNT_MAX // 100}.{COUNT_MAX % 100:02}"
    send(market, buy(greatest, 1))
    receipt, _ = execute(market, sell(greatest, 1, peer="bob"), peer="bob")

    assert receipt.status == "filled"
    market.check()


def test_band_is_not_asked_before_the_first_trade() -> None:
    receipt, _ = execute(a_market(price_band="0"), buy("1 @ 100000", 1))

    assert receipt.status == "new"


def test_expiry_is_asked_against_the_commits_time() -> None:
    """Not against any clock: a follower could not repeat that (G19)."""
    market = prepared(max_open_orders=3)
    later = {"time_in_force": "gtd", "expires_at": NOW + 1}

    assert execute(market, buy("1 @ 100", NEW, **later)).receipt.status == "new"
    late = execute(market, buy("1 @ 100", NEW + 1, **later), time=NOW + 1)
    assert late.receipt.reason == "already_expired"


# --- Amends -------------------------------------------------------------------------------------


def test_post_only_order_is_not_amended_into_a_trade() -> None:
    market = a_market()
    send(market, buy("1 @ 100", 1, post_only=True))
    send(market, sell("1 @ 101", 1, peer="bob"), peer="bob")

    refused = execute(market, amend(1, 2, price="101")).receipt
    assert (refused.status, refused.reason) == ("rejected", "post_only_would_trade")
    assert (refused.version, refused.remaining_quantity) == (1, "1")
    assert execute(market, amend(1, 3, price="100.99")).receipt.version == 2


def test_amend_is_asked_for_notional_with_its_new_totals() -> None:
    market = prepared()

    # 2 at 5 are 10, of which 1 is filled at 100.
    assert execute(market, amend(OPEN, NEW, price="5")).receipt.status == "partially_filled"
    low = execute(market, amend(OPEN, NEW + 1, price="4.99")).receipt
    assert low.reason == "notional_out_of_range"


def test_amend_that_names_no_price_is_not_asked_for_the_band() -> None:
    market = prepared(asked=False, max_open_orders=2)
    send(market, buy("1 @ 120", NEW))
    seal(market, market.administer("change", SpecificationChange(price_band="0"), time=NOW)[2])

    named = execute(market, amend(NEW, NEW + 1, price="120", quantity="2")).receipt
    assert named.reason == "price_out_of_range"
    assert execute(market, amend(NEW, NEW + 2, quantity="2")).receipt.version == 2


def test_refused_amend_shows_the_order_as_it_stands() -> None:
    receipt, _ = execute(prepared(), amend(OPEN, NEW, quantity="1"))

    assert (receipt.filled_quantity, receipt.remaining_quantity) == ("1", "1")
    assert (receipt.average_price, receipt.version) == ("100", 1)


@pytest.mark.parametrize("made", [cancel(FILLED, NEW), amend(FILLED, NEW, quantity="3")])
def test_order_done_says_how_the_order_ended(made: Command) -> None:
    receipt, _ = execute(prepared(), made)

    assert (receipt.reason, receipt.order_status) == ("order_done", "filled")
    assert (receipt.filled_quantity, receipt.remaining_quantity) == ("1", "0")


def test_refused_submit_never_was_an_order() -> None:
    market = prepared()
    send(market, buy("1 @ 100", NEW))

    assert own_id(buy("1 @ 100", NEW)) == order(NEW)
    assert execute(market, cancel(NEW, NEW + 1)).receipt.reason == "unknown_order"


def test_open_orders_are_bounded_for_each_peer_by_its_own_number() -> None:
    market = a_market(max_open_orders=1, peers={"bob": PeerFields(max_open_orders=2)})

    answers = {
        peer: [
            execute(market, buy("1 @ 100", number, peer=peer), peer=peer).receipt.status
            for number in (1, 2, 3)
        ]
        for peer in ("alice", "bob")
    }

    assert answers == {
        "alice": ["new", "rejected", "rejected"],
        "bob": ["new", "new", "rejected"],
    }
