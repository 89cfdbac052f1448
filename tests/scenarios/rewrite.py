"""Writes the golden texts anew, for review: what differs is a change of behaviour."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.scenarios import engine_stage

FOLDER = Path(__file__).resolve().parent

STAGES: dict[str, Callable[[str], str]] = {"engine": engine_stage.played}
"""Each folder of golden texts, and what plays them."""


def texts() -> Iterator[tuple[Path, Callable[[str], str]]]:
    """Give each golden text with what plays it."""
    for folder, played in STAGES.items():
        for path in sorted((FOLDER / folder).glob("*.txt")):
            yield path, played


def main() -> int:
    """Write what differs, and name it."""
    for path, played in texts():
        text = path.read_text("utf-8")
        new = played(text)
        if new != text:
            path.write_text(new, "utf-8")
            sys.stdout.write(f"rewrote {path.relative_to(FOLDER)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
