"""Who lives: what one server knows of the others, and when that is enough to call one gone.

Theory of operation. There are two signs of death, a slow one and a fast one.

Each server rewrites its record twice a second. One whose record stands unchanged for two seconds is
gone. Time counts only between two readings of the records that succeeded and were close together,
and while the own record could be written: who cannot reach the records knows nothing.

A request that nobody answers for ("no responder") is told so at once, so each server pings the
others. But the absence of a responder is no proof: after a reconnection it lasts for some ms, after
the loss of a NATS node until its clients found another, and where a route is cut, for good. So it
counts only when it was seen twice, over a connection that has been up for a while, in a cluster
that has not changed for a while, by a server that reads the records, against one that has not
renewed its own since. One that did is unreachable and alive, and its silence counts for nothing
until it has answered again.

Knows nothing of markets but which ones a server says it holds, nor of who leads.
"""

from typing import Final

from dex_server.replication.effects import Instant
from dex_server.replication.ports import ServerNews, ServerRecord

STILL_US_MAX: Final = 2_000_000
"""A record that stands unchanged for so long is a dead server's: four renewals are missing."""

READING_GAP_US_MAX: Final = 1_000_000
"""Two readings further apart prove nothing about the time between them: this server, or what it
reads from, may have stood still itself."""

RENEWED_US_MAX: Final = 1_000_000
"""Who could not write its own record for so long cannot expect it of others."""

PING_US: Final = 100_000
"""Between two pings: half of it is what a death goes unnoticed on average."""

AGAIN_US: Final = 20_000
"""Between the first ping that nobody answers for and the second, at least: a client that has just
reconnected was seen without its subscriptions for 10 to 16 ms (nats-server 2.15.1)."""

SETTLED_US: Final = 2_000_000
"""How long the own connection must have been up, and the cluster unchanged, for the absence of a
responder to mean anything: clients of a lost node find another within about 0.2 s."""

REFUSED_LONG_US: Final = 650_000
"""How long nobody must have answered, and no record have been renewed, where more certainty is
wanted: what is between two renewals, and the time that one may be late."""


class _Seen:
    # One other server, as far as it was seen.
    __slots__ = (
        "is_baselined",
        "is_distrusted",
        "is_pinged",
        "pinged_at",
        "record",
        "refused_count",
        "refused_since",
        "shows_life",
        "still_us",
    )

    def __init__(self) -> None:
        self.record: ServerRecord | None = None
        self.still_us = 0
        # Whether it has done anything since this server watches: a record alone may be old.
        self.shows_life = False
        self.is_pinged = False
        self.pinged_at = 0
        # An unbroken row of pings that nobody answered for.
        self.refused_since = 0
        self.refused_count = 0
        # Whether the records were read since the row began: what they show later, came later.
        self.is_baselined = False
        # Whether it renewed its record though nobody answered for it.
        self.is_distrusted = False


class Membership:
    """The other servers, as one server sees them."""

    def __init__(self, server: str) -> None:
        """Begin without having seen any; server is the own name."""
        self._server = server
        self._seen: dict[str, _Seen] = {}
        self._read_at: int | None = None
        self._renewed_at: int | None = None
        self._up_since: int | None = None
        self._changed_at = 0

    # --- What is seen ---------------------------------------------------------------------------

    def read(self, news: list[ServerNews], *, asked_at: int, now: Instant) -> None:
        """Take note of a reading of the records that was begun at asked_at (monotonic)."""
        gap = 0
        if self._read_at is not None:
            gap = now.monotonic - self._read_at
            if gap > READING_GAP_US_MAX:
                # What was refused meanwhile may have renewed its record: this reading cannot tell.
                self._changed_at = now.monotonic
                gap = 0
        if self._renewed_at is None or now.monotonic - self._renewed_at > RENEWED_US_MAX:
            gap = 0
        self._read_at = now.monotonic
        for seen in self._seen.values():
            seen.still_us += gap
        for each in news:
            if each.server != self._server:
                self._renewed(self._of(each.server), each.record)
        for seen in self._seen.values():
            if seen.refused_count and asked_at >= seen.refused_since:
                seen.is_baselined = True

    def _renewed(self, seen: _Seen, record: ServerRecord | None) -> None:
        seen.shows_life = seen.shows_life or seen.record is not None
        seen.record = record
        seen.still_us = 0
        if seen.is_baselined:
            seen.is_distrusted = True

    def renewed(self, now: Instant) -> None:
        """Note that the own record could be written."""
        self._renewed_at = now.monotonic

    def connected(self, now: Instant, *, is_up: bool) -> None:
        """Note that the own connection is there, or is lost."""
        self._up_since = now.monotonic if is_up else None
        for seen in self._seen.values():
            self._forget_refusals(seen)

    def cluster_changed(self, now: Instant) -> None:
        """Note that NATS nodes came or went, which may be why nobody answers."""
        self._changed_at = now.monotonic

    def expects(self, server: str) -> None:
        """Note that a server is spoken of, whether or not it has a record."""
        if server != self._server:
            self._of(server)

    # --- Pings ----------------------------------------------------------------------------------

    def due(self, now: Instant) -> list[str]:
        """Give the servers that are to be pinged now, and count them as pinged."""
        names = []
        for name in sorted(self._seen):
            seen = self._seen[name]
            wait = AGAIN_US if seen.refused_count == 1 else PING_US
            if seen.is_pinged or now.monotonic - seen.pinged_at < wait:
                continue
            if seen.still_us < STILL_US_MAX:
                seen.is_pinged = True
                seen.pinged_at = now.monotonic
                names.append(name)
        return names

    def answered(self, server: str) -> None:
        """Note that a server answered a ping."""
        seen = self._of(server)
        seen.is_pinged = seen.is_distrusted = False
        seen.shows_life = True
        self._forget_refusals(seen)

    def silent(self, server: str) -> None:
        """Note that a ping was delivered, or may have been, and not answered."""
        seen = self._of(server)
        seen.is_pinged = False
        self._forget_refusals(seen)

    def refused(self, server: str, now: Instant) -> bool:
        """Note that nobody answers for a server; tell whether that is new."""
        seen = self._of(server)
        seen.is_pinged = False
        if seen.refused_count == 0:
            seen.refused_since = now.monotonic
        seen.refused_count += 1
        return seen.refused_count == 1

    @property
    def is_suspecting(self) -> bool:
        """Whether it matters to know at once that somebody renewed its record."""
        return any(
            seen.refused_count and not seen.is_distrusted and seen.still_us < STILL_US_MAX
            for seen in self._seen.values()
        )

    # --- What follows ---------------------------------------------------------------------------

    def record(self, server: str) -> ServerRecord | None:
        """Give a server's record."""
        seen = self._seen.get(server)
        return None if seen is None else seen.record

    def living(self, now: Instant) -> list[ServerRecord]:
        """Give the records of the others that are seen to live, in the order of their names."""
        return [
            seen.record
            for _, seen in sorted(self._seen.items())
            if seen.record is not None
            and seen.shows_life
            and self._why_gone(seen, seen.record.incarnation, now, is_certain=False) is None
        ]

    def why_gone(
        self, server: str, incarnation: str, now: Instant, *, is_certain: bool
    ) -> str | None:
        """Tell why an incarnation of another server counts as gone.

        Args:
            server: Its name.
            incarnation: Which one is meant.
            now: The time.
            is_certain: Whether the fast sign must have lasted for a while.

        Returns:
            A sentence; None while it counts as alive.
        """
        return self._why_gone(self._of(server), incarnation, now, is_certain=is_certain)

    def _why_gone(
        self, seen: _Seen, incarnation: str, now: Instant, *, is_certain: bool
    ) -> str | None:
        if seen.record is not None and seen.record.incarnation != incarnation:
            return "it was started again"
        if seen.still_us >= STILL_US_MAX:
            return f"its record has not changed for {seen.still_us // 1_000} ms"
        if self._is_refused(seen, now, is_certain=is_certain):
            return "nobody answers for it"
        return None

    def _is_refused(self, seen: _Seen, now: Instant, *, is_certain: bool) -> bool:
        if seen.refused_count < 2 or seen.is_distrusted or not seen.is_baselined:
            return False
        if self._up_since is None or now.monotonic - self._up_since < SETTLED_US:
            return False
        if now.monotonic - self._changed_at < SETTLED_US:
            return False
        # That it did not renew its record is known only to who reads.
        if self._read_at is None or now.monotonic - self._read_at > READING_GAP_US_MAX:
            return False
        return now.monotonic - seen.refused_since >= (REFUSED_LONG_US if is_certain else AGAIN_US)

    def _of(self, server: str) -> _Seen:
        return self._seen.setdefault(server, _Seen())

    def _forget_refusals(self, seen: _Seen) -> None:
        seen.refused_count = 0
        seen.is_baselined = False
