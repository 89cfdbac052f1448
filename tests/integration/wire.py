"""Anybody with a connection to NATS and bad manners: any bytes to any subject, in one market.

Whatever is sent has to be answered, and what the market's log says afterwards is followed from its
first commit to its last with the engine, which checks sequence, chain, time and digest.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from deploy.conversation import conversation
from dex_engine import Market
from dex_protocol.events import Commit
from dex_runtime.keys import role_file
from dex_runtime.messaging import Requester
from tests.integration.programs import PATIENCE_S, Exchange, Program, exchange
from tests.nats_nodes import Callers, calling, doors, running

MESSAGE_BYTES_MAX: Final = 1024 * 1024
COMMIT_BYTES_MAX: Final = 512 * 1024
TIMESTAMP: Final = 1_763_800_000_000


def order_id(number: int, peer: str = "alice") -> str:
    """Name an order."""
    return f"order_{peer}_{TIMESTAMP}_{number}"


def command_id(number: int, peer: str = "alice") -> str:
    """Name a command."""
    return f"command_{peer}_{TIMESTAMP}_{number}"


def encoded(body: Any) -> bytes:
    """Give bytes as they are, and anything else as JSON."""
    return body if isinstance(body, bytes) else msgspec.json.encode(body)


class Target(msgspec.Struct):
    """An exchange to be treated badly: a node, and a server that must live to the end."""

    exchange: Exchange
    server: Program


@asynccontextmanager
async def attacked(directory: Path, *options: str) -> AsyncIterator[Target]:
    """Run an exchange for as long as the block lasts; its server must end well."""
    async with (
        running(directory / "node") as nodes,
        exchange(nodes, directory) as made,
    ):
        server = made.server(*options)
        await server.prints("serving")
        yield Target(made, server)

        assert server.is_running, server.printed
        assert await server.terminated() == 0, server.printed
        assert "Traceback" not in server.printed, server.printed


class Wire:
    """Everybody's connections to one market."""

    def __init__(self, callers: Callers, market: str) -> None:
        """Use `wired`."""
        self._callers = callers
        self._requesters: dict[Client, Requester] = {}
        self.market = market
        self.longest_reply = 0

    async def request(self, subject: str, body: Any) -> Any:
        """Send a request, and read the answer, which must come and fit a message."""
        client = await self._callers.client(subject)
        if client not in self._requesters:
            self._requesters[client] = await Requester.start(client)
        requester = self._requesters[client]
        reply = await requester.request(subject, encoded(body), timeout_s=PATIENCE_S)
        assert len(reply) <= MESSAGE_BYTES_MAX, f"{len(reply)} bytes from {subject}"
        self.longest_reply = max(self.longest_reply, len(reply))
        return msgspec.json.decode(reply)

    async def send(self, body: Any, *, peer: str = "alice") -> Any:
        """Send a command, a batch, or anything."""
        return await self.request(f"dex.orders.{self.market}.{peer}", body)

    async def ask(self, what: str, body: Any = b"", *, peer: str = "alice") -> Any:
        """Send a query, or anything."""
        return await self.request(f"dex.query.{self.market}.{what}.{peer}", body)

    async def administer(self, what: str, body: Any = b"", *, market: str | None = None) -> Any:
        """Send an operator's request, or anything."""
        return await self.request(f"dex.admin.{market or self.market}.{what}", body)

    async def open(self, **fields: Any) -> Any:
        """Open the market."""
        return await self.administer("open", {"specification": self.specification(**fields)})

    def specification(self, **fields: Any) -> dict[str, Any]:
        """Specify the market in ticks of 0.01 and lots of 0.001."""
        return {"market": self.market, "tick_size": "0.01", "lot_size": "0.001"} | fields

    async def log(self) -> list[bytes]:
        """Read all commits, page by page."""
        payloads: list[bytes] = []
        while True:
            page = await self.ask("log", {"from_sequence": len(payloads) + 1})
            assert sum(len(text.encode()) for text in page["commits"]) <= COMMIT_BYTES_MAX
            payloads += [text.encode() for text in page["commits"]]
            if len(payloads) >= page["sequence"]:
                return payloads
            assert page["commits"], page

    async def state(self) -> tuple[int, str, list[bytes]]:
        """Give all that a request without effect must leave as it was."""
        status = await self.ask("status")
        return status["sequence"], status["digest"], await self.log()

    async def followed(self) -> tuple[Market, list[Commit]]:
        """Follow the log, check it and the book against each other, and give both."""
        # In a thread, since it may take seconds: a node leaves who answers no ping for 3 s.
        market, commits = await asyncio.to_thread(_followed, self.market, await self.log())
        status = await self.ask("status")
        assert (status["sequence"], status["digest"]) == (market.sequence, market.digest)
        return market, commits


def _followed(name: str, payloads: list[bytes]) -> tuple[Market, list[Commit]]:
    market = Market(name)
    commits = []
    for payload in payloads:
        assert len(payload) <= COMMIT_BYTES_MAX
        commits.append(market.apply_commit(payload))
    market.check()
    return market, commits


@asynccontextmanager
async def wired(target: Target, market: str) -> AsyncIterator[Wire]:
    """Connect for as long as the block lasts; the market is not opened."""
    async with calling(target.exchange.nodes) as callers:
        yield Wire(callers, market)


async def raw(target: Target, *lines: bytes) -> None:
    """Speak NATS' protocol by hand, since no library sends all that a node takes."""
    port = int(target.exchange.nodes.urls[0].rpartition(":")[2])
    seed = role_file(doors().keyring.directory, "server").read_bytes()
    async with (
        asyncio.timeout(PATIENCE_S),
        conversation("127.0.0.1", port, seed=seed) as attacker,
    ):
        for line in lines:
            attacker.write(line)
        answer = await attacker.round_trip()
        assert answer == b"PONG\r\n", answer
