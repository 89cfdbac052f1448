"""One server's replica of one market: a decision function from inputs to effects.

Theory of operation. A replica begins as a follower: it finds a state to begin with (recovery.py),
reads the log from there to its end, and follows it (following.py). Nominated, it asks once more
where the log ends, puts the beginning of a term there (candidacy.py), and leads from there
(leading.py); what is asked of it meanwhile is held. Dismissed, it finishes what it has under way
and follows again with the state it has. Deposed by the log, it throws its state away, which was
ahead of the log, and begins again. Whatever does not fit, stops it for good and raises an alarm:
the log is the truth, and a replica that contradicts it has nothing to say.

Knows nothing of NATS, of time but what it is handed, nor of why it was nominated.
"""

from typing import Final, assert_never

from dex_engine import Market
from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.reasons import RetryReason
from dex_protocol.receipts import retry
from dex_protocol.specification import Specification
from dex_protocol.standing import MarketStanding, Role
from dex_server.replication.appends import Deposed
from dex_server.replication.candidacy import CLOCK_DIFFERENCE_US_MAX, Candidacy
from dex_server.replication.commits import Waiting
from dex_server.replication.effects import (
    Administered,
    Alarm,
    AppendConfirmed,
    AppendUndecided,
    Asked,
    Dismissed,
    Effect,
    EndFound,
    Heard,
    Input,
    Instant,
    Listen,
    LogRead,
    Look,
    Nominated,
    Note,
    OnDuty,
    Request,
    Requests,
    Send,
    Serve,
    SnapshotFailed,
    SnapshotLoaded,
    SnapshotSaved,
    SnapshotsListed,
    SnapshotTaken,
    SnapshotUnusable,
    Stands,
    Start,
    StateHashed,
    Stopped,
    Tick,
    ToldToStop,
    Unlisten,
    Unserve,
)
from dex_server.replication.following import Following, Overtaken
from dex_server.replication.leading import Leadership
from dex_server.replication.ports import Entry
from dex_server.replication.questions import Questions
from dex_server.replication.recovery import Contradicted, Recovery
from dex_server.replication.roles import Occasion, next_role
from dex_server.replication.upkeep import Settings, Upkeep
from dex_server.replication.waiting import Places

__all__ = ["Replica", "Settings"]

SILENT_US_MAX: Final = 15_000_000
"""A leader that had no sign from the log for so long, or a candidate that waited for one, cannot
lead, though it can say so: somebody else is to try. NATS itself repairs what it can within 4 to
9 s; before, nobody could do better."""

CLOCK_BARRED_US: Final = 10_000_000
"""How long a server whose clock was found wrong does not try to lead again, the first time; each
time twice as long. By then somebody may have set it, and each attempt changes the leader twice."""

CLOCK_BARRED_US_MAX: Final = 600_000_000
"""And at most."""


class Replica:
    """A market on one server.

    Attributes:
        role: What this server is in the market.
        market: The state, or None while there is none.
    """

    def __init__(
        self,
        name: str,
        *,
        server: str,
        incarnation: str,
        specification: Specification,
        log_id: str,
        settings: Settings,
    ) -> None:
        """Make a replica that has not started.

        Args:
            name: The market's.
            server: This server's name, which its terms carry.
            incarnation: A random text, new at each start of the server, which its terms carry too.
            specification: What the market is opened with, if its log is empty.
            log_id: A random name for the log, if it is empty.
            settings: The operator's.
        """
        self.name = name
        self.server = server
        self.role: Role = "follower"
        self._incarnation = incarnation
        self._specification = specification
        self._log_id = log_id
        self._window = settings.window
        self._questions = Questions(server=server)
        self._upkeep = Upkeep(settings)
        # Exactly one of these three, once it has started: on the way to a state, along the log
        # with it (a candidacy beside it), or ahead of the log.
        self._recovery: Recovery | None = None
        self._following: Following | None = None
        self._leadership: Leadership | None = None
        self._candidacy: Candidacy | None = None
        self._is_nominated = False
        # Since when (monotonic), and in which term it was outrun as a candidate since.
        self._nominated_at = 0
        self._outrun_in: int | None = None
        self._is_stopping = False
        # Requests that wait until this server leads; None when it does not serve.
        self._held: list[Request] | None = None
        self._places = Places()
        # The newest commit that this replica ever knew to stand in the log.
        self._known = 0
        # Where the log began when it had been trimmed beyond the state.
        self._overtaken_by = 0
        self._barred_until = 0
        self._barred_us = CLOCK_BARRED_US

    # --- How it stands --------------------------------------------------------------------------

    @property
    def market(self) -> Market | None:
        """The state; a leader's is ahead of the log by what is under way."""
        if self._leadership is not None:
            return self._leadership.market
        return None if self._following is None else self._following.market

    @property
    def has_more_to_tell(self) -> bool:
        """Whether another step would answer queries at once; see `Questions`."""
        return self._questions.has_more_to_tell

    @property
    def stored(self) -> int:
        """The newest commit that this replica knows to stand in the log, and has in its state."""
        if self._leadership is not None:
            return self._leadership.stored
        return 0 if self._following is None else self._following.market.sequence

    @property
    def is_current(self) -> bool:
        """Whether its state is the log's, but for what is on its way."""
        if self.role == "stopped":
            return False
        if self._leadership is not None:
            return True
        return self._following is not None and self._following.is_current

    def could_lead(self, now: Instant) -> bool:
        """Tell whether it could lead if it were nominated."""
        if self._leadership is not None and self._leadership.silent_us(now) >= SILENT_US_MAX:
            return False
        if self._is_nominated and now.monotonic - self._nominated_at >= SILENT_US_MAX:
            return False
        return self.is_current and not self._is_stopping and now.monotonic >= self._barred_until

    @property
    def standing(self) -> MarketStanding:
        """How it stands, as of what is stored, for whoever looks after the exchange."""
        market = self.market
        digest = ""
        if self._leadership is not None:
            digest = self._leadership.stored_digest
        elif market is not None and market.sequence > 0:
            digest = market.digest
        return MarketStanding(
            market=self.name,
            role=self.role,
            term=0 if market is None else market.term,
            sequence=self.stored,
            digest=digest,
            leader="" if market is None else market.leader,
            lag=0 if self._following is None else self._following.lag,
            is_current=self.is_current and (self._leadership is None or self._leadership.has_log),
        )

    # --- The decision function ------------------------------------------------------------------

    def step(self, given: Input, now: Instant) -> list[Effect]:
        """Take one input in, and give what is to be done.

        Effects are to be begun in their order. `Append` answers with `AppendConfirmed` or
        `AppendUndecided`, every reading effect with the input that its docstring names; inputs
        may come in any order and late, and are ignored when they answer nothing any more.

        Ordering: a `Send` of what rests on the log is given only after the input that confirmed
        it, so it may be sent at once.
        """
        if self.role == "stopped":
            return self._turned_away(given)
        try:
            return self._take(given, now) + self._go_on(now)
        except Deposed as deposed:
            return self._outrun(str(deposed))
        except Overtaken as overtaken:
            return self._overtaken(overtaken)
        except Contradicted as contradicted:
            return self._broken(str(contradicted))

    def _take(self, given: Input, now: Instant) -> list[Effect]:
        match given:
            case Requests() | Asked() | Administered():
                return self._take_in(given, now)
            case AppendConfirmed() | AppendUndecided() | Stands():
                return self._settle(given, now)
            case Heard():
                return self._hear(given, now)
            case Tick():
                return self._tick(now)
            case Start():
                return [Listen(), *self._begin()]
            case SnapshotsListed():
                self._upkeep.listed(given.names, now)
                return [] if self._recovery is None else self._recovery.listed(given.names)
            case SnapshotLoaded():
                found = self._recovery
                return [] if found is None else found.loaded(given.name, given.data)
            case SnapshotUnusable():
                found = self._recovery
                return [] if found is None else found.unusable(given.name, given.why)
            case EndFound():
                return self._end_found(given, now)
            case LogRead():
                following = self._following
                return [] if following is None else following.read(given.entries, now)
            case Nominated():
                return self._nominated(now)
            case Dismissed():
                return self._dismissed()
            case OnDuty():
                return self._upkeep.on_duty(is_mine=given.is_mine)
            case SnapshotTaken():
                self._upkeep.taken(given)
                return []
            case SnapshotFailed():
                self._upkeep.failed(given.position)
                return []
            case SnapshotSaved():
                return self._upkeep.saved(given.name, now)
            case StateHashed():
                self._upkeep.hashed(given.position, given.state, now)
                return []
            case ToldToStop():
                return self._told_to_stop()
            case _:
                assert_never(given)

    def _go_on(self, now: Instant) -> list[Effect]:
        if self._leadership is not None:
            return self._lead_on(self._leadership, now)
        effects: list[Effect] = []
        if self._recovery is not None and self._recovery.is_done:
            effects += self._begin_to_follow(self._recovery)
        if self._following is not None and self.role == "follower" and self._is_nominated:
            effects += self._seek_term(self._following, now)
        effects += self._upkeep.log_reaches(self.stored)
        market = self.market
        # Of a market that is not open yet there is nothing to tell.
        can_tell = self.is_current and market is not None and market.is_open
        told, given_up = self._questions.answer(
            market if can_tell else None, now, bytes_max=limits.TOLD_WAITING_BYTES_MAX
        )
        return [*effects, *(Send(each.reply_to, each.payload) for each in told), *given_up]

    # --- Requests -------------------------------------------------------------------------------

    def _take_in(self, given: Requests | Asked | Administered, now: Instant) -> list[Effect]:
        leadership = self._leadership
        is_leading = leadership is not None and self.role == "leader"
        match given:
            case Requests():
                if leadership is not None and is_leading:
                    return leadership.take(given.requests, now)
                return self._hold(given.requests)
            case Asked():
                return self._questions.ask(given)
            case Administered():
                if leadership is not None and is_leading:
                    return leadership.administer(given)
                return self._turned_away(given)

    def _hold(self, requests: list[Request]) -> list[Effect]:
        effects: list[Effect] = []
        for request in requests:
            if self._held is None:
                effects.append(Waiting(request).sent_back(RetryReason.not_leader))
            elif self._places.take(request.peer, 1, len(request.payload)):
                self._held.append(request)
            else:
                effects.append(Waiting(request).sent_back(RetryReason.busy))
        return effects

    def _turned_away(self, given: Input) -> list[Effect]:
        match given:
            case Requests():
                why = RetryReason.not_leader
                return [Waiting(request).sent_back(why) for request in given.requests]
            case Asked() | Administered():
                return [Send(given.reply_to, encode(retry(RetryReason.unavailable)))]
            case ToldToStop():
                return [Stopped()]
            case _:
                return []

    # --- Following the log ----------------------------------------------------------------------

    def _begin(self) -> list[Effect]:
        self._recovery = Recovery(self.name)
        self._following = self._leadership = self._candidacy = None
        return self._recovery.begin()

    def _begin_to_follow(self, recovery: Recovery) -> list[Effect]:
        market = recovery.market
        assert market is not None
        self._known = max(self._known, recovery.known)
        self._recovery = None
        return self._follow_from(market, is_current=False)

    def _follow_from(self, market: Market, *, is_current: bool) -> list[Effect]:
        self._leadership = self._candidacy = None
        self._upkeep.begin(market)
        self._following = Following(
            market, known=self._known, is_current=is_current, on_commit=self._on_commit
        )
        return self._following.refresh()

    def _overtaken(self, overtaken: Overtaken) -> list[Effect]:
        following = self._following
        assert following is not None
        if self._overtaken_by == overtaken.first or self.role != "follower":
            return self._broken(f"{overtaken}, and no good snapshot reaches that far")
        # There is one by now, if it was trimmed as it should be.
        self._overtaken_by = overtaken.first
        following.market.dispose()
        return [Note(f"{overtaken}, beyond this state: looking for a snapshot"), *self._begin()]

    def _on_commit(self, market: Market) -> list[Effect]:
        # What was read on the way to the log's end is somebody else's past.
        if self.is_current:
            return self._upkeep.at_commit(market)
        self._upkeep.begin(market)
        return []

    def _hear(self, given: Heard, now: Instant) -> list[Effect]:
        # Without a state, a later look at the log's end finds them.
        return [] if self._following is None else self._following.heard(given.entries, now)

    def _end_found(self, given: EndFound, now: Instant) -> list[Effect]:
        if self._leadership is not None:
            self._leadership.log_ends_at(given.last, now)
            return []
        following = self._following
        return [] if following is None else following.end_found(given.first, given.last, now)

    def _tick(self, now: Instant) -> list[Effect]:
        effects = self._upkeep.tick(now)
        if self._held:
            late_until = now.monotonic - limits.LATE_US
            late = [each for each in self._held if each.arrived <= late_until]
            self._held = [each for each in self._held if each.arrived > late_until]
            for each in late:
                self._places.give_back(each.peer, 1, len(each.payload))
            effects += [Waiting(each).sent_back(RetryReason.late) for each in late]
        if self._following is not None:
            effects += self._following.tick(now)
        if self.role == "candidate" and now.monotonic - self._nominated_at >= SILENT_US_MAX:
            # Perhaps the log has lost what its entry is to stand behind: a follower finds out.
            effects += self._dismissed()
        return effects

    # --- Becoming leader ------------------------------------------------------------------------

    def _nominated(self, now: Instant) -> list[Effect]:
        if self._is_nominated or self._is_stopping or self.role != "follower":
            return []
        self._is_nominated = True
        self._nominated_at = now.monotonic
        self._outrun_in = None
        # The log's end, as it is from now on.
        return [] if self._following is None else self._following.refresh()

    def _seek_term(self, following: Following, now: Instant) -> list[Effect]:
        """Go on towards leading, as far as it is possible now."""
        if self._outrun_in is not None and following.market.term > self._outrun_in:
            # Somebody else began a term: who is to lead is to be said anew.
            self._is_nominated = False
            return self._unserve()
        effects: list[Effect] = []
        if self._held is None and following.is_current:
            # Whoever asks from now on is answered as soon as this server leads.
            self._held = []
            effects.append(Serve())
        if following.is_current and following.is_fresh and following.is_at_end:
            following.pause()
            self._change("nominated")
            self._candidacy = Candidacy(
                following.market,
                server=self.server,
                incarnation=self._incarnation,
                specification=self._specification,
                log_id=self._log_id,
                now=now,
            )
            effects.append(self._candidacy.begin(now))
        return effects

    def _settle(
        self, given: AppendConfirmed | AppendUndecided | Stands, now: Instant
    ) -> list[Effect]:
        leadership, candidacy = self._leadership, self._candidacy
        if leadership is not None:
            match given:
                case AppendConfirmed():
                    return leadership.confirmed(given.sequence, now)
                case AppendUndecided():
                    return leadership.undecided(given.sequence)
                case Stands():
                    return leadership.stands(given.sequence, given.entry, now)
        if candidacy is not None:
            match given:
                case AppendConfirmed():
                    return candidacy.confirmed(given.sequence)
                case AppendUndecided():
                    return candidacy.undecided(given.sequence)
                case Stands():
                    return self._settle_candidacy(candidacy, given, now)
        if isinstance(given, Stands):
            if self._recovery is not None:
                return self._recovery.stands(given.sequence, given.entry)
            if self._following is not None:
                return self._following.stands(given.sequence, given.entry, now)
        return []

    def _settle_candidacy(self, candidacy: Candidacy, given: Stands, now: Instant) -> list[Effect]:
        if not candidacy.is_stored:
            return candidacy.stands(given.sequence, given.entry)
        if given.sequence != candidacy.sequence:
            return []
        if given.entry is None:
            # It is stored; whoever was asked did not know yet.
            return [Look(candidacy.sequence)]
        if given.entry.payload != candidacy.payload:
            # What was confirmed was an earlier candidacy's.
            raise Deposed(f"another's entry stands at {given.sequence}")
        return self._begin_to_lead(candidacy, given.entry, now)

    def _begin_to_lead(self, candidacy: Candidacy, entry: Entry, now: Instant) -> list[Effect]:
        following = self._following
        assert following is not None
        market = following.market
        market.apply_commit(candidacy.payload)
        following.reaches(market.sequence)
        self._candidacy = None
        self._is_nominated = False
        self._upkeep.begin(market)
        difference = candidacy.clock_difference_us(entry, now)
        if difference > CLOCK_DIFFERENCE_US_MAX:
            self._change("clocks_differ")
            self._barred_until = now.monotonic + self._barred_us
            self._barred_us = min(2 * self._barred_us, CLOCK_BARRED_US_MAX)
            text = (
                f"this server's clock and the log's are {difference // 1_000} ms apart, expected"
                f" at most {CLOCK_DIFFERENCE_US_MAX // 1_000}: not leading"
            )
            return [Alarm(text), *self._unserve(), *following.resume()]
        self._change("term_stored")
        self._barred_us = CLOCK_BARRED_US
        self._following = None
        self._leadership = Leadership(
            market, questions=self._questions, window=self._window, now=now
        )
        # It serves already: it was current when it stood.
        assert self._held is not None
        held, self._held = self._held, []
        self._places = Places()
        note = Note(f"leads from commit {market.sequence} in term {market.term}")
        return [note, Unlisten(), *self._leadership.take(held, now)]

    # --- Leading, and no more -------------------------------------------------------------------

    def _lead_on(self, leadership: Leadership, now: Instant) -> list[Effect]:
        effects = leadership.proceed(now)
        if leadership.is_at_commit:
            effects += self._upkeep.leading_at_commit(leadership.market)
        effects += self._upkeep.log_reaches(leadership.stored)
        if self.role == "retiring" and leadership.is_settled:
            return effects + self._settled(leadership)
        return effects + leadership.probe(now)

    def _dismissed(self) -> list[Effect]:
        self._is_nominated = False
        match self.role:
            case "candidate":
                # What it appended may stand yet, and is applied then as anybody's would be.
                self._change("dismissed")
                self._candidacy = None
                return self._unserve() + self._resume()
            case "leader":
                return self._retire("dismissed")
            case _:
                return self._unserve()

    def _retire(self, why: Occasion) -> list[Effect]:
        leadership = self._leadership
        assert leadership is not None
        self._change(why)
        return self._unserve() + leadership.finish(RetryReason.not_leader)

    def _settled(self, leadership: Leadership) -> list[Effect]:
        self._change("settled")
        if self._is_stopping:
            return self._stop()
        self._known = max(self._known, leadership.stored)
        note = Note(f"leads no more, and follows from commit {leadership.stored}")
        return [note, Listen(), *self._follow_from(leadership.market, is_current=True)]

    def _outrun(self, why: str) -> list[Effect]:
        was_candidate = self.role == "candidate"
        self._change("outrun")
        if was_candidate:
            # Its state is the log's; it tries again, as long as it is nominated.
            assert self._following is not None
            self._outrun_in = self._following.market.term
            self._candidacy = None
            return [Note(f"somebody was faster: {why}"), *self._resume()]
        leadership = self._leadership
        assert leadership is not None
        self._known = max(self._known, leadership.stored)
        effects = [Note(f"leads no more: {why}", is_warning=True), *self._unserve()]
        effects += leadership.flush(RetryReason.not_leader)
        leadership.market.dispose()
        self._leadership = None
        if self._is_stopping:
            return effects + self._stop()
        return [*effects, Listen(), *self._begin()]

    def _unserve(self) -> list[Effect]:
        if self._held is None:
            return []
        held, self._held = self._held, None
        self._places = Places()
        why = RetryReason.not_leader
        return [Unserve(), *(Waiting(request).sent_back(why) for request in held)]

    def _resume(self) -> list[Effect]:
        return [] if self._following is None else self._following.resume()

    # --- Ending ---------------------------------------------------------------------------------

    def _told_to_stop(self) -> list[Effect]:
        self._is_stopping = True
        self._is_nominated = False
        match self.role:
            case "leader":
                return self._retire("told_to_stop")
            case "retiring":
                return []
            case _:
                return self._stop()

    def _stop(self) -> list[Effect]:
        self._change("told_to_stop")
        self._candidacy = None
        return [*self._unserve(), *self._questions.send_back(), Stopped()]

    def _broken(self, why: str) -> list[Effect]:
        self._change("broken")
        self._candidacy = None
        alarm = Alarm(f"this replica stops: {why}")
        return [alarm, Unlisten(), *self._unserve(), *self._questions.send_back()]

    def _change(self, occasion: Occasion) -> None:
        self.role = next_role(self.role, occasion)
