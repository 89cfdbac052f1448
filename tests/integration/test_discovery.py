"""A service that can be found, on a real node: what it answers, to whom not, and how it ends."""

import asyncio
import secrets
import time
import warnings
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg

from dex_runtime import connection
from dex_runtime.connection import ConnectionOptions
from dex_runtime.discovery import Endpoint, Registration, register
from dex_runtime.messaging import NoResponder, Requester
from dex_runtime.serving import Incoming, Responder
from tests.nats_nodes import Nodes, connected, doors, running

LONG_S = 60.0
QUIET_S = 0.1
VERBS = ("PING", "INFO", "STATS")


class Standing(Struct):
    """What the service tells of itself."""

    roles: list[str]


class Desk:
    """A registered service, and what it was asked."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.name = f"service-{secrets.token_hex(6)}"
        self.subject = f"test.{secrets.token_hex(6)}"
        self.taken: list[Incoming] = []
        self.has_taken = asyncio.Event()
        self.fails = False
        self.registration: Registration | None = None

    async def open(self) -> None:
        """Register."""
        self.registration = await register(
            self.client,
            name=self.name,
            version="1.2.3",
            description="A service of a test.",
            metadata={"server": "server-1"},
            endpoints=[
                Endpoint("query", f"{self.subject}.query.*", "replica", self._take),
                Endpoint("admin", f"{self.subject}.admin.*", "other", self._take),
            ],
            data=lambda endpoint: Standing(["leader"]) if endpoint == "query" else None,
        )
        await Responder(self.client).settle()

    async def close(self) -> None:
        """End it."""
        assert self.registration is not None
        await self.registration.stop()
        await Responder(self.client).settle()

    def _take(self, incoming: Incoming) -> None:
        self.taken.append(incoming)
        self.has_taken.set()
        if self.fails:
            raise ValueError("broken")


@pytest.fixture
async def desk(node: Nodes) -> AsyncIterator[Desk]:
    async with connected(node) as client:
        desk = Desk(client)
        await desk.open()
        yield desk


@pytest.fixture
async def requester(client: Client) -> AsyncIterator[Requester]:
    requester = await Requester.start(client)
    yield requester
    await requester.close()


async def told(requester: Requester, subject: str) -> list[dict[str, Any]]:
    """Ask everybody."""
    replies = await requester.gather(subject, b"", quiet_s=QUIET_S, timeout_s=LONG_S)
    return [msgspec.json.decode(reply.payload) for reply in replies]


async def all_is_done(*clients: Client) -> None:
    """Wait until what was sent has arrived, and what it led to, twice over."""
    for client in (*clients, *clients):
        await Responder(client).settle()
        await asyncio.sleep(0.01)


async def test_service_is_found_by_ping_and_described_by_info(
    desk: Desk, requester: Requester
) -> None:
    (ping,) = await told(requester, f"$SRV.PING.{desk.name}")
    (info,) = await told(requester, f"$SRV.INFO.{desk.name}.{ping['id']}")
    everybody = await told(requester, "$SRV.PING")

    assert ping == {
        "type": "io.nats.micro.v1.ping_response",
        "id": ping["id"],
        "name": desk.name,
        "version": "1.2.3",
        "metadata": {"server": "server-1"},
    }
    assert ping in everybody
    assert info == ping | {
        "type": "io.nats.micro.v1.info_response",
        "description": "A service of a test.",
        "endpoints": [
            {
                "name": "query",
                "subject": f"{desk.subject}.query.*",
                "queue_group": "replica",
                "metadata": {},
            },
            {
                "name": "admin",
                "subject": f"{desk.subject}.admin.*",
                "queue_group": "other",
                "metadata": {},
            },
        ],
    }


async def test_stats_count_requests_and_tell_the_data(
    desk: Desk, client: Client, requester: Requester
) -> None:
    for _ in range(3):
        await client.publish(f"{desk.subject}.query.x", b"")
    await all_is_done(client, desk.client)
    (stats,) = await told(requester, f"$SRV.STATS.{desk.name}")

    assert stats["type"] == "io.nats.micro.v1.stats_response"
    query, admin = stats["endpoints"]
    assert (query["name"], query["num_requests"], query["num_errors"]) == ("query", 3, 0)
    assert query["data"] == {"roles": ["leader"]}
    assert (admin["name"], admin["num_requests"], admin["data"]) == ("admin", 0, None)


async def test_all_services_of_a_name_answer(node: Nodes, desk: Desk, requester: Requester) -> None:
    async with connected(node) as client:
        other = Desk(client)
        other.name = desk.name
        await other.open()
        pings = await told(requester, f"$SRV.PING.{desk.name}")

    assert len({ping["id"] for ping in pings}) == 2


async def test_requests_are_handed_over_and_answered(desk: Desk, requester: Requester) -> None:
    asking = asyncio.create_task(
        requester.request(f"{desk.subject}.admin.halt", b"please", timeout_s=LONG_S)
    )
    async with asyncio.timeout(LONG_S):
        await desk.has_taken.wait()
    (incoming,) = desk.taken
    incoming.reply_to.send(b"done")

    assert (incoming.subject, incoming.payload) == (f"{desk.subject}.admin.halt", b"please")
    assert await asking == b"done"


async def test_request_that_fails_is_told_to_nobody_but_the_connection(
    node: Nodes, client: Client, market: str
) -> None:
    """nats.micro would send the error to who asked, whoever that is."""
    errors: list[str] = []
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    serving = await connection.connect(
        ConnectionOptions(servers=node.urls, name="test", credentials=doors().role("server")),
        on_error=errors.append,
    )
    try:
        desk = Desk(serving)
        desk.fails = True
        await desk.open()
        for reply in (client.new_inbox(), f"dex.log.{market}"):
            await client.subscribe(reply, cb=hear)
            await client.publish(f"{desk.subject}.query.x", b"", reply=reply)
        await client.publish(f"{desk.subject}.query.x", b"")
        await all_is_done(client, serving)
    finally:
        await connection.close(serving)

    assert len(desk.taken) == 3
    assert errors == ["broken"] * 3
    assert heard == []


@pytest.mark.parametrize("reply", ["dex.log.{market}", "$TEST.{market}", ""])
async def test_nothing_is_sent_to_a_forbidden_reply_subject(
    desk: Desk, client: Client, requester: Requester, market: str, reply: str
) -> None:
    """In a log it would be an entry, and an order to JetStream."""
    reply = reply.format(market=market)
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    await client.subscribe(reply or market, cb=hear)
    (ping,) = await told(requester, f"$SRV.PING.{desk.name}")
    for verb in VERBS:
        for of in ("", f".{desk.name}", f".{desk.name}.{ping['id']}"):
            await client.publish(f"$SRV.{verb}{of}", b"", reply=reply)
    await client.publish(f"{desk.subject}.query.x", b"", reply=reply)
    await all_is_done(client, desk.client)
    (incoming,) = desk.taken
    incoming.reply_to.send(b"an answer")
    await all_is_done(desk.client, client)

    assert heard == []
    assert await told(requester, f"$SRV.PING.{desk.name}") == [ping]


async def test_registration_ends(desk: Desk, client: Client, requester: Requester) -> None:
    (ping,) = await told(requester, f"$SRV.PING.{desk.name}")
    await desk.close()

    for verb in VERBS:
        for of in (desk.name, f"{desk.name}.{ping['id']}"):
            with pytest.raises(NoResponder):
                await requester.request(f"$SRV.{verb}.{of}", b"", timeout_s=LONG_S)
    with pytest.raises(NoResponder):
        await requester.request(f"{desk.subject}.query.x", b"", timeout_s=LONG_S)
    await desk.close()


async def test_registration_ends_soon_where_the_node_is_stopped_or_the_connection_closed(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as node, connected(node) as client:
        first, second = Desk(client), Desk(client)
        await first.open()
        await second.open()
        assert first.registration is not None
        assert second.registration is not None
        node.pause()
        before = time.monotonic()
        await first.registration.stop()
        await connection.close(client)
        await second.registration.stop()

    assert time.monotonic() - before < 5


async def test_service_is_found_again_when_its_node_is_back(tmp_path: Path) -> None:
    back = asyncio.Event()
    async with running(tmp_path) as node:
        serving = await connection.connect(
            ConnectionOptions(servers=node.urls, name="test", credentials=doors().role("server")),
            on_reconnected=back.set,
        )
        desk = Desk(serving)
        await desk.open()
        async with asyncio.timeout(LONG_S):
            await node.kill()
            await node.restart()
            await back.wait()
        await Responder(serving).settle()
        async with connected(node) as client:
            requester = await Requester.start(client)
            (ping,) = await told(requester, f"$SRV.PING.{desk.name}")
        await connection.close(serving)

    assert ping["name"] == desk.name


async def test_closed_connection_registers_nothing(node: Nodes) -> None:
    async with connected(node) as client:
        desk = Desk(client)

    with pytest.raises(NoResponder):
        await desk.open()


async def test_registering_neither_warns_nor_keeps_others_from_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """datetime.utcnow() warns from Python 3.12 on, and warnings are errors here."""
    ignored: list[bool] = []

    class Clock(datetime):
        @classmethod
        def utcnow(cls) -> "Clock":
            action, _, category, *_ = warnings.filters[0]
            ignored.append(action == "ignore" and category is DeprecationWarning)
            return cls(2025, 11, 22)

    monkeypatch.setattr("nats.micro.service.datetime", Clock)
    before = list(warnings.filters)
    await Desk(client).open()

    assert ignored == [True, True]
    assert list(warnings.filters) == before
