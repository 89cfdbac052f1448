"""TCP links that can be cut, one way too, closed and slowed.

Theory of operation. A link listens on one port and passes every connection on to another one. Each
connection has two *ways*, there and back. Bytes that may not pass, or not yet, wait in their way,
in order; when too many wait, no more are read, so that whoever sends them waits too, as on a
network that drops everything. An end of a connection waits in line like bytes do: beyond a cut
nobody hears that the other side is gone. Nothing is ever lost but by closing the link.

Knows nothing of what passes, nor of who decides.
"""

import asyncio
import time
from collections import deque
from random import Random
from typing import Final

from tests.chaos.network import OPEN, LinkState

HOST: Final = "127.0.0.1"

WAITING_BYTES_MAX: Final = 1024 * 1024
"""Bytes that wait in one way of a connection before no more are read: about what a system keeps of
a connection by itself, and enough for what passes here in 200 ms."""


class _Way:
    # One way of one connection: bytes from a source to a sink that may not be there yet.
    def __init__(self, link: "LinkProxy", *, is_there: bool) -> None:
        self.link = link
        self.is_there = is_there
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.is_sink_full = False
        # When each may pass; None is the end.
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._waiting_bytes = 0
        self._due = 0.0
        self._has_ended = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _passes(self) -> bool:
        state = self.link.state
        return state.passes_there if self.is_there else state.passes_back

    def feed(self, data: bytes) -> None:
        delay = self.link.delay_s()
        if not delay and not self._waiting and self._passes and self.sink is not None:
            self.sink.write(data)
            return
        self._wait(data, delay)
        self._waiting_bytes += len(data)
        self.flush()

    def end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._wait(None, 0.0)
            self.flush()

    def _wait(self, data: bytes | None, delay: float) -> None:
        # By chance it might overtake what came before.
        self._due = max(self._due, time.monotonic() + delay)
        self._waiting.append((self._due, data))

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._passes and self.sink is not None:
            due, data = self._waiting[0]
            left = due - time.monotonic()
            if left > 0:
                self._timer = asyncio.get_running_loop().call_later(left, self.flush)
                break
            self._waiting.popleft()
            if data is None:
                self.sink.close()
            else:
                self._waiting_bytes -= len(data)
                self.sink.write(data)
        self.regulate()

    def regulate(self) -> None:
        source = self.source
        if source is None or source.is_closing():
            return
        if self.is_sink_full or self._waiting_bytes > WAITING_BYTES_MAX:
            source.pause_reading()
        else:
            source.resume_reading()

    def drop(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._timer is not None:
            self._timer.cancel()


class _Socket(asyncio.Protocol):
    # One of the two sockets of a connection: what is read goes out, what comes in is written.
    def __init__(self, connection: "_Connection", *, out: _Way, back: _Way) -> None:
        self._connection = connection
        self._out = out
        self._in = back

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._out.source = transport
        self._in.sink = transport
        self._connection.connected(transport)

    def data_received(self, data: bytes) -> None:
        self._out.feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._out.end()
        # NB: what is fed to a closed transport is dropped there, with a warning after the fifth.
        self._in.sink = None
        self._in.drop()
        self._connection.lost()

    def pause_writing(self) -> None:
        self._in.is_sink_full = True
        self._in.regulate()

    def resume_writing(self) -> None:
        self._in.is_sink_full = False
        self._in.regulate()


class _Connection:
    # Two sockets, the second one dialed when a dialer can be heard there.
    def __init__(self, link: "LinkProxy") -> None:
        self._link = link
        self.there = _Way(link, is_there=True)
        self.back = _Way(link, is_there=False)
        self._transports: list[asyncio.Transport] = []
        self._dialing: asyncio.Task[None] | None = None
        self._open_count = 0

    def dialer(self) -> _Socket:
        return _Socket(self, out=self.there, back=self.back)

    def connected(self, transport: asyncio.Transport) -> None:
        self._transports.append(transport)
        self._open_count += 1
        if len(self._transports) == 1:
            self._link.connections.add(self)
        self.state_changed()

    def lost(self) -> None:
        self._open_count -= 1
        if self._dialing is None:
            # Nobody was told of it, and nobody will be.
            self._link.connections.discard(self)
        elif not self._open_count and self._dialing.done():
            self._link.connections.discard(self)

    def state_changed(self) -> None:
        if self._dialing is None and self._link.state.passes_there:
            self._dialing = asyncio.get_running_loop().create_task(self._dial())
        self.there.flush()
        self.back.flush()

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: _Socket(self, out=self.back, back=self.there), HOST, self._link.dialed_port
            )
        except OSError:
            self.abort()

    def abort(self) -> None:
        if self._dialing is not None and not self._dialing.done():
            self._dialing.cancel()
        for way in (self.there, self.back):
            way.drop()
        for transport in self._transports:
            transport.abort()
        self._link.connections.discard(self)


class LinkProxy:
    """One link, with all its connections."""

    def __init__(self, port: int, dialed_port: int, *, random: Random) -> None:
        """Prepare; `set` begins to listen.

        Args:
            port: Where it listens.
            dialed_port: Where to.
            random: Of the delays.
        """
        self.dialed_port = dialed_port
        self.state = OPEN
        self.connections: set[_Connection] = set()
        self._port = port
        self._random = random
        self._server: asyncio.Server | None = None

    async def set(self, state: LinkState) -> None:
        """Have a link behave so from now on, its open connections too.

        Raises:
            OSError: somebody else listens on its port.
        """
        self.state = state
        if state.is_closed:
            self.close()
            return
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Connection(self).dialer(), HOST, self._port
            )
        for connection in list(self.connections):
            connection.state_changed()

    def close(self) -> None:
        """End all connections, and refuse new ones until the next `set`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self.connections):
            connection.abort()

    def delay_s(self) -> float:
        """Give how long the next bytes are on their way."""
        if not self.state.delay_ms and not self.state.jitter_ms:
            return 0.0
        return (self.state.delay_ms + self._random.random() * self.state.jitter_ms) / 1_000
