"""A market is its log: replayed, cut by a snapshot, or led on by another, it is the same."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dex_engine import Market
from dex_protocol.codec import decode_commit, decode_receipts, encode
from tests.property.runs import Run, joined
from tests.property.twins import read
from tests.property.workload import Drawn, Seeded, Send

SEEDS = range(16)
STEPS = 300

SLOW_IS_NOT_WRONG = (HealthCheck.too_slow, HealthCheck.data_too_large)
"""Whole workloads are drawn here, on machines that do much else."""


def ran(seed: int) -> Run:
    run = Run(Seeded(random.Random(seed)))
    for _ in range(STEPS):
        run.step()
    run.prove()
    return run


def replayed(run: Run, market: Market) -> Market:
    for payload in run.payloads[market.sequence :]:
        market.apply_commit(payload)
    return market


@pytest.mark.parametrize("seed", SEEDS)
def test_replay_twice_leads_to_the_same_state(seed: int) -> None:
    """Every reader of a log comes to one state, to the byte (G11)."""
    run = ran(seed)
    first, second = replayed(run, run.follower()), replayed(run, run.follower())

    assert first.digest == second.digest == run.market.digest
    assert first.snapshot() == second.snapshot() == run.market.snapshot()


@pytest.mark.parametrize("seed", SEEDS)
def test_snapshot_and_tail_are_the_full_replay(seed: int) -> None:
    """Cut at any of several places (G17)."""
    run = ran(seed)
    expected = run.market.snapshot()
    cuts = sorted(random.Random(seed).sample(range(1, len(run.payloads)), 5))
    walking = run.follower()
    for cut in cuts:
        for payload in run.payloads[walking.sequence : cut]:
            walking.apply_commit(payload)
        restored = Market.restore(walking.snapshot(), run.bounds)

        assert replayed(run, restored).snapshot() == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_another_leader_goes_on_as_the_first_would(seed: int) -> None:
    """What a follower knows is all that deciding needs (G11)."""
    run = ran(seed)
    heir = Market.restore(replayed(run, run.follower()).snapshot(), run.bounds)
    for _ in range(STEPS // 2):
        before = len(run.payloads)
        done = run.step()
        due = heir.housekeeping(done.step.time)

        assert due == done.due
        if isinstance(done.step, Send):
            receipt, events = heir.execute(
                read(done.step), peer=done.step.peer, time=done.step.time
            )

            assert (receipt, events) == (done.receipt, done.events)
        else:
            for event in done.events:
                heir.apply(event)
        for payload in run.payloads[before:]:
            events = decode_commit(payload).events
            assert heir.seal(events, joined(events), digest=heir.digest) == payload


@pytest.mark.parametrize("seed", SEEDS)
def test_commits_and_receipts_are_written_as_they_were_read(seed: int) -> None:
    run = Run(Seeded(random.Random(seed)))
    for _ in range(STEPS):
        receipt = run.step().receipt
        if receipt is not None:
            assert decode_receipts(encode(receipt)) == [receipt]
            assert decode_receipts(encode([receipt])) == [receipt]
    for payload in run.payloads:
        assert encode(decode_commit(payload)) == payload


@given(st.data())
@settings(max_examples=25, suppress_health_check=SLOW_IS_NOT_WRONG)
def test_any_log_is_replayed_to_the_state_it_came_from(data: st.DataObject) -> None:
    run = Run(Drawn(data.draw))
    follower = run.follower()
    for _ in range(25):
        run.step()
        follower = replayed(run, follower)
        if data.draw(st.integers(0, 9)) == 9:
            follower = Market.restore(follower.snapshot(), run.bounds)

        assert follower.digest == run.market.digest
    run.prove()

    assert replayed(run, follower).snapshot() == run.market.snapshot()
