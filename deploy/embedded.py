"""An exchange for the time of one program: one node, one server, nothing left behind.

One NATS node with JetStream on a free port of loopback, with a temporary store. Demonstrations and
benchmarks run against it.
"""

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from deploy import markets, nodes, servers
from deploy.servers import ServerProcess

Say = Callable[[str], None]


class Embedded(Struct, frozen=True):
    """A running exchange."""

    url: str
    """Where its node takes clients."""
    server: ServerProcess


@asynccontextmanager
async def embedded(market_names: Sequence[str], *, say: Say) -> AsyncIterator[Embedded]:
    """Run an exchange, and end all of it in any case.

    Args:
        market_names: The markets to open.
        say: Told what happens.

    Raises:
        NodeNotReady, ServerEnded, MarketNotOpen, ProgramMissing: the exchange did not start.
    """
    specifications = [markets.specification(market) for market in market_names]
    async with AsyncExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="dex-")))
        (port,) = nodes.free_ports(1)
        say(f"starting a NATS node on port {port}, with a store that is removed afterwards")
        node = nodes.start(nodes.alone(directory / "nats-1", port=port))
        undo.push_async_callback(node.stop)
        await nodes.wait_until_ready([node])

        say(f"starting a server, and opening {' and '.join(market_names)}")
        server = servers.start(
            "server-1", urls=[node.url], replica_count=1, log=directory / "server-1.log"
        )
        undo.push_async_callback(server.stop)
        await servers.open_markets([server], specifications, urls=[node.url])
        yield Embedded(node.url, server)
        say("stopping the server and the node")
