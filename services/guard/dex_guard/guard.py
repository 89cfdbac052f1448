"""The guard at work: every node is looked at four times a second, and who floods it is cut.

Each node is watched by itself, so that one that answers late, or not at all, delays nothing but
what is known of it. Any number of guards may run: what another one has cut is gone. Decides
nothing; `flood` does.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, NoReturn

from msgspec import Struct

from dex_guard.flood import Flood, Floods, Limits
from dex_guard.link import Link
from dex_guard.monitoring import Monitoring, NoAnswer, NodeGone, NotOfSystemAccount
from dex_runtime.connection import ConnectionOptions
from dex_runtime.messaging import Requester

LOOK_INTERVAL_S: Final = 0.25
"""Between two looks at a node. Who floods was above the limit for two intervals at the latest after
three looks: 0.75 s, and what the answers take; who is far above it, for one after two."""

FIND_INTERVAL_S: Final = 0.5
"""Between two searches for nodes, and so what a node that came may be without a guard."""

SILENCE_S: Final = 10.0
"""Who says nothing for so long is asked no more, until it is found again."""

_log: Final = logging.getLogger(__name__)


class Config(Struct, frozen=True, kw_only=True):
    """Everything about a guard that is chosen before it starts."""

    connection: ConnectionOptions
    """Where, and as which user of the system account."""
    limits: Limits
    exempt: frozenset[str]
    """Accounts that are never judged, beside the system account."""


async def guard(config: Config, stop: asyncio.Event) -> None:
    """Connect, and guard until told to stop.

    Raises:
        ConnectionLost: NATS will not have this guard any more.
        NotOfSystemAccount: its user has not the rights that it takes.
    """
    link = Link(config.connection, stop)
    try:
        await _unless_stopped(_guard(link, config), stop)
    finally:
        await link.close()


async def _guard(link: Link, config: Config) -> NoReturn:
    monitoring = Monitoring(await Requester.start(await link.open()))
    # Whoever has the rights of the system account could cut the guard as well.
    exempt = config.exempt | {await _system_account(monitoring)}
    limits = config.limits
    _log.info(
        "guarding: each user may send a node %s messages/s and %s bytes/s; exempt are %s",
        *(limits.messages_per_second, limits.bytes_per_second, ", ".join(sorted(exempt))),
    )
    await Watch(monitoring, limits, exempt=exempt).run()


async def _system_account(monitoring: Monitoring) -> str:
    is_told = False
    while True:
        try:
            await monitoring.nodes()
            return await monitoring.own_account()
        except (NodeGone, NoAnswer) as error:
            if not is_told:
                _log.warning("waiting for NATS: %s", error)
                is_told = True
            await asyncio.sleep(FIND_INTERVAL_S)


async def _unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    doing, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((doing, told), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        doing.cancel()
        told.cancel()
        await asyncio.wait((doing, told))


class Watch:
    """All nodes that are known, each with a task that looks at it."""

    def __init__(self, monitoring: Monitoring, limits: Limits, *, exempt: frozenset[str]) -> None:
        """Know no node yet."""
        self._monitoring = monitoring
        self._limits = limits
        self._floods = Floods(limits, exempt=exempt)
        self._names: dict[str, str] = {}
        self._overfull: set[str] = set()

    async def run(self) -> NoReturn:
        """Find nodes and watch them, until canceled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for node, name in (await self._found()).items():
                    if node not in self._names:
                        self._names[node] = name
                        group.create_task(self._watch(node))
                await asyncio.sleep(FIND_INTERVAL_S)

    async def _found(self) -> dict[str, str]:
        try:
            return await self._monitoring.nodes()
        except (NodeGone, NoAnswer, NotOfSystemAccount) as error:
            # Of each node that is watched its own task says that it does not answer.
            _log.debug("no node is found: %s", error)
            return {}

    async def _watch(self, node: str) -> None:
        loop = asyncio.get_running_loop()
        name = self._names[node]
        _log.info("watching the node %s (%s)", name, node)
        answered_at = loop.time()
        is_silent = False
        while loop.time() - answered_at < SILENCE_S:
            started_at = loop.time()
            try:
                await self._look(node)
            except NodeGone:
                # When it was the guard that was cut off, nodes are found again soon.
                break
            except NoAnswer as error:
                if not is_silent:
                    _log.warning("the node %s does not answer: %s", name, error)
                is_silent = True
            else:
                if is_silent:
                    _log.info("the node %s answers again", name)
                is_silent = False
                answered_at = loop.time()
            await asyncio.sleep(started_at + LOOK_INTERVAL_S - loop.time())
        _log.warning("the node %s (%s) is gone", name, node)
        self._floods.forget(node)
        self._overfull.discard(node)
        del self._names[node]

    async def _look(self, node: str) -> None:
        sample, left_out_count = await self._monitoring.sample(node)
        if left_out_count == 0:
            self._overfull.discard(node)
        elif node not in self._overfull:
            self._overfull.add(node)
            _log.warning(
                "the node %s has more connections than a guard looks at: the %s that were active"
                " last are guarded, %s are not",
                *(self._names[node], len(sample.counters), left_out_count),
            )
        for flood in self._floods.take(sample):
            try:
                is_cut = await self._monitoring.cut(node, flood.connection)
            except NoAnswer as error:
                # It is tried again at the next look; the others must not wait for that.
                _log.warning("cutting connection %s: %s", flood.connection.connection_id, error)
            else:
                self._tell(flood, is_cut=is_cut)

    def _tell(self, flood: Flood, *, is_cut: bool) -> None:
        each, rate, of_user = flood.connection, flood.rate, flood.user_rate
        # What clients choose is quoted, since it may hold anything.
        _log.warning(
            "%s connection %s (%r) of user %r of account %s, from %s, at the node %s:"
            " it sent %s messages/s and %s bytes/s, all of its user's %s and %s;"
            " the limits are %s and %s",
            *("cut" if is_cut else "no longer found", each.connection_id, each.name),
            *(each.user, each.account, each.address, self._names[flood.node]),
            *(rate.messages_per_second, rate.bytes_per_second),
            *(of_user.messages_per_second, of_user.bytes_per_second),
            *(self._limits.messages_per_second, self._limits.bytes_per_second),
        )
