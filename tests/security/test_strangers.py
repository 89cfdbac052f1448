"""Who has no valid key hears the events, if anything, and does nothing else (G20).

What `dex-client` says of it is one sentence, on stderr, and its exit code is 2.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nkeys
import pytest
from msgspec import Struct, structs

from deploy import certificates, nodes
from deploy.access import Doors
from deploy.keys import public_key, write_private
from deploy.nodes import NodeProcess, NodeSettings
from tests.integration.programs import PATIENCE_S, Exchange, eventually
from tests.nats_nodes import Nodes, doors
from tests.security.attacker import attacking, deaf, forbidden, seed_of
from tests.security.command_line import Said, said_by_client
from tests.security.scene import Scene

WHERE = "; keys are in $DEX_KEYS, or else in .dex/keys, unless --nkey or --creds names one\n"

REFUSED = "Authorization Violation"


class Place(Struct):
    """Nodes that a test may do with what it likes, and who is let in."""

    nodes: Nodes
    doors: Doors
    settings: list[NodeSettings]

    @property
    def keys(self) -> Path:
        """Where its keys are."""
        return self.doors.keyring.directory

    async def tell(self) -> None:
        """Have the nodes learn who is let in now."""
        running = [
            NodeProcess(settings, process.process)
            for settings, process in zip(self.settings, self.nodes._processes, strict=True)
        ]
        await self.doors.tell(running)


@asynccontextmanager
async def place(
    directory: Path, *, count: int = 1, has_observer: bool = True, has_tls: bool = False
) -> AsyncIterator[Place]:
    """Run nodes with keys of their own for as long as the block lasts; alice and bob have some."""
    keys = directory / "keys"
    made = Doors(keys, directory / "accounts.conf", has_observer=has_observer, has_tls=has_tls)
    for peer in ("alice", "bob"):
        made.keyring.add(peer)
    made.write()
    ports = nodes.free_ports(2 * count)
    settings = (
        [nodes.alone(directory / "node", port=ports[0], access=made.access)]
        if count == 1
        else nodes.cluster(
            directory, client_ports=ports[:count], cluster_ports=ports[count:], access=made.access
        )
    )
    running = Nodes(settings)
    try:
        await running.start()
        yield Place(running, made, settings)
    finally:
        await running.end()


async def buying(where: Nodes, *options: str, keys: Path) -> Said:
    """Try to buy as alice."""
    return await said_by_client(
        "buy", "1", "--price", "1", "--peer", "alice", *options, nodes=where, keys=keys
    )


def refusal(where: Nodes, who: str) -> Said:
    """What is said to who is not let in."""
    text = f"Error: cannot connect to NATS at {where.urls[0]}: it refused {who} ({REFUSED}){WHERE}"
    return Said(2, "", text)


def by_key(file: object) -> str:
    """How somebody with a key is named."""
    return f"the key in {file}"


# --- Without a key ------------------------------------------------------------------------------


async def test_observer_hears_the_events_and_nothing_else(scene: Scene) -> None:
    async with attacking(scene.exchange.nodes) as nobody:
        nobody.subscribe("dex.events.>")
        nobody.subscribe(f"dex.events.{scene.market}", "leader")
        assert await nobody.refused() == []

        await scene.alice_trades(5)
        while len(nobody.heard) < 10:
            await nobody.settled()

        assert {heard.subject for heard in nobody.heard} == {f"dex.events.{scene.market}"}
        for subject in (
            *(">", "*", "dex.>", "dex.*.*", "_INBOX.>", f"{scene.alice.inbox}.*", "_R_.>"),
            *(f"dex.log.{scene.market}", "dex.orders.*.*", "dex.alarm.*", "$JS.>", "$SYS.>"),
        ):
            nobody.subscribe(subject)
            assert await nobody.refused() == [deaf(subject)]
        nobody.subscribe("dex.orders.*.*", "leader")
        assert await nobody.refused() == [deaf("dex.orders.*.*", "leader")]
    await scene.unharmed()


async def test_observer_publishes_nothing(scene: Scene) -> None:
    async with attacking(scene.exchange.nodes) as nobody:
        for subject in (
            *(scene.orders("alice"), scene.orders("nobody"), "dex.query.X.status.nobody"),
            *(f"dex.query.{scene.market}.book.bob", f"dex.events.{scene.market}"),
            *(f"dex.log.{scene.market}", f"dex.admin.{scene.market}.halt", "dex.alarm.X"),
            *("$JS.API.INFO", "$SRV.PING", "$SYS.REQ.USER.INFO", "_INBOX.X", "X"),
        ):
            nobody.publish(subject, {"op": "cancel_all"}, reply=f"{scene.alice.inbox}.1")
            assert await nobody.refused() == [forbidden(subject)]
    await scene.unharmed()


@pytest.mark.parametrize(
    "claim",
    [
        {"account": "DEX"},
        {"account": "DEX", "new_account": True},
        {"user": "dex"},
        {"user": "alice", "pass": "alice"},
        {"auth_token": "alice"},
        {"nkey": "PEER"},
        {"nkey": "PEER", "sig": "AAAA"},
    ],
    ids=str,
)
async def test_claim_without_a_key_is_refused(node: Nodes, claim: dict[str, object]) -> None:
    alice = doors().keyring.peers()["alice"]
    claim = {name: alice if value == "PEER" else value for name, value in claim.items()}

    assert await answer_to(node, claim) == REFUSED


async def test_public_key_of_the_observer_is_worth_what_none_is(node: Nodes) -> None:
    """A node asks for no signature there; that it stands in a file of the exchange is no harm."""
    claim: dict[str, object] = {"nkey": doors().keyring.observer}

    assert await answer_to(node, claim) == "PONG"
    assert await answer_to(node, claim, then=b"PUB dex.orders.X.alice 0\r\n\r\n") == forbidden(
        "dex.orders.X.alice"
    )


async def answer_to(
    where: Nodes, claim: dict[str, object], *, signer: bytes | None = None, then: bytes = b""
) -> str:
    """Say of oneself what one likes, signed perhaps, and something else then; give what the node
    says to that."""
    port = int(where.urls[0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection(nodes.HOST, port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            greeting = json.loads((await reader.readline()).removeprefix(b"INFO "))
            if signer is not None:
                signed = nkeys.from_seed(bytearray(signer)).sign(greeting["nonce"].encode())
                claim = claim | {"sig": base64.b64encode(signed).decode()}
            claim = claim | {"verbose": False}
            writer.write(b"CONNECT %b\r\n" % json.dumps(claim).encode() + then + b"PING\r\n")
            answer = await reader.readline()
    finally:
        writer.transport.abort()
    return answer.decode().removeprefix("-ERR").strip().strip("'")


async def test_order_of_an_observer_is_refused_in_one_sentence(
    scene: Scene, tmp_path: Path
) -> None:
    said = await buying(scene.exchange.nodes, "--market", scene.market, keys=tmp_path)

    assert said.stderr == (
        f"Error: NATS does not let somebody without a key publish to "
        f"dex.query.{scene.market}.status.alice, and nothing was done: "
        f"expected the key of 'alice'{WHERE}"
    )
    assert (said.code, said.stdout) == (2, "")
    await scene.unharmed()


async def test_nobody_is_let_in_where_observers_are_not_wanted(tmp_path: Path) -> None:
    async with place(tmp_path, has_observer=False) as closed:
        async with attacking(closed.nodes) as nobody:
            assert await nobody.cut() == REFUSED

        nothing = tmp_path / "nothing"
        said = await buying(closed.nodes, keys=nothing)

        assert said == refusal(closed.nodes, "somebody without a key")
        tail = await said_by_client("tail", nodes=closed.nodes, keys=nothing)
        assert tail.stderr.endswith(refusal(closed.nodes, "somebody without a key").stderr)
        assert (tail.code, tail.stdout) == (2, "")


# --- With a key that is worth nothing -----------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
async def test_key_that_was_rotated_or_revoked_is_cut_and_refused_on_every_node(
    count: int, tmp_path: Path
) -> None:
    async with place(tmp_path, count=count) as place_:
        keyring = place_.doors.keyring
        first = seed_of(place_.doors.peer("alice"))
        old_key = tmp_path / "old.nk"
        write_private(old_key, first)
        async with attacking(place_.nodes, seed=first, index=count - 1) as alice:
            assert await alice.settled() == []
            keyring.rotate("alice")
            await place_.tell()
            await alice.cut()

        second = seed_of(place_.doors.peer("alice"))
        for index in range(count):
            await _is_refused(place_.nodes, first, index=index)
            async with attacking(place_.nodes, seed=second, index=index) as alice:
                assert await alice.settled() == []
        said = await buying(place_.nodes, "--nkey", str(old_key), keys=place_.keys)
        assert said == refusal(place_.nodes, by_key(old_key))

        keyring.remove("alice")
        await place_.tell()
        for index in range(count):
            await _is_refused(place_.nodes, second, index=index)
        write_private(old_key, second)
        said = await buying(place_.nodes, "--nkey", str(old_key), keys=place_.keys)
        assert said == refusal(place_.nodes, by_key(old_key))


async def _is_refused(where: Nodes, seed: bytes, *, index: int) -> None:
    async with attacking(where, seed=seed, index=index) as somebody:
        assert await somebody.cut() == REFUSED


async def test_key_of_another_exchange_is_refused(node: Nodes, tmp_path: Path) -> None:
    other = Doors(tmp_path / "keys", tmp_path / "a.conf", has_observer=True, has_tls=False)
    other.keyring.add("alice")
    for credentials in (other.peer("alice"), *(other.role(role) for role in ("server", "guard"))):
        await _is_refused(node, seed_of(credentials), index=0)

    said = await buying(node, keys=tmp_path / "keys")

    assert said == refusal(node, by_key(tmp_path / "keys" / "peers" / "alice.nk"))


async def test_own_key_opens_nothing_by_another_name(node: Nodes) -> None:
    # A signature of bob's beside alice's public key.
    alice = doors().keyring.peers()["alice"]
    bob = seed_of(doors().peer("bob"))

    assert await answer_to(node, {"nkey": public_key(bob)}, signer=bob) == "PONG"
    assert await answer_to(node, {"nkey": alice}, signer=bob) == REFUSED


@pytest.mark.parametrize(
    ("words", "subject"),
    [
        (
            ["markets", "open", "NEW-ONE", "--tick-size", "1", "--lot-size", "1"],
            "dex.admin.NEW-ONE.open",
        ),
        (["markets", "halt", "BTC-USD"], "dex.admin.BTC-USD.halt"),
        (["markets", "close", "BTC-USD", "--yes"], "dex.admin.BTC-USD.close"),
        (["markets", "list"], "$JS.API.STREAM.INFO.KV_DEX-MARKETS"),
        (["status"], "$SRV.STATS.dex-server"),
    ],
    ids=str,
)
async def test_operators_commands_with_a_peers_key_are_refused_in_one_sentence(
    stage: Exchange, words: list[str], subject: str
) -> None:
    key = str(doors().peer("bob").nkey)

    said = await said_by_client(*words, "--nkey", key, nodes=stage.nodes)

    assert said == Said(
        2,
        "",
        f"Error: NATS does not let the key in {key} publish to {subject}, and nothing was done: "
        f"expected the key of an operator{WHERE}",
    )


# --- TLS ----------------------------------------------------------------------------------------


async def test_node_with_another_authoritys_certificate_is_not_trusted(tmp_path: Path) -> None:
    async with place(tmp_path, has_tls=True) as secured:
        other = certificates.certificates(_directory(tmp_path / "other")).authority

        good = await said_by_client(
            "status", "--deadline", "1", nodes=secured.nodes, keys=secured.keys
        )
        said = await buying(secured.nodes, "--tls-ca", str(other), keys=secured.keys)

        # Let in, but there is no server.
        assert "certificate" not in good.stderr
        assert said.stderr.startswith(
            f"Error: cannot connect to NATS at {secured.nodes.urls[0]}: its certificate is not one "
            f"that {other} vouches for ("
        )
        assert said.stderr.endswith(WHERE)
        assert said.stderr.count("\n") == 1
        assert (said.code, said.stdout) == (2, "")


async def test_plain_node_is_refused_by_who_trusts_an_authority(
    node: Nodes, tmp_path: Path
) -> None:
    authority = certificates.certificates(_directory(tmp_path / "other")).authority

    said = await buying(node, "--tls-ca", str(authority), keys=doors().keyring.directory)

    assert said == Said(
        2,
        "",
        f"Error: cannot connect to NATS at {node.urls[0]}: expected a node that speaks TLS, "
        f"found one that speaks plain text{WHERE}",
    )


async def test_plain_client_is_refused_by_a_node_that_speaks_tls(tmp_path: Path) -> None:
    async with place(tmp_path, has_tls=True) as secured:
        # By hand, without TLS: a key of alice's does not help.
        seed = seed_of(secured.doors.peer("alice"))
        async with attacking(secured.nodes, seed=seed) as alice:
            assert alice.greeting["tls_required"] is True
            assert await alice.cut() == ""
            assert alice.heard == []

        # By the client, which trusts the system's authorities only.
        key = secured.doors.peer("alice").nkey
        said = await buying(secured.nodes, "--nkey", str(key), keys=tmp_path / "nothing")

        assert said.stderr.startswith(
            f"Error: cannot connect to NATS at {secured.nodes.urls[0]}: its certificate is not one "
            "that the system vouches for ("
        )
        assert said.stderr.endswith(WHERE)
        assert said.stderr.count("\n") == 1
        assert (said.code, said.stdout) == (2, "")


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


# --- The cluster's port -------------------------------------------------------------------------


async def test_client_at_the_clusters_port_is_told_nothing_and_cut(tmp_path: Path) -> None:
    async with place(tmp_path, count=3) as cluster:
        seed = seed_of(cluster.doors.role("server"))
        port = cluster.settings[0].cluster_port
        assert port is not None
        for key in (None, seed):
            async with attacking(cluster.nodes, seed=key, port=port) as intruder:
                assert await intruder.cut() == REFUSED
            async with attacking(cluster.nodes, seed=key, port=port) as intruder:
                intruder.subscribe(">")
                intruder.publish("dex.orders.X.alice", {"op": "cancel_all"})
                # Perhaps without a word: what was not read yet ends it at once.
                assert await intruder.cut() in (REFUSED, "")
                assert intruder.heard == []


@pytest.mark.parametrize("has_tls", [False, True])
async def test_node_without_the_routes_password_does_not_join(
    tmp_path: Path, has_tls: bool
) -> None:
    """With the right one it does, so the password is all that keeps it out."""
    async with place(tmp_path, count=3, has_tls=has_tls) as cluster:
        access = cluster.doors.access
        wrong = structs.replace(access, routes_password="guessed")
        outsider = _fourth(cluster, tmp_path / "outsider", wrong)
        member = _fourth(cluster, tmp_path / "member", access)

        intruder = nodes.start(outsider)
        try:
            await _logs(outsider, "Authorization Violation")
            assert await _known_ports(cluster) == {each.client_port for each in cluster.settings}
            assert intruder.is_running()
        finally:
            await intruder.stop(graceful=False)

        joining = nodes.start(member)
        try:

            async def look() -> bool | None:
                return True if member.client_port in await _known_ports(cluster) else None

            await eventually(look, what="the node with the password to join")
            # The outsider had as much time, and more.
            assert outsider.client_port not in await _known_ports(cluster)
        finally:
            await joining.stop(graceful=False)


async def test_node_with_another_authoritys_certificate_does_not_join(tmp_path: Path) -> None:
    """Nodes show each other certificates; a password that was heard is not enough."""
    async with place(tmp_path, count=3, has_tls=True) as cluster:
        other = certificates.certificates(_directory(tmp_path / "other"))
        access = cluster.doors.access
        assert access.certificates is not None
        known = structs.replace(other, authority=access.certificates.authority)
        access = structs.replace(access, certificates=known)
        outsider = _fourth(cluster, tmp_path / "outsider", access)

        intruder = nodes.start(outsider)
        try:
            await _logs(cluster.settings[0], "TLS route handshake error")
            assert await _known_ports(cluster) == {each.client_port for each in cluster.settings}
        finally:
            await intruder.stop(graceful=False)


def _fourth(cluster: Place, directory: Path, access: nodes.Access) -> NodeSettings:
    client_port, cluster_port = nodes.free_ports(2)
    return NodeSettings(
        name="nats-4",
        client_port=client_port,
        cluster_port=cluster_port,
        directory=directory,
        routes=tuple(f"{nodes.HOST}:{each.cluster_port}" for each in cluster.settings),
        access=access,
    )


async def _logs(settings: NodeSettings, words: str) -> None:
    async def look() -> bool | None:
        exists = settings.log_file.exists()
        return True if exists and words in settings.log_file.read_text() else None

    await eventually(look, what=f"{words!r} in {settings.log_file}")


async def _known_ports(cluster: Place) -> set[int]:
    # What a node tells clients of the whole cluster.
    made = cluster.doors.access.certificates
    authority = None if made is None else made.authority
    seed = seed_of(cluster.doors.peer("alice"))
    async with attacking(cluster.nodes, seed=seed, authority=authority) as alice:
        assert await alice.settled() == []
        return {int(url.rpartition(":")[2]) for url in alice.greeting["connect_urls"]}
