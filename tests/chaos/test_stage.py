"""A cut between two nodes is one: no other way is left, and it heals."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import network
from tests.chaos.stage import Stage, stage

PATIENCE_S = 20.0
"""How long nodes may take to notice: pings go unanswered for 2 to 3 s."""


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(is_so):
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.1)


def knows_others(made: Stage, node: str) -> Callable[[], bool]:
    return lambda: made.routes_of(node) == set(network.neighbours(node))


async def test_nodes_that_are_cut_apart_find_no_other_way(tmp_path: Path) -> None:
    """Nodes tell each other of one that comes: then they would dial each other directly."""
    async with stage(tmp_path, ["BTC-USD"]) as made:
        cut = network.cut("nats-1", ["nats-2"], "held")
        await made.network.set(cut)
        await until(lambda: made.routes_of("nats-1") == {"nats-3"} == made.routes_of("nats-2"))

        await made.kill("nats-3")
        made.start("nats-3")
        await until(knows_others(made, "nats-3"))
        # So long it took at most when they did.
        await asyncio.sleep(2)

        assert made.routes_of("nats-1") == {"nats-3"} == made.routes_of("nats-2")

        await made.network.set(dict.fromkeys(cut, network.OPEN))
        for node in network.NODES:
            await until(knows_others(made, node))
