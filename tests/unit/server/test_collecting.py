"""What a long collection found in use is not walked again."""

import gc
from collections.abc import Iterator

import pytest

from dex_server.collecting import SettingAside


@pytest.fixture(autouse=True)
def nothing_stays_set_aside() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_long_collection_sets_aside_what_it_found_in_use() -> None:
    watched = SettingAside(long_s=0.0)
    before = gc.get_freeze_count()
    held: list[list[int]] = [[] for _ in range(1_000)]

    watched("start", {})
    watched("stop", {})

    assert gc.get_freeze_count() >= before + len(held)


def test_short_collection_sets_nothing_aside() -> None:
    watched = SettingAside(long_s=60.0)
    before = gc.get_freeze_count()

    watched("start", {})
    watched("stop", {})

    assert gc.get_freeze_count() == before
