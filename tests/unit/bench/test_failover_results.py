"""What the failover bench makes of its samples."""

import math

from bench.failover_results import Count, Result, Times, longest_gap, median, none_of, table


def test_median_of_an_even_number_is_a_sample_and_the_worse_one() -> None:
    assert median([0.4, 0.1, 0.3, 0.2]) == 0.3
    assert math.isnan(median([]))


def test_longest_gap_begins_with_the_moment_before_the_event() -> None:
    moments = [1.0, 2.0, 2.9, 3.4, 3.5, 9.0]
    assert longest_gap(moments, since=3.0, until=3.6) == 3.4 - 2.9


def test_longest_gap_counts_what_has_not_ended() -> None:
    assert longest_gap([1.0, 1.1], since=1.2, until=4.1) == 4.1 - 1.1
    assert longest_gap([], since=1.0, until=4.0) == 3.0


def test_table_tells_times_in_ms_and_marks_what_must_not_be() -> None:
    result = Result(
        scenario="kill",
        about="somebody is killed",
        times=[Times("a -> b", [0.2, 0.1, 0.9]), Times("c -> d", [])],
        counts=[none_of("wrong", 2), Count("right", 3, "any", is_good=True)],
        notes=["noted"],
        load_averages=(0.5, 1.5),
    )
    lines = [line.split() for line in table([result]).splitlines()]
    assert ["a", "->", "b", "200", "900", "3"] in lines
    assert ["c", "->", "d", "-", "-", "0"] in lines
    assert ["wrong", "2", "0", "<<<"] in lines
    assert ["right", "3", "any"] in lines
