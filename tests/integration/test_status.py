"""`dex-client status` as people use it: the real command and a real node, but made-up servers.

They tell how they stand over NATS' service discovery, as real ones do.
"""

import asyncio
import json
import os
import pty
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from deploy import processes
from dex_protocol.standing import ENDPOINT, SERVICE, MarketStanding, Role, ServerStanding
from dex_runtime.discovery import Endpoint, Registration, register
from dex_runtime.serving import Responder
from tests.integration.programs import PATIENCE_S, Program
from tests.integration.test_cli import ENVIRONMENT, ESCAPE, Ended, command
from tests.nats_nodes import Nodes, connected, running

BOOK = "00000000000000aa"
OTHER_BOOK = "00000000000000bb"


def held(market: str = "BTC-USD", role: Role = "follower", **fields: Any) -> MarketStanding:
    base = {
        "market": market,
        "role": role,
        "term": 3,
        "sequence": 120,
        "digest": BOOK,
        "leader": "server-1",
        "lag": 0,
        "is_current": True,
    }
    return MarketStanding(**(base | fields))


LEADER = held(role="leader")
FOLLOWER = held(sequence=118, digest=OTHER_BOOK)
STOPPED = held(role="stopped", is_current=False)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Run a node of its own: real servers on a shared one would tell how they stand, too."""
    async with running(tmp_path_factory.mktemp("status")) as nodes:
        yield nodes


class Servers:
    """Made-up servers on one connection; what they tell may change."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._registrations: list[Registration] = []

    async def add(self, number: int, *markets: MarketStanding) -> list[MarketStanding]:
        """Let a server tell; give what it tells, for a test to change."""
        told = list(markets)
        name = f"server-{number}"
        await self.tell(lambda: ServerStanding(server=name, incarnation=f"{name}.01", markets=told))
        return told

    async def tell(self, data: Callable[[], Any]) -> None:
        """Let a service of that name tell anything."""
        self._registrations.append(
            await register(
                self._client,
                name=SERVICE,
                version="0.1.0",
                description="An exchange server, made up.",
                metadata={},
                endpoints=[Endpoint(ENDPOINT, "test.query.*", "replica", lambda _: None)],
                data=lambda _: data(),
            )
        )
        await Responder(self._client).settle()

    async def end(self) -> None:
        """Be found no more."""
        for registration in self._registrations:
            await registration.stop()
        await Responder(self._client).settle()


@pytest.fixture
async def servers(nodes: Nodes) -> AsyncIterator[Servers]:
    async with connected(nodes) as client:
        servers = Servers(client)
        yield servers
        await servers.end()


async def status(nodes: Nodes, *words: str) -> Ended:
    return await command("status", *words, "--nats", nodes.urls[0])


async def test_exchange_that_is_well_is_shown_with_exit_code_0(
    nodes: Nodes, servers: Servers
) -> None:
    await servers.add(2, FOLLOWER)
    await servers.add(1, LEADER)
    ended = await status(nodes)

    assert ended == Ended(
        0,
        "MARKET   LEADER    TERM  SEQUENCE  DIGEST            CURRENT\n"
        "BTC-USD  server-1     3       120  00000000000000aa  2 of 2\n"
        "\n"
        "SERVER    MARKET   ROLE      TERM  SEQUENCE  LAG  DIGEST\n"
        "server-1  BTC-USD  leader       3       120    0  00000000000000aa\n"
        "server-2  BTC-USD  follower     3       118    2  00000000000000bb\n"
        "\n"
        "all is well: 1 market, 2 servers\n",
        "",
    )


@pytest.mark.parametrize("option", [("--json",), ("--json", "-")])
async def test_json_is_one_object(nodes: Nodes, servers: Servers, option: tuple[str, ...]) -> None:
    await servers.add(1, LEADER)
    await servers.add(2, FOLLOWER)
    ended = await status(nodes, *option)

    assert (ended.exit_code, ended.stderr) == (0, "")
    (view,) = ended.data
    assert (view["is_well"], view["problems"]) == (True, [])
    (market,) = view["markets"]
    assert (market["leaders"], market["current"], market["servers"]) == (["server-1"], 2, 2)
    assert [server["markets"][0]["lag"] for server in view["servers"]] == [0, 2]


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ([held(role="leader")], "BTC-USD: more than one server leads: server-1, server-2"),
        ([STOPPED], "BTC-USD: server-2 has stopped"),
        ([held(digest=OTHER_BOOK)], "BTC-USD: the books differ at sequence 120: "),
        ([held("ETH-USD")], "ETH-USD: no server leads"),
    ],
)
async def test_what_is_wrong_is_said_with_exit_code_1(
    nodes: Nodes, servers: Servers, others: list[MarketStanding], problem: str
) -> None:
    await servers.add(1, LEADER)
    await servers.add(2, *others)
    as_text = await status(nodes)
    as_data = await status(nodes, "--json", "-")

    assert (as_text.exit_code, as_text.stderr) == (1, "")
    assert f"\n{problem}" in as_text.stdout
    assert "all is well" not in as_text.stdout
    assert (as_data.exit_code, as_data.stderr) == (1, "")
    assert as_data.data[0]["problems"][0].startswith(problem)


async def test_what_passes_by_itself_within_a_moment_is_not_wrong(
    nodes: Nodes, servers: Servers
) -> None:
    """While the lead changes there is no leader: the command looks twice."""
    looks = 0

    def tell() -> ServerStanding:
        nonlocal looks
        looks += 1
        markets = [held() if looks == 1 else LEADER]
        return ServerStanding(server="server-1", incarnation="server-1.01", markets=markets)

    await servers.tell(tell)
    ended = await status(nodes)

    assert (ended.exit_code, looks) == (0, 2)


async def test_replica_that_is_behind_is_remarked_with_exit_code_0(
    nodes: Nodes, servers: Servers
) -> None:
    await servers.add(1, held(role="leader", sequence=1_000))
    await servers.add(2, held(is_current=False))
    ended = await status(nodes)

    assert ended.exit_code == 0
    assert "BTC-USD: server-2 is not current\n" in ended.stdout
    assert "BTC-USD: server-2 is 880 commits behind\n" in ended.stdout


async def test_foreign_services_of_that_name_are_passed_over_and_named(
    nodes: Nodes, servers: Servers
) -> None:
    await servers.add(1, LEADER)
    for data in (None, "\x1b[31m", {"server": "\x1b[31m", "incarnation": "", "markets": []}):
        await servers.tell(lambda data=data: data)
    async with connected(nodes) as client:

        async def babble(message: Msg) -> None:
            await message.respond(b"\xff")

        await client.subscribe(f"$SRV.STATS.{SERVICE}", cb=babble)
        await Responder(client).settle()
        ended = await status(nodes)

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout.count("passed over ") == 4
    assert "all is well: 1 market, 1 server\n" in ended.stdout
    assert ESCAPE not in ended.stdout


async def test_nobody_is_an_error_that_says_what_to_do(nodes: Nodes) -> None:
    for words in ((), ("--json", "-")):
        ended = await status(nodes, *words)

        assert ended == Ended(
            2,
            "",
            "Error: expected an answer of a server within 1 s, found nobody who serves it; "
            "start an exchange with `just up`, or name its NATS servers with --nats\n",
        )


async def test_no_node_is_an_error_that_says_what_to_do() -> None:
    ended = await command("status", "--nats", "nats://127.0.0.1:1", "--deadline", "0.3")

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("Error: cannot connect to NATS at nats://127.0.0.1:1: ")


# --- Watching -----------------------------------------------------------------------------------


async def test_watching_without_a_terminal_prints_one_picture_after_another(
    nodes: Nodes, servers: Servers, tmp_path: Path
) -> None:
    told = await servers.add(1, LEADER)
    program = Program(
        "dex-client", "status", "--watch", "--nats", nodes.urls[0], log=tmp_path / "watch.log"
    )
    try:
        await program.prints("all is well: 1 market, 1 server")
        told[:] = [held()]
        await program.prints("BTC-USD: no server leads")
        await servers.end()
        await program.prints("no server answers")
        await servers.add(2, LEADER)
        await program.prints("server-2  BTC-USD  leader")
        program.send(signal.SIGINT)
        exit_code = await program.ended()
    finally:
        program.end()

    assert exit_code == 0
    assert ESCAPE not in program.printed
    assert "Aborted" not in program.printed


async def test_watching_as_json_prints_an_object_in_each_line(
    nodes: Nodes, servers: Servers, tmp_path: Path
) -> None:
    told = await servers.add(1, LEADER)
    program = Program(
        *("dex-client", "status", "--watch", "--json", "--nats", nodes.urls[0]),
        log=tmp_path / "watch.log",
    )
    try:
        await program.prints('"is_well":true')
        told[:] = [STOPPED]
        await program.prints('"is_well":false')
        program.send(signal.SIGINT)
        exit_code = await program.ended()
    finally:
        program.end()

    assert exit_code == 0
    views = [json.loads(line) for line in program.printed.splitlines()]
    assert [views[0]["is_well"], views[-1]["is_well"]] == [True, False]


class Terminal:
    """A command at a terminal of its own, which is read as it writes."""

    def __init__(self, controller: int, process: asyncio.subprocess.Process) -> None:
        self.shown = ""
        self._controller = controller
        self._process = process
        os.set_blocking(controller, False)

    async def shows(self, words: str) -> None:
        """Wait until some words were written."""
        async with asyncio.timeout(PATIENCE_S):
            while words not in self.shown:
                await asyncio.sleep(0.02)
                self._read()

    async def interrupted(self) -> int:
        """End it as Ctrl-C does, and give the exit code."""
        self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            exit_code = await self._process.wait()
        self._read()
        return exit_code

    def _read(self) -> None:
        try:
            self.shown += os.read(self._controller, 65_536).decode()
        except BlockingIOError:
            return


@asynccontextmanager
async def terminal(*words: str, **environment: str) -> AsyncIterator[Terminal]:
    """Run a command at a terminal for as long as the block lasts."""
    controller, end = pty.openpty()
    program = processes.executable("dex-client", advice="`uv sync` installs it")
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            str(program),
            *words,
            stdin=end,
            stdout=end,
            stderr=end,
            env=ENVIRONMENT | {"TERM": "xterm-256color", "COLUMNS": "70"} | environment,
        )
        yield Terminal(controller, process)
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        os.close(end)
        os.close(controller)


async def test_watching_at_a_terminal_draws_over_what_was_there(
    nodes: Nodes, servers: Servers
) -> None:
    told = await servers.add(1, LEADER)
    async with terminal("status", "--watch", "--nats", nodes.urls[0]) as screen:
        await screen.shows("all is well: 1 market, 1 server")
        told[:] = [held(), held("ETH-USD", "leader")]
        await screen.shows("BTC-USD: no server leads")
        await screen.shows("ETH-USD  leader")
        exit_code = await screen.interrupted()

    assert exit_code == 0
    # The cursor goes up a line, and the line is erased; in the end the cursor is there again.
    assert "\x1b[1A\x1b[2K" in screen.shown
    assert "\x1b[1;31mBTC-USD: no server leads" in screen.shown
    assert screen.shown.rindex("\x1b[?25h") > screen.shown.rindex("\x1b[?25l")
    assert "Aborted" not in screen.shown


async def test_lines_that_do_not_fit_a_terminal_are_cut(nodes: Nodes, servers: Servers) -> None:
    await servers.add(1, LEADER)
    words = ("status", "--watch", "--nats", nodes.urls[0])
    async with terminal(*words, COLUMNS="40", NO_COLOR="1") as screen:
        await screen.shows("SERVER    MARKET   ROLE    TERM  SEQUEN…")
        exit_code = await screen.interrupted()

    assert exit_code == 0
