"""What was measured, for a reader and for a program.

Pure. Knows nothing of how anything was measured.
"""

from collections.abc import Sequence
from textwrap import wrap
from typing import Final

import msgspec
from msgspec import UNSET, Struct

from bench.speed.machine import Machine
from bench.speed.rounds import MeasuredFigure, MeasuredStage, Spread, Verdict

WIDTH: Final = 100
"""Characters of a line."""

_NAME: Final = 44
"""Of those, for what a line is about."""


class Report(Struct, frozen=True, kw_only=True):
    """All that came of it."""

    machine: Machine
    rounds: int
    is_quick: bool
    stages: list[MeasuredStage]


def as_json(report: Report) -> bytes:
    """Write everything down, each round's numbers included."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def as_text(report: Report) -> str:
    """Write everything down for a terminal: medians, with the least and the greatest."""
    machine = report.machine
    lines = [
        f"{machine.processor}, {machine.cores} cores, {machine.python}, {machine.platform}",
        f"commit {machine.commit or 'unknown'}, load average {machine.load_before:.2f} before",
        f"{report.rounds} rounds{', quick' if report.is_quick else ''}: "
        "median (least - greatest); a ratio is taken within each round",
    ]
    for stage in report.stages:
        lines += ["", *_stage(stage)]
    verdicts = [verdict for stage in report.stages for verdict in stage.verdicts]
    counts = (
        f"{sum(each.holds == 'yes' for each in verdicts)} of {len(verdicts)} claims hold",
        f"{sum(each.holds == 'not measured' for each in verdicts)} not measured",
    )
    lines += ["", ", ".join(counts)]
    return "\n".join(lines)


def _stage(stage: MeasuredStage) -> list[str]:
    lines = wrap(f"{stage.name}: {stage.title}", WIDTH, subsequent_indent="  ")
    lines += [_figure(figure) for figure in stage.figures]
    for verdict in stage.verdicts:
        lines += _verdict(verdict)
    if stage.missing:
        lines += wrap(
            f"missing: {stage.missing}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    return lines


def _figure(figure: MeasuredFigure) -> str:
    return f"  {figure.name:<{_NAME}} {_spread(figure.spread)} {figure.unit}"


def _verdict(verdict: Verdict) -> list[str]:
    """One line for what is claimed of the ratio, and one for the value itself."""
    relation = "at most" if verdict.is_at_most else "at least"
    mark = {"yes": "yes", "no": "NO", "not measured": "not measured"}[verdict.holds]
    lines = []
    if verdict.ratio_wanted is not UNSET:
        about = f"{verdict.figure} / {_sum(verdict.against)}"
        found = "" if verdict.ratio is UNSET else _spread(verdict.ratio)
        lines.append(_claim(about, found, f"{relation} {_number(verdict.ratio_wanted)}", mark))
    if verdict.value_wanted is not UNSET:
        found = "" if verdict.value is UNSET else _spread(verdict.value)
        wanted = f"{relation} {_number(verdict.value_wanted)}"
        lines.append(_claim(verdict.figure, found, wanted, mark))
    return lines


def _claim(about: str, found: str, wanted: str, mark: str) -> str:
    return f"  > {about:<{_NAME - 2}} {found + ', ' if found else ''}wanted {wanted}: {mark}"


def _sum(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"({' + '.join(names)})"


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.least)} - {_number(spread.most)})"


def _number(value: float) -> str:
    """Write three digits at least, and none behind the point where there are more before it."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
