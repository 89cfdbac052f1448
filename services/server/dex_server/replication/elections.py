"""Who leads: which markets one server claims, keeps, and hands over. A decision function.

Theory of operation. Each market has one record that names who is to lead it, written only by
compare-and-set: by a server that takes over from one that is gone, or by the leader itself that
hands over. Whoever is named nominates its replica; whoever is not, dismisses it. The log decides
who in fact leads, so nothing here needs to be right for the market to be.

What is decided looks at the whole view each time: the records as last read, who lives, how this
server's replicas stand. Of several that could take a market over, the heir does it at once
(homes.py), the others when the heir lets it lie. A server that leads too many hands one over, once
nothing has changed for a while; one market at a time, so that the view keeps up.

A market that changed its leader a moment ago is restless: it is not moved for balance, and only
more than the fastest sign of death moves it. Each change during that time, or in the same time
after it, doubles it: a server that ends again and again is given a market as soon as it may be.

Knows nothing of how records are kept, nor of what a replica does.
"""

from collections.abc import Mapping
from typing import Any, Final, assert_never

from dex_protocol.standing import Role
from dex_server.replication import homes
from dex_server.replication.effects import Instant, Note, Tick
from dex_server.replication.election_effects import (
    Assign,
    ClusterChanged,
    Connected,
    Dismiss,
    Displaced,
    ElectionEffect,
    ElectionInput,
    LeadersChanged,
    LeasesRead,
    LeasesUnread,
    Left,
    Name,
    Named,
    NamingUnknown,
    Nominate,
    Ping,
    PingAnswered,
    PingLost,
    PingRefused,
    ReadLeases,
    Renew,
    RenewalFailed,
    Renewed,
    ReplicaStands,
    ToldToLeave,
)
from dex_server.replication.membership import READING_GAP_US_MAX, Membership
from dex_server.replication.ports import LeaderNews, LeaderRecord, News, ServerRecord

RENEWAL_US: Final = 500_000
"""Between two writings of the own record: a quarter of the time after which it would be missed."""

READING_US: Final = 250_000
"""Between two readings of what others wrote, if nobody calls for one."""

SUSPECTING_US: Final = 50_000
"""And while nobody answers for some server: its renewal would tell that it lives."""

PATIENCE_US: Final = 300_000
"""How long others leave a market to its heir: who it is, is seen alike by all but for moments."""

RENOMINATION_US: Final = 500_000
"""How often a replica that should lead, and does not, is told again."""

RESTLESS_US: Final = 5_000_000
"""How long a market that changed its leader is restless, the first time."""

RESTLESS_US_MAX: Final = 60_000_000
"""And at most."""

SERVERS_SETTLED_US: Final = 1_000_000
"""How long no server may have come, gone or changed before one hands over for balance: a server
that comes brings its markets into good order one after another."""

LEADERS_SETTLED_US: Final = 250_000
"""How long no leader may have changed, for the same reason: who reads last reads within that."""

UNABLE_US: Final = 1_000_000
"""How long a server that is named keeps a market which its replica cannot lead, before another is
named: a state that was thrown away is there again within about that."""

RETIRING_US_MAX: Final = 1_000_000
"""How long a replica that is handed over may take to settle what it has under way: one append."""

_NOBODY: Final = LeaderRecord()


class _Lease:
    # Who is to lead a market, as it was read last.
    __slots__ = ("changed_at", "record", "revision")

    def __init__(self, record: LeaderRecord, revision: int, *, changed_at: int) -> None:
        self.record = record
        self.revision = revision
        self.changed_at = changed_at

    def restless_us(self) -> int:
        changes = self.record.changes
        # No more bits than it takes to reach the most there can be.
        return min(RESTLESS_US << min(changes - 1, 8), RESTLESS_US_MAX) if changes > 0 else 0

    def is_restless(self, now: Instant) -> bool:
        return now.monotonic - self.changed_at < self.restless_us()

    def was_restless(self, now: Instant) -> bool:
        return now.monotonic - self.changed_at < 2 * self.restless_us()


class _Held:
    # This server's replica of a market.
    __slots__ = (
        "could_lead",
        "deposed_at",
        "dismissed_at",
        "is_dismissed",
        "is_naming",
        "is_on_duty",
        "nominated_at",
        "orphan_since",
        "role",
        "settled_by",
        "successor",
        "unable_since",
    )

    def __init__(self) -> None:
        self.role: Role = "follower"
        self.could_lead = False
        self.unable_since = 0
        # Told to lead, and when; told not to.
        self.nominated_at: int | None = None
        self.is_dismissed = False
        self.dismissed_at = 0
        self.deposed_at = 0
        # A record is being written; which reading tells what became of it, if no answer did.
        self.is_naming = False
        self.settled_by: int | None = None
        # Whom it is being handed over to; a name, or "" for nobody.
        self.successor: str | None = None
        # Since when nobody who lives is named.
        self.orphan_since: int | None = None
        self.is_on_duty = False


class Elections:
    """One server's part in deciding who leads what."""

    def __init__(self, server: str, incarnation: str) -> None:
        """Begin under a name, as an incarnation that was never used before."""
        self.server = server
        self.incarnation = incarnation
        self._membership = Membership(server)
        self._leases: dict[str, _Lease] = {}
        self._held: dict[str, _Held] = {}
        self._is_begun = False
        self._is_leaving = False
        self._has_left = False
        # The incarnation that ran under this server's name before; None until it was read.
        self._predecessor: str | None = None
        self._written: ServerRecord | None = None
        self._is_renewing = False
        self._renew_at = 0
        # Whether it was ever written for sure.
        self._is_known = False
        self._is_displaced = False
        self._is_reading = False
        # How many were begun.
        self._readings_count = 0
        self._reading_began_at = 0
        self._is_reading_again = False
        self._read_at = 0
        self._read_began_at = 0
        # The living servers, and since when they have been the same; when a leader changed.
        self._servers: list[homes.Server] = []
        self._servers_since = 0
        self._leaders_since = 0
        # What duties were assigned by last.
        self._assigned_for: tuple[Any, ...] = ()

    # --- The decision function ------------------------------------------------------------------

    def step(self, given: ElectionInput, now: Instant) -> list[ElectionEffect]:
        """Take one input in, and give what is to be done, in any order."""
        if not self._is_begun:
            self._is_begun = True
            self._membership.connected(now, is_up=True)
        if self._is_displaced:
            return []
        match given:
            case Tick():
                return self._tick(now) + self._decide(now)
            case ReplicaStands():
                self._stands(given, now)
                return self._decide(now) + self._renew(now)
            case LeasesRead():
                effects = self._read(given.news, now)
                return effects if self._is_displaced else effects + self._decide(now)
            case LeasesUnread():
                self._is_reading = False
                return []
            case LeadersChanged():
                return self._read_again(now)
            case Renewed():
                self._is_renewing = False
                self._is_known = True
                self._membership.renewed(now)
                return self._decide(now)
            case RenewalFailed():
                self._is_renewing = False
                return []
            case Named():
                return self._named(given, now) + self._decide(now)
            case NamingUnknown():
                return self._unclear(given.market, now)
            case PingAnswered():
                self._membership.answered(given.server)
                return []
            case PingLost():
                self._membership.silent(given.server)
                return []
            case PingRefused():
                if self._membership.refused(given.server, now):
                    return self._read_again(now)
                return self._decide(now)
            case Connected():
                self._membership.connected(now, is_up=given.is_up)
                return []
            case ClusterChanged():
                self._membership.cluster_changed(now)
                return []
            case ToldToLeave():
                self._is_leaving = True
                return self._renew(now) + self._decide(now)
            case _:
                assert_never(given)

    # --- What is known --------------------------------------------------------------------------

    def _tick(self, now: Instant) -> list[ElectionEffect]:
        effects: list[ElectionEffect] = self._renew(now)
        interval = SUSPECTING_US if self._membership.is_suspecting else READING_US
        if not self._is_reading and now.monotonic - self._read_at >= interval:
            effects += self._read_now(now)
        effects += [Ping(server) for server in self._membership.due(now)]
        return effects

    def _renew(self, now: Instant) -> list[ElectionEffect]:
        record = ServerRecord(
            server=self.server,
            incarnation=self.incarnation,
            markets=tuple(sorted(name for name, held in self._held.items() if held.could_lead)),
            is_leaving=self._is_leaving,
        )
        is_due = record != self._written or now.monotonic >= self._renew_at
        # Who ran under this name before is to be seen first.
        if self._is_renewing or self._predecessor is None or not is_due:
            return []
        self._is_renewing = True
        self._written = record
        self._renew_at = now.monotonic + RENEWAL_US
        return [Renew(record)]

    def _read_now(self, now: Instant) -> list[ElectionEffect]:
        self._is_reading = True
        self._readings_count += 1
        self._reading_began_at = now.monotonic
        return [ReadLeases()]

    def _read_again(self, now: Instant) -> list[ElectionEffect]:
        # One that is under way may have begun too early.
        self._is_reading_again = self._is_reading
        return [] if self._is_reading else self._read_now(now)

    def _read(self, news: News, now: Instant) -> list[ElectionEffect]:
        self._is_reading = False
        self._read_at = now.monotonic
        self._read_began_at = self._reading_began_at
        effects: list[ElectionEffect] = []
        self._membership.read(news.servers, asked_at=self._reading_began_at, now=now)
        for server in news.servers:
            if server.server == self.server and server.record is not None:
                effects += self._read_own(server.record)
        for leader in news.leaders:
            self._note(leader, now)
        for held in self._held.values():
            # Whatever became of it, the next attempt builds on what stands there.
            if held.settled_by is not None and self._readings_count >= held.settled_by:
                held.is_naming = False
                held.settled_by = None
        if self._predecessor is None:
            self._predecessor = ""
            effects += self._renew(now)
        if self._is_reading_again:
            self._is_reading_again = False
            effects += self._read_now(now)
        return effects

    def _read_own(self, record: ServerRecord) -> list[ElectionEffect]:
        if self._predecessor is None:
            self._predecessor = record.incarnation
            return []
        if record.incarnation in (self.incarnation, self._predecessor):
            return []
        self._is_displaced = True
        return [
            Displaced(f"another process was started under the name {self.server}: this one ends")
        ]

    def _note(self, news: LeaderNews, now: Instant) -> None:
        record = news.record or _NOBODY
        lease = self._leases.get(news.market)
        if lease is not None and news.revision <= lease.revision:
            return
        before = None if lease is None else (lease.record.server, lease.record.incarnation)
        changed_at = now.monotonic
        if lease is None and news.stored_at:
            # It was written before this server watched.
            changed_at -= max(now.wall - news.stored_at, 0)
        if lease is not None and before == (record.server, record.incarnation):
            changed_at = lease.changed_at
        else:
            self._leaders_since = now.monotonic
        self._leases[news.market] = _Lease(record, news.revision, changed_at=changed_at)
        if record.server:
            self._membership.expects(record.server)

    def _stands(self, given: ReplicaStands, now: Instant) -> None:
        held = self._held.setdefault(given.market, _Held())
        if held.could_lead and not given.could_lead:
            held.unable_since = now.monotonic
            if held.role == "candidate":
                # Nothing was thrown away: it found out that it must not lead.
                held.unable_since -= UNABLE_US
        if held.role != given.role and given.role == "follower":
            if not held.is_dismissed:
                # The log says that somebody else leads; who, is not read yet.
                held.deposed_at = now.monotonic
            # It is done with what it was told, but for a candidate that was outrun: it goes on.
            if held.role != "candidate":
                held.nominated_at = None
            held.is_dismissed = False
        held.role = given.role
        held.could_lead = given.could_lead

    def _named(self, given: Named, now: Instant) -> list[ElectionEffect]:
        if given.revision is None:
            # Another stands there, or is on its way: what is read next tells.
            return self._unclear(given.market, now)
        self._held[given.market].is_naming = False
        self._note(LeaderNews(given.market, given.revision, given.record), now)
        return []

    def _unclear(self, market: str, now: Instant) -> list[ElectionEffect]:
        # By one that begins later than now.
        self._held[market].settled_by = self._readings_count + 1
        return self._read_again(now)

    # --- What follows ---------------------------------------------------------------------------

    def _decide(self, now: Instant) -> list[ElectionEffect]:
        if self._predecessor is None:
            return []
        self._see_servers(now)
        leaders, orphans = self._living_leaders(now)
        heirs: dict[str, str] = {}
        if orphans or self._is_leaving:
            heirs = homes.heirs(self._servers, leaders, orphans)
        effects: list[ElectionEffect] = []
        for market, held in sorted(self._held.items()):
            if held.is_naming:
                continue
            if self._is_mine(market):
                effects += self._keep(market, held, leaders, now)
            else:
                effects += self._stay_out(held, market)
                effects += self._take_over(market, held, orphans.get(market), heirs, now)
        effects += self._leave(leaders, now) if self._is_leaving else self._balance(leaders, now)
        return effects + self._assign(leaders)

    def _see_servers(self, now: Instant) -> None:
        servers = [
            homes.Server(record.server, frozenset(record.markets))
            for record in self._membership.living(now)
            if not record.is_leaving
        ]
        if not self._is_leaving:
            able = frozenset(name for name, held in self._held.items() if held.could_lead)
            servers.append(homes.Server(self.server, able))
        if servers != self._servers:
            self._servers = servers
            self._servers_since = now.monotonic

    def _living_leaders(self, now: Instant) -> tuple[dict[str, str], dict[str, str]]:
        """Give the living leader of each market, and why each other one has none."""
        leaders: dict[str, str] = {}
        orphans: dict[str, str] = {}
        for market in sorted(self._held.keys() | self._leases.keys()):
            lease = self._leases.get(market)
            if lease is None or not lease.record.server:
                orphans[market] = "nobody leads it"
                continue
            record = lease.record
            if record.server == self.server:
                is_own = record.incarnation == self.incarnation
                why = None if is_own else "it ran under this server's name before"
            else:
                why = self._membership.why_gone(
                    record.server, record.incarnation, now, is_certain=lease.is_restless(now)
                )
            if why is None:
                leaders[market] = record.server
            else:
                orphans[market] = why
        return leaders, orphans

    def _is_mine(self, market: str) -> bool:
        lease = self._leases.get(market)
        return lease is not None and lease.record.incarnation == self.incarnation

    def _keep(
        self, market: str, held: _Held, leaders: Mapping[str, str], now: Instant
    ) -> list[ElectionEffect]:
        held.orphan_since = None
        if held.successor is not None:
            return self._name_successor(market, held, now)
        if held.could_lead:
            return [] if held.role != "follower" else self._nominate(market, held, now)
        if now.monotonic - held.unable_since < UNABLE_US:
            return []
        others = [server for server in self._servers if server.name != self.server]
        successor = homes.heirs(others, leaders, [market]).get(market)
        if successor is None:
            return []
        return self._hand_over(market, held, successor, "it cannot be led here", now)

    def _nominate(self, market: str, held: _Held, now: Instant) -> list[ElectionEffect]:
        # Who has not read for a while may be named no more, and would stand against another again
        # and again; so would one that was just deposed.
        has_read = (
            now.monotonic - self._read_at <= READING_GAP_US_MAX
            and self._read_began_at >= held.deposed_at
        )
        if self._is_leaving or not has_read:
            return []
        told_at = held.nominated_at
        if told_at is not None and now.monotonic - told_at < RENOMINATION_US:
            return []
        held.nominated_at = now.monotonic
        held.is_dismissed = False
        return [Nominate(market)]

    def _stay_out(self, held: _Held, market: str) -> list[ElectionEffect]:
        held.successor = None
        is_told = held.nominated_at is not None or held.role in ("candidate", "leader")
        if not is_told or held.is_dismissed:
            return []
        held.nominated_at = None
        held.is_dismissed = True
        return [Dismiss(market)]

    def _take_over(
        self, market: str, held: _Held, why: str | None, heirs: Mapping[str, str], now: Instant
    ) -> list[ElectionEffect]:
        if why is None:
            held.orphan_since = None
            return []
        if held.orphan_since is None:
            held.orphan_since = now.monotonic
        is_heir = heirs.get(market) == self.server
        is_left_lying = now.monotonic - held.orphan_since >= PATIENCE_US
        if not held.could_lead or self._is_leaving or not (is_heir or is_left_lying):
            return []
        # Others take who is named, and has another's record or none, for one that is gone.
        if not self._is_known:
            return []
        lease = self._leases.get(market)
        before = "" if lease is None else lease.record.server
        effects: list[ElectionEffect] = []
        if before:
            effects.append(Note(f"taking {market} over from {before}: {why}"))
        return [*effects, self._name(market, held, self.server, self.incarnation, now)]

    # --- Handing over ---------------------------------------------------------------------------

    def _balance(self, leaders: Mapping[str, str], now: Instant) -> list[ElectionEffect]:
        if (
            now.monotonic - self._servers_since < SERVERS_SETTLED_US
            or now.monotonic - self._leaders_since < LEADERS_SETTLED_US
            or any(held.successor is not None or held.is_naming for held in self._held.values())
        ):
            return []
        movable = {
            name
            for name, lease in self._leases.items()
            if not lease.is_restless(now)
            # What is named and does not lead yet, for whatever reason, does not hold the others up.
            and (leaders.get(name) != self.server or self._held[name].role == "leader")
        }
        move = homes.next_move(self._servers, leaders, movable=movable)
        if move is None or move.giver != self.server:
            return []
        held = self._held[move.market]
        return self._hand_over(move.market, held, move.successor, "it leads fewer markets", now)

    def _leave(self, leaders: Mapping[str, str], now: Instant) -> list[ElectionEffect]:
        # One after another; and what is being written may name this server yet.
        if any(held.successor is not None or held.is_naming for held in self._held.values()):
            return []
        mine = [market for market in sorted(self._held) if self._is_mine(market)]
        if not mine:
            if self._has_left:
                return []
            self._has_left = True
            return [Left()]
        market = mine[0]
        successor = homes.heirs(self._servers, leaders, [market]).get(market, "")
        return self._hand_over(market, self._held[market], successor, "this server leaves", now)

    def _hand_over(
        self, market: str, held: _Held, successor: str, why: str, now: Instant
    ) -> list[ElectionEffect]:
        held.successor = successor
        held.nominated_at = None
        held.is_dismissed = True
        held.dismissed_at = now.monotonic
        return [Note(f"handing {market} over to {successor or 'nobody'}: {why}"), Dismiss(market)]

    def _name_successor(self, market: str, held: _Held, now: Instant) -> list[ElectionEffect]:
        # One that cannot find out what became of its last commits is not waited for for ever: the
        # log refuses them once the successor has begun.
        is_stuck = now.monotonic - held.dismissed_at >= RETIRING_US_MAX
        if held.role not in ("follower", "stopped") and not is_stuck:
            return []
        successor, held.successor = held.successor, None
        assert successor is not None
        if not successor:
            return [self._name(market, held, "", "", now)]
        record = self._membership.record(successor)
        if record is None or successor not in (server.name for server in self._servers):
            # Gone meanwhile: the next decision finds another, or keeps it.
            return []
        return [self._name(market, held, successor, record.incarnation, now)]

    def _name(self, market: str, held: _Held, server: str, incarnation: str, now: Instant) -> Name:
        lease = self._leases.get(market)
        changes = 0
        if lease is not None and lease.record.server and server:
            changes = lease.record.changes + 1 if lease.was_restless(now) else 1
        held.is_naming = True
        record = LeaderRecord(server=server, incarnation=incarnation, changes=changes)
        return Name(market, record, after=0 if lease is None else lease.revision)

    # --- Snapshots ------------------------------------------------------------------------------

    def _assign(self, leaders: Mapping[str, str]) -> list[ElectionEffect]:
        """Tell each replica whether it writes snapshots: a follower does, the leader if alone."""
        view = (self._servers, leaders, len(self._held))
        if view == self._assigned_for:
            return []
        self._assigned_for = view
        effects: list[ElectionEffect] = []
        for market, held in sorted(self._held.items()):
            able = [server.name for server in self._servers if market in server.markets]
            followers = [name for name in able if name != leaders.get(market)]
            first = homes.preference(market, followers or able)[:1]
            is_mine = first == [self.server]
            if is_mine != held.is_on_duty:
                held.is_on_duty = is_mine
                effects.append(Assign(market, is_mine))
        return effects
