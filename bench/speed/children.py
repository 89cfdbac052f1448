"""Measuring in a process of its own: nobody finds another's heap, caches or collector there.

A child prints one JSON object: numbers by name. Knows nothing of what they mean.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

VALUE: Final = "value"
"""The name of a number that comes alone."""

Words = Sequence[str | Path]


class ChildFailed(Exception):
    """A child ended without its numbers; what it wrote says why."""


async def numbers_of(command: Words) -> dict[str, float]:
    """Run a program that prints numbers by name.

    Raises:
        ChildFailed: it did not.
    """
    child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        line = " ".join(str(each) for each in command)
        raise ChildFailed(f"{line} ended with {child.returncode}: {err.decode()[-2_000:]}")
    return msgspec.json.decode(out, type=dict[str, float])


class Trial:
    """A program that gives several numbers, each of which is asked for once in a round.

    It runs when a number is asked for that its last run has no more of: once in each round.
    """

    def __init__(self, command: Callable[[], Awaitable[Words]]) -> None:
        """Begin with no run; the command is asked for before each."""
        self._command = command
        self._left: dict[str, float] = {}

    def number(self, name: str = VALUE) -> Callable[[], Awaitable[float]]:
        """Give what measures one of its numbers."""

        async def measure() -> float:
            if name not in self._left:
                self._left = await numbers_of(await self._command())
            return self._left.pop(name)

        return measure


def in_child(name: str, *arguments: object) -> Trial:
    """Give a trial of child.py."""

    async def command() -> Words:
        words = (str(argument) for argument in arguments)
        return [sys.executable, "-m", "bench.speed.child", name, *words]

    return Trial(command)
