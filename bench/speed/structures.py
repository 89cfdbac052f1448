"""Trials: the exchange's book with its matching policy, and the textbook's, and nothing around.

No events, no receipts, no remembered ids: adding, removing and walking. What stands around our book
here carries plans out on it, and finds an order by its number to cancel it, as the textbook does.
"""

from pathlib import Path

from bench.speed import flows
from bench.speed.clocked import rate, set_aside
from bench.speed.textbook import TextbookBook, TextbookOrder
from dex_engine.book import Book
from dex_engine.matching import plan
from dex_engine.order import Order
from dex_protocol import limits


class OurBook:
    """Book and matching, with plans carried out on the book alone."""

    def __init__(self) -> None:
        self._book = Book()
        self.orders: dict[int, Order] = {}

    def submit(self, number: int, order: Order) -> None:
        """Match an order, and rest what is left of it."""
        book = self._book
        is_buy = order.side == "buy"
        makers = book.asks if is_buy else book.bids
        left = order.quantity
        if makers.reaches(order.price):
            planned = plan(
                makers,
                limit=makers.rank(order.price),
                quantity=left,
                peer=order.peer,
                self_trade=order.self_trade,
                whole=False,
                makers_max=limits.MAKERS_COUNT_MAX,
            )
            left = planned.left
            for step in planned.steps:
                maker = step.maker
                if step.quantity < maker.remaining:
                    makers.lower(maker, step.quantity)
                else:
                    makers.remove(maker)
                    # The book knows no numbers; in a market the order's id is its key.
                    del self.orders[maker.acceptance]
        if left:
            order.remaining = left
            (book.bids if is_buy else book.asks).add(order)
            self.orders[number] = order

    def cancel(self, number: int) -> None:
        """Take a resting order out."""
        order = self.orders.pop(number)
        book = self._book
        (book.bids if order.side == "buy" else book.asks).remove(order)


def our_order(step: flows.Submitted) -> Order:
    """Put an order as our book takes it; its number stands for its id."""
    return Order(
        order_id="",
        peer=flows.PEERS[step.peer],
        side="buy" if step.is_buy else "sell",
        type="limit",
        price=step.price,
        quantity=step.quantity,
        time_in_force="gtc",
        expires_at=0,
        post_only=False,
        self_trade="cancel_taker",
        acceptance=step.number,
    )


def book(file: str) -> float:
    """Carry out a flow's steps on our book; commands a second."""
    flow = flows.read(Path(file))
    steps = [
        (step.number, our_order(step)) if isinstance(step, flows.Submitted) else step.order
        for step in flow.steps
    ]
    resting = [(step.number, our_order(step)) for step in flow.resting]
    set_aside()
    ours = OurBook()
    for each in resting:
        ours.submit(*each)

    def run() -> None:
        for step in steps:
            if isinstance(step, int):
                ours.cancel(step)
            else:
                ours.submit(*step)

    found = rate(len(steps), run)
    after = flow.resting_after
    assert len(ours.orders) == after, f"expected {after} orders, found {len(ours.orders)}"
    return found


def textbook(file: str) -> float:
    """Carry out a flow's steps on the textbook's book; commands a second."""
    flow = flows.read(Path(file))
    steps = [
        flows.textbook_order(step) if isinstance(step, flows.Submitted) else step.order
        for step in flow.steps
    ]
    resting = [flows.textbook_order(step) for step in flow.resting]
    set_aside()
    theirs = TextbookBook()
    for each in resting:
        theirs.submit(each)

    def run() -> None:
        for step in steps:
            if isinstance(step, TextbookOrder):
                theirs.submit(step)
            else:
                theirs.cancel(step)

    found = rate(len(steps), run)
    after = flow.resting_after
    assert len(theirs.orders) == after, f"expected {after} orders, found {len(theirs.orders)}"
    return found
