"""An exchange for tests that only trade on it.

It ends with its module: each market that tests leave on it costs it work as long as it lives.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.programs import Exchange, exchange
from tests.nats_nodes import running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def venue(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """Run a node of its own, since a server holds every market that its node knows, and a server
    that takes a snapshot of each market after 20 commits."""
    directory = tmp_path_factory.mktemp("venue")
    async with running(directory / "node") as nodes, exchange(nodes, directory) as venue:
        server = venue.server("--snapshot-commits", "20")
        await server.prints("serving")
        yield venue

        assert await server.terminated() == 0, server.printed
