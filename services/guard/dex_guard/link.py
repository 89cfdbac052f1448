"""The guard's connection: waited for while NATS is not there yet, missed when it is gone.

A connection that NATS closes for good ends the guard: whoever supervises it starts another one.
Knows nothing of what it is for.
"""

import asyncio
import logging
from typing import Final

from dex_runtime import connection
from dex_runtime.connection import CannotConnect, Connection, ConnectionOptions

WAIT_FOR_NATS_S: Final = 0.5
"""Between two attempts while NATS is not there yet: it is often started at the same time."""

_log: Final = logging.getLogger(__name__)


class ConnectionLost(Exception):
    """NATS closed the connection for good; start the guard again."""


class Link:
    """One connection, from its first attempt to its end."""

    def __init__(self, options: ConnectionOptions, stop: asyncio.Event) -> None:
        """Take what is set when the connection is gone for good."""
        self._options = options
        self._stop = stop
        self._client: Connection | None = None
        self._is_closing = False
        self._is_lost = False

    async def open(self) -> Connection:
        """Connect as soon as there is a NATS node to connect to; once."""
        is_told = False
        while True:
            try:
                self._client = await connection.connect(
                    self._options,
                    on_disconnected=self._on_disconnected,
                    on_reconnected=lambda: _log.info("the connection is there again"),
                    on_closed=self._on_closed,
                    on_error=lambda text: _log.warning("NATS: %s", text),
                )
            except CannotConnect as error:
                if not is_told:
                    _log.warning("waiting for NATS: %s", error)
                    is_told = True
                await asyncio.sleep(WAIT_FOR_NATS_S)
            else:
                return self._client

    async def close(self) -> None:
        """Close the connection, if there is one.

        Raises:
            ConnectionLost: NATS did it before.
        """
        self._is_closing = True
        if self._client is not None:
            await connection.close(self._client)
        if self._is_lost:
            raise ConnectionLost("NATS closed the connection for good")

    def _on_disconnected(self) -> None:
        if not self._is_closing:
            _log.warning("the connection is lost")

    def _on_closed(self) -> None:
        if not self._is_closing:
            self._is_lost = True
            self._stop.set()
