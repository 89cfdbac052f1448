"""The product, broken on purpose: each mutant is a change of its source that simulation must catch.

Each names the seed of a world that kills it, and by what: a rule of the checker, or a kind of
trouble. When the simulation changes, so do its worlds, and `tests.simulation.hunt` finds the seeds
anew.

The fence is the log's own. What is simulated is the log in memory, which keeps it as JetStream
does (both pass the same suite), so the mutants of the fence are changes of that one.

Imports nothing of the product: what was imported before cannot be changed any more.
"""

from typing import Final

from msgspec import Struct

from tests.simulation import mutating
from tests.simulation.mutating import Change


class Mutant(Struct, frozen=True):
    """One way in which the product is broken."""

    breaks: str
    """What is broken, in a sentence."""
    changes: tuple[Change, ...]
    seed: int
    """Of a world that kills it."""
    by: str
    """The rule of the checker that is broken there, or the kind of trouble."""


LOG: Final = "tests.contracts.memory"
APPENDS: Final = "dex_server.replication.appends"
CANDIDACY: Final = "dex_server.replication.candidacy"
FOLLOWING: Final = "dex_server.replication.following"
LEADING: Final = "dex_server.replication.leading"
REPLICA: Final = "dex_server.replication.replica"
UPKEEP: Final = "dex_server.replication.upkeep"
APPLYING: Final = "dex_engine.following"
EXECUTION: Final = "dex_engine.execution"
MARKET: Final = "dex_engine.market"
SNAPSHOT: Final = "dex_engine.snapshot"
STATE: Final = "dex_engine.state"
WINDOW: Final = "dex_engine.window"
RETRY: Final = "dex_client.retry"

SEALING: Final = """\
                effects.append(self._seal(now))
"""

RETRY_ALL: Final = Change(
    LEADING,
    """\
    def flush(self, why: RetryReason) -> list[Effect]:
""",
    """\
    def retry_all(self) -> list[Effect]:
        sent = []
        for each in self._pending._under_way:
            for waiting in each.rests.replies:
                waiting.receipts, waiting.next = [], 0
                sent.append(waiting.sent_back(RetryReason.unavailable))
            each.rests.replies.clear()
        return sent

    def flush(self, why: RetryReason) -> list[Effect]:
""",
)
"""A way to answer `retry` for what was executed: nothing calls it but a mutant."""


def _sent_when_sealed(which: str) -> Change:
    # Replies are sent when their commit is sealed, those of which something is true.
    return Change(
        LEADING,
        SEALING,
        f"""\
                draft = self._draft
                effects.append(self._seal(now))
                early = [
                    waiting
                    for waiting in draft.replies
                    if all({which} for receipt in waiting.receipts)
                ]
                effects += [Send(waiting.reply_to, waiting.reply()) for waiting in early]
                draft.replies[:] = [each for each in draft.replies if each not in early]
""",
    )


DIGEST_NOT_COMPARED: Final = Change(
    MARKET,
    "if commit.digest != self.digest:",
    "if False:",
)

PARTIAL_FILL_LOST: Final = Change(
    APPLYING,
    """\
    state.trade(event.trade_id, maker, taker, price, quantity)
""",
    """\
    is_partial = quantity < maker.remaining
    state.trade(event.trade_id, maker, taker, price, quantity)
    if is_partial:
        maker.filled -= quantity
        maker.value -= price * quantity
        state._subtract(maker, -quantity)
""",
)

ENTRY_LEFT_OUT: Final = (
    Change(
        FOLLOWING,
        """\
from dex_engine import Diverged, Market
""",
        """\
from dex_engine import Diverged, Market
from dex_protocol.codec import hash_of
""",
    ),
    Change(
        FOLLOWING,
        """\
        self._known = known
""",
        """\
        self._known = known
        self._leaves_out = market.sequence > 0 and not is_current
""",
    ),
    Change(
        FOLLOWING,
        """\
                market.apply_commit(entry.payload)
""",
        """\
                if self._leaves_out:
                    market._sealed([], entry.sequence, hash_of(entry.payload))
                    self._leaves_out = False
                else:
                    market.apply_commit(entry.payload)
""",
    ),
)

MUTANTS: Final[dict[str, Mutant]] = {
    # --- The fence ------------------------------------------------------------------------------
    "no-fence": Mutant(
        "An append is stored at the log's end, whatever stands before it.",
        (
            Change(
                LOG,
                """\
        if after != self._last:
            raise Undecided(f"expected {after} at the end, found {self._last}")
        self._last = Position(after.sequence + 1, hash_of(payload))
""",
                """\
        self._last = Position(self._last.sequence + 1, hash_of(payload))
""",
            ),
        ),
        seed=0,
        by="chain",
    ),
    "fence-by-sequence-alone": Mutant(
        "An append names its predecessor's sequence, not its hash: of two under way, the second is"
        " stored behind a stranger's.",
        (Change(LOG, "if after != self._last:", "if after.sequence != self._last.sequence:"),),
        seed=16,
        by="chain",
    ),
    "no-entry-of-its-own": Mutant(
        "A leader of a market that is open begins without a `leader_changed`.",
        (
            Change(
                REPLICA,
                """\
            following.pause()
            self._change("nominated")
            self._candidacy = Candidacy(
""",
                """\
            following.pause()
            self._change("nominated")
            if following.market.sequence > 0:
                self._change("term_stored")
                self._is_nominated = False
                self._following = None
                self._leadership = Leadership(
                    following.market, questions=self._questions, window=self._window, now=now
                )
                held, self._held = self._held, []
                return [*effects, Unlisten(), *self._leadership.take(held, now)]
            self._candidacy = Candidacy(
""",
            ),
        ),
        seed=0,
        by="crash",
    ),
    "leads-before-its-entry-is-stored": Mutant(
        "A leader begins when its `leader_changed` is sent, not when it is stored.",
        (
            Change(
                REPLICA,
                """\
            effects.append(self._candidacy.begin(now))
        return effects
""",
                """\
            candidacy = self._candidacy
            effects.append(candidacy.begin(now))
            entry = Entry(candidacy.sequence, candidacy.payload, now.wall)
            effects += self._begin_to_lead(candidacy, entry, now)
        return effects
""",
            ),
        ),
        seed=7,
        by="crash",
    ),
    "incarnation-not-in-the-entry": Mutant(
        "A `leader_changed` does not say which start of its server wrote it: two processes of one"
        " name take one entry for their own.",
        (
            Change(
                CANDIDACY,
                """\
                            rules=RULES,
                            incarnation=incarnation,
""",
                """\
                            rules=RULES,
""",
            ),
        ),
        seed=542,
        by="crash",
    ),
    "whatever-stands-there-is-ones-own": Mutant(
        "An append is settled by something standing in its place, not by its own bytes.",
        (Change(APPENDS, "if entry.payload != oldest.payload:", "if False:"),),
        seed=3,
        by="acknowledged",
    ),
    # --- Answers before the append --------------------------------------------------------------
    "reply-before-append": Mutant(
        "Receipts are sent when their commands are executed, not when that is stored.",
        (_sent_when_sealed("receipt"),),
        seed=0,
        by="acknowledged",
    ),
    "refusal-before-append": Mutant(
        "Refusals are sent at once, since they change no book.",
        (_sent_when_sealed('receipt.status == "rejected"'),),
        seed=0,
        by="acknowledged",
    ),
    "duplicate-without-proof": Mutant(
        "A remembered outcome is told again at once, stored or not.",
        (_sent_when_sealed("receipt.duplicate is True"),),
        seed=34,
        by="acknowledged",
    ),
    "query-of-unstored-state": Mutant(
        "Queries are answered from a leader's state, which is ahead of the log.",
        (
            Change(
                LEADING,
                "        if not self._pending:\n            return [Send(told",
                "        if told is not None:\n            return [Send(told",
            ),
        ),
        seed=10,
        by="queries",
    ),
    "min-sequence-ignored": Mutant(
        "Queries are answered as of any commit, whatever they ask for.",
        (
            Change(
                "dex_server.replication.questions",
                "if market is not None and asked.query.min_sequence <= market.sequence:",
                "if market is not None:",
            ),
        ),
        seed=2,
        by="queries",
    ),
    # --- One outcome per id ---------------------------------------------------------------------
    "remembered-asked-after-the-state": Mutant(
        "What the market's and the order's state refuse is refused before it is asked whether the"
        " command has an outcome.",
        (
            Change(
                EXECUTION,
                """\
            return Executed(_remembered(market, peer, command, pair), [])
""",
                """\
            answer = _remembered(market, peer, command, pair)
            reason = None
            if isinstance(command, Submit | Amend) and market.state != "trading":
                reason = Reason.market_halted
            elif isinstance(command, Cancel | Amend):
                reason = checks.refusal_of_order(command, peer.order(command.order_id))
            return Executed(answer if reason is None else _refused(market, command, reason), [])
""",
            ),
        ),
        seed=0,
        by="refused",
    ),
    "remembered-lost-at-takeover": Mutant(
        "A leader begins without the outcomes that its predecessors remembered.",
        (
            Change(
                REPLICA,
                """\
        self._following = None
        self._leadership = Leadership(
""",
                """\
        self._following = None
        for peer in market.peers.values():
            peer.window.load({}, forgotten=peer.window.forgotten)
        self._leadership = Leadership(
""",
            ),
        ),
        seed=0,
        by="once",
    ),
    "remembered-not-written": Mutant(
        "A snapshot holds no outcomes but open orders.",
        (
            Change(
                SNAPSHOT,
                """\
        split_pair(peer.window.forgotten),
        [_write_outcome(outcome, rules) for _, outcome in sorted(peer.window.outcomes.items())],
""",
                """\
        (0, 0),
        [
            _write_outcome(outcome, rules)
            for _, outcome in sorted(peer.window.outcomes.items())
            if type(outcome) is Order and outcome.done == "open"
        ],
""",
            ),
        ),
        seed=0,
        by="once",
    ),
    "remembered-not-restored": Mutant(
        "A replica that begins with a snapshot begins without the outcomes in it.",
        (
            Change(
                MARKET,
                """\
            market.check()
        except InvariantViolated:
""",
                """\
            market.check()
            for peer in market.peers.values():
                peer.window.load({}, forgotten=peer.window.forgotten)
        except InvariantViolated:
""",
            ),
        ),
        seed=0,
        by="once",
    ),
    "forgotten-not-asked": Mutant(
        "A command whose outcome was forgotten is taken for a new one.",
        (
            Change(
                WINDOW,
                "return pair in self.outcomes or pair <= self.forgotten",
                "return pair in self.outcomes",
            ),
        ),
        seed=1,
        by="once",
    ),
    "content-not-compared": Mutant(
        "Another command under an old id is answered with the old one's outcome.",
        (
            Change(
                EXECUTION,
                "        if content != content_of_order(outcome, rules.tick, rules.lot):\n",
                "        if False:\n",
            ),
            Change(
                EXECUTION,
                "    if content != outcome.content:\n",
                "    if False:\n",
            ),
        ),
        seed=1,
        by="acknowledged",
    ),
    "window-by-arrival": Mutant(
        "A peer's oldest outcome is forgotten, not that of its lowest pair.",
        (
            Change(
                WINDOW,
                """\
            insort(pairs, pair)
""",
                """\
            pairs.append(pair)
""",
            ),
        ),
        seed=0,
        by="re_executed",
    ),
    # --- Unknown outcomes -----------------------------------------------------------------------
    "unknown-taken-as-failed": Mutant(
        "Commands of an append of which nobody knows what became are answered `retry`.",
        (
            RETRY_ALL,
            Change(
                LEADING,
                """\
        self._pending.undecided(sequence)
        return self._pending.look()
""",
                """\
        self._pending.undecided(sequence)
        return self.retry_all() + self._pending.look()
""",
            ),
        ),
        seed=0,
        by="retry",
    ),
    "absence-taken-as-refusal": Mutant(
        "An append that does not stand in its place yet is taken for refused: its commands are"
        " answered `retry`, and its leader leads no more.",
        (
            RETRY_ALL,
            Change(
                APPENDS,
                """\
            oldest.is_undecided = False
            return [], [Append(oldest.payload, oldest.after, again=True)]
""",
                """\
            raise Deposed(f"nothing stands at {sequence}")
""",
            ),
            Change(
                REPLICA,
                """\
        effects += leadership.flush(RetryReason.not_leader)
        leadership.market.dispose()
""",
                """\
        if why.startswith("nothing"):
            effects += leadership.retry_all()
        effects += leadership.flush(RetryReason.not_leader)
        leadership.market.dispose()
""",
            ),
        ),
        seed=71,
        by="retry",
    ),
    "retry-when-deposed": Mutant(
        "A leader that finds another's entries answers `retry` for all that it executed, though"
        " some of it may be stored.",
        (
            RETRY_ALL,
            Change(
                REPLICA,
                """\
        effects += leadership.flush(RetryReason.not_leader)
        leadership.market.dispose()
""",
                """\
        effects += leadership.retry_all()
        effects += leadership.flush(RetryReason.not_leader)
        leadership.market.dispose()
""",
            ),
        ),
        seed=163,
        by="retry",
    ),
    "silence-taken-as-retry": Mutant(
        "A client takes a copy that nobody answered for one that was not executed.",
        (
            Change(
                RETRY,
                '("untouched", "silence"): "doubtful",',
                '("untouched", "silence"): "untouched",',
            ),
        ),
        seed=1,
        by="believed",
    ),
    # --- Following ------------------------------------------------------------------------------
    "last-broadcast-not-missed": Mutant(
        "A follower that hears nothing does not ask where the log ends.",
        (
            Change(
                FOLLOWING,
                "if self._is_paused or self._is_reading or now.monotonic - self._quiet_since"
                " < SILENCE_US:",
                "if now:",
            ),
        ),
        seed=26,
        by="stuck",
    ),
    "read-one-too-late": Mutant(
        "What was missed is read from one entry too late.",
        (
            Change(
                FOLLOWING,
                "return [ReadLog(market.sequence + 1, self.log_end)]",
                "return [ReadLog(market.sequence + 2, self.log_end + 1)]",
            ),
        ),
        seed=0,
        by="stuck",
    ),
    "entry-after-a-snapshot-left-out": Mutant(
        "A replica that begins with a snapshot takes the entry after it for read.",
        ENTRY_LEFT_OUT,
        seed=0,
        by="alarm",
    ),
    "entry-after-a-snapshot-left-out-digest-not-compared": Mutant(
        "The same, and no replica compares digests.",
        (*ENTRY_LEFT_OUT, DIGEST_NOT_COMPARED),
        seed=0,
        by="replicas",
    ),
    "refusals-not-replayed": Mutant(
        "A commit of refusals alone changes no book, and is passed over where the log is read.",
        (
            Change(
                MARKET,
                """\
        undo.end()
        self._sealed(commit.events, commit.sequence, hash_of(payload))
""",
                """\
        if any(type(event).__name__ != "Rejected" for event in commit.events):
            undo.end()
        else:
            undo.take_back()
            self.time = commit.time
        self._sealed(commit.events, commit.sequence, hash_of(payload))
""",
            ),
        ),
        seed=0,
        by="once",
    ),
    "partial-fill-lost": Mutant(
        "A follower leaves a maker that was filled in part as it was.",
        (PARTIAL_FILL_LOST,),
        seed=0,
        by="alarm",
    ),
    "partial-fill-lost-digest-not-compared": Mutant(
        "The same, and no replica compares digests.",
        (PARTIAL_FILL_LOST, DIGEST_NOT_COMPARED),
        seed=0,
        by="replicas",
    ),
    "deposed-leader-keeps-its-state": Mutant(
        "A leader that another's entry deposed follows with the state it has, ahead of the log.",
        (
            Change(
                REPLICA,
                """\
        leadership.market.dispose()
        self._leadership = None
        if self._is_stopping:
            return effects + self._stop()
        return [*effects, Listen(), *self._begin()]
""",
                """\
        if self._is_stopping:
            self._leadership = None
            return effects + self._stop()
        return [*effects, Listen(), *self._follow_from(leadership.market, is_current=True)]
""",
            ),
        ),
        seed=7,
        by="alarm",
    ),
    "snapshot-before-its-commit": Mutant(
        "A leader stores a snapshot of a commit that is not stored yet.",
        (
            Change(
                UPKEEP,
                "if written is None or sequence < written.name.position.sequence:",
                "if written is None:",
            ),
        ),
        seed=175,
        by="alarm",
    ),
    # --- Rules of the market --------------------------------------------------------------------
    "place-kept-on-amend-up": Mutant(
        "An order keeps its place when an amend makes it larger.",
        (
            Change(
                EXECUTION,
                "loses_place = new_price != order.price or new_quantity > order.quantity",
                "loses_place = new_price != order.price",
            ),
            Change(
                APPLYING,
                "loses_place = price != order.price or quantity > order.quantity",
                "loses_place = price != order.price",
            ),
        ),
        seed=1,
        by="book",
    ),
    "time-goes-back": Mutant(
        "A commit's time is what its leader's clock says, and nobody minds when it goes back.",
        (
            Change(
                LEADING,
                "return max(now.wall, self.market.time)",
                "return now.wall",
            ),
            Change(
                MARKET,
                "        assert time >= self.time, "
                'f"expected a time of at least {self.time}, found {time}"\n',
                "",
            ),
            Change(
                MARKET,
                "if not self.time <= commit.time <= COUNT_MAX:",
                "if not 0 <= commit.time <= COUNT_MAX:",
            ),
        ),
        seed=5,
        by="chain",
    ),
    "expiry-lost-at-takeover": Mutant(
        "A leader begins without knowing which orders are to expire.",
        (
            Change(
                REPLICA,
                """\
        self._following = None
        self._leadership = Leadership(
""",
                """\
        self._following = None
        market.expiring.clear()
        self._leadership = Leadership(
""",
            ),
            *(
                Change(
                    STATE,
                    f"""\
{before}
        if order.expires_at:
            del self.expiring[order.expires_at, order.acceptance]
""",
                    f"""\
{before}
        self.expiring.pop((order.expires_at, order.acceptance), None)
""",
                )
                for before in (
                    "        order.remaining = 0",
                    '        del (peer.buys if order.side == "buy" else peer.sells)[order_id]',
                )
            ),
        ),
        seed=1,
        by="re_executed",
    ),
    # --- Handing over ---------------------------------------------------------------------------
    "unsubscribed-too-late": Mutant(
        "A leader that hands over takes requests until all it executed is stored, and leaves those"
        " of then unanswered.",
        (
            Change(
                REPLICA,
                'is_leading = leadership is not None and self.role == "leader"',
                "is_leading = leadership is not None",
            ),
            Change(
                REPLICA,
                "return self._unserve() + leadership.finish(RetryReason.not_leader)",
                "return leadership.finish(RetryReason.not_leader)",
            ),
            Change(
                REPLICA,
                "return [note, Listen(), *self._follow_from(leadership.market, is_current=True)]",
                "return [note, *self._unserve(), Listen(),"
                " *self._follow_from(leadership.market, is_current=True)]",
            ),
        ),
        seed=54,
        by="crash",
    ),
}
"""By name: the least that must be caught, each by a world of its own."""


def install(name: str) -> None:
    """Break the product; before any of it is imported that is to be broken."""
    mutating.install(MUTANTS[name].changes)
