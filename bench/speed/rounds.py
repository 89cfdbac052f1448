"""Measuring things side by side: stages, figures, rounds, and the ratios between figures.

Theory of operation. Machines are noisy, and speeds drift while one looks. So the things to compare
stand on one *stage* (a running cluster, a flow of commands), and a *round* measures each *figure*
of it once, one directly after the other. A ratio is taken within a round; what is reported is the
median over the rounds, with the least and the greatest.

Knows nothing of what is measured.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from statistics import median
from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class Figure(Struct, frozen=True):
    """One thing that a round measures."""

    name: str
    """Unique in its stage, in words: "echo on nats-py"."""
    unit: str
    """Of what `measure` gives: "orders/s", "µs", "bytes"."""
    measure: Callable[[], Awaitable[float]]
    """Measures once; some seconds at most."""


class Claim(Struct, frozen=True, kw_only=True):
    """What a figure must reach, against others of its stage, by itself, or both."""

    figure: str
    against: tuple[str, ...] = ()
    """Figures whose sum it is compared with; none when it is by itself."""
    ratio: float | None = None
    """The figure, divided by that sum, must be at least (or at most) this."""
    value: float | None = None
    """The figure must be at least (or at most) this."""
    is_at_most: bool = False
    """Whether less is better."""


class Stage(Struct, frozen=True, kw_only=True):
    """What stands while figures are compared."""

    name: str
    """Short, for `--only`: "singles"."""
    title: str
    """In words, with all that matters of how: in flight, nodes, sync."""
    open: Callable[["Scale"], AbstractAsyncContextManager[Sequence[Figure]]]
    """Sets it up, gives its figures, and takes it down."""
    claims: tuple[Claim, ...] = ()


class Scale(Struct, frozen=True):
    """How much is measured."""

    rounds: int
    is_quick: bool
    """Whether stages shorten what they measure to some seconds altogether."""


class Spread(Struct, frozen=True):
    """A median, and what it lies between."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up what the rounds gave, at least one value."""
        return cls(median(values), min(values), max(values))


class MeasuredFigure(Struct, frozen=True):
    """A figure with what each round gave."""

    name: str
    unit: str
    rounds: list[float]

    @property
    def spread(self) -> Spread:
        """The rounds in short."""
        return Spread.of(self.rounds)


class Verdict(Struct, frozen=True, kw_only=True):
    """A claim with what was found."""

    figure: str
    against: tuple[str, ...] = ()
    is_at_most: bool = False
    ratio: Spread | UnsetType = UNSET
    ratio_wanted: float | UnsetType = UNSET
    value: Spread | UnsetType = UNSET
    value_wanted: float | UnsetType = UNSET
    holds: Literal["yes", "no", "not measured"] = "not measured"


class MeasuredStage(Struct, frozen=True, kw_only=True):
    """All that came of a stage."""

    name: str
    title: str
    figures: list[MeasuredFigure]
    verdicts: list[Verdict]
    missing: str = ""
    """Why it, or some of its figures, could not be measured; empty when all was."""


class CannotMeasure(Exception):
    """A stage or a figure needs something that is not there; the text says what it is."""


async def measured(stage: Stage, scale: Scale, say: Callable[[str], None]) -> MeasuredStage:
    """Measure a stage: as many rounds as the scale says, each figure once in each.

    Every other round goes through the figures backwards, so that none always follows the same one.
    A figure that cannot be measured is left out; when the stage cannot, all are.
    """
    say(f"--- {stage.name}: {stage.title}")
    found: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    try:
        async with stage.open(scale) as figures:
            units = {figure.name: figure.unit for figure in figures}
            for number in range(scale.rounds):
                for figure in figures if number % 2 == 0 else reversed(figures):
                    if figure.name in missing:
                        continue
                    try:
                        value = await figure.measure()
                    except CannotMeasure as error:
                        missing[figure.name] = str(error)
                        say(f"    {error}")
                        continue
                    found.setdefault(figure.name, []).append(value)
                    say(f"    {number + 1}: {figure.name}: {value:,.6g} {figure.unit}")
    except CannotMeasure as error:
        say(f"    {error}")
        return MeasuredStage(
            name=stage.name,
            title=stage.title,
            figures=[],
            verdicts=[verdict(claim, {}) for claim in stage.claims],
            missing=str(error),
        )
    for name in missing:
        # What it gave in rounds before is compared with nothing.
        found.pop(name, None)
    return MeasuredStage(
        name=stage.name,
        title=stage.title,
        figures=[MeasuredFigure(name, units[name], found[name]) for name in units if name in found],
        verdicts=[verdict(claim, found) for claim in stage.claims],
        missing="; ".join(dict.fromkeys(missing.values())),
    )


def verdict(claim: Claim, found: dict[str, list[float]]) -> Verdict:
    """Tell whether a claim holds, by the medians of what the rounds gave for each figure."""
    values = found.get(claim.figure)
    others = [found.get(name) for name in claim.against]
    if values is None or None in others:
        return Verdict(
            figure=claim.figure,
            against=claim.against,
            is_at_most=claim.is_at_most,
            ratio_wanted=UNSET if claim.ratio is None else claim.ratio,
            value_wanted=UNSET if claim.value is None else claim.value,
        )
    ratio: Spread | UnsetType = UNSET
    holds = True
    if claim.against:
        sums = [sum(each) for each in zip(*(o for o in others if o is not None), strict=True)]
        ratio = Spread.of([value / total for value, total in zip(values, sums, strict=True)])
        holds = _reaches(ratio.median, claim.ratio, is_at_most=claim.is_at_most)
    value = Spread.of(values)
    holds = holds and _reaches(value.median, claim.value, is_at_most=claim.is_at_most)
    return Verdict(
        figure=claim.figure,
        against=claim.against,
        is_at_most=claim.is_at_most,
        ratio=ratio,
        ratio_wanted=UNSET if claim.ratio is None else claim.ratio,
        value=value,
        value_wanted=UNSET if claim.value is None else claim.value,
        holds="yes" if holds else "no",
    )


def _reaches(found: float, wanted: float | None, *, is_at_most: bool) -> bool:
    if wanted is None:
        return True
    return found <= wanted if is_at_most else found >= wanted
