"""The digest: one number that stands for the book, kept up as orders come and go.

It is the sum, modulo 2^64, over all resting orders, of key times remaining lots. Knows nothing of
how a book is stored.
"""

from hashlib import blake2b
from typing import Final

MASK: Final = 2**64 - 1
"""Keeps a sum of keys in 64 bits."""


_BEGUN: Final = blake2b(digest_size=8)
# A copy of it is made in half the time of another one.


def key_of(order_id: str, side: str, price: int, priority: int) -> int:
    """Give an order's factor in the digest: 64 bits.

    Args:
        order_id: The order's id.
        side: `buy` or `sell`.
        price: In ticks.
        priority: The number of its entry into the queue of its price, from 1.
    """
    hashed = _BEGUN.copy()
    hashed.update(f"{order_id}|{side}|{price}|{priority}".encode())
    return int.from_bytes(hashed.digest(), "little")


def digest_text(total: int) -> str:
    """Write a digest, given the whole sum, as the wire has it: 16 hex digits."""
    return f"{total & MASK:016x}"
