"""The ladder of refusals: the first reason that applies is given, in the order of docs/PROTOCOL.md.

Each table has one row per rung, in that order, and each row's command is refused by every later
rung too, as far as one command can be.
"""

import json
from typing import Any

import pytest
from dex_engine import Bounds, Market
from dex_protocol.codec import encode
from dex_protocol.commands import Command
from dex_protocol.content import content_of
from dex_protocol.numbers import COUNT_MAX
from dex_protocol.specification import SpecificationChange

from tests.builders import (
    NOW,
    a_market,
    a_specification,
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

UNKNOWN = order(999)
FILLED, OPEN = 1, 2
USED = 3
STALE, NEW = 0, 50

LIMITS: dict[str, Any] = {
    "min_quantity": "0.01",
    "max_quantity": "1000",
    "max_price": "1000",
    "min_notional": "10",
    "price_band": "0.5",
    "max_open_orders": 1,
    "max_peers": 2,
}


def prepared(*, halted: bool = False, empty: bool = False, **changes: Any) -> Market:
    """Make a market with every limit, last traded at 100, with 1 bid at 100 and 1 asked at 101.

    Alice's order 1 is filled, her order 2 is the bid, half of it filled; bob's is the ask. Two
    outcomes are remembered of each.
    """
    market = a_market(Bounds(window_count=2), **LIMITS)
    send(market, sell("1 @ 100", 1, peer="bob"), peer="bob")
    send(market, buy("1 @ 100", FILLED))
    send(market, buy("2 @ 100", OPEN))
    send(market, sell("1 @ 100", 2, peer="bob"), peer="bob")
    if not empty:
        send(market, sell("1 @ 101", 3, peer="bob"), peer="bob")
    if changes:
        market.administer("change", SpecificationChange(**changes), time=NOW)
    if halted:
        market.administer("halt", time=NOW)
    return market


ALL_WRONG = "0.0005 @ 2000.005"
EXPIRED = {"time_in_force": "gtd", "expires_at": NOW}
CROSSING = {"post_only": True}
ROOM = {"max_open_orders": 10}

SUBMITS = [
    ("id_reused", {"halted": True}, buy(ALL_WRONG, OPEN, **EXPIRED, **CROSSING)),
    ("stale_id", {"halted": True}, buy(ALL_WRONG, STALE, **EXPIRED, **CROSSING)),
    ("market_halted", {"halted": True}, buy(ALL_WRONG, NEW, **EXPIRED, **CROSSING)),
    ("price_off_tick", {}, buy(ALL_WRONG, NEW, **EXPIRED, **CROSSING)),
    ("quantity_off_lot", {}, buy("0.0005 @ 2000", NEW, **EXPIRED, **CROSSING)),
    ("price_out_of_range", {}, buy("0.001 @ 2000", NEW, **EXPIRED, **CROSSING)),
    ("quantity_out_of_range", {}, buy("0.001 @ 150", NEW, **EXPIRED, **CROSSING)),
    ("notional_out_of_range", {}, buy("0.05 @ 150", NEW, **EXPIRED, **CROSSING)),
    ("already_expired", {}, buy("1 @ 150", NEW, **EXPIRED, **CROSSING)),
    ("too_many_open_orders", {}, buy("1 @ 150", NEW, **CROSSING)),
    ("post_only_would_trade", ROOM, buy("1 @ 150", NEW, **CROSSING)),
    ("fok_not_fillable", {"empty": True}, buy("5", NEW, time_in_force="fok")),
    ("no_liquidity", {"empty": True}, buy("5", NEW)),
]

AMENDS = [
    ("id_reused", {"halted": True}, amend(UNKNOWN, OPEN, price="2000.005", quantity="0.0005")),
    ("stale_id", {"halted": True}, amend(UNKNOWN, STALE, price="2000.005", quantity="0.0005")),
    ("market_halted", {"halted": True}, amend(OPEN, NEW, price="2000.005", quantity="0.0005")),
    ("price_off_tick", {}, amend(OPEN, NEW, price="2000.005", quantity="0.0005", if_version=9)),
    ("quantity_off_lot", {}, amend(OPEN, NEW, price="2000", quantity="0.0005", if_version=9)),
    ("price_out_of_range", {}, amend(OPEN, NEW, price="2000", quantity="0.001", if_version=9)),
    ("quantity_out_of_range", {}, amend(OPEN, NEW, quantity="0.001", if_version=9)),
    ("notional_out_of_range", {}, amend(OPEN, NEW, quantity="0.05", if_version=9)),
    ("unknown_order", {}, amend(UNKNOWN, NEW, quantity="1", if_version=9)),
    ("order_done", {}, amend(FILLED, NEW, quantity="1", if_version=9)),
    ("version_conflict", {}, amend(OPEN, NEW, quantity="1", if_version=9)),
    ("amend_below_filled", {}, amend(OPEN, NEW, quantity="1")),
]

CANCELS = [
    ("id_reused", {"halted": True}, cancel(UNKNOWN, OPEN)),
    ("stale_id", {"halted": True}, cancel(UNKNOWN, STALE)),
    ("unknown_order", {"halted": True}, cancel(UNKNOWN, NEW, if_version=9)),
    ("order_done", {"halted": True}, cancel(FILLED, NEW, if_version=9)),
    ("version_conflict", {"halted": True}, cancel(OPEN, NEW, if_version=9)),
]


def rows(ladder: list[tuple[str, dict[str, Any], Command]], *, asked_of_state: bool) -> list[Any]:
    """Give a ladder's rows, without the two rungs of the remembered outcomes or with them."""
    chosen = ladder if not asked_of_state else ladder[2:]
    return [
        pytest.param(reason, changes, made, id=f"{type(made).__name__.lower()} {reason}")
        for reason, changes, made in chosen
    ]


ALL = rows(SUBMITS, asked_of_state=False) + rows(AMENDS, asked_of_state=False)
ALL += rows(CANCELS, asked_of_state=False)
REMEMBERED = rows(SUBMITS, asked_of_state=True) + rows(AMENDS, asked_of_state=True)
REMEMBERED += rows(CANCELS, asked_of_state=True)


def stale_made_so(market: Market) -> None:
    """Let alice's window forget: her orders 1 and 2 stay, pair 0 lies below what was forgotten."""


@pytest.mark.parametrize(("reason", "changes", "made"), ALL)
def test_first_reason_of_the_ladder_is_given(
    reason: str, changes: dict[str, Any], made: Command
) -> None:
    market = prepared(**changes)
    digest = market.digest
    receipt, _ = execute(market, made)

    assert (receipt.status, receipt.reason) == ("rejected", reason)
    assert receipt.duplicate is False
    assert market.digest == digest
    market.check()
