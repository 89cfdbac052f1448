"""A market's leader by itself: the server's own code from the bytes of a request to those of its
reply, with a log that stores everything at once.

Knows nothing of NATS, of time but that it passes, nor of what is measured.
"""

from collections.abc import Sequence
from typing import Final

from dex_engine import Market
from dex_protocol.specification import Specification
from dex_server.replication.commits import encoded_events
from dex_server.replication.effects import Append, Effect, Instant, Request, Send
from dex_server.replication.leading import Leadership
from dex_server.replication.questions import Questions
from dex_server.replication.upkeep import Settings

NOW: Final = 1_763_800_000_000_000
"""When it begins, in µs."""

STEP_US: Final = 1_000
"""How much time passes for it with each group of requests."""

COUNT_MAX: Final = 10**12

SPECIFICATION: Final = Specification(
    market="BTC-USD",
    tick_size="0.01",
    lot_size="0.001",
    # What the engine can take, not what a peer may ask of it.
    max_open_orders=COUNT_MAX,
    orders_per_second=COUNT_MAX,
)


def a_market() -> tuple[Market, bytes]:
    """Open a market, led in term 1; give it with its first commit."""
    market = Market(SPECIFICATION.market)
    events = market.open(SPECIFICATION, log_id="log", time=NOW)
    events += market.lead(server="server-1", term=1, protocol=1, rules=1, time=NOW)
    return market, market.seal(events, encoded_events(events), digest=market.digest)


class Leader:
    """A leadership with its market; see `group`.

    Attributes:
        market: The state.
        newest: The payload of the newest commit.
    """

    def __init__(self) -> None:
        """Begin to lead an open market."""
        self.market, self.newest = a_market()
        self._now = Instant(NOW, 0)
        self._leadership = Leadership(
            self.market,
            questions=Questions(server="server-1"),
            window=Settings().window,
            now=self._now,
        )

    def group(self, requests: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """Take requests that arrived together, each of a peer, and give the replies to them.

        They must fit into one commit, which the log stores at once.
        """
        self._now = now = Instant(self._now.wall + STEP_US, self._now.monotonic + STEP_US)
        leadership = self._leadership
        effects = leadership.take(
            [Request(peer, payload, None, now.monotonic) for peer, payload in requests], now
        )
        effects += leadership.proceed(now)
        replies: list[bytes] = []
        appends = _sort(effects, replies)
        for append in appends:
            self.newest = append.payload
            _sort(leadership.confirmed(append.after.sequence + 1, now), replies)
        assert len(appends) == 1, f"expected one commit, found {len(appends)}"
        assert len(replies) == len(requests), f"{len(requests)} requests, {len(replies)} replies"
        return replies


def _sort(effects: Sequence[Effect], replies: list[bytes]) -> list[Append]:
    appends = []
    for effect in effects:
        if type(effect) is Send:
            replies.append(effect.payload)
        elif type(effect) is Append:
            appends.append(effect)
        else:
            raise AssertionError(f"expected to append and to send, found {effect}")
    return appends
