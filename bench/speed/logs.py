"""Logs: the commits that a leader makes of a flow, as it would append them.

Knows nothing of where they are stored, nor of who reads them.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from msgspec import Struct

from bench.speed import flows
from bench.speed.leader import Leader
from dex_protocol.codec import encode

BATCH = 100
"""Commands of a request."""

GROUP = 20
"""Requests that a leader executes together, and puts into one commit: a full one."""

T = TypeVar("T")


class Log(Struct, frozen=True):
    """Payloads of commits, the first with sequence 1."""

    beginning: list[bytes]
    """The market's opening, and the orders that rest before anything is measured."""
    steps: list[bytes]
    events_count: int
    """Of the steps."""


def of(flow: flows.Flow) -> Log:
    """Have a leader make the commits of a flow."""
    leader = Leader()
    beginning = [leader.newest]
    for group in grouped(requests(flow.resting)):
        leader.group(group)
        beginning.append(leader.newest)
    before = leader.market.events_count
    steps = []
    for group in grouped(requests(flow.steps)):
        leader.group(group)
        steps.append(leader.newest)
    return Log(beginning, steps, leader.market.events_count - before)


def requests(steps: Iterable[flows.Step]) -> Iterator[tuple[str, bytes]]:
    """Put steps into requests of so many commands each: peers, and payloads."""
    for peer, commands in flows.batches(steps, BATCH):
        yield peer, encode(commands)


def write_requests(requests: Iterable[tuple[str, bytes]], file: Path) -> None:
    """Write requests, one to a line, for whoever is to hold none of them in memory."""
    with file.open("wb") as stream:
        for peer, payload in requests:
            stream.write(peer.encode() + b" " + payload + b"\n")


def read_requests(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Read what `write_requests` wrote, line by line."""
    for line in stream:
        peer, _, payload = line.rstrip(b"\n").partition(b" ")
        yield peer.decode(), payload


def grouped(items: Iterable[T], size: int = GROUP) -> Iterator[list[T]]:
    """Give items by so many; the last group may be shorter."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group
