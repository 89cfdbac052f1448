"""Does to a stage what a schedule says, at its times, and undoes it.

Theory of operation. Each blow is a task of its own: it waits for its time, looks up whom it means,
strikes, waits, and undoes what it did. Links are shared by blows, so that each change sets every
touched link to what all blows want of it together. Whatever ends it, all is undone in the end.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from tests.chaos import network
from tests.chaos.network import OPEN, LinkState
from tests.chaos.schedule import Blow, Fault
from tests.chaos.stage import Stage

Cast = Callable[[Blow], Awaitable[str]]
"""Looks up who is meant by a blow, now."""


class Happened(Struct):
    """A blow as it fell."""

    fault: int
    """Which one of the schedule, from 0."""
    kind: str
    text: str
    whom: str
    began: float
    """By the monotonic clock."""
    ended: float


class Nemesis:
    """Hurts a stage."""

    def __init__(
        self, stage: Stage, faults: Sequence[Fault], *, cast: Cast, say: Callable[[str], None]
    ) -> None:
        """Prepare; `run` does it.

        Args:
            stage: Whom.
            faults: What to do.
            cast: Who is meant by a blow, when it falls.
            say: Told of each blow when it falls, and when it is healed.
        """
        self.happened: list[Happened] = []
        self.complaints: list[str] = []
        """Who ended though nobody ended it."""
        self._stage = stage
        self._faults = faults
        self._cast = cast
        self._say = say
        self._wishes: dict[int, Mapping[str, LinkState]] = {}
        self._down: set[str] = set()
        self._paused: set[str] = set()
        self._guests: set[str] = set()
        self._setting = asyncio.Lock()

    async def run(self, start: float) -> None:
        """Do all of it, from a moment of the monotonic clock on."""
        async with asyncio.TaskGroup() as tasks:
            for index, fault in enumerate(self._faults):
                for blow in fault.blows:
                    tasks.create_task(self._strike(index, fault.kind, blow, start))

    async def heal(self) -> None:
        """Undo what is not undone yet."""
        self._wishes.clear()
        await self._stage.network.set({link.name: OPEN for link in network.LINKS})
        for who in sorted(self._paused):
            self._stage.resume(who)
        for who in sorted(self._down):
            self._stage.start(who)
        for who in sorted(self._guests):
            await self._stage.stop(who)
        self._guests.clear()
        self._paused.clear()
        self._down.clear()

    def check(self) -> None:
        """Note who ended by itself, and start it again."""
        for who in sorted((*self._stage.nodes, *self._stage.servers)):
            is_meant_to_run = who not in self._down and (
                who != network.NEWCOMER or who in self._guests
            )
            if is_meant_to_run and not self._stage.is_running(who):
                self.complaints.append(f"{who} ended by itself")
                self._say(f"{who} ended by itself; it is started again")
                self._stage.start(who)

    # --- One blow -------------------------------------------------------------------------------

    async def _strike(self, index: int, kind: str, blow: Blow, start: float) -> None:
        await _until(start + blow.begins)
        self.check()
        whom = await self._cast(blow)
        if whom == network.NEWCOMER:
            # It may lead by now; but it is to go, and what is undone here would bring it back.
            whom = blow.otherwise
        if blow.how != "cut" and blow.how != "slow" and whom in self._down | self._paused:
            # Both blows of a pair mean the same one; one is enough.
            return
        text = str(blow) if whom == blow.whom else f"{blow}: {whom}"
        happened = Happened(index, kind, text, whom, time.monotonic(), 0.0)
        self.happened.append(happened)
        self._say(text)
        undo = await self._begin(blow, whom)
        await _until(start + blow.ends)
        await undo()
        happened.ended = time.monotonic()
        self._say(f"healed: {text}")

    async def _begin(self, blow: Blow, whom: str) -> Callable[[], Awaitable[None]]:
        stage = self._stage
        match blow.how:
            case "kill" | "stop":
                self._down.add(whom)
                if blow.how == "kill":
                    await stage.kill(whom)
                else:
                    await stage.stop(whom)

                async def undo() -> None:
                    self._down.discard(whom)
                    stage.start(whom)
            case "pause":
                self._paused.add(whom)
                stage.pause(whom)

                async def undo() -> None:
                    self._paused.discard(whom)
                    stage.resume(whom)
            case "join":
                self._guests.add(whom)
                stage.start(whom)

                async def undo() -> None:
                    self._guests.discard(whom)
                    await stage.stop(whom)
            case "cut" | "slow":
                number = id(blow)
                await self._wish(number, _states(blow, whom))

                async def undo() -> None:
                    await self._wish(number, {})

        return undo

    async def _wish(self, number: int, states: Mapping[str, LinkState]) -> None:
        async with self._setting:
            before = self._wishes.get(number, {})
            self._wishes[number] = states
            wanted = network.together(list(self._wishes.values()))
            touched = {*before, *states}
            await self._stage.network.set({name: wanted.get(name, OPEN) for name in touched})


def _states(blow: Blow, whom: str) -> dict[str, LinkState]:
    if blow.how == "slow":
        return network.slow(whom, delay_ms=blow.delay_ms, jitter_ms=blow.jitter_ms)
    return network.cut(whom, blow.others or network.neighbours(whom), blow.mode)


async def _until(moment: float) -> None:
    await asyncio.sleep(max(moment - time.monotonic(), 0))
