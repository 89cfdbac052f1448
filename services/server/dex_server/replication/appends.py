"""Appends under way, and how each is settled by what stands in its place.

Theory of operation. An append that is not confirmed is settled by what stands at its sequence:
these bytes, stored; others', so another leads, and all that is under way is refused; nothing, so
nothing is decided, and the same bytes are sent again. Only the oldest is ever settled so: a later
one cannot stand before it. What is stored comes out in the order of the log.

Knows nothing of what the entries say, nor of who waits for them.
"""

from collections import deque
from typing import Generic, TypeVar

from dex_server.replication.effects import Append, Effect, Instant, Look
from dex_server.replication.ports import Entry, Position

T = TypeVar("T")


class Deposed(Exception):
    """Another's entry stands where ours should: nothing of what is under way is ever stored.

    Nothing may be answered for what was executed; what only waited gets `retry`.
    """


class _UnderWay(Generic[T]):
    __slots__ = (
        "after",
        "is_confirmed",
        "is_looked_for",
        "is_undecided",
        "payload",
        "rests",
        "since",
    )

    def __init__(self, payload: bytes, after: Position, rests: T, *, since: int) -> None:
        self.payload = payload
        self.after = after
        self.rests = rests
        self.since = since
        self.is_confirmed = False
        self.is_undecided = False
        self.is_looked_for = False

    @property
    def sequence(self) -> int:
        return self.after.sequence + 1


class Appends(Generic[T]):
    """The appends of one server to one log, oldest first, each with what rests on it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._under_way: deque[_UnderWay[T]] = deque()

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def newest(self) -> T:
        """What rests on the newest; there must be one."""
        return self._under_way[-1].rests

    def unknown_us(self, now: Instant) -> int:
        """Tell for how long the oldest has been under way; 0 when none is."""
        return now.monotonic - self._under_way[0].since if self._under_way else 0

    def begin(self, payload: bytes, after: Position, rests: T, now: Instant) -> Append:
        """Append an entry after a position: the newest under way, or the log's end."""
        self._under_way.append(_UnderWay(payload, after, rests, since=now.monotonic))
        return Append(payload, after)

    def confirmed(self, sequence: int) -> list[T]:
        """Note that an entry is stored; give what rests on those that now are, oldest first."""
        for each in self._under_way:
            if each.sequence == sequence:
                each.is_confirmed = True
        stored = []
        while self._under_way and self._under_way[0].is_confirmed:
            stored.append(self._under_way.popleft().rests)
        return stored

    def undecided(self, sequence: int) -> None:
        """Note that nobody knows what became of an entry; `look` says what to do."""
        for each in self._under_way:
            if each.sequence == sequence and not each.is_confirmed:
                each.is_undecided = True

    def look(self) -> list[Effect]:
        """Look what stands in the oldest one's place, if nobody knows what became of it."""
        # A later one waits its turn: nothing can stand there before this one does.
        if not self._under_way or not self._under_way[0].is_undecided:
            return []
        oldest = self._under_way[0]
        if oldest.is_looked_for:
            return []
        oldest.is_looked_for = True
        return [Look(oldest.sequence)]

    def stands(self, sequence: int, entry: Entry | None) -> tuple[list[T], list[Effect]]:
        """Settle the oldest by what stands in its place.

        Returns:
            What rests on those that are stored, and what is to be done.

        Raises:
            Deposed: another's entry stands there.
        """
        if not self._under_way or self._under_way[0].sequence != sequence:
            return [], []
        oldest = self._under_way[0]
        oldest.is_looked_for = False
        if entry is None:
            oldest.is_undecided = False
            return [], [Append(oldest.payload, oldest.after, again=True)]
        if entry.payload != oldest.payload:
            raise Deposed(f"another's entry stands at {sequence}")
        return self.confirmed(sequence), self.look()
