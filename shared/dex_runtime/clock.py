"""The two clocks of a process: the wall clock, which others can compare, and one that only grows.

The only place that asks the system for the time, so that whoever needs a clock can be handed
another. Knows nothing of an exchange's own time, which comes with each commit.
"""

import time


def now_us() -> int:
    """Tell the wall clock: microseconds since 1970. It may jump, forwards and backwards."""
    return time.time_ns() // 1_000


def monotonic_us() -> int:
    """Tell a clock that never goes back: microseconds since some moment, for durations only."""
    return time.monotonic_ns() // 1_000
