"""A market: its replicated state, executed by a leader and followed by everybody else.

Theory of operation. The leader's `execute` decides, from the state, what a command leads to,
changes the state so, and writes it down as events. Everybody else's `apply` reads events and
changes the state in the same ways (state.py has them all). Neither knows the other, and both end
in the same state, digest included.

Events become commits: `seal` closes one over what was executed; `apply_commit` follows one, and
checks sequence, chain, time, term and digest, and each event against the state. A commit that is
refused leaves the market as it was. The state between two commits belongs to the leader alone.
After any other exception of this module a market must not be used any more.

Knows nothing of where commits are stored, of requests, of clocks, nor of which server leads.
"""

from dex_engine import execution, following, invariants, snapshot
from dex_engine.book import Book
from dex_engine.errors import Diverged, InvariantViolated
from dex_engine.state import Bounds, ReplicatedState
from dex_engine.undo import Undo
from dex_protocol import limits
from dex_protocol.administration import What
from dex_protocol.codec import UNREADABLE, decode_commit, encode_commit, hash_of
from dex_protocol.commands import Command
from dex_protocol.events import AnyEvent, Commit, LeaderChanged, MarketOpened, Trade
from dex_protocol.numbers import COUNT_MAX
from dex_protocol.queries import TimedTrade
from dex_protocol.reasons import Reason
from dex_protocol.specification import Specification, SpecificationChange

__all__ = ["Bounds", "Market"]


class Market(ReplicatedState):
    """One market, for a leader or for a follower; see `ReplicatedState` for its attributes."""

    # --- For the leader -------------------------------------------------------------------------

    def execute(self, command: Command, *, peer: str, time: int) -> execution.Executed:
        """Execute one well-formed command.

        Args:
            command: Found well-formed and of this peer (reasons 1001 to 1004) before.
            peer: Who sent it.
            time: The commit's, in µs; never before the market's.

        Returns:
            The receipt, without its sequence, and the events in the order they happened; no
            events for what changed nothing.

        Ordering: `housekeeping` of that time has nothing more to do.
        """
        if time != self.time:
            self._advance(time)
        return execution.execute(self, command, peer)

    def housekeeping(self, time: int) -> list[AnyEvent]:
        """Do what is due before any command: expiries, and the cancels of a closed market.

        Returns:
            At most `housekeeping_count_max` events; fewer, or none, when nothing more is due.
        """
        self._advance(time)
        return execution.housekeeping(self)

    def is_due(self, time: int) -> bool:
        """Tell whether housekeeping has something to do at a time."""
        if self.state == "closed":
            return self.book.bids.best is not None or self.book.asks.best is not None
        return bool(self.expiring) and self.expiring.peekitem(0)[0][0] <= time

    def open(self, specification: Specification, *, log_id: str, time: int) -> list[AnyEvent]:
        """Open a market that has no commit yet, with a valid specification."""
        assert not self.is_open, "the market is open already"
        self._advance(time)
        event = MarketOpened(specification=specification, log_id=log_id)
        self.apply(event)
        return [event]

    def administer(
        self, what: What, change: SpecificationChange | None = None, *, time: int
    ) -> tuple[Reason | None, str | None, list[AnyEvent]]:
        """Change the market's specification or state.

        Returns:
            Why it was refused, the sentence that says so, and the events; no events for what
            changed nothing.
        """
        self._advance(time)
        return execution.administer(self, what, change)

    def lead(
        self,
        *,
        server: str,
        term: int,
        protocol: int,
        rules: int,
        time: int,
        incarnation: str = "",
    ) -> list[AnyEvent]:
        """Begin a term."""
        self._advance(time)
        event = LeaderChanged(
            server=server, term=term, protocol=protocol, rules=rules, incarnation=incarnation
        )
        self.apply(event)
        return [event]

    def seal(self, events: list[AnyEvent], encoded: bytes, *, digest: str) -> bytes:
        """Close a commit over what was executed since the one before.

        Args:
            events: In the order they happened.
            encoded: The same, as JSON, joined by commas.
            digest: The book's digest after the last of them.

        Returns:
            The commit's payload.
        """
        sequence = self.sequence + 1
        payload = encode_commit(
            market=self.name,
            sequence=sequence,
            term=self.term,
            time=self.time,
            previous=self.hash,
            digest=digest,
            events=encoded,
        )
        self._sealed(events, sequence, hash_of(payload))
        return payload

    # --- For everybody else ---------------------------------------------------------------------

    def apply_commit(self, payload: bytes) -> Commit:
        """Follow one commit: all of it, or nothing.

        Returns:
            The commit, decoded.

        Raises:
            Diverged: it does not follow from this state, is impossible in it, or does not lead to
                its digest. The market is what it was.
        """
        sequence = self.sequence + 1
        if len(payload) > limits.COMMIT_BYTES_MAX:
            most = f"of at most {limits.COMMIT_BYTES_MAX}"
            raise Diverged(sequence, "bytes", expected=most, found=len(payload))
        try:
            commit = decode_commit(payload)
        except UNREADABLE as error:
            raise Diverged(sequence, "bytes", expected="a commit", found=error) from error
        self._check_follows(commit)
        undo = Undo(self)
        try:
            self._follow(commit, undo)
        except BaseException:
            undo.take_back()
            raise
        undo.end()
        self._sealed(commit.events, commit.sequence, hash_of(payload))
        return commit

    def _follow(self, commit: Commit, undo: Undo) -> None:
        sequence = commit.sequence
        self.time = commit.time
        try:
            following.follow(self, commit, undo)
        except (AssertionError, KeyError, ValueError) as error:
            raise Diverged(sequence, "events", expected="possible", found=error) from error
        if commit.digest != self.digest:
            raise Diverged(sequence, "digest", expected=commit.digest, found=self.digest)
        if commit.term != self.term:
            raise Diverged(sequence, "term", expected=self.term, found=commit.term)

    def apply(self, event: AnyEvent) -> None:
        """Establish what an event says.

        Raises:
            InvariantViolated: the event is impossible in this state.
        """
        following.apply(self, event)

    def _check_follows(self, commit: Commit) -> None:
        expected = self.sequence + 1
        if commit.market != self.name:
            raise Diverged(expected, "market", expected=self.name, found=commit.market)
        if commit.sequence != expected:
            raise Diverged(expected, "sequence", expected=expected, found=commit.sequence)
        if commit.previous != self.hash:
            raise Diverged(expected, "previous", expected=self.hash, found=commit.previous)
        if not self.time <= commit.time <= COUNT_MAX:
            raise Diverged(expected, "time", expected=f"at least {self.time}", found=commit.time)

    def _sealed(self, events: list[AnyEvent], sequence: int, payload_hash: str) -> None:
        for event in events:
            if type(event) is Trade:
                self.trades.append(
                    TimedTrade(
                        event.trade_id,
                        event.price,
                        event.quantity,
                        event.maker_order_id,
                        event.taker_order_id,
                        event.taker_side,
                        self.time,
                        sequence,
                    )
                )
        self.sequence = sequence
        self.hash = payload_hash
        self.events_count += len(events)

    def _advance(self, time: int) -> None:
        assert time >= self.time, f"expected a time of at least {self.time}, found {time}"
        self.time = time

    # --- Whole states ---------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Write the whole replicated state as canonical JSON: equal states, equal bytes."""
        return snapshot.write(self)

    @classmethod
    def restore(cls, data: bytes, bounds: Bounds = Bounds()) -> "Market":  # noqa: B008  (frozen)
        """Build the market whose `snapshot` these bytes are, and check it.

        Raises:
            InvariantViolated: the bytes are no snapshot, or of an impossible state.
        """
        market = cls("", bounds)
        try:
            snapshot.read(market, data)
            market.check()
        except InvariantViolated:
            market.dispose()
            raise
        return market

    def dispose(self) -> None:
        """Take the state apart, so that its memory is free at once; it must not be used again.

        Orders and levels refer to each other, and orders are outside the collector's sight.
        """
        for side in (self.book.bids, self.book.asks):
            for level in side.levels.values():
                for order in list(level):
                    order.level = order.older = order.newer = None
        self.peers.clear()
        self.book = Book()

    def check(self) -> None:
        """Assert every invariant of the state.

        Raises:
            InvariantViolated: one does not hold.

        Complexity: linear in the state.
        """
        invariants.check(self)
