"""A link passes bytes, holds them, closes, and is slow, as it is told."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from msgspec import Struct

from deploy.nodes import free_ports
from tests.chaos.network import CLOSED, OPEN, LinkState
from tests.chaos.proxy import HOST, WAITING_BYTES_MAX, LinkProxy

NOT_THERE = LinkState(passes_there=False)
NOT_BACK = LinkState(passes_back=False)
HELD = LinkState(passes_there=False, passes_back=False)

SILENCE_S = 0.1
"""How long nothing may come before it counts as held."""


class Ends(Struct):
    """Both ends of a connection: each reads what the other wrote."""

    dialer: asyncio.StreamReader
    dialer_writer: asyncio.StreamWriter
    dialed: asyncio.StreamReader
    dialed_writer: asyncio.StreamWriter


class Bench:
    """A link to a listener that keeps what is connected to it."""

    def __init__(self, port: int, link: LinkProxy) -> None:
        self.port = port
        self.link = link
        self.accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )
        self.writers: list[asyncio.StreamWriter] = []

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        self.writers.append(writer)
        return reader, writer

    async def connect(self) -> Ends:
        dialer, dialer_writer = await self.dial()
        dialed, dialed_writer = await asyncio.wait_for(self.accepted.get(), 5)
        return Ends(dialer, dialer_writer, dialed, dialed_writer)

    async def on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.writers.append(writer)
        self.accepted.put_nowait((reader, writer))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with a_bench() as made:
        yield made


@asynccontextmanager
async def a_bench() -> AsyncIterator[Bench]:
    port, dialed_port = free_ports(2)
    link = LinkProxy(port, dialed_port, random=Random(1))
    made = Bench(port, link)
    server = await asyncio.start_server(made.on_connection, HOST, dialed_port)
    await link.set(OPEN)
    try:
        yield made
    finally:
        link.close()
        server.close()
        for writer in made.writers:
            writer.transport.abort()
        # The sockets are closed in the next turns of the loop.
        await asyncio.sleep(0.01)


async def comes(reader: asyncio.StreamReader, expected: bytes) -> bool:
    return await asyncio.wait_for(reader.readexactly(len(expected)), 5) == expected


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), SILENCE_S)
    except TimeoutError:
        return True
    return False


async def test_open_link_passes_bytes_both_ways(bench: Bench) -> None:
    ends = await bench.connect()

    ends.dialer_writer.write(b"there")
    assert await comes(ends.dialed, b"there")
    ends.dialed_writer.write(b"back")
    assert await comes(ends.dialer, b"back")


async def test_end_of_a_connection_passes_too(bench: Bench) -> None:
    ends = await bench.connect()

    ends.dialer_writer.write(b"last")
    ends.dialer_writer.close()

    assert await asyncio.wait_for(ends.dialed.read(), 5) == b"last"
    ends.dialed_writer.close()


async def test_held_bytes_come_in_order_when_the_link_is_open_again(bench: Bench) -> None:
    ends = await bench.connect()
    await bench.link.set(HELD)
    ends.dialer_writer.write(b"one ")
    ends.dialed_writer.write(b"un ")
    assert await is_silent(ends.dialed)
    assert await is_silent(ends.dialer)
    ends.dialer_writer.write(b"two")
    ends.dialed_writer.write(b"deux")

    await bench.link.set(OPEN)

    assert await comes(ends.dialed, b"one two")
    assert await comes(ends.dialer, b"un deux")


@pytest.mark.parametrize("is_there", [True, False])
async def test_link_cut_one_way_passes_the_other(bench: Bench, is_there: bool) -> None:
    ends = await bench.connect()
    await bench.link.set(NOT_THERE if is_there else NOT_BACK)
    held_writer, held = ends.dialer_writer, ends.dialed
    free_writer, free = ends.dialed_writer, ends.dialer
    if not is_there:
        held_writer, held, free_writer, free = free_writer, free, held_writer, held

    held_writer.write(b"held")
    free_writer.write(b"free")

    assert await comes(free, b"free")
    assert await is_silent(held)
    await bench.link.set(OPEN)
    assert await comes(held, b"held")


async def test_nobody_hears_of_an_end_beyond_a_cut(bench: Bench) -> None:
    ends = await bench.connect()
    await bench.link.set(HELD)
    ends.dialed_writer.write(b"last")
    ends.dialed_writer.close()
    assert await is_silent(ends.dialer)

    await bench.link.set(OPEN)

    assert await asyncio.wait_for(ends.dialer.read(), 5) == b"last"


async def test_connection_made_during_a_cut_is_passed_on_afterwards(bench: Bench) -> None:
    await bench.link.set(HELD)
    _, writer = await bench.dial()
    writer.write(b"hello")
    await asyncio.sleep(SILENCE_S)
    assert bench.accepted.empty()

    await bench.link.set(OPEN)

    dialed, _ = await asyncio.wait_for(bench.accepted.get(), 5)
    assert await comes(dialed, b"hello")


async def test_connection_given_up_during_a_cut_is_forgotten(bench: Bench) -> None:
    await bench.link.set(HELD)
    _, writer = await bench.dial()
    writer.close()
    await asyncio.sleep(SILENCE_S)

    assert not bench.link.connections
    await bench.link.set(OPEN)
    await asyncio.sleep(SILENCE_S)
    assert bench.accepted.empty()


async def test_closed_link_ends_connections_and_refuses_new_ones(bench: Bench) -> None:
    ends = await bench.connect()

    await bench.link.set(CLOSED)

    with pytest.raises(ConnectionError):
        await bench.dial()
    for reader in (ends.dialer, ends.dialed):
        # Reset, or ended: it depends on what was under way.
        try:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        except ConnectionResetError:
            continue
    await bench.link.set(OPEN)
    again = await bench.connect()
    again.dialer_writer.write(b"again")
    assert await comes(again.dialed, b"again")


async def test_slow_link_delays_and_keeps_the_order(bench: Bench) -> None:
    ends = await bench.connect()
    await bench.link.set(LinkState(delay_ms=100, jitter_ms=50))
    began = time.monotonic()
    for number in range(10):
        ends.dialer_writer.write(b"%d" % number)
        await asyncio.sleep(0.005)

    assert await comes(ends.dialed, b"0123456789")
    assert time.monotonic() - began >= 0.1


async def test_whoever_sends_into_a_cut_has_to_wait(bench: Bench) -> None:
    ends = await bench.connect()
    await bench.link.set(HELD)
    size = 16 * WAITING_BYTES_MAX
    ends.dialer_writer.write(bytes(size))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ends.dialer_writer.drain(), 0.3)

    await bench.link.set(OPEN)
    received = 0
    while received < size:
        received += len(await asyncio.wait_for(ends.dialed.read(65_536), 5))
    assert received == size


async def test_link_to_nobody_ends_the_connection() -> None:
    port, nobody = free_ports(2)
    link = LinkProxy(port, nobody, random=Random(1))
    await link.set(OPEN)
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        assert await asyncio.wait_for(reader.read(), 5) == b""
    finally:
        writer.transport.abort()
        link.close()
        await asyncio.sleep(0.01)
