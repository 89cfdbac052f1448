"""Remembering what a function gave, for arguments that repeat.

`functools.lru_cache` knows which of its results was used last, and pays for it at every hit (70 ns,
and more when what it has to move about is not in the processor's cache). Here a hit is a look into
a dict (30 ns), and a full memo is emptied: arguments that repeat are soon back.
"""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def memo(function: Callable[[K], V], *, count_max: int) -> Callable[[K], V]:
    """Make a function that remembers what another one gave, for at most so many arguments.

    Args:
        function: Gives the same for the same argument, always. What it raises is not remembered.
        count_max: How many results are remembered before all are forgotten.
    """
    return _Memo(function, count_max).__getitem__


class _Memo(dict[K, V]):
    __slots__ = ("_count_max", "_function")

    def __init__(self, function: Callable[[K], V], count_max: int) -> None:
        self._function = function
        self._count_max = count_max

    def __missing__(self, key: K) -> V:
        value = self._function(key)
        if len(self) >= self._count_max:
            self.clear()
        self[key] = value
        return value
