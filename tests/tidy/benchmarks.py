"""The tables of docs/BENCHMARKS.md, from what a full run of `just bench --json` has written."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

Table: TypeAlias = Callable[[list[str], Sequence[tuple[str, ...]]], str]


def measured(file: Path, table: Table) -> str:
    """Write on what machine it was measured, what is claimed, and every figure."""
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    machine = report["machine"]
    about = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['python']}, "
        f"{machine['platform']}; commit {machine['commit']}, {report['rounds']} rounds."
    )
    claims = [
        (stage["name"], *_claim(verdict))
        for stage in report["stages"]
        for verdict in stage["verdicts"]
    ]
    parts = [
        about,
        table(["stage", "claim", "found: median (least to greatest)", "wanted", "holds"], claims),
    ]
    for stage in report["stages"]:
        parts.append(f"**{stage['name']}**: {stage['title']}.")
        if stage["missing"]:
            parts.append(f"Missing: {stage['missing']}.")
        if stage["figures"]:
            rows = [
                (each["name"], _spread(each["rounds"]), each["unit"]) for each in stage["figures"]
            ]
            parts.append(table(["", "median (least to greatest)", "unit"], rows))
    return "\n\n".join(parts)


def _claim(verdict: dict[str, Any]) -> tuple[str, str, str, str]:
    relation = "at most" if verdict["is_at_most"] else "at least"
    names, found, wanted = [], [], []
    if verdict.get("ratio_wanted") is not None:
        names.append(f"{verdict['figure']} / {' + '.join(verdict['against'])}")
        found.append(_of(verdict.get("ratio")))
        wanted.append(f"{relation} {_number(verdict['ratio_wanted'])}")
    if verdict.get("value_wanted") is not None:
        names.append(verdict["figure"])
        found.append(_of(verdict.get("value")))
        wanted.append(f"{relation} {_number(verdict['value_wanted'])}")
    return "; ".join(names), "; ".join(found), "; ".join(wanted), verdict["holds"]


def _of(spread: dict[str, float] | None) -> str:
    if spread is None:
        return ""
    least, most = _number(spread["least"]), _number(spread["most"])
    return f"{_number(spread['median'])} ({least} to {most})"


def _spread(values: list[float]) -> str:
    return _of({"median": median(values), "least": min(values), "most": max(values)})


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
