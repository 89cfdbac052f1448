"""A trial in a process of its own: `python -m bench.speed.child NAME ARGUMENT...` prints numbers.

Knows nothing of rounds, nor of what the numbers are compared with.
"""

import sys
from importlib import import_module
from typing import Final

import msgspec

from bench.speed.children import VALUE

TRIALS: Final = {
    "execute": "executing",
    "lightmatchingengine": "rivals",
    "pyorderbook": "rivals",
    "pyorderbook_ready_made": "rivals",
    "liquibook": "rivals",
    "liquibook_ready_made": "rivals",
    "book": "structures",
    "book_ready_made": "structures",
    "textbook": "structures",
    "textbook_ready_made": "structures",
    "leader_cpu": "leading",
    "memory": "leading",
    "pauses": "pausing",
    "apply": "applying",
}
"""The module of each trial: imported alone, so that no child holds what it does not use."""


def main(name: str, *arguments: str) -> None:
    """Run a trial: a function that takes texts, and gives a number or some by name."""
    trial = getattr(import_module(f"bench.speed.{TRIALS[name]}"), name)
    found = trial(*arguments)
    numbers = found if isinstance(found, dict) else {VALUE: found}
    sys.stdout.write(msgspec.json.encode(numbers).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
