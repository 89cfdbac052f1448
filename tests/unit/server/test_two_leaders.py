"""Two servers that both believe they lead: the log decides, and nobody is told anything else
(G1, G7, G13).

What peers are told holds whoever leads: acknowledged means in the log, once; `retry` means not
executed; no word means that it may or may not be there.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from dex_protocol.events import Accepted, Commit
from dex_server.replication.effects import Append, AppendUndecided, Input
from dex_server.replication.ports import Undecided
from tests.builders import buy, order, sell
from tests.unit.server.harness import (
    Harness,
    a_leader,
    beside,
    follow,
    following,
    leading,
    names,
    terms,
)


@pytest.mark.parametrize("window", [1, 5])
def test_nothing_of_a_deposed_leader_lands_and_nothing_is_said_of_its_commits(window: int) -> None:
    leader = a_leader(window=window)
    leader.commit(1)
    numbers = [leader.send(buy("1 @ 100", n)) for n in range(2, 10)]
    under_way = leader.waiting(Append)
    other = leading(beside(leader, window=window))
    other.commit(20, 2)
    leader.run()

    assert len(under_way) == window
    landed = {leader.entry(sequence).payload for sequence in range(1, leader.end + 1)}
    assert landed.isdisjoint(append.payload for append in under_way)
    assert [leader.answer(number) for number in numbers[:window]] == [None] * window
    assert leader.retries(*numbers[window:]) == ["not_leader"] * (8 - window)
    assert leader.replica.role == "follower"
    assert leader.market.snapshot() == other.market.snapshot()


@pytest.mark.parametrize("window", [1, 5])
def test_first_of_what_is_under_way_may_land_before_another_begins_its_term(window: int) -> None:
    """Its answer is on its way when the rest is refused."""
    leader = a_leader(window=window)
    numbers = [leader.send(buy("1 @ 100", n)) for n in range(1, 8)]
    first = leader.take(Append)
    leader.log.append(first.payload, after=first.after)
    leading(beside(leader, window=window))
    leader.run(hold=(Append,))
    leader.perform(first)
    leader.run()

    assert leader.receipt(numbers[0]).sequence == 2
    # All others are in commits by now: what had waited went into one when the first was stored.
    assert [leader.answer(number) for number in numbers[1:]] == [None] * 6
    assert [names(commit) for commit in leader.commits()[1:]] == [["accepted"], ["leader_changed"]]


WHICH = st.integers(0, 1)
INDEX = st.integers(0, 20)


class TwoServers(RuleBasedStateMachine):
    """Two servers of one market, in a world that does things in any order, late, or unnoticed."""

    window = 1

    def __init__(self) -> None:
        super().__init__()
        how: dict[str, Any] = {"window": self.window, "snapshot_commits": 4}
        first = a_leader(**how)
        self.servers = [first, following(beside(first, **how))]
        # What each is to be told; appends that nobody waits for any more; what was sent to whom.
        self.answers: list[list[Input]] = [[], []]
        self.lost: list[Append] = []
        self.sent: list[tuple[Harness, int, str]] = []

    @rule(which=WHICH, count=st.integers(1, 4))
    def send(self, which: int, count: int) -> None:
        """Orders that trade with each other."""
        for _ in range(count):
            number = len(self.sent) + 1
            peer, make = ("alice", buy) if number % 2 else ("bob", sell)
            sent = self.servers[which].send(make("1 @ 100", number, peer=peer), peer=peer)
            self.sent.append((self.servers[which], sent, order(number, peer)))

    @rule(which=WHICH)
    def nominate(self, which: int) -> None:
        self.servers[which].nominate()

    @rule(which=WHICH)
    def dismiss(self, which: int) -> None:
        self.servers[which].dismiss()

    @rule(which=WHICH, is_mine=st.booleans())
    def put_on_duty(self, which: int, is_mine: bool) -> None:
        self.servers[which].on_duty(is_mine=is_mine)

    @rule(which=WHICH, index=INDEX)
    def do(self, which: int, index: int) -> None:
        """Do something that is under way; its answer is on its way from now on."""
        server = self.servers[which]
        if server.under_way:
            server.under_way.rotate(-(index % len(server.under_way)))
            given = server.outcome(server.under_way.popleft())
            if given is not None:
                self.answers[which].append(given)

    @rule(which=WHICH, index=INDEX)
    def answer(self, which: int, index: int) -> None:
        answers = self.answers[which]
        if answers:
            self.servers[which].give(answers.pop(index % len(answers)))

    @rule(which=WHICH)
    def catch_up(self, which: int) -> None:
        """Do all that is under way at once."""
        self._settle(which)

    @precondition(lambda self: any(server.waiting(Append) for server in self.servers))
    @rule(which=WHICH)
    def lose_an_append(self, which: int) -> None:
        """It may land yet, or never."""
        server = self.servers[which]
        if server.waiting(Append):
            append = server.take(Append)
            self.lost.append(append)
            server.give(AppendUndecided(append.after.sequence + 1, "no answer"))

    @precondition(lambda self: self.lost)
    @rule(index=INDEX)
    def land(self, index: int) -> None:
        append = self.lost.pop(index % len(self.lost))
        with suppress(Undecided):
            self.servers[0].log.append(append.payload, after=append.after)

    @rule(which=WHICH, missed=st.integers(0, 3))
    def hear(self, which: int, missed: int) -> None:
        server = self.servers[which]
        server.hear(but=[server.end - missed + 1])

    @rule(ms=st.sampled_from([1, 100, 500, 1_000, 5_000]))
    def pass_time(self, ms: int) -> None:
        for server in self.servers:
            server.pass_time(ms=ms)

    def teardown(self) -> None:
        """Let all come to rest, and see what the log says."""
        while self.lost:
            self.land(0)
        for which in (0, 1):
            self._settle(which)
        self._one_leads_on()
        one, two = self.servers
        market, commits = follow(one.log)
        market.check()

        assert one.alarms == two.alarms == []
        assert one.market.snapshot() == two.market.snapshot() == market.snapshot()
        self._check_promises(commits)
        self._check_terms([commit.term for commit in commits])

    def _settle(self, which: int) -> None:
        server, answers = self.servers[which], self.answers[which]
        while answers:
            server.give(answers.pop(0))
        server.run()

    def _one_leads_on(self) -> None:
        one, two = self.servers
        for server in (two, one):
            server.dismiss()
        for _ in range(2):
            self.pass_time(1_000)
            one.run()
            two.run()
        one.nominate()
        one.run()
        self.send(0, 1)
        one.run()
        two.hear()
        two.run()

        assert one.receipt(self.sent[-1][1]).sequence == one.end

    def _check_promises(self, commits: Sequence[Commit]) -> None:
        accepted = [
            [event.order_id for event in commit.events if isinstance(event, Accepted)]
            for commit in commits
        ]
        for server, number, order_id in self.sent:
            count = sum(ids.count(order_id) for ids in accepted)
            if server.answer(number) is None:
                assert count <= 1
            elif server.receipt(number).status == "retry":
                assert count == 0
            else:
                assert count == 1
                sequence = server.receipt(number).sequence
                assert isinstance(sequence, int)
                assert order_id in accepted[sequence - 1]

    def _check_terms(self, terms_of_commits: list[int]) -> None:
        one, two = self.servers
        begun = terms(one.log)
        assert [term for term, _ in begun] == list(range(1, len(begun) + 1))
        for sequence, term in enumerate(terms_of_commits, start=1):
            payload = one.entry(sequence).payload
            for server in (one, two):
                is_own = any(append.payload == payload for append in server.given(Append))
                assert is_own is (dict(begun)[term] == server.replica.server)


class TwoServersOfManyAppends(TwoServers):
    window = 5


TestOneUnderWay = TwoServers.TestCase
TestOneUnderWay.settings = settings(stateful_step_count=60)
TestManyUnderWay = TwoServersOfManyAppends.TestCase
TestManyUnderWay.settings = settings(stateful_step_count=60)
