"""The tables of docs/ that are made from code; run as a program it writes them anew.

A table stands between `<!-- name -->` and `<!-- /name -->`; all else in a document is left alone.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

from dex_protocol.reasons import Reason, RetryReason
from dex_server.replication import roles as roles_module

ROOT = Path(__file__).resolve().parents[2]


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


def table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines)


def escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


TABLES: dict[str, Callable[[], str]] = {
    "reasons": reasons,
    "retries": retries,
    "roles": roles,
}
"""Each table's name in its markers, and what makes it."""

DOCUMENTS = {
    ROOT / "docs" / "PROTOCOL.md": ["reasons"],
    ROOT / "docs" / "ARCHITECTURE.md": ["roles"],
}
"""Each document, and the tables that it must have; others it may have."""


class NoPlace(Exception):
    """A document has no markers for a table, or only one of the two."""


def renewed(text: str, must_have: list[str]) -> str:
    """Put today's tables between the markers of a document.

    Raises:
        NoPlace: for one of `must_have` there are no markers.
    """
    for name, made in TABLES.items():
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
