"""Replies to queries, and what the naive engine would have said.

Only queries about the state, and `log`. Knows nothing of who asked when.
"""

from fractions import Fraction
from typing import Any, Final

from tests.checker.history import Asked, Json
from tests.checker.indexed_engine import IndexedMarket
from tests.checker.logs import Commit, Log
from tests.checker.verdict import Verdict, shown
from tests.property.reference_engine import specification_of, write

BOOK_DEPTH: Final = 20
TRADES_COUNT: Final = 100
PAGE_COUNT_MAX: Final = 1_000


def expected(
    asked: Asked, engine: IndexedMarket, commit: Commit, trades: list[Json]
) -> Json | None:
    """Say what a reply must say after a commit; None when that is not about the state."""
    request = asked.request
    match asked.what:
        case "status":
            return status(asked, engine, commit)
        case "book":
            depth = request.get("depth", BOOK_DEPTH)
            return book_orders(engine, depth) if request.get("orders") else book(engine, depth)
        case "order":
            return {"order": order(engine, asked.peer, request["order_id"])}
        case "orders":
            return orders(engine, asked.peer, request)
        case "trades":
            limit = request.get("limit", TRADES_COUNT)
            return {"trades": [plain_trade(trade) for trade in trades[-limit:][::-1]]}
    return None


def status(asked: Asked, engine: IndexedMarket, commit: Commit) -> Json:
    """How the market stands."""
    return {
        "leader": commit.leader,
        "term": commit.term,
        "digest": engine.digest(),
        "state": engine.state,
        "specification": engine.specification,
        "last_price": None if engine.last_price is None else write(engine.last_price),
        "highest": engine.highest(asked.peer),
        "forgotten": engine.forgotten(asked.peer),
    }


def book(engine: IndexedMarket, depth: int) -> Json:
    """Both sides by price level."""
    return {
        name: [
            {
                "price": price,
                "quantity": write(sum((order.remaining for order in level), Fraction(0))),
                "count": len(level),
            }
            for price, level in engine.levels(side, depth)
        ]
        for name, side in (("bids", "buy"), ("asks", "sell"))
    }


def book_orders(engine: IndexedMarket, depth: int) -> Json:
    """Both sides order by order."""
    reply: Json = {"more": False}
    for name, side in (("bids", "buy"), ("asks", "sell")):
        page = [
            {
                "order_id": order.order_id,
                "price": price,
                "remaining_quantity": write(order.remaining),
                "version": order.version,
            }
            for price, level in engine.levels(side, depth)
            for order in level
        ]
        reply[name] = page[:PAGE_COUNT_MAX]
        reply["more"] = reply["more"] or len(page) > PAGE_COUNT_MAX
    return reply


def order(engine: IndexedMarket, peer: str, order_id: str) -> Json | None:
    """One order as it stands."""
    return engine.order(peer, order_id)


def orders(engine: IndexedMarket, peer: str, request: Json) -> Json | None:
    """A page of the peer's open orders; None where the page begins at an order that is done."""
    own = [order.order_id for order in engine.open_orders(peer)]
    if "after" in request:
        if request["after"] not in own:
            return None
        own = own[own.index(request["after"]) + 1 :]
    limit = request.get("limit", PAGE_COUNT_MAX)
    page = [engine.order(peer, order_id) for order_id in own[:limit]]
    return {"orders": page, "more": len(own) > limit}


def compare(asked: Asked, expected: Json, verdict: Verdict) -> None:
    """Compare a reply, field by field of what is expected."""
    for name, value in expected.items():
        found = plain(name, asked.reply.get(name))
        if found != value and not (value is False and found is None):
            verdict.report(
                "queries",
                asked.market,
                f"{asked.what} of {asked.peer} as of commit {asked.reply['sequence']}",
                f"expected {name} {shown(value)}, found {shown(found)}",
            )


def plain(name: str, found: Any) -> Any:
    """Bring a field of a reply into the form in which the naive engine says it."""
    match name, found:
        case "specification", dict():
            return specification_of(found)
        case "order", dict():
            return plain_order(found)
        case "orders", list():
            return [plain_order(each) for each in found]
        case "trades", list():
            return [plain_trade(each) for each in found]
    return found


def plain_trade(found: Json) -> Json:
    return {name: value for name, value in found.items() if name != "event"}


def plain_order(found: Json) -> Json:
    left_out = ("sequence", "duplicate", "message")
    return {name: value for name, value in found.items() if name not in left_out}


def check_log(asked: Asked, log: Log, verdict: Verdict) -> None:
    """Compare the commits of a reply to `log` with those that are stored."""
    commits = asked.reply.get("commits", [])
    first = max(asked.request.get("from_sequence", 1), asked.reply.get("first_sequence", 1))
    stored = log.payloads[first - 1 : first - 1 + len(commits)]
    if commits != stored or (commits and first + len(commits) - 1 > asked.reply["sequence"]):
        verdict.report(
            "queries",
            asked.market,
            f"log of {asked.peer} as of commit {asked.reply['sequence']}",
            f"expected the commits from {first} on as they are stored, found others",
        )
