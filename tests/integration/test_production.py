"""The example of deploy/nats and deploy/systemd at work: three nodes, a server and a guard, started
by those very files, with keys and TLS.

Only what depends on the machine is replaced: directories, ports, and the names of the machines,
which are all `localhost` here.
"""

import asyncio
import re
import shlex
import shutil
import signal
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
import trustme
from click.testing import CliRunner

from deploy import nodes
from deploy.conversation import conversation
from deploy.local import main
from dex_client import Exchange, connect
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, ConnectionOptions, Credentials
from dex_runtime.messaging import Requester
from tests.integration.programs import Program, eventually
from tests.tidy.tables import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIGURATION: Final = (ROOT / "deploy" / "nats" / "nats.conf").read_text("utf-8")

NODES: Final = ("nats-1", "nats-2", "nats-3")

SPECIFICATION: Final = b'{"specification":{"market":"X-Y","tick_size":"0.01","lot_size":"0.1"}}'

RELOADED: Final = "Reloaded server configuration"


def started_by(unit: str, instance: str) -> str:
    """Give the command of a systemd unit, its environment before it, with the names that systemd
    puts in."""
    text = (ROOT / "deploy" / "systemd" / unit).read_text("utf-8").replace("\\\n", " ")
    environment = re.findall(r"(?m)^Environment=(.*)$", text)
    (command,) = re.findall(r"(?m)^ExecStart=(.*)$", text)
    return re.sub(r"%[li]", instance, " ".join(["env", *environment, command]))


def issue(authority: trustme.CA, name: str, directory: Path) -> None:
    """Put a certificate, and its authority's, where a node looks for them."""
    directory.mkdir(parents=True)
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(str(directory / "node.key"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(directory / "node.pem"), append=True)
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))


class Production:
    """The nodes and programs of an exchange made after the example."""

    def __init__(self, directory: Path) -> None:
        """Make keys, accounts and certificates; start nothing yet."""
        self.directory = directory
        self.etc = directory / "etc"
        self.authority = trustme.CA()
        self.programs: dict[str, Program] = {}
        client_ports, cluster_ports = nodes.free_ports(3), nodes.free_ports(3)
        self.ports = dict(zip(NODES, zip(client_ports, cluster_ports, strict=True), strict=True))
        issue(self.authority, "localhost", self.etc / "tls")
        self.accounts("write")
        self.accounts("add", "alice")
        self.accounts("add", "bob")
        self.bring_role_keys()

    @property
    def urls(self) -> list[str]:
        """Where clients connect."""
        return [f"tls://localhost:{client_port}" for client_port, _ in self.ports.values()]

    def accounts(self, *arguments: str) -> None:
        """Do as an operator does who lets somebody in."""
        file = self.etc / "accounts.conf"
        where = ("--keys", str(self.directory / "keys"), "--file", str(file))
        result = CliRunner().invoke(main, ["accounts", *arguments, *where], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    def bring_role_keys(self) -> None:
        """Put the keys of server and guard where they are looked for."""
        for role in ("server", "guard"):
            shutil.copy(self.directory / "keys" / f"{role}.nk", self.etc)

    def credentials(self, key: str | None) -> Credentials:
        """Give those of the holder of a key, such as `peers/alice`."""
        file = None if key is None else str(self.directory / "keys" / f"{key}.nk")
        return Credentials(nkey=file, tls_ca=str(self.etc / "tls" / "ca.pem"))

    def here(self, text: str) -> str:
        """Put this machine's directories and ports into a text of the example."""
        for name, (client_port, cluster_port) in self.ports.items():
            text = text.replace(f"{name}.example.com:4222", f"localhost:{client_port}")
            text = text.replace(f"{name}.example.com:6222", f"localhost:{cluster_port}")
        # One more node that nobody asked for may say of itself whatever it likes.
        text = re.sub(r"\w+\.example\.com:4222", "localhost:4222", text)
        for directory in ("/opt/dex/.venv/bin", "/usr/local/bin"):
            text = text.replace(f"{directory}/", f"{sysconfig.get_path('scripts')}/")
        text = text.replace("/etc/dex/", f"{self.etc}/")
        assert "example.com" not in text
        return text

    def configuration(self, name: str) -> str:
        """Give the configuration of a node, or of one more that would be one."""
        client_port, cluster_port = self.ports.get(name) or nodes.free_ports(2)
        text = self.here(CONFIGURATION)
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{client_port}")
        text = text.replace("0.0.0.0:6222", f"127.0.0.1:{cluster_port}")
        return text.replace("/var/lib/dex-nats/", f"{self.directory}/{name}/")

    def node(self, name: str, text: str) -> Program:
        """Start a node with this configuration."""
        (self.directory / name).mkdir(exist_ok=True)
        file = self.etc / f"{name}.conf"
        file.write_text(text, encoding="utf-8")
        command = self.here(started_by("dex-nats.service", name))
        return self.start(name, command.replace(str(self.etc / "nats.conf"), str(file)))

    def start(self, name: str, command: str) -> Program:
        """Start a program."""
        program = Program(*shlex.split(command), log=self.directory / f"{name}.out")
        self.programs[name] = program
        return program

    def server(self) -> Program:
        """Start the server, for the first time or again."""
        return self.start("server-1", self.here(started_by("dex-server@.service", "server-1")))

    async def logs(self, name: str, words: str, *, count: int = 1) -> None:
        """Wait until a node has logged some words so often."""
        file = self.directory / name / "nats.log"

        async def look() -> bool | None:
            return True if file.exists() and file.read_text().count(words) >= count else None

        await eventually(look, what=f"{words!r} {count} times in the log of {name}")

    async def reload(self) -> None:
        """Do on all nodes as their unit does at `systemctl reload`."""
        for name in NODES:
            count = (self.directory / name / "nats.log").read_text().count(RELOADED)
            for time in (1, 2):
                self.programs[name].send(signal.SIGHUP)
                await self.logs(name, RELOADED, count=count + time)

    async def neighbours(self) -> set[int]:
        """Ask the first node where its cluster takes clients, by port."""
        client_port, _ = self.ports[NODES[0]]
        async with conversation("localhost", client_port) as asked:
            return {int(url.rpartition(":")[2]) for url in asked.greeting["connect_urls"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def production(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Production]:
    """Run the nodes, a server and a guard, and open a market."""
    made = Production(tmp_path_factory.mktemp("production"))
    try:
        for name in NODES:
            made.node(name, made.configuration(name))
        server = made.server()
        guard = made.start("guard", made.here(started_by("dex-guard.service", "")))
        await server.prints("serving")
        await guard.prints("guarding")
        async with asking(made, "operator") as operator:
            await operator.request("dex.admin.X-Y.open", SPECIFICATION, timeout_s=30)
        yield made
    finally:
        for program in made.programs.values():
            program.end()


@asynccontextmanager
async def asking(production: Production, key: str | None) -> AsyncIterator[Requester]:
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


async def test_clients_are_told_of_all_nodes_by_the_names_in_their_certificates(
    production: Production,
) -> None:
    client_port, _ = production.ports[NODES[0]]
    async with conversation("localhost", client_port) as asked:
        told = asked.greeting["connect_urls"]

    assert sorted(told) == sorted(url.removeprefix("tls://") for url in production.urls)


async def test_who_speaks_plain_text_is_refused(production: Production) -> None:
    client_port, _ = production.ports[NODES[0]]
    seed = (production.directory / "keys" / "peers" / "alice.nk").read_bytes()

    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async with conversation("localhost", client_port, seed=seed) as asked:
            await asked.round_trip()


async def test_who_brings_no_key_is_refused(production: Production) -> None:
    """By the files of the production example (G20)."""
    with pytest.raises(CannotConnect, match="refused somebody without a key"):
        async with asking(production, None):
            pass


async def test_node_without_a_certificate_cannot_join(production: Production) -> None:
    text = production.configuration("stranger")
    without = re.sub(r"(?s)(cluster \{.*?\n)  tls \{.*?\n  \}\n", r"\1", text)
    assert without.count("tls {") == text.count("tls {") - 1
    stranger = production.node("stranger", without)

    await production.logs("nats-1", "TLS route handshake error")

    stranger.end()
    assert await production.neighbours() == {port for port, _ in production.ports.values()}


async def test_certificate_for_something_else_does_not_let_a_node_join(
    production: Production,
) -> None:
    issue(production.authority, "alice.example.net", production.directory / "other" / "tls")
    text = production.configuration("other")
    other = production.node(
        "other", text.replace(f"{production.etc}/tls", f"{production.directory}/other/tls")
    )

    await production.logs("other", "Route Error 'Authorization Violation'", count=3)

    other.end()
    assert await production.neighbours() == {port for port, _ in production.ports.values()}


async def test_peer_is_let_in_while_nodes_run_and_not_any_more(production: Production) -> None:
    production.accounts("add", "carol")
    await production.reload()

    async with peer(production, "carol") as carol:
        receipt = await carol.submit("X-Y", side="sell", quantity="1", price="200")
        assert receipt.status == "new"

    production.accounts("rotate", "carol")
    await production.reload()
    shutil.copy(production.directory / "keys" / "peers" / "carol.nk", production.directory)
    async with peer(production, "carol") as carol:
        assert (await carol.cancel("X-Y", receipt.order_id)).status == "canceled"

    production.accounts("remove", "carol")
    await production.reload()
    with pytest.raises(CannotConnect, match="refused the key"):
        async with asking(production, "../carol"):
            pass


async def test_server_with_another_key_has_to_be_started_again(production: Production) -> None:
    before = production.programs["server-1"]
    (production.directory / "keys" / "server.nk").unlink()
    production.accounts("write")
    production.bring_role_keys()
    await production.reload()

    # Its supervisor would start it again.
    assert await before.ended() == 1
    await production.server().prints("leads from commit")

    async with peer(production, "alice") as alice:
        assert (await alice.submit("X-Y", side="buy", quantity="1", price="1")).status == "new"
