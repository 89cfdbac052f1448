"""Servers together: how markets are spread, handed over, taken over, and left alone."""

from itertools import pairwise

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.simulation.cluster import MS, Cluster, Mishap, S, Way, a_cluster

TEN = 10

LEASES: tuple[Way, ...] = ("to the leases", "from the leases")

STORMY: dict[Mishap, int] = {
    "lease not written": 15,
    "lease written late": 8,
    "lease written, unanswered": 8,
}

MESSAGES = 0.015
"""Ten messages' time, in s: what a hand-over takes from the last commit to the new leader."""

SEEDS = pytest.mark.parametrize("seed", range(4))


def terms_of(cluster: Cluster) -> dict[str, int]:
    """Count the terms of each market."""
    return {market: len(cluster.terms(market)) for market in cluster.markets}


def test_ten_markets_spread_evenly_over_three_servers_that_start_together() -> None:
    cluster = Cluster(markets=TEN)
    cluster.start("a", "b", "c")

    cluster.run_until(cluster.is_balanced, seconds=5)
    terms = cluster.changes()
    cluster.run(seconds=12)

    assert cluster.counts() == [3, 3, 4]
    assert cluster.changes() == terms
    cluster.check()


def test_two_servers_that_start_on_an_empty_exchange_lead_half_of_it_each() -> None:
    for seed in range(10):
        cluster = Cluster(markets=2, seed=seed)
        cluster.start("a", "b")

        cluster.run_until(cluster.is_balanced, seconds=3)

        assert cluster.counts() == [1, 1]
        # Whoever opened a market is the only one who did, and at most one was handed over.
        assert cluster.changes() <= 3
        cluster.check()


def test_server_alone_leads_everything_within_half_a_second() -> None:
    cluster = Cluster(markets=3)
    cluster.start("a")

    cluster.run_until(cluster.is_led, seconds=0.5)

    assert cluster.counts() == [3]


def test_fourth_server_gets_its_share_and_no_market_moves_but_that_share() -> None:
    cluster = a_cluster("a", "b", "c", markets=TEN)
    terms = cluster.changes()

    cluster.start("d")
    cluster.run_until(cluster.is_balanced, seconds=10)
    cluster.run(seconds=12)

    assert cluster.counts() == [2, 2, 3, 3]
    assert cluster.changes() == terms + 2
    cluster.check()


def test_hand_over_for_balance_leaves_a_market_without_leader_for_some_messages_only() -> None:
    cluster = a_cluster("a", "b", "c", markets=TEN)
    began = cluster.now

    cluster.start("d")
    cluster.run(seconds=10)

    assert cluster.counts() == [2, 2, 3, 3]
    assert 0 < cluster.longest_vacancy(since=began) < MESSAGES


@SEEDS
def test_markets_of_a_killed_server_are_led_again_within_0_3_s(seed: int) -> None:
    """In virtual time, with NATS in good order (G18)."""
    cluster = a_cluster("a", "b", "c", markets=3, seed=seed)
    began = cluster.now

    cluster.kill("a")
    cluster.run_until(cluster.is_led, seconds=0.3)
    cluster.run(seconds=12)

    assert cluster.counts() == [1, 2]
    assert cluster.longest_vacancy(since=began) < 0.3
    cluster.check()


@SEEDS
def test_markets_of_a_paused_server_are_led_again_within_2_6_s(seed: int) -> None:
    """In virtual time, with NATS in good order (G18)."""
    cluster = a_cluster("a", "b", "c", markets=3, seed=seed)
    cluster.run(seconds=seed / 20)

    cluster.pause("a")
    cluster.run_until(cluster.is_led, seconds=2.6)
    cluster.run(seconds=12)

    assert cluster.counts() == [1, 2]


@pytest.mark.parametrize("paused_s", [0.2, 0.9])
def test_leader_that_was_paused_for_less_than_a_lease_leads_on(paused_s: float) -> None:
    cluster = a_cluster("a", "b", markets=2)
    (market,) = [market for market, names in cluster.leaders().items() if names == ["a"]]
    terms = cluster.changes()

    cluster.pause("a")
    cluster.run(seconds=paused_s)
    number = cluster.order(market)
    cluster.resume("a")
    cluster.run(seconds=5)

    assert cluster.changes() == terms
    assert number in cluster.accepted()
    cluster.check()


@pytest.mark.parametrize("paused_s", [2.6, 4, 20])
@SEEDS
def test_paused_leader_that_goes_on_follows_and_nothing_of_its_own_lands(
    paused_s: float, seed: int
) -> None:
    """What it was sent while it stood still is not executed either (G13)."""
    cluster = a_cluster("a", "b", markets=2, seed=seed)
    (market,) = [market for market, names in cluster.leaders().items() if names == ["a"]]

    cluster.pause("a")
    number = cluster.order(market)
    cluster.run(seconds=paused_s)
    end = cluster.logs[market].bounds()[1]
    cluster.resume("a")
    cluster.run(seconds=1)

    assert cluster.leaders()[market] == ["b"]
    assert cluster.logs[market].bounds()[1] == end
    assert number not in cluster.accepted()
    cluster.run_until(cluster.is_balanced, seconds=15)
    cluster.check()


def test_server_that_is_told_to_stop_hands_all_over_and_no_market_waits() -> None:
    """For longer than some messages take (G18)."""
    cluster = a_cluster("a", "b", "c", markets=TEN)
    began, terms = cluster.now, cluster.changes()
    handed_over = len(
        [name for names in cluster.leaders().values() for name in names if name == "a"]
    )

    cluster.stop("a")
    cluster.run_until(lambda: not cluster.processes["a"].is_alive, seconds=0.3)
    cluster.run_until(cluster.is_balanced, seconds=0.1)
    cluster.run(seconds=20)

    assert cluster.counts() == [5, 5]
    assert cluster.changes() == terms + handed_over
    assert cluster.longest_vacancy(since=began) < MESSAGES
    cluster.check()


def test_all_servers_stopped_and_started_again_lead_everything_again() -> None:
    for seed in range(3):
        cluster = a_cluster("a", "b", "c", markets=4, seed=seed)

        for name in "abc":
            cluster.stop(name)
        cluster.run_until(lambda: not cluster.alive(), seconds=3)  # noqa: B023
        cluster.run(seconds=seed)
        cluster.start("a", "b", "c")

        cluster.run_until(cluster.is_led, seconds=1)
        # What changed its leader twice in a row is not moved for 10 s.
        cluster.run_until(cluster.is_balanced, seconds=15)
        cluster.check()


def test_all_servers_killed_and_started_again_lead_everything_again() -> None:
    """Nothing that a server knew is needed to go on (G18)."""
    for seed in range(3):
        cluster = a_cluster("a", "b", "c", markets=4, seed=seed)

        for name in "abc":
            cluster.kill(name)
        cluster.run(seconds=seed)
        cluster.start("a", "b", "c")

        cluster.run_until(cluster.is_led, seconds=1)
        # What changed its leader twice in a row is not moved for 10 s.
        cluster.run_until(cluster.is_balanced, seconds=15)
        cluster.check()


def test_two_servers_that_leave_at_the_same_time_leave_everything_to_the_third() -> None:
    for seed in range(8):
        cluster = a_cluster("a", "b", "c", markets=4, seed=seed)
        began = cluster.now

        cluster.stop("a")
        cluster.run(seconds=seed / 1_000)
        cluster.stop("b")

        cluster.run_until(
            lambda: cluster.counts() == [4] and cluster.is_led(),  # noqa: B023
            seconds=2.5,
        )
        # One that was named when it had left is missed like any other that ends.
        assert cluster.longest_vacancy(since=began) < 2.5
        cluster.check()


def test_server_that_is_alone_after_all_were_killed_leads_everything_within_2_6_s() -> None:
    cluster = a_cluster("a", "b", "c", markets=6)

    for name in "abc":
        cluster.kill(name)
    cluster.run(seconds=0.1)
    cluster.start("b")
    cluster.run_until(cluster.is_led, seconds=2.6)

    assert cluster.counts() == [6]
    cluster.check()


@SEEDS
def test_server_that_is_back_within_50_ms_does_not_make_markets_flap(seed: int) -> None:
    cluster = a_cluster("a", "b", "c", markets=6, seed=seed)
    before = terms_of(cluster)

    cluster.kill("a")
    cluster.start("a", after_us=50 * MS)
    cluster.run(seconds=20)

    assert cluster.counts() == [2, 2, 2]
    after = terms_of(cluster)
    # Once away from it, and those that it gets again once more.
    assert max(after[market] - before[market] for market in after) <= 2
    assert sum(after.values()) - sum(before.values()) <= 4
    cluster.check()


def test_server_that_ends_again_and_again_moves_markets_ever_more_seldom() -> None:
    cluster = a_cluster("a", "b", "c", markets=3)
    terms = []

    for _ in range(3):
        terms.append(cluster.changes())
        for _ in range(20):
            cluster.kill("a")
            cluster.run(seconds=1)
            cluster.start("a")
            cluster.run(seconds=2)
    changes = [after - before for before, after in pairwise(terms)]

    # There and back are two; each of the two markets that are moved comes to rest for a minute.
    assert changes[0] <= 14
    assert changes[1] <= 6
    cluster.check()


@SEEDS
def test_cut_between_two_servers_does_not_make_markets_flap(seed: int) -> None:
    cluster = a_cluster("a", "b", "c", markets=3, seed=seed)
    before = terms_of(cluster)

    cluster.cut("a", "b")
    cluster.run(seconds=120 if seed == 0 else 10)

    after = terms_of(cluster)
    assert max(after[market] - before[market] for market in after) <= 1
    assert cluster.is_balanced()
    cluster.check()


@pytest.mark.parametrize("seconds", [0.01, 0.2, 0.9])
def test_restart_of_a_nats_node_changes_no_leader(seconds: float) -> None:
    for seed in range(3):
        cluster = a_cluster("a", "b", "c", markets=3, seed=seed)
        terms = cluster.changes()

        for name in "abc":
            cluster.restart_node(name, seconds=seconds)
            cluster.run(seconds=1.5)
        cluster.run(seconds=10)

        assert cluster.changes() == terms
        cluster.check()


def test_restart_of_the_only_nats_node_changes_no_leader() -> None:
    for seed in range(3):
        cluster = a_cluster("a", "b", "c", markets=6, seed=seed)
        terms = cluster.changes()

        cluster.restart_node("a", "b", "c", seconds=5)
        cluster.run(seconds=20)

        assert cluster.changes() == terms
        cluster.check()


@SEEDS
def test_leases_out_of_reach_change_no_leader_and_leaders_go_on(seed: int) -> None:
    """Who leads is the log's to say, and the log can be reached (G18)."""
    cluster = a_cluster("a", "b", "c", markets=6, seed=seed)
    terms = cluster.changes()

    cluster.store.is_interrupted = True
    for _ in range(10):
        cluster.run(seconds=1)
        numbers = [cluster.order(market) for market in cluster.markets]
        cluster.run(seconds=0.1)

        assert all(cluster.receipts[number or 0].status == "new" for number in numbers)
    cluster.store.is_interrupted = False
    cluster.run(seconds=30)

    assert cluster.changes() == terms
    cluster.check()


def test_server_that_alone_does_not_reach_the_leases_loses_its_markets_once() -> None:
    cluster = a_cluster("a", "b", "c", markets=6)
    before = terms_of(cluster)

    cluster.processes["a"].cuts.update(LEASES)
    cluster.run(seconds=30)

    assert cluster.counts()[0] == 0
    after = terms_of(cluster)
    assert max(after[market] - before[market] for market in after) == 1

    cluster.processes["a"].cuts.clear()
    cluster.run_until(cluster.is_balanced, seconds=10)
    cluster.check()


@pytest.mark.parametrize("skew_us", [-3 * S, 3 * S])
def test_server_with_a_wrong_clock_never_leads_while_another_can(skew_us: int) -> None:
    """What it tries costs the others some messages at most (G19)."""
    cluster = a_cluster("a", "b", markets=4)

    began = cluster.now
    cluster.start("wrong", skew_us=skew_us)
    cluster.run(seconds=30)

    led = [text for _, _, name, text in cluster.notes if name == "wrong" and "leader" in text]
    assert led == []
    assert cluster.counts()[0] == 0
    # Each attempt that it makes costs no more than two hand-overs.
    assert cluster.longest_vacancy(since=began) < 3 * MESSAGES
    cluster.check()


@SEEDS
def test_server_that_took_a_name_over_ends_the_one_that_had_it(seed: int) -> None:
    cluster = a_cluster("a", "b", markets=2, seed=seed)
    older = cluster.processes["a"]

    cluster.displace("a")
    cluster.run_until(lambda: not older.is_alive, seconds=1)
    cluster.run_until(cluster.is_balanced, seconds=12)

    assert cluster.processes["a"].is_alive
    cluster.check()


# --- Storms ----------------------------------------------------------------------------------

NAMES = "abc"

FAULTS = [
    "kill",
    "restart",
    "start",
    "pause",
    "resume",
    "stop",
    "cut off",
    "no cut off",
    "cut",
    "no cut",
    "node",
    "no leases",
    "leases",
    "no log",
    "log",
    "loss",
    "no loss",
    "nothing",
]

WAITS_MS = [3, 20, 100, 300, 600, 1_200, 2_500]

storms = st.lists(
    st.tuples(st.sampled_from(FAULTS), st.sampled_from(NAMES), st.sampled_from(WAITS_MS)),
    min_size=2,
    max_size=10,
)


def hurt(cluster: Cluster, fault: str, name: str) -> None:
    """Do one bad thing, or undo it; to one server, where it is done to one."""
    process = cluster.processes[name]
    other = NAMES[NAMES.index(name) - 1]
    cluster.note("*", f"{fault} {name}")
    match fault:
        case "kill" if process.is_alive:
            cluster.kill(name)
        case "restart":
            if process.is_alive:
                cluster.kill(name)
            cluster.start(name, after_us=cluster.random.randrange(100 * MS))
        case "start" if not process.is_alive:
            cluster.start(name)
        case "pause" if process.is_alive and not process.is_paused:
            cluster.pause(name)
        case "resume" if process.is_alive and process.is_paused:
            cluster.resume(name)
        case "stop" if process.is_alive:
            cluster.stop(name)
        case "cut off" | "no cut off":
            process.cuts = set(LEASES) if fault == "cut off" else set()
        case "cut":
            cluster.cut(name, other)
        case "no cut":
            cluster.cuts.clear()
        case "node":
            cluster.restart_node(name, seconds=cluster.random.choice([0.05, 0.3, 1.5, 2.9]))
        case "no leases" | "leases":
            cluster.store.is_interrupted = fault == "no leases"
        case "no log" | "log":
            cluster.is_log_silent = fault == "no log"
        case "loss" | "no loss":
            cluster.weather = dict(STORMY) if fault == "loss" else {}


def heal(cluster: Cluster) -> None:
    """Undo all that is wrong, and have everybody there again."""
    cluster.note("*", "all is well again")
    cluster.store.is_interrupted = cluster.is_log_silent = False
    cluster.weather = {}
    cluster.cuts.clear()
    for name, process in cluster.processes.items():
        process.cuts.clear()
        if process.is_paused:
            cluster.resume(name)
    # By then those that were told to stop have ended, and lost connections are there again.
    cluster.run(seconds=3.6)
    cluster.start(*[name for name, process in cluster.processes.items() if not process.is_alive])


@given(
    storm=storms,
    seed=st.integers(0, 2**32),
    markets=st.integers(1, 3),
    slowest_ms=st.sampled_from([2, 20, 60]),
    has_orders=st.booleans(),
)
@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_after_any_storm_every_market_is_led_by_one_and_no_order_was_lost_or_executed_twice(
    storm: list[tuple[str, str, int]],
    seed: int,
    markets: int,
    slowest_ms: int,
    has_orders: bool,
) -> None:
    """With servers that end, stand still, and do not reach what others reach (G2, G3, G7, G18)."""
    cluster = Cluster(markets=markets, seed=seed, slowest_us=slowest_ms * MS, snapshot_commits=10)
    cluster.start(*NAMES)
    if has_orders:
        cluster.keep_ordering()
    cluster.run(seconds=3)

    for fault, name, wait_ms in storm:
        hurt(cluster, fault, name)
        cluster.run(seconds=wait_ms / 1_000)
    heal(cluster)

    cluster.run_until(cluster.is_led, seconds=6)
    cluster.is_ordering = False
    cluster.tick_factor = 5
    # What was moved again and again is left alone for a minute.
    cluster.run_until(cluster.is_balanced, seconds=70)
    # For longer than a leadership holds without a sign from the log.
    cluster.run(seconds=2)
    numbers = [cluster.order(market) for market in cluster.markets]
    cluster.run(seconds=0.5)

    assert cluster.is_balanced(), cluster.told()
    assert [cluster.receipts[number or 0].status for number in numbers] == ["new"] * markets
    cluster.check()
