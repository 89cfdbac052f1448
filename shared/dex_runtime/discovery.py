"""NATS' service discovery (ADR-32): who serves what here, and what they tell of themselves.

Services answer `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`; `nats service list`, `info` and `stats`
show them. `serving` without that is enough for whoever need not be found.

Theory of operation. `nats.micro` writes the answers and counts the requests, and never touches the
connection: it is given a recorder, which notes what should be subscribed to. The subscriptions
are made here, with a guard before each of its functions.

Quirks of nats-py 2.16.0 that end here:

* It answers to whatever reply subject a request names; a log, or JetStream, would be told.
* Whatever an endpoint's function raises it catches, and sends to who asked. So that function does
  nothing here, and requests are handed over beside it.
* `start()` calls `Client.flush()`, see `connection`; here that sends nothing.
* `stop()` drains, which waits for the node, dead or not. It is never called.
* It calls `datetime.utcnow()`, which warns from Python 3.12 on.

Knows nothing of what is asked nor told. No error of nats-py leaves this module.
"""

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, cast

import msgspec
import nats.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.micro.request import Request
from nats.micro.service import EndpointStats, ServiceConfig
from nats.micro.service import Service as MicroService

from dex_runtime.messaging import NoResponder
from dex_runtime.serving import (
    FORBIDDEN_REPLIES,
    Incoming,
    ReplyAddress,
    Responder,
    Service,
)

OnMessage: TypeAlias = Callable[[Msg], Awaitable[None]]


class Endpoint(Struct, frozen=True):
    """A subject that is served."""

    name: str
    """Letters, digits, `-` and `_`."""
    subject: str
    """It may have wildcards."""
    queue: str
    """The group of servers that share the requests; one of them gets each."""
    on_request: Callable[[Incoming], None]
    """Called for each, in order of arrival; must not block and must not raise."""


class Registration:
    """A service that can be found, until `stop`."""

    def __init__(self, services: list[Service]) -> None:
        """Use `register`."""
        self._services = services

    async def stop(self) -> None:
        """Be found no more, and take in no more requests; see `serving.Service`."""
        services, self._services = self._services, []
        await asyncio.gather(*(service.stop() for service in services))


async def register(
    client: Client,
    *,
    name: str,
    version: str,
    description: str,
    metadata: dict[str, str],
    endpoints: Sequence[Endpoint],
    data: Callable[[str], Any],
) -> Registration:
    """Serve some subjects as a service that can be found.

    It is in force when a round trip is over, see `Responder.settle`.

    Args:
        client: The connection that the requests arrive on.
        name: What all such services are called: letters, digits, `-` and `_`.
        version: As semantic versioning has it: 1.2.3.
        description: A sentence for operators.
        metadata: What else may be worth knowing of this one, for good.
        endpoints: What it serves.
        data: Called with an endpoint's name for each answer to `$SRV.STATS`; gives what is told
            beside the counts, a Struct or what JSON has. Must not block and must not raise.

    Raises:
        NoResponder: the connection is closed.
    """
    recorder = _Recorder(client)
    config = ServiceConfig(
        name=name,
        version=version,
        description=description,
        metadata=metadata,
        stats_handler=lambda stats: _builtins(stats, data),
    )
    # Pythons from 3.12 on warn of datetime.utcnow(). The filters are everybody's, so nothing in
    # this block may wait: the recorder never does.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        service = MicroService(cast("Client", recorder), config)
        await service.start()
    questions = [(subject, _guarded(answer)) for subject, answer in recorder.take()]
    responder = Responder(client)
    services: list[Service] = []
    try:
        for endpoint in endpoints:
            await service.add_endpoint(
                name=endpoint.name,
                subject=endpoint.subject,
                queue_group=endpoint.queue,
                handler=_do_nothing,
                metadata={},
            )
            ((subject, count),) = recorder.take()
            on_message = _handing_over(endpoint, count, responder)
            subscription = await client.subscribe(subject, queue=endpoint.queue, cb=on_message)
            services.append(Service(responder, client, subscription))
        # Last, so that whoever finds it is served.
        for subject, answer in questions:
            subscription = await client.subscribe(subject, cb=answer)
            services.append(Service(responder, client, subscription))
    except nats.errors.Error as error:
        await Registration(services).stop()
        raise NoResponder(f"the connection takes no subscription: {error}") from error
    return Registration(services)


class _Recorder:
    # Stands where `nats.micro` wants the connection.

    def __init__(self, client: Client) -> None:
        # It makes the service's id.
        self._nuid = client._nuid
        self._noted: list[tuple[str, OnMessage]] = []

    async def subscribe(self, subject: str, queue: str = "", *, cb: OnMessage) -> None:
        self._noted.append((subject, cb))

    async def flush(self) -> None:
        return

    def take(self) -> list[tuple[str, OnMessage]]:
        noted, self._noted = self._noted, []
        return noted


def _guarded(answer: OnMessage) -> OnMessage:
    async def on_message(message: Msg) -> None:
        if not message.reply or message.reply.startswith(FORBIDDEN_REPLIES):
            return
        # Nothing below waits, and an answer may be long: a flood of questions would keep the
        # event loop from all else.
        await asyncio.sleep(0)
        try:
            await answer(message)
        except (nats.errors.Error, OSError):
            # It cannot be sent; who asked asks again.
            return

    return on_message


def _handing_over(endpoint: Endpoint, count: OnMessage, responder: Responder) -> OnMessage:
    async def on_message(message: Msg) -> None:
        await count(message)
        endpoint.on_request(
            Incoming(message.subject, message.data, ReplyAddress(responder, message.reply))
        )

    return on_message


async def _do_nothing(_: Request) -> None:
    return


def _builtins(stats: EndpointStats, data: Callable[[str], Any]) -> Any:
    return msgspec.to_builtins(data(stats.name))
