"""The exchange's own programs as processes of a test: started, hurt, looked at, and always ended.

What they print goes to a file each; every wait has an end that is far beyond what it takes.
"""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NoAnswer

from deploy import processes
from tests.nats_nodes import Nodes, connected

PATIENCE_S: Final = 60.0
"""How long anything may take before a test calls it stuck; all of it takes some seconds."""

POLL_S: Final = 0.02

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
        async with connected(self.nodes) as client:
            answer = await asked(
                client, f"dex.admin.{market}.open", {"specification": specification}
            )
        sequence: int = answer["sequence"]
        return sequence

    async def status(self, market: str, *, min_sequence: int = 0) -> dict[str, Any]:
        """Ask how a market stands, until a server says so that has that commit."""
        async with connected(self.nodes) as client:
            query = {"min_sequence": min_sequence}
            return await asked(client, f"dex.query.{market}.status.operator", query)

    async def first_in_log(self, market: str) -> dict[str, Any]:
        """Ask for the oldest commit that there still is, as a peer who knows none."""
        async with connected(self.nodes) as client:
            query = {"from_sequence": 1, "limit": 1}
            answer = await asked(client, f"dex.query.{market}.log.operator", query)
        (payload,) = answer["commits"]
        commit: dict[str, Any] = msgspec.json.decode(payload)
        assert commit["sequence"] == answer["first_sequence"]
        return commit

    async def reaches(self, market: str, sequence: int) -> None:
        """Wait until a market's log has a commit."""
        async with connected(self.nodes) as client:
            jetstream = client.jsm()

            async def look() -> bool | None:
                info = await jetstream.stream_info(f"DEX-LOG-{market}")
                return True if info.state.last_seq >= sequence else None

            await eventually(look, what=f"commit {sequence} of {market}")

    async def reaches_term(self, market: str, term: int) -> None:
        """Wait until a market is led in a term, or in a later one."""
        async with connected(self.nodes) as client:
            jetstream = client.jsm()

            async def look() -> bool | None:
                newest = await jetstream.get_last_msg(f"DEX-LOG-{market}", f"dex.log.{market}")
                return True if msgspec.json.decode(newest.data or b"")["term"] >= term else None

            await eventually(look, what=f"term {term} of {market}")

    async def log(self, market: str) -> list[bytes]:
        """Read what a market's log holds, oldest first."""
        async with connected(self.nodes) as client:
            jetstream = client.jsm()
            state = (await jetstream.stream_info(f"DEX-LOG-{market}")).state
            sequences = range(max(state.first_seq, 1), state.last_seq + 1)
            return [
                (await jetstream.get_msg(f"DEX-LOG-{market}", sequence)).data or b""
                for sequence in sequences
            ]


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


async def asked(client: Client, subject: str, body: Any) -> dict[str, Any]:
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
