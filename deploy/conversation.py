"""A few words with a NATS node in its own protocol, by hand: what a client library hides is asked.

Says hello as the holder of a key, over TLS if the node wants it. Knows nothing of why.
"""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys


class Conversation:
    """An open connection that has said hello."""

    def __init__(
        self,
        greeting: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Use `conversation`."""
        self.greeting = greeting
        """What the node said of itself first."""
        self._reader = reader
        self._writer = writer

    def write(self, lines: bytes) -> None:
        """Send what stands there, which ends with a line break."""
        self._writer.write(lines)

    async def line(self) -> bytes:
        """Read a line, with its end.

        Raises:
            IncompleteReadError: the node closed the connection.
        """
        return await self._reader.readuntil()

    async def read(self, count: int) -> bytes:
        """Read so many bytes."""
        return await self._reader.readexactly(count)

    async def round_trip(self) -> bytes:
        """Give the line that answers all that was sent: a PONG, or the node's refusal."""
        self.write(b"PING\r\n")
        while not (line := await self.line()).startswith((b"PONG", b"-ERR")):
            pass
        return line


@asynccontextmanager
async def conversation(
    host: str, port: int, *, seed: bytes | None = None, authority: Path | None = None
) -> AsyncIterator[Conversation]:
    """Be connected for as long as the block lasts.

    Args:
        host: The node's.
        port: Where it takes clients.
        seed: Of an nkey; None for nobody.
        authority: A file with the certificates to trust, when the node speaks TLS.

    Raises:
        OSError, IncompleteReadError: nobody listens, or it ended the connection.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        greeting: dict[str, Any] = json.loads((await reader.readuntil()).removeprefix(b"INFO "))
        if authority is not None:
            context = ssl.create_default_context(cafile=str(authority))
            await writer.start_tls(context, server_hostname=host)
        hello: dict[str, Any] = {"verbose": False, "headers": True, "no_responders": True}
        if seed is not None:
            hello |= _signature(seed, greeting.get("nonce", ""))
        writer.write(b"CONNECT %b\r\n" % json.dumps(hello).encode())
        yield Conversation(greeting, reader, writer)
    finally:
        # Not close(), which waits for a node that takes nothing.
        writer.transport.abort()


def _signature(seed: bytes, nonce: str) -> dict[str, str]:
    pair = nkeys.from_seed(bytearray(seed.strip()))
    signed: bytes = pair.sign(nonce.encode())
    public: bytes = pair.public_key
    return {"nkey": public.decode(), "sig": base64.b64encode(signed).decode()}
