"""A program that follows a market, by an events iterator and by a replica, and writes both down.

python -m tests.integration.follower URLS MARKET DIRECTORY NAME RECONNECTIONS

Each commit becomes a line of `NAME.commits`, its sequence and the hash of its bytes, and the node
that it is connected to stands in `NAME.node`. Meanwhile it reconnects as often as it was told to.
When the file `end` names a commit, it follows up to there and prints its replica's state as JSON.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from dex_client import Exchange, connect
from dex_protocol.codec import hash_of

COMMITS_BETWEEN = 10
"""Between two of the reconnections."""

POLL_S = 0.05


class Recorder:
    """The commits that an iterator gave, from the first one of the log on."""

    def __init__(self, exchange: Exchange, market: str, path: Path, *, reconnections: int) -> None:
        self.newest = 0
        self._exchange = exchange
        self._market = market
        self._path = path
        self._reconnections = reconnections

    async def run(self) -> None:
        """Write down each commit; without end."""
        due = COMMITS_BETWEEN
        left = self._reconnections
        with self._path.open("w", buffering=1, encoding="ascii") as lines:
            async for commit in self._exchange.events(self._market, from_sequence=1):
                lines.write(f"{commit.sequence} {hash_of(commit.payload)}\n")
                self.newest = commit.sequence
                if left and self.newest >= due and await self._exchange.reconnect():
                    due = self.newest + COMMITS_BETWEEN
                    left -= 1
                    if left == 0:
                        say(f"reconnected {self._reconnections} times")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")


def read(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.exists() else ""


async def note_node(exchange: Exchange, path: Path) -> None:
    """Keep the address of the node in a file; without end."""
    while True:
        write(path, exchange.node or "")
        await asyncio.sleep(POLL_S)


async def named_end(path: Path) -> int:
    """Wait until it is known how far to follow."""
    while not (text := read(path)):  # noqa: ASYNC110  (a test's program)
        await asyncio.sleep(POLL_S)
    return int(text)


async def main(urls: str, market: str, directory: str, name: str, reconnections: str) -> None:
    """Follow."""
    place = Path(directory)
    async with connect(urls, peer=name) as exchange, exchange.replica(market) as replica:
        recorder = Recorder(
            exchange, market, place / f"{name}.commits", reconnections=int(reconnections)
        )
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(recorder.run()),
                tasks.create_task(note_node(exchange, place / f"{name}.node")),
            ]
            end = await named_end(place / "end")
            while recorder.newest < end:  # noqa: ASYNC110  (a test's program)
                await asyncio.sleep(POLL_S)
            await replica.wait_for(end)
            for task in beside:
                task.cancel()
        state = {
            "sequence": replica.sequence,
            "digest": replica.digest,
            "divergences": replica.divergences,
        }
        say(msgspec.json.encode(state).decode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
