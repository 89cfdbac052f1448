"""What is broadcast on a subject, taken in over one connection.

The third side of NATS beside `messaging` and `serving`. What is broadcast may be lost: while the
connection is down, and where the listener is too slow, without a word. Who must miss nothing finds
that out by what is in the messages. No error of nats-py leaves this module.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from dex_protocol import limits
from dex_runtime.messaging import NoResponder

_SEQUENCE: Final = "Nats-Sequence"
"""The header that a stream adds to what it republishes (NATS ADR-28)."""

_A_SEQUENCE: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
"""What one looks like: NATS counts with 64 bits."""


class Listener:
    """A subject being listened to, until `stop`; through reconnections too."""

    def __init__(self, subscription: Subscription) -> None:
        """Use `start`."""
        self._subscription = subscription

    @classmethod
    async def start(
        cls, client: Client, subject: str, *, on_message: Callable[[bytes], bool]
    ) -> "Listener":
        """Listen to a subject.

        Args:
            client: An open connection.
            subject: What to listen to.
            on_message: Called with each payload, in order of arrival; must not block and must not
                raise. It tells whether anybody still listens; when not, this stops.

        Raises:
            NoResponder: the connection is closed.
        """

        async def on_arrival(message: Msg) -> None:
            if not on_message(message.data):
                await listener.stop()

        listener = await cls._start(client, subject, on_arrival)
        return listener

    @classmethod
    async def start_stored(
        cls, client: Client, subject: str, *, on_message: Callable[[int, bytes], None]
    ) -> "Listener":
        """Listen to what a stream broadcasts when it is stored.

        Args:
            client: An open connection.
            subject: Where the stream republishes.
            on_message: Called with each sequence and payload, in order of arrival; must not block
                and must not raise. What somebody else publishes there is passed over.

        Raises:
            NoResponder: the connection is closed.
        """

        async def on_arrival(message: Msg) -> None:
            sequence = (message.headers or {}).get(_SEQUENCE, "")
            if _A_SEQUENCE.fullmatch(sequence):
                on_message(int(sequence), message.data)

        return await cls._start(client, subject, on_arrival)

    @classmethod
    async def _start(
        cls, client: Client, subject: str, on_arrival: Callable[[Msg], Awaitable[None]]
    ) -> "Listener":
        try:
            subscription = await client.subscribe(
                subject,
                cb=on_arrival,
                # NB: messages wait there only until their callback's turn, but in one turn of the
                # loop as many arrive as the socket held. The default is eight times as much.
                pending_msgs_limit=limits.HEARD_COMMITS_COUNT_MAX,
                pending_bytes_limit=limits.HEARD_BYTES_MAX,
            )
        except nats.errors.Error as error:
            raise NoResponder(f"the connection takes no subscription: {error}") from error
        return cls(subscription)

    async def stop(self) -> None:
        """Take in no more; what has arrived and was not yet handed over is dropped."""
        try:
            await self._subscription.unsubscribe()
        except nats.errors.Error:
            # The connection is closed, and the subscription with it; or it was stopped before.
            return
