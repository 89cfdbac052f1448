"""A bot that buys and sells at the best price, and prints the position that it ends with.

python docs/examples/bot.py nats://127.0.0.1:4222 alice BTC-USD 100
"""

import asyncio
import random
import sys
from decimal import Decimal

from dex_client import OutcomeUnknown, Side, connect


async def trade(servers: str, peer: str, market: str, rounds: str) -> None:
    position, sides = Decimal(0), list[Side](["buy", "sell"])
    async with connect(servers, peer=peer) as exchange, exchange.replica(market) as book:
        for side in random.choices(sides, k=int(rounds)):
            if best := book.best_ask if side == "buy" else book.best_bid:
                try:
                    receipt = await exchange.submit(
                        market, side=side, price=best.price, quantity="0.01", time_in_force="ioc"
                    )
                except OutcomeUnknown as unknown:
                    (receipt,) = await exchange.settle(unknown)
                filled = Decimal(receipt.filled_quantity or 0)
                position += filled if side == "buy" else -filled
    print(position)


asyncio.run(trade(*sys.argv[1:5]))
