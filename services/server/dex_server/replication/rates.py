"""How much somebody may ask for in a time: a bucket that fills at a rate, and never runs over.

Integers only, so that all machines count alike. Knows nothing of what is counted: orders or bytes.
"""

from typing import Final

SECOND_US: Final = 1_000_000


class TokenBucket:
    """What one peer has left, in millionths of what is counted."""

    __slots__ = ("_filled_at", "_left")

    def __init__(self, burst: int, *, now: int) -> None:
        """Begin full, at a monotonic time in µs."""
        self._left = burst * SECOND_US
        self._filled_at = now

    def left(self, *, per_second: int, burst: int, now: int) -> int:
        """Tell how many may be taken now; below 0 while what was lent is not paid back.

        Args:
            per_second: How fast it fills.
            burst: How much it holds.
            now: The monotonic time, in µs.
        """
        filled = self._left + (now - self._filled_at) * per_second
        self._left = min(filled, burst * SECOND_US)
        self._filled_at = now
        return self._left // SECOND_US

    def take(self, count: int) -> None:
        """Take some away, also more than are left: then it must fill for longer."""
        self._left -= count * SECOND_US

    def take_all(self, count: int, *, per_second: int, burst: int, now: int) -> bool:
        """Take so many away if as many are left now; tell whether they were."""
        filled = self._left + (now - self._filled_at) * per_second
        full = burst * SECOND_US
        left = filled if filled < full else full
        self._filled_at = now
        taken = count * SECOND_US
        if left < taken:
            self._left = left
            return False
        self._left = left - taken
        return True

    def give_back(self, count: int) -> None:
        """Put back what was taken for nothing; what it cannot hold runs over at the next look."""
        self._left += count * SECOND_US

    def is_full(self, *, per_second: int, burst: int, now: int) -> bool:
        """Tell whether nothing was taken for so long that it need not be remembered."""
        return self.left(per_second=per_second, burst=burst, now=now) >= burst
