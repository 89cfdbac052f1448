"""The markets that a server holds, each driven by a task of its own.

Knows nothing of requests, nor of how ports are kept.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec

from dex_protocol import subjects
from dex_protocol.codec import UNREADABLE, encode
from dex_protocol.specification import Specification, what_is_wrong
from dex_runtime.clock import monotonic_us
from dex_runtime.discovery import Registration
from dex_runtime.messaging import Requester
from dex_runtime.serving import Responder
from dex_server.config import Config
from dex_server.driver import Broadcasts, Driver, Observer
from dex_server.replication.effects import Dismissed, Nominated, OnDuty
from dex_server.replication.ports import Directory, Leases, Log, LogUnavailable, Snapshots
from dex_server.replication.replica import Replica

STOPPING_S: Final = 1.5
"""How long a server finishes what it has in hand when told to stop: an append takes some ms, or
NATS is gone and will not answer at all."""

ANSWERING_S: Final = 0.3
"""How long answers that are being read may take when the markets have ended."""

WATCH_INTERVAL_S: Final = 0.5
"""Between two looks for new markets: one is opened a few times a year, by an operator who waits."""

_log: Final = logging.getLogger(__name__)


class Ports(msgspec.Struct, frozen=True):
    """What a server needs of the world, already connected.

    Orders and queries arrive on connections of their own, and the log has another, so that no
    flood of one holds up the others.
    """

    log_of: Callable[[str], Awaitable[Log]]
    """Gives a market's log, made if there was none; raises LogUnavailable."""
    listen_to: Callable[[str], Broadcasts]
    """Gives what broadcasts a market's log."""
    snapshots: Snapshots
    directory: Directory
    leases: Leases
    orders: Responder
    queries: Responder
    register: Callable[..., Awaitable[Registration]]
    """Serves endpoints on the connection of the queries; see `discovery.register`."""
    vitals: Responder
    """Answers pings, and tells operators, over the connection of log and leases, as the next asks.
    """
    requester: Requester


class AlarmMessage(msgspec.Struct):
    """What is published on `dex.alarm.<market>`."""

    market: str
    server: str
    message: str


class Markets:
    """One server's markets.

    Attributes:
        drivers: By the market's name.
        directory: Where the names of all markets stand.
    """

    def __init__(
        self,
        config: Config,
        incarnation: str,
        ports: Ports,
        observer: Observer,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Take the ports, who wants to know how replicas stand, and who owns the tasks.

        incarnation is new at each start.
        """
        self.drivers: dict[str, Driver] = {}
        self.directory = ports.directory
        self._config = config
        self._incarnation = incarnation
        self._ports = ports
        self._observer = observer
        self._tasks = tasks
        self._is_stopping = False
        self._adding = asyncio.Lock()
        # One look into the directory at a time, and when the newest ones began.
        self._looking = asyncio.Lock()
        self._looked_at = 0
        self._failed_at = 0
        # Markets of the directory whose logs were out of reach so far; those it was said of.
        self._unheld: dict[str, bytes] = {}
        self._waited_for: set[str] = set()
        self._driving: set[asyncio.Task[None]] = set()
        self._beside: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def add(self, market: str, specification: bytes) -> Driver:
        """Hold a market, which stands in the directory, from now on.

        Raises:
            LogUnavailable: its log cannot be made, or is not what it should be; or the server
                stops.
        """
        async with self._adding:
            driver = self.drivers.get(market)
            if driver is None:
                driver = await self._make_driver(market, specification)
                if self._is_stopping:
                    # Nobody would stop what began now.
                    raise LogUnavailable("the server stops")
                self.drivers[market] = driver
                self._driving.add(self._tasks.create_task(driver.run()))
            return driver

    async def find(self, market: str) -> Driver | None:
        """Give a market; None only when the directory does not have it, either.

        Raises:
            LogUnavailable: the directory, or the market's log, is out of reach just now.
        """
        if market not in self.drivers:
            await self._look()
        driver = self.drivers.get(market)
        if driver is None and market in self._unheld:
            raise LogUnavailable(f"the log of {market} is out of reach")
        return driver

    def watch(self) -> None:
        """Hold every market that the directory has or gets, until the server stops."""
        self._watching = self._tasks.create_task(self._watch())

    async def _watch(self) -> None:
        # NB: being canceled alone does not always end it: `asyncio.wait_for` of Python 3.11, by
        # which nats-py waits (2.16.0), loses it when it comes together with the answer.
        while not self._is_stopping:
            try:
                await self._look()
            except LogUnavailable as unavailable:
                _log.debug("the directory cannot be read: %s", unavailable)
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _look(self) -> None:
        asked_at = monotonic_us()
        async with self._looking:
            # Of many that ask at once, one looks; its look is fresh enough for all, and so is its
            # failure.
            if asked_at < self._looked_at:
                return
            if asked_at < self._failed_at:
                raise LogUnavailable("the directory is out of reach")
            begun_at = monotonic_us()
            try:
                news = await self.directory.news()
            except LogUnavailable:
                self._failed_at = begun_at
                raise
            for market, specification in news:
                wrong = _what_is_wrong(market, specification)
                if wrong is None:
                    self._unheld[market] = specification
                else:
                    # Whoever wrote it there, it must not take the other markets with it.
                    _log.error("passing over an entry of the directory: %s", wrong)
            self._looked_at = begun_at
            await self._hold_news()

    async def _hold_news(self) -> None:
        for market, specification in list(self._unheld.items()):
            try:
                await self.add(market, specification)
            except LogUnavailable as unavailable:
                # It is tried again at the next look, and no other market waits for it.
                if market not in self._waited_for:
                    _log.warning("waiting for NATS: %s", unavailable, extra={"market": market})
                    self._waited_for.add(market)
            else:
                del self._unheld[market]
                self._waited_for.discard(market)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; it ends with the server at the latest."""
        task = self._tasks.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def nominate(self, market: str) -> None:
        """Have this server lead a market; see `electing.Replicas`."""
        self.drivers[market].give(Nominated())

    def dismiss(self, market: str) -> None:
        """Have this server follow; see `electing.Replicas`."""
        self.drivers[market].give(Dismissed())

    def assign(self, market: str, *, is_mine: bool) -> None:
        """Have this server write the snapshots, or not; see `electing.Replicas`."""
        self.drivers[market].give(OnDuty(is_mine))

    async def raise_alarm(self, market: str, text: str) -> None:
        """Tell operators; see `driver.Alarms`."""
        alarm = AlarmMessage(market=market, server=self._config.name, message=text)
        self._ports.vitals.send(subjects.alarm(market), encode(alarm))

    async def stop(self) -> None:
        """Have every market finish what it has in hand, and end all tasks."""
        self._is_stopping = True
        for driver in self.drivers.values():
            driver.stop()
        if self._driving:
            _, unfinished = await asyncio.wait(self._driving, timeout=STOPPING_S)
            for task in unfinished:
                _log.warning("stopping with a commit under way that nobody confirms")
                task.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._beside:
            _, unfinished = await asyncio.wait(self._beside, timeout=ANSWERING_S)
            for task in unfinished:
                task.cancel()

    async def _make_driver(self, market: str, specification: bytes) -> Driver:
        replica = Replica(
            market,
            server=self._config.name,
            incarnation=self._incarnation,
            specification=msgspec.json.decode(specification, type=Specification),
            log_id=secrets.token_hex(16),
            settings=self._config.settings,
        )
        return Driver(
            replica,
            log=await self._ports.log_of(market),
            listen=self._ports.listen_to(market),
            snapshots=self._ports.snapshots,
            orders=self._ports.orders,
            alarms=self,
            observer=self._observer,
        )


def _what_is_wrong(market: str, written: bytes) -> str | None:
    try:
        specification = msgspec.json.decode(written, type=Specification)
    except UNREADABLE as error:
        return f"{market[:80]!r} has no specification: {error}"
    if specification.market != market:
        return f"{market[:80]!r} has the specification of {specification.market[:80]!r}"
    return what_is_wrong(specification)
