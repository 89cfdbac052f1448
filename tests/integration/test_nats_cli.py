"""The real `nats` command line tool, which knows nothing of the exchange, sees its events."""

import json
import shutil
from pathlib import Path

import pytest

from deploy import nats_cli, state
from tests.integration.programs import Exchange, Program, asked, eventually
from tests.nats_nodes import connected

TOOL = nats_cli.find(Path(state.DIRECTORY)) or shutil.which("nats")


@pytest.mark.skipif(
    TOOL is None, reason="the nats CLI is not here: `uv run just nats-cli` builds it, with Go"
)
async def test_tool_that_subscribes_to_events_sees_the_commits_of_the_log(
    venue: Exchange, market: str, tmp_path: Path
) -> None:
    tool = Program(
        *(str(TOOL), "sub", "dex.events.>", "--raw", "--server", venue.urls),
        log=tmp_path / "nats.log",
    )
    try:
        async with connected(venue.nodes) as client:

            async def is_subscribed() -> bool | None:
                await client.publish("dex.events.nothing", b"are you there")
                return True if "are you there" in tool.printed else None

            await eventually(is_subscribed, what="the tool to subscribe")
            await venue.open(market)
            for number in (1, 2, 3):
                order = {"op": "submit", "side": "buy", "quantity": "1", "price": str(number)}
                receipt = await asked(client, f"dex.orders.{market}.alice", order)
        await tool.prints(f'"market":"{market}","sequence":{receipt["sequence"]}')
    finally:
        tool.end()

    seen = [line for line in tool.printed.splitlines() if line.startswith("{")]
    ours = [line for line in seen if json.loads(line)["market"] == market]
    assert [line.encode() for line in ours] == await venue.log(market)
