"""The tables of docs/ that are made from code; run as a program it writes them anew.

A table stands between `<!-- name -->` and `<!-- /name -->`; all else in a document is left alone.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from deploy import accounts
from deploy.accounts import Holders
from dex_protocol.reasons import Reason, RetryReason
from dex_server.replication import roles as roles_module
from tests.checker.verdict import MEANINGS
from tests.simulation.mutants import MUTANTS
from tests.tidy import benchmarks
from tests.tidy.citations import ROOT, citations, guarantees, list_of_tests

CHAOS = ROOT / "docs" / "evidence" / "chaos.json"
"""What runs of `just chaos --evidence` have written, put together."""

SIMULATED = ROOT / "docs" / "evidence" / "simulation.json"
"""What `just sim-many N --total` has summed up."""

SPEED = ROOT / "docs" / "evidence" / "speed.json"
"""What a full run of `just bench --json` has written."""


def reasons() -> str:
    """Write the refusals, in the order of their numbers."""
    rows = sorted((reason.number, reason.name, reason.sentence) for reason in Reason)
    return table(["number", "reason", "meaning"], [(str(n), f"`{name}`", s) for n, name, s in rows])


def retries() -> str:
    """Write the reasons of `retry`."""
    return table(["reason", "meaning"], [(f"`{why.name}`", why.sentence) for why in RetryReason])


def roles() -> str:
    """Write the changes of role in the order of the code, each with the comment above it there."""
    comments = _comments_above_keys(inspect.getsource(roles_module), "TRANSITIONS")
    rows = [
        (f"`{role}`", f"`{occasion}`", f"`{after}`", comment)
        for ((role, occasion), after), comment in zip(
            roles_module.TRANSITIONS.items(), comments, strict=True
        )
    ]
    return table(["from", "on", "to", "why"], rows)


def access() -> str:
    """Write who may publish and subscribe what, from the accounts as nodes are given them."""
    peer = "<peer>"
    holders = Holders(
        server="`server.nk`",
        operator="`operator.nk`",
        guard="`guard.nk`",
        observer="none",
        peers={peer: f"`peers/{peer}.nk`"},
    )
    text = accounts.config_text(holders)
    written: dict[str, Any] = json.loads(text.partition("accounts: ")[2].partition("\nsystem_")[0])
    order = (
        accounts.peer_account(peer),
        accounts.OBSERVERS,
        accounts.OPERATORS,
        accounts.SYSTEM,
        accounts.EXCHANGE,
    )
    assert sorted(order) == sorted(written)
    rows = []
    for name in order:
        (user,) = written[name]["users"]
        may = (_allowed(user, "publish"), _allowed(user, "subscribe"))
        rows.append((f"`{name}`", user["nkey"], *may, _limits(written[name].get("limits", {}))))
    return table(["account", "key", "may publish to", "may subscribe to", "at most"], rows)


def _allowed(user: dict[str, Any], act: str) -> str:
    permissions = user.get("permissions", {}).get(act)
    if permissions is None:
        return "everything"
    subjects = permissions.get("allow")
    if subjects is None:
        assert permissions == {"deny": [">"]}
        return "nothing"
    assert list(permissions) == ["allow"]
    return ", ".join(f"`{subject}`" for subject in subjects)


def _limits(limits: dict[str, int]) -> str:
    return ", ".join(f"{most:,} {name.removeprefix('max_')}" for name, most in limits.items())


def _comments_above_keys(source: str, name: str) -> list[str]:
    # The comment directly above each key of the dict of that name; "" where there is none.
    lines = source.splitlines()
    (found,) = (
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name
    )
    assert isinstance(found, ast.Dict)
    comments = []
    for key in found.keys:
        assert key is not None
        above: list[str] = []
        line = key.lineno - 2
        while lines[line].strip().startswith("#"):
            above.insert(0, lines[line].strip().removeprefix("# "))
            line -= 1
        comments.append(" ".join(above))
    return comments


def table(head: list[str], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines)


def escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def rules() -> str:
    """Write what the checker asks of a history."""
    return table(["rule", "what must hold"], [(f"`{rule}`", MEANINGS[rule]) for rule in MEANINGS])


def broken() -> str:
    """Write the ways in which the product is broken on purpose, and what catches each."""
    rows = [
        (f"`{name}`", mutant.breaks, str(mutant.seed), f"`{mutant.by}`")
        for name, mutant in MUTANTS.items()
    ]
    return table(["mutant", "what is broken", "seed", "caught by"], rows)


def simulated() -> str:
    """Write how many worlds were simulated for the record, and what was done to them."""
    total: dict[str, Any] = json.loads(SIMULATED.read_text("utf-8"))
    sums: dict[str, Any] = total["sums"]
    counts = [
        ("worlds", sums["worlds"]),
        ("of which went wrong", sum(run["bad"] for run in total["runs"])),
        ("commands", sums["commands"]),
        ("copies of them", sums["copies"]),
        ("commits", sums["commits"]),
        ("seconds of virtual time", round(sums["virtual_s"])),
        ("changes of leader", sums["changes"]),
        ("faults", sum(sums["faults"].values())),
        ("mishaps of messages", sum(sums["mishaps"].values())),
    ]
    kinds = sorted((sums["faults"] | sums["mishaps"]).items(), key=lambda each: -each[1])
    seeds = [(f"{run['first']} to {run['first'] + run['count'] - 1}", run) for run in total["runs"]]
    return "\n\n".join(
        [
            table(["of all runs", "count"], [(name, f"{count:,}") for name, count in counts]),
            table(["fault or mishap", "count"], [(kind, f"{count:,}") for kind, count in kinds]),
            table(
                ["seeds", "commit", "worlds that went wrong"],
                [(text, run["commit"], str(run["bad"])) for text, run in seeds],
            ),
        ]
    )


def chaos() -> str:
    """Write what was done to real clusters for the record, and what it cost."""
    runs: list[dict[str, Any]] = json.loads(CHAOS.read_text("utf-8"))
    rows = [
        (
            str(run["seed"]),
            f"{run['duration_s']:.0f} s",
            str(len(run["faults"])),
            str(len(run["leader_changes"])),
            f"{run['counts']['commands']:,}",
            f"{run['counts']['copies']:,}",
            f"{run['counts']['unknown']:,}",
            f"{run['counts']['unknown_executed']:,}",
            str(len(run["violations"]) + len(run["complaints"])),
        )
        for run in runs
    ]
    gaps: dict[str, list[float]] = {}
    for run in runs:
        for fault in run["faults"]:
            gaps.setdefault(fault["kind"], []).extend(fault["gap_s"].values())
    names = ["seed", "for", "faults", "changes of leader", "commands", "copies"]
    return "\n\n".join(
        [
            table([*names, "unknown", "of which executed", "violations"], rows),
            "How long a market gave no answer to anybody, from each fault to the next:",
            table(
                ["fault", "times", "median", "longest"],
                [
                    (kind, str(len(all_of)), f"{median(all_of):.1f} s", f"{max(all_of):.1f} s")
                    for kind, all_of in sorted(gaps.items())
                ],
            ),
        ]
    )


def speed() -> str:
    """Write what a full run of `just bench` found."""
    return benchmarks.measured(SPEED, table)


def capacity() -> str:
    """Write what the processor times of that run allow."""
    return benchmarks.capacity(SPEED, table)


TABLES: dict[str, Callable[[], str]] = {
    "access": access,
    "capacity": capacity,
    "chaos": chaos,
    "mutants": broken,
    "reasons": reasons,
    "retries": retries,
    "roles": roles,
    "rules": rules,
    "simulated": simulated,
    "speed": speed,
}
"""Each table's name in its markers, and what makes it."""

DOCUMENTS: dict[Path, list[str]] = {
    ROOT / "docs" / "BENCHMARKS.md": ["speed"],
    ROOT / "docs" / "CAPACITY.md": ["capacity"],
    ROOT / "docs" / "PROTOCOL.md": ["access", "reasons"],
    ROOT / "docs" / "ARCHITECTURE.md": ["roles"],
    ROOT / "docs" / "GUARANTEES.md": [],
    ROOT / "docs" / "PROOF.md": ["chaos", "mutants", "rules", "simulated"],
    ROOT / "docs" / "SECURITY.md": ["access"],
}
"""Each document, and the tables that it must have; others it may have. Beside each guarantee that
it has, a list of tests is a must."""


def _tests_of(number: int) -> Callable[[], str]:
    return lambda: list_of_tests(number, citations())


class NoPlace(Exception):
    """A document has no markers for a table, or only one of the two."""


def renewed(text: str, must_have: list[str]) -> str:
    """Put today's tables, and lists of tests, between the markers of a document.

    Raises:
        NoPlace: for one of `must_have`, or for a guarantee's tests, there are no markers.
    """
    lists = {f"tests of G{number}": _tests_of(number) for number in guarantees(text)}
    must_have = [*must_have, *lists]
    for name, made in (TABLES | lists).items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if (begin in text) != (end in text) or (name in must_have and not pattern.search(text)):
            raise NoPlace(f"expected {begin} and {end}, in that order")
        body = f"{begin}\n\n{made()}\n\n{end}"
        text = pattern.sub(lambda _, body=body: body, text)
    return text


def main() -> int:
    """Write every document that is there anew."""
    for path, must_have in DOCUMENTS.items():
        if path.exists():
            path.write_text(renewed(path.read_text("utf-8"), must_have), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
