"""Commands on their way: each is sent, always with the same id, until it has an outcome.

Theory of operation. What is sent again, and what is known in the end, is decided in `settling`. A
market is asked once, at its first use, which of the peer's ids it knows, since ids must be above
those. And no command leaves while its id would be too far ahead of the oldest one that still waits
for its outcome: only so many outcomes are remembered.

Knows nothing of how commands come to be, nor what becomes of outcomes.
"""

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from msgspec import UNSET, structs

from dex_client.errors import OutcomeUnknown, Unavailable
from dex_client.ids import Ids, Window
from dex_client.queries import Channel, Queries
from dex_client.retry import Policy
from dex_client.settling import Settling, Unanswered, not_sent
from dex_protocol import subjects
from dex_protocol.commands import Command, Submit, own_id
from dex_protocol.ids import Pair, make_pair, parse_id
from dex_protocol.limits import BATCH_COUNT_MAX
from dex_protocol.receipts import Receipt
from dex_runtime.messaging import Closed, NoReply, NoResponder

_NO_PAIR: Final = Pair(0)


class _Lane:
    # What one market must know of the peer before it can be sent to, and how much is under way.
    def __init__(self) -> None:
        self.window = Window()
        self.has_room = asyncio.Event()
        self.beginning = asyncio.Lock()
        self.has_begun = False


class Sender:
    """Sends one peer's commands to any market."""

    def __init__(self, channel: Channel, peer: str, *, random: Random, known: set[str]) -> None:
        """Send over a channel; `known` is what `Queries` shares."""
        self._channel = channel
        self._known = known
        self._peer = peer
        self._random = random
        self._ids = Ids(peer, above=_NO_PAIR)
        self._lanes: dict[str, _Lane] = {}

    async def send(
        self, market: str, commands: Sequence[Command], policy: Policy, *, as_batch: bool
    ) -> list[Receipt]:
        """Send commands in order, and give each one's receipt.

        A command without an id gets the next one; one that has an id keeps it.

        Args:
            market: Where to.
            commands: One or more; requests are cut to what they may carry, one after the other.
            policy: How long, over all of them.
            as_batch: Whether they go as an array. What is not executed by the deadline, when others
                are, is then answered `retry`.

        Raises:
            Unavailable: no command was executed.
            OutcomeUnknown: some may have been.
            ProtocolMismatch: a reply is not what it should be.
        """
        deadline = time.monotonic() + policy.deadline_s
        lane = self._lanes.setdefault(market, _Lane())
        refusal = await self._begin(lane, market, policy)
        if refusal is not None:
            return [refusal] * len(commands)
        named: list[Command] = []
        receipts: list[Receipt | None] = []
        is_forgotten = False
        for first in range(0, len(commands), BATCH_COUNT_MAX):
            chunk = commands[first : first + BATCH_COUNT_MAX]
            left = structs.replace(policy, deadline_s=deadline - time.monotonic())
            if not await self._has_room(lane, len(chunk), left.deadline_s):
                break
            index = lane.window.sent(len(chunk))
            try:
                chunk = [self._named(command) for command in chunk]
                named += chunk
                settling = Settling(
                    chunk, left, self._random, as_batch=as_batch, now=time.monotonic()
                )
                answered, is_forgotten = await self._settle(market, settling)
            finally:
                lane.window.answered(index, len(chunk))
                lane.has_room.set()
            receipts += answered
            if any(receipt is None or receipt.status == "retry" for receipt in answered):
                break
        # What comes after a request without all its outcomes was never sent.
        unsent = commands[len(receipts) :]
        receipts += [not_sent(command) for command in unsent]
        if None in receipts:
            raise OutcomeUnknown(
                market,
                [*named, *unsent],
                receipts,
                deadline_s=policy.deadline_s,
                is_forgotten=is_forgotten,
            )
        known = [receipt for receipt in receipts if receipt is not None]
        if all(receipt.status == "retry" for receipt in known):
            raise Unavailable(f"a leader of {market}", deadline_s=policy.deadline_s)
        return known

    async def settle(self, error: OutcomeUnknown, policy: Policy) -> list[Receipt]:
        """Send those commands again, with their own ids, whose outcome is unknown.

        Returns:
            The receipts of all commands of the failed call, in its order.

        Raises:
            OutcomeUnknown: it still is.
        """
        receipts = list(error.receipts)
        places = [place for place, receipt in enumerate(receipts) if receipt is None]
        is_forgotten = False
        deadline = time.monotonic() + policy.deadline_s
        for first in range(0, len(places), BATCH_COUNT_MAX):
            some = places[first : first + BATCH_COUNT_MAX]
            left = structs.replace(policy, deadline_s=deadline - time.monotonic())
            settling = Settling(
                [error.commands[place] for place in some],
                left,
                self._random,
                as_batch=len(some) > 1,
                # A copy that was sent before may have been executed, or may be yet.
                is_doubtful=True,
                now=time.monotonic(),
            )
            answered, forgotten = await self._settle(error.market, settling)
            is_forgotten = is_forgotten or forgotten
            for place, receipt in zip(some, answered, strict=True):
                receipts[place] = receipt
        if None in receipts:
            raise OutcomeUnknown(
                error.market,
                error.commands,
                receipts,
                deadline_s=policy.deadline_s,
                is_forgotten=is_forgotten,
            )
        return [receipt for receipt in receipts if receipt is not None]

    # --- Before ---------------------------------------------------------------------------------

    async def _begin(self, lane: _Lane, market: str, policy: Policy) -> Receipt | None:
        # Gives the refusal, when the market will not be asked.
        if lane.has_begun:
            return None
        async with lane.beginning:
            if lane.has_begun:
                return None
            queries = Queries(
                self._channel, self._peer, policy=policy, random=self._random, known=self._known
            )
            status = await queries.status(market)
            if isinstance(status, Receipt):
                return status
            for pair in (status.highest, status.forgotten):
                self._ids.go_above(make_pair(*pair))
            lane.has_begun = True
        return None

    async def _has_room(self, lane: _Lane, count: int, patience_s: float) -> bool:
        if patience_s <= 0:
            return False
        try:
            async with asyncio.timeout(patience_s):
                while not lane.window.has_room(count):
                    lane.has_room.clear()
                    await lane.has_room.wait()
        except TimeoutError:
            return False
        return True

    def _named(self, command: Command) -> Command:
        kind: Final = "order" if type(command) is Submit else "command"
        given = own_id(command)
        if given is not UNSET:
            # The caller's own; those made later must be above it all the same.
            parsed = parse_id(given, kind)
            if parsed is not None and parsed[0] == self._peer:
                self._ids.go_above(parsed[1])
            return command
        made = self._ids.next(kind, time.time_ns() // 1_000_000)
        return structs.replace(command, **{f"{kind}_id": made})

    # --- Copies ---------------------------------------------------------------------------------

    async def _settle(self, market: str, settling: Settling) -> tuple[list[Receipt | None], bool]:
        # Gives a receipt for each command, `retry` for what was not executed by the deadline, and
        # None for what may have been; and whether one of those was forgotten.
        subject = subjects.orders(market, self._peer)
        while True:
            payload, patience_s = settling.copy(time.monotonic())
            answer: bytes | Unanswered
            try:
                answer = await self._channel.request(subject, payload, timeout_s=patience_s)
            except Closed:
                answer = "closed"
            except NoResponder:
                answer = "no_responder"
            except NoReply:
                answer = "silence"
            pause = settling.answered(answer, now=time.monotonic())
            if pause is None:
                return settling.receipts, settling.is_forgotten
            # NB: while the connection is down nothing above waits for anything.
            await asyncio.sleep(pause)
