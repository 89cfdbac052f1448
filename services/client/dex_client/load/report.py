"""What a run came to: one Struct, as text for people and as JSON for machines.

Pure. Knows nothing of how anything was measured.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from hdrh.histogram import HdrHistogram
from msgspec import Struct

from dex_client.load.options import Load
from dex_client.load.record import Record
from dex_client.load.verification import Verified

LATENCY_US_MAX: Final = 3_600_000_000
"""The histogram's range: an hour, more than anyone waits."""

SIGNIFICANT_DIGITS: Final = 3
"""The histogram's precision: a latency of 1 s is right to a millisecond."""

VIOLATIONS_SHOWN_MAX: Final = 20
"""The first violations say what is wrong; thousands of the same would bury them."""


class LatencyMs(Struct, frozen=True):
    """Percentiles over all answered orders, in milliseconds."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


class Report(Struct, frozen=True, kw_only=True):
    """What a run came to.

    `accepted`, all of `rejected`, `unavailable` and `unknown` add up to `orders`.
    """

    orders: int
    """Orders sent; as many as asked for, unless it was interrupted."""
    accepted: int
    rejected: dict[str, int]
    retried: int
    unavailable: int
    unknown: int
    trades: int
    seconds: float
    orders_per_second: float
    latency_ms: LatencyMs | None
    """None when no order was answered."""
    verified: Verified | None
    """None when nobody looked, or could not."""
    unverified_because: str | None
    """Why there is no verification although it was asked for."""
    interrupted: bool
    markets: tuple[str, ...]
    peers: int
    in_flight: int
    batch: int
    rate: float | None
    seed: int

    @property
    def is_good(self) -> bool:
        """Tell whether every order has an outcome and nothing contradicts it."""
        return (
            not self.interrupted
            and self.unavailable == 0
            and self.unknown == 0
            and self.unverified_because is None
            and (self.verified is None or self.verified.violations_count == 0)
        )


def make_report(
    load: Load,
    record: Record,
    verified: Verified | None,
    *,
    unverified_because: str | None = None,
    interrupted: bool = False,
) -> Report:
    """Sum up a run."""
    seconds = record.seconds
    return Report(
        orders=record.sent,
        accepted=record.accepted,
        rejected=dict(sorted(record.rejected.items())),
        retried=record.retried,
        unavailable=record.given_up["unavailable"],
        unknown=record.given_up["unknown"],
        trades=record.trades,
        seconds=round(seconds, 6),
        orders_per_second=round(record.answered / seconds, 1) if seconds > 0 else 0.0,
        latency_ms=_latency_ms(record.latencies),
        verified=verified,
        unverified_because=unverified_because,
        interrupted=interrupted,
        markets=load.markets,
        peers=load.peers,
        in_flight=load.in_flight,
        batch=load.batch,
        rate=load.rate,
        seed=load.seed,
    )


def _latency_ms(latencies: Mapping[int, int]) -> LatencyMs | None:
    if not latencies:
        return None
    histogram = HdrHistogram(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
    for latency_us, count in latencies.items():
        histogram.record_value(min(max(latency_us, 1), LATENCY_US_MAX), count)
    most_us = max(latencies)
    # The histogram rounds up within its precision, past the greatest too.
    p50, p90, p99, p99_9 = (
        min(histogram.get_value_at_percentile(percentile), most_us) / 1000
        for percentile in (50, 90, 99, 99.9)
    )
    return LatencyMs(p50=p50, p90=p90, p99=p99, p99_9=p99_9, max=most_us / 1000)


def to_json(report: Report) -> bytes:
    """Write a report as one JSON object, indented, with a line end."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def to_text(report: Report) -> str:
    """Write a report for people: an aligned table of lines."""
    lines = [_heading(report), ""]
    lines += [f"{name:<18}{value:>12}   {note}".rstrip() for name, value, note in _rows(report)]
    lines += ["", *_latency_lines(report.latency_ms), "", *_verified_lines(report)]
    return "\n".join(lines) + "\n"


def _heading(report: Report) -> str:
    rate = "" if report.rate is None else f", {report.rate:g} orders per second asked for"
    return (
        f"{_counted(report.orders, 'order')} to {', '.join(report.markets)} "
        f"by {_counted(report.peers, 'peer')}: "
        f"{_counted(report.in_flight, 'request')} in flight, "
        f"{_counted(report.batch, 'order')} each{rate}, seed {report.seed}"
    )


def _rows(report: Report) -> list[tuple[str, str, str]]:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.rejected.items())
    again = "copies sent again" if report.retried else ""
    nothing = "nothing was executed; send them again" if report.unavailable else ""
    perhaps = "may have been executed" if report.unknown else ""
    return [
        ("accepted", f"{report.accepted:,}", ""),
        ("rejected", f"{sum(report.rejected.values()):,}", reasons),
        ("retried", f"{report.retried:,}", again),
        ("unavailable", f"{report.unavailable:,}", nothing),
        ("unknown", f"{report.unknown:,}", perhaps),
        ("trades", f"{report.trades:,}", ""),
        ("orders per second", f"{report.orders_per_second:,.0f}", f"in {report.seconds:.3f} s"),
    ]


def _latency_lines(latency: LatencyMs | None) -> list[str]:
    if latency is None:
        return ["latency: no order was answered"]
    names = ("p50", "p90", "p99", "p99.9", "max")
    values = (latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max)
    return [
        f"{'latency, ms':<14}" + "".join(f"{name:>10}" for name in names),
        " " * 14 + "".join(f"{value:>10,.2f}" for value in values),
    ]


def _verified_lines(report: Report) -> list[str]:
    verified = report.verified
    if verified is None:
        because = "" if report.unverified_because is None else f": {report.unverified_because}"
        return [f"not verified{because}"]
    read = f"{_counted(verified.commits, 'commit')} with {_counted(verified.events, 'event')}"
    if verified.violations_count == 0:
        return [
            f"verified: {read} read back; each order as its receipt says, quantities conserved, "
            "digests equal"
        ]
    shown = verified.violations[:VIOLATIONS_SHOWN_MAX]
    left = verified.violations_count - len(shown)
    return [
        f"NOT VERIFIED: {_counted(verified.violations_count, 'violation')} in {read}",
        *(f"  {violation.sentence}" for violation in shown),
        *([f"  and {left:,} more"] if left else []),
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
