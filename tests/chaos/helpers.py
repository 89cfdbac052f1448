"""Programs of ours beside the one that runs everything, told what to do in lines of JSON.

A helper reads lines from its standard input and writes lines to its standard output. It ends when
its input does, so none is left behind when whoever started it is gone, however that came about.
Knows nothing of what the lines say.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
"""Where the tests can be imported from."""

LINE_BYTES_MAX: Final = 1024 * 1024
"""Of one line: a tenth of a second's acknowledgements are some KiB."""

END_S: Final = 5.0
"""How long a helper may take to end by itself."""

Line = dict[str, Any]


class HelperEnded(Exception):
    """A helper ended before it was told to; the text has the end of what it printed."""


class Helper:
    """A program that was started; use `helper`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        """Talk to a process."""
        self.name = name
        self._process = process
        self._log = log

    async def tell(self, line: Any) -> None:
        """Write a line.

        Raises:
            HelperEnded: nobody reads it.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(line) + b"\n")
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise self._ended() from error

    async def hear(self) -> Line:
        """Wait for the next line.

        Raises:
            HelperEnded: there are no more.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise self._ended()
        heard: Line = msgspec.json.decode(line)
        return heard

    async def end(self) -> None:
        """End it, by itself or not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _ended(self) -> HelperEnded:
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        text = "\n  ".join([f"{self.name} has ended. The end of what it printed:", *lines])
        return HelperEnded(text)


@asynccontextmanager
async def helper(name: str, module: str, *, log: Path) -> AsyncIterator[Helper]:
    """Run a module as a helper for as long as the block lasts.

    Args:
        name: For people.
        module: Run as with `python -m`.
        log: What it prints to its standard error goes there.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            limit=LINE_BYTES_MAX,
            cwd=ROOT,
            # Ctrl-C is for whoever started it, which ends everything in its order.
            start_new_session=True,
        )
    made = Helper(name, process, log)
    try:
        yield made
    finally:
        await made.end()


class Told:
    """What a helper is told, on its side."""

    def __init__(self, reader: asyncio.StreamReader, output: IO[bytes]) -> None:
        """Use `told`."""
        self._reader = reader
        self._output = output

    async def next(self) -> bytes | None:
        """Wait for the next line; None when there are no more, and the helper has to end."""
        return await self._reader.readline() or None

    def say(self, line: Any) -> None:
        """Write a line."""
        self._output.write(msgspec.json.encode(line) + b"\n")
        self._output.flush()


async def told() -> Told:
    """Begin to hear what this process is told."""
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return Told(reader, sys.stdout.buffer)
