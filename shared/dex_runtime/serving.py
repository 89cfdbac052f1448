"""Requests taken in, and their answers sent out, over one connection.

The other side of `messaging`. An answer that cannot be sent is dropped: who asked gets none, asks
again, and is told then. Knows nothing of what is asked. No error of nats-py leaves this module.
"""

from collections.abc import Callable
from typing import Final

import nats.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from dex_runtime.connection import call_directly, outbox_of
from dex_runtime.messaging import NoReply, NoResponder, Requester
from dex_runtime.outbox import is_subject

FORBIDDEN_REPLIES: Final = ("dex.", "$")
"""How no subject begins that an answer goes to. Who asks chooses where the answer goes, but it is
sent with the rights of who answers: in a log, an answer would be an entry, and an order to
JetStream to purge it."""


SETTLE_TIMEOUT_S: Final = 1.0
"""How long a node may take to know a subscription: a round trip, 1 ms, or it is gone."""


class Responder:
    """Answers on one connection."""

    def __init__(self, client: Client) -> None:
        """Take the connection that the requests arrive on."""
        self._client = client
        self._outbox = outbox_of(client)

    async def serve(
        self, subject: str, *, queue: str, on_request: Callable[["Incoming"], None]
    ) -> "Service":
        """Take in the requests to a subject, which may have wildcards.

        Args:
            subject: What to serve.
            queue: The group of servers that share the requests; one of them gets each.
            on_request: Called for each, in order of arrival; must not block and must not raise.

        Raises:
            NoResponder: the connection is closed.
        """

        def on_direct(subject: bytes, reply: bytes, payload: bytes) -> None:
            # What is no UTF-8 names no peer, and no place for an answer.
            address = ReplyAddress(self, reply.decode(errors="replace"))
            on_request(Incoming(subject.decode(errors="replace"), payload, address))

        async def on_message(message: Msg) -> None:
            # Arrived before the next line but one was reached.
            on_request(Incoming(message.subject, message.data, ReplyAddress(self, message.reply)))

        # What is taken here goes on at once to queues that are bounded.
        try:
            subscription = await self._client.subscribe(subject, queue=queue, cb=on_message)
        except nats.errors.Error as error:
            raise NoResponder(f"the connection takes no subscription: {error}") from error
        call_directly(self._client, subscription, on_direct, takes_headers=True)
        return Service(self, self._client, subscription)

    async def settle(self) -> None:
        """Wait until the node knows what is served on this connection, or cannot be asked."""
        try:
            requester = await Requester.start(self._client)
            try:
                await requester.round_trip(timeout_s=SETTLE_TIMEOUT_S)
            finally:
                await requester.close()
        except (NoResponder, NoReply):
            # Subscriptions are repeated when the connection is there again.
            return

    def send(self, subject: str, payload: bytes) -> None:
        """Send an answer when this turn of the loop is over, if the connection is there then."""
        # The node may have been told another limit than servers count with: it would end the
        # connection.
        if is_subject(subject) and len(payload) <= self._client.max_payload:
            self._outbox.put(subject.encode(), payload)

    def flush(self) -> None:
        """Send what is to be sent at once, not only when this turn of the loop is over."""
        self._outbox.flush()


class ReplyAddress(Struct, frozen=True, gc=False):
    """Where the answer to one request goes; nowhere, when its sender wants none or may not."""

    responder: Responder
    subject: str

    def send(self, payload: bytes) -> None:
        """Send the answer when this turn of the loop is over, if the connection is there then."""
        if not self.subject.startswith(FORBIDDEN_REPLIES):
            self.responder.send(self.subject, payload)


class Incoming(Struct, frozen=True, gc=False):
    """A request as it arrived."""

    subject: str
    payload: bytes
    reply_to: ReplyAddress


class Service:
    """A subject being served, until `stop`."""

    def __init__(self, responder: Responder, client: Client, subscription: Subscription) -> None:
        """Use `Responder.serve`."""
        self._responder = responder
        self._client = client
        self._subscription = subscription

    async def stop(self) -> None:
        """Have the node send no more requests; what it sent already still comes in before the end.

        The library's own `unsubscribe` (nats-py 2.16.0) drops what has arrived and waits for its
        turn, and what is on its way; who sent that would wait for an answer in vain.
        """
        try:
            if self._client.is_connected:
                await self._client._send_unsubscribe(self._subscription._id)
                await self._responder.settle()
            await self._subscription.unsubscribe()
        except (nats.errors.Error, OSError):
            # The connection is closed, and the subscription with it.
            return
