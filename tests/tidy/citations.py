"""Which tests hold which guarantee of docs/GUARANTEES.md, as their own docstrings say.

A citation is a `G` with a number, or several, in parentheses, in the docstring of a test, or in
that of a module for all tests in it. Docstrings are found by `ast`, so what stands in a comment, in
a string or in a helper's docstring counts for no test.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

CITATION = re.compile(r"\((G[0-9][^()]*)\)")
NUMBER = re.compile(r"\bG([0-9]+)\b")
HEADING = re.compile(r"^### G([0-9]+): ", re.MULTILINE)


class Cited(NamedTuple):
    """A guarantee's number, and a test that holds it: its file, and its name there.

    The name is empty when the file's docstring cites, for all that is in it.
    """

    number: int
    path: str
    test: str


class Documented(NamedTuple):
    """A docstring, and whose: a test's name, "" for a module, None for anything else."""

    text: str
    test: str | None


def docstrings(source: str) -> Iterator[Documented]:
    """Give every docstring of a module that stands for a test, and of all else."""
    module = ast.parse(source)
    for node in ast.walk(module):
        match node:
            case ast.Module():
                whose = ""
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                whose = node.name if node.name.startswith("test_") else None
            case ast.ClassDef():
                whose = None
            case _:
                continue
        text = ast.get_docstring(node)
        if text is not None:
            yield Documented(text, whose)


def numbers_in(text: str) -> list[int]:
    """Give the numbers of the guarantees that a docstring cites."""
    return [int(number) for found in CITATION.findall(text) for number in NUMBER.findall(found)]


def cited_in(source: str, path: str) -> list[Cited]:
    """Give what the tests of a module cite; a module without tests cites nothing."""
    name = path.rpartition("/")[2]
    has_tests = name.startswith("test_") or re.search(r"^ *(async )?def test_", source, re.M)
    if not has_tests:
        return []
    return [
        Cited(number, path, each.test)
        for each in docstrings(source)
        if each.test is not None
        for number in numbers_in(each.text)
    ]


@cache
def sources() -> dict[str, str]:
    """Read every module of the tests, by its path in the repository."""
    paths = sorted((ROOT / "tests").rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


@cache
def citations() -> list[Cited]:
    """Give every citation of every test, by number, file and name."""
    found = {cited for path, source in sources().items() for cited in cited_in(source, path)}
    return sorted(found)


def guarantees(document: str) -> list[int]:
    """Give the numbers of a document's guarantees, in the order of their headings."""
    return [int(number) for number in HEADING.findall(document)]


def list_of_tests(number: int, cited: list[Cited]) -> str:
    """Write the tests that hold a guarantee, below the file that they are in."""
    tests: dict[str, list[str]] = {}
    for each in sorted(cited):
        if each.number == number:
            tests.setdefault(each.path, []).append(each.test)
    lines = []
    for path, names in tests.items():
        everything = ": all of it" if "" in names else ""
        lines.append(f"- [{path}](../{path}){everything}")
        lines += [] if everything else [f"  - `{name}`" for name in names]
    return "\n".join(lines)
