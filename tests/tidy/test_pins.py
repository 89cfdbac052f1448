"""What is installed is held: each package that the project needs or brings along has a version."""

import re
import tomllib
from typing import Any

import pytest

from tests.tidy.tables import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

GROUPS: dict[str, list[str]] = {
    "dependencies": PROJECT["project"]["dependencies"],
    **PROJECT["dependency-groups"],
    "constraint-dependencies": PROJECT["tool"]["uv"]["constraint-dependencies"],
    "build-constraint-dependencies": PROJECT["tool"]["uv"]["build-constraint-dependencies"],
}


def name_of(requirement: str) -> str:
    return requirement.partition("==")[0]


@pytest.mark.parametrize("group", GROUPS)
def test_versions_are_exact_and_sorted_by_name(group: str) -> None:
    exact = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*(; .+)?")

    assert [each for each in GROUPS[group] if exact.fullmatch(each) is None] == []
    assert sorted(GROUPS[group], key=name_of) == GROUPS[group]


def test_everything_that_is_brought_along_is_held_and_nothing_else() -> None:
    lock = ROOT / "uv.lock"
    if not lock.exists():
        pytest.skip("there is no uv.lock: uv did not make this environment")
    locked = {package["name"] for package in tomllib.loads(lock.read_text("utf-8"))["package"]}
    held = {name_of(each) for each in GROUPS["constraint-dependencies"]}
    direct = {
        name_of(each)
        for group, requirements in GROUPS.items()
        if not group.endswith("constraint-dependencies")
        for each in requirements
    }

    assert sorted(locked - direct - {PROJECT["project"]["name"]}) == sorted(held)
