"""What each peer may still take of one server: bytes of answers, and turns to read what is stored.

Answers are lent: one may be longer than what is left, and then the peer waits until that is paid
back. Who takes nothing is forgotten. Knows nothing of queries; the time is handed in.
"""

import asyncio
from collections import Counter, deque
from typing import Final

from dex_protocol import limits
from dex_server.replication.rates import TokenBucket

LOST_US: Final = 20_000_000
"""An unanswered query is forgotten then: one that a deposed leader knew the answer to, which it may
not give. Others are answered within 1 s, or when NATS has elected a leader (4 to 9 s)."""

_PER_SECOND: Final = limits.PEER_ANSWERS_BYTES_PER_SECOND
_BURST: Final = limits.PEER_ANSWERS_BYTES_BURST


class Shares:
    """The bytes of answers that peers have left."""

    def __init__(self) -> None:
        """Begin with nobody having taken anything."""
        # The peer that took something longest ago first.
        self._buckets: dict[str, TokenBucket] = {}
        # Of all peers that there was no room for.
        self._others = TokenBucket(_BURST, now=0)

    def __len__(self) -> int:
        """Tell how many peers are remembered."""
        return len(self._buckets)

    def has_some(self, peer: str, *, now: int) -> bool:
        """Tell whether a peer may be answered now (monotonic, µs)."""
        bucket = self._buckets.get(peer)
        if bucket is None:
            if self._has_room(now):
                return True
            bucket = self._others
        return bucket.left(per_second=_PER_SECOND, burst=_BURST, now=now) > 0

    def take(self, peer: str, count: int, *, now: int) -> None:
        """Count what a peer is given, also when it is more than it has left."""
        bucket = self._buckets.pop(peer, None)
        if bucket is None and self._has_room(now):
            bucket = TokenBucket(_BURST, now=now)
        if bucket is None:
            bucket = self._others
        else:
            self._buckets[peer] = bucket
        # NB: it fills by being asked; taken from before that, it would fill twice.
        bucket.left(per_second=_PER_SECOND, burst=_BURST, now=now)
        bucket.take(count)

    def _has_room(self, now: int) -> bool:
        # One after the other is forgotten, up to the first that has something to pay back, so that
        # each is looked at once.
        while self._buckets:
            oldest = next(iter(self._buckets))
            bucket = self._buckets[oldest]
            if not bucket.is_full(per_second=_PER_SECOND, burst=_BURST, now=now):
                break
            del self._buckets[oldest]
        return len(self._buckets) < limits.PEERS_ANSWERED_COUNT_MAX


class Unanswered:
    """The queries of each peer that are not answered yet; some never are, and are forgotten."""

    def __init__(self) -> None:
        """Begin with none."""
        # When they arrived, oldest first; the peer that asked longest ago first.
        self._arrived: dict[str, deque[int]] = {}

    def __len__(self) -> int:
        """Tell how many peers have any."""
        return len(self._arrived)

    def take(self, peer: str, *, now: int) -> bool:
        """Note a query that arrived (monotonic, µs), if its peer may have another; tell whether."""
        self._forget(now)
        arrived = self._arrived.pop(peer, None) or deque()
        while arrived and now - arrived[0] >= LOST_US:
            arrived.popleft()
        has_place = len(arrived) < limits.PEER_UNANSWERED_COUNT_MAX
        if has_place:
            arrived.append(now)
        self._arrived[peer] = arrived
        return has_place

    def give_back(self, peer: str) -> None:
        """Note that one is answered."""
        arrived = self._arrived.get(peer)
        if arrived is not None:
            arrived.popleft()
            if not arrived:
                del self._arrived[peer]

    def _forget(self, now: int) -> None:
        # A peer that was refused since comes later than it must; there is no harm in that.
        while self._arrived:
            oldest = next(iter(self._arrived))
            if now - self._arrived[oldest][-1] < LOST_US:
                return
            del self._arrived[oldest]


class ReadTurns:
    """So many at a time, so many of them one peer's; peers that wait are served one after another.

    Ordering: `take`, then `give_back` exactly once.
    """

    def __init__(self, count_max: int, *, peer_count_max: int) -> None:
        """Begin with all turns free."""
        self._free = count_max
        self._peer_count_max = peer_count_max
        self._taken: Counter[str] = Counter()
        # By peer, oldest first; the peer that is next first. None of them could have a turn now.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, peer: str) -> None:
        """Wait for a turn; who is canceled while waiting has none."""
        if self._may_go(peer):
            self._go(peer)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(peer, turn)
            else:
                # It was given in the same moment.
                self.give_back(peer)
            raise

    def give_back(self, peer: str) -> None:
        """End a turn, which makes room for one other at most."""
        self._free += 1
        self._taken[peer] -= 1
        if not self._taken[peer]:
            del self._taken[peer]
        for following in list(self._waiting):
            if not self._may_go(following):
                continue
            turns = self._waiting.pop(following)
            while turns:
                turn = turns.popleft()
                # One that is done was canceled, and has not left yet.
                if not turn.done():
                    if turns:
                        # Behind all other peers.
                        self._waiting[following] = turns
                    self._go(following)
                    turn.set_result(None)
                    return

    def _may_go(self, peer: str) -> bool:
        return self._free > 0 and self._taken[peer] < self._peer_count_max

    def _go(self, peer: str) -> None:
        self._free -= 1
        self._taken[peer] += 1

    def _leave(self, peer: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(peer)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[peer]
