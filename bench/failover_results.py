"""What a scenario came to: times with their samples, counts with what they should be, notes.

Pure. Knows nothing of how anything was measured.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Final

from msgspec import Struct

WIDTH: Final = 100
"""Characters of a line."""


class Times(Struct, frozen=True):
    """Samples of one time."""

    what: str
    """Between which two events."""
    seconds: list[float]
    """In the order they were measured."""


class Count(Struct, frozen=True):
    """A number, and what it should be."""

    what: str
    found: int
    wanted: str
    """For the reader."""
    is_good: bool


class Result(Struct, kw_only=True):
    """A scenario's outcome."""

    scenario: str
    about: str
    """What was done to what, and how samples were chosen."""
    times: list[Times]
    counts: list[Count]
    notes: list[str]
    """What else was seen, such as the worst sample's course."""
    load_averages: tuple[float, float] = (0.0, 0.0)
    """The machine's, over the last minute: before and after."""


def none_of(what: str, found: int) -> Count:
    """Count something that must not be."""
    return Count(what, found, "0", found == 0)


def median(samples: Sequence[float]) -> float:
    """Give the sample in the middle, the higher one of two: never one that was not measured."""
    return sorted(samples)[len(samples) // 2] if samples else math.nan


def longest_gap(moments: Sequence[float], *, since: float, until: float) -> float:
    """Give the longest time without one of some moments, ends included.

    Args:
        moments: In order.
        since: The gap that this falls into begins with the moment before it.
        until: The gap that this falls into counts as far as this.
    """
    before = max((moment for moment in moments if moment <= since), default=since)
    inside = [moment for moment in moments if since < moment < until]
    marks = [before, *inside, until]
    return max(later - earlier for earlier, later in pairwise(marks))


def table(results: Sequence[Result]) -> str:
    """Write everything down, for a terminal."""
    lines = []
    for result in results:
        before, after = result.load_averages
        lines += ["", *wrap(f"{result.scenario}: {result.about}", WIDTH, subsequent_indent="  ")]
        lines.append(f"  (load average {before:.1f} before, {after:.1f} after)")
        if result.times:
            lines.append(f"  {'time in ms':<66} {'p50':>8} {'worst':>8} {'n':>4}")
        for times in result.times:
            if times.seconds:
                p50, worst = 1_000 * median(times.seconds), 1_000 * max(times.seconds)
                numbers = f"{p50:>8,.0f} {worst:>8,.0f}"
            else:
                numbers = f"{'-':>8} {'-':>8}"
            lines.append(f"  {times.what:<66} {numbers} {len(times.seconds):>4}")
        if result.counts:
            lines.append(f"  {'count':<65} {'found':>9} {'wanted':>13}")
        for count in result.counts:
            mark = "" if count.is_good else "  <<<"
            lines.append(f"  {count.what:<65} {count.found:>9,} {count.wanted:>13}{mark}")
        for note in result.notes:
            lines += wrap(note, WIDTH, initial_indent="  . ", subsequent_indent="    ")
    return "\n".join(lines)
