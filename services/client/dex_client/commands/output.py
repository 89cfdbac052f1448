"""How data is printed: as text for eyes, or as JSON for machines; always on stdout.

Text is coloured on a terminal, unless NO_COLOR is set, and never wrapped or cut. Its shape may
change. JSON has the shape of the wire, and each object one line. Knows nothing of NATS.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import click
from msgspec import UNSET, Struct
from rich.console import Console
from rich.text import Text

from dex_protocol.codec import encode
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Submit
from dex_protocol.queries import (
    BookLevel,
    BookOrder,
    BookOrdersReply,
    BookReply,
    OrderReceipt,
    TimedTrade,
)
from dex_protocol.receipts import Receipt

SIDE_STYLES: Final = {"buy": "green", "sell": "red"}

_STATUS_STYLES: Final = {
    "new": "cyan",
    "partially_filled": "yellow",
    "filled": "green",
    "canceled": "magenta",
    "expired": "magenta",
    "rejected": "red",
    "retry": "red",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_GAP: Final = "  "

Cell = Text | str


class Output:
    """Where a command's data goes."""

    def __init__(self, *, as_json: bool) -> None:
        """Print JSON or text."""
        self.as_json = as_json
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def show(self, message: Struct, lines: Iterable[Text]) -> None:
        """Print a message of the wire, or else the lines that say the same."""
        if self.as_json:
            self.write(encode(message))
        else:
            self.say(*lines)

    def say(self, *lines: Text) -> None:
        """Print lines of text."""
        for line in lines:
            self._console.print(line)

    def write(self, payload: bytes) -> None:
        """Print a line of JSON, byte for byte."""
        click.echo(payload)


def time_text(time: int) -> str:
    """Write a time of the wire (µs since 1970) for eyes: UTC, to the microsecond."""
    try:
        moment = _EPOCH + timedelta(microseconds=time)
    except OverflowError:
        # An `expires_at` may lie beyond the last year that there is here.
        return f"{time} µs after 1970"
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def table(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], *, numbers: Collection[str] = ()
) -> list[Text]:
    """Lay out rows under a head; the columns named in `numbers` have their points in one line."""
    columns = []
    for place, title in enumerate(head):
        cells = [_text(row[place]) for row in rows]
        if title in numbers:
            columns.append(_to_the_right([_text(title), *_pointed(cells)]))
        else:
            columns.append(_to_the_left([_text(title), *cells]))
    return [_joined(cells) for cells in zip(*columns, strict=True)]


# --- Receipts and orders ------------------------------------------------------------------------


def receipt_lines(command: Command, receipt: Receipt) -> list[Text]:
    """Say what became of a command that was not refused."""
    if isinstance(command, CancelAll):
        return _canceled_all_lines(receipt)
    line = Text.assemble(_status(receipt.status), _GAP, str(receipt.order_id), _GAP)
    line.append(_asked(command))
    line.append(_standing(receipt))
    if receipt.duplicate is True:
        line.append("; an earlier copy had this outcome")
    return [line, *_fill_lines(receipt)]


def refusal_text(receipt: Receipt) -> str:
    """Say in one line why something was refused."""
    text = f"{receipt.reason}: {receipt.message}"
    if receipt.order_status is not UNSET:
        text += f" ({receipt.order_id} is {receipt.order_status}"
        if receipt.filled_quantity is not UNSET:
            text += f", {receipt.filled_quantity} of it filled"
        text += ")"
    return text


def order_lines(order: OrderReceipt) -> list[Text]:
    """Say how an order stands."""
    line = Text.assemble(_status(order.status), _GAP, str(order.order_id), _GAP)
    line.append(_side(order.side))
    line.append(f" {order.quantity} {_at(order.price)}")
    line.append(_standing(order))
    return [line]


def orders_lines(orders: Sequence[OrderReceipt]) -> list[Text]:
    """List open orders."""
    if not orders:
        return [Text("no open orders")]
    rows = [
        (
            str(order.order_id),
            _side(order.side),
            "" if order.price is UNSET else order.price,
            order.quantity,
            _or_dash(order.filled_quantity),
            _or_dash(order.remaining_quantity),
            _or_dash(order.version),
        )
        for order in orders
    ]
    return table(
        ("ORDER", "SIDE", "PRICE", "QUANTITY", "FILLED", "REMAINING", "VERSION"),
        rows,
        numbers=("PRICE", "QUANTITY", "FILLED", "REMAINING", "VERSION"),
    )


def _canceled_all_lines(receipt: Receipt) -> list[Text]:
    if receipt.canceled is UNSET:
        # Of a repeated one only their number is remembered.
        return [_canceled_count(0 if receipt.count is UNSET else receipt.count)]
    return [_canceled_count(len(receipt.canceled)), *map(Text, receipt.canceled)]


def _canceled_count(count: int) -> Text:
    return Text.assemble(_status("canceled"), f"{_GAP}{count:,} order{'' if count == 1 else 's'}")


def _asked(command: Submit | Cancel | Amend) -> Text:
    # A receipt says neither side nor price.
    match command:
        case Submit():
            return Text.assemble(_side(command.side), f" {command.quantity} {_at(command.price)}")
        case Amend():
            changes = [f"to {command.quantity}"] if command.quantity is not UNSET else []
            changes += [f"at {command.price}"] if command.price is not UNSET else []
            return Text(f"amended {' '.join(changes)}")
        case Cancel():
            return Text("as asked")


def _standing(receipt: Receipt) -> str:
    filled = f", filled {_or_dash(receipt.filled_quantity)}"
    if receipt.average_price is not UNSET:
        filled += f" at {receipt.average_price} on average"
    return (
        f"{filled}, remaining {_or_dash(receipt.remaining_quantity)}"
        f", version {_or_dash(receipt.version)}"
    )


def _fill_lines(receipt: Receipt) -> list[Text]:
    if receipt.trades is UNSET:
        return []
    return [
        Text(
            f"{_GAP}trade {fill.trade_id}: {fill.quantity} at {fill.price}, "
            f"against {fill.maker_order_id}"
        )
        for fill in receipt.trades
    ]


# --- Books and trades ---------------------------------------------------------------------------


def book_lines(book: BookReply) -> list[Text]:
    """Draw a book: bids to the left, asks to the right, the best of both in the first line."""
    if not book.bids and not book.asks:
        return [Text("the book is empty")]
    head = ("ORDERS", "QUANTITY", "BID", "|", "ASK", "QUANTITY", "ORDERS")
    rows: list[tuple[Cell, ...]] = []
    for place in range(max(len(book.bids), len(book.asks))):
        orders, quantity, price = _level(book.bids, place)
        row = (orders, quantity, Text(price, "green"), "|")
        orders, quantity, price = _level(book.asks, place)
        rows.append((*row, Text(price, "red"), quantity, orders))
    return table(head, rows, numbers=[title for title in head if title != "|"])


def book_orders_lines(book: BookOrdersReply) -> list[Text]:
    """List a book's orders from the highest price down: asks, then bids."""
    if not book.bids and not book.asks:
        return [Text("the book is empty")]
    rows = [_book_order("sell", order) for order in reversed(book.asks)]
    rows += [_book_order("buy", order) for order in book.bids]
    head = ("SIDE", "PRICE", "REMAINING", "VERSION", "ORDER")
    return table(head, rows, numbers=("PRICE", "REMAINING", "VERSION"))


def trades_lines(trades: Sequence[TimedTrade]) -> list[Text]:
    """List trades; the side is the taker's."""
    if not trades:
        return [Text("no trades yet")]
    rows = [
        (
            time_text(trade.time),
            str(trade.trade_id),
            _side(trade.taker_side),
            trade.price,
            trade.quantity,
            trade.taker_order_id,
            trade.maker_order_id,
        )
        for trade in trades
    ]
    return table(
        ("TIME", "TRADE", "SIDE", "PRICE", "QUANTITY", "TAKER", "MAKER"),
        rows,
        numbers=("TRADE", "PRICE", "QUANTITY"),
    )


def _level(levels: Sequence[BookLevel], place: int) -> tuple[str, str, str]:
    if place >= len(levels):
        return "", "", ""
    level = levels[place]
    return str(level.count), level.quantity, level.price


def _book_order(side: str, order: BookOrder) -> tuple[Cell, ...]:
    return _side(side), order.price, order.remaining_quantity, str(order.version), order.order_id


# --- Words and columns --------------------------------------------------------------------------


def _status(status: str) -> Text:
    return Text(status, _STATUS_STYLES.get(status, ""))


def _side(side: str) -> Text:
    return Text(side, SIDE_STYLES.get(side, ""))


def _at(price: object) -> str:
    return "at any price" if price is UNSET else f"at {price}"


def _or_dash(value: object) -> str:
    return "-" if value is UNSET or value is None else str(value)


def _text(cell: Cell) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(cell)


def _pointed(cells: list[Text]) -> list[Text]:
    # As many places after the point in each, blanks where there are no digits.
    places = [len(part) + len(point) for _, point, part in (c.plain.partition(".") for c in cells)]
    most = max(places, default=0)
    for cell, count in zip(cells, places, strict=True):
        cell.pad_right(most - count)
    return cells


def _to_the_right(cells: list[Text]) -> list[Text]:
    width = max(len(cell) for cell in cells)
    for cell in cells:
        cell.pad_left(width - len(cell))
    return cells


def _to_the_left(cells: list[Text]) -> list[Text]:
    width = max(len(cell) for cell in cells)
    for cell in cells:
        cell.pad_right(width - len(cell))
    return cells


def _joined(cells: Sequence[Text]) -> Text:
    line = Text(_GAP).join(cells)
    line.rstrip()
    return line
