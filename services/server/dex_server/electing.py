"""The shell around the elections: what is read and pinged goes in, what is decided is done.

It decides nothing. One inbox, a tick, and effects performed beside each other; what the world does
not answer is told as such.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, assert_never

from dex_protocol import subjects
from dex_protocol.standing import Role
from dex_runtime.clock import monotonic_us, now_us
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_server.replication.effects import Instant, Note, Tick
from dex_server.replication.election_effects import (
    Assign,
    ClusterChanged,
    Connected,
    Dismiss,
    Displaced,
    ElectionEffect,
    ElectionInput,
    LeadersChanged,
    LeasesRead,
    LeasesUnread,
    Left,
    Name,
    Named,
    NamingUnknown,
    Nominate,
    Ping,
    PingAnswered,
    PingLost,
    PingRefused,
    ReadLeases,
    Renew,
    RenewalFailed,
    Renewed,
    ReplicaStands,
    ToldToLeave,
)
from dex_server.replication.elections import Elections
from dex_server.replication.ports import Leases, LogUnavailable, ServerRecord

TICK_S: Final = 0.05
"""How often the elections hear of the time: twice for each ping of each other server."""

PING_TIMEOUT_S: Final = 0.1
"""How long a ping may take: 1 ms, or the other is busy; no answer is no sign of death. One that is
sent in the very moment of a death is swallowed, and only the next one tells."""

_log: Final = logging.getLogger(__name__)


class Replicas(Protocol):
    """The replicas that are told to lead, or not."""

    def nominate(self, market: str) -> None:
        """Have one lead."""
        ...

    def dismiss(self, market: str) -> None:
        """Have one follow."""
        ...

    def assign(self, market: str, *, is_mine: bool) -> None:
        """Have one write the market's snapshots, or not."""
        ...


class ServerDisplaced(Exception):
    """Another process runs under this server's name; it goes on, and this one ends."""


class Electing:
    """One server's elections, at work."""

    def __init__(self, elections: Elections, leases: Leases, requester: Requester) -> None:
        """Take the decisions, what they are written to, and the connection to ping over."""
        self._elections = elections
        self._leases = leases
        self._requester = requester
        self._inputs: list[ElectionInput] = []
        self._wake = asyncio.Event()
        self._replicas: Replicas
        self._tasks: asyncio.TaskGroup
        self._is_over = False
        self._displaced: str | None = None
        self.has_left = asyncio.Event()
        """Set when all is handed over."""

    # --- From outside ---------------------------------------------------------------------------

    def replica_stands(self, market: str, role: Role, *, could_lead: bool) -> None:
        """Take note of how a replica stands; see `driver.Observer`."""
        self._give(ReplicaStands(market, role, could_lead))

    def leaders_changed(self) -> None:
        """Take note that somebody was named."""
        self._give(LeadersChanged())

    def connected(self, *, is_up: bool) -> None:
        """Take note of the connection's fate; see `connections.Watcher`."""
        self._give(Connected(is_up))

    def cluster_changed(self) -> None:
        """Take note that NATS nodes came or went; see `connections.Watcher`."""
        self._give(ClusterChanged())

    def leave(self) -> None:
        """Hand everything over; `has_left` is set then."""
        self._give(ToldToLeave())

    def stop(self) -> None:
        """Decide nothing more; `run` returns then."""
        self._is_over = True
        self._wake.set()

    async def run(self, replicas: Replicas) -> None:
        """Elect until stopped.

        Raises:
            ServerDisplaced: see there.
        """
        self._replicas = replicas
        loop = asyncio.get_running_loop()
        under_way: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as tasks:
            while not self._is_over:
                timer = loop.call_later(TICK_S, self._wake.set)
                await self._wake.wait()
                self._wake.clear()
                timer.cancel()
                under_way = [task for task in under_way if not task.done()]
                under_way += [tasks.create_task(work) for work in self._turn()]
                if self._displaced is not None:
                    raise ServerDisplaced(self._displaced)
            for task in under_way:
                task.cancel()

    def _give(self, given: ElectionInput) -> None:
        self._inputs.append(given)
        self._wake.set()

    def _turn(self) -> list[Coroutine[Any, Any, None]]:
        now = Instant(now_us(), monotonic_us())
        inputs, self._inputs = self._inputs, []
        work: list[Coroutine[Any, Any, None]] = []
        for given in (*inputs, Tick()):
            for effect in self._elections.step(given, now):
                doing = self._perform(effect)
                if doing is not None:
                    work.append(doing)
        return work

    # --- Effects --------------------------------------------------------------------------------

    def _perform(self, effect: ElectionEffect) -> Coroutine[Any, Any, None] | None:
        match effect:
            case ReadLeases():
                return self._read()
            case Renew():
                return self._renew(effect.record)
            case Name():
                return self._name(effect)
            case Ping():
                return self._ping(effect.server)
            case Nominate():
                self._replicas.nominate(effect.market)
            case Dismiss():
                self._replicas.dismiss(effect.market)
            case Assign():
                self._replicas.assign(effect.market, is_mine=effect.is_mine)
            case Left():
                self.has_left.set()
            case Displaced():
                self._displaced = effect.text
            case Note():
                _log.info("%s", effect.text, extra={"server": self._elections.server})
            case _:
                assert_never(effect)
        return None

    async def _read(self) -> None:
        try:
            news = await self._leases.news()
        except LogUnavailable:
            self._give(LeasesUnread())
        else:
            self._give(LeasesRead(news))

    async def _renew(self, record: ServerRecord) -> None:
        try:
            await self._leases.renew(record)
        except LogUnavailable:
            self._give(RenewalFailed())
        else:
            self._give(Renewed())

    async def _name(self, effect: Name) -> None:
        try:
            revision = await self._leases.name(effect.market, effect.record, after=effect.after)
        except LogUnavailable:
            self._give(NamingUnknown(effect.market))
        else:
            self._give(Named(effect.market, effect.record, revision))

    async def _ping(self, server: str) -> None:
        answer: Callable[[str], ElectionInput] = PingAnswered
        try:
            await self._requester.request(subjects.alive(server), b"", timeout_s=PING_TIMEOUT_S)
        except NoResponder:
            # Without a connection nothing reaches anybody, and that says nothing of the other.
            answer = PingRefused if self._requester.is_connected else PingLost
        except NoReply:
            answer = PingLost
        self._give(answer(server))
