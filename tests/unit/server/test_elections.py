"""Who is to lead: what one server claims, keeps and hands over, decision by decision."""

from typing import Any, TypeVar

import pytest
from msgspec import structs

from dex_protocol.standing import Role
from dex_server.replication import homes
from dex_server.replication.effects import Instant, Note, Tick
from dex_server.replication.election_effects import (
    Assign,
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
    PingRefused,
    ReadLeases,
    Renew,
    RenewalFailed,
    Renewed,
    ReplicaStands,
    ToldToLeave,
)
from dex_server.replication.elections import (
    LEADERS_SETTLED_US,
    PATIENCE_US,
    READING_US,
    RENEWAL_US,
    RENOMINATION_US,
    RESTLESS_US,
    RETIRING_US_MAX,
    SERVERS_SETTLED_US,
    UNABLE_US,
    Elections,
)
from dex_server.replication.membership import READING_GAP_US_MAX, STILL_US_MAX
from dex_server.replication.ports import LeaderNews, LeaderRecord, News, ServerNews, ServerRecord

MS = 1_000
S = 1_000_000

E = TypeVar("E")


class Electing:
    """The elections of the server `own`, incarnation `own.2`, and what they are told.

    Every reading is answered by hand. Records are written as `a M N` (who holds which markets, of
    the incarnation `a.1`), leaders as `M a`.
    """

    def __init__(self) -> None:
        self.now = 100 * S
        self.wall = 0
        self.elections = Elections("own", "own.2")
        self._revision = 0
        self.revisions: dict[str, int] = {}

    def give(self, given: ElectionInput) -> list[ElectionEffect]:
        """Give an input; pings and assignments are left out of what is wanted."""
        effects = self.elections.step(given, Instant(self.wall, self.now))
        return [effect for effect in effects if not isinstance(effect, Ping | Assign)]

    def all(self, given: ElectionInput) -> list[ElectionEffect]:
        """Give an input; give everything that is wanted."""
        return self.elections.step(given, Instant(self.wall, self.now))

    def tick(self, *, us: int = 0) -> list[ElectionEffect]:
        """Let time pass, and tell it; writing and reading are left out of what is wanted."""
        self.now += us
        return [each for each in self.give(Tick()) if not isinstance(each, ReadLeases | Renew)]

    def read(self, *servers: str, leaders: tuple[str, ...] = (), **how: Any) -> list[Any]:
        """Answer a reading; it is asked for anew if none is under way."""
        if not self.elections._is_reading:
            self.give(LeadersChanged())
        return self.give(LeasesRead(self.news(*servers, leaders=leaders, **how)))

    def news(
        self, *servers: str, leaders: tuple[str, ...] = (), changes: int = 0, leaving: str = ""
    ) -> News:
        """Make news."""
        server_news = []
        for written in servers:
            name, *markets = written.split()
            name, _, incarnation = name.partition(".")
            record = ServerRecord(
                name,
                f"{name}.{incarnation or 1}",
                tuple(markets),
                is_leaving=name == leaving,
            )
            server_news.append(ServerNews(name, self._next(), record))
        leader_news = []
        for written in leaders:
            market, _, name = written.partition(" ")
            name, _, incarnation = name.partition(".")
            incarnation = incarnation or ("2" if name == "own" else "1")
            record_of = LeaderRecord(name, f"{name}.{incarnation}" if name else "", changes)
            self.revisions[market] = self._next()
            leader_news.append(LeaderNews(market, self.revisions[market], record_of))
        return News(server_news, leader_news)

    def stands(self, market: str, role: Role = "follower", *, could_lead: bool = True) -> list[Any]:
        """Tell how a replica stands; writing is left out of what is wanted."""
        effects = self.give(ReplicaStands(market, role, could_lead))
        return [effect for effect in effects if not isinstance(effect, Renew)]

    def watch(self, us: int, *servers: str) -> list[ElectionEffect]:
        """Let time pass, reading and writing as a healthy server does; some are seen each time."""
        effects = []
        end = self.now + us
        while self.now < end:
            self.now = min(self.now + 50 * MS, end)
            effects += self.give(Tick())
            effects += self.give(Renewed())
            effects += self.read(*servers)
        return [each for each in effects if not isinstance(each, ReadLeases | Renew)]

    def named(self, name: Name) -> list[Any]:
        """Have a record written."""
        self.revisions[name.market] = self._next()
        return self.give(Named(name.market, name.record, self.revisions[name.market]))

    def _next(self) -> int:
        self._revision += 1
        return self._revision


def electing(
    *servers: str, leaders: tuple[str, ...] = (), holding: str = "", changes: int = 0
) -> Electing:
    """Begin among others, holding markets, whose leaders have long been the same."""
    each = Electing()
    each.give(Tick())
    each.read(*servers, leaders=leaders, changes=changes)
    each.give(Renewed())
    for market in holding.split():
        role: Role = "leader" if f"{market} own" in leaders else "follower"
        each.stands(market, role, could_lead=True)
    each.watch(10 * S, *servers)
    return each


def wanted(effects: list[Any], kind: type[E]) -> list[E]:
    """Give what is wanted of a kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def only(effects: list[Any], kind: type[E]) -> E:
    """Give the only thing of a kind that is wanted."""
    (effect,) = wanted(effects, kind)
    return effect


def preferred(market: str, *servers: str) -> list[str]:
    """Order servers as a market prefers them."""
    return homes.preference(market, servers)


def market_preferring(server: str, *others: str) -> str:
    """Name a market that prefers a server to others."""
    return next(
        name
        for name in (f"M{number}" for number in range(1_000))
        if preferred(name, server, *others)[0] == server
    )


# --- Reading and writing ---------------------------------------------------------------------


def test_nothing_is_written_or_claimed_before_the_records_were_read() -> None:
    each = Electing()

    assert [type(effect) for effect in each.give(Tick())] == [ReadLeases]
    assert each.stands("M") == []

    each.give(LeasesUnread())

    assert wanted(each.give(Tick()), Renew) == []
    assert only(each.read(), Renew).record == ServerRecord("own", "own.2", ("M",))


def test_own_record_is_written_twice_a_second_and_when_it_changes() -> None:
    each = electing("a M", leaders=("M a",), holding="M")
    assert wanted(each.watch(1), Renew) == []
    each.now += RENEWAL_US
    each.give(Tick())
    each.give(Renewed())
    each.now += RENEWAL_US - 1

    assert wanted(each.give(Tick()), Renew) == []

    each.now += 1

    assert only(each.give(Tick()), Renew).record.markets == ("M",)

    each.give(RenewalFailed())

    effects = each.give(ReplicaStands("N", "follower", could_lead=True))
    assert only(effects, Renew).record.markets == ("M", "N")


def test_records_are_read_four_times_a_second_and_one_reading_at_a_time() -> None:
    each = electing("a M")
    each.now += READING_US

    assert len(wanted(each.give(Tick()), ReadLeases)) == 1

    each.now += 10 * READING_US

    assert wanted(each.give(Tick()), ReadLeases) == []

    each.give(LeasesUnread())

    assert len(wanted(each.give(Tick()), ReadLeases)) == 1


def test_somebody_is_named_and_the_records_are_read_at_once() -> None:
    each = electing("a M")
    each.give(LeasesUnread())

    assert wanted(each.give(LeadersChanged()), ReadLeases) == [ReadLeases()]


def test_somebody_is_named_during_a_reading_and_there_is_one_more() -> None:
    each = Electing()
    each.give(Tick())

    assert each.give(LeadersChanged()) == []
    assert each.give(LeadersChanged()) == []
    assert len(wanted(each.read(), ReadLeases)) == 1
    assert wanted(each.read(), ReadLeases) == []


# --- Taking over -----------------------------------------------------------------------------


def test_market_that_nobody_ever_led_is_taken_at_once_by_who_alone_could_lead_it() -> None:
    each = electing()

    name = only(each.stands("M"), Name)

    assert (name.market, name.record, name.after) == ("M", LeaderRecord("own", "own.2", 0), 0)


def test_nothing_is_taken_before_the_own_record_was_ever_written() -> None:
    """Others would find the record of the incarnation before, and take the market over at once."""
    each = Electing()
    each.give(Tick())
    each.read("own.1 M", leaders=("M own.1",))

    assert each.stands("M") == []
    assert each.tick(us=PATIENCE_US) == []
    assert each.give(RenewalFailed()) == []

    assert only(each.give(Renewed()), Name).record.incarnation == "own.2"


def test_market_goes_to_nobody_who_could_not_lead_it() -> None:
    each = electing()

    assert each.stands("M", could_lead=False) == []
    assert each.tick(us=S) == []


def test_named_server_nominates_its_replica() -> None:
    each = electing()
    name = only(each.stands("M"), Name)

    assert each.named(name) == [Nominate("M")]


def test_nomination_is_repeated_until_the_replica_stands() -> None:
    each = electing()
    each.named(only(each.stands("M"), Name))

    assert each.tick(us=RENOMINATION_US - 1) == []
    assert each.tick(us=1) == [Nominate("M")]

    each.stands("M", "candidate")

    assert each.tick(us=READING_GAP_US_MAX - RENOMINATION_US) == []


def test_who_has_not_read_for_a_second_nominates_nobody() -> None:
    """It may be named no more, and would stand against another again and again."""
    each = electing("a M", leaders=("M own",), holding="M")
    each.read()
    each.stands("M", "follower", could_lead=False)
    each.now += READING_GAP_US_MAX + 1

    assert each.stands("M", "follower") == []
    assert each.read() == [Nominate("M")]


def test_who_was_deposed_reads_before_it_nominates_again() -> None:
    """The log says that somebody else leads, so that the records may say so too."""
    each = electing("a M", leaders=("M own",), holding="M")
    each.give(LeadersChanged())
    each.now += MS

    assert wanted(each.stands("M", "follower"), Nominate) == []
    # This reading began before.
    assert wanted(each.give(LeasesRead(each.news("a M"))), Nominate) == []
    assert wanted(each.read("a M"), Nominate) == [Nominate("M")]


def test_leader_is_told_nothing_while_nothing_can_be_read() -> None:
    each = electing("a M", leaders=("M own",), holding="M")
    effects = []
    for _ in range(200):
        each.give(LeasesUnread())
        each.give(RenewalFailed())
        effects += each.tick(us=50 * MS)

    assert effects == []


@pytest.mark.parametrize("why", ["vacant", "dead incarnation", "deleted"])
def test_market_without_a_leader_is_taken_at_once_by_its_heir(why: str) -> None:
    market = market_preferring("own", "a")
    each = electing(f"a {market}", leaders=(f"{market} own",), holding=market)
    match why:
        case "vacant":
            effects = each.read(leaders=(f"{market} ",))
        case "dead incarnation":
            effects = each.read(leaders=(f"{market} own.1",))
        case _:
            news = each.news(leaders=(f"{market} ",))
            gone = [LeaderNews(market, news.leaders[0].revision, None)]
            effects = each.give(LeasesRead(News([], gone)))

    name = only(effects, Name)
    assert name.record.server == "own"
    assert name.after == each.revisions[market]


def test_market_without_a_leader_is_left_to_its_heir_for_0_3_s() -> None:
    market = market_preferring("a", "own")
    each = electing(f"a {market}", leaders=(f"{market} a",), holding=market)

    assert wanted(each.read(leaders=(f"{market} ",)), Name) == []
    assert wanted(each.tick(us=PATIENCE_US - 1), Name) == []
    assert only(each.tick(us=1), Name).record.server == "own"


def test_patience_begins_anew_when_somebody_led_it_meanwhile() -> None:
    market = market_preferring("a", "own")
    each = electing(f"a {market}", leaders=(f"{market} a",), holding=market)
    each.read(leaders=(f"{market} ",))
    each.tick(us=PATIENCE_US - 1)
    each.read(leaders=(f"{market} a",))
    each.read(leaders=(f"{market} ",))

    assert wanted(each.tick(us=PATIENCE_US - 1), Name) == []
    assert len(wanted(each.tick(us=1), Name)) == 1


def test_market_of_a_dead_server_is_taken_and_it_is_said_from_whom_and_why() -> None:
    each = electing("a M", leaders=("M a",), holding="M")

    effects = each.watch(3 * S)

    assert wanted(effects, Note)[0] == Note(
        "taking M over from a: its record has not changed for 2000 ms"
    )
    assert wanted(effects, Name)[0].record == LeaderRecord("own", "own.2", 1)


def test_market_of_a_server_that_was_started_again_is_taken_at_once() -> None:
    market = market_preferring("own", "a", "b")
    each = electing(f"a {market}", f"b {market}", leaders=(f"{market} a",), holding=market)

    effects = each.read("a.2", f"b {market}")

    assert only(effects, Name).record.server == "own"


def refused_twice(each: Electing, server: str = "a") -> list[ElectionEffect]:
    """Have nobody answer for a server twice, with a reading in between."""
    each.give(LeasesUnread())
    assert wanted(each.give(PingRefused(server)), ReadLeases) == [ReadLeases()]
    effects = each.read()
    each.now += 20 * MS
    return effects + each.give(PingRefused(server))


def test_market_of_a_server_that_nobody_answers_for_twice_is_taken_at_once() -> None:
    each = electing("a M", leaders=("M a",), holding="M")

    assert only(refused_twice(each), Name).record.server == "own"


def test_restless_market_is_taken_when_nobody_has_answered_for_0_65_s() -> None:
    each = electing("a M", leaders=("M a",), holding="M")
    each.read(leaders=("M a.1",), changes=1)
    each.read(leaders=("M b",), changes=1)
    each.read("a M", "b M", leaders=("M a",), changes=1)
    each.watch(2 * S, "a M", "b M")

    assert wanted(refused_twice(each), Name) == []
    assert wanted(each.watch(630 * MS - 1, "b M"), Name) == []
    assert wanted(each.watch(1, "b M") + each.watch(PATIENCE_US, "b M"), Name) != []


def test_market_is_taken_from_nobody_by_a_server_that_leaves() -> None:
    each = electing("a M", leaders=("M a",), holding="M")
    each.give(ToldToLeave())

    assert wanted(each.watch(5 * S), Name) == []


# --- Naming ----------------------------------------------------------------------------------


def test_reading_that_began_before_does_not_end_a_naming() -> None:
    each = electing()
    each.give(LeadersChanged())
    name = only(each.stands("M"), Name)

    assert wanted(each.read(), Name) == []
    assert each.tick(us=10 * MS) == []
    assert each.named(name) == [Nominate("M")]


def test_reading_that_shows_nothing_yet_does_not_end_a_naming() -> None:
    each = electing()
    name = only(each.stands("M"), Name)
    each.give(LeadersChanged())

    assert wanted(each.read(), Name) == []
    assert each.named(name) == [Nominate("M")]


def test_successor_that_is_being_named_is_not_competed_with() -> None:
    """A reading that shows the leader named still, must not make it stand again."""
    each = electing("a M", leaders=("M own",), holding="M")
    each.give(ToldToLeave())
    name = only(each.stands("M", "follower"), Name)
    each.give(LeadersChanged())

    assert each.read() == []
    assert each.tick(us=10 * MS) == []
    assert each.named(name) == [Left()]


@pytest.mark.parametrize("answer", ["none", "unknown"])
def test_failed_naming_is_tried_again_after_a_reading_that_began_later(answer: str) -> None:
    each = electing()
    each.give(LeadersChanged())
    name = only(each.stands("M"), Name)
    given = Named("M", name.record, None) if answer == "none" else NamingUnknown("M")

    assert each.give(given) == []
    assert each.read() == [ReadLeases()]
    assert only(each.read(), Name).after == 0


def test_naming_that_was_unknown_and_stands_is_taken_for_what_it_is() -> None:
    each = electing()
    only(each.stands("M"), Name)
    each.give(NamingUnknown("M"))

    assert each.read(leaders=("M own",)) == [Nominate("M")]


def test_older_news_do_not_undo_what_was_named() -> None:
    each = electing("a M", leaders=("M a",), holding="M")
    stale = each.news(leaders=("M b",))
    each.read(leaders=("M own",))

    assert wanted(each.give(LeasesRead(stale)), Dismiss) == []
    assert each.tick(us=RENOMINATION_US) == [Nominate("M")]


@pytest.mark.parametrize(
    ("before", "waited_us", "changes"),
    [
        (0, 60 * S, 1),
        (1, 0, 2),
        (1, RESTLESS_US - 1, 2),
        # Whoever waits for it to come to rest is as quick as may be.
        (1, RESTLESS_US, 2),
        (1, 2 * RESTLESS_US - 1, 2),
        (1, 2 * RESTLESS_US, 1),
        (2, 2 * RESTLESS_US, 3),
        (3, 8 * RESTLESS_US - 1, 4),
        (3, 8 * RESTLESS_US, 1),
        # From the fifth on it is a minute.
        (5, 119 * S, 6),
        (5, 120 * S, 1),
        (10**9, 119 * S, 10**9 + 1),
        (10**9, 120 * S, 1),
    ],
)
def test_changes_of_leader_are_counted_as_long_as_they_come_soon_after_each_other(
    before: int, waited_us: int, changes: int
) -> None:
    each = electing("a M", leaders=("M own",), holding="M")
    each.read(leaders=("M b.7",), changes=before)
    each.read(leaders=("M a",), changes=before)
    each.now += waited_us

    name = only(each.read("a.2") + each.tick(us=0), Name)

    assert name.record.changes == changes


# --- Staying out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds_ago", "is_taken"), [(60, True), (1, False), (-60, False), (0, False)]
)
def test_market_is_as_restless_for_who_has_just_started_as_for_others(
    seconds_ago: int, is_taken: bool
) -> None:
    """The time of the writing says it; a clock that is wrong, or a time that is not known, does not
    make a market calm before its time."""
    each = Electing()
    each.wall = 1_000 * S
    stored_at = each.wall - seconds_ago * S if seconds_ago else 0
    each.give(Tick())
    news = each.news("a M", leaders=("M a",), changes=1)
    news.leaders[0] = structs.replace(news.leaders[0], stored_at=stored_at)
    each.give(LeasesRead(news))
    each.give(Renewed())
    each.stands("M")
    each.watch(2 * S, "a M")

    assert (wanted(refused_twice(each), Name) != []) == is_taken


def test_leader_that_another_is_named_for_is_dismissed_once() -> None:
    each = electing("a M", leaders=("M own",), holding="M")

    assert each.read(leaders=("M a",)) == [Dismiss("M")]
    assert each.tick(us=S) == []
    assert each.stands("M", "retiring") == []
    assert each.stands("M", "follower") == []


def test_replica_that_was_nominated_and_has_not_stood_yet_is_dismissed_too() -> None:
    each = electing("a M")
    each.named(only(each.stands("M") + each.tick(us=PATIENCE_US), Name))

    assert each.read(leaders=("M a",)) == [Dismiss("M")]


def test_dismissed_replica_that_is_named_again_is_nominated_again() -> None:
    each = electing("a M", leaders=("M own",), holding="M")
    each.read(leaders=("M a",))
    each.stands("M", "follower")

    assert each.read(leaders=("M own",)) == [Nominate("M")]
    assert each.stands("M", "candidate") == []
    assert each.read(leaders=("M a",)) == [Dismiss("M")]


# --- Unable ----------------------------------------------------------------------------------


def test_named_server_that_cannot_lead_for_a_second_hands_over() -> None:
    each = electing("a M", leaders=("M own",), holding="M")
    each.stands("M", "follower", could_lead=False)

    assert each.tick(us=UNABLE_US - 1) == []
    assert wanted(each.tick(us=1), Dismiss) == [Dismiss("M")]
    name = only(each.tick(), Name)
    assert name.record.server == "a"


def test_candidate_that_finds_out_that_it_must_not_lead_hands_over_at_once() -> None:
    each = electing("a M", leaders=("M own",), holding="M")
    each.stands("M", "candidate")

    effects = each.stands("M", "follower", could_lead=False)

    assert wanted(effects, Dismiss) == [Dismiss("M")]
    assert only(each.tick(), Name).record.server == "a"


def test_broken_replica_is_not_kept_as_leader() -> None:
    each = electing("a M", leaders=("M own",), holding="M")
    each.stands("M", "stopped", could_lead=False)

    effects = each.watch(UNABLE_US + 100 * MS, "a M")

    assert wanted(effects, Name)[0].record.server == "a"


def test_named_server_that_cannot_lead_keeps_the_market_while_nobody_else_could() -> None:
    each = electing("a", leaders=("M own",), holding="M")
    each.stands("M", "follower", could_lead=False)

    assert each.watch(10 * S, "a") == []

    each.stands("M", "follower", could_lead=True)

    assert wanted(each.watch(S, "a"), Nominate) != []


# --- Balance ---------------------------------------------------------------------------------

LEADERS = ("M own", "N own", "O own")


def test_server_that_leads_two_more_than_another_hands_one_over_after_a_second() -> None:
    each = electing("a", leaders=LEADERS, holding="M N O")
    each.read("a M N O")
    assert each.watch(SERVERS_SETTLED_US - 1, "a M N O") == []

    note, dismiss = each.watch(1, "a M N O")

    assert isinstance(note, Note)
    assert isinstance(dismiss, Dismiss)
    assert each.stands(dismiss.market, "retiring") == []
    name = only(each.stands(dismiss.market, "follower"), Name)
    assert name.record == LeaderRecord("a", "a.1", 1)
    assert each.named(name) == []


def test_server_that_leads_one_more_than_another_keeps_it() -> None:
    each = electing("a M N", leaders=("M own", "N a", "O own"), holding="M N O")

    assert each.watch(30 * S, "a M N O") == []


def test_hand_over_waits_until_leaders_have_been_the_same_for_a_quarter_of_a_second() -> None:
    each = electing("a", leaders=LEADERS, holding="M N O")
    each.read("a M N O")
    each.watch(SERVERS_SETTLED_US - 100 * MS, "a M N O")
    each.read(leaders=("X b",))

    assert each.watch(LEADERS_SETTLED_US - 1, "a M N O") == []
    assert wanted(each.watch(1, "a M N O"), Dismiss) != []


def test_restless_market_is_not_handed_over_for_balance() -> None:
    each = electing("a", leaders=("M own", "N own"), holding="M N", changes=0)
    each.read("a M N", leaders=("M b", "N b"), changes=1)
    each.read(leaders=("M own", "N own"), changes=1)
    each.stands("M", "leader")
    each.stands("N", "leader")

    assert each.watch(RESTLESS_US - 1, "a M N") == []
    assert wanted(each.watch(1, "a M N"), Dismiss) != []


def test_one_market_is_handed_over_at_a_time() -> None:
    each = electing("a", leaders=(*LEADERS, "P own"), holding="M N O P")
    each.read("a M N O P")
    effects = each.watch(SERVERS_SETTLED_US, "a M N O P")
    market = only(effects, Dismiss).market

    assert each.watch(RETIRING_US_MAX - MS, "a M N O P") == []

    name = only(each.stands(market, "follower"), Name)
    assert each.watch(LEADERS_SETTLED_US, "a M N O P") == []

    each.named(name)

    assert each.watch(LEADERS_SETTLED_US - 1, "a M N O P") == []
    assert only(each.watch(1, "a M N O P"), Dismiss).market != market


def test_successor_of_a_replica_that_does_not_settle_is_named_after_a_second() -> None:
    """The log refuses what it has under way once the successor has begun."""
    each = electing("a", leaders=LEADERS, holding="M N O")
    each.read("a M N O")
    market = only(each.watch(SERVERS_SETTLED_US, "a M N O"), Dismiss).market
    each.stands(market, "retiring")

    assert only(each.watch(RETIRING_US_MAX, "a M N O"), Name).record.server == "a"


def test_successor_that_leaves_meanwhile_is_not_named_and_the_market_is_kept() -> None:
    each = electing("a", leaders=LEADERS, holding="M N O")
    each.read("a M N O")
    market = only(each.watch(SERVERS_SETTLED_US, "a M N O"), Dismiss).market
    each.read("a M N O", leaving="a")

    assert wanted(each.stands(market, "follower"), Name) == []
    assert each.tick() == [Nominate(market)]


def test_market_that_does_not_lead_yet_does_not_hold_up_the_others() -> None:
    each = electing("a", leaders=LEADERS, holding="M N O")
    favorite = homes.next_move(
        [homes.Server("own", frozenset("MNO")), homes.Server("a", frozenset("MNO"))],
        dict.fromkeys("MNO", "own"),
        movable="MNO",
    )
    assert favorite is not None
    each.stands(favorite.market, "candidate")
    each.read("a M N O")

    effects = each.watch(SERVERS_SETTLED_US, "a M N O")

    assert only(effects, Dismiss).market != favorite.market


# --- Leaving ---------------------------------------------------------------------------------


def test_leaving_server_says_so_at_once() -> None:
    each = electing("a M", leaders=("M a",), holding="M")

    assert only(each.give(ToldToLeave()), Renew).record.is_leaving


def test_server_that_leads_nothing_has_left_at_once_and_once() -> None:
    each = electing("a M", leaders=("M a",), holding="M")

    assert len(wanted(each.give(ToldToLeave()), Left)) == 1
    assert wanted(each.watch(5 * S, "a M"), Left) == []


def test_leaving_server_hands_over_one_market_after_another_and_then_has_left() -> None:
    each = electing("a M N", leaders=("M own", "N own", "O a"), holding="M N")
    effects = each.give(ToldToLeave())

    for market in "MN":
        assert wanted(effects, Dismiss) == [Dismiss(market)]
        assert wanted(effects, Left) == []
        assert each.tick() == []
        assert each.stands(market, "retiring") == []
        name = only(each.stands(market, "follower"), Name)
        assert name.record == LeaderRecord("a", "a.1", 1)
        assert each.tick() == []
        effects = each.named(name)

    assert effects == [Left()]
    assert each.tick() == []


def test_leaving_server_leaves_to_nobody_what_nobody_could_lead() -> None:
    each = electing("a", leaders=("M own",), holding="M")
    each.give(ToldToLeave())

    name = only(each.stands("M", "follower"), Name)

    assert name.record == LeaderRecord()
    assert each.named(name) == [Left()]


def test_leaving_server_gives_nothing_to_one_that_leaves() -> None:
    each = electing("a M", "b M", leaders=("M own",), holding="M")
    each.read("a M", "b M", leaving="a")
    each.give(ToldToLeave())

    assert only(each.stands("M", "follower"), Name).record.server == "b"


def test_successor_that_leaves_meanwhile_is_replaced_by_another() -> None:
    each = electing("a M", "b M", leaders=("M own",), holding="M")
    first, second = preferred("M", "a", "b")
    each.give(ToldToLeave())
    each.read(f"{first} M", leaving=first)

    assert wanted(each.stands("M", "follower"), Dismiss) == [Dismiss("M")]
    assert only(each.tick(), Name).record.server == second != first


def test_server_that_is_named_when_it_has_left_hands_over_again_and_does_not_leave_again() -> None:
    each = electing("a M", "b M", leaders=("M a",), holding="M")
    assert len(wanted(each.give(ToldToLeave()), Left)) == 1

    assert wanted(each.read(leaders=("M own",)), Dismiss) == [Dismiss("M")]
    name = only(each.tick(), Name)
    assert name.record.server in ("a", "b")
    assert each.named(name) == []


def test_leaving_server_has_not_left_while_it_may_be_named_yet() -> None:
    each = electing()
    name = only(each.stands("M"), Name)

    assert wanted(each.give(ToldToLeave()), Left) == []

    effects = each.named(name)

    assert wanted(effects, Dismiss) == [Dismiss("M")]


# --- Displaced -------------------------------------------------------------------------------


def test_process_whose_name_a_newer_one_took_ends_and_does_nothing_more() -> None:
    each = electing("own.1", "a M", leaders=("M own",), holding="M")

    effects = each.read("own.3", leaders=("M own.3",))

    assert [type(effect) for effect in effects] == [Displaced]
    assert each.watch(S, "a M") == []
    assert each.give(Connected(is_up=True)) == []


def test_record_of_the_process_before_displaces_nobody() -> None:
    each = electing("own.1", "a M", leaders=("M a",), holding="M")

    assert each.read("own.1") == []
    assert each.read("own.2") == []


# --- Snapshots -------------------------------------------------------------------------------


def test_snapshots_are_the_duty_of_the_follower_that_the_market_prefers() -> None:
    market = market_preferring("own", "a", "b")
    each = Electing()
    each.give(Tick())
    each.read(f"a {market}", f"b {market}", leaders=(f"{market} b",))
    each.read(f"a {market}", f"b {market}")

    effects = each.all(ReplicaStands(market, "follower", could_lead=True))

    assert only(effects, Assign) == Assign(market, is_mine=True)
    # The leader has more to do.
    effects = each.all(LeasesRead(each.news(leaders=(f"{market} own",))))
    assert only(effects, Assign) == Assign(market, is_mine=False)


def test_snapshots_are_the_duty_of_a_leader_that_is_alone() -> None:
    each = electing()
    each.all(ReplicaStands("M", "leader", could_lead=True))
    effects = each.all(LeasesRead(each.news(leaders=("M own",))))

    assert wanted(effects, Assign) == []

    # A record may be that of a dead server; one that is renewed is not.
    assert wanted(each.all(LeasesRead(each.news("a M"))), Assign) == []
    effects = each.all(LeasesRead(each.news("a M")))
    assert only(effects, Assign) == Assign("M", is_mine=False)


def test_nothing_is_handed_over_to_a_server_that_was_never_seen_to_live() -> None:
    """After a start the records of the dead stand unchanged for as long as those of the living."""
    each = electing(leaders=LEADERS, holding="M N O")

    assert each.read("a M N O") == []
    assert each.watch(STILL_US_MAX - MS) == []


def test_snapshots_are_not_the_duty_of_a_server_that_leaves() -> None:
    each = electing(leaders=("M own",), holding="M")

    assert only(each.all(ToldToLeave()), Assign) == Assign("M", is_mine=False)
