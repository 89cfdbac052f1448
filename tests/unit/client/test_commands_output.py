"""What commands print: texts as pictures, JSON as it is on the wire."""

import json
from typing import Any

import pytest
from rich.text import Text

from dex_client.commands.output import (
    Output,
    book_lines,
    book_orders_lines,
    order_lines,
    orders_lines,
    receipt_lines,
    refusal_text,
    table,
    time_text,
    trades_lines,
)
from dex_client.commands.tail import commit_lines
from dex_protocol.commands import Amend, Cancel, CancelAll, Submit
from dex_protocol.events import (
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    CanceledAll,
    Commit,
    Expired,
    LeaderChanged,
    MarketChanged,
    MarketOpened,
    Reduced,
    Rejected,
    Trade,
)
from dex_protocol.queries import (
    BookLevel,
    BookOrder,
    BookOrdersReply,
    BookReply,
    OrderReceipt,
    TimedTrade,
)
from dex_protocol.receipts import Fill, Receipt
from dex_protocol.specification import Specification

TIME = 1_763_800_000_123_456
SPECIFICATION = Specification(market="X", tick_size="0.01", lot_size="0.1", max_peers=9)


def plain(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


def test_table_puts_points_under_points_and_no_blanks_at_the_end() -> None:
    rows = [("a", "1.25", "x"), ("bc", "100", ""), ("d", "0.5", "y")]

    assert plain(table(("NAME", "PRICE", "NOTE"), rows, numbers=("PRICE",))) == (
        "NAME   PRICE  NOTE\n"
        "a       1.25  x\n"
        "bc    100\n"
        "d       0.5   y"
    )  # fmt: skip


def test_book_has_its_best_prices_side_by_side() -> None:
    book = BookReply(
        sequence=7,
        bids=[BookLevel("101.25", "0.1", 1), BookLevel("99.5", "12", 3)],
        asks=[BookLevel("103", "0.75", 2)],
    )

    assert plain(book_lines(book)) == (
        "ORDERS  QUANTITY     BID  |  ASK  QUANTITY  ORDERS\n"
        "     1       0.1  101.25  |  103      0.75       2\n"
        "     3      12     99.5   |"
    )
    assert plain(book_lines(BookReply(sequence=1, bids=[], asks=[]))) == "the book is empty"


def test_orders_of_a_book_go_from_the_highest_price_down() -> None:
    book = BookOrdersReply(
        sequence=7,
        bids=[BookOrder("order_b_1_1", "99", "1", 1), BookOrder("order_b_1_2", "98", "1", 1)],
        asks=[BookOrder("order_a_1_1", "101.5", "2", 1), BookOrder("order_a_1_2", "102", "2", 3)],
        more=False,
    )

    assert plain(book_orders_lines(book)) == (
        "SIDE  PRICE  REMAINING  VERSION  ORDER\n"
        "sell  102            2        3  order_a_1_2\n"
        "sell  101.5          2        1  order_a_1_1\n"
        "buy    99            1        1  order_b_1_1\n"
        "buy    98            1        1  order_b_1_2"
    )


def test_trades_have_their_takers_side_in_words() -> None:
    trades = [
        TimedTrade(2, "101.5", "0.1", "order_a_1_1", "order_b_1_2", "sell", TIME, 8),
        TimedTrade(1, "101", "10", "order_a_1_1", "order_b_1_1", "buy", TIME - 123_456, 7),
    ]

    assert plain(trades_lines(trades)) == (
        "TIME                         TRADE  SIDE  PRICE  QUANTITY  TAKER        MAKER\n"
        "2025-11-22T08:26:40.123456Z      2  sell  101.5       0.1  order_b_1_2  order_a_1_1\n"
        "2025-11-22T08:26:40.000000Z      1  buy   101        10    order_b_1_1  order_a_1_1"
    )
    assert plain(trades_lines([])) == "no trades yet"


def test_time_beyond_the_calendar_is_still_a_time() -> None:
    assert time_text(0) == "1970-01-01T00:00:00.000000Z"
    assert time_text(2**63 - 1) == "9223372036854775807 µs after 1970"


def a_receipt(**fields: Any) -> Receipt:
    base = {
        "status": "new",
        "order_id": "order_a_1_1",
        "filled_quantity": "0",
        "remaining_quantity": "0.5",
        "version": 1,
    }
    return Receipt(**(base | fields))


def test_receipts_say_what_was_asked_and_what_became_of_it() -> None:
    order = Submit(side="buy", quantity="0.5", price="101.25")
    filled = a_receipt(
        status="partially_filled",
        filled_quantity="0.3",
        remaining_quantity="0.2",
        average_price="101.2",
        trades=[Fill(17, "101.2", "0.3", "order_b_1_1")],
    )
    at_any_price = Submit(side="sell", quantity="2", type="market")
    done = {"remaining_quantity": "0", "status": "canceled"}
    amend = Amend(order_id="order_a_1_1", price="5", quantity="0.5")
    cancel = Cancel(order_id="order_a_1_1")

    assert plain(receipt_lines(order, a_receipt())) == (
        "new  order_a_1_1  buy 0.5 at 101.25, filled 0, remaining 0.5, version 1"
    )
    assert plain(receipt_lines(order, a_receipt(duplicate=True))) == (
        "new  order_a_1_1  buy 0.5 at 101.25, filled 0, remaining 0.5, version 1"
        "; an earlier copy had this outcome"
    )
    assert plain(receipt_lines(order, filled)) == (
        "partially_filled  order_a_1_1  buy 0.5 at 101.25, "
        "filled 0.3 at 101.2 on average, remaining 0.2, version 1\n"
        "  trade 17: 0.3 at 101.2, against order_b_1_1"
    )
    assert plain(receipt_lines(at_any_price, a_receipt(**done))) == (
        "canceled  order_a_1_1  sell 2 at any price, filled 0, remaining 0, version 1"
    )
    assert plain(receipt_lines(amend, a_receipt(version=2))) == (
        "new  order_a_1_1  amended to 0.5 at 5, filled 0, remaining 0.5, version 2"
    )
    assert plain(receipt_lines(cancel, a_receipt(**done))) == (
        "canceled  order_a_1_1  as asked, filled 0, remaining 0, version 1"
    )


def test_canceling_all_names_the_orders_or_their_number() -> None:
    two = Receipt(status="canceled", canceled=["order_a_1_1", "order_a_1_2"])

    assert plain(receipt_lines(CancelAll(), two)) == (
        "canceled  2 orders\norder_a_1_1\norder_a_1_2"
    )
    assert plain(receipt_lines(CancelAll(), Receipt(status="canceled", count=1))) == (
        "canceled  1 order"
    )
    assert plain(receipt_lines(CancelAll(), Receipt(status="canceled", canceled=[]))) == (
        "canceled  0 orders"
    )


def test_refusal_is_one_line_with_how_the_order_ended() -> None:
    done = a_receipt(
        status="rejected",
        reason="order_done",
        message="it is done",
        order_status="canceled",
        filled_quantity="0.4",
    )

    assert (
        refusal_text(done) == "order_done: it is done (order_a_1_1 is canceled, 0.4 of it filled)"
    )
    assert refusal_text(Receipt(status="rejected", reason="malformed", message="what?")) == (
        "malformed: what?"
    )


def test_orders_are_told_with_side_and_price() -> None:
    order = OrderReceipt(
        status="new",
        order_id="order_a_1_1",
        filled_quantity="0",
        remaining_quantity="0.5",
        version=1,
        side="sell",
        type="limit",
        price="101.25",
        quantity="0.5",
    )

    assert plain(order_lines(order)) == (
        "new  order_a_1_1  sell 0.5 at 101.25, filled 0, remaining 0.5, version 1"
    )
    assert plain(orders_lines([order])) == (
        "ORDER        SIDE   PRICE  QUANTITY  FILLED  REMAINING  VERSION\n"
        "order_a_1_1  sell  101.25       0.5       0        0.5        1"
    )
    assert plain(orders_lines([])) == "no open orders"


EVENTS: list[tuple[AnyEvent, str]] = [
    (
        MarketOpened(SPECIFICATION, "ab"),
        "market_opened   market X, tick_size 0.01, lot_size 0.1, max_peers 9",
    ),
    (MarketChanged(state="halted"), "market_changed  halted"),
    (
        MarketChanged(specification=SPECIFICATION),
        "market_changed  market X, tick_size 0.01, lot_size 0.1, max_peers 9",
    ),
    (LeaderChanged("server-1", 7, 1, 1), "leader_changed  server-1 leads in term 7"),
    (
        Accepted("order_a_1_1", "a", "buy", "0.5", price="101", resting_quantity="0.2"),
        "accepted        order_a_1_1  buy 0.5 at 101, gtc, 0.2 in the book",
    ),
    (
        Accepted(
            "order_a_1_1",
            "a",
            "sell",
            "0.5",
            price="101",
            time_in_force="gtd",
            expires_at=TIME,
            post_only=True,
        ),
        "accepted        order_a_1_1  sell 0.5 at 101, gtd until 2025-11-22T08:26:40.123456Z, "
        "post only",
    ),
    (
        Accepted("order_a_1_1", "a", "sell", "2", type="market", time_in_force="ioc"),
        "accepted        order_a_1_1  sell 2 at any price, ioc",
    ),
    (
        Trade(17, "101", "0.3", "order_b_1_1", "order_a_1_1", "buy"),
        "trade           17  0.3 at 101, order_a_1_1 bought, maker order_b_1_1",
    ),
    (
        Amended("order_a_1_1", "99", "0.4", "lost", 2, resting_quantity="0.1"),
        "amended         order_a_1_1  now 0.4 at 99, 0.1 in the book, priority lost, version 2",
    ),
    (Reduced("order_a_1_1", "0.1"), "reduced         order_a_1_1  0.1 taken off"),
    (
        Canceled("order_a_1_1", "0.1", "self_trade"),
        "canceled        order_a_1_1  0.1 taken off: self_trade",
    ),
    (CanceledAll(3), "canceled_all    orders: 3"),
    (
        CanceledAll(3, command_id="command_a_1_9"),
        "canceled_all    command_a_1_9  orders: 3",
    ),
    (Expired("order_a_1_1", "0.1"), "expired         order_a_1_1  0.1 taken off"),
    (
        Rejected("a", "no_liquidity", "ab", order_id="order_a_1_1"),
        "rejected        order_a_1_1  no_liquidity",
    ),
    (
        Rejected("a", "order_done", "ab", order_id="order_a_1_1", command_id="command_a_1_9"),
        "rejected        command_a_1_9, order_a_1_1  order_done",
    ),
]


def a_commit(*events: AnyEvent) -> Commit:
    return Commit("X", 42, 7, TIME, "0" * 32, "0" * 16, list(events))


@pytest.mark.parametrize(
    ("event", "expected"), EVENTS, ids=[type(event).__name__ for event, _ in EVENTS]
)
def test_every_event_is_one_readable_line(event: AnyEvent, expected: str) -> None:
    assert (
        plain(commit_lines(a_commit(event))) == f"     42  2025-11-22T08:26:40.123456Z  {expected}"
    )


def test_every_kind_of_event_is_told() -> None:
    assert {type(event) for event, _ in EVENTS} == set(AnyEvent.__args__)


def test_commit_has_a_line_for_each_event_and_one_when_it_is_empty() -> None:
    events = [event for event, _ in EVENTS]

    assert len(commit_lines(a_commit(*events))) == len(events)
    assert plain(commit_lines(a_commit())).endswith(
        "Z  (empty: it proves that what was answered is stored)"
    )


def test_json_is_the_message_of_the_wire_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    book = BookReply(sequence=7, bids=[BookLevel("101.25", "0.1", 1)], asks=[])
    Output(as_json=True).show(book, [Text("not this")])

    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "bids": [{"price": "101.25", "quantity": "0.1", "count": 1}],
        "asks": [],
        "sequence": 7,
    }


def test_text_is_neither_wrapped_nor_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    long = "[red]" + "word " * 100 + ":smile:"
    Output(as_json=False).say(Text(long))

    assert capsys.readouterr().out == f"{long}\n"
