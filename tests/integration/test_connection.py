"""Connections through what happens to nodes and to keys: refused, killed, and stopped with data
unsent; let in no more, or by nobody whom one trusts."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from msgspec import Struct, structs
from nats.aio.client import Client

from deploy import nodes
from deploy.access import Doors
from deploy.certificates import certificates
from deploy.keys import new_seed
from deploy.nodes import NodeProcess
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, ConnectionOptions, Credentials
from dex_runtime.keys import peer_file
from dex_runtime.messaging import NoReply, NoResponder, Requester
from tests.nats_nodes import Nodes, connected, doors, running

LONG_S = 60.0


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Nodes, Nodes]]:
    """Run two nodes that do not know each other."""
    async with running(tmp_path / "a") as first, running(tmp_path / "b") as second:
        yield first, second


async def test_first_connection_that_fails_says_so() -> None:
    (port,) = nodes.free_ports(1)
    options = ConnectionOptions(
        servers=(f"nats://{nodes.HOST}:{port}",), name="test", first_connection_timeout_s=0.1
    )

    with pytest.raises(CannotConnect, match=f"{port}.*Connect call failed"):
        await connection.connect(options)


async def test_address_that_says_tls_means_it(node: Nodes) -> None:
    url = node.urls[0].replace("nats://", "tls://")
    options = ConnectionOptions(servers=(url,), name="test", credentials=doors().role("server"))

    with pytest.raises(CannotConnect, match="expected a node that speaks TLS"):
        await connection.connect(options)


async def test_wrong_password_is_refused_at_once(tmp_path: Path) -> None:
    (port,) = nodes.free_ports(1)
    guarded = structs.replace(
        nodes.alone(tmp_path, port=port), extra='authorization { user: "u", password: "p" }'
    )
    node = nodes.start(guarded)
    right = ConnectionOptions(
        servers=(node.url,),
        name="test",
        credentials=Credentials(user="u", password="p"),
        first_connection_timeout_s=LONG_S,
    )
    try:
        await connection.close(await connection.connect(right))

        with pytest.raises(CannotConnect, match="Authorization"):
            await connection.connect(
                structs.replace(right, credentials=Credentials(user="u", password="wrong"))
            )
    finally:
        await node.stop(graceful=False)


async def test_connection_comes_back_with_its_node_and_says_so(tmp_path: Path) -> None:
    lost, back = asyncio.Event(), asyncio.Event()
    async with running(tmp_path) as node:
        options = ConnectionOptions(
            servers=node.urls, name="test", credentials=doors().role("server")
        )
        client = await connection.connect(
            options, on_disconnected=lost.set, on_reconnected=back.set
        )
        requester = await Requester.start(client)
        async with asyncio.timeout(LONG_S):
            await node.kill()
            await lost.wait()
            with pytest.raises(NoResponder):
                await requester.request("test.any", b"", timeout_s=LONG_S)
            await node.restart()
            await back.wait()
        await requester.round_trip(timeout_s=LONG_S)
        await connection.close(client)


async def test_tight_loop_of_requests_does_not_keep_a_connection_from_coming_back(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as node, connected(node) as client:
        requester = await Requester.start(client)
        await node.kill()
        returning = asyncio.create_task(node.restart())

        async with asyncio.timeout(LONG_S):
            while True:
                try:
                    await requester.round_trip(timeout_s=1.0)
                    break
                except (NoResponder, NoReply):
                    continue

        await returning


async def test_node_that_stopped_with_data_unsent_is_left_and_nothing_is_sent_late(
    pair: tuple[Nodes, Nodes],
) -> None:
    """nats.py issue 671, and what it would do then: deliver old orders to the next node."""
    first, second = pair
    heard: list[int] = []
    back = asyncio.Event()

    async def hear(message: object) -> None:
        heard.append(1)

    async with connected(second) as listener:
        await listener.subscribe("test.flood", cb=hear)
        ears = await Requester.start(listener)
        await ears.round_trip(timeout_s=LONG_S)
        # Connected to the first node for sure, and aware of the second.
        client = await connection.connect(
            ConnectionOptions(servers=first.urls, name="test", credentials=doors().role("server")),
            on_reconnected=back.set,
        )
        client.set_server_pool(list(first.urls + second.urls))
        first.pause()
        for _ in range(200):
            await client.publish("test.flood", bytes(100_000))
            await asyncio.sleep(0)
        async with asyncio.timeout(LONG_S):
            await back.wait()
        requester = await Requester.start(client)
        await requester.round_trip(timeout_s=LONG_S)
        await ears.round_trip(timeout_s=LONG_S)
        await connection.close(client)

    assert heard == []


AUTHORIZATION_VIOLATION: Final = b"-ERR 'Authorization Violation'\r\n"


async def test_connection_to_a_stopped_node_can_be_closed(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        client = await connection.connect(
            ConnectionOptions(servers=node.urls, name="test", credentials=doors().role("server"))
        )
        await Requester.start(client)
        node.pause()
        for _ in range(100):
            await client.publish("test.flood", bytes(100_000))
            await asyncio.sleep(0)
        before = time.monotonic()

        await connection.close(client)

        # Not a measurement: without an end of its own it would wait until the node goes on.
        assert time.monotonic() - before < LONG_S
        assert client.is_closed


@pytest.mark.parametrize("is_let_in_again", [True, False])
@pytest.mark.parametrize("is_connecting_again", [True, False])
async def test_connection_that_breaks_while_it_is_closed_is_closed(
    *, is_connecting_again: bool, is_let_in_again: bool
) -> None:
    """Whichever step of the library's own reconnection the closing falls into, and whatever the
    node says to it: nothing goes on trying."""
    accepted: list[asyncio.StreamWriter] = []
    has_broken = False
    comes_again = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        if has_broken:
            comes_again.set()
        answer = b"PONG\r\n" if is_let_in_again or not has_broken else AUTHORIZATION_VIOLATION
        try:
            writer.write(b'INFO {"server_id":"N","version":"2.15.1","max_payload":1048576}\r\n')
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(answer)
        except ConnectionError:
            return
        finally:
            writer.close()

    node = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{node.sockets[0].getsockname()[1]}"
    try:
        for steps in [step for step in range(8) for _ in range(2)]:
            has_broken = False
            comes_again.clear()
            client = await connection.connect(
                ConnectionOptions(servers=(url,), name="test", credentials=doors().role("server"))
            )
            has_broken = True
            while accepted:
                accepted.pop().transport.abort()
            if is_connecting_again:
                await comes_again.wait()
            for _ in range(steps):
                await asyncio.sleep(0)

            await connection.close(client)

            assert client.is_closed
            reconnection = client._reconnection_task
            assert reconnection is None or reconnection.done(), steps
            socket = connection._transport_of(client)._io_writer
            assert socket is None or socket.transport.is_closing(), steps
    finally:
        node.close()


# --- Who is let in ------------------------------------------------------------------------------


class House(Struct):
    """A node with doors of its own, which a test may lock."""

    doors: Doors
    node: NodeProcess

    def options(self, credentials: Credentials) -> ConnectionOptions:
        """Say who wants to come in, however long it takes."""
        return ConnectionOptions(
            servers=(self.node.url,),
            name="test",
            credentials=credentials,
            first_connection_timeout_s=LONG_S,
        )

    def seed(self, peer: str) -> bytes:
        """Read the key of a peer."""
        return peer_file(self.doors.keyring.directory, peer).read_bytes()

    async def why_not(self, credentials: Credentials) -> str:
        """Try to come in, which ends at once; tell why."""
        with pytest.raises(CannotConnect) as raised:
            await connection.connect(self.options(credentials))
        assert raised.value.is_refusal, raised.value
        return raised.value.cause


@asynccontextmanager
async def house(directory: Path, *, has_tls: bool = False) -> AsyncIterator[House]:
    """Run a node that lets nobody in without a key, for as long as the block lasts."""
    doors = Doors(
        directory / "keys", directory / "accounts.conf", has_observer=False, has_tls=has_tls
    )
    doors.keyring.add("alice")
    doors.write()
    (port,) = nodes.free_ports(1)
    node = nodes.start(nodes.alone(directory / "node", port=port, access=doors.access))
    try:
        await nodes.wait_until_ready([node])
        yield House(doors, node)
    finally:
        await node.stop(graceful=False)


async def test_who_is_not_known_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "stranger.nk"
    # As people write files, with a line break behind.
    file.write_bytes(new_seed() + b"\n")
    async with house(tmp_path) as locked:
        stranger = await locked.why_not(Credentials(nkey=str(file)))
        nobody = await locked.why_not(Credentials())
        user = await locked.why_not(Credentials(user="alice", password="guess"))

        file.write_bytes(locked.seed("alice") + b"\n")
        alice = await connection.connect(locked.options(Credentials(nkey=str(file))))
        await connection.close(alice)

    assert stranger == f"it refused the key in {file} (Authorization Violation)"
    assert nobody == "it refused somebody without a key (Authorization Violation)"
    assert user == "it refused the user 'alice' (Authorization Violation)"


async def test_node_is_believed_by_its_certificate(tmp_path: Path) -> None:
    other = certificates(tmp_path)
    async with house(tmp_path / "house", has_tls=True) as locked:
        alice = locked.doors.peer("alice")
        server = locked.doors.role("server")
        client = await connection.connect(locked.options(server))
        await (await Requester.start(client)).round_trip(timeout_s=LONG_S)
        await connection.close(client)

        by_another = await locked.why_not(structs.replace(alice, tls_ca=str(other.authority)))
        by_the_system = await locked.why_not(structs.replace(alice, tls_ca=None))

    assert by_another.startswith(f"its certificate is not one that {other.authority} vouches for (")
    assert by_the_system.startswith("its certificate is not one that the system vouches for (")


async def test_who_trusts_certificates_only_tells_nothing_to_a_node_without_one(
    tmp_path: Path,
) -> None:
    """Whoever is between may say that there is no TLS."""
    heard: list[bytes] = []
    has_gone = asyncio.Event()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"N","version":"2.15.1","nonce":"n"}\r\n')
        heard.append(await reader.read())
        has_gone.set()
        writer.close()

    other = certificates(tmp_path)
    trusting = Credentials(tls_ca=str(other.authority))
    async with house(tmp_path / "house") as locked:
        alice = locked.doors.peer("alice")
        honest = await locked.why_not(structs.replace(trusting, nkey=alice.nkey))
        pretender = await asyncio.start_server(pretend, nodes.HOST, 0)
        url = f"nats://{nodes.HOST}:{pretender.sockets[0].getsockname()[1]}"
        try:
            with pytest.raises(CannotConnect, match="speaks plain text") as raised:
                await connection.connect(
                    ConnectionOptions(
                        servers=(url,),
                        name="test",
                        credentials=structs.replace(trusting, nkey=alice.nkey),
                    )
                )
            async with asyncio.timeout(LONG_S):
                await has_gone.wait()
        finally:
            pretender.close()
            await pretender.wait_closed()

    assert honest == "expected a node that speaks TLS, found one that speaks plain text"
    assert raised.value.is_refusal
    assert heard == [b""]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
async def test_user_credentials_of_a_file_are_shown_to_a_node(
    tmp_path: Path, line_end: str
) -> None:
    """JWTs want an operator of their own; a node that is made up hears what is said."""
    said: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"N","version":"2.15.1","max_payload":1048576,'
            b'"auth_required":true,"nonce":"once"}\r\n'
        )
        while line := await reader.readline():
            if line.startswith(b"CONNECT"):
                said.append(line)
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    file = tmp_path / "alice.creds"
    lines = [
        *("-----BEGIN NATS USER JWT-----", "eyJ0.eyJ1.c2ln", "------END NATS USER JWT------"),
        *("", "************************* IMPORTANT *************************", ""),
        *("-----BEGIN USER NKEY SEED-----", new_seed().decode(), "------END USER NKEY SEED------"),
    ]
    file.write_text(line_end.join([*lines, ""]), newline="")
    node = await asyncio.start_server(listen, nodes.HOST, 0)
    url = f"nats://{nodes.HOST}:{node.sockets[0].getsockname()[1]}"
    try:
        client = await connection.connect(
            ConnectionOptions(servers=(url,), name="test", credentials=Credentials(creds=str(file)))
        )
        await connection.close(client)
    finally:
        node.close()
        await node.wait_closed()

    (hello,) = said
    told = json.loads(hello.removeprefix(b"CONNECT "))
    assert told["jwt"] == "eyJ0.eyJ1.c2ln"
    assert len(told["sig"]) > 0


class Witness:
    """What a connection told of itself, and when."""

    def __init__(self) -> None:
        self.lost, self.back, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.errors: list[str] = []
        self.lost_at = self.closed_at = 0.0

    def on_disconnected(self) -> None:
        self.lost_at = self.lost_at or time.monotonic()
        self.lost.set()

    def on_closed(self) -> None:
        self.closed_at = time.monotonic()
        self.closed.set()

    async def sees(self, options: ConnectionOptions) -> Client:
        """Connect, and look on."""
        return await connection.connect(
            options,
            on_disconnected=self.on_disconnected,
            on_reconnected=self.back.set,
            on_closed=self.on_closed,
            on_error=self.errors.append,
        )


@pytest.mark.parametrize("change", ["removed", "rotated"])
async def test_connection_whose_key_is_worth_nothing_any_more_ends_for_good(
    tmp_path: Path, change: str
) -> None:
    """Even where its file is gone, or has another key by now; others do not notice."""
    async with house(tmp_path) as locked, asyncio.timeout(LONG_S):
        witness, other = Witness(), Witness()
        alice = locked.doors.peer("alice")
        client = await witness.sees(locked.options(alice))
        default = await other.sees(locked.options(locked.doors.peer("default")))

        if change == "removed":
            locked.doors.keyring.remove("alice")
        else:
            locked.doors.keyring.rotate("alice")
        await locked.doors.tell([locked.node])
        await witness.closed.wait()

        assert client.is_closed
        # Not sooner, since nodes learn of a new key one after another.
        assert witness.closed_at - witness.lost_at >= connection.REFUSED_S
        assert f"it refused the key in {alice.nkey} (Authorization Violation)" in witness.errors
        assert not witness.back.is_set()
        assert not other.lost.is_set()
        await connection.close(default)


async def test_connection_that_is_refused_for_a_moment_comes_back(tmp_path: Path) -> None:
    async with house(tmp_path) as locked, asyncio.timeout(LONG_S):
        witness = Witness()
        public = locked.doors.keyring.peers()["alice"]
        client = await witness.sees(locked.options(locked.doors.peer("alice")))

        locked.doors.keyring.remove("alice")
        await locked.doors.tell([locked.node])
        await witness.lost.wait()
        locked.doors.keyring.add("alice", public)
        await locked.doors.tell([locked.node])
        await witness.back.wait()

        await asyncio.sleep(connection.REFUSED_S)
        assert client.is_connected
        assert not witness.closed.is_set()
        await connection.close(client)
