"""What all tests share: hypothesis' profiles, and NATS nodes that live as long as the session.

Tests that hurt nodes start their own; tests that share these use names of their own.
"""

import os
import secrets
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import settings
from nats.aio.client import Client

from dex_runtime.keys import VARIABLE
from tests.nats_nodes import Nodes, connected, doors, running, share_ports

# The suites in these modules are imported by tests, and so are not rewritten by themselves.
pytest.register_assert_rewrite(
    "tests.contracts.lease_contract",
    "tests.contracts.log_contract",
    "tests.contracts.snapshot_contract",
)

# No deadlines: continuous integration is slow by turns, and a test is not wrong for being slow.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, max_examples=300)
settings.register_profile("nightly", deadline=None, print_blob=True, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_configure() -> None:
    """Have all keys looked for where tests keep them, and end by SIGTERM as by Ctrl-C, so that what
    tests started is ended too."""
    os.environ[VARIABLE] = str(doors().keyring.directory)
    # A shell has what it starts in the background ignore SIGINT, and so would all that tests start.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    share_ports()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests: the process that came to one last would be waited for. And nobody
    takes the first of what another has left, so that they do not have a module's fixture twice."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Run one node."""
    async with running(tmp_path_factory.mktemp("node")) as nodes:
        yield nodes


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Run a cluster of three."""
    async with running(tmp_path_factory.mktemp("cluster"), count=3) as nodes:
        yield nodes


@pytest.fixture
async def client(node: Nodes) -> AsyncIterator[Client]:
    """Connect to the one node."""
    async with connected(node) as client:
        yield client


@pytest.fixture
def market() -> str:
    """Name a market, and so a log, that no other test has."""
    return f"T-{secrets.token_hex(6)}"
