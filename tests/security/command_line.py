"""The exchange's commands as somebody types them who is not let in, or not everywhere."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from deploy import processes
from dex_runtime.keys import VARIABLE
from tests.integration.programs import PATIENCE_S
from tests.nats_nodes import Nodes


class Said(Struct, frozen=True):
    """What a program said, and how it ended."""

    code: int
    stdout: str
    stderr: str


async def said(*command: str, environment: Mapping[str, str] | None = None) -> Said:
    """Run a program to its end."""
    program = processes.executable(command[0], advice="`uv sync` installs it")
    process = await asyncio.create_subprocess_exec(
        str(program),
        *command[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Said(process.returncode, stdout.decode(), stderr.decode())


async def said_by_client(*words: str, nodes: Nodes, keys: Path | None = None) -> Said:
    """Run a command of `dex-client` against the first node.

    Args:
        words: The command.
        nodes: Where.
        keys: Where it looks for keys that were not named; None for those of this session.
    """
    environment = {} if keys is None else {VARIABLE: str(keys)}
    return await said("dex-client", *words, "--nats", nodes.urls[0], environment=environment)
