"""Beginning a term: `leader_changed`, appended behind everything else, before anything is executed.

A candidate's state stays the log's: it makes the entry without touching the state, and applies it
like any follower once it stands. Losing the race therefore costs nothing but another attempt.

Knows nothing of who nominated it.
"""

from typing import Final

from dex_engine import Market
from dex_protocol.codec import encode_commit
from dex_protocol.events import PROTOCOL, RULES, LeaderChanged
from dex_protocol.specification import Specification
from dex_server.replication.appends import Appends
from dex_server.replication.commits import encoded_events
from dex_server.replication.effects import Append, Effect, Instant, Look
from dex_server.replication.ports import Entry, Position

CLOCK_DIFFERENCE_US_MAX: Final = 1_000_000
"""How far a leader's clock may be from the log's: commands are late after as much."""


class Candidacy:
    """One server's attempt to begin a term.

    Attributes:
        payload: The entry.
        sequence: Where it is to stand.
        is_stored: Whether it stands there.
    """

    def __init__(
        self,
        market: Market,
        *,
        server: str,
        incarnation: str,
        specification: Specification,
        log_id: str,
        now: Instant,
    ) -> None:
        """Make the entry.

        Args:
            market: The state at the log's end, which is not changed.
            server: Who is to lead.
            incarnation: Which start of that server: nobody else's entry has the same bytes.
            specification: What the market is opened with, if its log is empty.
            log_id: A random name for the log, if it is empty.
            now: The time.
        """
        # The log's own time, until this server's clock was compared with it: a wrong one would
        # expire orders, and time never goes back.
        time = market.time or now.wall
        if market.sequence == 0:
            self.payload = _opening(market.name, server, incarnation, specification, log_id, time)
        else:
            self.payload = encode_commit(
                market=market.name,
                sequence=market.sequence + 1,
                term=market.term + 1,
                time=time,
                previous=market.hash,
                digest=market.digest,
                events=encoded_events(
                    [
                        LeaderChanged(
                            server=server,
                            term=market.term + 1,
                            protocol=PROTOCOL,
                            rules=RULES,
                            incarnation=incarnation,
                        )
                    ]
                ),
            )
        self.sequence = market.sequence + 1
        self.is_stored = False
        self._after = Position(market.sequence, market.hash)
        self._sent_at = now.wall
        self._appends: Appends[None] = Appends()

    def begin(self, now: Instant) -> Append:
        """Append the entry."""
        return self._appends.begin(self.payload, self._after, None, now)

    def confirmed(self, sequence: int) -> list[Effect]:
        """Note that the entry is stored, and look when it was."""
        return self._stored(self._appends.confirmed(sequence))

    def undecided(self, sequence: int) -> list[Effect]:
        """Note that nobody knows what became of it."""
        self._appends.undecided(sequence)
        return self._appends.look()

    def stands(self, sequence: int, entry: Entry | None) -> list[Effect]:
        """Settle it by what stands in its place.

        Raises:
            Deposed: somebody else wrote.
        """
        stored, effects = self._appends.stands(sequence, entry)
        return effects + self._stored(stored)

    def clock_difference_us(self, entry: Entry, now: Instant) -> int:
        """Tell how far this server's clock and the log's are apart at least, by the stored entry.

        It was stored after it was sent and before it was looked at, by whatever right clock.
        """
        too_early = self._sent_at - entry.stored_at
        too_late = entry.stored_at - now.wall
        return max(too_early, too_late)

    def _stored(self, stored: list[None]) -> list[Effect]:
        if not stored:
            return []
        self.is_stored = True
        return [Look(self.sequence)]


def _opening(
    name: str, server: str, incarnation: str, specification: Specification, log_id: str, time: int
) -> bytes:
    # Made by executing it on a state of its own, which is thrown away.
    market = Market(name)
    events = market.open(specification, log_id=log_id, time=time)
    events += market.lead(
        server=server,
        incarnation=incarnation,
        term=1,
        protocol=PROTOCOL,
        rules=RULES,
        time=time,
    )
    return market.seal(events, encoded_events(events), digest=market.digest)
