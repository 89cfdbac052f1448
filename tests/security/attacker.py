"""Somebody with a connection to a NATS node and bad intentions, who speaks its protocol by hand.

No library stands in the way of what is sent, and nothing that comes back is left out: messages,
and the node's refusals word for word.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from deploy.conversation import Conversation, conversation
from deploy.nodes import HOST
from dex_runtime.connection import Credentials
from dex_runtime.keys import Role
from tests.integration.programs import PATIENCE_S
from tests.integration.wire import encoded
from tests.nats_nodes import Nodes, doors

NOBODY: Final = "nobody serves this"
"""What stands for the node's own answer, when a request was let through and reached nobody."""


class Heard(Struct, frozen=True):
    """A message as it arrived."""

    subject: str
    reply: str
    headers: bytes
    payload: bytes


class Attacker:
    """One connection of somebody's."""

    def __init__(self, talk: Conversation) -> None:
        """Use `attacking`."""
        self._talk = talk
        self._count = 0
        self.greeting: Final = talk.greeting
        """What the node said of itself first."""
        self.inbox: Final = f"_INBOX.{secrets.token_hex(8)}"
        self.heard: list[Heard] = []
        """All that ever arrived, in order."""
        self.refusals: list[str] = []
        """All that the node ever refused, in its words."""

    def subscribe(self, subject: str, queue: str = "") -> None:
        """Listen to a subject, in a queue group perhaps."""
        self._count += 1
        self._talk.write(f"SUB {subject} {queue} {self._count}\r\n".encode())

    def publish(
        self,
        subject: str,
        body: Any = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send anything anywhere."""
        payload = encoded(body)
        if headers is None:
            line, head = f"PUB {subject} {reply} {len(payload)}", b""
        else:
            head = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
            head = b"NATS/1.0\r\n" + head + b"\r\n"
            line = f"HPUB {subject} {reply} {len(head)} {len(head) + len(payload)}"
        self._talk.write(line.encode() + b"\r\n" + head + payload + b"\r\n")

    async def answers_come(self) -> None:
        """Listen to one's own inbox, which `ask` needs."""
        self.subscribe(f"{self.inbox}.*")
        await self.refused()

    async def ask(
        self, subject: str, body: Any = b"", *, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Send a request, and read what comes back: an answer, NOBODY, or the node's refusal."""
        self._count += 1
        reply = f"{self.inbox}.{self._count}"
        refusals = len(self.refusals)
        self.publish(subject, body, reply=reply, headers=headers)
        async with asyncio.timeout(PATIENCE_S):
            while len(self.refusals) == refusals:
                arrived = await self._next()
                if isinstance(arrived, Heard) and arrived.subject == reply:
                    if arrived.headers.startswith(b"NATS/1.0 503"):
                        return NOBODY
                    return msgspec.json.decode(arrived.payload)
        return self.refusals[-1]

    async def refused(self) -> list[str]:
        """Wait until the node has done all that was sent, and give what it refused of that."""
        return await self.settled(since=len(self.refusals))

    async def settled(self, *, since: int = 0) -> list[str]:
        """Wait until the node has done all that was sent, and give what it ever refused."""
        self._talk.write(b"PING\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while await self._next() != b"PONG\r\n":
                pass
        return self.refusals[since:]

    async def cut(self) -> str:
        """Wait until the node ends the connection; give what it said last."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self._next()
        except (asyncio.IncompleteReadError, ConnectionError):
            return self.refusals[-1] if self.refusals else ""

    async def _next(self) -> Heard | bytes:
        line = await self._talk.line()
        if line.startswith(b"PING"):
            # A node gives up who does not answer.
            self._talk.write(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            self.refusals.append(line.decode().removeprefix("-ERR").strip().strip("'"))
        elif line.startswith((b"MSG ", b"HMSG ")):
            return await self._message(line.decode().split())
        return line

    async def _message(self, words: list[str]) -> Heard:
        sizes = 2 if words[0] == "HMSG" else 1
        content = await self._talk.read(int(words[-1]))
        await self._talk.read(2)
        head = int(words[-2]) if sizes == 2 else 0
        reply = words[3] if len(words) == 4 + sizes else ""
        heard = Heard(words[1], reply, content[:head], content[head:])
        self.heard.append(heard)
        return heard


@asynccontextmanager
async def attacking(
    nodes: Nodes,
    *,
    peer: str | None = None,
    role: Role | None = None,
    seed: bytes | None = None,
    index: int = 0,
    port: int | None = None,
    authority: Path | None = None,
) -> AsyncIterator[Attacker]:
    """Be connected for as long as the block lasts, and not necessarily let in.

    Args:
        nodes: The exchange's.
        peer: Whose valid key to bring.
        role: Whose key to bring, of those who work for the exchange.
        seed: Another key; without any of the three, none.
        index: Of the node.
        port: Of a node, instead.
        authority: A file with the certificates to trust, when the node speaks TLS.
    """
    if peer is not None:
        seed = seed_of(doors().peer(peer))
    if role is not None:
        seed = seed_of(doors().role(role))
    if port is None:
        port = int(nodes.urls[index].rpartition(":")[2])
    async with conversation(HOST, port, seed=seed, authority=authority) as talk:
        yield Attacker(talk)


def seed_of(credentials: Credentials) -> bytes:
    """Read the private key that is named there."""
    assert credentials.nkey is not None
    return Path(credentials.nkey).read_bytes()


def forbidden(subject: str) -> str:
    """What a node says to who may not publish there."""
    return f'Permissions Violation for Publish to "{subject}"'


def deaf(subject: str, queue: str = "") -> str:
    """What a node says to who may not listen there."""
    using = f' using queue "{queue}"' if queue else ""
    return f'Permissions Violation for Subscription to "{subject}"{using}'
