"""A market being led, whose log is followed and checked after every test."""

from collections.abc import Iterator

import pytest

from tests.unit.server.harness import Harness, a_leader


@pytest.fixture
def leader() -> Iterator[Harness]:
    """Lead a market whose log has one commit."""
    harness = a_leader()
    yield harness
    harness.check()
