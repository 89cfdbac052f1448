"""The exchange's own programs as processes of a test: started, hurt, looked at, and always ended.

What they print goes to a file each; every wait has an end that is far beyond what it takes.
"""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NoAnswer
from nats.js.errors import ServiceUnavailableError

from deploy import processes
from dex_client.errors import Unavailable
from dex_client.standings import standings
from dex_protocol.standing import MarketStanding, Role, ServerStanding
from dex_runtime import keys
from dex_runtime.connection import ConnectionOptions
from tests.nats_nodes import Callers, Nodes, connected

PATIENCE_S: Final = 60.0
"""How long anything may take before a test calls it stuck; all of it takes some seconds."""

POLL_S: Final = 0.02

UNANSWERED: Final = (NoAnswer, NoRespondersError, ServiceUnavailableError)
"""What a question to JetStream may end in while it elects a leader."""

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T | None]], *, what: str) -> T:
    """Look again and again until there is something to see."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen = await look()
                if seen is not None:
                    return seen
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE_S:g} s for {what}") from None


class Program:
    """One process."""

    def __init__(self, *command: str, log: Path) -> None:
        """Start it; what it prints is added to a file."""
        program = processes.executable(command[0], advice="`uv sync` installs it")
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(program), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The pid, for reading; signals go through the methods."""
        return self._process.pid

    @property
    def printed(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        self._process.send_signal(number)

    async def prints(self, words: str) -> None:
        """Wait until it has printed some words."""

        async def look() -> bool | None:
            return True if words in self.printed else None

        await eventually(look, what=f"{words!r} in {self.log}")

    async def ended(self) -> int:
        """Wait for its end, and give its exit code."""

        async def look() -> int | None:
            return self._process.poll()

        try:
            return await eventually(look, what=f"the end of {self._process.args}")
        except AssertionError as stuck:
            raise AssertionError(f"{stuck}\n{self.printed}") from None

    async def terminated(self) -> int:
        """Tell it to end, and give its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended()

    async def killed(self) -> None:
        """End it at once, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.ended()

    def end(self) -> None:
        """Make sure that it is gone."""
        self._process.kill()
        self._process.wait()


class Exchange:
    """NATS nodes, the servers and clients of a test, and an operator's connection."""

    def __init__(self, nodes: Nodes, directory: Path) -> None:
        """Use `exchange`."""
        self.nodes = nodes
        self._directory = directory
        self._programs: list[Program] = []

    @property
    def urls(self) -> str:
        """Where clients connect, with commas between."""
        return ",".join(self.nodes.urls)

    def server(self, *options: str, name: str = "server-1") -> Program:
        """Start a server; it is not ready yet."""
        return self._start(
            "dex-server", "--name", name, "--nats", self.urls, *options, log=f"{name}.log"
        )

    def load(self, market: str, *options: str, report: str = "report.json") -> "Load":
        """Start the load generator."""
        path = self._directory / report
        options = ("--nats", self.urls, "--market", market, "--json", str(path), *options)
        return Load(self._start("dex-client", *options, log=f"{report}.log"), path)

    def _start(self, *command: str, log: str) -> Program:
        program = Program(*command, log=self._directory / log)
        self._programs.append(program)
        return program

    def end(self) -> None:
        """End every program that was started here."""
        for program in self._programs:
            program.end()

    # --- As an operator ---------------------------------------------------------------------

    async def open(self, market: str) -> int:
        """Open a market and wait until it is led; give the sequence that is told."""
        specification = {"market": market, "tick_size": "0.01", "lot_size": "0.001"}
        async with connected(self.nodes, role="operator") as client:
            answer = await asked(
                client, f"dex.admin.{market}.open", {"specification": specification}
            )
        sequence: int = answer["sequence"]
        return sequence

    async def status(self, market: str, *, min_sequence: int = 0) -> dict[str, Any]:
        """Ask how a market stands, until a server says so that has that commit."""
        async with connected(self.nodes, role="operator") as client:
            query = {"min_sequence": min_sequence}
            return await asked(client, f"dex.query.{market}.status.operator", query)

    async def standings(self) -> dict[str, ServerStanding]:
        """Ask all servers at once how they stand; by name. None that is stopped is among them."""
        options = ConnectionOptions(
            servers=self.nodes.urls, name="test", credentials=keys.of_role("operator")
        )
        async with standings(options) as asking:
            try:
                answers = await asking.ask()
            except Unavailable:
                return {}
        return {standing.server: standing for standing in answers.standings}

    async def first_in_log(self, market: str) -> dict[str, Any]:
        """Ask for the oldest commit that there still is, as a peer who knows none."""
        async with connected(self.nodes, role="operator") as client:
            query = {"from_sequence": 1, "limit": 1}
            answer = await asked(client, f"dex.query.{market}.log.operator", query)
        (payload,) = answer["commits"]
        commit: dict[str, Any] = msgspec.json.decode(payload)
        assert commit["sequence"] == answer["first_sequence"]
        return commit

    async def reaches(self, market: str, sequence: int) -> None:
        """Wait until a market's log has a commit."""
        async with connected(self.nodes, role="operator") as client:
            jetstream = client.jsm()

            async def look() -> bool | None:
                try:
                    info = await jetstream.stream_info(f"DEX-LOG-{market}")
                except UNANSWERED:
                    return None
                return True if info.state.last_seq >= sequence else None

            await eventually(look, what=f"commit {sequence} of {market}")

    async def reaches_term(self, market: str, term: int) -> None:
        """Wait until a market is led in a term, or in a later one."""
        async with connected(self.nodes, role="operator") as client:
            jetstream = client.jsm()

            async def look() -> bool | None:
                try:
                    newest = await jetstream.get_last_msg(f"DEX-LOG-{market}", f"dex.log.{market}")
                except UNANSWERED:
                    return None
                return True if msgspec.json.decode(newest.data or b"")["term"] >= term else None

            await eventually(look, what=f"term {term} of {market}")

    async def log(self, market: str) -> list[bytes]:
        """Read what a market's log holds, oldest first."""
        async with connected(self.nodes, role="operator") as client:
            jetstream = client.jsm()
            state = (await jetstream.stream_info(f"DEX-LOG-{market}")).state
            sequences = range(max(state.first_seq, 1), state.last_seq + 1)
            return [
                (await jetstream.get_msg(f"DEX-LOG-{market}", sequence)).data or b""
                for sequence in sequences
            ]


class Servers:
    """Some servers of one exchange, by name; what a test ends it may start again."""

    def __init__(self, exchange: Exchange, *options: str) -> None:
        """Start none yet; each gets the options."""
        self._exchange = exchange
        self._options = options
        self._programs: dict[str, Program] = {}

    def __getitem__(self, name: str) -> Program:
        """Give the newest process of that name."""
        return self._programs[name]

    @property
    def running(self) -> list[str]:
        """The names of those that have not ended, in order."""
        return sorted(name for name, program in self._programs.items() if program.is_running)

    def start(self, *names: str, options: tuple[str, ...] = ()) -> None:
        """Start some, for the first time or again; they are not ready yet."""
        for name in names:
            self._programs[name] = self._exchange.server(*self._options, *options, name=name)

    async def agree(self, market: str) -> str:
        """Wait until one that runs leads a market, and all the others follow it; give its name."""

        async def look() -> str | None:
            held = await self.holding(market)
            if sorted(held) != self.running or not all(each.is_current for each in held.values()):
                return None
            leaders = [name for name, each in held.items() if each.role == "leader"]
            told = {each.leader for each in held.values()}
            return leaders[0] if len(leaders) == 1 and told == set(leaders) else None

        return await eventually(look, what=f"{self.running} to agree who leads {market}")

    async def leader(self, market: str, *, other_than: str = "") -> str:
        """Wait until one leads a market, whatever the others do; give its name."""

        async def look() -> str | None:
            for name, each in (await self.holding(market)).items():
                if each.role == "leader" and name != other_than:
                    return name
            return None

        return await eventually(look, what=f"a leader of {market}")

    async def stands(self, name: str, market: str, role: Role) -> MarketStanding:
        """Wait until one stands so in a market, and is current if it is not stopped; give all that
        it tells of it."""

        async def look() -> MarketStanding | None:
            held = (await self.holding(market)).get(name)
            is_so = held is not None and held.role == role
            return held if is_so and held.is_current == (role != "stopped") else None

        return await eventually(look, what=f"{name} to be {role} in {market}")

    async def holding(self, market: str) -> dict[str, MarketStanding]:
        """Ask each how it stands in a market; by name."""
        return {
            name: held
            for name, standing in (await self._exchange.standings()).items()
            for held in standing.markets
            if held.market == market
        }

    async def led_counts(self, *names: str, markets: list[str]) -> list[int]:
        """Wait until just these serve, every market is led by one of them and followed by all the
        others, and they lead as evenly as can be; give how many each leads, the fewest first."""

        async def look() -> list[int] | None:
            told = await self._exchange.standings()
            held = [each for standing in told.values() for each in standing.markets]
            led = sorted(each.market for each in held if each.role == "leader")
            are_well = all(each.is_current for each in held)
            if sorted(told) != sorted(names) or led != sorted(markets) or not are_well:
                return None
            if len(held) != len(names) * len(markets):
                return None
            counts = sorted(
                sum(each.role == "leader" for each in standing.markets)
                for standing in told.values()
            )
            return counts if counts[-1] - counts[0] <= 1 else None

        return await eventually(look, what=f"{names} to lead {markets} evenly")


class Load:
    """The load generator at work."""

    def __init__(self, program: Program, report: Path) -> None:
        """Use `Exchange.load`."""
        self.program = program
        self._report = report

    async def verified(self) -> dict[str, Any]:
        """Wait for its end; make sure that every order has an outcome, and that all is true."""
        exit_code = await self.program.ended()

        assert exit_code == 0, self.program.printed
        report: dict[str, Any] = msgspec.json.decode(self._report.read_bytes())
        assert (report["unknown"], report["unavailable"]) == (0, 0)
        assert report["accepted"] + sum(report["rejected"].values()) == report["orders"]
        verified = report["verified"]
        assert (verified["missing"], verified["duplicated"]) == (0, 0)
        assert verified["digest_equal"] is True
        assert report["trades"] > 0
        return report


def changes_of_leader(payloads: list[bytes]) -> list[tuple[int, str]]:
    """Make sure that a log is one chain in which each term has one server and follows on the one
    before; give the terms with their servers, in order."""
    commits = [msgspec.json.decode(payload) for payload in payloads]
    hashes = [blake2b(payload, digest_size=16).hexdigest() for payload in payloads]
    assert [commit["previous"] for commit in commits] == ["0" * 32, *hashes[:-1]]
    changes: list[tuple[int, str]] = []
    for commit in commits:
        changes += [
            (event["term"], event["server"])
            for event in commit["events"]
            if event["event"] == "leader_changed"
        ]
        assert commit["term"] == changes[-1][0], commit
    assert [term for term, _ in changes] == list(range(1, len(changes) + 1))
    return changes


async def asked(client: Client | Callers, subject: str, body: Any) -> dict[str, Any]:
    """Ask until somebody answers anything but `retry`."""

    async def look() -> dict[str, Any] | None:
        try:
            message = await client.request(subject, msgspec.json.encode(body), timeout=2)
        except (NoRespondersError, NoAnswer):
            return None
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        return None if answer.get("status") == "retry" else answer

    return await eventually(look, what=f"an answer from {subject}")


@asynccontextmanager
async def exchange(nodes: Nodes, directory: Path) -> AsyncIterator[Exchange]:
    """Start programs on some nodes for as long as the block lasts."""
    made = Exchange(nodes, directory)
    try:
        yield made
    finally:
        made.end()
