"""Queries about the state, waiting until the state is as new as they ask for.

Answers are bounded in number and bytes between two looks at the world, and peers take turns: one
query of each is answered, then the next of each. Knows nothing of who may be told what is not
stored yet: whoever asks for the answers sees to that.
"""

from collections.abc import Iterator
from itertools import zip_longest

from msgspec import Struct

from dex_engine import Market
from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.reasons import RetryReason
from dex_protocol.receipts import Receipt, retry
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
        # By peer, oldest first; the peer whose turn it is first.
        self._asked: dict[str, list[Asked]] = {}
        self._count = 0

    def ask(self, asked: Asked) -> list[Effect]:
        """Put a query into the queue."""
        if len(self._asked.get(asked.peer, ())) >= limits.PEER_QUERIES_COUNT_MAX:
            return [
                Send(
                    asked.reply_to,
                    encode(too_many_of(asked.peer, count_max=limits.PEER_QUERIES_COUNT_MAX)),
                )
            ]
        if self._count >= limits.WAITING_QUERIES_COUNT_MAX:
            return [Send(asked.reply_to, encode(retry(RetryReason.busy)))]
        self._asked.setdefault(asked.peer, []).append(asked)
        self._count += 1
        return []

    def answer(
        self,
        market: Market | None,
        now: Instant,
        *,
        bytes_max: int,
        count_max: int = limits.WAITING_QUERIES_COUNT_MAX,
    ) -> tuple[list[Told], list[Effect]]:
        """Answer what the state can answer now: one query of each peer, then the next of each.

        Args:
            market: The state, just after a commit; None when there is none to tell of.
            now: The time.
            bytes_max: How many bytes of answers there is room for now; one may exceed it.
            count_max: How many answers there is room for now.

        Returns:
            The answers, true as of the market's sequence, and what is sent back at once.
        """
        self.has_more_to_tell = False
        told: list[Told] = []
        given_up: list[Effect] = []
        if not self._asked:
            return told, given_up
        told_bytes = 0
        still: dict[str, list[Asked]] = {}
        served: set[str] = set()
        for asked in self._in_turn():
            if market is not None and asked.query.min_sequence <= market.sequence:
                if told_bytes >= bytes_max or len(told) >= count_max:
                    # Somebody makes room, and asks again.
                    still.setdefault(asked.peer, []).append(asked)
                elif (
                    len(told) >= limits.TOLD_QUERIES_COUNT_MAX
                    or told_bytes >= limits.TOLD_BYTES_MAX
                ):
                    self.has_more_to_tell = True
                    still.setdefault(asked.peer, []).append(asked)
                else:
                    view = views.answer(market, asked.query, peer=asked.peer, server=self._server)
                    told.append(Told(asked.reply_to, encode(view)))
                    told_bytes += len(told[-1].payload)
                    served.add(asked.peer)
            elif now.monotonic - asked.arrived < limits.MIN_SEQUENCE_WAIT_US:
                still.setdefault(asked.peer, []).append(asked)
            else:
                given_up.append(Send(asked.reply_to, encode(retry(RetryReason.unavailable))))
        self._count -= len(told) + len(given_up)
        # Who was told something is last the next time.
        self._asked = dict(sorted(still.items(), key=lambda item: item[0] in served))
        return told, given_up

    def _in_turn(self) -> Iterator[Asked]:
        for each in zip_longest(*self._asked.values()):
            yield from (asked for asked in each if asked is not None)

    def send_back(self) -> list[Effect]:
        """Answer `retry` to all, and empty the queue."""
        self.has_more_to_tell = False
        again = encode(retry(RetryReason.unavailable))
        sent: list[Effect] = [Send(asked.reply_to, again) for asked in self._in_turn()]
        self._asked.clear()
        self._count = 0
        return sent


def too_many_of(peer: str, *, count_max: int) -> Receipt:
    """Answer a query of a peer that has as many waiting as it may."""
    return retry(
        RetryReason.rate_limited,
        f"expected at most {count_max} queries of {peer} waiting at a time, found one more",
    )
