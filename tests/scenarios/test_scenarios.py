"""Golden texts: what the books look like before and after, and what everybody is told between.

Each text of `engine/` is played, and must come out as it stands there. After a change of behaviour
`uv run python -m tests.scenarios.rewrite` writes them anew; the difference is to be reviewed.
The notation is told in `engine_stage.py`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.engine_stage import NotUnderstood, played
from tests.scenarios.rewrite import texts

TEXTS = list(texts())


@pytest.mark.parametrize(
    ("path", "play"), TEXTS, ids=[f"{path.parent.name}/{path.stem}" for path, _ in TEXTS]
)
def test_scenario_comes_out_as_it_is_written(path: Path, play: Callable[[str], str]) -> None:
    """Books before and after, as a reader can check them by eye (G8)."""
    text = path.read_text("utf-8")

    assert play(text) == text


def test_there_are_scenarios() -> None:
    assert len(TEXTS) >= 10


@pytest.mark.parametrize(
    "text",
    ["> a1 borrow 5\n", "> a1 buy 5 @ 100 maybe\n", "> a1 amend a2\n", "> z1 buy 5 @ 100\n"],
)
def test_line_that_says_nothing_is_not_passed_over(text: str) -> None:
    with pytest.raises(NotUnderstood):
        played(text)


def test_book_that_cannot_be_set_up_is_not_passed_over() -> None:
    with pytest.raises(NotUnderstood):
        played("bid | price | ask\na1:1 | 101 |\n | 100 | b1:1\n")
