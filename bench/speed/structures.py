"""Trials: the exchange's book with its matching policy, and the textbook's, and nothing around.

No events, no receipts, no remembered ids: adding, removing and walking. What stands around our book
here carries plans out on it, and finds an order by its number to cancel it, as the textbook does.

Whoever uses a book makes an object of each order, and how dear that is belongs to the book: the
clock runs from an order's number, peer, side, price and quantity to where it rests, or what it has
met. The trials of orders that are ready made leave that out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.speed import flows
from bench.speed.clocked import rate, set_aside
from bench.speed.textbook import TextbookBook, TextbookOrder
from dex_engine.book import Book, BookSide
from dex_engine.matching import plan
from dex_engine.order import Order
from dex_protocol import limits


class OurBook:
    """Book and matching, with plans carried out on the book alone."""

    def __init__(self) -> None:
        self._book = Book()
        self.orders: dict[int, Order] = {}

    def submit(self, order: Order) -> None:
        """Match an order, and rest what is left of it."""
        book = self._book
        if order.side == "buy":
            makers, own = book.asks, book.bids
        else:
            makers, own = book.bids, book.asks
        if makers.reaches(order.price) and not self._match(order, makers):
            return
        own.add(order)
        # The book knows no ids; its acceptance stands for it.
        self.orders[order.acceptance] = order

    def cancel(self, number: int) -> None:
        """Take a resting order out."""
        order = self.orders.pop(number)
        book = self._book
        (book.bids if order.side == "buy" else book.asks).remove(order)

    def _match(self, order: Order, makers: BookSide) -> int:
        planned = plan(
            makers,
            limit=makers.rank(order.price),
            quantity=order.quantity,
            peer=order.peer,
            self_trade=order.self_trade,
            whole=False,
            makers_max=limits.MAKERS_COUNT_MAX,
        )
        for step in planned.steps:
            maker = step.maker
            if step.quantity < maker.remaining:
                makers.lower(maker, step.quantity)
            else:
                makers.remove(maker)
                del self.orders[maker.acceptance]
        if planned.left:
            order.remaining = planned.left
        return planned.left


def our_order(step: flows.Submitted) -> Order:
    """Put an order as our book takes it; its number stands for its acceptance."""
    peer, side = flows.PEERS[step.peer], flows.side_of(step)
    return Order(
        "",
        peer,
        side,
        "limit",
        step.price,
        step.quantity,
        "gtc",
        0,
        False,
        "cancel_taker",
        step.number,
        step.quantity,
    )


def book(file: str) -> float:
    """Carry out a flow's steps on our book; commands a second."""

    def put(step: flows.Submitted) -> tuple[Any, ...]:
        peer, side = flows.PEERS[step.peer], flows.side_of(step)
        return step.number, peer, side, step.price, step.quantity

    def run(ours: OurBook, steps: list[Any]) -> None:
        submit, cancel = ours.submit, ours.cancel
        for step in steps:
            if type(step) is int:
                cancel(step)
            else:
                number, peer, side, price, quantity = step
                submit(
                    Order(
                        "",
                        peer,
                        side,
                        "limit",
                        price,
                        quantity,
                        "gtc",
                        0,
                        False,
                        "cancel_taker",
                        number,
                        quantity,
                    )
                )

    return _found(file, OurBook, put, run)


def book_ready_made(file: str) -> float:
    """Carry out a flow's steps on our book with orders that are there already."""
    return _found(file, OurBook, our_order, _run_ready_made)


def textbook(file: str) -> float:
    """Carry out a flow's steps on the textbook's book; commands a second."""

    def put(step: flows.Submitted) -> tuple[Any, ...]:
        return step.number, step.peer, step.is_buy, step.price, step.quantity

    def run(theirs: TextbookBook, steps: list[Any]) -> None:
        submit, cancel = theirs.submit, theirs.cancel
        for step in steps:
            if type(step) is int:
                cancel(step)
            else:
                number, peer, is_buy, price, quantity = step
                submit(TextbookOrder(number, peer, is_buy, price, quantity))

    return _found(file, TextbookBook, put, run)


def textbook_ready_made(file: str) -> float:
    """Carry out a flow's steps on the textbook's book with orders that are there already."""
    return _found(file, TextbookBook, flows.textbook_order, _run_ready_made)


def _run_ready_made(book: OurBook | TextbookBook, steps: list[Any]) -> None:
    submit, cancel = book.submit, book.cancel
    for step in steps:
        if type(step) is int:
            cancel(step)
        else:
            submit(step)


def _found(
    file: str,
    make: Callable[[], Any],
    put: Callable[[flows.Submitted], Any],
    run: Callable[[Any, list[Any]], None],
) -> float:
    # Steps are what `put` makes of an order, and the number of one to cancel.
    flow = flows.read(Path(file))
    resting = [put(step) for step in flow.resting]
    steps = [put(step) if isinstance(step, flows.Submitted) else step.order for step in flow.steps]
    after = flow.resting_after
    del flow
    set_aside()
    book = make()
    run(book, resting)
    found = rate(len(steps), lambda: run(book, steps))
    assert len(book.orders) == after, f"expected {after} orders, found {len(book.orders)}"
    return found
