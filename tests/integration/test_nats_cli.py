"""The real `nats` command line tool, which knows nothing of the exchange, sees what goes on."""

import json
import shutil
from pathlib import Path

import pytest

from deploy import nats_cli, state
from dex_runtime.keys import role_file
from tests.integration.programs import Exchange, Program, asked, eventually
from tests.nats_nodes import calling, connected, doors

TOOL = nats_cli.find(Path(state.DIRECTORY)) or shutil.which("nats")


needs_the_tool = pytest.mark.skipif(
    TOOL is None, reason="the nats CLI is not here: `uv run just nats-cli` builds it, with Go"
)


@needs_the_tool
async def test_tool_and_tail_see_the_commits_of_the_log_in_its_order(
    venue: Exchange, market: str, tmp_path: Path
) -> None:
    tool = Program(
        *(str(TOOL), "sub", "dex.events.>", "--raw", "--server", venue.urls),
        log=tmp_path / "nats.log",
    )
    tail: Program | None = None
    try:
        async with connected(venue.nodes) as server, calling(venue.nodes) as callers:

            async def is_subscribed() -> bool | None:
                await server.publish("dex.events.nothing", b"are you there")
                return True if "are you there" in tool.printed else None

            await eventually(is_subscribed, what="the tool to subscribe")
            await venue.open(market)
            tail = Program(
                *("dex-client", "tail", "--json", "--from", "1"),
                *("--market", market, "--nats", venue.urls),
                log=tmp_path / "tail.log",
            )
            for number in (1, 2, 3):
                order = {"op": "submit", "side": "buy", "quantity": "1", "price": str(number)}
                receipt = await asked(callers, f"dex.orders.{market}.alice", order)
        last = f'"market":"{market}","sequence":{receipt["sequence"]}'
        await tool.prints(last)
        await tail.prints(last)
    finally:
        tool.end()
        if tail is not None:
            tail.end()

    stored = await venue.log(market)
    assert commits_of(market, tool.printed) == stored
    assert commits_of(market, tail.printed) == stored


@needs_the_tool
async def test_tool_finds_the_servers_and_how_they_stand_in_their_markets(
    venue: Exchange, market: str, tmp_path: Path
) -> None:
    await venue.open(market)

    key = role_file(doors().keyring.directory, "operator")

    async def tool(*words: str) -> str:
        log = tmp_path / f"{words[0]}.log"
        where = ("--server", venue.urls, "--nkey", str(key))
        command = Program(str(TOOL), "service", *words, *where, log=log)
        try:
            assert await command.ended() == 0, command.printed
        finally:
            command.end()
        return command.printed

    assert "dex-server" in await tool("list")
    assert "dex.query.*.*.*" in await tool("info", "dex-server")
    (service,) = json.loads(await tool("stats", "dex-server", "--json"))
    (data,) = [each["data"] for each in service["endpoints"] if each["name"] == "query"]
    (standing,) = [each for each in data["markets"] if each["market"] == market]
    assert (data["server"], standing["role"], standing["leader"]) == (
        "server-1",
        "leader",
        "server-1",
    )
    assert (standing["term"], standing["sequence"], standing["lag"]) == (1, 1, 0)


def commits_of(market: str, printed: str) -> list[bytes]:
    """Give the lines that are commits of a market."""
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    return [line.encode() for line in lines if json.loads(line)["market"] == market]
