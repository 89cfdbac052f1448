"""What the attack bench makes of its samples."""

import math

import pytest

from bench.attack_results import (
    Machine,
    Pair,
    Promise,
    Result,
    Sample,
    Seen,
    at_least,
    at_most,
    middle,
    promise_of_latency,
    promises_of,
    promises_of_memory,
    table,
    use_of,
)


def seen(
    orders_per_second: float = 900.0, p99_ms: float = 10.0, *, lost: int = 0, violations: int = 0
) -> Seen:
    """Make what polite peers saw; they see no harm, unless it is said."""
    return Seen(
        orders_per_second=orders_per_second,
        p50_ms=2.0,
        p99_ms=p99_ms,
        longest_gap_s=0.03,
        retried=0,
        lost=lost,
        violations=violations,
        machine=Machine(1.5, 0.1),
    )


def test_pair_compares_attacked_with_quiet() -> None:
    pair = Pair(seen(1_000.0, 8.0), seen(950.0, 12.0))

    assert pair.throughput_ratio == 0.95
    assert pair.p99_ratio == 1.5


def test_pair_without_a_quiet_time_compares_with_nothing() -> None:
    assert math.isnan(Pair(seen(0.0), seen()).throughput_ratio)


def test_one_pair_of_three_does_not_break_a_promise() -> None:
    pairs = [
        Pair(seen(), seen()),
        Pair(seen(), seen(300.0, 500.0)),
        Pair(seen(), seen(890.0, 19.0)),
    ]

    assert all(promise.is_good for promise in promises_of(pairs))
    assert promise_of_latency(pairs).is_good


def test_two_pairs_of_three_do() -> None:
    pairs = [
        Pair(seen(), seen()),
        Pair(seen(), seen(700.0, 21.0)),
        Pair(seen(), seen(700.0, 21.0)),
    ]
    throughput, *_ = promises_of(pairs)
    p99 = promise_of_latency(pairs)

    assert not throughput.is_good
    assert (p99.found, p99.bound, p99.is_good) == ("2.10", "<= 2.00", False)


@pytest.mark.parametrize("harm", [{"lost": 1}, {"violations": 1}])
@pytest.mark.parametrize("is_attacked", [False, True])
def test_one_lost_or_false_order_breaks_a_promise(
    harm: dict[str, int], *, is_attacked: bool
) -> None:
    harmed = seen(**harm)  # type: ignore[arg-type]
    pair = Pair(seen(), harmed) if is_attacked else Pair(harmed, seen())

    assert [promise.is_good for promise in promises_of([pair])].count(False) == 1


def test_what_is_unknown_keeps_no_promise() -> None:
    assert math.isnan(middle([1.0, math.nan, 1.0]))
    assert not at_most("a", math.nan, 1.0).is_good
    assert not at_least("a", math.nan, 1.0).is_good


def test_use_is_that_of_the_attack_in_which_it_grew_most() -> None:
    quiet = [[Sample(0.0, 50.0, 1.0), Sample(2.0, 51.0, 2.0)]]
    first = [Sample(2.0, 51.0, 2.0), Sample(4.0, 52.0, 5.0)]
    second = [Sample(10.0, 52.0, 9.0), Sample(11.0, 60.0, 10.0), Sample(12.0, 55.0, 12.0)]
    use = use_of("server-1", quiet=quiet, attacked=[first, [], second])

    assert (use.cpu_quiet, use.cpu_attacked) == (0.5, 1.5)
    assert (use.mib_before, use.mib_highest, use.growth_mib) == (52.0, 60.0, 8.0)
    assert use.growth_quiet_mib == 1.0
    assert (use.mib_first, use.mib_last) == (52.0, 60.0)
    assert all(promise.is_good for promise in promises_of_memory(use))


def test_memory_that_grows_too_much_is_told() -> None:
    use = use_of("server-1", quiet=[], attacked=[[Sample(0.0, 50.0, 0.0), Sample(1.0, 66.0, 0.0)]])

    within, between = promises_of_memory(use)

    assert (within.found, within.bound, within.is_good) == ("16.0 MiB", "<= 15.0 MiB", False)
    assert between.is_good
    assert math.isnan(use.growth_quiet_mib)


def test_memory_that_grows_from_attack_to_attack_is_told() -> None:
    attacked = [[Sample(0.0, 50.0, 0.0)], [Sample(9.0, 66.0, 0.0)]]
    use = use_of("server-1", quiet=[], attacked=attacked)

    assert [promise.is_good for promise in promises_of_memory(use)] == [True, False]


def test_table_tells_pairs_and_marks_what_is_not_kept() -> None:
    result = Result(
        phase="flood",
        about="somebody floods",
        pairs=[Pair(seen(), seen(450.0, 25.0))],
        promises=[Promise("kept", "1", ">= 1", is_good=True), at_most("broken", 2, 1)],
        notes=["noted"],
        load_averages=(0.5, 1.5),
    )
    lines = [line.split() for line in table([result]).splitlines()]

    row = ["1", "900/450", "0.50", "2.0/2.0", "10.0/25.0", "2.50", "0/0", "1.5/1.5", "10%/10%"]
    assert row in lines
    assert ["kept", "1", ">=", "1"] in lines
    assert ["broken", "2", "<=", "1", "<<<"] in lines
    assert not result.is_good
