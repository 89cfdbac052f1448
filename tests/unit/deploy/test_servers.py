"""A server's process is paused, resumed, stopped and killed, and looked at."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy import processes
from deploy.servers import SHOWN_LINES_COUNT, ServerEnded, ServerProcess

COUNTING = """
import time
for number in range(10_000):
    print(number, flush=True)
    time.sleep(0.01)
"""


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A program in a server's place that adds a line to its log every 10 ms."""
    log = tmp_path / "server-1.log"
    process = processes.spawn([sys.executable, "-c", COUNTING], log=log)
    yield ServerProcess("server-1", log, process)
    await processes.kill(process)


def wait_for_more(log: Path) -> None:
    size, deadline = log.stat().st_size, time.monotonic() + 10
    while log.stat().st_size == size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_paused_server_runs_and_does_nothing_until_it_is_resumed(
    server: ServerProcess,
) -> None:
    wait_for_more(server.log)

    server.pause()
    await asyncio.sleep(0.05)  # The signal is on its way.
    size = server.log.stat().st_size
    await asyncio.sleep(0.1)
    assert server.log.stat().st_size == size
    assert server.is_running()
    server.check()

    server.resume()
    wait_for_more(server.log)


@pytest.mark.parametrize("is_paused", [False, True])
@pytest.mark.parametrize("is_killed", [False, True])
async def test_ended_server_does_not_run_and_shows_the_end_of_its_log(
    server: ServerProcess, is_killed: bool, is_paused: bool
) -> None:
    wait_for_more(server.log)
    if is_paused:
        server.pause()

    await (server.kill() if is_killed else server.stop())

    assert not server.is_running()
    printed = [f"  {line}" for line in server.log.read_text().splitlines()[1:]]
    with pytest.raises(ServerEnded, match=r"server-1 has ended\. The end of ") as ended:
        server.check()
    assert str(ended.value).splitlines()[1:] == printed[-SHOWN_LINES_COUNT:]
