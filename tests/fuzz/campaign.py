"""Fuzzes requests in any number: Hypothesis draws worlds in rounds, each round from its own seed.

A round that fails is drawn again by its seed alone, and Hypothesis has shrunk it by then.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Final

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.world import Play, play, plays

ROUND_WORLDS: Final = 20
"""Worlds of one round: some seconds."""

TIMES: Final = 16
"""How often a world goes through its moments: to draw one costs as much as to play it 10 times."""


def fuzz_round(round_seed: int, worlds: int = ROUND_WORLDS) -> Counter[str]:
    """Play the worlds of one round; give what was counted in them."""
    counted: Counter[str] = Counter()

    @seed(round_seed)
    @settings(
        max_examples=worlds,
        database=None,
        deadline=None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(plays)
    def worlds_go_as_they_must(what: Play) -> None:
        counted.update(play(what, times=TIMES))

    try:
        worlds_go_as_they_must()
    except BaseException as error:
        error.add_note(f"in the round of seed {round_seed}")
        raise
    return counted


def fuzz(
    *, requests: int, seconds: float, first_seed: int, processes: int
) -> Iterator[Counter[str]]:
    """Fuzz until there were so many requests, or so much time is over.

    Gives all that was counted so far, after each round, `rounds` included.
    """
    total: Counter[str] = Counter()
    end = time.monotonic() + seconds
    next_seed = first_seed
    with ProcessPoolExecutor(processes) as pool:
        running: set[Future[Counter[str]]] = set()
        while True:
            has_time = total["requests"] < requests and time.monotonic() < end
            while has_time and len(running) < processes:
                running.add(pool.submit(fuzz_round, next_seed))
                next_seed += 1
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                total += each.result()
                total["rounds"] += 1
            yield total
