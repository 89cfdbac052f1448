"""Laws of where markets belong: moves end and balance, what is well placed stays.

Servers and markets are few, so that ties are frequent.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from random import Random
from typing import NamedTuple, TypeVar

from hypothesis import assume, given
from hypothesis import strategies as st

from dex_server.replication.homes import Server, heirs, next_move, preference

NAMES = [f"s{number}" for number in range(6)]
MARKETS = [f"M{number}" for number in range(14)]

Item = TypeVar("Item")

LEAVING = "leaving"
"""A server that leads, but is not among those that live and stay."""


class View(NamedTuple):
    """What a server sees: all servers, who leads what, and what may be handed over."""

    servers: list[Server]
    leaders: dict[str, str]
    orphans: list[str]
    movable: list[str]

    @property
    def counts(self) -> dict[str, int]:
        return counts(self.servers, self.leaders)


def counts(servers: Collection[Server], leaders: Mapping[str, str]) -> dict[str, int]:
    led = Counter(leaders.values())
    return {server.name: led[server.name] for server in servers}


def spread(counts: Mapping[str, int]) -> int:
    return max(counts.values()) - min(counts.values())


def sum_of_squares(counts: Mapping[str, int]) -> int:
    return sum(count * count for count in counts.values())


@st.composite
def views(draw: st.DrawFn, *, hold_everything: bool = False) -> View:
    """Draw any view; a leader need not hold what it leads, and may be leaving."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    markets = draw(st.lists(st.sampled_from(MARKETS), unique=True))
    held = st.just(MARKETS) if hold_everything else st.lists(st.sampled_from(MARKETS))
    servers = [Server(name, frozenset(draw(held))) for name in names]
    whose = st.sampled_from([*names, LEAVING, None])
    leader_of = {market: draw(whose) for market in markets}
    leaders = {market: name for market, name in leader_of.items() if name is not None}
    orphans = [market for market in markets if market not in leaders]
    movable = markets if hold_everything else draw(st.lists(st.sampled_from(MARKETS)))
    return View(servers, leaders, orphans, movable)


def settled(view: View) -> tuple[dict[str, str], int]:
    """Make all moves there are, and prove of each that it helps and may be made.

    Returns:
        Who leads what then, and how many moves there were.
    """
    made = 0
    leaders = dict(view.leaders)
    holding = {server.name: server.markets for server in view.servers}
    before = sum_of_squares(view.counts)
    while move := next_move(view.servers, leaders, movable=view.movable):
        assert leaders[move.market] == move.giver
        assert move.giver in holding
        assert move.market in view.movable
        assert move.market in holding[move.successor]
        leaders[move.market] = move.successor
        after = sum_of_squares(counts(view.servers, leaders))

        assert after < before
        before = after
        made += 1
    return leaders, made


@given(views())
def test_each_move_makes_counts_more_equal_so_moves_end(view: View) -> None:
    settled(view)


@given(views(hold_everything=True))
def test_moves_end_with_counts_that_differ_by_one_at_most(view: View) -> None:
    leaders, _ = settled(view)

    assert spread(counts(view.servers, leaders)) <= 1


@given(views(hold_everything=True))
def test_no_more_moves_are_made_than_equal_counts_need(view: View) -> None:
    """What is above the greatest equal share must go, and what the least one lacks must come."""
    before = view.counts.values()
    least, left_over = divmod(sum(before), len(before))
    greatest = least + (left_over > 0)
    above = sum(max(0, count - greatest) for count in before)
    lacking = sum(max(0, least - count) for count in before)
    _, made = settled(view)

    assert made == max(above, lacking)


@given(views())
def test_balanced_counts_are_left_alone(view: View) -> None:
    assume(spread(view.counts) <= 1)

    assert next_move(view.servers, view.leaders, movable=view.movable) is None


@given(views())
def test_orphans_go_to_servers_that_hold_them(view: View) -> None:
    """All that anybody holds get a leader, and no others."""
    holders = {
        market: [server.name for server in view.servers if market in server.markets]
        for market in view.orphans
    }
    heir_of = heirs(view.servers, view.leaders, view.orphans)

    assert list(heir_of) == sorted(market for market in view.orphans if holders[market])
    assert all(heir in holders[market] for market, heir in heir_of.items())


@given(views(hold_everything=True))
def test_heirs_leave_balanced_counts_balanced(view: View) -> None:
    leaders, _ = settled(view)
    leaders |= heirs(view.servers, leaders, view.orphans)

    assert spread(counts(view.servers, leaders)) <= 1
    assert next_move(view.servers, leaders, movable=view.movable) is None


@given(views(hold_everything=True), st.data())
def test_death_of_a_server_moves_its_own_markets_alone(view: View, data: st.DataObject) -> None:
    """When all was balanced, nothing is left to balance after the heirs have taken over."""
    assume(len(view.servers) > 1)
    leaders, _ = settled(view)
    dead = data.draw(st.sampled_from(view.servers))
    alive = [server for server in view.servers if server != dead]
    kept = {market: leader for market, leader in leaders.items() if leader != dead.name}
    orphans = [market for market in leaders if market not in kept]
    after = kept | heirs(alive, kept, orphans)

    assert after.keys() == leaders.keys()
    assert {market for market in leaders if after[market] != leaders[market]} == set(orphans)
    assert next_move(alive, after, movable=view.movable) is None


@given(views(), st.data())
def test_heirs_that_take_over_one_by_one_change_nothing_for_the_others(
    view: View, data: st.DataObject
) -> None:
    """Each takes its own in the order of their names; who is faster makes no difference."""
    heir_of = heirs(view.servers, view.leaders, view.orphans)
    waiting: dict[str, list[str]] = {server.name: [] for server in view.servers}
    for market, heir in heir_of.items():
        waiting[heir].append(market)
    leaders, orphans = dict(view.leaders), list(view.orphans)
    while busy := [name for name, markets in waiting.items() if markets]:
        name = data.draw(st.sampled_from(busy))
        market = waiting[name].pop(0)
        leaders[market] = name
        orphans.remove(market)

        expected = {each: heir for each, heir in heir_of.items() if each in orphans}
        assert expected == heirs(view.servers, leaders, orphans)


@given(views(), st.randoms(use_true_random=False))
def test_order_in_which_things_are_seen_makes_no_difference(view: View, seeded: Random) -> None:
    def shuffled(items: Iterable[Item]) -> list[Item]:
        listed = list(items)
        seeded.shuffle(listed)
        return listed

    servers, leaders = shuffled(view.servers), dict(shuffled(view.leaders.items()))
    orphans, movable = shuffled(view.orphans), shuffled(view.movable)
    heir_of = heirs(servers, leaders, orphans)
    move = next_move(servers, leaders, movable=movable)

    assert list(heirs(view.servers, view.leaders, view.orphans).items()) == list(heir_of.items())
    assert next_move(view.servers, view.leaders, movable=view.movable) == move


@given(st.lists(st.sampled_from(NAMES), unique=True), st.sampled_from(MARKETS))
def test_preference_for_the_others_stays_when_servers_come_and_go(
    names: list[str], market: str
) -> None:
    order = preference(market, NAMES)

    assert preference(market, names) == [name for name in order if name in names]
