"""What every store of snapshots must do, whatever it is made of.

A class of tests to inherit from, with a fixture `snapshots`; the store may hold other markets'.
"""

import random

import pytest

from dex_protocol.codec import hash_of
from dex_server.replication.ports import Position, SnapshotInvalid, SnapshotName, Snapshots


def named(market: str, sequence: int, data: bytes) -> SnapshotName:
    """Name the bytes of a snapshot after a commit."""
    return SnapshotName(
        market=market,
        position=Position(sequence, hash_of(b"commit %d" % sequence)),
        hash=hash_of(data),
        digest="587c8614dad8f225",
        state=hash_of(b"state after commit %d" % sequence),
    )


class SnapshotContract:
    """The suite."""

    @pytest.mark.parametrize("size", [0, 1, 128 * 1024, 128 * 1024 + 1, 1_000_000])
    async def test_saved_bytes_are_loaded(
        self, snapshots: Snapshots, market: str, size: int
    ) -> None:
        data = random.randbytes(size)
        name = named(market, 7, data)

        await snapshots.save(name, data)

        assert await snapshots.load(name) == data
        assert await snapshots.names(market) == [name]

    async def test_names_are_a_markets_own_newest_first(
        self, snapshots: Snapshots, market: str
    ) -> None:
        saved = [named(market, sequence, b"state") for sequence in (9, 100, 20)]
        for name in (*saved, named(f"{market}-2", 50, b"state")):
            await snapshots.save(name, b"state")

        found = await snapshots.names(market)

        assert [name.position.sequence for name in found] == [100, 20, 9]
        assert set(found) == set(saved)

    async def test_unknown_snapshot_is_invalid(self, snapshots: Snapshots, market: str) -> None:
        assert await snapshots.names(market) == []
        with pytest.raises(SnapshotInvalid):
            await snapshots.load(named(market, 1, b"never saved"))

    async def test_bytes_that_are_not_the_names_are_invalid(
        self, snapshots: Snapshots, market: str
    ) -> None:
        """A store that gives back other bytes is found out by their hash (G17)."""
        name = named(market, 1, b"expected")
        await snapshots.save(name, b"something else")

        with pytest.raises(SnapshotInvalid):
            await snapshots.load(name)

    async def test_saving_again_is_harmless(self, snapshots: Snapshots, market: str) -> None:
        name = named(market, 1, b"state")
        for _ in range(2):
            await snapshots.save(name, b"state")

        assert await snapshots.load(name) == b"state"
        assert await snapshots.names(market) == [name]

    async def test_removed_snapshot_is_gone_and_others_stay(
        self, snapshots: Snapshots, market: str
    ) -> None:
        old, new = named(market, 1, b"old"), named(market, 2, b"new")
        await snapshots.save(old, b"old")
        await snapshots.save(new, b"new")

        for _ in range(2):
            await snapshots.remove(old)

        assert await snapshots.names(market) == [new]
        assert await snapshots.load(new) == b"new"
        with pytest.raises(SnapshotInvalid):
            await snapshots.load(old)

    async def test_removed_snapshot_can_be_saved_again(
        self, snapshots: Snapshots, market: str
    ) -> None:
        name = named(market, 1, b"state")
        await snapshots.save(name, b"state")
        await snapshots.remove(name)

        await snapshots.save(name, b"state")

        assert await snapshots.load(name) == b"state"
