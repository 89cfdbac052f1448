"""Requests: each gets its own reply, and the two ways to get none are told apart."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from dex_runtime.messaging import NoReply, NoResponder, Requester
from tests.nats_nodes import Nodes, connected

LONG_S = 60.0
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


async def ready(client: Client) -> None:
    """Wait until a connection's subscriptions are in force."""
    requester = await Requester.start(client)
    await requester.round_trip(timeout_s=LONG_S)
    await requester.close()


async def serve_echo(service: Client, subject: str) -> None:
    async def echo(message: Msg) -> None:
        await service.publish(message.reply, message.data)

    await service.subscribe(subject, cb=echo)
    await ready(service)


async def test_subject_that_nobody_serves_has_no_responder(requester: Requester) -> None:
    with pytest.raises(NoResponder):
        await requester.request("test.nobody", b"", timeout_s=LONG_S)


async def test_silent_service_gives_no_reply(
    requester: Requester, service: Client, market: str
) -> None:
    await service.subscribe(market)
    await ready(service)

    with pytest.raises(NoReply):
        await requester.request(market, b"", timeout_s=SHORT_S)


async def test_each_of_many_requests_gets_its_own_reply(
    requester: Requester, service: Client, market: str
) -> None:
    await serve_echo(service, market)

    replies = await asyncio.gather(
        *(requester.request(market, b"%d" % number, timeout_s=LONG_S) for number in range(3_000))
    )

    assert replies == [b"%d" % number for number in range(3_000)]


async def test_nothing_waits_when_all_is_answered_or_given_up(
    requester: Requester, service: Client, market: str
) -> None:
    await serve_echo(service, market)
    await service.subscribe(f"{market}.silent")
    await ready(service)
    canceled = asyncio.create_task(requester.request(f"{market}.silent", b"", timeout_s=LONG_S))
    await asyncio.sleep(0)
    canceled.cancel()

    await asyncio.gather(
        requester.request(market, b"", timeout_s=LONG_S),
        requester.request(f"{market}.silent", b"", timeout_s=SHORT_S),
        requester.request("test.nobody", b"", timeout_s=LONG_S),
        canceled,
        return_exceptions=True,
    )

    assert requester.waiting_count == 0


async def test_late_and_double_replies_are_dropped(
    requester: Requester, service: Client, market: str
) -> None:
    inboxes: list[str] = []

    async def answer_also_the_one_before(message: Msg) -> None:
        inboxes.append(message.reply)
        for inbox in inboxes:
            await service.publish(inbox, message.data)
            await service.publish(inbox, message.data)

    await service.subscribe(market, cb=answer_also_the_one_before)
    await ready(service)

    replies = [await requester.request(market, b"%d" % n, timeout_s=LONG_S) for n in range(5)]

    assert replies == [b"0", b"1", b"2", b"3", b"4"]


async def test_reply_for_a_request_that_was_never_made_is_dropped(
    requester: Requester, service: Client, market: str
) -> None:
    async def answer_others_first(message: Msg) -> None:
        inbox = message.reply.rpartition(".")[0]
        for suffix in ("0", "999999", "x"):
            await service.publish(f"{inbox}.{suffix}", b"not asked")
        await service.publish(message.reply, b"asked")

    await service.subscribe(market, cb=answer_others_first)
    await ready(service)

    assert await requester.request(market, b"", timeout_s=LONG_S) == b"asked"


async def test_inbox_of_each_requester_is_its_own_and_long_enough_not_to_be_guessed(
    client: Client, service: Client, market: str
) -> None:
    """Who could guess it could answer in another's place, within one account (G20)."""
    inboxes: list[str] = []

    async def note(message: Msg) -> None:
        inboxes.append(message.reply.rpartition(".")[0])
        await service.publish(message.reply, b"")

    await service.subscribe(market, cb=note)
    await ready(service)
    for _ in range(2):
        requester = await Requester.start(client)
        await requester.request(market, b"", timeout_s=LONG_S)
        await requester.close()

    first, second = (inbox.rpartition(".")[2] for inbox in inboxes)
    assert first != second
    assert len(bytes.fromhex(first)) == 16


async def test_answer_that_only_looks_like_no_responder_is_an_answer(
    requester: Requester, service: Client, market: str
) -> None:
    """What has a payload came from somebody."""

    async def answer(message: Msg) -> None:
        await service.publish(message.reply, b"here", headers={"Status": "503"})

    await service.subscribe(market, cb=answer)
    await ready(service)

    assert await requester.request(market, b"", timeout_s=LONG_S) == b"here"


async def test_headers_arrive(requester: Requester, service: Client, market: str) -> None:
    async def answer(message: Msg) -> None:
        await service.publish(message.reply, (message.headers or {})["Colour"].encode())

    await service.subscribe(market, cb=answer)
    await ready(service)

    reply = await requester.request(market, b"", timeout_s=LONG_S, headers={"Colour": "blue"})

    assert reply == b"blue"


async def test_closed_requester_answers_those_who_wait_and_those_who_come(
    client: Client, service: Client, market: str
) -> None:
    await service.subscribe(market)
    await ready(service)
    requester = await Requester.start(client)
    waiting = asyncio.create_task(requester.request(market, b"", timeout_s=LONG_S))
    await asyncio.sleep(0)

    await requester.close()

    with pytest.raises(NoReply):
        await waiting
    with pytest.raises(NoResponder):
        await requester.request(market, b"", timeout_s=LONG_S)


async def test_closed_connection_delivers_to_nobody(node: Nodes) -> None:
    async with connected(node) as client:
        requester = await Requester.start(client)

    with pytest.raises(NoResponder):
        await requester.request("test.nobody", b"", timeout_s=LONG_S)


async def test_what_can_never_be_sent_is_the_callers_mistake(
    client: Client, requester: Requester
) -> None:
    with pytest.raises(ValueError, match="at most"):
        await requester.request("test.a", bytes(client.max_payload + 1), timeout_s=LONG_S)
    with pytest.raises(ValueError, match="cannot be sent"):
        await requester.request("test a", b"", timeout_s=LONG_S)
