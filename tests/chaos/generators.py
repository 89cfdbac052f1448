"""The load generators, for whoever runs them all.

Three processes with two peers each, told what to do together; what they hear comes together here:
which market answered when. Knows nothing of what they send.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from deploy.keys import LOAD_PEERS
from tests.chaos.helpers import Helper, helper
from tests.chaos.network import LOADS
from tests.chaos.stage import Stage
from tests.chaos.traders import CATCH_UP_S, PATIENT, Finish, Part, Settings

PEERS_COUNT: Final = 2
"""Of each load generator."""

READY_S: Final = 30.0
"""How long one may take to be ready: a second or two of a loaded machine."""

QUIET_S: Final = 2 * PATIENT.deadline_s + 10
"""How long all outcomes may take: what is unknown in the end is asked for once more."""

GAP_S: Final = 1.0
"""Without an answer for so long a market counts as silent, and its next answer is told of."""


class Generators:
    """All load generators; use `generators`."""

    def __init__(
        self, helpers: Sequence[Helper], directory: Path, say: Callable[[str], None]
    ) -> None:
        """Begin to listen with `listen`."""
        self._helpers = helpers
        self._directory = directory
        self._say = say
        self._latest: dict[str, float] = {}
        self._reached: dict[str, asyncio.Event] = {
            stage: asyncio.Event() for stage in ("ready", "quiet", "written")
        }
        self._counts: dict[str, int] = dict.fromkeys(self._reached, 0)

    async def listen(self) -> None:
        """Take in what they say, until canceled.

        Raises:
            HelperEnded: one of them, by itself.
        """
        async with asyncio.TaskGroup() as tasks:
            for each in self._helpers:
                tasks.create_task(self._listen(each))

    async def _listen(self, generator: Helper) -> None:
        while True:
            line = await generator.hear()
            for market, at in line.get("receipts", ()):
                self._heard(market, at)
            for stage in line.keys() & self._reached.keys():
                self._counts[stage] += 1
                if self._counts[stage] == len(self._helpers):
                    self._reached[stage].set()

    def _heard(self, market: str, at: float) -> None:
        latest = self._latest.get(market)
        if latest is not None and at - latest > GAP_S:
            self._say(f"{market} answers again, after {at - latest:.1f} s without an answer")
        self._latest[market] = max(at, latest or at)

    async def ready(self) -> None:
        """Wait until all could send."""
        await self._all("ready", READY_S)

    async def go(self) -> None:
        """Have all send."""
        await self._tell({"go": True})

    async def stop(self) -> None:
        """Have all send no more, and wait until all has an outcome, or was given up."""
        await self._tell({"stop": True})
        await self._all("quiet", QUIET_S)

    async def finish(self, sequences: Mapping[str, int]) -> list[Part]:
        """Have all books stand somewhere, and collect what was seen."""
        self._reached["written"].clear()
        self._counts["written"] = 0
        files = [self._directory / f"{each.name}.json" for each in self._helpers]
        for each, file in zip(self._helpers, files, strict=True):
            await each.tell(Finish(dict(sequences), str(file)))
        await self._all("written", CATCH_UP_S * len(sequences) + 30)
        return [msgspec.json.decode(file.read_bytes(), type=Part) for file in files]

    async def _tell(self, line: dict[str, bool]) -> None:
        for each in self._helpers:
            await each.tell(line)

    async def _all(self, stage: str, timeout_s: float) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._reached[stage].wait()
        except TimeoutError:
            count = self._counts[stage]
            raise TimeoutError(
                f"{count} of {len(self._helpers)} load generators are {stage} "
                f"after {time.monotonic() - began:.0f} s"
            ) from None


@asynccontextmanager
async def generators(
    stage: Stage,
    markets: Sequence[str],
    *,
    seed: int,
    rate: float,
    say: Callable[[str], None],
) -> AsyncIterator[Generators]:
    """Run the load generators for as long as the block lasts.

    Args:
        stage: Whose markets.
        markets: Their names.
        seed: Of all that is sent.
        rate: Actions of all peers together in a second.
        say: Told when a market answers again.
    """
    async with AsyncExitStack() as stack:
        helpers = []
        for index, name in enumerate(LOADS):
            log = stage.directory / f"{name}.log"
            started = await stack.enter_async_context(helper(name, "tests.chaos.traders", log=log))
            names = LOAD_PEERS[PEERS_COUNT * index : PEERS_COUNT * (index + 1)]
            settings = Settings(
                name=name,
                seed=seed,
                urls=stage.urls_of(name),
                peers={peer: stage.doors.peer(peer) for peer in names},
                markets=list(markets),
                rate=rate / (len(LOADS) * PEERS_COUNT),
            )
            await started.tell(settings)
            helpers.append(started)
        made = Generators(helpers, stage.directory, say)
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(made.listen())
            try:
                await made.ready()
                yield made
            finally:
                listening.cancel()
