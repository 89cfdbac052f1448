"""Exchange servers as processes of this machine: start, check, pause, stop, kill, open markets.

Knows nothing of what a server does, but for its command line, how long it may take to end, and
that it leads markets.
"""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct, structs

from deploy import markets, processes
from deploy.markets import MarketNotOpen
from deploy.processes import Process
from dex_protocol.specification import AskedSpecification
from dex_runtime import options
from dex_runtime.connection import Credentials

STOP_GRACE_S: Final = 8.0
"""How long a server may take to end by SIGTERM: it promises 5 s, with NATS down too."""

UNTOLD: Final = dict.fromkeys(options.VARIABLES, "")
"""Variables of a program that is told by its arguments who it is: whoever starts an exchange may be
somebody else to other nodes."""

SHOWN_LINES_COUNT: Final = 15
"""Lines of a failed server's log that are shown: a traceback's end, or a few log lines."""


class ServerEnded(Exception):
    """A server that should run does not; the text has the last lines of its log."""

    def __init__(self, name: str, log: Path) -> None:
        """Tell which one, and what it said last."""
        super().__init__(f"{name} has ended. {_end_of(log)}")
        self.name = name


class ServerProcess(Struct, frozen=True):
    """A server that was started."""

    name: str
    log: Path
    process: Process

    @property
    def pid(self) -> int:
        """The pid of the process, for reading; signals go through the methods."""
        return self.process.pid

    def is_running(self) -> bool:
        """Tell whether the process still runs; a paused one does."""
        return processes.is_running(self.process)

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            ServerEnded: it does not.
        """
        if not self.is_running():
            raise ServerEnded(self.name, self.log)

    def pause(self) -> None:
        """Stop the server's clock (SIGSTOP): its sockets stay open, nothing answers."""
        processes.send(self.process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        processes.send(self.process, signal.SIGCONT)

    async def stop(self) -> None:
        """End it by SIGTERM, paused or not: it finishes and answers the commit under way."""
        await processes.stop(self.process, grace_s=STOP_GRACE_S)

    async def kill(self) -> None:
        """End it at once by SIGKILL, paused or not; wait until it is gone."""
        await processes.kill(self.process)


def start(
    name: str, *, urls: Sequence[str], credentials: Credentials, replica_count: int, log: Path
) -> ServerProcess:
    """Start a server; it is not ready yet.

    Args:
        name: Unique among the servers, and the same at every start.
        urls: Where the NATS nodes take clients.
        credentials: Those of servers.
        replica_count: How many nodes hold a stream or bucket that it makes.
        log: What it prints is appended there.

    Raises:
        ProgramMissing: the project is not installed.
    """
    program = processes.executable("dex-server", advice="`uv sync` installs it")
    log.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        *(program, "--nats", ",".join(urls)),
        *("--name", name),
        *("--replicas", str(replica_count)),
        *credential_arguments(credentials),
    ]
    process = processes.spawn(command, log=log, environment=UNTOLD)
    return ServerProcess(name, log, process)


async def open_markets(
    servers: Sequence[ServerProcess],
    specifications: Sequence[AskedSpecification],
    *,
    urls: Sequence[str],
    credentials: Credentials,
) -> None:
    """Open markets, and wait until each has a leader: then orders can be placed.

    Args:
        servers: Those that have to run meanwhile; any server may lead.
        specifications: Of the markets.
        urls: Where the NATS nodes take clients.
        credentials: Those of operators.

    Raises:
        ServerEnded: one of them does not run any more.
        MarketNotOpen: not in time; the text has the end of each server's log.
    """

    def check() -> None:
        for server in servers:
            server.check()

    try:
        await markets.open_all(urls, credentials, specifications, check=check)
    except MarketNotOpen as error:
        logs = "\n".join(_end_of(server.log) for server in servers)
        raise MarketNotOpen(f"{error}\n{logs}") from error


def credential_arguments(credentials: Credentials) -> list[str]:
    """Write credentials as the options of a program; `dex_runtime.options` reads them."""
    return [
        argument
        for name, value in structs.asdict(credentials).items()
        if value is not None
        for argument in (f"--{name.replace('_', '-')}", value)
    ]


def _end_of(log: Path) -> str:
    lines = processes.last_lines(log, count=SHOWN_LINES_COUNT)
    return "\n  ".join([f"The end of {log}:", *lines])
