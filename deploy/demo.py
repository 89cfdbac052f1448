"""A demonstration: the load generator against an exchange made for it, and nothing left behind.

What this program says goes to stderr, since stdout is the load generator's.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Final

from deploy import processes
from deploy.embedded import Say, embedded
from deploy.servers import UNTOLD
from dex_runtime.keys import VARIABLE

INTERRUPTED_GRACE_S: Final = 3.0
"""How long the load generator may take to end by itself: Ctrl-C reaches it too."""


async def run(
    client_options: Sequence[str], *, market_names: Sequence[str], server_count: int, say: Say
) -> int:
    """Run the load generator against an exchange made for it, and end all of it in any case.

    Args:
        client_options: For the load generator, besides the address.
        market_names: The markets to open.
        server_count: 1 or more.
        say: Told what happens.

    Returns:
        The load generator's exit code.

    Raises:
        NodeNotReady, ServerEnded, MarketNotOpen, ProgramMissing: the exchange did not start.
    """
    client = processes.executable("dex-client", advice="`uv sync` installs it")
    async with embedded(market_names, server_count=server_count, say=say) as exchange:
        command = [str(client), "--nats", exchange.url, *client_options]
        say(f"running dex-client {' '.join(command[1:])}")
        keys = {VARIABLE: str(exchange.doors.keyring.directory)}
        exit_code = await _run_in_foreground(command, os.environ | UNTOLD | keys)
        if exit_code != 0:
            for server in exchange.servers:
                server.check()
    return exit_code


async def _run_in_foreground(command: Sequence[str], environment: Mapping[str, str]) -> int:
    # With our own stdin, stdout and stderr, in our own session: the terminal is the program's.
    process = await asyncio.create_subprocess_exec(*command, env=environment)
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
