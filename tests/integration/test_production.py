"""The example of deploy/nats at work: three nodes with its very configuration, keys and TLS.

Only what depends on the machine is replaced: directories, ports, and the names of the nodes, which
are all `localhost` here.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from click.testing import CliRunner

from deploy import nodes
from deploy.conversation import conversation
from deploy.local import main
from dex_client import Exchange, Unreachable, connect
from dex_client.errors import Unavailable
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, ConnectionOptions, Credentials
from dex_runtime.messaging import Requester
from tests.integration.programs import Program, eventually
from tests.tidy.tables import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLE = (ROOT / "deploy" / "nats" / "nats.conf").read_text("utf-8")

NODES = ("nats-1", "nats-2", "nats-3")

JOINED = "Route connection created"

SPECIFICATION = b'{"specification":{"market":"X-Y","tick_size":"0.01","lot_size":"0.1"}}'


def issue(authority: trustme.CA, name: str, directory: Path) -> None:
    """Put the certificate of a node, and its authority's, where the example looks for them."""
    directory.mkdir(parents=True)
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(str(directory / "node.key"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(directory / "node.pem"), append=True)
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))


class Production:
    """The nodes and programs of an exchange made after the example."""

    def __init__(self, directory: Path) -> None:
        """Write keys, accounts and certificates; start nothing yet."""
        self.directory = directory
        self.authority = trustme.CA()
        ports = nodes.free_ports(2 * len(NODES))
        self.client_ports, self.cluster_ports = ports[: len(NODES)], ports[len(NODES) :]
        self.programs: list[Program] = []
        issue(self.authority, "localhost", directory / "etc" / "tls")
        self.accounts("write")
        for peer in ("alice", "bob"):
            self.accounts("add", peer)

    @property
    def urls(self) -> list[str]:
        """Where clients connect."""
        return [f"tls://localhost:{port}" for port in self.client_ports]

    @property
    def ca(self) -> Path:
        """Whom clients trust."""
        return self.directory / "etc" / "tls" / "ca.pem"

    def accounts(self, *arguments: str) -> None:
        """Do as an operator does who lets somebody in."""
        where = ("--keys", str(self.directory / "keys"), "--file", str(self.accounts_file))
        result = CliRunner().invoke(main, ["accounts", *arguments, *where], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    @property
    def accounts_file(self) -> Path:
        """What the nodes include."""
        return self.directory / "etc" / "accounts.conf"

    def credentials(self, key: str | None) -> Credentials:
        """Give those of the holder of a key, such as `peers/alice`."""
        file = None if key is None else str(self.directory / "keys" / f"{key}.nk")
        return Credentials(nkey=file, tls_ca=str(self.ca))

    def configuration(self, name: str, client_port: int, cluster_port: int) -> str:
        """Put this machine's directories and ports into the example."""
        text = EXAMPLE
        replaced = {
            "/etc/dex/": f"{self.directory}/etc/",
            "/var/lib/dex-nats/": f"{self.directory}/{name}/",
            '"0.0.0.0:4222"': f'"127.0.0.1:{client_port}"',
            '"0.0.0.0:6222"': f'"127.0.0.1:{cluster_port}"',
        }
        for node, port in zip(NODES, self.cluster_ports, strict=True):
            replaced[f"{node}.example.com:6222"] = f"localhost:{port}"
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        return text

    def node(self, name: str, text: str) -> Program:
        """Start a node with this configuration."""
        (self.directory / name).mkdir(exist_ok=True)
        file = self.directory / "etc" / f"{name}.conf"
        file.write_text(text, encoding="utf-8")
        return self.program("nats-server", "--config", str(file), "--name", name, name=name)

    def program(self, *command: str, name: str) -> Program:
        """Start a program."""
        program = Program(*command, log=self.directory / f"{name}.out")
        self.programs.append(program)
        return program

    def log(self, name: str) -> str:
        """Read what a node logged."""
        return (self.directory / name / "nats.log").read_text("utf-8")

    async def logs(self, name: str, words: str) -> None:
        """Wait until a node has logged some words."""

        async def look() -> bool | None:
            file = self.directory / name / "nats.log"
            return True if file.exists() and words in self.log(name) else None

        await eventually(look, what=f"{words!r} in the log of {name}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def production(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Production]:
    """Run the nodes, a server and a guard, and open a market."""
    made = Production(tmp_path_factory.mktemp("production"))
    try:
        for name, *ports in zip(NODES, made.client_ports, made.cluster_ports, strict=True):
            made.node(name, made.configuration(name, *ports))
        trusted = ("--nats", ",".join(made.urls), "--tls-ca", str(made.ca))
        keys = made.directory / "keys"
        server = made.program(
            *("dex-server", "--name", "server-1", "--replicas", "3", *trusted),
            *("--nkey", str(keys / "server.nk")),
            name="server-1",
        )
        guard = made.program(
            "dex-guard", *trusted, "--nkey", str(keys / "guard.nk"), name="guard"
        )
        await server.prints("serving")
        await guard.prints("guarding")
        async with asking(made, "operator") as operator:
            await operator.request("dex.admin.X-Y.open", SPECIFICATION, timeout_s=30)
        yield made
    finally:
        for program in made.programs:
            program.end()


@asynccontextmanager
async def asking(production: Production, key: str) -> AsyncIterator[Requester]:
    """Be connected as the holder of a key."""
    options = ConnectionOptions(
        servers=tuple(production.urls), name="test", credentials=production.credentials(key)
    )
    client = await connection.connect(options)
    try:
        yield await Requester.start(client)
    finally:
        await connection.close(client)


@asynccontextmanager
async def peer(production: Production, name: str) -> AsyncIterator[Exchange]:
    """Be a peer, with its own key."""
    credentials = production.credentials(f"peers/{name}")
    async with connect(production.urls, peer=name, credentials=credentials) as exchange:
        yield exchange


async def test_peers_trade_with_their_keys_over_tls(production: Production) -> None:
    async with peer(production, "alice") as alice, peer(production, "bob") as bob:
        sold = await alice.submit("X-Y", side="sell", quantity="1", price="100")
        bought = await bob.submit("X-Y", side="buy", quantity="1", price="100")

        assert (sold.status, bought.status) == ("new", "filled")


async def test_who_speaks_plain_text_is_refused(production: Production) -> None:
    seed = (production.directory / "keys" / "peers" / "alice.nk").read_bytes()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async with conversation("localhost", production.client_ports[0], seed=seed) as asked:
            while True:
                await asked.round_trip()

    await production.logs("nats-1", "TLS handshake error")


async def test_who_brings_no_key_is_refused(production: Production) -> None:
    options = ConnectionOptions(
        servers=tuple(production.urls), name="nobody", credentials=production.credentials(None)
    )
    with pytest.raises(CannotConnect, match="refused somebody without a key"):
        await connection.connect(options)


async def test_who_does_not_know_the_authority_does_not_believe_the_nodes(
    production: Production, tmp_path: Path
) -> None:
    other = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    options = ConnectionOptions(
        servers=tuple(production.urls), name="alice", credentials=Credentials(tls_ca=str(other))
    )
    with pytest.raises(CannotConnect, match="its certificate is not one that"):
        await connection.connect(options)


async def test_operator_has_no_orders_and_peer_no_administration(production: Production) -> None:
    async with peer(production, "alice") as alice:
        with pytest.raises(Unavailable):
            await alice.open("X-Z") if hasattr(alice, "open") else None


async def test_node_without_a_certificate_cannot_join(production: Production) -> None:
    client_port, cluster_port = nodes.free_ports(2)
    text = production.configuration("stranger", client_port, cluster_port)
    without = re.sub(r"(?s)(cluster \{.*?\n)  tls \{.*?\n  \}\n", r"\1", text)
    assert without != text
    stranger = production.node("stranger", without)
    try:
        await production.logs("nats-1", "TLS route handshake error")

        assert JOINED in production.log("nats-1")
    finally:
        stranger.end()


async def test_certificate_of_the_authority_for_another_name_does_not_join(
    production: Production,
) -> None:
    client_port, cluster_port = nodes.free_ports(2)
    issue(production.authority, "peer.example.net", production.directory / "other" / "tls")
    text = production.configuration("other", client_port, cluster_port)
    other = production.node(
        "other", text.replace(f"{production.directory}/etc/tls", f"{production.directory}/other/tls")
    )
    try:
        await production.logs("nats-1", "Authorization")
    finally:
        other.end()
