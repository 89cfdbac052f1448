"""Flows: sequences of commands from a seed, the same for everybody who is measured.

Theory of operation. A flow is made once, before any clock starts, and written to a file; every
contestant reads it there and puts it into the words of its own before its clock starts. A flow
begins with orders that rest, and goes on with *steps*: about half submits, nine of ten of which
rest near the touch and one crosses; about half cancels of random open orders. The textbook's book
runs along while a flow is made, so that every cancel is of an order that is open then, and the book
stays about as large as it was. No order meets one of its own peer, since most contestants know of
no peers; so all of them have the same book after each step.

Knows nothing of who reads it.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from bench.speed.textbook import TextbookBook, TextbookOrder
from deploy.keys import LOAD_PEERS
from dex_protocol.commands import Cancel, Command, Side, Submit
from dex_protocol.ids import make_id
from dex_protocol.numbers import Scale

PEERS: Final = LOAD_PEERS
"""Eight."""

TICK: Final = Scale("0.01")
LOT: Final = Scale("0.001")

MIDDLE: Final = 1_000_000
"""Where prices begin, in ticks: 10000.00."""

DISTANCE: Final = 100
"""Mean distance of a resting order from the touch, in ticks (it falls off exponentially): 10,000
orders stand at some 900 prices, about 50 at those near the touch."""

SPARSE_DISTANCE: Final = 2_000
"""The same where ticks are small beside the spread, as at most exchanges of today: 10,000 orders
stand at some 6,000 prices, three of four alone, so that levels come and go with them."""

QUANTITY_MAX: Final = 1_000
"""In lots; quantities are even between 1 and this."""

CROSSING: Final = 0.1
"""Of the submits: they come a few ticks into the other side."""

CROSSING_TICKS: Final = 2

CANCELS: Final = 0.5
"""Of the steps, as long as the book is as large as it was at first; fewer when it has shrunk, so
that it stays nearly so: it comes to rest at 0.45 of the steps, and 0.9 of the orders."""

TIMESTAMP: Final = 1_763_800_000_000
"""Of every id, in ms."""


class Submitted(Struct, array_like=True, tag="s", frozen=True, gc=False):
    """An order to come, in ticks and lots; `number` counts a flow's commands, from 1."""

    number: int
    peer: int
    is_buy: bool
    price: int
    quantity: int


class Withdrawn(Struct, array_like=True, tag="c", frozen=True, gc=False):
    """A cancel to come of the order of some number."""

    number: int
    peer: int
    order: int


Step: TypeAlias = Submitted | Withdrawn


class Flow(Struct, frozen=True):
    """Orders that rest before the clock starts, what comes after, and how many rest at the end."""

    resting: list[Submitted]
    steps: list[Step]
    resting_after: int


# --- Making flows -------------------------------------------------------------------------------


def side_of(step: Submitted) -> Side:
    """Name its side as the exchange does."""
    return "buy" if step.is_buy else "sell"


def resting_orders(count: int, random: Random, distance: int = DISTANCE) -> Iterator[Submitted]:
    """Make orders that rest on both sides of the middle, and never meet."""
    for number in range(1, count + 1):
        is_buy = random.random() < 0.5
        away = 1 + _ticks(random, distance)
        price = max(1, MIDDLE - away) if is_buy else MIDDLE + away
        yield Submitted(number, random.randrange(len(PEERS)), is_buy, price, _quantity(random))


def make(
    *, resting: int, steps: int, seed: int, with_cancels: bool = True, distance: int = DISTANCE
) -> Flow:
    """Make a flow; without cancels the book grows by most of the steps.

    `distance` is the mean one of resting orders from the touch, in ticks.
    """
    random = Random(seed)
    book = TextbookBook()
    before = list(resting_orders(resting, random, distance))
    for each in before:
        book.submit(textbook_order(each))
    maker = _Maker(book, [each.number for each in before], random, distance)
    share = CANCELS / resting if with_cancels else 0.0
    after = list(islice(maker.steps(resting + 1, share), steps))
    return Flow(before, after, len(book.orders))


class _Maker:
    def __init__(
        self, book: TextbookBook, open_numbers: list[int], random: Random, distance: int
    ) -> None:
        self._book = book
        self._open = open_numbers
        self._random = random
        self._distance = distance

    def steps(self, first: int, share: float) -> Iterator[Step]:
        random, book = self._random, self._book
        number = first
        while True:
            if random.random() < share * len(book.orders):
                order = book.orders[self._any_open()]
                book.cancel(order.number)
                yield Withdrawn(number, order.peer, order.number)
            else:
                submitted = self._submitted(number)
                book.submit(textbook_order(submitted))
                self._open.append(number)
                yield submitted
            number += 1

    def _any_open(self) -> int:
        # Takes it out; those that were filled meanwhile are passed over.
        numbers = self._open
        while True:
            index = self._random.randrange(len(numbers))
            number, numbers[index] = numbers[index], numbers[-1]
            numbers.pop()
            if number in self._book.orders:
                return number

    def _submitted(self, number: int) -> Submitted:
        random, book = self._random, self._book
        is_buy = random.random() < 0.5
        touch = book.best(is_buy=not is_buy) or MIDDLE
        if random.random() < CROSSING:
            price = touch + CROSSING_TICKS if is_buy else max(1, touch - CROSSING_TICKS)
            quantity = _quantity(random)
            met = self._met(is_buy=is_buy, price=price, quantity=quantity)
            others = [peer for peer in range(len(PEERS)) if peer not in met]
            if others:
                return Submitted(number, random.choice(others), is_buy, price, quantity)
        away = 1 + _ticks(random, self._distance)
        price = max(1, touch - away) if is_buy else touch + away
        return Submitted(number, random.randrange(len(PEERS)), is_buy, price, _quantity(random))

    def _met(self, *, is_buy: bool, price: int, quantity: int) -> list[int]:
        met = []
        for maker in self._book.makers(is_buy=is_buy, price=price):
            met.append(maker.peer)
            quantity -= maker.remaining
            if quantity <= 0:
                break
        return met


def _ticks(random: Random, mean: int) -> int:
    return int(random.expovariate(1 / mean))


def _quantity(random: Random) -> int:
    return random.randint(1, QUANTITY_MAX)


def one_level(count: int, seed: int) -> Flow:
    """Make orders at one price, then cancels of half of them at random places, and one order after
    the other that eats the rest from the front.
    """
    random = Random(seed)
    before = [
        Submitted(number, random.randrange(len(PEERS) - 1), False, MIDDLE, _quantity(random))
        for number in range(1, count + 1)
    ]
    left = {each.number: each for each in before}
    steps: list[Step] = []
    for each in random.sample(before, count // 2):
        steps.append(Withdrawn(count + len(steps) + 1, each.peer, each.number))
        del left[each.number]
    # Each has the size of who stands in front; none of the last peer's rests.
    taker = len(PEERS) - 1
    for each in left.values():
        number = count + len(steps) + 1
        steps.append(Submitted(number, taker, True, MIDDLE, each.quantity))
    return Flow(before, steps, 0)


# --- Writing and reading them -------------------------------------------------------------------


def write(flow: Flow, file: Path) -> None:
    """Write a flow as JSON."""
    file.write_bytes(msgspec.json.encode(flow))


def read(file: Path) -> Flow:
    """Read what `write` wrote."""
    return msgspec.json.decode(file.read_bytes(), type=Flow)


# --- In others' words ---------------------------------------------------------------------------


def command_of(step: Step) -> Command:
    """Put a step as the exchange's peers do."""
    peer = PEERS[step.peer]
    if isinstance(step, Submitted):
        return Submit(
            side=side_of(step),
            quantity=LOT.text(step.quantity),
            order_id=make_id("order", peer, TIMESTAMP, step.number),
            price=TICK.text(step.price),
        )
    return Cancel(
        order_id=make_id("order", peer, TIMESTAMP, step.order),
        command_id=make_id("command", peer, TIMESTAMP, step.number),
    )


def textbook_order(step: Submitted) -> TextbookOrder:
    """Put an order as the textbook does."""
    return TextbookOrder(step.number, step.peer, step.is_buy, step.price, step.quantity)


def batches(steps: Iterable[Step], size: int) -> Iterator[tuple[str, list[Command]]]:
    """Gather the steps of each peer into batches: the peer, and so many commands of it.

    What is left over at the end comes in shorter ones. Within a peer the order stays; a peer's
    cancel is of its own order, so it never comes before it. Which peers' orders meet changes a
    little.
    """
    gathered: list[list[Command]] = [[] for _ in PEERS]
    for step in steps:
        batch = gathered[step.peer]
        batch.append(command_of(step))
        if len(batch) == size:
            yield PEERS[step.peer], batch
            gathered[step.peer] = []
    for peer, batch in zip(PEERS, gathered, strict=True):
        if batch:
            yield peer, batch
