"""Leading a market: group commit, and answers only for what is stored.

Theory of operation. Requests wait in a queue. Whenever the window of appends has room, what waits
is executed, in order, and sealed into one commit, which is appended. The state is then ahead of
the log, so nobody is told of it: receipts and answers to queries hang on the newest commit they
rest on (a *pending* one), and leave when that one and all before it are stored.

An append that is not confirmed is settled by what stands in its place: these bytes, stored;
others', so another leads, and this leadership is over; nothing, so nothing is decided, and the
same bytes are sent again. Only the oldest pending commit is ever settled so: a later one cannot
stand before it.

Knows nothing of elections nor of how a leadership begins, other than that the first commit of a
term is pending like any other.
"""

from collections import deque
from typing import Final

from dex_engine import Market
from dex_protocol import limits
from dex_protocol.administration import AdminReply
from dex_protocol.codec import encode
from dex_protocol.events import AnyEvent
from dex_protocol.reasons import RetryReason
from dex_protocol.receipts import Receipt, refused, retry
from dex_server.replication import views
from dex_server.replication.commits import Draft, Waiting, encoded_events
from dex_server.replication.effects import (
    Administered,
    Append,
    Asked,
    Effect,
    Instant,
    Look,
    ReplyTo,
    Request,
    Send,
)
from dex_server.replication.ports import Entry, Position

UNKNOWN_US_MAX: Final = 1_000_000
"""An append unknown for so long means that the log is out of reach: peers are told to retry."""


class _Pending:
    # A commit on its way into the log, and who waits for it.
    __slots__ = (
        "after",
        "answers",
        "is_confirmed",
        "payload",
        "replies",
        "since",
        "told_bytes",
        "told_count",
        "undecided",
    )

    def __init__(self, payload: bytes, after: Position, draft: Draft, *, since: int) -> None:
        self.payload = payload
        self.after = after
        self.replies = draft.replies
        self.answers = draft.answers
        self.told_count = 0
        self.told_bytes = 0
        self.since = since
        self.is_confirmed = False
        self.undecided = False

    @property
    def sequence(self) -> int:
        return self.after.sequence + 1


class Deposed(Exception):
    """Another's entry stands where this leadership's should: it is over.

    Nothing may be answered for what was executed; what only waited gets `retry`.
    """


class Leadership:
    """One server's leadership of one market, from its first commit to its end.

    Attributes:
        market: The state, ahead of the log by what is pending.
        stored: The newest commit known to stand in the log.
        events_executed: How many events it has made.
        has_more_to_tell: Whether queries could be answered at once that were left for the next
            step, so that the world is looked at in between.
    """

    def __init__(self, market: Market, *, server: str, window: int) -> None:
        self.market = market
        self.server = server
        self.window = window
        self.stored = market.sequence
        self.events_executed = 0
        self._queue: deque[Waiting] = deque()
        self._queue_commands = 0
        self._queue_bytes = 0
        self._administered: deque[Administered] = deque()
        self._asked: deque[Asked] = deque()
        self._pending: deque[_Pending] = deque()
        # Answers to queries that wait for a pending commit, and their bytes.
        self._told_count = 0
        self._told_bytes = 0
        # What was executed and is in no commit yet: one that is being filled, and the one after
        # it, opened by a command that did not fit.
        self._draft: Draft | None = None
        self._following: Draft | None = None
        self._is_finishing = False
        self.has_more_to_tell = False

    # --- What happens to it ---------------------------------------------------------------------

    def begin(self, events: list[AnyEvent], now: Instant) -> list[Effect]:
        """Append the first commit of the term, at the market's time."""
        self._draft = Draft(self.market, time=self.market.time)
        self._draft.add(self.market, events, encoded_events(events))
        return [self._seal(now)]

    def take(self, requests: list[Request], now: Instant) -> list[Effect]:
        """Put requests into the queue; answer at once those that have no place in it."""
        effects: list[Effect] = []
        for request in requests:
            waiting = Waiting(request)
            # Refusals that need no state are answered at once.
            if waiting.is_refused:
                effects.append(waiting.sent_back(RetryReason.busy))
            elif self.is_log_out_of_reach(now):
                effects.append(waiting.sent_back(RetryReason.unavailable))
            elif not self._has_room(waiting):
                effects.append(waiting.sent_back(RetryReason.busy))
            else:
                self._queue.append(waiting)
                self._queue_commands += len(waiting.elements)
                self._queue_bytes += waiting.bytes
        return effects

    def ask(self, asked: Asked) -> list[Effect]:
        """Put a query into the queue."""
        if len(self._asked) + self._told_count >= limits.WAITING_QUERIES_COUNT_MAX:
            return [Send(asked.reply_to, encode(retry(RetryReason.busy)))]
        self._asked.append(asked)
        return []

    def administer(self, wish: Administered) -> list[Effect]:
        """Put an operator's wish into the queue, before all commands."""
        if len(self._administered) >= limits.WAITING_WISHES_COUNT_MAX:
            return [Send(wish.reply_to, encode(retry(RetryReason.busy)))]
        self._administered.append(wish)
        return []

    def confirmed(self, sequence: int) -> list[Effect]:
        """Note that a pending commit is stored; answer who waited for it and those before."""
        for pending in self._pending:
            if pending.sequence == sequence:
                pending.is_confirmed = True
        effects: list[Effect] = []
        while self._pending and self._pending[0].is_confirmed:
            pending = self._pending.popleft()
            self.stored = pending.sequence
            effects += [Send(waiting.reply_to, waiting.reply()) for waiting in pending.replies]
            effects += [Send(reply_to, answer) for reply_to, answer in pending.answers]
            self._told_count -= pending.told_count
            self._told_bytes -= pending.told_bytes
        return effects + self._settle_oldest()

    def undecided(self, sequence: int) -> list[Effect]:
        """Note that nobody knows what became of a pending commit."""
        for pending in self._pending:
            if pending.sequence == sequence and not pending.is_confirmed:
                pending.undecided = True
                # A later one waits its turn: nothing can stand there before this one does.
                return self._settle_oldest() if pending is self._pending[0] else []
        return []

    def stands(self, sequence: int, entry: Entry | None) -> list[Effect]:
        """Settle the oldest pending commit by what stands in its place.

        Raises:
            Deposed: another's entry stands there.
        """
        if not self._pending or self._pending[0].sequence != sequence:
            return []
        oldest = self._pending[0]
        if entry is None:
            oldest.undecided = False
            return [Append(oldest.payload, oldest.after, again=True)]
        if entry.payload != oldest.payload:
            raise Deposed(f"another's entry stands at {sequence}")
        return self.confirmed(sequence)

    def flush(self, why: RetryReason) -> list[Effect]:
        """Answer `retry` to all that was not executed, and empty the queues."""
        effects: list[Effect] = []
        for waiting in self._queue:
            if waiting.is_begun:
                # What it rests on may be stored yet: it is answered with that, or not at all.
                waiting.retry_rest(why)
                self._newest().replies.append(waiting)
            else:
                effects.append(waiting.sent_back(why))
        again = encode(retry(why))
        effects += [Send(asked.reply_to, again) for asked in self._asked]
        effects += [Send(wish.reply_to, again) for wish in self._administered]
        self._queue.clear()
        self._asked.clear()
        self._administered.clear()
        self._queue_commands = self._queue_bytes = 0
        return effects

    def finish(self, why: RetryReason) -> list[Effect]:
        """Begin nothing more, not even what is due; answer `retry` to all that waits."""
        self._is_finishing = True
        return self.flush(why)

    # --- How it stands --------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether all that was executed is stored."""
        return not self._pending and self._draft is None

    @property
    def is_at_commit(self) -> bool:
        """Whether the state is the one after a commit, stored or not."""
        return self._draft is None

    def is_log_out_of_reach(self, now: Instant) -> bool:
        """Tell whether the oldest append has been unknown for too long."""
        if not self._pending:
            return False
        return now.monotonic - self._pending[0].since >= UNKNOWN_US_MAX

    # --- What it does ---------------------------------------------------------------------------

    def proceed(self, now: Instant) -> list[Effect]:
        """Execute and append as much as the window has room for, and answer what can be."""
        if self.is_log_out_of_reach(now):
            return self.flush(RetryReason.unavailable)
        effects: list[Effect] = []
        while len(self._pending) < self.window:
            if self._draft is None:
                if not self._has_work(now):
                    break
                effects += self._execute_group(now)
            # What a command opened that did not fit goes as it is: filled up, it would be followed
            # by another for as long as the load lasts, and the state never be that after a commit.
            if self._draft is not None:
                effects.append(self._seal(now))
        return effects + self._answer_asked(now)

    def _execute_group(self, now: Instant) -> list[Effect]:
        time_before = self.market.time
        self._draft = self._keep_house(now)
        effects = self._fill(self._draft, now)
        if not self._draft.is_needed:
            # All that waited had waited too long: nothing happened, at no time.
            self._draft = None
            self.market.time = time_before
        return effects

    def _has_work(self, now: Instant) -> bool:
        if self._is_finishing:
            return False
        if self._queue or self._administered:
            return True
        return self.market.is_due(self._time(now))

    def _keep_house(self, now: Instant) -> Draft:
        draft = Draft(self.market, time=self._time(now))
        events = self.market.housekeeping(draft.time)
        draft.add(self.market, events, encoded_events(events))
        return draft

    def _fill(self, draft: Draft, now: Instant) -> list[Effect]:
        # What is due and did not fit into one commit comes before all else, in the next one.
        while self._administered and not self.market.is_due(draft.time):
            self._execute_administered(draft, self._administered.popleft())
        effects: list[Effect] = []
        while self._queue and not self.market.is_due(draft.time):
            waiting = self._queue[0]
            if now.monotonic - waiting.arrived >= limits.LATE_US:
                effects += self._send_back_late(waiting, draft)
            elif self._execute(waiting, draft):
                self._dequeue()
            else:
                break
        return effects

    def _execute(self, waiting: Waiting, draft: Draft) -> bool:
        """Execute a request as far as the draft has room; tell whether it is done."""
        market = self.market
        elements = waiting.elements
        while waiting.next < len(elements):
            is_full = len(draft.receipts) >= limits.GROUP_COMMANDS_COUNT_MAX
            if is_full or self._following is not None:
                return False
            element = elements[waiting.next]
            if type(element) is Receipt:
                waiting.add(element)
                continue
            if not waiting.has_room:
                # Its peer sends the rest again, in a request whose reply has room for it.
                waiting.retry_rest(RetryReason.busy)
                break
            receipt, events = market.execute(element, peer=waiting.peer, time=draft.time)  # type: ignore[arg-type]
            waiting.add(receipt)
            encoded = encoded_events(events)
            target = draft
            if not draft.has_room(encoded):
                target = self._following = Draft(market, time=draft.time)
            target.add(market, events, encoded)
            target.receipts.append(receipt)
        (self._following or draft).replies.append(waiting)
        return True

    def _execute_administered(self, draft: Draft, wish: Administered) -> None:
        reason, message, events = self.market.administer(wish.what, wish.change, time=draft.time)
        draft.add(self.market, events, encoded_events(events))
        sequence = self.market.sequence + 1
        if reason is None:
            answer = encode(AdminReply(sequence))
        else:
            receipt = refused(reason, message)
            receipt.sequence = sequence
            answer = encode(receipt)
        draft.answers.append((wish.reply_to, answer))

    def _send_back_late(self, waiting: Waiting, draft: Draft) -> list[Effect]:
        self._dequeue()
        if not waiting.is_begun:
            return [waiting.sent_back(RetryReason.late)]
        waiting.retry_rest(RetryReason.late)
        draft.replies.append(waiting)
        return []

    def _dequeue(self) -> None:
        waiting = self._queue.popleft()
        self._queue_commands -= len(waiting.elements)
        self._queue_bytes -= waiting.bytes

    def _seal(self, now: Instant) -> Append:
        draft = self._draft
        assert draft is not None
        after = Position(self.market.sequence, self.market.hash)
        payload = draft.seal(self.market)
        self.events_executed += len(draft.events)
        self._pending.append(_Pending(payload, after, draft, since=now.monotonic))
        self._draft, self._following = self._following, None
        return Append(payload, after)

    def _settle_oldest(self) -> list[Effect]:
        if self._pending and self._pending[0].undecided:
            return [Look(self._pending[0].sequence)]
        return []

    def _answer_asked(self, now: Instant) -> list[Effect]:
        # In between two commits there is nothing to tell.
        self.has_more_to_tell = False
        if not self._asked or not self.is_at_commit:
            return []
        effects: list[Effect] = []
        still: deque[Asked] = deque()
        told_count = told_bytes = 0
        for asked in self._asked:
            if asked.query.min_sequence <= self.market.sequence:
                if self._told_bytes >= limits.TOLD_WAITING_BYTES_MAX:
                    # The next confirmation makes room.
                    still.append(asked)
                    continue
                if (
                    told_count >= limits.TOLD_QUERIES_COUNT_MAX
                    or told_bytes >= limits.TOLD_BYTES_MAX
                ):
                    self.has_more_to_tell = True
                    still.append(asked)
                    continue
                told = views.answer(self.market, asked.query, peer=asked.peer, server=self.server)
                answer = encode(told)
                told_count += 1
                told_bytes += len(answer)
                effects += self._tell(asked.reply_to, answer)
            elif now.monotonic - asked.arrived < limits.MIN_SEQUENCE_WAIT_US:
                still.append(asked)
            else:
                effects.append(Send(asked.reply_to, encode(retry(RetryReason.unavailable))))
        self._asked = still
        return effects

    def _tell(self, reply_to: ReplyTo, answer: bytes) -> list[Effect]:
        if not self._pending:
            return [Send(reply_to, answer)]
        self._pending[-1].answers.append((reply_to, answer))
        self._pending[-1].told_count += 1
        self._pending[-1].told_bytes += len(answer)
        self._told_count += 1
        self._told_bytes += len(answer)
        return []

    def _newest(self) -> Draft | _Pending:
        return self._following or self._draft or self._pending[-1]

    def _has_room(self, waiting: Waiting) -> bool:
        commands = self._queue_commands + len(waiting.elements)
        return (
            commands <= limits.WAITING_COMMANDS_COUNT_MAX
            and self._queue_bytes + waiting.bytes <= limits.WAITING_BYTES_MAX
        )

    def _time(self, now: Instant) -> int:
        # Time comes with the commit and never goes back, whatever the clock does.
        return max(now.wall, self.market.time)
