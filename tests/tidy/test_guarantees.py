"""docs/GUARANTEES.md promises what tests hold, and says where each promise ends.

Which test holds what is read from the tests' docstrings; `citations` says how.
"""

import re
from pathlib import Path

import pytest

from tests.tidy import citations
from tests.tidy.citations import Cited, cited_in, guarantees, list_of_tests
from tests.tidy.tables import DOCUMENTS, ROOT, NoPlace, renewed

PATH = ROOT / "docs" / "GUARANTEES.md"
TEXT = PATH.read_text("utf-8")

SECTIONS = list(re.finditer(r"^### G([0-9]+): .*?(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))

SHAPE = re.compile(
    r"### G(?P<number>[0-9]+): \S.*\n"
    r"\n\*\*[A-Z`].*\.\*\*\n"
    r"\n(?:- .*\n(?:  .*\n)*)+"
    r"\n<!-- tests of G(?P=number) -->\n"
    r"(?:.*\n)*"
    r"<!-- /tests of G(?P=number) -->\s*"
)
"""A heading, the promise in a line of its own, its limits, the tests."""


def test_numbers_are_consecutive_from_one() -> None:
    numbers = guarantees(TEXT)

    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda found: f"G{found[1]}")
def test_guarantee_is_a_sentence_with_its_limits_and_its_tests(section: re.Match[str]) -> None:
    assert SHAPE.fullmatch(section[0]), section[0]


@pytest.mark.parametrize("number", guarantees(TEXT), ids=lambda number: f"G{number}")
def test_every_guarantee_is_cited_by_a_test(number: int) -> None:
    assert [each for each in citations.citations() if each.number == number]


def test_every_number_that_a_docstring_of_the_tests_cites_is_a_guarantee() -> None:
    wrong = [
        (path, each.text)
        for path, source in citations.sources().items()
        for each in citations.docstrings(source)
        if not set(citations.numbers_in(each.text)) <= set(guarantees(TEXT))
    ]

    assert wrong == []


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda path: path.name,
)
def test_every_number_in_a_document_is_a_guarantee(path: Path) -> None:
    named = {int(number) for number in citations.NUMBER.findall(path.read_text("utf-8"))}

    assert named <= set(guarantees(TEXT))


def test_list_of_tests_beside_each_guarantee_is_what_the_docstrings_say() -> None:
    assert renewed(TEXT, DOCUMENTS[PATH]) == TEXT, "run: uv run python -m tests.tidy.tables"


# --- The rules themselves -----------------------------------------------------------------------

MODULE = '''
"""What is asked of every log (G1)."""

# Not by a comment (G2).
TEXT = "nor by a string (G3)"


def test_log_keeps_what_it_was_given():
    """It is there after a restart, too (G4, G5).

    Not so with a comma (that is no citation), and again here (G7)."""
    "nor a second string (G3)"


def helper():
    """Help, but hold nothing (G3)."""


class Contract:
    """Hold nothing either (G3)."""

    async def test_log_gives_it_back(self):
        """To everybody
        (G4,
        G6)."""

    def test_log_has_an_end(self):
        pass
'''


def test_citations_are_found_in_docstrings_of_modules_and_tests_alone() -> None:
    assert sorted(cited_in(MODULE, "tests/x/log_contract.py")) == [
        Cited(1, "tests/x/log_contract.py", ""),
        Cited(4, "tests/x/log_contract.py", "test_log_gives_it_back"),
        Cited(4, "tests/x/log_contract.py", "test_log_keeps_what_it_was_given"),
        Cited(5, "tests/x/log_contract.py", "test_log_keeps_what_it_was_given"),
        Cited(6, "tests/x/log_contract.py", "test_log_gives_it_back"),
        Cited(7, "tests/x/log_contract.py", "test_log_keeps_what_it_was_given"),
    ]


def test_module_without_tests_holds_nothing_and_one_of_machines_does() -> None:
    source = '"""Steps in any order (G3)."""\n\nTestSteps = Steps.TestCase\n'

    assert cited_in(source, "tests/x/steps.py") == []
    assert cited_in(source, "tests/x/test_steps.py") == [Cited(3, "tests/x/test_steps.py", "")]


def test_list_names_each_test_once_below_its_file() -> None:
    cited = [
        Cited(1, "tests/b.py", "test_two"),
        Cited(1, "tests/b.py", "test_one"),
        Cited(1, "tests/a.py", "test_more"),
        Cited(1, "tests/a.py", ""),
        Cited(2, "tests/b.py", "test_three"),
    ]

    assert list_of_tests(1, cited) == (
        "- [tests/a.py](../tests/a.py): all of it\n"
        "- [tests/b.py](../tests/b.py)\n"
        "  - `test_one`\n"
        "  - `test_two`"
    )


def test_guarantee_without_a_place_for_its_tests_is_named() -> None:
    with pytest.raises(NoPlace, match="tests of G1"):
        renewed("### G1: A promise\n", [])


def test_list_of_tests_is_put_between_its_markers() -> None:
    text = "### G1: A promise\n\n<!-- tests of G1 -->\nstale\n<!-- /tests of G1 -->\n"
    new = renewed(text, [])

    assert "stale" not in new
    assert list_of_tests(1, citations.citations()) in new


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        ("**It holds.**", "It holds."),
        ("**It holds.**", "**It holds**"),
        ("- It does not hold at night.\n", ""),
        ("<!-- tests of G1 -->", "<!-- tests of G2 -->"),
    ],
)
def test_guarantee_of_another_shape_is_noticed(what: str, instead: str) -> None:
    good = (
        "### G1: A promise\n\n**It holds.**\n\n- It does not hold at night.\n"
        "\n<!-- tests of G1 -->\n\n- one\n\n<!-- /tests of G1 -->\n"
    )

    assert SHAPE.fullmatch(good)
    assert not SHAPE.fullmatch(good.replace(what, instead))
