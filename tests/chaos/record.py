"""Everything that peers send and hear, noted where it passes: a history, as the checker reads it.

Between a peer's sender and its connection stands `Watched`, so that each copy is seen as it is on
the wire, those too that the sender sends by itself. Knows nothing of why anything is sent.
"""

import time
from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from dex_client.link import Link
from dex_runtime.messaging import NoResponder
from tests.checker.history import NO_RESPONDER, Asked, Belief, Copy, Json, Sent, answers_in

_BELIEFS: Final = get_args(Belief)
"""What a peer may come to believe of a command, by what is left of it when it is sent once more:
that nobody took the new copies says nothing of the old ones."""

RECORDED: Final = frozenset(("status", "book", "order", "orders", "trades"))
"""Queries that are noted. Snapshots and pages of the log are what replicas are built from, and
those tell in the end where they stand."""


class Record:
    """What one process of peers has seen."""

    def __init__(self, on_receipt: Callable[[str, float], None]) -> None:
        """Begin; on_receipt is told the market and the time of every answer but `retry`."""
        self.sent: list[Sent] = []
        self.asked: list[Asked] = []
        self._on_receipt = on_receipt
        self._known: dict[tuple[str, str, bytes], Sent] = {}

    def begin(self, market: str, peer: str, command: Json, at: float) -> Copy:
        """Note that a copy of a command is sent."""
        copy = Copy(sent=at)
        self._sent(market, peer, command).copies.append(copy)
        return copy

    def answered(self, market: str, copies: list[Copy], reply: Any, at: float) -> None:
        """Note what came back for the copies of a request."""
        for copy, answer in zip(copies, answers_in(reply, len(copies)), strict=True):
            copy.ended, copy.answer = at, answer
            if answer.get("status") != "retry":
                self._on_receipt(market, at)

    def believe(self, market: str, peer: str, command: Json, belief: Belief) -> None:
        """Note what became of a command, as its peer sees it, if it was ever sent."""
        sent = self._known.get(_key(market, peer, command))
        if sent is None:
            return
        sent.believed = max(sent.believed, belief, key=_BELIEFS.index)

    def _sent(self, market: str, peer: str, command: Json) -> Sent:
        key = _key(market, peer, command)
        sent = self._known.get(key)
        if sent is None:
            sent = self._known[key] = Sent(market, peer, command)
            self.sent.append(sent)
        return sent


def _key(market: str, peer: str, command: Json) -> tuple[str, str, bytes]:
    # The same id with other content is another command.
    return market, peer, msgspec.json.encode(command, order="sorted")


class Watched:
    """A link that is watched; a `Channel`."""

    def __init__(self, link: Link, record: Record) -> None:
        """Note what passes in a record."""
        self._link = link
        self._record = record

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send a request and wait for its reply."""
        _, kind, market, *rest = subject.split(".")
        if kind == "orders":
            return await self._command(market, rest[0], subject, payload, timeout_s)
        what, peer = rest
        sent = time.monotonic()
        reply = await self._link.request(subject, payload, timeout_s=timeout_s)
        if what in RECORDED:
            request, answer = msgspec.json.decode(payload), msgspec.json.decode(reply)
            if answer.get("status") != "retry":
                self._record.asked.append(
                    Asked(market, peer, what, request, sent, time.monotonic(), answer)
                )
        return reply

    async def _command(
        self, market: str, peer: str, subject: str, payload: bytes, timeout_s: float
    ) -> bytes:
        commands = msgspec.json.decode(payload)
        if not isinstance(commands, list):
            commands = [commands]
        now = time.monotonic()
        copies = [self._record.begin(market, peer, command, now) for command in commands]
        try:
            reply = await self._link.request(subject, payload, timeout_s=timeout_s)
        except NoResponder:
            now = time.monotonic()
            for copy in copies:
                copy.ended, copy.answer = now, NO_RESPONDER
            raise
        self._record.answered(market, copies, msgspec.json.decode(reply), time.monotonic())
        return reply
