"""Leading a market: group commit, and answers only for what is stored.

Theory of operation. Requests wait in a queue in which peers take turns; what is more than a peer
may send does not get there. Whenever the window of appends has room, what waits is executed, turn
by turn, and sealed into one commit, which is appended. The state is then ahead of the log, so
nobody is told of it: receipts and answers to queries hang on the newest commit they rest on (a
*pending* one), and leave when that one and all before it are stored.

A leadership is as good as its last sign from the log: a commit that was confirmed, or a look at
the log's end that found nobody else's. Without one for too long, peers are told to retry.

Knows nothing of elections nor of how a leadership begins.
"""

from collections import deque
from functools import lru_cache
from typing import Final

from dex_engine import Market
from dex_protocol import limits
from dex_protocol.administration import AdminReply
from dex_protocol.codec import encode
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt, refused, retry
from dex_protocol.specification import PeerLimits
from dex_server.replication.allowances import Allowances, too_fast
from dex_server.replication.appends import Appends, Deposed
from dex_server.replication.commits import Draft, Waiting
from dex_server.replication.effects import (
    Administered,
    Append,
    Effect,
    FindEnd,
    Instant,
    Request,
    Send,
)
from dex_server.replication.following import Doubt
from dex_server.replication.ports import Entry, Position
from dex_server.replication.questions import Questions, Told
from dex_server.replication.waiting import FairQueue

UNKNOWN_US_MAX: Final = 1_000_000
"""An append unknown for so long means that the log is out of reach: peers are told to retry."""

PROBE_US: Final = 500_000
"""How often a leader that has nothing to append asks where the log ends: three times in the time
after which it must have had a sign."""

UNPROVEN_US_MAX: Final = 1_500_000
"""Without a sign from the log for so long, somebody else may well lead: a server counts as gone
after 2 s of silence."""


class _Resting:
    # Who waits for a commit to be stored.
    __slots__ = ("answers", "digest", "replies", "sequence", "told_bytes", "told_count")

    def __init__(self, sequence: int, draft: Draft) -> None:
        self.sequence = sequence
        self.digest = draft.digest
        self.replies = draft.replies
        self.answers = draft.answers
        self.told_count = 0
        self.told_bytes = 0


class Leadership:
    """One server's leadership of one market, from the beginning of its term to its end.

    Attributes:
        market: The state, ahead of the log by what is pending.
        stored: The newest commit known to stand in the log.
        stored_digest: The book's digest after that commit.
        proven_at: When the log last showed that nobody else leads (monotonic, µs).
        has_log: Whether it was so lately, when that was asked for last.
    """

    def __init__(self, market: Market, *, questions: Questions, window: int, now: Instant) -> None:
        """Begin, with the term's first commit stored and the state as it is after it."""
        self.market = market
        self.window = window
        self.stored = market.sequence
        self.stored_digest = market.digest
        self.proven_at = now.monotonic
        self.has_log = True
        # Of asking where the log ends.
        self._is_probing = False
        self._probed_at = 0
        self._doubt = Doubt()
        self._questions = questions
        self._queue = FairQueue()
        self._allowances = Allowances(market, now=now)
        self._administered: deque[Administered] = deque()
        self._pending: Appends[_Resting] = Appends()
        # Answers to queries that wait for a pending commit, and their bytes.
        self._told_count = 0
        self._told_bytes = 0
        # What was executed and is in no commit yet: one that is being filled, and the one after
        # it, opened by a command that did not fit.
        self._draft: Draft | None = None
        self._next_draft: Draft | None = None
        self._is_finishing = False

    # --- What happens to it ---------------------------------------------------------------------

    def take(self, requests: list[Request], now: Instant) -> list[Effect]:
        """Put requests into the queue; answer at once those that have no place in it."""
        can_execute = not self.is_out_of_reach(now)
        answers = [self._take(request, now, can_execute=can_execute) for request in requests]
        return [answer for answer in answers if answer is not None]

    def _take(self, request: Request, now: Instant, *, can_execute: bool) -> Send | None:
        own = self.market.rules.limits_of(request.peer)
        size = len(request.payload)
        # What can be turned away unread comes first.
        admission = self._allowances.admit(request.peer, own, now)
        if admission != "read":
            if admission == "ignored":
                return None
            return Send(request.reply_to, _unread(request.peer, own))
        if size > own.request_bytes_max:
            message = f"expected at most {own.request_bytes_max} bytes in a request, found {size}"
            return Send(request.reply_to, encode(refused(Reason.batch_too_large, message)))
        waiting = Waiting(request, batch_count_max=own.batch_count_max)
        if waiting.is_batch:
            self._allowances.has_read(request.peer, len(waiting.elements))
        # Refusals that need no state are answered at once.
        if not waiting.orders and not waiting.cancels:
            return waiting.sent_back(RetryReason.busy)
        if not can_execute:
            return waiting.sent_back(RetryReason.unavailable)
        self._allowances.take(waiting, own, now)
        if waiting.is_limited and waiting.is_answered:
            return waiting.sent_back(RetryReason.rate_limited)
        if not self._queue.put(waiting):
            self._allowances.give_back(waiting)
            return waiting.sent_back(RetryReason.busy)
        return None

    def administer(self, wish: Administered) -> list[Effect]:
        """Put an operator's wish into the queue, before all commands."""
        if len(self._administered) >= limits.WAITING_WISHES_COUNT_MAX:
            return [Send(wish.reply_to, encode(retry(RetryReason.busy)))]
        self._administered.append(wish)
        return []

    def confirmed(self, sequence: int, now: Instant) -> list[Effect]:
        """Note that a pending commit is stored; answer who waited for it and those before."""
        return self._answer_stored(self._pending.confirmed(sequence), now) + self._pending.look()

    def undecided(self, sequence: int) -> list[Effect]:
        """Note that nobody knows what became of a pending commit."""
        self._pending.undecided(sequence)
        return self._pending.look()

    def stands(self, sequence: int, entry: Entry | None, now: Instant) -> list[Effect]:
        """Settle the oldest pending commit by what stands in its place.

        Raises:
            Deposed: another's entry stands there.
        """
        stored, effects = self._pending.stands(sequence, entry)
        return self._answer_stored(stored, now) + effects

    def log_ends_at(self, last: int, now: Instant) -> None:
        """Note where the log ends, which answers a probe and tells whether somebody else wrote.

        Raises:
            Deposed: somebody did, or the log has lost commits.
        """
        self._is_probing = False
        if self.proven_at >= self._probed_at:
            # Commits were stored meanwhile, and the log is longer than it was then.
            self._doubt = Doubt()
            return
        if self._doubt.is_confirmed(last=last, known=self.stored, now=now):
            raise Deposed(f"the log ends at {last}, but commit {self.stored} was stored")
        if last > self.stored + len(self._pending):
            raise Deposed(f"the log goes on to {last} without this server")
        if last == self.stored and not self._pending:
            self.proven_at = now.monotonic

    def probe(self, now: Instant) -> list[Effect]:
        """Ask where the log ends, if it has given no sign for a while."""
        quiet_since = max(self.proven_at, self._probed_at)
        if self._is_probing or now.monotonic - quiet_since < PROBE_US:
            return []
        self._is_probing = True
        self._probed_at = now.monotonic
        return [FindEnd()]

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
        effects += [Send(wish.reply_to, again) for wish in self._administered]
        self._queue.clear()
        self._administered.clear()
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

    def silent_us(self, now: Instant) -> int:
        """Tell for how long the log has given no sign."""
        return now.monotonic - self.proven_at

    def is_out_of_reach(self, now: Instant) -> bool:
        """Tell whether the log has been silent for too long to execute anything more."""
        return (
            self._pending.unknown_us(now) >= UNKNOWN_US_MAX
            or self.silent_us(now) >= UNPROVEN_US_MAX
        )

    # --- What it does ---------------------------------------------------------------------------

    def proceed(self, now: Instant) -> list[Effect]:
        """Execute and append as much as the window has room for, and answer what can be."""
        self._allowances.forget(now)
        self.has_log = not self.is_out_of_reach(now)
        if not self.has_log:
            return self.flush(RetryReason.unavailable) + self._questions.send_back()
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
        return effects + self._answer_questions(now)

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
        draft.take(self.market, events)
        return draft

    def _fill(self, draft: Draft, now: Instant) -> list[Effect]:
        # What is due and did not fit into one commit comes before all else, in the next one; then
        # the wishes that did not.
        while (
            self._administered
            and not self.market.is_due(draft.time)
            and draft.has_room_for(limits.SPECIFICATION_BYTES_MAX)
        ):
            self._execute_administered(draft, self._administered.popleft())
        effects: list[Effect] = []
        if self._administered:
            return effects
        queue, market = self._queue, self.market
        while (waiting := queue.first) is not None and not market.is_due(draft.time):
            if now.monotonic - waiting.arrived >= limits.LATE_US:
                effects += self._send_back_late(waiting, draft)
                queue.went_on(0, is_done=True)
                continue
            before = waiting.next
            is_done = self._execute(waiting, draft, count_max=queue.left)
            queue.went_on(waiting.next - before, is_done=is_done)
            if waiting.next == before:
                break
        return effects

    def _execute(self, waiting: Waiting, draft: Draft, *, count_max: int) -> bool:
        """Execute at most so many commands of a request, as far as the draft has room; tell whether
        it is done."""
        market, peer, time = self.market, waiting.peer, draft.time
        elements, receipts = waiting.elements, draft.receipts
        end = min(len(elements), waiting.next + count_max)
        while waiting.next < end:
            if len(receipts) >= limits.GROUP_COMMANDS_COUNT_MAX or self._next_draft is not None:
                return False
            element = elements[waiting.next]
            if type(element) is Receipt:
                waiting.add(element)
                continue
            if waiting.room < 0:
                # Its peer sends the rest again, in a request whose reply has room for it.
                waiting.retry_rest(RetryReason.busy)
                break
            executed = market.execute(element, peer=peer, time=time)  # type: ignore[arg-type]
            receipt, events = executed.receipt, executed.events
            waiting.add(receipt)
            if draft.take(market, events):
                receipts.append(receipt)
            else:
                self._next_draft = Draft(market, time=time)
                self._next_draft.take(market, events)
                self._next_draft.receipts.append(receipt)
        if waiting.next < len(elements):
            return False
        (self._next_draft or draft).replies.append(waiting)
        return True

    def _execute_administered(self, draft: Draft, wish: Administered) -> None:
        reason, message, events = self.market.administer(wish.what, wish.change, time=draft.time)
        draft.take(self.market, events)
        # It may be longer than a command's: a specification is in it.
        draft.encode()
        sequence = self.market.sequence + 1
        if reason is None:
            answer = encode(AdminReply(sequence))
        else:
            receipt = refused(reason, message)
            receipt.sequence = sequence
            answer = encode(receipt)
        draft.answers.append((wish.reply_to, answer))

    def _send_back_late(self, waiting: Waiting, draft: Draft) -> list[Effect]:
        if not waiting.is_begun:
            return [waiting.sent_back(RetryReason.late)]
        waiting.retry_rest(RetryReason.late)
        draft.replies.append(waiting)
        return []

    def _seal(self, now: Instant) -> Append:
        draft = self._draft
        assert draft is not None
        after = Position(self.market.sequence, self.market.hash)
        payload = draft.seal(self.market)
        self._draft, self._next_draft = self._next_draft, None
        return self._pending.begin(payload, after, _Resting(after.sequence + 1, draft), now)

    def _answer_stored(self, stored: list[_Resting], now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for resting in stored:
            self.stored = resting.sequence
            self.stored_digest = resting.digest
            self.proven_at = now.monotonic
            effects += [Send(waiting.reply_to, waiting.reply()) for waiting in resting.replies]
            effects += [Send(reply_to, answer) for reply_to, answer in resting.answers]
            self._told_count -= resting.told_count
            self._told_bytes -= resting.told_bytes
        return effects

    def _answer_questions(self, now: Instant) -> list[Effect]:
        # In between two commits there is nothing to tell.
        told, effects = self._questions.answer(
            self.market if self.is_at_commit else None,
            now,
            bytes_max=limits.TOLD_WAITING_BYTES_MAX - self._told_bytes,
            count_max=limits.WAITING_QUERIES_COUNT_MAX - self._told_count,
        )
        for each in told:
            effects += self._tell(each)
        return effects

    def _tell(self, told: Told) -> list[Effect]:
        if not self._pending:
            return [Send(told.reply_to, told.payload)]
        newest = self._pending.newest
        newest.answers.append((told.reply_to, told.payload))
        newest.told_count += 1
        newest.told_bytes += len(told.payload)
        self._told_count += 1
        self._told_bytes += len(told.payload)
        return []

    def _newest(self) -> Draft | _Resting:
        return self._next_draft or self._draft or self._pending.newest

    def _time(self, now: Instant) -> int:
        # Time comes with the commit and never goes back, whatever the clock does.
        return max(now.wall, self.market.time)


@lru_cache(maxsize=limits.PEERS_COUNT_MAX)
def _unread(peer: str, own: PeerLimits) -> bytes:
    # The answer that costs least, for whoever has it given most.
    return encode(retry(RetryReason.rate_limited, too_fast(peer, own)))
