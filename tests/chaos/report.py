"""What a run shows: how long markets stood still, how many were served when, and what was found.

Pure: a run that was recorded goes in, numbers and text come out. Times in the results are seconds
after the start of the load.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from math import ceil
from statistics import median
from typing import Any, Final

from msgspec import Struct, structs

from tests.chaos.nemesis import Happened
from tests.chaos.onlooker import Change
from tests.chaos.run import Seen
from tests.checker.checker import MEANINGS, RULES, Verdict
from tests.checker.history import History

AFTER_S: Final = 12.0
"""How long after its end a gap may still be a fault's doing, unless the next one comes before: what
comes back to a cluster may cause one more election in NATS."""

BEFORE_S: Final = 0.25
"""How long before a fault a gap that it caused may seem to begin: each market answers some dozens
of times a second, and by chance, or between two batches, a little less."""

SHOWN_COUNT: Final = 20
"""Violations that are shown; the history has them all."""


class Answer(Struct, frozen=True):
    """A command that was answered for good."""

    market: str
    at: float
    latency: float
    """Since its first copy."""


class MeasuredFault(Struct, frozen=True):
    """A fault, and how long it kept markets from answering."""

    kind: str
    began: float
    ended: float
    blows: list[str]
    gaps: dict[str, float]
    """By market, the longest time without an answer that began after it did, and before the next
    fault or a while after its end."""


class Report(Struct, frozen=True):
    """What a run shows."""

    duration: float
    faults: list[MeasuredFault]
    changes: list[Change]
    """Those after the start."""
    answers: list[Answer]
    """In the order in which they came."""
    verdict: Verdict
    complaints: list[str]

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong."""
        return self.verdict.is_good and not self.complaints

    @property
    def faulty_share(self) -> float:
        """How much of the time something was broken."""
        return sum(each.ended - each.began for each in self.faults) / self.duration


def report(seen: Seen, verdict: Verdict) -> Report:
    """Work out what a run shows."""
    answers = _answers(seen.history, seen.start)
    moments = {
        market: [answer.at for answer in answers if answer.market == market]
        for market in seen.history.logs
    }
    by_fault = [
        list(group)
        for _, group in groupby(
            sorted(seen.happened, key=lambda each: (each.fault, each.began)),
            key=lambda each: each.fault,
        )
    ]
    stop = seen.stop - seen.start
    begins = [min(each.began for each in blows) - seen.start for blows in by_fault]
    faults = [
        _measured(blows, moments, start=seen.start, until=until, stop=stop)
        for blows, until in zip(by_fault, [*begins, stop][1:], strict=True)
    ]
    changes = [
        structs.replace(change, at=change.at - seen.start)
        for change in seen.changes
        if change.at >= seen.start
    ]
    return Report(stop, faults, changes, answers, verdict, seen.complaints)


def _answers(history: History, start: float) -> list[Answer]:
    found = []
    for sent in history.sent:
        ends = [
            copy.ended
            for copy in sent.copies
            if copy.ended is not None and copy.answer and copy.answer.get("status") != "retry"
        ]
        if ends:
            first = min(ends)
            found.append(Answer(sent.market, first - start, first - sent.copies[0].sent))
    return sorted(found, key=lambda answer: answer.at)


def _measured(
    blows: Sequence[Happened],
    moments: Mapping[str, list[float]],
    *,
    start: float,
    until: float,
    stop: float,
) -> MeasuredFault:
    began = min(each.began for each in blows) - start
    ended = max(each.ended for each in blows) - start
    last = min(until, ended + AFTER_S)
    return MeasuredFault(
        kind=blows[0].kind,
        began=began,
        ended=ended,
        blows=[each.text for each in blows],
        gaps={
            market: longest_gap(
                some, since=began - BEFORE_S, until=max(began, last - BEFORE_S), stop=stop
            )
            for market, some in moments.items()
        },
    )


# --- Numbers ------------------------------------------------------------------------------------


def longest_gap(moments: Sequence[float], *, since: float, until: float, stop: float) -> float:
    """Give the longest time from one moment to the next that begins in a time; 0 if none does.

    Args:
        moments: In order.
        since: When gaps begin that count.
        until: When those begin that do not count any more.
        stop: What follows the last moment, if that is earlier.
    """
    marks = [0.0, *(moment for moment in moments if moment < stop), stop]
    return max(
        (later - earlier for earlier, later in pairwise(marks) if since <= earlier < until),
        default=0.0,
    )


def gaps_by_kind(faults: Iterable[MeasuredFault]) -> dict[str, list[float]]:
    """Give the gaps of all markets, by kind of fault, in the order of the kinds' names."""
    found: dict[str, list[float]] = {}
    for fault in sorted(faults, key=lambda each: each.kind):
        found.setdefault(fault.kind, []).extend(fault.gaps.values())
    return found


def throughput(answers: Iterable[Answer], duration: float) -> list[int]:
    """Count the answers of each second of a run; those of its last outcomes come later."""
    counts = Counter(int(answer.at) for answer in answers)
    return [counts[second] for second in range(round(duration))]


def quantile(values: Iterable[float], share: float) -> float:
    """Give the least value that so many are not above; 0 of none."""
    ordered = sorted(values)
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


def evidence(made: Report, about: Mapping[str, Any]) -> dict[str, Any]:
    """Give everything for a file: what is known about the run, and what it shows."""
    latencies = [answer.latency for answer in made.answers]
    verdict = made.verdict
    broken = Counter(violation.rule for violation in verdict.violations)
    return {
        **about,
        "faults": [
            {
                "kind": each.kind,
                "began_s": round(each.began, 3),
                "ended_s": round(each.ended, 3),
                "blows": each.blows,
                "gap_s": {market: round(gap, 3) for market, gap in each.gaps.items()},
            }
            for each in made.faults
        ],
        "faulty_share": round(made.faulty_share, 3),
        "leader_changes": [
            {
                "at_s": round(each.at, 3),
                "market": each.market,
                "server": each.server,
                "term": each.term,
            }
            for each in made.changes
        ],
        "gap_s_by_kind": {
            kind: {
                "count": len(gaps),
                "p50": round(median(gaps), 3),
                "max": round(max(gaps), 3),
            }
            for kind, gaps in gaps_by_kind(made.faults).items()
        },
        "answered_per_second": throughput(made.answers, made.duration),
        "latency_ms": {
            name: round(1_000 * quantile(latencies, share), 1)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
        "counts": verdict.counts,
        "rules": {rule: {"violations": broken[rule], "meaning": MEANINGS[rule]} for rule in RULES},
        "violations": [str(violation) for violation in verdict.violations],
        "complaints": made.complaints,
    }


# --- For people ---------------------------------------------------------------------------------


def text(made: Report) -> str:
    """Say it all."""
    latencies = [answer.latency for answer in made.answers]
    verdict = made.verdict
    lines = ["", f"{'without an answer, in s, after':<34} {'p50':>7} {'worst':>7} {'n':>4}"]
    for kind, gaps in gaps_by_kind(made.faults).items():
        lines.append(f"  {kind:<32} {median(gaps):7.2f} {max(gaps):7.2f} {len(gaps):4}")
    counts = throughput(made.answers, made.duration)
    lines += ["", "answered in each second:"]
    lines += [
        f"  {first:4} s  " + " ".join(f"{count:4}" for count in counts[first : first + 10])
        for first in range(0, len(counts), 10)
    ]
    lines += [
        "",
        f"{len(made.faults)} faults in {100 * made.faulty_share:.0f} % of the time, "
        f"{len(made.changes)} changes of leaders",
        f"{len(made.answers):,} commands answered for good; "
        f"p50 {1_000 * quantile(latencies, 0.5):.1f} ms, "
        f"p99 {1_000 * quantile(latencies, 0.99):.0f} ms, "
        f"at most {max(latencies, default=0):.1f} s",
        f"judged: {verdict.commands:,} commands in {verdict.copies:,} copies "
        f"({verdict.acknowledged:,} acknowledged, {verdict.refused:,} refused, "
        f"{verdict.retried_only:,} not executed, {verdict.unknown:,} unknown, of which "
        f"{verdict.unknown_executed:,} were executed), {verdict.commits:,} commits of "
        f"{verdict.events:,} events, {verdict.repeated:,} repeated answers, "
        f"{verdict.queries:,} queries, {verdict.replicas:,} replicas",
        f"{len(verdict.violations)} violations of {len(RULES)} rules",
    ]
    lines += [f"  {violation}" for violation in verdict.violations[:SHOWN_COUNT]]
    if len(verdict.violations) > SHOWN_COUNT:
        lines.append(f"  and {len(verdict.violations) - SHOWN_COUNT} more")
    lines += [f"WRONG: {complaint}" for complaint in made.complaints]
    return "\n".join(lines)
