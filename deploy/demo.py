"""A demonstration: an exchange of its own, the load generator against it, and nothing left behind.

One NATS node with JetStream on a free port of loopback, with a temporary store; one server. What
this program says goes to stderr, since stdout is the load generator's.
"""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from deploy import markets, nodes, processes, servers

INTERRUPTED_GRACE_S: Final = 3.0
"""How long the load generator may take to end by itself: Ctrl-C reaches it too."""

Say = Callable[[str], None]


async def run(client_options: Sequence[str], *, market_names: Sequence[str], say: Say) -> int:
    """Run the load generator against an exchange made for it, and end all of it in any case.

    Args:
        client_options: For the load generator, besides the address.
        market_names: The markets to open.
        say: Told what happens.

    Returns:
        The load generator's exit code.

    Raises:
        NodeNotReady, ServerEnded, MarketNotOpen, ProgramMissing: the exchange did not start.
    """
    client = processes.executable("dex-client", advice="`uv sync` installs it")
    specifications = [markets.specification(market) for market in market_names]
    async with AsyncExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="dex-demo-")))
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

        command = [str(client), "--nats", node.url, *client_options]
        say(f"running dex-client {' '.join(command[1:])}")
        exit_code = await _run_in_foreground(command)
        if exit_code != 0:
            server.check()
        say("stopping the server and the node")
    return exit_code


async def _run_in_foreground(command: Sequence[str]) -> int:
    # With our own stdin, stdout and stderr, in our own session: the terminal is the program's.
    process = await asyncio.create_subprocess_exec(*command)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(INTERRUPTED_GRACE_S):
            await process.wait()
    except TimeoutError:
        process.terminate()
    try:
        async with asyncio.timeout(INTERRUPTED_GRACE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
