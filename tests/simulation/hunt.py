"""Run worlds until one kills each mutant: `python -m tests.simulation mutants`.

Each mutant is made in a process of its own, which has imported nothing of the product before.
"""

from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from typing import Any

from msgspec import Struct

from tests.simulation import mutants
from tests.simulation.__main__ import runner


class Prey(Struct):
    """A mutant, or none, and where it is looked for."""

    name: str | None
    seeds: Sequence[int]


class Caught(Struct):
    """What became of it.

    Attributes:
        name: The mutant's; None of the product as it is.
        seed: Of the first world that went wrong; None when none did.
        by: The rules that are broken there, and the kinds of trouble.
        text: What was wrong, for people.
    """

    name: str | None
    seed: int | None = None
    by: list[str] = []
    text: str = ""


def hunt(
    names: Sequence[str | None], seeds: Sequence[int] | None, *, jobs: int | None
) -> Iterator[Caught]:
    """Look for each mutant in worlds of some seeds, in their order, or of its pinned one alone; for
    none in the pinned ones of all."""
    pinned = sorted({mutant.seed for mutant in mutants.MUTANTS.values()})
    preys = [
        Prey(name, seeds or (pinned if name is None else [mutants.MUTANTS[name].seed]))
        for name in names
    ]
    with get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        yield from pool.imap(_look, preys, chunksize=1)


def _look(prey: Prey) -> Caught:
    runner(prey.name)
    # Imported only now, since it imports the product.
    from tests.simulation.run import Outcome, World, judge

    for seed in prey.seeds:
        outcome: Outcome = World(seed).run()
        if not outcome.is_good:
            found: set[Any] = {*outcome.verdict.rules, *(each.kind for each in outcome.troubles)}
            return Caught(prey.name, seed, sorted(found), judge(outcome))
    return Caught(prey.name)


def row(caught: Caught) -> str:
    """Write a row of the table in the documents."""
    assert caught.name is not None
    breaks = mutants.MUTANTS[caught.name].breaks
    seed = "none" if caught.seed is None else str(caught.seed)
    return f"| `{caught.name}` | {breaks} | {seed} | {', '.join(caught.by)} |"
