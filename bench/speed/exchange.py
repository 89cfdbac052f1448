"""An exchange to measure, and the processes that measure it: nodes, servers, load, echo.

Keys and accounts are those of `just up`. The load enters at the first node; the echo stands on the
node where the leader has its connection for orders, so that requests to both go the same way.
Knows nothing of what is compared with what.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bench.speed import talk
from bench.speed.load import Closed, Open, Sent
from bench.speed.rounds import CannotMeasure, Scale
from bench.speed.talk import Child, Invalid
from deploy import markets
from deploy.embedded import Embedded, cluster
from deploy.keys import LOAD_PEERS
from deploy.markets import MarketNotOpen
from deploy.nodes import NodeNotReady, NodeProcess
from deploy.processes import ProgramMissing
from deploy.servers import ServerEnded, ServerProcess
from dex_guard.monitoring import Monitoring, NoAnswer, NodeGone
from dex_protocol import subjects
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, ConnectionOptions
from dex_runtime.keys import Role, role_file
from dex_runtime.messaging import NoReply, NoResponder, Requester

MARKET: Final = "BTC-USD"

PEER: Final = LOAD_PEERS[0]

STRETCH_S: Final = 3.0
STRETCH_QUICK_S: Final = 0.35
"""How long one measurement takes, without the warm-up, what is written before, and what is read
afterwards."""

BATCHES_IN_FLIGHT: Final = 32
"""Batches under way, over all markets: with 16 to 64, of one peer or of four, the exchange was as
fast (within 10 %), and with more it only answers later."""

ANSWER_TIMEOUT_S: Final = 2.0


def stretch_s(scale: Scale) -> float:
    """Tell how long one measurement takes."""
    return STRETCH_QUICK_S if scale.is_quick else STRETCH_S


class StreamState(Struct, frozen=True):
    """What a stream holds."""

    messages: int
    bytes: int
    """As JetStream counts: subjects, headers and payloads."""


class _Stream(Struct, frozen=True):
    state: StreamState


class Exchange:
    """An exchange that runs, and what measures it."""

    def __init__(self, running: Embedded, undo: AsyncExitStack) -> None:
        """Use `opened`."""
        self.running = running
        self._undo = undo
        self._load: Child | None = None

    # --- Load -----------------------------------------------------------------------------------

    async def load(self) -> Child:
        """Give the process that sends; there is one."""
        if self._load is None:
            keys = str(self.running.doors.keyring.directory)
            words = ("--nats", self.running.url, "--keys", keys)
            self._load = await self.child("bench.speed.load", *words)
        return self._load

    async def closed(
        self,
        *,
        in_flight: int,
        seconds: float,
        is_batch: bool = False,
        to: Sequence[str] = (MARKET,),
    ) -> Sent:
        """Have one peer send orders, so many requests at a time.

        Raises:
            Invalid: not all of them were executed.
        """
        asked = Closed(
            markets=tuple(to),
            in_flight=in_flight,
            is_batch=is_batch,
            seconds=seconds,
            peer=PEER,
        )
        return await (await self.load()).ask(asked, Sent)

    async def batches(self, *, seconds: float, to: Sequence[str] = (MARKET,)) -> Sent:
        """Have one peer send batches of 100, as many at a time as the exchange is fastest with.

        Raises:
            Invalid: not all of them were executed.
        """
        return await self.closed(in_flight=BATCHES_IN_FLIGHT, seconds=seconds, is_batch=True, to=to)

    async def open_loop(self, *, rate: float, seconds: float) -> Sent:
        """Have one peer send single orders by the clock.

        Raises:
            Invalid: not all of them were executed.
        """
        asked = Open(market=MARKET, rate=rate, seconds=seconds, peer=PEER)
        return await (await self.load()).ask(asked, Sent)

    # --- Whoever else measures ------------------------------------------------------------------

    async def echo(self) -> Child:
        """Start the echo."""
        node = await self._node_of_orders()
        return await self.child("bench.speed.echo", "--nats", node.url, "--key", self._server_key)

    async def publisher(self) -> Child:
        """Start what publishes to JetStream one by one."""
        words = ("--nats", self.running.url, "--key", self._server_key)
        return await self.child("bench.speed.publish", *words)

    async def follower(self) -> Child:
        """Start what follows the log."""
        words = ("--nats", self.running.url, "--key", self._server_key, "--market", MARKET)
        return await self.child("bench.speed.follow", *words)

    async def child(self, module: str, *words: str) -> Child:
        """Start a process that ends with the exchange."""
        return await self._undo.enter_async_context(talk.started(module, *words))

    @property
    def _server_key(self) -> str:
        return str(role_file(self.running.doors.keyring.directory, "server"))

    # --- How the exchange stands ----------------------------------------------------------------

    async def leaders(self, names: Sequence[str] = (MARKET,)) -> list[ServerProcess]:
        """Give the servers that lead some markets, in the markets' order.

        Raises:
            Invalid: one is not led.
        """
        operator = self.running.doors.role("operator")
        views = await markets.look(self.running.urls, operator, names)
        servers = {server.name: server for server in self.running.servers}
        if any(view.leader not in servers for view in views):
            raise Invalid(f"expected leaders, found {views}")
        return [servers[str(view.leader)] for view in views]

    async def log_state(self, market: str = MARKET) -> StreamState:
        """Ask what a market's log holds."""
        async with self._connected("operator") as requester:
            answer = await requester.request(
                f"$JS.API.STREAM.INFO.{subjects.log_stream(market)}",
                b"",
                timeout_s=ANSWER_TIMEOUT_S,
            )
        return msgspec.json.decode(answer, type=_Stream).state

    def log_disk_bytes(self, market: str = MARKET) -> int:
        """Count what a market's log takes on the disk of the first node."""
        streams = self.running.nodes[0].settings.store.rglob(subjects.log_stream(market))
        return sum(
            file.stat().st_size
            for stream in streams
            for file in stream.rglob("*")
            if file.is_file()
        )

    async def _node_of_orders(self) -> NodeProcess:
        nodes = self.running.nodes
        if len(nodes) == 1:
            return nodes[0]
        (leader,) = await self.leaders()
        wanted = f"{leader.name}-orders"
        async with self._connected("guard") as requester:
            monitoring = Monitoring(requester)
            for node_id, name in (await monitoring.nodes()).items():
                sample, _ = await monitoring.sample(node_id)
                if any(each.connection.name == wanted for each in sample.counters):
                    return next(node for node in nodes if node.settings.name == name)
        raise Invalid(f"expected a connection {wanted} on one of the nodes, found none")

    @asynccontextmanager
    async def _connected(self, role: Role) -> AsyncIterator[Requester]:
        options = ConnectionOptions(
            servers=(self.running.url,),
            name="bench",
            credentials=self.running.doors.role(role),
        )
        try:
            client = await connection.connect(options)
            try:
                yield await Requester.start(client)
            finally:
                await connection.close(client)
        except (CannotConnect, NoResponder, NoReply, NodeGone, NoAnswer) as error:
            raise Invalid(f"the exchange does not say how it stands: {error}") from error


@asynccontextmanager
async def opened(
    *,
    nodes: int = 1,
    servers: int = 1,
    sync_interval: str = "always",
    market_names: Sequence[str] = (MARKET,),
) -> AsyncIterator[Exchange]:
    """Run an exchange, and end all of it in any case.

    Raises:
        CannotMeasure: it does not start.
    """
    async with AsyncExitStack() as undo:
        try:
            running = await undo.enter_async_context(
                cluster(
                    market_names,
                    node_count=nodes,
                    server_count=servers,
                    sync_interval=sync_interval,
                    say=lambda _: None,
                )
            )
        except (NodeNotReady, ServerEnded, MarketNotOpen, ProgramMissing) as error:
            raise CannotMeasure(f"the exchange does not start: {error}") from error
        yield Exchange(running, undo)


def cpu_seconds(pid: int) -> float:
    """Tell what a process has used of the processors, since its beginning.

    Raises:
        CannotMeasure: this system does not tell.
    """
    # proc(5): user and system time, in ticks of 10 ms, mostly.
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise CannotMeasure(f"expected a system with /proc: {error}") from error
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
