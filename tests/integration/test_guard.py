"""The guard at work on real nodes: who floods is cut, and nobody else.

Floods are raw sockets that send as fast as the node reads; a client library would be polite.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nkeys
import pytest
from msgspec import structs

from deploy import nodes
from dex_runtime import connection, keys
from dex_runtime.connection import ConnectionOptions, Credentials
from dex_runtime.messaging import Requester
from tests.integration.programs import PATIENCE_S, Program, eventually
from tests.nats_nodes import Nodes

PASSWORD = "pass"

ACCOUNTS = """
accounts {
  SYS {
    users: [{
      nkey: %s
      permissions: {
        publish: {allow: [
          "$SYS.REQ.SERVER.PING.IDZ", "$SYS.REQ.SERVER.*.CONNZ", "$SYS.REQ.SERVER.*.KICK",
          "$SYS.REQ.USER.INFO"
        ]}
        subscribe: {allow: ["_INBOX.>"]}
      }
    }]
  }
  DEX {
    jetstream: enabled
    users: [{user: dex, password: pass}]
    exports: [{service: "dex.orders.*.*"}]
  }
  PEERS {
    users: [
      {user: alice, password: pass}
      {
        user: eve
        password: pass
        permissions: {publish: {allow: ["dex.orders.*.eve"]}, subscribe: {allow: ["_INBOX.>"]}}
      }
    ]
    imports: [{service: {account: DEX, subject: "dex.orders.*.*"}}]
  }
}
system_account: SYS
no_auth_user: dex
"""

ALLOWED = b"PUB dex.orders.X.eve 2\r\n{}\r\n"
REFUSED = b"PUB dex.orders.X.alice 2\r\n{}\r\n"


class Grounds:
    """Nodes with accounts, the key of a guard, and guards and floods upon them."""

    def __init__(self, directory: Path, *, count: int) -> None:
        """Start nothing yet."""
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        self.key = directory / "guard.nk"
        self.key.write_bytes(seed)
        extra = ACCOUNTS % nkeys.from_seed(bytearray(seed)).public_key.decode()
        ports = nodes.free_ports(2 * count)
        settings = (
            [nodes.alone(directory / "node", port=ports[0])]
            if count == 1
            else nodes.cluster(directory, client_ports=ports[:count], cluster_ports=ports[count:])
        )
        self.nodes = Nodes([structs.replace(each, extra=extra) for each in settings])
        self.ports = ports[:count]
        self._directory = directory
        self._programs: list[Program] = []

    def guard(self, *options: str, at: int = 0, key: bool = True, name: str = "guard") -> Program:
        """Start a guard that knows one node; it does not guard yet."""
        has_key = ("--nkey", str(self.key)) if key else ()
        program = Program(
            *("dex-guard", "--nats", self.nodes.urls[at], *has_key, *options),
            log=self._directory / f"{name}.log",
        )
        self._programs.append(program)
        return program

    def end(self) -> None:
        """End every guard."""
        for program in self._programs:
            program.end()


@asynccontextmanager
async def grounds(directory: Path, *, count: int = 1) -> AsyncIterator[Grounds]:
    """Have nodes for as long as the block lasts; the block starts them."""
    made = Grounds(directory, count=count)
    try:
        yield made
    finally:
        made.end()
        await made.nodes.end()


class Flood:
    """A connection that sends one message over and over, as fast as it is read."""

    def __init__(self, port: int, *, user: str, message: bytes = ALLOWED) -> None:
        """Send nothing yet."""
        self._port = port
        self._user = user
        self._buffer = message * (1_000_000 // len(message))
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Flood":
        """Connect, and begin to send."""
        reader, writer = await asyncio.open_connection(nodes.HOST, self._port)
        await reader.readuntil(b"\r\n")
        writer.write(
            b'CONNECT {"verbose":false,"name":"raw\\nsocket","user":"%s","pass":"%s"}\r\n'
            % (self._user.encode(), PASSWORD.encode())
        )
        self._sending = asyncio.create_task(self._send(writer))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send no more."""
        assert self._sending is not None
        self._sending.cancel()
        await asyncio.wait((self._sending,))

    @property
    def is_cut(self) -> bool:
        """Whether the node has closed the connection."""
        assert self._sending is not None
        return self._sending.done()

    async def cut(self) -> None:
        """Wait until the node closes the connection."""
        assert self._sending is not None
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self._sending)

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(self._buffer)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.transport.abort()


class Polite:
    """A peer who asks something a hundred times a second, and is to stay connected."""

    def __init__(self, url: str) -> None:
        """Ask nothing yet."""
        self._url = url
        self._is_up = True
        self._stack = AsyncExitStack()
        self._asking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Polite":
        """Connect, and begin to ask."""
        client = await connection.connect(
            ConnectionOptions(
                servers=(self._url,),
                name="polite",
                credentials=Credentials(user="alice", password=PASSWORD),
            ),
            on_disconnected=self._on_disconnected,
        )
        self._stack.push_async_callback(connection.close, client)
        self._requester = await Requester.start(client)
        self._asking = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave."""
        assert self._asking is not None
        self._asking.cancel()
        await asyncio.wait((self._asking,))
        await self._stack.aclose()

    async def stayed(self) -> None:
        """Make sure that it was never cut, and is still heard."""
        await self._requester.round_trip(timeout_s=PATIENCE_S)

        assert self._is_up

    def _on_disconnected(self) -> None:
        self._is_up = False

    async def _ask(self) -> None:
        while True:
            await self._requester.round_trip(timeout_s=PATIENCE_S)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("message", [ALLOWED, REFUSED], ids=["allowed", "refused"])
async def test_flood_is_cut_and_others_stay(tmp_path: Path, message: bytes) -> None:
    """A peer that floods is cut, whether or not it may send that; one that does not stays, and so
    does the exchange's own account, which sends as much (G21)."""
    async with grounds(tmp_path) as ground:
        await ground.nodes.start()
        guard = ground.guard()
        await guard.prints("watching the node nats-1")
        (port,) = ground.ports
        async with Polite(ground.nodes.urls[0]) as polite, Flood(port, user="dex") as heavy:
            async with Flood(port, user="eve", message=message) as flood:
                await flood.cut()
                await guard.prints("cut connection")
            async with Flood(port, user="eve", message=message) as again:
                await again.cut()

            assert not heavy.is_cut
            await polite.stayed()

        async def both() -> list[str] | None:
            lines = [line for line in guard.printed.splitlines() if "cut connection" in line]
            return lines if len(lines) >= 2 else None

        # The socket is gone before the guard has said so.
        cuts = await eventually(both, what="two cuts")
        assert len(cuts) == 2
        for line in cuts:
            assert re.search(
                r"cut connection \d+ \('raw\\nsocket'\) of user 'eve' of account PEERS,"
                r" from 127\.0\.0\.1:\d+, at the node nats-1: it sent \d{5,} messages/s and \d+"
                r" bytes/s, all of its user's \d{5,} and \d+; the limits are 20000 and 67108864$",
                line,
            ), line
        assert await guard.terminated() == 0


async def test_limit_of_bytes_is_kept_too(tmp_path: Path) -> None:
    """Few messages are a flood too when they are large, and so is one's own account when it is not
    exempt."""
    async with grounds(tmp_path) as ground:
        await ground.nodes.start()
        guard = ground.guard(
            *("--messages-per-second", "1000000000", "--bytes-per-second", "1000000"),
            *("--exempt", "OTHER"),
        )
        await guard.prints("exempt are OTHER, SYS")
        async with Flood(
            ground.ports[0], user="dex", message=b"PUB a 100000\r\n" + b"x" * 100_000 + b"\r\n"
        ) as flood:
            await flood.cut()
        await guard.prints("of user 'dex' of account DEX")

        assert await guard.terminated() == 0


async def test_every_node_of_a_cluster_is_guarded_by_each_guard(tmp_path: Path) -> None:
    """Two guards, each connected to one of three nodes; a flood of any node is cut, and which of
    the guards was first does not matter. When one is killed, the other one goes on."""
    async with grounds(tmp_path, count=3) as ground:
        await ground.nodes.start()
        guards = [ground.guard(at=at, name=f"guard-{at}") for at in (0, 1)]
        for guard in guards:
            for name in ("nats-1", "nats-2", "nats-3"):
                await guard.prints(f"watching the node {name}")
        async with Polite(ground.nodes.urls[0]) as polite:
            for port in ground.ports:
                async with Flood(port, user="eve") as flood:
                    await flood.cut()
            await guards[0].killed()
            async with Flood(ground.ports[2], user="eve") as flood:
                await flood.cut()
            await guards[1].prints("at the node nats-3")
            await polite.stayed()

        assert await guards[1].terminated() == 0


async def test_guard_waits_for_nodes_and_outlives_them(tmp_path: Path) -> None:
    """A guard may be started before NATS; a node that was started again, with another id and the
    same numbers of connections, is guarded as before."""
    async with grounds(tmp_path) as ground:
        guard = ground.guard()
        await guard.prints("waiting for NATS")
        await ground.nodes.start()
        await guard.prints("watching the node")
        async with Flood(ground.ports[0], user="eve") as flood:
            await flood.cut()
        await ground.nodes.kill()
        await guard.prints("the connection is lost")
        await ground.nodes.restart()
        await guard.prints("the connection is there again")
        async with Flood(ground.ports[0], user="eve") as flood:
            await flood.cut()
        await ground.nodes.kill()

        assert await guard.terminated() == 0


async def test_node_that_stands_still_is_told_and_guarded_again(tmp_path: Path) -> None:
    """Of a node that does not answer nothing is known; the others are guarded all the same."""
    async with grounds(tmp_path, count=3) as ground:
        await ground.nodes.start()
        guard = ground.guard()
        await guard.prints("watching the node nats-3")
        ground.nodes.pause(2)
        await guard.prints("the node nats-3 does not answer")
        async with Flood(ground.ports[1], user="eve") as flood:
            await flood.cut()
        ground.nodes.resume(2)
        async with Flood(ground.ports[2], user="eve") as flood:
            await flood.cut()

        assert await guard.terminated() == 0


async def test_guard_that_waits_for_nats_ends_when_told(tmp_path: Path) -> None:
    """There is nothing to give up while there is no node."""
    async with grounds(tmp_path) as ground:
        guard = ground.guard()
        await guard.prints("waiting for NATS")

        assert await guard.terminated() == 0


async def test_user_of_another_account_is_told_and_guards_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the system account may look at connections and cut them."""
    monkeypatch.setenv(keys.VARIABLE, str(tmp_path / "none"))
    async with grounds(tmp_path) as ground:
        await ground.nodes.start()
        guard = ground.guard(key=False)

        assert await guard.ended() == 1
        assert "expected a user of the NATS system account" in guard.printed
        assert "Traceback" not in guard.printed


async def test_key_that_no_node_knows_is_told(tmp_path: Path) -> None:
    """A guard that is not let in waits, as for nodes that are not there yet: the key may come."""
    async with grounds(tmp_path) as ground:
        await ground.nodes.start()
        ground.key.write_bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        guard = ground.guard()
        await guard.prints("waiting for NATS")

        assert await guard.terminated() == 0
