"""What a directory remembers of the exchange that was started in it: settings and processes.

Knows nothing of how anything is started. The file is written anew after each start and each end of
a process, so that even a killed `up` leaves nothing that `down` does not find.
"""

import fcntl
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct, structs

from deploy.processes import Process

T = TypeVar("T")

DIRECTORY: Final = ".dex"
"""Where everything is kept by default, in the directory that the command runs in."""

CLIENT_PORT: Final = 4222
"""The port of the first node, NATS' own default: what a client without options looks for."""

CLUSTER_PORT_DISTANCE: Final = 2_000
"""From a node's client port to its cluster port, as between NATS' own defaults 4222 and 6222."""

PORT_MAX: Final = 65_535

MARKETS: Final = ("BTC-USD", "ETH-USD")

SERVERS: Final = ("server-1", "server-2")
"""Two, so that the markets have a leader again soon after one of them is killed."""

_NODE_PREFIX: Final = "nats-"
"""What the names of nodes begin with, and those of servers do not: processes of all kinds are
remembered side by side, by name."""

GUARD: Final = "guard"
"""The name of the guard, and of no server."""

_SERVER_NAME: Final = re.compile(rf"(?!{_NODE_PREFIX}|{GUARD}$)[A-Za-z0-9_-]{{1,32}}", re.ASCII)

_FILE: Final = "state.json"

_NEW_FILE: Final = "state.json.new"
"""The next one, until it is whole."""


class Busy(Exception):
    """Another command changes the same directory just now; try again when it is done."""


class Conflict(Exception):
    """What is asked for does not go with what runs or is stored; the text says what to do."""


class Settings(Struct, frozen=True, kw_only=True):
    """What an exchange on this machine is made of."""

    node_count: int = 3
    """1, or 3 and more for a cluster; the log has as many replicas, 3 at most."""
    servers: tuple[str, ...] = SERVERS
    """Their names, in the order they joined; none starts NATS alone, and opens no market."""
    client_port: int = CLIENT_PORT
    """The first node's; the others' follow."""
    cluster_port: int = CLIENT_PORT + CLUSTER_PORT_DISTANCE
    """The first node's; the others' follow."""
    markets: tuple[str, ...] = MARKETS
    has_observer: bool = True
    """Whether somebody without a key may hear the events."""
    has_tls: bool = False

    @property
    def replica_count(self) -> int:
        """How many nodes hold each stream and bucket."""
        return min(self.node_count, 3)

    @property
    def client_ports(self) -> range:
        """The nodes' ports for clients, first node first."""
        return range(self.client_port, self.client_port + self.node_count)

    @property
    def cluster_ports(self) -> range:
        """The nodes' ports for each other; none when there is one node."""
        return range(
            self.cluster_port, self.cluster_port + (self.node_count if self.node_count > 1 else 0)
        )


class Wishes(Struct, frozen=True, kw_only=True):
    """The settings that a command line names; None and () for those it does not."""

    node_count: int | None = None
    server_count: int | None = None
    client_port: int | None = None
    cluster_port: int | None = None
    markets: tuple[str, ...] = ()
    has_observer: bool | None = None
    has_tls: bool | None = None


class State(Struct, frozen=True, kw_only=True):
    """What was started in a directory, and has not been ended by `down`."""

    settings: Settings
    processes: dict[str, Process] = {}
    """By name, in the order they were started; some may have ended by themselves."""


def is_server(name: str) -> bool:
    """Tell whether a process is a server, and neither a node nor the guard, by its name."""
    return not name.startswith(_NODE_PREFIX) and name != GUARD


def is_node(name: str) -> bool:
    """Tell whether a process is a node, by its name."""
    return name.startswith(_NODE_PREFIX)


def is_server_name(text: str) -> bool:
    """Tell whether a server may have this name."""
    return _SERVER_NAME.fullmatch(text) is not None


def next_server(servers: Collection[str]) -> str:
    """Give the first of server-1, server-2, … that is not among these."""
    names = (f"server-{number}" for number in count(1))
    return next(name for name in names if name not in servers)


def settle(wishes: Wishes, state: State | None, *, is_running: bool) -> Settings:
    """Fill in what a command line leaves open: as it was the last time, or else the defaults.

    Args:
        wishes: What the command line names.
        state: What is remembered; None when there are no data.
        is_running: Whether any remembered process runs.

    Raises:
        Conflict: other nodes than the data were made with, or other ports or fewer servers than
            run; or ports that do not exist or overlap.
    """
    last = Settings() if state is None else state.settings
    settings = Settings(
        node_count=_or(wishes.node_count, last.node_count),
        servers=_servers(wishes, last),
        client_port=_or(wishes.client_port, last.client_port),
        cluster_port=_or(wishes.cluster_port, _default_cluster_port(wishes, last)),
        # Markets that are there already stay.
        markets=tuple(dict.fromkeys((last.markets if state else ()) + wishes.markets))
        or last.markets,
        has_observer=_or(wishes.has_observer, last.has_observer),
        has_tls=_or(wishes.has_tls, last.has_tls),
    )
    _refuse_impossible_ports(settings)
    if state is not None:
        _refuse_other_nodes(settings, last)
    if is_running:
        _refuse_moving_what_runs(settings, last)
    return settings


def _or(wish: T | None, otherwise: T) -> T:
    return otherwise if wish is None else wish


def _servers(wishes: Wishes, last: Settings) -> tuple[str, ...]:
    if wishes.server_count is None:
        return last.servers
    servers = last.servers[: wishes.server_count]
    while len(servers) < wishes.server_count:
        servers = (*servers, next_server(servers))
    return servers


def _default_cluster_port(wishes: Wishes, last: Settings) -> int:
    if wishes.client_port is None or wishes.client_port == last.client_port:
        return last.cluster_port
    return wishes.client_port + CLUSTER_PORT_DISTANCE


def _refuse_impossible_ports(settings: Settings) -> None:
    client_ports, cluster_ports = settings.client_ports, settings.cluster_ports
    for port in (*client_ports, *cluster_ports):
        if not 1 <= port <= PORT_MAX:
            raise Conflict(f"expected ports from 1 to {PORT_MAX}, found {port}")
    both = sorted(set(client_ports) & set(cluster_ports))
    if both:
        raise Conflict(f"port {both[0]} would be needed for clients and for the cluster")


def _refuse_other_nodes(settings: Settings, last: Settings) -> None:
    if settings.node_count != last.node_count:
        raise Conflict(
            f"the data were made with {last.node_count} NATS nodes, not {settings.node_count}: "
            "leave --nodes out, or remove the data with `just clean`"
        )


def _refuse_moving_what_runs(settings: Settings, last: Settings) -> None:
    if (settings.client_port, settings.cluster_port) != (last.client_port, last.cluster_port):
        raise Conflict(
            f"it runs with ports from {last.client_port} and from {last.cluster_port} on: "
            "leave the ports out, or end it first with `just down`"
        )
    if (settings.has_observer, settings.has_tls) != (last.has_observer, last.has_tls):
        raise Conflict("who is let in, and how, is settled at the start: `just down` first")
    if len(settings.servers) < len(last.servers):
        raise Conflict(
            f"the exchange has more servers than {len(settings.servers)}, "
            f"{' and '.join(last.servers)}: leave --servers out, or take servers out with "
            "`just stop-server`"
        )


def load(directory: Path) -> State | None:
    """Read what a directory remembers; None when nothing was started in it.

    Raises:
        Conflict: the file is not one of this version's.
    """
    file = directory / _FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise Conflict(f"{file} cannot be read ({error}): another version's?") from error


def save(directory: Path, state: State) -> None:
    """Write what a directory remembers, whole or not at all."""
    new = directory / _NEW_FILE
    new.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    new.replace(directory / _FILE)


def forget(directory: Path) -> None:
    """Remove what a directory remembers, if anything."""
    for name in (_FILE, _NEW_FILE):
        (directory / name).unlink(missing_ok=True)


class Memory:
    """A directory's state while a command changes it; written at each change."""

    def __init__(self, directory: Path, state: State) -> None:
        """Begin with a state, which is written."""
        self._directory = directory
        self.state = state
        save(directory, state)

    def settle(self, settings: Settings) -> None:
        """Remember other settings."""
        self._change(structs.replace(self.state, settings=settings))

    def add(self, name: str, process: Process) -> None:
        """Remember a process that was started."""
        self._keep({**self.state.processes, name: process})

    def remove(self, name: str) -> None:
        """Forget a process that has ended, if it is remembered."""
        left = self.state.processes.items()
        self._keep({other: process for other, process in left if other != name})

    def _keep(self, processes: dict[str, Process]) -> None:
        self._change(structs.replace(self.state, processes=processes))

    def _change(self, state: State) -> None:
        self.state = state
        save(self._directory, state)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep a directory, made when missing, to oneself; the system frees it when we end.

    Raises:
        Busy: somebody else has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another dex-local works in {directory} just now") from error
        yield
    finally:
        os.close(descriptor)
