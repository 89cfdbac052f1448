"""What each peer may still send in a market now: orders, and cancels beside them.

Theory of operation. Each peer has two buckets, which fill at the rate that the specification gives
it: one for submits and amends, one for `cancel` and `cancel_all`, so that whatever a peer sends, it
can always cancel as fast as it can order. Each command takes one out, a resent one too; but what is
remembered already is let through when nothing is left, since only its answer settles what became of
it. A third bucket counts requests, whatever is in them, and a fourth those that are not read any
more: who goes on beyond that is not even answered, so that nonsense costs nobody much. A full
bucket is as good as none, and is forgotten.

The leader's own business: nothing of it is in the log, and each term begins with full buckets.
Knows nothing of queues.
"""

from typing import Final, Literal

from msgspec import UNSET

from dex_engine import Market
from dex_protocol import limits
from dex_protocol.codec import Element
from dex_protocol.commands import Amend, Submit, own_id
from dex_protocol.ids import pair_of
from dex_protocol.receipts import Receipt
from dex_protocol.specification import PeerLimits
from dex_server.replication.commits import Waiting
from dex_server.replication.effects import Instant
from dex_server.replication.rates import SECOND_US, TokenBucket

FORGET_US: Final = SECOND_US
"""How often full buckets are looked for: a look takes less than 1 µs for each peer that sent
something since the last."""


Admission = Literal["read", "unread", "ignored"]
"""What becomes of a request: it is looked at; it is answered `rate_limited` unread; nothing."""


class _Allowance:
    # What a peer has left.
    __slots__ = ("cancels", "orders", "read", "unread")

    def __init__(self, burst: int, *, now: int) -> None:
        self.orders = TokenBucket(burst, now=now)
        self.cancels = TokenBucket(burst, now=now)
        self.read = TokenBucket(_read_burst(burst), now=now)
        self.unread = TokenBucket(limits.UNREAD_REQUESTS_PER_SECOND, now=now)


class Allowances:
    """What the peers of a market have left."""

    __slots__ = ("_by_peer", "_looked_at", "_market")

    def __init__(self, market: Market, *, now: Instant) -> None:
        """Begin with nobody having sent anything."""
        self._market = market
        self._by_peer: dict[str, _Allowance] = {}
        self._looked_at = now.monotonic

    def __len__(self) -> int:
        """Tell of how many peers something is remembered."""
        return len(self._by_peer)

    def admit(self, peer: str, own: PeerLimits, now: Instant) -> Admission:
        """Count a request that arrived, and tell what is to be done with it."""
        allowance = self._by_peer.get(peer)
        if allowance is None:
            allowance = _Allowance(own.orders_burst, now=now.monotonic)
            self._by_peer[peer] = allowance
        if allowance.read.take_all(
            1,
            per_second=2 * own.orders_per_second + limits.READ_REQUESTS_PER_SECOND,
            burst=_read_burst(own.orders_burst),
            now=now.monotonic,
        ):
            return "read"
        is_answered = allowance.unread.take_all(
            1,
            per_second=limits.UNREAD_REQUESTS_PER_SECOND,
            burst=limits.UNREAD_REQUESTS_PER_SECOND,
            now=now.monotonic,
        )
        return "unread" if is_answered else "ignored"

    def has_read(self, peer: str, count: int) -> None:
        """Count what was found in a request that was admitted: so many commands, nonsense too."""
        self._by_peer[peer].read.take(count - 1)

    def take(self, waiting: Waiting, own: PeerLimits, now: Instant) -> None:
        """Count the commands of a request that was admitted, and have it carry no more of them than
        its peer may send now.

        What is too much is answered `rate_limited`: the first such command, and all after it.
        """
        allowance = self._by_peer[waiting.peer]
        if not waiting.cancels and allowance.orders.take_all(
            waiting.orders,
            per_second=own.orders_per_second,
            burst=own.orders_burst,
            now=now.monotonic,
        ):
            return
        self._take_each(waiting, allowance, own, now)

    def give_back(self, waiting: Waiting) -> None:
        """Take back what was counted for a request that is turned away."""
        allowance = self._by_peer[waiting.peer]
        allowance.orders.give_back(waiting.orders)
        allowance.cancels.give_back(waiting.cancels)

    def forget(self, now: Instant) -> None:
        """Forget, from time to time, who has sent nothing for long enough."""
        if now.monotonic - self._looked_at < FORGET_US:
            return
        self._looked_at = now.monotonic
        limits_of = self._market.rules.limits_of
        self._by_peer = {
            peer: allowance
            for peer, allowance in self._by_peer.items()
            if not _is_full(allowance, limits_of(peer), now)
        }

    def _take_each(
        self, waiting: Waiting, allowance: _Allowance, own: PeerLimits, now: Instant
    ) -> None:
        orders_left = orders = _left(allowance.orders, own, now)
        cancels_left = cancels = _left(allowance.cancels, own, now)
        if waiting.orders > orders or waiting.cancels > cancels:
            for place, element in enumerate(waiting.elements):
                if type(element) is Receipt:
                    continue
                is_order = type(element) is Submit or type(element) is Amend
                left = orders_left if is_order else cancels_left
                # What is remembered is lent, as much as the peer could ever have at once.
                lent = own.orders_burst if self._is_remembered(waiting.peer, element) else 0
                if left + lent > 0:
                    orders_left -= is_order
                    cancels_left -= not is_order
                else:
                    waiting.limit(place, too_fast(waiting.peer, own, is_order=is_order))
                    break
            waiting.orders = orders - orders_left
            waiting.cancels = cancels - cancels_left
        allowance.orders.take(waiting.orders)
        allowance.cancels.take(waiting.cancels)

    def _is_remembered(self, peer_name: str, command: Element) -> bool:
        # What the market answers without executing anything.
        peer = self._market.peers.get(peer_name)
        command_id = own_id(command)  # type: ignore[arg-type]
        if peer is None or command_id is UNSET:
            return False
        pair = pair_of(command_id)
        return pair in peer.window.outcomes or pair <= peer.window.forgotten


def too_fast(peer: str, own: PeerLimits, *, is_order: bool = True) -> str:
    """Say which limit was reached."""
    what = "orders" if is_order else "cancels"
    return f"expected at most {own.orders_per_second} {what} per second from {peer}, found more"


def _left(bucket: TokenBucket, own: PeerLimits, now: Instant) -> int:
    return bucket.left(per_second=own.orders_per_second, burst=own.orders_burst, now=now.monotonic)


def _read_burst(orders_burst: int) -> int:
    # An order and a cancel in each request, or anything else.
    return 2 * orders_burst + limits.READ_REQUESTS_PER_SECOND


def _is_full(allowance: _Allowance, own: PeerLimits, now: Instant) -> bool:
    # Of requests that were read nothing is left to remember a moment later, and of the unread none
    # was counted before the others were used up.
    burst = own.orders_burst
    reads_left = allowance.read.left(
        per_second=2 * own.orders_per_second + limits.READ_REQUESTS_PER_SECOND,
        burst=_read_burst(burst),
        now=now.monotonic,
    )
    return (
        _left(allowance.orders, own, now) >= burst
        and _left(allowance.cancels, own, now) >= burst
        and reads_left >= _read_burst(burst)
    )
