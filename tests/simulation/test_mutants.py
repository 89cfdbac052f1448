"""The product, broken on purpose in each way of mutants.py, is caught by simulation.

When the simulation changes, so do its worlds: `uv run python -m tests.simulation mutants` finds the
seeds anew.
"""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.simulation import mutating
from tests.simulation.hunt import Caught
from tests.simulation.mutants import MUTANTS

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]

HUNT = """\
import msgspec
from tests.simulation import hunt
caught = list(hunt.hunt([None, *hunt.mutants.MUTANTS], None, jobs=None))
print(msgspec.json.encode(caught).decode())
"""
"""In a process of its own: this one has imported what is to be broken."""


@pytest.fixture(scope="module")
def caught() -> dict[str | None, Caught]:
    """Run the pinned world of each mutant, and all of them without any."""
    done = subprocess.run(
        [sys.executable, "-c", HUNT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = msgspec.json.decode(done.stdout, type=list[Caught])
    return {each.name: each for each in found}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, caught: dict[str | None, Caught]) -> None:
    """In its pinned world, by what is expected to catch it."""
    mutant = MUTANTS[name]

    assert mutant.by in caught[name].by, f"seed {mutant.seed}: {caught[name].text}"


def test_worlds_that_kill_mutants_are_good_without_them(
    caught: dict[str | None, Caught],
) -> None:
    assert caught[None].seed is None, caught[None].text


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_changes_what_stands_in_the_source_once(name: str) -> None:
    changes = MUTANTS[name].changes
    for module in {change.module for change in changes}:
        source = mutating.source_of(module)

        assert mutating.changed(source, module, changes) != source


def test_text_that_stands_nowhere_or_twice_cannot_be_changed() -> None:
    change = mutating.Change("here", "a line\n", "another\n")

    for source in ("no line", "a line\na line\n"):
        with pytest.raises(mutating.NotOnce):
            mutating.changed(source, "here", [change])
