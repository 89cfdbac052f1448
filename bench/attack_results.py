"""What an attack came to: pairs of quiet and attacked times, promises with what was found.

Pure. Knows nothing of how anything was measured.
"""

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Final

from msgspec import Struct

from bench.failover_results import WIDTH, Times, median

THROUGHPUT_RATIO_MIN: Final = 0.9
"""Of the polite peers' orders in a second, attacked to quiet."""

P99_RATIO_MAX: Final = 2.0
"""Of the polite peers' latencies, attacked to quiet."""

GROWTH_SHARE_MAX: Final = 0.10
GROWTH_MIB_MAX: Final = 10.0
"""By how much a process may grow while it is attacked, and from the first attack to the last: a
part of what it had, and what the polite peers' own orders leave behind in outcomes that are
remembered (300 bytes each)."""


class Machine(Struct, frozen=True):
    """How busy the whole machine was in some time: the mood it was in."""

    cores: float
    """At work for anybody, on average; NaN when nothing is known."""
    disk_share: float
    """Of the time, that somebody waited for a disk (pressure stall information, `some`)."""


class Seen(Struct, frozen=True, kw_only=True):
    """What the polite peers saw in one time."""

    orders_per_second: float
    p50_ms: float
    p99_ms: float
    longest_gap_s: float
    """Between two acknowledgements."""
    retried: int
    lost: int
    """Orders without an outcome before their deadline."""
    violations: int
    """Of exactly-once, and of all else that the log is asked."""
    machine: Machine


class Pair(Struct, frozen=True):
    """A quiet time and an attacked one, one after the other."""

    before: Seen
    during: Seen

    @property
    def throughput_ratio(self) -> float:
        """Orders in a second, attacked to quiet."""
        return ratio(self.during.orders_per_second, self.before.orders_per_second)

    @property
    def p99_ratio(self) -> float:
        """Latencies, attacked to quiet."""
        return ratio(self.during.p99_ms, self.before.p99_ms)


class Sample(Struct, frozen=True):
    """What the system says of a process at some moment."""

    at: float
    mib: float
    """Resident."""
    cpu_s: float
    """Of all cores together, since the process began."""


class Use(Struct, frozen=True, kw_only=True):
    """What a process used in quiet and in attacked times."""

    process: str
    cpu_quiet: float
    """Cores, on average; NaN when nothing is known."""
    cpu_attacked: float
    mib_before: float
    """At the beginning of that attack in which it grew most."""
    mib_highest: float
    """In the same attack."""
    growth_quiet_mib: float
    """The most in one quiet time."""
    mib_first: float
    """Highest in the first attack."""
    mib_last: float
    """Highest in the last one."""

    @property
    def growth_mib(self) -> float:
        """The most by which it grew in one attack."""
        return self.mib_highest - self.mib_before


class Promise(Struct, frozen=True):
    """What must hold, and what was found."""

    what: str
    found: str
    bound: str
    is_good: bool


class Result(Struct, kw_only=True):
    """What a phase came to."""

    phase: str
    about: str
    """What was done to what."""
    pairs: list[Pair] = []
    uses: list[Use] = []
    times: list[Times] = []
    promises: list[Promise] = []
    notes: list[str] = []
    load_averages: tuple[float, float] = (0.0, 0.0)
    """The machine's, over the last minute: before and after."""

    @property
    def is_good(self) -> bool:
        """Tell whether all promises hold."""
        return all(promise.is_good for promise in self.promises)


def ratio(during: float, before: float) -> float:
    """Compare; NaN when there is nothing to compare with."""
    return during / before if before else math.nan


def middle(samples: Sequence[float]) -> float:
    """Give the sample in the middle; NaN when one is, so that nothing unknown looks good."""
    return math.nan if any(map(math.isnan, samples)) else median(samples)


def at_most(what: str, found: float, most: float, *, form: str = ",.0f", unit: str = "") -> Promise:
    """Promise a number that must not be higher; NaN keeps no promise."""
    return Promise(what, f"{found:{form}}{unit}", f"<= {most:{form}}{unit}", found <= most)


def at_least(what: str, found: float, least: float, *, form: str = ",.0f") -> Promise:
    """Promise a number that must not be lower; NaN keeps no promise."""
    return Promise(what, f"{found:{form}}", f">= {least:{form}}", found >= least)


def equal(what: str, found: float, wanted: float) -> Promise:
    """Promise a number."""
    return Promise(what, f"{found:,}", f"{wanted:,}", found == wanted)


def promises_of(pairs: Sequence[Pair]) -> list[Promise]:
    """Say what polite peers are promised: by the pair in the middle, since machines have moods."""
    return [
        at_least(
            "polite peers' orders/s, attacked to quiet (median of the pairs)",
            middle([pair.throughput_ratio for pair in pairs]),
            THROUGHPUT_RATIO_MIN,
            form=".2f",
        ),
        *kept_by([seen for pair in pairs for seen in (pair.before, pair.during)]),
    ]


def promise_of_latency(pairs: Sequence[Pair]) -> Promise:
    """Say by how much they may have to wait longer: by the pair in the middle too."""
    return at_most(
        "polite peers' p99, attacked to quiet (median of the pairs)",
        middle([pair.p99_ratio for pair in pairs]),
        P99_RATIO_MAX,
        form=".2f",
    )


def kept_by(seen: Sequence[Seen]) -> list[Promise]:
    """Say what polite peers are promised whatever happens."""
    return [
        equal("polite peers' orders without an outcome", sum(each.lost for each in seen), 0),
        equal("violations of exactly-once in the log", sum(each.violations for each in seen), 0),
    ]


def promises_of_memory(use: Use) -> list[Promise]:
    """Say by how much a server may grow while it is attacked, and from attack to attack."""
    within = GROWTH_SHARE_MAX * use.mib_before + GROWTH_MIB_MAX
    between = GROWTH_SHARE_MAX * use.mib_first + GROWTH_MIB_MAX
    grown = use.mib_last - use.mib_first
    name = use.process
    return [
        at_most(f"{name}: growth in an attack", use.growth_mib, within, form=".1f", unit=" MiB"),
        at_most(
            f"{name}: growth from first attack to last", grown, between, form=".1f", unit=" MiB"
        ),
    ]


def machine_of(cores: Sequence[Sample], disk: Sequence[Sample]) -> Machine:
    """Sum up how busy the machine was, by samples of all its processors, and of its disks."""
    return Machine(_cores([cores]), _cores([disk]))


def use_of(
    process: str, *, quiet: Sequence[Sequence[Sample]], attacked: Sequence[Sequence[Sample]]
) -> Use:
    """Sum up what a process used.

    Args:
        process: Its name.
        quiet: Its samples in each quiet time, in order.
        attacked: Those of each attacked time; one of them has a sample.
    """
    known = [each for each in attacked if each]
    worst = max(known, key=_growth)
    return Use(
        process=process,
        cpu_quiet=_cores(quiet),
        cpu_attacked=_cores(attacked),
        mib_before=worst[0].mib,
        mib_highest=worst[0].mib + _growth(worst),
        growth_quiet_mib=max((_growth(each) for each in quiet if each), default=math.nan),
        mib_first=_highest(known[0]),
        mib_last=_highest(known[-1]),
    )


def _growth(samples: Sequence[Sample]) -> float:
    return _highest(samples) - samples[0].mib


def _highest(samples: Sequence[Sample]) -> float:
    return max(sample.mib for sample in samples)


def _cores(windows: Sequence[Sequence[Sample]]) -> float:
    long_enough = [samples for samples in windows if len(samples) > 1]
    seconds = sum(samples[-1].at - samples[0].at for samples in long_enough)
    return ratio(sum(samples[-1].cpu_s - samples[0].cpu_s for samples in long_enough), seconds)


def table(results: Sequence[Result]) -> str:
    """Write everything down, for a terminal."""
    lines = []
    for result in results:
        before, after = result.load_averages
        lines += ["", *wrap(f"{result.phase}: {result.about}", WIDTH, subsequent_indent="  ")]
        lines.append(f"  (load average {before:.1f} before, {after:.1f} after)")
        lines += pairs_lines(result.pairs)
        lines += _uses_lines(result.uses)
        lines += _times_lines(result.times)
        if result.promises:
            lines.append(f"  {'promise':<58} {'found':>13} {'bound':>16}")
        for promise in result.promises:
            mark = "" if promise.is_good else "  <<<"
            lines.append(f"  {promise.what:<58} {promise.found:>13} {promise.bound:>16}{mark}")
        for note in result.notes:
            lines += wrap(note, WIDTH, initial_indent="  . ", subsequent_indent="    ")
    return "\n".join(lines)


def pairs_lines(pairs: Sequence[Pair]) -> list[str]:
    """Write each pair down, quiet/attacked."""
    if not pairs:
        return []
    lines = [
        f"  {'pair':<4} {'orders/s':>11} {'ratio':>5} {'p50 ms':>11} {'p99 ms':>15} {'ratio':>6}"
        f" {'retried':>9} {'cores busy':>10} {'disk waits':>10}"
    ]
    for number, pair in enumerate(pairs, 1):
        before, during = pair.before, pair.during
        orders = f"{before.orders_per_second:,.0f}/{during.orders_per_second:,.0f}"
        p50, p99 = (
            f"{before.p50_ms:.1f}/{during.p50_ms:.1f}",
            f"{before.p99_ms:.1f}/{during.p99_ms:.1f}",
        )
        retried = f"{before.retried}/{during.retried}"
        cores = f"{before.machine.cores:.1f}/{during.machine.cores:.1f}"
        disk = f"{before.machine.disk_share:.0%}/{during.machine.disk_share:.0%}"
        lines.append(
            f"  {number:<4} {orders:>11} {pair.throughput_ratio:>5.2f} {p50:>11} {p99:>15}"
            f" {pair.p99_ratio:>6.2f} {retried:>9} {cores:>10} {disk:>10}"
        )
    return lines


def _uses_lines(uses: Sequence[Use]) -> list[str]:
    if not uses:
        return []
    lines = [
        f"  {'process':<20} {'cores':>6} {'attacked':>9}"
        f" {'MiB before':>11} {'highest':>8} {'growth':>7} {'growth when quiet':>18}"
    ]
    for use in uses:
        lines.append(
            f"  {use.process:<20} {use.cpu_quiet:>6.2f} {use.cpu_attacked:>9.2f}"
            f" {use.mib_before:>11.1f} {use.mib_highest:>8.1f} {use.growth_mib:>7.1f}"
            f" {use.growth_quiet_mib:>18.1f}"
        )
    return lines


def _times_lines(all_times: Sequence[Times]) -> list[str]:
    if not all_times:
        return []
    lines = [f"  {'time in ms':<66} {'p50':>8} {'worst':>8} {'n':>4}"]
    for times in all_times:
        numbers = f"{'-':>8} {'-':>8}"
        if times.seconds:
            p50, worst = 1_000 * middle(times.seconds), 1_000 * max(times.seconds)
            numbers = f"{p50:>8,.0f} {worst:>8,.0f}"
        lines.append(f"  {times.what:<66} {numbers} {len(times.seconds):>4}")
    return lines
