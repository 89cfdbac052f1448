"""An exchange that lives as long as the session, for tests that only trade on it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.programs import Exchange, exchange
from tests.nats_nodes import running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def venue(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """Run a node of its own, since a server holds every market that its node knows, and a server
    that takes a snapshot of each market after 20 commits."""
    directory = tmp_path_factory.mktemp("venue")
    async with running(directory / "node") as nodes, exchange(nodes, directory) as venue:
        server = venue.server("--snapshot-commits", "20")
        await server.prints("serving")
        yield venue

        assert await server.terminated() == 0, server.printed
