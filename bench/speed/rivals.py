"""Trials: other order books of the Python package index, on the same flows.

They match, and that is all: no ids of the peers', no checks, no receipts, no digest. Prices are
whole ticks (integers are the fastest of what each of them takes), and each is told to cancel in the
words that cost it least.

Knows nothing of the exchange.
"""

from pathlib import Path
from typing import Any

from bench.speed import flows
from bench.speed.clocked import rate, set_aside

SYMBOL = "BTC-USD"


def lightmatchingengine(file: str) -> float:
    """Carry out a flow's steps; commands a second."""
    from lightmatchingengine.lightmatchingengine import LightMatchingEngine, Side

    flow = flows.read(Path(file))
    # It numbers orders itself, from 1 and without holes: its numbers are known beforehand.
    numbers: dict[int, int] = {}
    steps: list[Any] = []
    for step in [*flow.resting, *flow.steps]:
        if isinstance(step, flows.Submitted):
            numbers[step.number] = len(numbers) + 1
            side = Side.BUY if step.is_buy else Side.SELL
            steps.append((step.price, step.quantity, side))
        else:
            steps.append(numbers[step.order])
    resting, steps = steps[: len(flow.resting)], steps[len(flow.resting) :]
    set_aside()
    engine = LightMatchingEngine()
    for price, quantity, side in resting:
        engine.add_order(SYMBOL, price, quantity, side)

    def run() -> None:
        for step in steps:
            if isinstance(step, int):
                engine.cancel_order(step, SYMBOL)
            else:
                engine.add_order(SYMBOL, *step)

    found = rate(len(steps), run)
    book = engine.order_books[SYMBOL]
    _check(flow, sum(len(level) for side in (book.bids, book.asks) for level in side.values()))
    return found


def pyorderbook(file: str) -> float:
    """Carry out a flow's steps; commands a second.

    An order gets its id when it is made, so that is in the clock, as with the others; the dict
    of orders by number, without which its user cannot cancel one, is in it too.
    """
    from pyorderbook import Book, Order, Side

    flow = flows.read(Path(file))
    steps = [
        (step.number, Side.BID if step.is_buy else Side.ASK, step.price, step.quantity)
        if isinstance(step, flows.Submitted)
        else step.order
        for step in [*flow.resting, *flow.steps]
    ]
    resting, steps = steps[: len(flow.resting)], steps[len(flow.resting) :]
    set_aside()
    book = Book()
    orders: dict[int, Order] = {}

    def run(steps: list[Any]) -> None:
        for step in steps:
            if isinstance(step, int):
                book.cancel(orders.pop(step))
            else:
                number, side, price, quantity = step
                order = orders[number] = Order(side, SYMBOL, price, quantity)
                book.match(order)

    run(resting)
    found = rate(len(steps), lambda: run(steps))
    _check(flow, len(book.order_map))
    return found


def pyorderbook_ready_made(file: str) -> float:
    """Carry out a flow's steps with orders that are there already; commands a second."""
    from pyorderbook import Book, Order, Side

    flow = flows.read(Path(file))
    orders = {
        step.number: Order(Side.BID if step.is_buy else Side.ASK, SYMBOL, step.price, step.quantity)
        for step in [*flow.resting, *flow.steps]
        if isinstance(step, flows.Submitted)
    }
    steps = _with_orders(flow, orders)
    set_aside()
    book = Book()
    for each in flow.resting:
        book.match(orders[each.number])

    def run() -> None:
        for is_submit, order in steps:
            if is_submit:
                book.match(order)
            else:
                book.cancel(order)

    found = rate(len(steps), run)
    _check(flow, len(book.order_map))
    return found


def liquibook(file: str) -> float:
    """Carry out a flow's steps; commands a second.

    Making orders, and the dict of them by number, are in the clock, as with the others.
    """
    from liquibook import SimpleOrder, liquibook_book_OrderBook

    flow = flows.read(Path(file))
    steps = [
        (step.number, step.is_buy, step.price, step.quantity)
        if isinstance(step, flows.Submitted)
        else step.order
        for step in [*flow.resting, *flow.steps]
    ]
    resting, steps = steps[: len(flow.resting)], steps[len(flow.resting) :]
    set_aside()
    book = liquibook_book_OrderBook()
    orders: dict[int, SimpleOrder] = {}

    def run(steps: list[Any]) -> None:
        add, cancel = book.add, book.cancel
        for step in steps:
            if type(step) is int:
                cancel(orders.pop(step))
            else:
                number, is_buy, price, quantity = step
                order = orders[number] = SimpleOrder(is_buy, price, quantity)
                add(order)

    run(resting)
    found = rate(len(steps), lambda: run(steps))
    _check(flow, book.bids().size() + book.asks().size())
    return found


def liquibook_ready_made(file: str) -> float:
    """Carry out a flow's steps with orders that are there already; commands a second."""
    # The plain book, without depth, and nobody listens: callbacks into Python would cost it more
    # than its work.
    from liquibook import SimpleOrder, liquibook_book_OrderBook

    flow = flows.read(Path(file))
    orders = {
        step.number: SimpleOrder(step.is_buy, step.price, step.quantity)
        for step in [*flow.resting, *flow.steps]
        if isinstance(step, flows.Submitted)
    }
    steps = _with_orders(flow, orders)
    set_aside()
    book = liquibook_book_OrderBook()
    for each in flow.resting:
        book.add(orders[each.number])

    def run() -> None:
        add, cancel = book.add, book.cancel
        for is_submit, order in steps:
            if is_submit:
                add(order)
            else:
                cancel(order)

    found = rate(len(steps), run)
    _check(flow, book.bids().size() + book.asks().size())
    return found


def _with_orders(flow: flows.Flow, orders: dict[int, Any]) -> list[tuple[bool, Any]]:
    # Whether it is submitted, and the order: who cancels gives that, not an id.
    return [
        (True, orders[step.number])
        if isinstance(step, flows.Submitted)
        else (False, orders[step.order])
        for step in flow.steps
    ]


def _check(flow: flows.Flow, found: int) -> None:
    after = flow.resting_after
    assert found == after, f"expected {after} orders, found {found}"
