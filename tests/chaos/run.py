"""One run: a cluster, load on it, faults in it, and in the end everything that was seen."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct

from tests.chaos.ending import collect
from tests.chaos.generators import generators
from tests.chaos.nemesis import Happened, Nemesis
from tests.chaos.onlooker import Change, onlooker
from tests.chaos.schedule import MARKETS, Fault
from tests.chaos.stage import stage
from tests.checker.history import History


class Seen(Struct):
    """What came of a run."""

    start: float
    """When the load began; this and all times by the monotonic clock."""
    stop: float
    """When no more was sent."""
    happened: list[Happened]
    changes: list[Change]
    """All leaders, first ones too."""
    history: History
    complaints: list[str]
    """What was wrong beside what a history can tell; empty in a good run."""


async def run(
    directory: Path,
    faults: Sequence[Fault],
    *,
    seed: int,
    duration: float,
    rate: float,
    say: Callable[[float | None, str], None],
) -> Seen:
    """Run a schedule, and end everything in any case.

    Args:
        directory: Of all files.
        faults: What to do to the cluster.
        seed: Of what is sent.
        duration: Of the load, in seconds.
        rate: Actions in a second.
        say: Told what happens, and how many seconds after the start.
    """
    start: float | None = None

    def note(text: str) -> None:
        say(None if start is None else time.monotonic() - start, text)

    async with AsyncExitStack() as stack:
        note("three nodes, three servers and all links between them are started")
        made = await stack.enter_async_context(stage(directory, MARKETS))
        looking = await stack.enter_async_context(onlooker(made, MARKETS, note))
        load = await stack.enter_async_context(
            generators(made, MARKETS, seed=seed, rate=rate, say=note)
        )
        nemesis = Nemesis(made, faults, cast=looking.cast, say=note)
        start = time.monotonic()
        note("all peers begin to send")
        await load.go()
        try:
            await nemesis.run(start)
            await asyncio.sleep(max(start + duration - time.monotonic(), 0))
        finally:
            await nemesis.heal()
        stop = time.monotonic()
        note("no more is sent; the last outcomes are waited for")
        nemesis.check()
        complaints = nemesis.complaints
        await load.stop()
        note("all is quiet; the servers come to stand at one place, and the logs are read")
        history, more = await collect(looking, load, MARKETS, say=note)
        nemesis.check()
        complaints += more
        note("everything is ended")
        return Seen(start, stop, nemesis.happened, looking.changes, history, complaints)
