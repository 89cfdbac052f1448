"""The schedule never does what no cluster survives, and heals all that it does."""

from itertools import pairwise

import pytest

from tests.chaos import network, schedule
from tests.chaos.network import LINKS, NODES, LinkState
from tests.chaos.schedule import KINDS, Blow, Fault

SEEDS = range(200)


def are_nodes(blow: Blow) -> bool:
    return blow.otherwise in NODES


def test_same_seed_makes_the_same_schedule_and_another_makes_another() -> None:
    assert schedule.schedule(7, 120) == schedule.schedule(7, 120)
    assert schedule.schedule(7, 120) != schedule.schedule(8, 120)


@pytest.mark.parametrize("duration", [45, 60, 120, 600])
def test_fault_never_hurts_two_nodes_nor_all_servers(duration: float) -> None:
    for seed in SEEDS:
        for fault in schedule.schedule(seed, duration):
            hurt = [blow for blow in fault.blows if blow.how != "join"]
            servers = [blow for blow in hurt if blow.otherwise.startswith("server-")]

            assert sum(are_nodes(blow) for blow in hurt) <= 1, fault
            assert len(servers) <= 2, fault


@pytest.mark.parametrize("duration", [45, 60, 120, 600])
def test_everything_heals_before_the_next_fault_and_before_the_end(duration: float) -> None:
    for seed in SEEDS:
        faults = schedule.schedule(seed, duration)
        ends = [fault.ends for fault in faults]
        next_begins = [fault.begins for fault in faults[1:]] + [duration]

        assert all(blow.begins < blow.ends for fault in faults for blow in fault.blows)
        assert all(
            end + schedule.CALM_MIN_S <= begin for end, begin in zip(ends, next_begins, strict=True)
        )
        assert all(fault.begins >= schedule.WARM_UP_S for fault in faults)


def test_nothing_happens_while_logs_may_be_without_a_leader() -> None:
    for seed in SEEDS:
        faults = schedule.schedule(seed, 600)

        for fault, following in pairwise(faults):
            if any(are_nodes(blow) for blow in fault.blows):
                assert following.begins >= fault.begins + schedule.ELECTION_S - 0.05


def test_blows_of_a_pair_overlap() -> None:
    for seed in SEEDS:
        for fault in schedule.schedule(seed, 120):
            begins = max(blow.begins for blow in fault.blows)

            assert begins <= min(blow.ends for blow in fault.blows), fault


def test_a_third_to_a_half_of_the_time_is_faulty() -> None:
    for seed in SEEDS:
        faults = schedule.schedule(seed, 120)
        share = sum(fault.ends - fault.begins for fault in faults) / 120

        assert 0.3 < share < 0.5, (seed, share)


def test_every_kind_comes_before_any_comes_again() -> None:
    for seed in range(20):
        kinds = [fault.kind for fault in schedule.schedule(seed, 600)]

        assert set(kinds[: len(KINDS)]) == set(KINDS)


def test_too_short_a_run_has_no_faults() -> None:
    assert schedule.schedule(1, 5) == []


def test_node_cut_off_loses_both_links_to_each_other_node() -> None:
    states = network.cut("nats-2", network.neighbours("nats-2"), "held")

    assert set(states) == {"nats-2>nats-1", "nats-1>nats-2", "nats-2>nats-3", "nats-3>nats-2"}
    assert set(states.values()) == {LinkState(passes_there=False, passes_back=False)}


def test_mute_node_is_not_heard_whoever_dialed() -> None:
    states = network.cut("nats-1", ["nats-2"], "mute")

    assert states == {
        "nats-1>nats-2": LinkState(passes_there=False),
        "nats-2>nats-1": LinkState(passes_back=False),
    }


def test_deaf_server_hears_nothing_and_is_heard() -> None:
    states = network.cut("server-1", ["nats-3"], "deaf")

    assert states == {"server-1>nats-3": LinkState(passes_back=False)}


def test_two_blows_on_one_link_add_up() -> None:
    slowed = network.slow("server-1", delay_ms=20, jitter_ms=0)
    cut = network.cut("nats-1", ["server-1"], "mute")

    states = network.together([slowed, cut])

    assert states["server-1>nats-1"] == LinkState(passes_back=False, delay_ms=20)
    assert states["server-1>nats-2"] == LinkState(delay_ms=20)


def test_everybody_has_a_link_to_every_node() -> None:
    for who in (*network.SERVERS, network.NEWCOMER, *network.LOADS, *NODES):
        dialed = {link.dialed for link in LINKS if link.dialer == who}

        assert dialed == set(NODES) - {who}


def test_fault_says_in_a_line_what_it_does() -> None:
    blow = Blow("cut", "leader BTC-USD", "server-1", begins=4.0, ends=6.5, mode="mute")

    assert str(Fault("server cut off", (blow,))) == (
        "   4.0 s  server cut off: cut leader BTC-USD off from all nodes (mute) for 2.5 s"
    )
