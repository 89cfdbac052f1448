"""How each trial in Python holds the clock, so that all are treated alike.

Knows nothing of what it clocks.
"""

import gc
from collections.abc import Callable
from time import perf_counter


def set_aside() -> None:
    """Take all that there is out of the collector's sight: the flow, which is not what is measured.

    Ordering: before whoever is measured makes anything of its own, which the collector then walks
    as it would in life.
    """
    gc.collect()
    gc.freeze()


def rate(count: int, run: Callable[[], None]) -> float:
    """Give how many a second it does of so many, in time on the wall."""
    gc.collect()
    began = perf_counter()
    run()
    return count / (perf_counter() - began)
