"""Following a log: applying what is broadcast, and fetching what was not heard.

Theory of operation. An entry that is heard is applied if it is the next and follows from the state;
any other only shows that it is time to ask where the log ends, and what is missing is read. What is
broadcast may be lost, the last entry too, so a follower that has heard nothing for a while asks as
well. Each commit is checked (sequence, chain, time, term, digest, and whether it is possible).

What is heard may be anybody's: whoever can publish can make it up. So no more is believed of it
than the state confirms: what does not follow is dropped, and that place read from the log; and how
far the log goes is only what the log itself said, never a number that was heard. What is *read* and
does not follow contradicts the state, and stops the replica.

A log that seems to end before what is known to stand in it may be asked of a NATS node that was
cut off and does not know it yet; such a node gives up within some seconds. If the log still says so
then, it has lost commits. If it is long enough by then, it may still have lost them, and have grown
over the loss: what stands where the state is says which.

Knows nothing of roles, nor of snapshots but that somebody may want to look at the state after a
commit.
"""

from collections.abc import Callable
from typing import Final

from dex_engine import Diverged, Market
from dex_protocol.codec import hash_of
from dex_server.replication.effects import Effect, FindEnd, Instant, Look, Note, ReadLog
from dex_server.replication.ports import Entry
from dex_server.replication.recovery import Contradicted

SILENCE_US: Final = 1_000_000
"""After so long without a word the log's end is asked for: a request a second for each market."""

DISTRUST_US: Final = 1_000_000
"""For so long nothing that is heard is tried after it did not follow, and nobody asks after an
answer that the log goes no further than was known: made up entries then cost a second's delay, not
a request or an attempt each."""

LAG_COUNT_MAX: Final = 1_000
"""A follower that is further behind is not current: it reads the log, which takes about a second,
and should not be chosen to lead before."""

DOUBT_US: Final = 15_000_000
"""How long a log that seems to have lost commits is asked again. A stream's leader that is cut off
notices within about 10 s (nats-server 2.15.1)."""


class Overtaken(Exception):
    """The log was trimmed beyond the state: only a snapshot leads on from there.

    Attributes:
        first: The oldest entry that the log still has.
    """

    def __init__(self, first: int) -> None:
        """Tell where the log begins."""
        super().__init__(f"the log begins at {first}")
        self.first = first


class Doubt:
    """Whether a log has been seen to end too early, and for how long."""

    def __init__(self) -> None:
        """Begin without."""
        self._since: int | None = None

    def is_confirmed(self, *, last: int, known: int, now: Instant) -> bool:
        """Note where the log ends; tell whether it has ended too early for long enough."""
        if last >= known:
            self._since = None
            return False
        if self._since is None:
            self._since = now.monotonic
        return now.monotonic - self._since >= DOUBT_US

    @property
    def is_raised(self) -> bool:
        """Whether it ended too early when it was asked last."""
        return self._since is not None


class Following:
    """One server's state of one market on its way along the log.

    Attributes:
        market: The state; what it was at the log's end, once `is_current`.
        log_end: The newest entry that is known to stand.
        is_current: Whether the state was at the log's end, and has not fallen far behind since.
        is_fresh: Whether the log's end was asked for, and answered, since `refresh`.
    """

    def __init__(
        self,
        market: Market,
        *,
        known: int,
        is_current: bool = False,
        on_commit: Callable[[Market], list[Effect]],
    ) -> None:
        """Follow from a state.

        Args:
            market: The state.
            known: The newest commit that was ever known to stand in the log.
            is_current: Whether the state is already at the log's end.
            on_commit: Called after each commit; nothing more is applied in this step when it wants
                something done.
        """
        self.market = market
        self.log_end = market.sequence
        self.is_current = is_current
        self.is_fresh = False
        self._known = known
        self._on_commit = on_commit
        self._is_paused = False
        self._is_asking = False
        self._is_asking_again = False
        # What was known to stand when the log's end was asked for.
        self._known_when_asked = 0
        self._is_reading = False
        self._quiet_since = 0
        # The highest place that something was heard of since the log's end was asked for, and that
        # it was then asked for because of; until when what is heard is not tried, and is no reason
        # to ask. NB: these numbers are anybody's, and are compared with others, nothing else.
        self._hint = 0
        self._asked_hint = 0
        self._distrusts_until = 0
        self._passes_until = 0
        self._doubt = Doubt()
        # Whether the log once ended too early, and nothing showed since that it ends with what was
        # applied: it may have lost that, and have grown again over the loss; and whether that is
        # being looked at.
        self._is_unsure = False
        self._is_looking = False

    @property
    def is_at_end(self) -> bool:
        """Whether the state is at the log's end, as far as is known."""
        return self.market.sequence >= max(self.log_end, self._known)

    @property
    def lag(self) -> int:
        """How many entries are known to stand that were not applied."""
        return max(self.log_end - self.market.sequence, 0)

    def refresh(self) -> list[Effect]:
        """Ask where the log ends."""
        self.is_fresh = False
        if self._is_asking:
            # What is under way may be answered as of before.
            self._is_asking_again = True
            return []
        return self._ask()

    def _ask(self) -> list[Effect]:
        self._is_asking = True
        self._is_asking_again = False
        self._known_when_asked = max(self.market.sequence, self.log_end, self._known)
        return [FindEnd()]

    def pause(self) -> None:
        """Apply nothing from now on: the next entry is to be one's own. It is time to ask again
        where the log ends, if it is not."""
        self._is_paused = True
        self.is_fresh = False

    def resume(self) -> list[Effect]:
        """Go on, whoever's the next entry is."""
        self._is_paused = False
        return self.refresh()

    def tick(self, now: Instant) -> list[Effect]:
        """Ask where the log ends, if it has been quiet for a while."""
        if self._is_paused or self._is_reading or now.monotonic - self._quiet_since < SILENCE_US:
            return []
        self._quiet_since = now.monotonic
        return self.refresh()

    def reaches(self, sequence: int) -> None:
        """Note that an entry stands in the log."""
        self.log_end = max(self.log_end, sequence)

    def heard(self, entries: list[Entry], now: Instant) -> list[Effect]:
        """Apply what is next and follows; ask about anything else that is new.

        What does not follow may be made up: it is dropped, and the log asked.
        """
        market = self.market
        effects: list[Effect] = []
        before = market.sequence
        if not self._is_reading and not self._is_paused and now.monotonic >= self._distrusts_until:
            # What is read arrives in any case, and in order.
            try:
                effects = self._apply(entries)
            except Diverged as diverged:
                self._distrusts_until = now.monotonic + DISTRUST_US
                text = f"what was heard does not follow, and is read from the log: {diverged}"
                effects.append(Note(text, is_warning=True))
        if market.sequence > before and not self._doubt.is_raised:
            # A doubt ends only when the log is asked, however much is heard.
            self._quiet_since = now.monotonic
        self._hint = max(self._hint, *(entry.sequence for entry in entries))
        return effects + self._advance(now)

    def read(self, entries: list[Entry], now: Instant) -> list[Effect]:
        """Apply what was read.

        Raises:
            Contradicted: an entry does not follow from the state.
        """
        self._is_reading = False
        self._quiet_since = now.monotonic
        if not entries:
            # Trimmed in this very moment: what is left may not reach back far enough.
            return self.refresh()
        if self._is_paused:
            return []
        try:
            effects = self._apply(entries)
        except Diverged as diverged:
            raise Contradicted(str(diverged)) from diverged
        return effects + self._advance(now)

    def end_found(self, first: int, last: int, now: Instant) -> list[Effect]:
        """Take note of the log's bounds.

        Raises:
            Contradicted: it has lost commits.
            Overtaken: it begins too late.
        """
        self._is_asking = False
        self._quiet_since = now.monotonic
        # More may have been heard since: the answer is as old as the question.
        known = self._known_when_asked
        was_raised = self._doubt.is_raised
        text = f"the log ends at {last}, but commit {known} was stored"
        if self._doubt.is_confirmed(last=last, known=known, now=now):
            raise Contradicted(f"{text}: it has lost commits")
        if self._doubt.is_raised:
            self.is_current = False
            self._is_unsure = True
            return [] if was_raised else [Note(f"{text}: asking again", is_warning=True)]
        self.reaches(last)
        if self._is_paused:
            return []
        if first > self.market.sequence + 1:
            raise Overtaken(first)
        if first > self.market.sequence:
            # Trimmed just up to here: there is nothing left to compare.
            self._is_unsure = False
        if self._is_asking_again:
            return self._ask() + self._advance(now)
        self.is_fresh = True
        if self._asked_hint > last:
            self._passes_until = now.monotonic + DISTRUST_US
        self._asked_hint = 0
        return self._advance(now)

    def stands(self, sequence: int, entry: Entry | None, now: Instant) -> list[Effect]:
        """Take note of what stands where the state is.

        Raises:
            Contradicted: another commit than the one that was applied.
        """
        if not self._is_looking:
            return []
        self._is_looking = False
        market = self.market
        if entry is None or sequence != market.sequence:
            # The next look at the log's end asks again.
            return []
        if hash_of(entry.payload) != market.hash:
            raise Contradicted(
                f"the log has another commit {sequence} than the one that was stored there: it has"
                " lost commits"
            )
        self._is_unsure = False
        return self._advance(now)

    def _apply(self, entries: list[Entry]) -> list[Effect]:
        market = self.market
        effects: list[Effect] = []
        for entry in entries:
            if entry.sequence == market.sequence + 1:
                market.apply_commit(entry.payload)
                # It names what was applied before.
                self._is_unsure = False
                self.reaches(market.sequence)
                effects = self._on_commit(market)
                if effects:
                    break
        return effects

    def _advance(self, now: Instant) -> list[Effect]:
        if self._is_paused:
            return []
        market = self.market
        if self.lag > LAG_COUNT_MAX:
            self.is_current = False
        if self.lag > 0:
            if self._is_reading:
                return []
            self._is_reading = True
            return [ReadLog(market.sequence + 1, self.log_end)]
        if (
            self._hint > market.sequence
            and now.monotonic >= self._passes_until
            and not self._doubt.is_raised
        ):
            self._asked_hint, self._hint = self._hint, 0
            return self.refresh()
        if self.is_fresh and not self.is_current and self.is_at_end:
            if self._is_unsure and market.sequence > 0:
                if self._is_looking:
                    return []
                self._is_looking = True
                return [Look(market.sequence)]
            self.is_current = True
            return [Note(f"caught up at commit {market.sequence}, digest {market.digest}")]
        return []
