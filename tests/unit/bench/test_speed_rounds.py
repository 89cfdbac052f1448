"""Rounds: who is measured when, and what is made of what they gave."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from bench.speed.rounds import (
    CannotMeasure,
    Claim,
    Figure,
    MeasuredFigure,
    Scale,
    Spread,
    Stage,
    Verdict,
    measured,
    verdict,
)


def scripted(name: str, values: Sequence[float], order: list[str]) -> Figure:
    """Make a figure that gives these values, one in each round, and notes its turns."""
    left = iter(values)

    async def measure() -> float:
        order.append(name)
        return next(left)

    return Figure(name, "orders/s", measure)


def failing(text: str, *, after: Sequence[float] = ()) -> Callable[[], Awaitable[float]]:
    """Make a measurement that lacks something, at once or after some values."""
    left = iter(after)

    async def measure() -> float:
        for value in left:
            return value
        raise CannotMeasure(text)

    return measure


def a_stage(*figures: Figure, claims: tuple[Claim, ...] = ()) -> Stage:
    """Make a stage that needs nothing."""

    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
        yield figures

    return Stage(name="stage", title="A stage", open=opened, claims=claims)


def silently(text: str) -> None:
    """Say nothing."""


async def test_every_other_round_goes_backwards() -> None:
    order: list[str] = []
    stage = a_stage(scripted("a", [1, 2, 3], order), scripted("b", [4, 5, 6], order))

    found = await measured(stage, Scale(3, is_quick=False), silently)

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found.figures == [
        MeasuredFigure("a", "orders/s", [1, 2, 3]),
        MeasuredFigure("b", "orders/s", [4, 5, 6]),
    ]


async def test_figure_that_cannot_be_measured_is_left_out_alone() -> None:
    claims = (Claim(figure="a", value=1.0), Claim(figure="a", against=("b",), ratio=1.0))
    stage = a_stage(
        scripted("a", [1, 2], []), Figure("b", "orders/s", failing("no b")), claims=claims
    )

    found = await measured(stage, Scale(2, is_quick=False), silently)

    assert [figure.name for figure in found.figures] == ["a"]
    assert [each.holds for each in found.verdicts] == ["yes", "not measured"]
    assert found.missing == "no b"


async def test_figure_that_fails_in_a_later_round_is_left_out_too() -> None:
    stage = a_stage(Figure("a", "orders/s", failing("gone", after=[1.0])))

    found = await measured(stage, Scale(3, is_quick=False), silently)

    assert found.figures == []
    assert found.missing == "gone"


async def test_stage_that_cannot_be_opened_says_why() -> None:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncIterator[Sequence[Figure]]:
        raise CannotMeasure("no nodes")
        yield []

    claims = (Claim(figure="a", value=1.0),)
    stage = Stage(name="stage", title="A stage", open=opened, claims=claims)

    found = await measured(stage, Scale(1, is_quick=False), silently)

    assert found.missing == "no nodes"
    assert found.verdicts == [Verdict(figure="a", value_wanted=1.0)]


def test_ratio_is_taken_within_each_round() -> None:
    """The machine became twice as slow in the second round, and both figures with it."""
    claim = Claim(figure="ours", against=("theirs",), ratio=2.0)

    found = verdict(claim, {"ours": [200.0, 100.0], "theirs": [100.0, 50.0]})

    assert found.ratio == Spread(2.0, 2.0, 2.0)
    assert found.holds == "yes"


def test_figures_to_compare_with_are_summed_up() -> None:
    claim = Claim(figure="whole", against=("one", "other"), ratio=1.5, is_at_most=True)

    found = verdict(claim, {"whole": [9.0], "one": [2.0], "other": [4.0]})

    assert found.ratio == Spread(1.5, 1.5, 1.5)
    assert found.holds == "yes"


def test_claim_of_a_ratio_and_a_value_needs_both() -> None:
    claim = Claim(figure="ours", against=("theirs",), ratio=1.0, value=500.0)

    assert verdict(claim, {"ours": [400.0], "theirs": [100.0]}).holds == "no"
    assert verdict(claim, {"ours": [500.0], "theirs": [600.0]}).holds == "no"
    assert verdict(claim, {"ours": [500.0], "theirs": [500.0]}).holds == "yes"


def test_median_decides_not_the_worst_round() -> None:
    claim = Claim(figure="time", value=10.0, is_at_most=True)

    assert verdict(claim, {"time": [9.0, 30.0, 8.0]}).holds == "yes"
    assert verdict(claim, {"time": [9.0, 30.0, 11.0]}).holds == "no"
