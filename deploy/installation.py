"""The exchange that one directory of this machine holds: bring it up, take it down, look at it.

Servers join and leave it while it runs.

Decides what to start and to end, in which order, and what to undo when it does not work out. Says
what it does through a function it is given, and prints nothing itself.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import Struct, structs

from deploy import guards, markets, nodes, processes, servers, state
from deploy.access import Doors
from deploy.guards import GuardProcess
from deploy.markets import MarketView
from deploy.nodes import NodeProcess, NodeSettings
from deploy.processes import Process
from deploy.servers import ServerProcess
from deploy.state import Conflict, Memory, Settings, State, Wishes
from dex_runtime.keys import peer_file

Say = Callable[[str], None]

_ACCOUNTS: Final = "accounts.conf"
_KEYS: Final = "keys"
_NODES: Final = "nodes"
_SERVERS: Final = "servers"


class PortTaken(Exception):
    """Somebody else listens on a port that a node needs; the text names each and its purpose."""


class ProcessView(Struct, frozen=True):
    """A process as an operator sees it."""

    name: str
    pid: int | None
    """None when it does not run."""
    url: str
    """Where clients connect; empty for what is no node."""
    log: Path


class View(Struct, frozen=True):
    """All that there is: nodes, the guard, servers; markets in the order they were asked for."""

    settings: Settings
    processes: list[ProcessView]
    markets: list[MarketView]

    @property
    def is_whole(self) -> bool:
        """Whether each process runs and each market has a leader."""
        return all(process.pid is not None for process in self.processes) and all(
            market.leader is not None for market in self.markets
        )


class Installation:
    """A directory with the stores, the logs, and what is remembered of the processes.

    Not for two at a time: the methods that change something take the directory's lock.
    """

    def __init__(self, directory: Path) -> None:
        """Look at a directory, which need not exist yet."""
        self.directory: Final = directory.resolve()

    async def up(self, wishes: Wishes, *, say: Say) -> View:
        """Start what does not run yet, open the markets, and wait until orders can be placed.

        When that fails, or is canceled, what this call started is ended again; what ran before
        it goes on.

        Raises:
            Conflict, Busy: it cannot be done; nothing was changed.
            PortTaken: nothing was started.
            NodeNotReady, ServerEnded, MarketNotOpen, ProgramMissing: it did not work out.
        """
        with state.locked(self.directory):
            before = state.load(self.directory)
            running = {} if before is None else _running(before)
            settings = state.settle(wishes, before, is_running=bool(running))
            if before is not None:
                self._refuse_without_keys()
            self._refuse_taken_ports(settings, running)
            for name in () if before is None else before.processes:
                if name not in running:
                    say(f"{name} had ended")
            # What has ended is forgotten, what runs is kept, and what starts is added.
            memory = Memory(self.directory, State(settings=settings, processes=running))
            async with AsyncExitStack() as undo:
                starting = _Starting(self, settings, memory, undo, say)
                await starting.nodes()
                starting.guard()
                if settings.servers:
                    await starting.servers(settings.servers)
                view = await self.look()
                assert view is not None
                undo.pop_all()
            return view

    async def add_server(self, name: str | None, *, say: Say) -> View:
        """Start one more server, or one that has ended, and leave the rest alone.

        When that fails, or is canceled, all is as before.

        Args:
            name: None for the first of server-1, server-2, … that there is not.
            say: Told what happens.

        Raises:
            Conflict, Busy: it cannot be done; nothing was changed.
            ServerEnded, MarketNotOpen, ProgramMissing: it did not work out.
        """
        with self._changing() as memory:
            running = _running(memory.state)
            before = memory.state.settings
            ended = [node.name for node in self.node_settings(before) if node.name not in running]
            if ended:
                raise Conflict(
                    f"not running: {', '.join(ended)}; start the exchange with `just up`"
                )
            name = state.next_server(before.servers) if name is None else name
            if name in running:
                raise Conflict(f"{name} is running already")
            names = tuple(dict.fromkeys((*before.servers, name)))
            settings = structs.replace(before, servers=names)
            memory.remove(name)
            memory.settle(settings)
            async with AsyncExitStack() as undo:
                undo.callback(memory.settle, before)
                await _Starting(self, settings, memory, undo, say).servers([name])
                view = await self.look()
                assert view is not None
                undo.pop_all()
            return view

    async def stop_server(self, name: str, *, say: Say) -> None:
        """End a server, if it runs, and forget it: `up` does not start it again.

        Raises:
            Conflict, Busy: it cannot be done; nothing was changed.
            ProcessStuck: the system does not end the process.
        """
        with self._changing() as memory:
            _refuse_unknown_server(name, memory.state)
            if name in memory.state.processes:
                await _end(name, memory, say=say)
            settings = memory.state.settings
            left = tuple(other for other in settings.servers if other != name)
            memory.settle(structs.replace(settings, servers=left))

    async def kill_server(self, name: str) -> None:
        """End a server by SIGKILL; `up` and `add_server` start it again.

        Raises:
            Conflict, Busy: it cannot be done; nothing was changed.
            ProcessStuck: the system does not end the process.
        """
        with self._changing() as memory:
            _refuse_unknown_server(name, memory.state)
            process = _running(memory.state).get(name)
            if process is None:
                raise Conflict(f"{name} is not running")
            await processes.kill(process)

    def peers(self) -> dict[str, Path | None]:
        """Give all peers, each with the file of its private key, if that is here.

        Raises:
            Conflict, Busy: nothing was started here, or it is being changed.
        """
        with self._changing() as memory:
            self._refuse_without_keys()
            keyring = self.doors(memory.state.settings).keyring
            files = {name: peer_file(keyring.directory, name) for name in keyring.peers()}
            return {name: file if file.exists() else None for name, file in files.items()}

    async def add_peer(self, name: str, public: str | None) -> Path:
        """Let one more peer in, at once if the nodes run; give the file of its private key.

        Args:
            name: The peer's.
            public: Its public key, when it keeps the private one itself.

        Raises:
            KeyConflict, Conflict, Busy: it cannot be done; nothing was changed.
            NodeNotReady: a node does not let it in.
        """
        with self._changing_peers() as (doors, running):
            doors.keyring.add(name, public)
            await doors.tell(running)
            return peer_file(doors.keyring.directory, name)

    async def rotate_peer(self, name: str, public: str | None) -> Path:
        """Give a peer another key; whoever comes with the old one is not let in any more.

        Raises:
            KeyConflict, Conflict, Busy, NodeNotReady: as for `add_peer`.
        """
        with self._changing_peers() as (doors, running):
            doors.keyring.rotate(name, public)
            await doors.tell(running)
            return peer_file(doors.keyring.directory, name)

    async def remove_peer(self, name: str) -> None:
        """Let a peer in no more, and cut its connections; its orders stay in the books.

        Raises:
            KeyConflict, Conflict, Busy: it cannot be done; nothing was changed.
            NodeNotReady: a node still lets it in.
        """
        with self._changing_peers() as (doors, running):
            doors.keyring.remove(name)
            await doors.tell(running)

    async def down(self, *, say: Say) -> None:
        """End the servers, then the nodes; keep the data.

        Raises:
            Conflict, Busy: it cannot be done.
            ProcessStuck: the system does not end a process.
        """
        if not self.directory.exists():
            return
        with state.locked(self.directory):
            found = state.load(self.directory)
            if found is None:
                return
            memory = Memory(self.directory, found)
            # Servers need the nodes to finish what they are at.
            for is_node in (False, True):
                names = [name for name in found.processes if state.is_node(name) == is_node]
                await asyncio.gather(*(_end(name, memory, say=say) for name in names))

    async def clean(self, *, say: Say) -> None:
        """End everything and remove the data; what else is in the directory stays."""
        await self.down(say=say)
        if not self.directory.exists():
            return
        with state.locked(self.directory):
            # NB: only what is ours; the directory may have been named by mistake.
            shutil.rmtree(self.directory / _NODES, ignore_errors=True)
            shutil.rmtree(self.directory / _SERVERS, ignore_errors=True)
            shutil.rmtree(self._keys, ignore_errors=True)
            state.forget(self.directory)
            if not any(self.directory.iterdir()):
                self.directory.rmdir()

    async def look(self) -> View | None:
        """See what runs; None when nothing was ever started here, or it was cleaned."""
        found = state.load(self.directory)
        if found is None:
            return None
        self._refuse_without_keys()
        settings = found.settings
        running = _running(found)
        node_views = [
            ProcessView(node.name, _pid(running, node.name), node.url, node.log_file)
            for node in self.node_settings(settings)
        ]
        server_views = [
            ProcessView(name, _pid(running, name), "", self.server_log(name))
            for name in (state.GUARD, *settings.servers)
        ]
        urls = [view.url for view in node_views if view.pid is not None]
        asked = settings.markets if settings.servers else ()
        operator = self.doors(settings).role("operator")
        market_views = await markets.look(urls, operator, asked)
        return View(settings, node_views + server_views, market_views)

    @contextmanager
    def _changing(self) -> Iterator[Memory]:
        # What is remembered here, kept to oneself.
        nothing = Conflict("nothing was started here: start the exchange with `just up`")
        if not self.directory.exists():
            raise nothing
        with state.locked(self.directory):
            found = state.load(self.directory)
            if found is None:
                raise nothing
            yield Memory(self.directory, found)

    def _refuse_without_keys(self) -> None:
        if not self._keys.exists():
            raise Conflict("the data were made before there were keys: `just clean` first")

    @contextmanager
    def _changing_peers(self) -> Iterator[tuple[Doors, list[NodeProcess]]]:
        with self._changing() as memory:
            self._refuse_without_keys()
            settings = memory.state.settings
            running = _running(memory.state)
            present = [
                NodeProcess(node, running[node.name])
                for node in self.node_settings(settings)
                if node.name in running
            ]
            yield self.doors(settings), present

    def _refuse_taken_ports(self, settings: Settings, running: Iterable[str]) -> None:
        taken = [
            f"port {port} ({purpose} of {node.name})"
            for node in self.node_settings(settings)
            if node.name not in running
            for port, purpose in ((node.client_port, "clients"), (node.cluster_port, "cluster"))
            if port is not None and not nodes.is_free(port)
        ]
        if taken:
            raise PortTaken(
                f"taken by another program: {', '.join(taken)}. Nothing was started; end that "
                "program, or use other ports with --port"
            )

    def node_settings(self, settings: Settings) -> list[NodeSettings]:
        """Describe the nodes, each with its place in the directory."""
        directory = self.directory / _NODES
        access = self.doors(settings).access
        if settings.node_count == 1:
            return [nodes.alone(directory / "nats-1", port=settings.client_port, access=access)]
        return nodes.cluster(
            directory,
            client_ports=settings.client_ports,
            cluster_ports=settings.cluster_ports,
            access=access,
        )

    def doors(self, settings: Settings) -> Doors:
        """Give who is let in; keys are made when there are none yet."""
        return Doors(
            self._keys,
            self.directory / _NODES / _ACCOUNTS,
            has_observer=settings.has_observer,
            has_tls=settings.has_tls,
        )

    @property
    def _keys(self) -> Path:
        return self.directory / _KEYS

    def server_log(self, name: str) -> Path:
        """Tell where a server's log file is."""
        return self.directory / _SERVERS / f"{name}.log"


class _Starting:
    # One call of a command: starts what does not run, and knows how to undo that.

    def __init__(
        self,
        installation: Installation,
        settings: Settings,
        memory: Memory,
        undo: AsyncExitStack,
        say: Say,
    ) -> None:
        self._installation = installation
        self._settings = settings
        self._memory = memory
        self._undo = undo
        self._say = say

    async def nodes(self) -> None:
        self._installation.doors(self._settings).write()
        known = set(self._memory.state.processes)
        present = []
        for node in self._installation.node_settings(self._settings):
            process = self._ensure(node.name, partial(nodes.start, node))
            present.append(NodeProcess(node, process))
        await nodes.wait_until_ready(present)
        # Who runs already may not have been told of the newest peers.
        await nodes.reload([node for node in present if node.settings.name in known])

    def guard(self) -> None:
        log = self._installation.server_log(state.GUARD)
        credentials = self._installation.doors(self._settings).role("guard")
        start = partial(guards.start, urls=self._urls, credentials=credentials, log=log)
        self._ensure(state.GUARD, start)

    async def servers(self, names: Sequence[str]) -> None:
        urls = self._urls
        replica_count = self._settings.replica_count
        doors = self._installation.doors(self._settings)
        present = []
        for name in names:
            log = self._installation.server_log(name)
            start = partial(
                servers.start,
                name,
                urls=urls,
                credentials=doors.role("server"),
                replica_count=replica_count,
                log=log,
            )
            process = self._ensure(name, start)
            present.append(ServerProcess(name, log, process))
        specifications = [markets.specification(market) for market in self._settings.markets]
        await servers.open_markets(
            present, specifications, urls=urls, credentials=doors.role("operator")
        )

    @property
    def _urls(self) -> list[str]:
        return [node.url for node in self._installation.node_settings(self._settings)]

    def _ensure(
        self, name: str, start: Callable[[], NodeProcess | GuardProcess | ServerProcess]
    ) -> Process:
        # NB: without an `await`, so that no signal comes between the start and its record.
        if name in self._memory.state.processes:
            return self._memory.state.processes[name]
        self._say(f"starting {name}")
        process = start().process
        self._memory.add(name, process)
        self._undo.push_async_callback(_end, name, self._memory, say=self._say)
        return process


async def _end(name: str, memory: Memory, *, say: Say) -> None:
    process = memory.state.processes[name]
    if processes.is_running(process):
        say(f"stopping {name}")
    grace_s = nodes.STOP_GRACE_S if state.is_node(name) else servers.STOP_GRACE_S
    await processes.stop(process, grace_s=grace_s)
    memory.remove(name)


def _refuse_unknown_server(name: str, found: State) -> None:
    if name not in found.settings.servers:
        running = [server for server in _running(found) if state.is_server(server)]
        raise Conflict(f"there is no server {name}; running: {', '.join(running) or 'none'}")


def _running(found: State) -> dict[str, Process]:
    return {
        name: process for name, process in found.processes.items() if processes.is_running(process)
    }


def _pid(running: dict[str, Process], name: str) -> int | None:
    return running[name].pid if name in running else None
