"""One request to many: all replies that come are kept, and the end comes by silence or by time."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from dex_runtime.messaging import NoReply, NoResponder, Requester
from tests.nats_nodes import Nodes, connected

LONG_S = 60.0
QUIET_S = 0.3
SHORT_S = 0.05


@pytest.fixture
async def requester(client: Client) -> AsyncIterator[Requester]:
    requester = await Requester.start(client)
    yield requester
    await requester.close()


@pytest.fixture
async def service(node: Nodes) -> AsyncIterator[Client]:
    """Connect as somebody else."""
    async with connected(node) as client:
        yield client


async def serve(service: Client, subject: str, *replies: bytes, pause_s: float = 0.0) -> None:
    """Answer each request to a subject with some replies, and some time between them."""

    async def answer(message: Msg) -> None:
        for reply in replies:
            await service.publish(message.reply, reply)
            await asyncio.sleep(pause_s)

    await service.subscribe(subject, cb=answer)
    requester = await Requester.start(service)
    await requester.round_trip(timeout_s=LONG_S)
    await requester.close()


async def test_replies_of_all_are_gathered_until_it_is_quiet(
    requester: Requester, service: Client, market: str
) -> None:
    for number in range(5):
        await serve(service, market, b"%d" % number)
    before = time.monotonic()

    replies = await requester.gather(market, b"", quiet_s=QUIET_S, timeout_s=LONG_S)

    assert sorted(reply.payload for reply in replies) == [b"0", b"1", b"2", b"3", b"4"]
    assert QUIET_S <= time.monotonic() - before < LONG_S
    assert requester.waiting_count == 0


async def test_each_reply_begins_the_quiet_anew(
    requester: Requester, service: Client, market: str
) -> None:
    """Together the pauses are longer than the quiet that ends it."""
    await serve(service, market, *[b"x"] * 8, pause_s=QUIET_S / 4)

    replies = await requester.gather(market, b"", quiet_s=QUIET_S, timeout_s=LONG_S)

    assert len(replies) == 8


async def test_time_ends_replies_that_do_not_end(
    requester: Requester, service: Client, market: str
) -> None:
    await serve(service, market, *[b"x"] * 200, pause_s=0.01)

    replies = await requester.gather(market, b"", quiet_s=LONG_S, timeout_s=QUIET_S)

    assert 0 < len(replies) < 200
    assert requester.waiting_count == 0


async def test_subject_that_nobody_serves_has_no_responder(
    requester: Requester, market: str
) -> None:
    with pytest.raises(NoResponder):
        await requester.gather(market, b"", quiet_s=QUIET_S, timeout_s=LONG_S)

    assert requester.waiting_count == 0


async def test_silent_services_give_no_reply(
    requester: Requester, service: Client, market: str
) -> None:
    await serve(service, market)

    with pytest.raises(NoReply):
        await requester.gather(market, b"", quiet_s=QUIET_S, timeout_s=SHORT_S)

    assert requester.waiting_count == 0


async def test_empty_replies_are_replies(
    requester: Requester, service: Client, market: str
) -> None:
    await serve(service, market, b"", b"")

    replies = await requester.gather(market, b"", quiet_s=SHORT_S, timeout_s=LONG_S)

    assert [reply.payload for reply in replies] == [b"", b""]


async def test_gathering_ends_when_the_requester_is_closed(
    requester: Requester, service: Client, market: str
) -> None:
    await serve(service, market)
    gathering = asyncio.create_task(
        requester.gather(market, b"", quiet_s=QUIET_S, timeout_s=LONG_S)
    )
    await asyncio.sleep(0)
    await requester.close()

    with pytest.raises(NoReply):
        await gathering
