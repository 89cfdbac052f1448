"""A locked exchange to attack: nodes, servers, a guard, polite peers, and what they use.

Peers and attackers are processes of their own, so that none is slow for another's sake. Knows
nothing of what the attacks are.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from msgspec import Struct

from bench.attack_peers import BEGAN, ENDED, IN_FLIGHT, Polite
from bench.attack_results import Machine, Sample, Seen, machine_of
from deploy.embedded import Embedded, Say, cluster
from dex_client.queries import Queries
from dex_client.retry import Policy
from dex_protocol import subjects
from dex_protocol.codec import decode_commit, encode
from dex_protocol.events import Accepted
from dex_protocol.queries import StatusReply
from dex_protocol.specification import SpecificationChange
from dex_runtime import connection
from dex_runtime.connection import ConnectionOptions
from dex_runtime.keys import VARIABLE, peer_file
from dex_runtime.messaging import Requester

MARKET: Final = "BTC-USD"

PEERS: Final = 9
"""Polite ones: load-1, load-2, ..."""

FLOODER: Final = "flooder"

SERVERS: Final = 2

SAMPLE_S: Final = 1.0
"""Between two looks at what processes use."""

PATIENCE_S: Final = 60.0
"""How long anything may take that is merely waited for."""

_OPERATOR: Final = "operator"


class AttackFailed(Exception):
    """The bench itself did not work, so nothing was found out; the text says what."""


class Child:
    """A process of this bench that was started."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        """Use `Stage.child`."""
        self._process = process
        self._name = name

    @property
    def pid(self) -> int:
        """Its pid, for reading."""
        return self._process.pid

    async def heard(self, wanted: str, *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it says something.

        Raises:
            AttackFailed: it does not.
        """
        line = await self._line(timeout_s)
        if line.decode().strip() != wanted:
            raise AttackFailed(f"expected {self._name} to say {wanted}, found {line[:200]!r}")

    async def result(self, *, timeout_s: float = PATIENCE_S) -> bytes:
        """Give its last line."""
        line = await self._line(timeout_s)
        await self._process.wait()
        return line

    def stop(self) -> None:
        """Tell it to come to an end."""
        if self._process.returncode is None:
            self._process.terminate()

    async def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise AttackFailed(f"{self._name} said nothing for {timeout_s:g} s") from None
        if not line:
            raise AttackFailed(f"{self._name} has ended without a word")
        return line


class Window(Struct, frozen=True):
    """A time that was measured, by the machine's monotonic clock."""

    began: float
    ended: float


class Usage:
    """What processes use, looked at again and again."""

    def __init__(self) -> None:
        """Watch nobody yet."""
        self.pids: dict[str, int] = {}
        """Whom to look at; may change at any time."""
        self._samples: dict[str, list[Sample]] = {}
        self._cores: list[Sample] = []
        self._disk: list[Sample] = []

    async def watch(self) -> None:
        """Look until canceled."""
        due = time.monotonic()
        while True:
            self.look()
            due += SAMPLE_S
            await asyncio.sleep(max(due - time.monotonic(), 0))

    def look(self) -> None:
        """Look once."""
        for name, pid in self.pids.items():
            sample = _sample(pid)
            if sample is not None:
                self._samples.setdefault(name, []).append(sample)
        self._cores.append(_sample_of_cores())
        self._disk.append(_sample_of_disk())

    def machine(self, window: Window) -> Machine:
        """Tell how busy the machine was in a time."""
        return machine_of(_within(self._cores, window), _within(self._disk, window))

    def within(self, name: str, window: Window) -> list[Sample]:
        """Give a process's samples of a time, in order."""
        return _within(self._samples.get(name, []), window)


def _within(samples: Sequence[Sample], window: Window) -> list[Sample]:
    return [each for each in samples if window.began <= each.at <= window.ended]


class Stage:
    """An exchange with polite peers."""

    def __init__(self, exchange: Embedded, requester: Requester, queries: Queries) -> None:
        """Put together what `stage` made."""
        self.exchange = exchange
        self.usage = Usage()
        self._requester = requester
        self._queries = queries
        self._seed = 0
        self._watch_all()

    def _watch_all(self) -> None:
        exchange = self.exchange
        pids = {node.settings.name: node.pid for node in exchange.nodes}
        pids |= {server.name: server.pid for server in exchange.servers}
        if exchange.guard is not None:
            pids["guard"] = exchange.guard.process.pid
        self.usage.pids |= pids

    # --- The exchange ---------------------------------------------------------------------------

    async def guard(self) -> None:
        """Start the guard, and wait until it watches all nodes."""
        self.exchange.start_guard()
        self._watch_all()
        log = self.exchange.guard_log
        deadline = time.monotonic() + PATIENCE_S
        while log.read_text().count("watching the node") < len(self.exchange.nodes):
            if time.monotonic() > deadline:
                raise AttackFailed(f"the guard watches too few nodes: {log.read_text()}")
            await asyncio.sleep(0.05)

    async def limit(self, *, per_second: int, burst: int) -> None:
        """Limit each peer of the market."""
        change = SpecificationChange(orders_per_second=per_second, orders_burst=burst)
        reply = await self._requester.request(
            subjects.admin(MARKET, "change"), encode(change), timeout_s=5
        )
        if (await self.status()).specification.orders_per_second != per_second:
            raise AttackFailed(f"the limits cannot be set: {reply!r}")

    async def status(self, *, min_sequence: int = 0) -> StatusReply:
        """Ask how the market stands."""
        status = await self._queries.status(MARKET, min_sequence=min_sequence)
        assert isinstance(status, StatusReply), f"expected a status, found {status}"
        return status

    async def accepted(self, peer: str, *, after: int) -> int:
        """Count a peer's orders in the log, after a commit."""
        end = (await self.status()).sequence
        count = 0
        async for payload in self._queries.log(MARKET, from_sequence=after + 1, to_sequence=end):
            count += sum(
                isinstance(event, Accepted) and event.peer == peer
                for event in decode_commit(payload).events
            )
        return count

    async def roles(self) -> dict[str, str]:
        """Name the processes of the exchange for people."""
        leader = (await self.status()).leader
        names = [node.settings.name for node in self.exchange.nodes]
        names += [server.name for server in self.exchange.servers]
        names += ["guard"] if self.exchange.guard is not None else []
        return {name: f"{name} (leads)" if name == leader else name for name in names}

    # --- Peers and attackers --------------------------------------------------------------------

    async def polite(
        self,
        *,
        orders: int,
        rate: float | None = None,
        batch: int = 1,
        in_flight: int = IN_FLIGHT,
    ) -> Polite:
        """Have the polite peers send orders; give what they came to, verified."""
        self._seed += 1
        options: dict[str, object] = {
            "--market": MARKET,
            "--peers": PEERS,
            "--orders": orders,
            "--batch": batch,
            "--in-flight": in_flight,
            "--seed": self._seed,
        }
        if rate is not None:
            options["--rate"] = rate
        nodes = [part for url in self.exchange.urls for part in ("--nats", url)]
        seconds = PATIENCE_S if rate is None else orders / rate + PATIENCE_S
        async with self._child("bench.attack_peers", *nodes, *_words(options)) as child:
            self.usage.pids["polite peers"] = child.pid
            await child.heard(BEGAN)
            self.usage.look()
            await child.heard(ENDED, timeout_s=seconds)
            self.usage.look()
            return msgspec.json.decode(await child.result(), type=Polite)

    def seen(self, run: Polite) -> Seen:
        """Give what counts of a run."""
        return run.seen(self.usage.machine(Window(run.began, run.ended)))

    @asynccontextmanager
    async def attacker(self, how: str, **options: object) -> AsyncIterator[Child]:
        """Attack for as long as the block lasts."""
        key = peer_file(self.exchange.doors.keyring.directory, FLOODER)
        where = {"--nats": self.exchange.url, "--key": key, "--market": MARKET, "--peer": FLOODER}
        named = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
        words = (*_words(where), how, *_words(named))
        async with self._child("bench.attack_flooder", *words) as child:
            self.usage.pids["attacker"] = child.pid
            await child.heard(BEGAN)
            yield child

    @asynccontextmanager
    async def _child(self, module: str, *words: str) -> AsyncIterator[Child]:
        keys = {VARIABLE: str(self.exchange.doors.keyring.directory)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *words),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | keys,
            limit=2**20,
        )
        child = Child(process, module)
        try:
            yield child
        finally:
            await child.kill()


def _words(options: dict[str, object]) -> Iterable[str]:
    return [word for name, value in options.items() for word in (name, str(value))]


def _sample(pid: int) -> Sample | None:
    # proc(5): times are in ticks, and resident memory in KiB.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    resident = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    if not resident:
        # It has ended, and nobody has asked for its exit yet.
        return None
    ticks = int(stat[11]) + int(stat[12])
    return Sample(time.monotonic(), int(resident[0]) / 1024, ticks / os.sysconf("SC_CLK_TCK"))


def _sample_of_cores() -> Sample:
    # proc(5): user, nice, system, idle, iowait, irq, softirq, steal, of all processors.
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return Sample(time.monotonic(), 0.0, busy / os.sysconf("SC_CLK_TCK"))


def _sample_of_disk() -> Sample:
    # Some kernels do not tell; then there is nothing to see.
    try:
        some = Path("/proc/pressure/io").read_text().splitlines()[0]
        waited_us = float(some.rpartition("=")[2])
    except OSError:
        waited_us = 0.0
    return Sample(time.monotonic(), 0.0, waited_us / 1e6)


@asynccontextmanager
async def stage(*, nodes: int, say: Say) -> AsyncIterator[Stage]:
    """Run a locked exchange with a guard, and the keys of all peers.

    Args:
        nodes: How many NATS nodes: 1, or 3 and more.
        say: Told what happens.
    """
    async with AsyncExitStack() as stack:
        exchange = await stack.enter_async_context(
            cluster([MARKET], node_count=nodes, server_count=SERVERS, say=say)
        )
        await _let_in(exchange, [*(f"load-{n + 1}" for n in range(PEERS)), FLOODER])
        client = await connection.connect(
            ConnectionOptions(
                servers=tuple(exchange.urls),
                name="attack",
                credentials=exchange.doors.role("operator"),
            )
        )
        stack.push_async_callback(connection.close, client)
        requester = await Requester.start(client)
        queries = Queries(requester, _OPERATOR, policy=Policy(), random=Random(0))
        made = Stage(exchange, requester, queries)
        await made.guard()
        watching = asyncio.create_task(made.usage.watch())
        try:
            yield made
        finally:
            watching.cancel()
            await asyncio.wait((watching,))


async def _let_in(exchange: Embedded, peers: Sequence[str]) -> None:
    keyring = exchange.doors.keyring
    known = keyring.peers()
    for peer in peers:
        if peer not in known:
            keyring.add(peer)
    await exchange.doors.tell(exchange.nodes)
