"""Who floods: samples of a node's counters in, verdicts out.

A user floods a node when its connections to it together sent more than a limit in two consecutive
intervals, each between two samples of that node. Together, since who may connect may do so a
hundred times; whoever is let in without a name is a user for each connection. One interval is
not enough, unless it is far above: who was held up by the network, or by a busy node, sends in one
what was due in two. The
first interval of a connection begins with the connection, so that nobody is free of the limits by
being new. Those connections are cut that sent most, and no more of them than it takes: others of
the same user, such as readers who share one, stay.

Times are those of the node's own clock: what the node counted and when it looked belong together,
however late its answer arrives. Knows nothing of NATS, nor of what becomes of a verdict.
"""

from typing import Final, TypeAlias

from msgspec import Struct

INTERVAL_US_MIN: Final = 100_000
"""Samples nearer to each other are not compared: a node adds to its counters when a read buffer is
done (64 KiB, 2,300 tiny messages), and what that is in a short interval looks like a flood."""

INTERVALS_COUNT: Final = 2
"""Consecutive intervals above a limit that make a flood."""

GROSS: Final = 4
"""How many times the limit makes one of a single interval: a leader needs seconds for what arrives
in another, and nobody has a burst like that by chance."""

_US: Final = 1_000_000

_ConnectionKey: TypeAlias = tuple[int, int]
_UserKey: TypeAlias = tuple[str, str, _ConnectionKey | None]


class Limits(Struct, frozen=True, kw_only=True):
    """What a user may send to one node; the limit itself is allowed."""

    messages_per_second: int
    bytes_per_second: int
    """Of payloads and headers; nodes do not count subjects."""


class Connection(Struct, frozen=True, kw_only=True):
    """One client's connection to one node."""

    connection_id: int
    """The node's number for it, which counts from 1 again when the node is started again."""
    started_us: int
    account: str
    user: str = ""
    """The name or the public nkey it was let in with; empty where nobody is asked for one."""
    name: str = ""
    """What the client calls itself, whatever that is."""
    address: str = ""


class Counters(Struct, frozen=True, kw_only=True):
    """What a connection has sent since it began, refused messages included."""

    connection: Connection
    messages_count: int
    bytes_count: int


class Sample(Struct, frozen=True, kw_only=True):
    """All that one node counted, at one time."""

    node: str
    """Its id, which is another one at each start."""
    at_us: int
    counters: list[Counters]


class Rate(Struct, frozen=True, kw_only=True):
    """What was sent in the newest interval; above 0 when anything was."""

    messages_per_second: int
    bytes_per_second: int


class Flood(Struct, frozen=True, kw_only=True):
    """A verdict: this connection is to be cut."""

    node: str
    connection: Connection
    rate: Rate
    user_rate: Rate
    """Of all connections of its user to that node."""


class _Seen(Struct):
    # Where a connection's current interval began.
    at_us: int
    messages_count: int
    bytes_count: int


class _Node(Struct):
    # As of its newest sample: connections, and how many intervals in a row users were too fast.
    connections: dict[_ConnectionKey, _Seen]
    exceeded_counts: dict[_UserKey, int]


class Floods:
    """What was seen of each connection of each node, and who is above the limits."""

    def __init__(self, limits: Limits, *, exempt: frozenset[str]) -> None:
        """Begin with nothing seen.

        Args:
            limits: For each user, at each node by itself.
            exempt: Accounts whose connections are never judged.
        """
        self._limits = limits
        self._exempt = exempt
        self._nodes: dict[str, _Node] = {}

    def take(self, sample: Sample) -> list[Flood]:
        """Compare a sample with the one before it of the same node.

        Who stays above a limit is told again with each sample: the cut may have failed.

        Returns:
            The connections to cut, by user, and of each user the fastest first.
        """
        before = self._nodes.get(sample.node) or _Node({}, {})
        after = _Node({}, {})
        rates: dict[_UserKey, list[tuple[Connection, Rate]]] = {}
        for counters in sample.counters:
            connection = counters.connection
            if connection.account in self._exempt:
                continue
            key = (connection.connection_id, connection.started_us)
            last = before.connections.get(key) or _Seen(connection.started_us, 0, 0)
            after.connections[key], rate = _compared(last, counters, sample.at_us)
            of_user = rates.setdefault(_user_of(connection), [])
            if rate is not None:
                of_user.append((connection, rate))
        floods = []
        for user, of_user in rates.items():
            count = before.exceeded_counts.get(user, 0)
            total = _total(of_user)
            if of_user:
                count = count + self._weight(total) if self._exceeds(total) else 0
            if count:
                after.exceeded_counts[user] = count
            if count >= INTERVALS_COUNT:
                floods += [
                    Flood(node=sample.node, connection=connection, rate=rate, user_rate=total)
                    for connection, rate in self._too_many(of_user)
                ]
        self._nodes[sample.node] = after
        return floods

    def forget(self, node: str) -> None:
        """Drop what was seen of a node that is gone."""
        self._nodes.pop(node, None)

    def _exceeds(self, rate: Rate) -> bool:
        return (
            rate.messages_per_second > self._limits.messages_per_second
            or rate.bytes_per_second > self._limits.bytes_per_second
        )

    def _weight(self, rate: Rate) -> int:
        # An interval far above the limit is no burst.
        return INTERVALS_COUNT if self._share(rate) >= GROSS else 1

    def _too_many(self, rates: list[tuple[Connection, Rate]]) -> list[tuple[Connection, Rate]]:
        fastest_first = sorted(rates, key=lambda each: self._share(each[1]), reverse=True)
        count = 0
        while self._exceeds(_total(fastest_first[count:])):
            count += 1
        return fastest_first[:count]

    def _share(self, rate: Rate) -> float:
        return max(
            rate.messages_per_second / self._limits.messages_per_second,
            rate.bytes_per_second / self._limits.bytes_per_second,
        )


def _user_of(connection: Connection) -> _UserKey:
    if connection.user:
        return (connection.account, connection.user, None)
    return (connection.account, "", (connection.connection_id, connection.started_us))


def _compared(last: _Seen, counters: Counters, at_us: int) -> tuple[_Seen, Rate | None]:
    elapsed_us = at_us - last.at_us
    if 0 <= elapsed_us < INTERVAL_US_MIN:
        return last, None
    seen = _Seen(at_us, counters.messages_count, counters.bytes_count)
    if elapsed_us < 0:
        # The node's clock was set back; nothing can be said of this interval.
        return seen, None
    return seen, Rate(
        messages_per_second=_per_second(seen.messages_count - last.messages_count, elapsed_us),
        bytes_per_second=_per_second(seen.bytes_count - last.bytes_count, elapsed_us),
    )


def _per_second(count: int, elapsed_us: int) -> int:
    # Rounded up, so that what is above a limit is so in the log line too.
    return -(-count * _US // elapsed_us)


def _total(rates: list[tuple[Connection, Rate]]) -> Rate:
    return Rate(
        messages_per_second=sum(rate.messages_per_second for _, rate in rates),
        bytes_per_second=sum(rate.bytes_per_second for _, rate in rates),
    )
