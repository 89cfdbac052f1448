"""Prints a market's best prices at every commit, from a book that is checked at every commit.

python docs/examples/follow_book.py nats://127.0.0.1:4222 BTC-USD
"""

import asyncio
import sys

from dex_client import BookLevel, Divergence, connect


def shown(level: BookLevel | None) -> str:
    return "nobody" if level is None else f"{level.quantity} @ {level.price}"


def alarm(divergence: Divergence) -> None:
    print(f"the book was wrong and is rebuilt: {divergence.text}", file=sys.stderr)


async def follow(servers: str, market: str) -> None:
    async with (
        connect(servers, peer="default") as exchange,
        exchange.replica(market, on_divergence=alarm) as book,
    ):
        print(f"{book.sequence:>8}  bid {shown(book.best_bid)}  ask {shown(book.best_ask)}")
        async for commit in book:
            best = f"bid {shown(book.best_bid)}  ask {shown(book.best_ask)}"
            print(f"{commit.sequence:>8}  {best}  {len(commit.events)} events", flush=True)


try:
    asyncio.run(follow(*sys.argv[1:3]))
except KeyboardInterrupt:
    sys.exit()
