"""Direct claims about the reference engine: the few that PROTOCOL.md gives numbers for, and those
where an oracle that is wrong in the same way as the engine would do the most harm.

Everything else is the business of `test_workload.py` and of the comparison with the real engine.
"""

import pytest

from tests.property.reference_engine import ReferenceMarket

NOW = 1_763_800_000_000_000
SPECIFICATION = {"market": "BTC-USD", "tick_size": "0.01", "lot_size": "1"}


class Desk:
    """A market, and short ways to talk to it; `events` are those of the last command."""

    def __init__(self, *, specification: dict | None = None, **limits: int) -> None:
        self.market = ReferenceMarket({**SPECIFICATION, **(specification or {})}, **limits)
        self.events: list[dict] = []

    def send(self, peer: str, op: str, time: int = NOW, **fields: object) -> dict:
        receipt, self.events = self.market.execute(peer, {"op": op, **fields}, time)
        return receipt

    def submit(self, peer: str, number: int | None, text: str, **fields: object) -> dict:
        """Submit, say, `buy 10 @ 100`; without a price it is a market order."""
        side, quantity, *price = text.replace("@", "").split()
        fields |= {"price": price[0]} if price else {"type": "market"}
        if number is not None:
            fields["order_id"] = order_id(peer, number)
        return self.send(peer, "submit", side=side, quantity=quantity, **fields)

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


def order_id(peer: str, number: int) -> str:
    return f"order_{peer}_1763800000000_{number}"


def command_id(peer: str, number: int) -> str:
    return f"command_{peer}_1763800000000_{number}"


def test_book_of_the_protocol_has_the_digest_of_the_protocol() -> None:
    desk = Desk()
    desk.submit("alice", 1, "buy 1 @ 90")
    desk.submit("alice", 2, "buy 1 @ 90")
    desk.submit("alice", 17, "buy 25 @ 100.5")
    for number in (1, 2):
        desk.send("alice", "cancel", order_id=order_id("alice", number))

    assert desk.market.digest() == "587c8614dad8f225"

    desk.send(
        "bob", "submit", order_id="order_bob_1763800000001_1", side="sell", price="100.6",
        quantity="7",
    )  # fmt: skip

    assert desk.market.digest() == "2863e7a04687e7c2"


def test_incoming_order_trades_at_best_price_first_then_with_oldest() -> None:
    desk = Desk()
    desk.submit("alice", 1, "sell 1 @ 101")
    desk.submit("alice", 2, "sell 1 @ 100")
    desk.submit("carol", 1, "sell 1 @ 100")
    receipt = desk.submit("bob", 1, "buy 4 @ 101")

    makers = [(trade["maker_order_id"], trade["price"]) for trade in receipt["trades"]]

    assert makers == [
        (order_id("alice", 2), "100"),
        (order_id("carol", 1), "100"),
        (order_id("alice", 1), "101"),
    ]
    assert receipt["status"] == "partially_filled"
    assert receipt["remaining_quantity"] == "1"
    assert receipt["average_price"] == "100.3333333333"
    assert desk.events[0]["resting_quantity"] == "1"
    assert desk.market.book()["bids"] == [["101", [[order_id("bob", 1), "1"]]]]


def test_amend_that_lowers_only_the_quantity_keeps_its_place() -> None:
    desk = Desk()
    desk.submit("alice", 1, "sell 5 @ 100")
    desk.submit("carol", 1, "sell 5 @ 100")
    receipt = desk.send("alice", "amend", order_id=order_id("alice", 1), quantity="4")

    assert receipt["version"] == 2
    assert desk.events[0]["priority"] == "kept"
    assert desk.market.book()["asks"][0][1][0] == [order_id("alice", 1), "4"]

    desk.send("alice", "amend", order_id=order_id("alice", 1), quantity="5")

    assert desk.events[0]["priority"] == "lost"
    assert desk.market.book()["asks"][0][1][0] == [order_id("carol", 1), "5"]


def test_amend_that_changes_nothing_says_so_and_leaves_the_version() -> None:
    desk = Desk()
    desk.submit("alice", 1, "sell 5 @ 100")
    receipt = desk.send("alice", "amend", order_id=order_id("alice", 1), price="100.00")

    assert receipt["version"] == 1
    assert desk.events == [
        {
            "event": "amended",
            "order_id": order_id("alice", 1),
            "price": "100",
            "quantity": "5",
            "resting_quantity": "5",
            "priority": "kept",
            "version": 1,
        }
    ]


def test_price_of_2_to_the_63_minus_1_ticks_is_the_last_one_in_range() -> None:
    desk = Desk()

    assert desk.submit("alice", 1, "buy 1 @ 92233720368547758.07")["status"] == "new"
    assert desk.submit("alice", 2, "buy 1 @ 92233720368547758.08")["reason"] == "price_out_of_range"


@pytest.mark.parametrize(
    ("rule", "kinds", "status"),
    [
        ("cancel_taker", ["accepted", "canceled"], "canceled"),
        ("cancel_maker", ["accepted", "canceled", "trade"], "partially_filled"),
        ("cancel_both", ["accepted", "canceled", "canceled"], "canceled"),
        ("decrement", ["accepted", "reduced", "reduced", "trade"], "partially_filled"),
        ("allow", ["accepted", "trade", "trade"], "partially_filled"),
    ],
)
def test_meeting_an_own_order_follows_the_rule_of_the_taker(
    rule: str, kinds: list[str], status: str
) -> None:
    desk = Desk()
    desk.submit("alice", 1, "sell 2 @ 100")
    desk.submit("bob", 1, "sell 3 @ 101")
    receipt = desk.submit("alice", 2, "buy 9 @ 101", self_trade=rule)

    assert desk.kinds() == kinds
    assert receipt["status"] == status


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("cancel_taker", "fok_not_fillable"),
        ("cancel_maker", None),
        ("cancel_both", "fok_not_fillable"),
        ("decrement", "fok_not_fillable"),
        ("allow", None),
    ],
)
def test_fill_or_kill_behind_an_own_order_is_filled_whole_or_not_at_all(
    rule: str, reason: str | None
) -> None:
    desk = Desk()
    desk.submit("alice", 1, "sell 2 @ 100")
    desk.submit("bob", 1, "sell 9 @ 101")
    receipt = desk.submit("alice", 2, "buy 9 @ 101", time_in_force="fok", self_trade=rule)

    assert receipt.get("reason") == reason
    assert receipt["filled_quantity"] == ("0" if reason else "9")


def test_taker_that_needs_one_maker_too_many_has_its_rest_canceled() -> None:
    desk = Desk(makers_max=2)
    for number in (1, 2, 3):
        desk.submit("alice", number, "sell 1 @ 100")

    assert desk.submit("bob", 1, "buy 3", time_in_force="fok")["reason"] == "fok_not_fillable"
    assert desk.submit("bob", 2, "buy 3 @ 100")["filled_quantity"] == "2"
    assert desk.events[-1]["reason"] == "too_many_makers"


def test_repeated_submit_is_told_how_its_order_stands_now() -> None:
    desk = Desk()
    desk.submit("alice", 1, "sell 2 @ 100")
    desk.submit("bob", 1, "buy 1 @ 100")
    repeated = desk.submit("alice", 1, "sell 2.0 @ 100.00", self_trade="cancel_taker")

    assert repeated == {
        "order_id": order_id("alice", 1),
        "status": "partially_filled",
        "filled_quantity": "1",
        "remaining_quantity": "1",
        "average_price": "100",
        "version": 1,
        "duplicate": True,
    }
    assert desk.events == []
    assert desk.submit("alice", 1, "sell 3 @ 100")["reason"] == "id_reused"


def test_id_below_the_window_is_stale_but_a_late_one_above_forgotten_is_new() -> None:
    desk = Desk(window=2)
    for number in (1, 5, 9):
        desk.submit("alice", number, "sell 1 @ 100")

    assert desk.market.forgotten("alice") == [1_763_800_000_000, 1]
    assert desk.submit("alice", 1, "sell 1 @ 100")["reason"] == "stale_id"
    # It is executed, and leaves the window at once, as the lowest.
    assert desk.submit("alice", 3, "sell 1 @ 100")["status"] == "new"
    assert desk.market.forgotten("alice") == [1_763_800_000_000, 3]
    assert desk.market.highest("alice") == [1_763_800_000_000, 9]


def test_refused_cancel_of_a_done_order_tells_how_it_ended() -> None:
    desk = Desk()
    desk.submit("alice", 1, "sell 2 @ 100")
    desk.submit("bob", 1, "buy 2 @ 100")
    cancel = {"order_id": order_id("alice", 1), "command_id": command_id("alice", 2)}
    receipt = desk.send("alice", "cancel", **cancel)

    assert receipt == {
        **cancel,
        "status": "rejected",
        "reason": "order_done",
        "order_status": "filled",
        "filled_quantity": "2",
        "remaining_quantity": "0",
        "average_price": "100",
        "version": 1,
        "duplicate": False,
    }
    assert desk.kinds() == ["rejected"]
    assert desk.send("alice", "cancel", **cancel) == {**receipt, "duplicate": True}


def test_command_without_an_id_leaves_no_trace_of_a_refusal_and_gets_a_name_when_accepted() -> None:
    desk = Desk()

    assert desk.submit("alice", None, "buy 1")["reason"] == "no_liquidity"
    assert desk.events == []
    assert desk.submit("alice", None, "buy 1 @ 100")["order_id"] == "order_alice_0_1"
    assert desk.market.highest("alice") == [0, 0]


def test_peer_too_many_is_refused_without_an_event_and_executed_later() -> None:
    desk = Desk(specification={"max_peers": 1})
    desk.submit("alice", 1, "sell 1 @ 100")

    assert desk.submit("bob", 1, "buy 1 @ 100")["reason"] == "too_many_peers"
    assert desk.events == []

    desk.market.administer("change", {"max_peers": 2})

    assert desk.submit("bob", 1, "buy 1 @ 100")["status"] == "filled"


def test_due_orders_expire_by_deadline_then_acceptance_before_a_closed_market_cancels() -> None:
    desk = Desk(housekeeping_max=2)
    for number, deadline in ((1, 20), (2, 10), (3, 20)):
        desk.submit("alice", number, "buy 1 @ 100", time_in_force="gtd", expires_at=NOW + deadline)
    desk.submit("alice", 4, "buy 1 @ 100")
    desk.market.administer("close", {})

    ended = []
    while events := desk.market.housekeeping(NOW + 20):
        ended.append([(event["event"], event["order_id"][-1]) for event in events])

    assert ended == [
        [("expired", "2"), ("expired", "1")],
        [("expired", "3"), ("canceled", "4")],
    ]


def test_cancel_all_takes_the_oldest_and_says_when_to_send_again() -> None:
    desk = Desk(canceled_max=2)
    for number, side in ((1, "buy"), (2, "sell"), (3, "buy"), (4, "buy")):
        desk.submit("alice", number, f"{side} 1 @ {100 if side == 'buy' else 101}")
    again = {"command_id": command_id("alice", 5), "side": "buy"}
    receipt = desk.send("alice", "cancel_all", **again)

    assert receipt["canceled"] == [order_id("alice", 1), order_id("alice", 3)]
    assert receipt["more"] is True
    assert desk.kinds() == ["canceled", "canceled", "canceled_all"]
    assert desk.send("alice", "cancel_all", **again) == {
        "command_id": command_id("alice", 5),
        "status": "canceled",
        "count": 2,
        "duplicate": True,
    }


def test_average_price_is_rounded_half_to_even_to_the_decimals_of_the_tick_plus_8() -> None:
    desk = Desk(specification={"tick_size": "1.0", "lot_size": "1"})
    desk.submit("alice", 1, "sell 511 @ 1")
    desk.submit("alice", 2, "sell 1 @ 2")

    # 513/512 is 1.001953125 exactly: the ninth decimal is a 5 after an even digit.
    assert desk.submit("bob", 1, "buy 512")["average_price"] == "1.00195312"


def test_changing_nothing_makes_no_event_and_after_closing_only_closing_is_not_refused() -> None:
    market = ReferenceMarket(SPECIFICATION)

    assert market.administer("change", {"max_peers": 1000}) == ({}, [])
    assert market.administer("change", {"tick_size": "1"})[0]["reason"] == "malformed"
    assert market.administer("resume", {}) == ({}, [])

    market.administer("close", {})

    assert market.administer("resume", {})[0]["reason"] == "market_halted"
    assert market.administer("close", {}) == ({}, [])
