"""Queries about the state, waiting until the state is as new as they ask for.

Answers are bounded in number and bytes between two looks at the world. Knows nothing of who may be
told what is not stored yet: whoever asks for the answers sees to that.
"""

from collections import deque

from msgspec import Struct

from dex_engine import Market
from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.reasons import RetryReason
from dex_protocol.receipts import retry
from dex_server.replication import views
from dex_server.replication.effects import Asked, Effect, Instant, ReplyTo, Send


class Told(Struct, frozen=True, gc=False):
    """An answer, and who asked."""

    reply_to: ReplyTo
    payload: bytes


class Questions:
    """The queries that wait on one replica.

    Attributes:
        has_more_to_tell: Whether some could be answered at once that were left for the next step,
            so that the world is looked at in between.
    """

    def __init__(self, *, server: str) -> None:
        """Begin with none, to be answered in this server's name."""
        self.has_more_to_tell = False
        self._server = server
        self._asked: deque[Asked] = deque()

    def ask(self, asked: Asked, *, told_count: int = 0) -> list[Effect]:
        """Put a query into the queue; told_count answers wait elsewhere for being sent."""
        if len(self._asked) + told_count >= limits.WAITING_QUERIES_COUNT_MAX:
            return [Send(asked.reply_to, encode(retry(RetryReason.busy)))]
        self._asked.append(asked)
        return []

    def answer(
        self, market: Market | None, now: Instant, *, bytes_max: int
    ) -> tuple[list[Told], list[Effect]]:
        """Answer what the state can answer now, oldest first.

        Args:
            market: The state, just after a commit; None when there is none to tell of.
            now: The time.
            bytes_max: How many bytes of answers there is room for now; one may exceed it.

        Returns:
            The answers, true as of the market's sequence, and what is sent back at once.
        """
        self.has_more_to_tell = False
        told: list[Told] = []
        given_up: list[Effect] = []
        if not self._asked:
            return told, given_up
        told_bytes = 0
        still: deque[Asked] = deque()
        for asked in self._asked:
            if market is not None and asked.query.min_sequence <= market.sequence:
                if told_bytes >= bytes_max:
                    # Somebody makes room, and asks again.
                    still.append(asked)
                elif (
                    len(told) >= limits.TOLD_QUERIES_COUNT_MAX
                    or told_bytes >= limits.TOLD_BYTES_MAX
                ):
                    self.has_more_to_tell = True
                    still.append(asked)
                else:
                    view = views.answer(market, asked.query, peer=asked.peer, server=self._server)
                    told.append(Told(asked.reply_to, encode(view)))
                    told_bytes += len(told[-1].payload)
            elif now.monotonic - asked.arrived < limits.MIN_SEQUENCE_WAIT_US:
                still.append(asked)
            else:
                given_up.append(Send(asked.reply_to, encode(retry(RetryReason.unavailable))))
        self._asked = still
        return told, given_up

    def send_back(self) -> list[Effect]:
        """Answer `retry` to all, and empty the queue."""
        self.has_more_to_tell = False
        again = encode(retry(RetryReason.unavailable))
        sent: list[Effect] = [Send(asked.reply_to, again) for asked in self._asked]
        self._asked.clear()
        return sent
