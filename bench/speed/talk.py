"""Processes that measure what they are asked to: a line of JSON in, a line of JSON out.

Whoever measures something on the wire does it in a process of its own, which is there before the
clock starts and stays for all rounds. It ends when its input does, so that none outlives a bench
that was killed. Knows nothing of what is asked.
"""

import asyncio
import selectors
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from bench.speed.rounds import CannotMeasure

PATIENCE_S: Final = 120.0
"""How long an answer may take: a measurement takes seconds, more on a machine that is busy."""

LINE_BYTES_MAX: Final = 2**20

A = TypeVar("A")


class Invalid(CannotMeasure):
    """What was measured is not what was meant: somebody refused, or was not there."""


class _Ready(Struct, tag="ready"):
    # What a process says first.
    pass


class _Failed(Struct, tag="failed"):
    # Instead of an answer: it was not what was meant.
    text: str


_ready_decoder: Final = msgspec.json.Decoder(_Ready)
_failed_decoder: Final = msgspec.json.Decoder(_Failed)

# --- The side that asks -------------------------------------------------------------------------


class Child:
    """A process that was started, and answers one question at a time."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        """Use `started`."""
        self._process = process
        self._name = name

    @property
    def pid(self) -> int:
        """Its pid, for reading."""
        return self._process.pid

    async def ask(self, question: Struct, answer: type[A]) -> A:
        """Ask, and wait for the answer.

        Raises:
            Invalid: what it measured is not what was meant, or it did not answer.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(question) + b"\n")
        line = await self._line()
        try:
            return msgspec.json.decode(line, type=answer)
        except msgspec.DecodeError:
            text = _failed_decoder.decode(line).text
            raise Invalid(f"{self._name}: {text}") from None

    async def ready(self) -> None:
        """Wait until it can be asked.

        Raises:
            Invalid: it has ended.
        """
        _ready_decoder.decode(await self._line())

    async def end(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise Invalid(f"{self._name} said nothing for {PATIENCE_S:g} s") from None
        if not line:
            raise Invalid(f"{self._name} has ended; what it printed tells why")
        return line


@asynccontextmanager
async def started(module: str, *words: str) -> AsyncIterator[Child]:
    """Run a module of this project as a process, for as long as the block lasts.

    Raises:
        Invalid: it ended before it was ready.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        # Keeps Ctrl-C away from it: whoever started it ends it.
        start_new_session=True,
    )
    child = Child(process, module)
    try:
        await child.ready()
        yield child
    finally:
        await child.end()


# --- The side that answers ----------------------------------------------------------------------


async def answer_all(questions: Any, answer: Callable[[Any], Awaitable[Struct]]) -> None:
    """Say that one is ready, and answer questions until there are no more.

    Args:
        questions: What may be asked: a type, as msgspec decodes it.
        answer: Answers one; may raise Invalid.
    """
    async for line in _lines():
        try:
            _say(await answer(msgspec.json.decode(line, type=questions)))
        except Invalid as error:
            _say(_Failed(str(error)))


async def stay() -> None:
    """Say that one is ready, and stay for as long as whoever started this wants it."""
    async for line in _lines():
        raise AssertionError(f"expected no question, found {line!r}")


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a process that measures, with timers to the microsecond.

    select() does not round them up to the next millisecond, as the usual loop does; it is as fast
    for the few sockets there are.
    """
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        runner.run(work)


async def _lines() -> AsyncIterator[bytes]:
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    _say(_Ready())
    while line := await reader.readline():
        yield line


def _say(what: Struct) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()
