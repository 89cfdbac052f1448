"""Figures that one measurement gives together.

Knows nothing of what they are.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from bench.speed.rounds import Figure


def together(
    units: Mapping[str, str], measure: Callable[[], Awaitable[Mapping[str, float]]]
) -> list[Figure]:
    """Make figures of one measurement: whichever a round asks for first has it made, for all.

    Args:
        units: By the names of the figures, in order.
        measure: Gives a value for each.
    """
    values: dict[str, float] = {}

    async def one(name: str) -> float:
        if name not in values:
            # The next round; what nobody asked for in the last one is of no use any more.
            values.clear()
            values.update(await measure())
        return values.pop(name)

    return [Figure(name, unit, partial(one, name)) for name, unit in units.items()]
