"""All links of a run, in a process of their own, so that no load slows them.

    python -m tests.chaos.proxies

Told first where each link listens and where it leads to, then how links should behave; each line
is answered when it is so.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from tests.chaos.helpers import Helper, helper, told
from tests.chaos.network import OPEN, LinkState
from tests.chaos.proxy import LinkProxy


class Ports(Struct, frozen=True):
    """Where a link listens, and where it leads to."""

    listens: int
    dialed: int


class Proxies:
    """The links, for whoever cuts them."""

    def __init__(self, process: Helper) -> None:
        """Use `proxies`."""
        self._process = process

    async def set(self, states: Mapping[str, LinkState]) -> None:
        """Have links behave so from now on; others stay as they are."""
        await self._process.tell(states)
        await self._process.hear()


@asynccontextmanager
async def proxies(links: Mapping[str, Ports], *, log: Path) -> AsyncIterator[Proxies]:
    """Run links, all open, for as long as the block lasts."""
    async with helper("the proxies", "tests.chaos.proxies", log=log) as process:
        await process.tell(links)
        await process.hear()
        yield Proxies(process)


async def _main() -> None:
    lines = await told()
    first = await lines.next()
    if first is None:
        return
    random = Random(0)
    links = {
        name: LinkProxy(ports.listens, ports.dialed, random=random)
        for name, ports in msgspec.json.decode(first, type=dict[str, Ports]).items()
    }
    for link in links.values():
        await link.set(OPEN)
    lines.say({})
    while (line := await lines.next()) is not None:
        for name, state in msgspec.json.decode(line, type=dict[str, LinkState]).items():
            await links[name].set(state)
        lines.say({})
    for link in links.values():
        link.close()


if __name__ == "__main__":
    asyncio.run(_main())
