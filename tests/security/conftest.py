"""Exchanges that live as long as a module's tests, to be attacked, and who is on them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.programs import Exchange, Servers, exchange
from tests.nats_nodes import running
from tests.security.scene import Scene, staged


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """Run a node and a server."""
    directory = tmp_path_factory.mktemp("stage")
    async with running(directory / "node") as nodes, exchange(nodes, directory) as stage:
        server = stage.server()
        await server.prints("serving")
        yield stage

        assert server.is_running, server.printed
        assert await server.terminated() == 0, server.printed
        assert "Traceback" not in server.printed, server.printed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wide_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """Run three nodes and two servers."""
    directory = tmp_path_factory.mktemp("wide-stage")
    async with running(directory / "nodes", count=3) as nodes, exchange(nodes, directory) as stage:
        servers = Servers(stage)
        servers.start("server-1", "server-2")
        for name in servers.running:
            await servers[name].prints("serving")
        yield stage

        for name in ("server-1", "server-2"):
            assert await servers[name].terminated() == 0, servers[name].printed


@pytest.fixture
async def scene(stage: Exchange, market: str) -> AsyncIterator[Scene]:
    """Have alice trade in a market of the one node, and bob sit beside her."""
    async with staged(stage, market) as scene:
        yield scene


@pytest.fixture
async def wide_scene(wide_stage: Exchange, market: str) -> AsyncIterator[Scene]:
    """Have alice trade in a market of three nodes, and bob sit at another node."""
    async with staged(wide_stage, market, bob_at=1) as scene:
        yield scene
