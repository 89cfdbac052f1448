"""The product, broken on purpose: each mutant is a change of its source that simulation must catch."""

from typing import Final

MUTANTS: Final[dict[str, None]] = {"none": None}


def install(name: str) -> None:
    """Break the product; before it is imported."""
