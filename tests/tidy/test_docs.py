"""Documents say what the code says: generated tables are current, decisions have their headers."""

import re
from pathlib import Path

import pytest

from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.standing import MarketStanding, ServerStanding
from dex_server.replication.roles import TRANSITIONS
from tests.tidy.tables import DOCUMENTS, ROOT, NoPlace, renewed

ADRS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))

SECTIONS = ["Context and problem", "Decision", "Consequences", "Options we turned down"]

STATUSES = ("Proposed", "Approved", "Partially Implemented", "Implemented", "Superseded")

ADR_NAME = re.compile(r"[0-9]{4}-[a-z0-9-]+\.md")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_generated_tables_are_current(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"there is no {path.name} yet")
    text = path.read_text("utf-8")

    assert renewed(text, DOCUMENTS[path]) == text, "run: uv run python -m tests.tidy.tables"


def header(text: str) -> dict[str, str]:
    """Read the table at the head of a decision record: `| Status | Implemented |`."""
    rows = re.findall(r"^\|\s*(\w+)\s*\|\s*(.*?)\s*\|\s*$", text, re.MULTILINE)
    return dict(reversed(rows))


def what_is_wrong_with(name: str, text: str) -> list[str]:
    wrong = []
    if not ADR_NAME.fullmatch(name):
        wrong.append(f"expected a name like 0003-fencing.md, found {name}")
    if not re.match(r"# \S", text):
        wrong.append("expected a title in the first line")
    fields = header(text)
    rows = ("Date", "Author", "Status", "Tags")
    wrong += [f"expected a row {row}" for row in rows if row not in fields]
    if "| Revision | Date | Author | Info |" not in text:
        wrong.append("expected a table of revisions")
    status = fields.get("Status", "")
    if "Status" in fields and status not in STATUSES:
        wrong.append(f"expected a status of {', '.join(STATUSES)}, found {status!r}")
    if "Date" in fields and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", fields["Date"]):
        wrong.append(f"expected a date like 2025-11-22, found {fields['Date']!r}")
    sections = re.findall(r"^## (.+?)\s*$", text, re.MULTILINE)
    if [section for section in sections if section in SECTIONS] != SECTIONS:
        wrong.append(f"expected the sections {', '.join(SECTIONS)}, in that order")
    return wrong


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_decision_record_has_its_headers(path: Path) -> None:
    assert what_is_wrong_with(path.name, path.read_text("utf-8")) == []


def test_decision_records_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in ADRS]

    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_decision_record_stands_in_the_list(path: Path) -> None:
    title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
    row = f"| [{path.name[:4]}]({path.name}) | {title} |"

    assert row in path.with_name("README.md").read_text("utf-8")


# --- The rules themselves -----------------------------------------------------------------------

GOOD = """# Fencing

| Metadata | Value |
| --- | --- |
| Date | 2025-11-22 |
| Author | dex |
| Status | Implemented |
| Tags | log |

| Revision | Date | Author | Info |
| --- | --- | --- | --- |
| 1 | 2025-11-22 | dex | Initial decision |

## Context and problem
## Decision
## Consequences
## Options we turned down
"""


def test_good_record_is_taken() -> None:
    assert what_is_wrong_with("0003-fencing.md", GOOD) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fencing.md", GOOD),
        ("0003-fencing.md", GOOD.replace("# Fencing", "Fencing")),
        ("0003-fencing.md", GOOD.replace("| Status | Implemented |\n", "")),
        ("0003-fencing.md", GOOD.replace("Implemented", "Done")),
        ("0003-fencing.md", GOOD.replace("| Date | 2025-11-22", "| Date | yesterday")),
        ("0003-fencing.md", GOOD.replace("| Revision |", "| Version |")),
        (
            "0003-fencing.md",
            GOOD.replace("## Decision\n## Consequences", "## Consequences\n## Decision"),
        ),
        ("0003-fencing.md", GOOD.replace("## Consequences\n", "")),
    ],
)
def test_bad_record_is_named(name: str, text: str) -> None:
    assert len(what_is_wrong_with(name, text)) == 1


def test_tables_are_put_between_their_markers_only() -> None:
    text = "before\n<!-- reasons -->\nstale table\n<!-- /reasons -->\nafter\n"
    new = renewed(text, ["reasons"])

    assert new.startswith("before\n<!-- reasons -->\n\n| number | reason | meaning |\n")
    assert new.endswith("\n<!-- /reasons -->\nafter\n")
    assert "stale table" not in new
    assert renewed(new, ["reasons"]) == new
    assert [new.count(f"| {reason.number} | `{reason.name}` |") for reason in Reason] == [1] * len(
        Reason
    )


def test_table_of_retries_has_every_reason() -> None:
    new = renewed("<!-- retries --><!-- /retries -->", [])

    assert [new.count(f"`{why.name}`") for why in RetryReason] == [1] * len(RetryReason)


def test_table_of_roles_has_every_change_and_says_why() -> None:
    new = renewed("<!-- roles --><!-- /roles -->", [])

    for (role, occasion), after in TRANSITIONS.items():
        assert new.count(f"| `{role}` | `{occasion}` | `{after}` |") == 1
    assert "it appends `leader_changed`." in new


def test_table_of_access_has_every_account_and_what_only_it_may() -> None:
    new = renewed("<!-- access --><!-- /access -->", [])

    peer, observers, operators, guard, servers = new.splitlines()[4:9]
    assert "| `dex.orders.*.<peer>`, `dex.query.*.*.<peer>` | `_INBOX.>`, `dex.events.>` |" in peer
    assert peer.startswith("| `PEER-<peer>` | `peers/<peer>.nk` |")
    assert "16 connections, 1,000 subscriptions" in peer
    assert "| `OBSERVERS` | none | nothing | `dex.events.>` |" in observers
    assert "`dex.admin.*.*`" in operators
    assert "`$SYS.REQ.SERVER.*.KICK`" in guard
    assert "| `DEX` | `server.nk` | everything | everything |" in servers


def test_protocol_names_every_field_of_a_standing() -> None:
    text = (ROOT / "docs" / "PROTOCOL.md").read_text("utf-8")

    fields = (*ServerStanding.__struct_fields__, *MarketStanding.__struct_fields__)
    assert [field for field in fields if f"`{field}`" not in text] == []


@pytest.mark.parametrize(
    "text",
    ["", "<!-- reasons -->", "<!-- /reasons -->", "<!-- /reasons --><!-- reasons -->"],
)
def test_document_without_a_place_is_named(text: str) -> None:
    with pytest.raises(NoPlace):
        renewed(text, ["reasons"])


def test_numbers_of_reasons_are_used_once() -> None:
    numbers = [reason.number for reason in Reason]

    assert len(numbers) == len(set(numbers))
