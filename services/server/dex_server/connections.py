"""The connections of one server: waited for while NATS is not there yet, missed when they are gone.

A connection that NATS closes for good (it takes this server for somebody else, or has too many)
ends the server: whoever supervises it starts another one. Knows nothing of what they are for.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from dex_runtime import connection, topology
from dex_runtime.connection import CannotConnect, Connection, ConnectionOptions
from dex_runtime.topology import TopologyUnavailable
from dex_server.config import Config

WAIT_FOR_NATS_S: Final = 0.5
"""Between two attempts while NATS is not there yet: it is often started at the same time."""

T = TypeVar("T")

_log: Final = logging.getLogger(__name__)


class ConnectionLost(Exception):
    """NATS closed a connection for good; start the server again."""


class Watcher(Protocol):
    """Who draws conclusions from a connection's fate."""

    def connected(self, *, is_up: bool) -> None:
        """Take note that it is there again, or lost."""
        ...

    def cluster_changed(self) -> None:
        """Take note that NATS nodes came or went."""
        ...


class Connections:
    """All connections of a server, from the first to the last."""

    def __init__(self, config: Config, stop: asyncio.Event) -> None:
        """Take what ends the waiting, and is set when a connection is gone for good."""
        self._config = config
        self._stop = stop
        self._about = {"server": config.name}
        self._clients: list[Connection] = []
        self._is_closing = False
        self._lost: str | None = None

    async def open(self, purpose: str, *, watcher: Watcher | None = None) -> Connection | None:
        """Connect as soon as there is a NATS node to connect to; None when told to stop.

        Args:
            purpose: What it is for, in a word.
            watcher: Told when it is lost and there again, and when NATS nodes come and go.
        """
        options = ConnectionOptions(
            servers=self._config.nats,
            name=f"{self._config.name}-{purpose}",
            credentials=self._config.credentials,
        )
        client = await self._until_there(
            lambda: connection.connect(
                options,
                on_disconnected=lambda: self._on_disconnected(purpose, watcher),
                on_reconnected=lambda: self._on_reconnected(purpose, watcher),
                on_cluster_changed=None if watcher is None else watcher.cluster_changed,
                on_closed=lambda: self._on_closed(purpose),
                on_error=lambda text: self._on_error(purpose, text),
            )
        )
        if client is not None:
            self._clients.append(client)
        return client

    async def make_shared(self, client: Connection) -> int | None:
        """Make what all markets share, as soon as JetStream can; None when told to stop.

        Returns:
            How many copies are kept of it, and so of each log: all servers make them alike.
        """
        wanted = self._config.replicas
        made = await self._until_there(lambda: topology.make_shared(client, replicas=wanted))
        if made is None or self._stop.is_set():
            return None
        if made != wanted:
            _log.warning(
                "this exchange keeps %s copies of each log, expected %s as by --replicas:"
                " new logs get %s too",
                *(made, wanted, made),
                extra=self._about,
            )
        return made

    async def close(self) -> None:
        """Close them all.

        Raises:
            ConnectionLost: NATS did it before.
        """
        self._is_closing = True
        await asyncio.gather(*(connection.close(client) for client in self._clients))
        if self._lost is not None:
            raise ConnectionLost(f"NATS closed the connection for {self._lost} for good")

    async def _until_there(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        is_told = False
        while not self._stop.is_set():
            try:
                return await self._unless_stopped(ask())
            except (CannotConnect, TopologyUnavailable) as error:
                if not is_told:
                    _log.warning("waiting for NATS: %s", error, extra=self._about)
                    is_told = True
                await self._unless_stopped(asyncio.sleep(WAIT_FOR_NATS_S))
        return None

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        # NATS may leave it open for as long as a server may take to stop altogether.
        doing, told = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((doing, told), return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            doing.cancel()
            told.cancel()

    def _on_disconnected(self, purpose: str, watcher: Watcher | None) -> None:
        if not self._is_closing:
            _log.warning("the connection for %s is lost", purpose, extra=self._about)
            if watcher is not None:
                watcher.connected(is_up=False)

    def _on_reconnected(self, purpose: str, watcher: Watcher | None) -> None:
        _log.info("the connection for %s is there again", purpose, extra=self._about)
        if watcher is not None:
            watcher.connected(is_up=True)

    def _on_error(self, purpose: str, text: str) -> None:
        subject = connection.forbidden_subject(text)
        if subject is None:
            _log.warning("NATS (%s): %s", purpose, text, extra=self._about)
        else:
            shown = self._config.credentials.shown
            what = f"NATS does not let {shown} publish to {subject}: expected the servers' key"
            _log.warning("%s", what, extra=self._about)

    def _on_closed(self, purpose: str) -> None:
        if not self._is_closing:
            self._lost = purpose
            self._stop.set()
