"""The stages in one process: engine, book, leader and follower, without NATS.

Knows nothing of how a trial measures; see child.py.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.speed import flows, logs, nodejs
from bench.speed.children import Trial, Words, in_child
from bench.speed.rounds import CannotMeasure, Claim, Figure, Scale, Stage

SEED: Final = 1

RESTING: Final = 10_000
"""Orders of an ordinary book."""

RATE: Final = "commands/s"

_OURS: Final = "dex"


# --- Files and rivals ---------------------------------------------------------------------------


@contextmanager
def _a_file() -> Iterator[Path]:
    with TemporaryDirectory(prefix="dex-bench-") as directory:
        yield Path(directory) / "flow"


@contextmanager
def _on_file(flow: flows.Flow) -> Iterator[Path]:
    with _a_file() as file:
        flows.write(flow, file)
        yield file


def _rival(package: str, trial: Trial) -> Callable[[], Awaitable[float]]:
    measure = trial.number()

    async def measure_if_there() -> float:
        if find_spec(package) is None:
            raise CannotMeasure(f"{package}: expected it installed (uv sync --group bench), is not")
        return await measure()

    return measure_if_there


def _nodejs(file: Path) -> Callable[[], Awaitable[float]]:
    async def command() -> Words:
        return await nodejs.command(file)

    return Trial(command).number()


# --- execute ------------------------------------------------------------------------------------


@asynccontextmanager
async def _execute(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    steps = 30_000 if scale.is_quick else 200_000
    with _on_file(flows.make(resting=RESTING, steps=steps, seed=SEED)) as file:
        yield [
            Figure(_OURS, RATE, in_child("execute", file).number()),
            *(
                Figure(name.replace("_", " "), RATE, _rival(package, in_child(name, file)))
                for name, package in (
                    ("lightmatchingengine", "lightmatchingengine"),
                    ("pyorderbook", "pyorderbook"),
                    ("pyorderbook_ready_made", "pyorderbook"),
                )
            ),
            Figure(nodejs.PACKAGE, RATE, _nodejs(file)),
        ]


EXECUTE: Final = Stage(
    name="execute",
    title="decoded command to receipt and events, with ids, checks and digest, against order books "
    "that only match: 10,000 orders rest, half of the commands cancel, 8 peers",
    open=_execute,
    claims=(
        Claim(figure=_OURS, value=200_000),
        Claim(figure=_OURS, against=("lightmatchingengine",), ratio=1.0),
        Claim(figure=_OURS, against=("pyorderbook",), ratio=1.0),
        Claim(figure=_OURS, against=(nodejs.PACKAGE,), ratio=1.0),
    ),
)

# --- dense_book, sparse_book, one_level ---------------------------------------------------------

_TEXTBOOK: Final = "textbook"
_LIQUIBOOK: Final = "liquibook"


@asynccontextmanager
async def _dense_book(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    with _on_file(_books_flow(scale, flows.DISTANCE)) as file:
        yield [*_books(file), *_books_ready_made(file)]


@asynccontextmanager
async def _sparse_book(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    with _on_file(_books_flow(scale, flows.SPARSE_DISTANCE)) as file:
        yield [*_books(file), *_books_ready_made(file)]


@asynccontextmanager
async def _one_level(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    with _on_file(flows.one_level(10_000 if scale.is_quick else 50_000, SEED)) as file:
        yield _books(file)


def _books_flow(scale: Scale, distance: int) -> flows.Flow:
    steps = 50_000 if scale.is_quick else 500_000
    return flows.make(resting=RESTING, steps=steps, seed=SEED, distance=distance)


def _books(file: Path) -> list[Figure]:
    return [
        Figure(_OURS, RATE, in_child("book", file).number()),
        Figure(_TEXTBOOK, RATE, in_child("textbook", file).number()),
        Figure(_LIQUIBOOK, RATE, _rival("liquibook", in_child("liquibook", file))),
    ]


def _books_ready_made(file: Path) -> list[Figure]:
    liquibook = _rival("liquibook", in_child("liquibook_ready_made", file))
    return [
        Figure(f"{_OURS} ready made", RATE, in_child("book_ready_made", file).number()),
        Figure(f"{_TEXTBOOK} ready made", RATE, in_child("textbook_ready_made", file).number()),
        Figure(f"{_LIQUIBOOK} ready made", RATE, liquibook),
    ]


_OF_BOOKS: Final = (
    Claim(figure=_OURS, against=(_TEXTBOOK,), ratio=1.8),
    Claim(figure=_OURS, against=(_LIQUIBOOK,), ratio=2.0),
)

DENSE_BOOK: Final = Stage(
    name="dense_book",
    title="book and matching alone, on the flow of execute, against a sorted dict of dicts, and "
    "against C++ behind SWIG, making orders included: some 11 orders stand at a price",
    open=_dense_book,
    claims=_OF_BOOKS,
)

SPARSE_BOOK: Final = Stage(
    name="sparse_book",
    title="the same where the 10,000 orders stand at some 6,000 prices, which come and go",
    open=_sparse_book,
    claims=_OF_BOOKS,
)

ONE_LEVEL: Final = Stage(
    name="one_level",
    title="the same with 50,000 orders at one price (quick: 10,000): half are canceled at random "
    "places, the rest is eaten from the front",
    open=_one_level,
    claims=(
        Claim(figure=_OURS, against=(_TEXTBOOK,), ratio=1.0),
        Claim(figure=_OURS, against=(_LIQUIBOOK,), ratio=1.0),
    ),
)

# --- large_book ---------------------------------------------------------------------------------

_LARGE: Final = "large book"
_ORDINARY: Final = "ordinary book"


@asynccontextmanager
async def _large_book(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    steps = 20_000 if scale.is_quick else 200_000
    large = 100_000 if scale.is_quick else 1_000_000
    with (
        _on_file(flows.make(resting=RESTING, steps=steps, seed=SEED)) as ordinary_file,
        _on_file(flows.make(resting=large, steps=steps, seed=SEED)) as large_file,
    ):
        yield [
            Figure(_LARGE, RATE, in_child("execute", large_file).number()),
            Figure(_ORDINARY, RATE, in_child("execute", ordinary_file).number()),
        ]


LARGE_BOOK: Final = Stage(
    name="large_book",
    title="execute with 1,000,000 orders resting (quick: 100,000), against 10,000",
    open=_large_book,
    claims=(Claim(figure=_LARGE, against=(_ORDINARY,), ratio=0.6),),
)

# --- leader_cpu, memory -------------------------------------------------------------------------


@asynccontextmanager
async def _leader_cpu(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    steps = 20_000 if scale.is_quick else 100_000
    flow = flows.make(resting=RESTING, steps=steps, seed=SEED, with_cancels=False)
    with _on_file(flow) as file:
        yield [Figure("processor time", "µs/order", in_child("leader_cpu", file).number())]


LEADER_CPU: Final = Stage(
    name="leader_cpu",
    title="a leader's processor time for an order, from a request's bytes to its reply's: "
    "decoding, turns and limits, executing, encoding and sealing, encoding receipts; batches of "
    "100, 20 to a commit, 8 peers, 10,000 orders rest",
    open=_leader_cpu,
    claims=(Claim(figure="processor time", value=8.0, is_at_most=True),),
)


@asynccontextmanager
async def _memory(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    if sys.platform != "linux":
        raise CannotMeasure(f"memory: expected Linux, to read /proc/self/statm; is {sys.platform}")
    count = 100_000 if scale.is_quick else 1_000_000
    yield [Figure("resident memory", "bytes/order", in_child("memory", count).number())]


MEMORY: Final = Stage(
    name="memory",
    title="by how much a leader grows from an open market without orders to 1,000,000 that rest "
    "(quick: 100,000), all included",
    open=_memory,
    claims=(Claim(figure="resident memory", value=600.0, is_at_most=True),),
)

# --- pauses -------------------------------------------------------------------------------------


def _write_requests(file: Path, resting: int, steps: int) -> tuple[int, int]:
    flow = flows.make(resting=resting, steps=steps, seed=SEED)
    before, after = list(logs.requests(flow.resting)), list(logs.requests(flow.steps))
    logs.write_requests([*before, *after], file)
    return len(before), len(after)


@asynccontextmanager
async def _pauses(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    # CPython 3.11 to 3.14 let a dict grow when 2/3 of 2^n places have been used since it grew last:
    # half of the steps are orders, so the dicts of open orders grow in either.
    resting, steps = (80_000, 40_000) if scale.is_quick else (1_000_000, 1_200_000)
    with _a_file() as file:
        before, after = _write_requests(file, resting, steps)
        trial = in_child("pauses", file, before, after * 3 // 4)
        yield [
            Figure("an ordinary turn", "ms", trial.number("ordinary")),
            Figure("longest turn", "ms", trial.number("longest")),
            Figure("longest while a snapshot is written", "ms", trial.number("snapshot")),
        ]


PAUSES: Final = Stage(
    name="pauses",
    title="turns of a leader's loop, a request of 100 commands in each, while 1,000,000 orders "
    "rest (quick: 80,000): collector and growing tables included",
    open=_pauses,
    claims=(Claim(figure="longest turn", value=20.0, is_at_most=True),),
)

# --- apply --------------------------------------------------------------------------------------


@asynccontextmanager
async def _apply(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
    steps = 20_000 if scale.is_quick else 200_000
    with _on_file(flows.make(resting=RESTING, steps=steps, seed=SEED)) as file:
        trial = in_child("apply", file)
        yield [
            Figure("apply", "events/s", trial.number("apply")),
            Figure("decode alone", "events/s", trial.number("decode")),
        ]


APPLY: Final = Stage(
    name="apply",
    title="following commits of 2,000 commands each: chain, every event and every digest checked",
    open=_apply,
    claims=(Claim(figure="apply", value=250_000),),
)

STAGES: Final = (
    EXECUTE,
    DENSE_BOOK,
    SPARSE_BOOK,
    ONE_LEVEL,
    LARGE_BOOK,
    LEADER_CPU,
    MEMORY,
    PAUSES,
    APPLY,
)
"""In the order they are measured."""
