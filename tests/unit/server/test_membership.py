"""Who lives, as one server sees it: every sign of death, and every reason not to believe it."""

from dex_server.replication.effects import Instant
from dex_server.replication.membership import (
    AGAIN_US,
    PING_US,
    READING_GAP_US_MAX,
    REFUSED_LONG_US,
    RENEWED_US_MAX,
    SETTLED_US,
    STILL_US_MAX,
    Membership,
)
from dex_server.replication.ports import ServerNews, ServerRecord

MS = 1_000
S = 1_000_000


class Seeing:
    """The membership of the server `own`, and the time, which a test moves by hand."""

    def __init__(self) -> None:
        self.now = 100 * S
        self.membership = Membership("own")
        self.membership.connected(self._instant, is_up=True)
        self._revision = 0

    @property
    def _instant(self) -> Instant:
        return Instant(0, self.now)

    def wait(self, us: int) -> None:
        """Let time pass, in which nothing is read."""
        self.now += us

    def read(self, *servers: str, asked_us_ago: int = 0) -> None:
        """Read the records: those that were written since, by name, or name and incarnation."""
        news = []
        for server in servers:
            name, _, incarnation = server.partition(" ")
            self._revision += 1
            record = ServerRecord(name, incarnation or "1", ("M",))
            news.append(ServerNews(name, self._revision, record))
        self.membership.read(news, asked_at=self.now - asked_us_ago, now=self._instant)

    def wait_reading(self, us: int) -> None:
        """Let time pass, in which the records are read and the own one cannot be written."""
        end = self.now + us
        while self.now < end:
            self.now = min(self.now + 250 * MS, end)
            self.read()

    def read_deleted(self, server: str) -> None:
        """Read that a record is gone."""
        self._revision += 1
        news = [ServerNews(server, self._revision, None)]
        self.membership.read(news, asked_at=self.now, now=self._instant)

    def renewed(self) -> None:
        """Have the own record written."""
        self.membership.renewed(self._instant)

    def watch(self, us: int, *servers: str, every_us: int = 250 * MS) -> None:
        """Let time pass, reading and writing as a healthy server does; some are seen each time."""
        end = self.now + us
        while self.now < end:
            self.now = min(self.now + every_us, end)
            self.renewed()
            self.read(*servers)

    def refuse(self, server: str = "a") -> bool:
        """Have nobody answer for a server."""
        return self.membership.refused(server, self._instant)

    def due(self) -> list[str]:
        """Give who is pinged now."""
        return self.membership.due(self._instant)

    def why(self, server: str = "a", incarnation: str = "1", *, is_certain: bool = False) -> str:
        """Tell why a server counts as gone; empty while it does not."""
        why = self.membership.why_gone(server, incarnation, self._instant, is_certain=is_certain)
        return why or ""

    def living(self) -> list[str]:
        """Name who lives."""
        return [record.server for record in self.membership.living(self._instant)]

    def connect(self, *, is_up: bool) -> None:
        """Lose the own connection, or have it again."""
        self.membership.connected(self._instant, is_up=is_up)

    def change_cluster(self) -> None:
        """Have NATS nodes come or go."""
        self.membership.cluster_changed(self._instant)


def seeing(*servers: str) -> Seeing:
    """See servers, with a connection and a cluster old enough for anything."""
    seen = Seeing()
    seen.renewed()
    seen.read(*servers)
    seen.watch(SETTLED_US, *servers)
    return seen


def seeing_dead(server: str = "a") -> Seeing:
    """See one that just died: refused twice, with the records read in between."""
    seen = seeing(server)
    assert seen.refuse(server)
    seen.read()
    seen.wait(AGAIN_US)
    assert not seen.refuse(server)
    return seen


# --- Records ---------------------------------------------------------------------------------


def test_servers_with_records_live_in_the_order_of_their_names() -> None:
    seen = seeing("c", "a", "b", "own")

    assert seen.living() == ["a", "b", "c"]


def test_server_whose_record_is_renewed_lives_for_good() -> None:
    seen = seeing("a")
    seen.watch(60 * S, "a")

    assert seen.why() == ""


def test_record_that_stands_still_for_two_seconds_is_a_dead_servers() -> None:
    seen = seeing("a", "b")
    seen.watch(STILL_US_MAX - 1, "b")

    assert seen.why() == ""

    seen.watch(1, "b")

    assert "not changed for 2000 ms" in seen.why()
    assert seen.living() == ["b"]


def test_server_that_renews_its_record_after_it_stood_still_lives_again() -> None:
    seen = seeing("a")
    seen.watch(STILL_US_MAX)
    seen.read("a")

    assert seen.why() == ""
    assert seen.living() == ["a"]


def test_time_between_readings_that_are_far_apart_proves_nothing() -> None:
    seen = seeing("a")
    for _ in range(20):
        seen.watch(READING_GAP_US_MAX + 1, every_us=READING_GAP_US_MAX + 1)

    assert seen.why() == ""


def test_time_between_readings_that_are_just_close_enough_counts() -> None:
    seen = seeing("a")
    seen.watch(STILL_US_MAX, every_us=READING_GAP_US_MAX)

    assert seen.why() != ""


def test_time_in_which_nothing_was_read_proves_nothing_when_it_is_over() -> None:
    seen = seeing("a")
    seen.wait(60 * S)
    seen.renewed()
    seen.read()

    assert seen.why() == ""

    seen.watch(STILL_US_MAX - 1)

    assert seen.why() == ""


def test_time_without_a_successful_writing_of_the_own_record_proves_nothing() -> None:
    seen = seeing("a")
    for _ in range(100):
        seen.wait(100 * MS)
        seen.read()

    assert seen.membership.record("a") is not None
    assert seen.why() == ""


def test_time_counts_until_the_own_record_is_too_old() -> None:
    seen = seeing("a")
    # In four steps while it is young enough, and then for as long as anybody likes.
    for _ in range(40):
        seen.wait(RENEWED_US_MAX // 4)
        seen.read()

    assert seen.why() == ""

    # The same again, in which it counts again.
    seen.renewed()
    for _ in range(4):
        seen.wait(RENEWED_US_MAX // 4)
        seen.read()

    assert "not changed for 2000 ms" in seen.why()


def test_server_that_never_wrote_its_own_record_knows_nothing_of_others() -> None:
    seen = Seeing()
    seen.read("a")
    for _ in range(100):
        seen.wait(100 * MS)
        seen.read()

    assert seen.why() == ""


def test_server_that_is_spoken_of_and_has_no_record_is_gone_after_two_seconds() -> None:
    seen = seeing()
    seen.membership.expects("a")

    assert seen.why() == ""
    assert seen.living() == []

    seen.watch(STILL_US_MAX)

    assert seen.why() != ""


def test_deleted_record_is_that_of_nobody_who_lives() -> None:
    seen = seeing("a")
    seen.read_deleted("a")

    assert seen.living() == []
    assert seen.why() == ""

    seen.watch(STILL_US_MAX)

    assert seen.why() != ""


def test_own_record_is_no_other_server() -> None:
    seen = seeing("own")
    seen.membership.expects("own")

    assert seen.living() == []
    assert seen.due() == []


# --- Incarnations ----------------------------------------------------------------------------


def test_incarnation_before_the_one_that_is_seen_is_gone_at_once() -> None:
    seen = seeing("a 1")
    seen.read("a 2")

    assert seen.why("a", "1") == "it was started again"
    assert seen.why("a", "1", is_certain=True) == "it was started again"
    assert seen.why("a", "2") == ""
    assert seen.living() == ["a"]


# --- Pings -----------------------------------------------------------------------------------


def test_server_that_nobody_answers_for_twice_is_gone() -> None:
    assert seeing_dead().why() == "nobody answers for it"


def test_server_that_nobody_answers_for_does_not_live() -> None:
    assert seeing_dead().living() == []


def test_refusal_that_is_new_is_told_as_such_once() -> None:
    seen = seeing("a", "b")

    assert [seen.refuse("a"), seen.refuse("a"), seen.refuse("b")] == [True, False, True]

    seen.membership.answered("a")

    assert seen.refuse("a")


def test_one_refusal_is_no_death_however_long_it_is_ago() -> None:
    seen = seeing("a")
    seen.refuse()
    seen.watch(STILL_US_MAX - SETTLED_US // 2)

    assert seen.why() == ""


def test_two_refusals_less_than_20_ms_apart_are_no_death() -> None:
    seen = seeing("a")
    seen.refuse()
    seen.read()
    seen.wait(AGAIN_US - 1)
    seen.refuse()

    assert seen.why() == ""

    seen.wait(1)

    assert seen.why() != ""


def test_refusals_mean_nothing_before_the_records_were_read() -> None:
    seen = seeing("a")
    seen.refuse()
    seen.wait(AGAIN_US)
    seen.refuse()

    assert seen.why() == ""

    # Asked for before the first refusal: what is in it may be older.
    seen.read(asked_us_ago=AGAIN_US + 1)

    assert seen.why() == ""

    seen.read(asked_us_ago=AGAIN_US)

    assert seen.why() != ""


def test_record_that_was_renewed_before_the_baseline_does_not_prove_life() -> None:
    """What the first reading after a refusal shows may have been written before it."""
    seen = seeing("a")
    seen.refuse()
    seen.read("a")
    seen.wait(AGAIN_US)
    seen.refuse()

    assert seen.why() != ""


def test_server_that_renews_its_record_though_nobody_answers_for_it_lives() -> None:
    seen = seeing_dead()
    seen.read("a")

    assert seen.why() == ""
    assert seen.living() == ["a"]

    for _ in range(100):
        seen.watch(100 * MS, "a")
        seen.refuse()

    assert seen.why() == ""
    assert seen.why(is_certain=True) == ""


def test_distrusted_server_is_gone_when_its_record_stands_still() -> None:
    seen = seeing_dead()
    seen.read("a")
    seen.watch(STILL_US_MAX)

    assert "not changed" in seen.why()


def test_distrust_ends_with_an_answer() -> None:
    seen = seeing_dead()
    seen.read("a")
    seen.membership.answered("a")
    seen.refuse()
    seen.read()
    seen.wait(AGAIN_US)
    seen.refuse()

    assert seen.why() == "nobody answers for it"


def test_distrust_outlives_silence_and_reconnection() -> None:
    seen = seeing_dead()
    seen.read("a")
    seen.membership.silent("a")
    seen.connect(is_up=False)
    seen.connect(is_up=True)
    seen.watch(SETTLED_US, "a")
    seen.refuse()
    seen.read()
    seen.wait(AGAIN_US)
    seen.refuse()

    assert seen.why() == ""


def test_answer_breaks_the_row_of_refusals() -> None:
    seen = seeing_dead()
    seen.membership.answered("a")

    assert seen.why() == ""

    seen.refuse()

    assert seen.why() == ""


def test_silence_breaks_the_row_of_refusals() -> None:
    """A ping that was delivered, or may have been, proves that nothing is missing but an answer."""
    seen = seeing_dead()
    seen.membership.silent("a")

    assert seen.why() == ""

    seen.refuse()

    assert seen.why() == ""


def test_refusals_count_only_two_seconds_after_the_own_connection_was_made() -> None:
    seen = seeing("a")
    seen.connect(is_up=False)
    seen.connect(is_up=True)
    seen.refuse()
    seen.read()
    seen.wait_reading(SETTLED_US - 1)
    seen.refuse()

    assert seen.why() == ""

    seen.wait(1)

    assert seen.why() != ""


def test_refusals_count_for_nothing_without_an_own_connection() -> None:
    seen = seeing_dead()
    seen.connect(is_up=False)
    seen.refuse()
    seen.read()
    seen.wait(AGAIN_US)
    seen.refuse()

    assert seen.why() == ""


def test_lost_connection_breaks_the_row_of_refusals() -> None:
    seen = seeing("a")
    seen.refuse()
    seen.connect(is_up=True)

    assert seen.refuse()


def test_renewal_that_only_the_first_reading_after_a_gap_shows_counts_for_life() -> None:
    """A cut keeps both from reading and from being answered; what is read first is of then."""
    seen = seeing("a")
    seen.refuse()
    seen.wait(5 * S)
    seen.refuse()
    seen.read("a", asked_us_ago=10 * MS)

    assert seen.why() == ""

    seen.watch(S, "a")

    assert seen.why() == ""


def test_refusals_count_only_two_seconds_after_nats_nodes_came_or_went() -> None:
    seen = seeing_dead()
    seen.change_cluster()

    assert seen.why() == ""

    seen.wait_reading(SETTLED_US - 1)

    assert seen.why() == ""

    seen.wait(1)

    assert seen.why() != ""


def test_refusals_count_only_as_long_as_the_records_are_read() -> None:
    """That the record was not renewed is known only to who reads it."""
    seen = seeing_dead()
    seen.wait(READING_GAP_US_MAX - AGAIN_US)

    assert seen.why() != ""

    seen.wait(1)

    assert seen.why() == ""


def test_where_more_certainty_is_wanted_refusals_must_have_lasted_three_quarters_of_a_second() -> (
    None
):
    seen = seeing_dead()

    assert seen.why(is_certain=True) == ""

    seen.wait(REFUSED_LONG_US - AGAIN_US - 1)

    assert seen.why(is_certain=True) == ""

    seen.wait(1)

    assert seen.why(is_certain=True) == "nobody answers for it"


def test_every_server_is_pinged_every_tenth_of_a_second_and_not_before_the_last_is_answered() -> (
    None
):
    seen = seeing("a", "b")

    assert seen.due() == ["a", "b"]
    assert seen.due() == []

    seen.membership.answered("a")
    seen.wait(PING_US - 1)

    assert seen.due() == []

    seen.wait(1)

    assert seen.due() == ["a"]

    seen.membership.silent("b")

    assert seen.due() == ["b"]


def test_refused_server_is_pinged_again_after_20_ms_and_then_every_tenth_of_a_second() -> None:
    seen = seeing("a")
    assert seen.due() == ["a"]
    seen.refuse()
    seen.wait(AGAIN_US - 1)

    assert seen.due() == []

    seen.wait(1)

    assert seen.due() == ["a"]

    seen.refuse()
    seen.wait(PING_US - 1)

    assert seen.due() == []

    seen.wait(1)

    assert seen.due() == ["a"]


def test_server_whose_record_stands_still_is_not_pinged_until_it_is_renewed() -> None:
    seen = seeing("a")
    seen.watch(STILL_US_MAX)

    assert seen.due() == []

    seen.read("a")

    assert seen.due() == ["a"]
