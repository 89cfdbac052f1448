"""A child writes the state as it was when it was forked; the parent learns bytes and hash of it."""

import asyncio
import gzip
import os
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from dex_engine import Market
from dex_protocol.codec import hash_of
from dex_server.replication.ports import Position, SnapshotName
from dex_server.snapshotting import (
    Writing,
    WritingFailed,
    Written,
    fork_hash,
    fork_snapshot,
    name_of,
    pack,
    write,
)
from tests.builders import a_market, buy, sell, send

FORKS = pytest.mark.parametrize("fork", [fork_snapshot, fork_hash])


def a_market_of(count: int) -> Market:
    """Make a market with some resting orders."""
    market = a_market()
    for number in range(1, count + 1):
        send(market, buy("1 @ 100", number))
    return market


async def test_parent_learns_the_packed_state_and_the_hash_of_the_unpacked_one() -> None:
    market = a_market_of(3)

    written = await fork_snapshot(market).result()

    assert gzip.decompress(written.data) == market.snapshot()
    assert written.data == pack(market.snapshot())
    assert written.state == hash_of(market.snapshot())


async def test_hash_alone_is_that_of_the_written_state() -> None:
    market = a_market_of(3)

    assert await fork_hash(market).result() == (await fork_snapshot(market).result()).state


async def test_child_finds_what_writing_in_this_process_finds() -> None:
    market = a_market_of(3)

    assert await fork_snapshot(market).result() == write(market)


async def test_state_is_the_one_of_the_fork_whatever_the_parent_does_meanwhile() -> None:
    market = a_market_of(3)
    before = write(market)
    writing, hashing = fork_snapshot(market), fork_hash(market)
    send(market, sell("2 @ 100", 1, peer="bob"), peer="bob")
    assert write(market) != before

    assert await writing.result() == before
    assert await hashing.result() == before.state


async def test_snapshot_larger_than_a_pipe_arrives_whole() -> None:
    market = a_market(max_peers=4_000)
    for number in range(4_000):
        # Names that no packing makes small.
        peer = hash_of(b"%d" % number)
        send(market, buy("1 @ 100", 1, peer=peer), peer=peer)

    written = await fork_snapshot(market).result()

    assert len(written.data) > 64 * 1024
    assert Market.restore(gzip.decompress(written.data)).snapshot() == market.snapshot()


async def test_equal_states_have_one_hash_however_they_were_reached() -> None:
    leader = a_market()
    follower = Market.restore(leader.snapshot())
    for made, peer in ((buy("2 @ 100", 1), "alice"), (sell("1 @ 100", 1, peer="bob"), "bob")):
        follower.apply_commit(send(leader, made, peer=peer))

    assert await fork_hash(leader).result() == await fork_hash(follower).result()


class _Broken:
    def snapshot(self) -> NoReturn:
        raise RuntimeError("out of memory, say")


class _Slow:
    def snapshot(self) -> NoReturn:
        time.sleep(60)
        raise AssertionError


@FORKS
async def test_child_that_dies_delivers_nothing(fork: Callable[[Any], Writing[Any]]) -> None:
    with pytest.raises(WritingFailed):
        await fork(_Broken()).result()


@FORKS
async def test_child_whose_result_nobody_waits_for_any_more_is_ended(
    fork: Callable[[Any], Writing[Any]],
) -> None:
    writing = fork(_Slow())
    waiting = asyncio.create_task(writing.result())
    await asyncio.sleep(0.05)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ProcessLookupError):
        os.kill(writing._pid, 0)


def test_name_has_the_hashes_of_the_packed_and_of_the_unpacked_bytes() -> None:
    position = Position(7, "0" * 32)
    written = Written(data=b"packed", state=hash_of(b"unpacked"))

    assert name_of("BTC-USD", position, "587c8614dad8f225", written) == SnapshotName(
        market="BTC-USD",
        position=position,
        hash=hash_of(b"packed"),
        digest="587c8614dad8f225",
        state=hash_of(b"unpacked"),
    )
