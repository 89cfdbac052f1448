"""A cluster in which everybody reaches everybody over links of their own, and no other way.

Three nodes, each dialing both others over its links; servers that dial nodes over theirs; keys for
all. Knows how parties are started, ended, stopped and continued; not why.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from msgspec import structs

from deploy import markets, nodes, processes, servers
from deploy.access import Doors
from deploy.nodes import HOST, NodeProcess, NodeSettings
from deploy.servers import ServerProcess
from tests.chaos.network import LINKS, NODES, SERVERS
from tests.chaos.proxies import Ports, Proxies, proxies

REPLICAS_COUNT: Final = 3

ANSWER_S: Final = 2.0
"""How long a node may take to tell of its routes."""


class Stage:
    """What runs; use `stage`."""

    def __init__(
        self,
        directory: Path,
        doors: Doors,
        settings: Sequence[NodeSettings],
        links: dict[str, Ports],
        network: Proxies,
    ) -> None:
        """Start nothing yet."""
        self.directory = directory
        self.doors = doors
        self.network = network
        self.nodes: dict[str, NodeProcess] = {}
        self.servers: dict[str, ServerProcess] = {}
        self._settings = {each.name: each for each in settings}
        self._links = links

    @property
    def urls(self) -> list[str]:
        """Where the nodes themselves take clients: for those who look on, and are never cut off."""
        return [each.url for each in self._settings.values()]

    def urls_of(self, who: str) -> list[str]:
        """Where somebody's links to the nodes are."""
        return [
            f"nats://{HOST}:{self._links[link.name].listens}"
            for link in LINKS
            if link.dialer == who
        ]

    def start(self, who: str) -> None:
        """Start a server or a node, or again one that has ended; it is not ready yet."""
        if who in self._settings:
            self.nodes[who] = nodes.start(self._settings[who])
            return
        self.servers[who] = servers.start(
            who,
            urls=self.urls_of(who),
            credentials=self.doors.role("server"),
            replica_count=REPLICAS_COUNT,
            log=self.directory / f"{who}.log",
        )

    def is_running(self, who: str) -> bool:
        """Tell whether it runs; a paused one does."""
        return self._party(who).is_running()

    def pause(self, who: str) -> None:
        """Stop its clock."""
        self._party(who).pause()

    def resume(self, who: str) -> None:
        """Let it go on."""
        self._party(who).resume()

    async def kill(self, who: str) -> None:
        """End it by SIGKILL."""
        await processes.kill(self._party(who).process)

    async def stop(self, who: str) -> None:
        """End it by SIGTERM."""
        await self._party(who).stop()

    def routes_of(self, node: str) -> set[str]:
        """Ask a node which others it has routes to, none if it does not answer; it blocks."""
        port = self._settings[node].monitoring_port
        try:
            with urlopen(f"http://{HOST}:{port}/routez", timeout=ANSWER_S) as answer:
                return {route["remote_name"] for route in json.load(answer)["routes"]}
        except OSError:
            return set()

    def _party(self, who: str) -> ServerProcess | NodeProcess:
        return self.nodes[who] if who in self._settings else self.servers[who]

    async def end(self) -> None:
        """End all of it, paused or not: servers first."""
        await asyncio.gather(*(server.stop() for server in self.servers.values()))
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))


@asynccontextmanager
async def stage(directory: Path, market_names: Sequence[str]) -> AsyncIterator[Stage]:
    """Run a cluster with open markets, and end all of it in any case."""
    async with AsyncExitStack() as undo:
        doors = Doors(
            directory / "keys", directory / "accounts.conf", has_observer=False, has_tls=False
        )
        doors.write()
        count = len(NODES)
        ports = nodes.free_ports(3 * count + len(LINKS))
        client_ports, cluster_ports, monitoring_ports = (
            dict(zip(NODES, ports[first : first + count], strict=True))
            for first in (0, count, 2 * count)
        )
        link_ports = ports[3 * count :]
        links = {
            link.name: Ports(
                listens=listens,
                dialed=(cluster_ports if link.dialer in NODES else client_ports)[link.dialed],
            )
            for link, listens in zip(LINKS, link_ports, strict=True)
        }
        settings = [
            structs.replace(
                each,
                routes=tuple(
                    f"{HOST}:{links[link.name].listens}"
                    for link in LINKS
                    if link.dialer == each.name
                ),
                is_advertised=False,
                monitoring_port=monitoring_ports[each.name],
            )
            for each in nodes.cluster(
                directory,
                client_ports=list(client_ports.values()),
                cluster_ports=list(cluster_ports.values()),
                access=doors.access,
            )
        ]
        network = await undo.enter_async_context(proxies(links, log=directory / "proxies.log"))
        made = Stage(directory, doors, settings, links, network)
        undo.push_async_callback(made.end)
        for node in NODES:
            made.start(node)
        await nodes.wait_until_ready(list(made.nodes.values()))
        for server in SERVERS:
            made.start(server)
        await servers.open_markets(
            list(made.servers.values()),
            [markets.specification(market) for market in market_names],
            urls=made.urls,
            credentials=doors.role("operator"),
        )
        yield made
