"""What a service on NATS costs by itself: it answers each request with the same bytes.

As the documentation of nats-py has it, with nothing of ours but the key; in the exchange's own
account, like its servers, so that requests come to it by the same way. The best that a service in
Python on nats-py could do, which the exchange is compared with.

    python -m bench.speed.echo --nats nats://127.0.0.1:4222 --key server.nk
"""

import asyncio
from pathlib import Path
from typing import Final

import click
import nats
from nats.aio.msg import Msg

from bench.speed import talk
from dex_protocol import subjects

MARKET: Final = "ECHO"
"""What it goes by, where the exchange has markets: peers may send orders to any."""


async def _serve(url: str, key: Path) -> None:
    connection = await nats.connect(url, nkeys_seed=str(key), name="echo")

    async def respond(message: Msg) -> None:
        await message.respond(message.data)

    await connection.subscribe(subjects.orders(MARKET, "*"), queue="echo", cb=respond)
    await connection.flush()
    await talk.stay()


@click.command()
@click.option("--nats", "url", required=True)
@click.option("--key", type=click.Path(path_type=Path), required=True)
def main(url: str, key: Path) -> None:
    """Serve until the end of the input."""
    asyncio.run(_serve(url, key))


if __name__ == "__main__":
    main()
