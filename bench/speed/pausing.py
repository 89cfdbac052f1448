"""Trial: how long a leader stands still, at worst, while it holds many orders.

Theory of operation. A leader of a full book goes on taking small requests on a real event loop,
and the longest turn of the loop is what somebody may have to wait beyond the ordinary. In it are
whatever comes only now and then: the collector, which runs as it does in a server, and tables that
grow; as many commands are taken as it needs for the greatest table to have grown. Then a snapshot
is written as a server does it, and the turns go on until it is there.

Requests are read from a file when it is their turn, so that neither the collector nor a fork finds
them in memory. Time on the wall: what else the machine does in it is in it too.
"""

import asyncio
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.speed import logs
from bench.speed.leader import SPECIFICATION, Leader
from dex_server import snapshotting
from dex_server.collecting import keep_collections_short
from dex_server.replication.ports import Position

Requests = Iterator[tuple[str, bytes]]


def pauses(file: str, resting: str, taken: str) -> dict[str, float]:
    """Give ms of turns: ordinary, longest, longest while a snapshot is written.

    Args:
        file: Requests.
        resting: How many of them come before anything is measured.
        taken: How many after those come before the snapshot; the others while it is written.
    """
    # As a server begins: the collector finds all that it has loaded.
    import_module("dex_server.cli")
    keep_collections_short()
    leader = Leader()
    with Path(file).open("rb") as stream:
        requests = logs.read_requests(stream)
        for group in logs.grouped(islice(requests, int(resting))):
            leader.group(group)
        return asyncio.run(_turns(leader, islice(requests, int(taken)), requests))


async def _turns(leader: Leader, taken: Requests, left: Requests) -> dict[str, float]:
    turns = []
    for request in taken:
        began = perf_counter()
        leader.group([request])
        await asyncio.sleep(0)
        turns.append(perf_counter() - began)
    with_snapshot = []
    began = perf_counter()
    writing = asyncio.ensure_future(_written(leader))
    await asyncio.sleep(0)
    with_snapshot.append(perf_counter() - began)
    while not writing.done():
        another = next(left, None)
        began = perf_counter()
        if another is not None:
            leader.group([another])
        await asyncio.sleep(0)
        with_snapshot.append(perf_counter() - began)
    await writing
    milliseconds = 1_000
    return {
        "ordinary": median(turns) * milliseconds,
        "longest": max(turns) * milliseconds,
        "snapshot": max(with_snapshot) * milliseconds,
    }


async def _written(leader: Leader) -> None:
    # As the server's driver does: forked here and now, read as it comes, and named.
    market = leader.market
    position = Position(market.sequence, market.hash)
    digest = market.digest
    written = await snapshotting.fork_snapshot(market).result()
    snapshotting.name_of(SPECIFICATION.market, position, digest, written)
