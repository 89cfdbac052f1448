"""What is made of the answers about known vulnerabilities, and of none."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from deploy import audit
from deploy.audit import Answers, AuditFailed, NotAudited, Package, Vulnerability

KNOWN: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
UNKNOWN: dict[str, Any] = {"name": "b", "skip_reason": "not found"}
VULNERABLE: dict[str, Any] = {
    "name": "c",
    "version": "2",
    "vulns": [{"id": "X-1", "fix_versions": ["3"], "aliases": [], "description": "bad"}],
}


def answer(*packages: dict[str, Any]) -> bytes:
    return json.dumps({"dependencies": packages, "fixes": []}).encode()


def test_answer_is_read() -> None:
    answers = audit.read(1, answer(KNOWN, UNKNOWN, VULNERABLE), "Found 1 known vulnerability")

    assert answers.dependencies == [
        Package("a", "1"),
        Package("b", skip_reason="not found"),
        Package("c", "2", [Vulnerability("X-1", ["3"])]),
    ]


@pytest.mark.parametrize(
    ("exit_code", "printed", "complaint"),
    [
        (0, answer(UNKNOWN, UNKNOWN), "No known vulnerabilities found, 2 skipped"),
        (1, b"", "Traceback …\nrequests.exceptions.ConnectionError: Max retries exceeded"),
        (1, b"", "Traceback …\nrequests.exceptions.ReadTimeout: Read timed out."),
        (1, b"", "ERROR:pip_audit._cli:Could not connect to the vulnerability feed"),
        (1, b"", "Traceback …\npip_audit._service.interface.ServiceError"),
    ],
)
def test_who_cannot_be_asked_is_no_finding(exit_code: int, printed: bytes, complaint: str) -> None:
    with pytest.raises(NotAudited):
        audit.read(exit_code, printed, complaint)


@pytest.mark.parametrize("complaint", ["", "usage: …\nerror: unrecognized arguments: --typo"])
def test_what_does_not_work_is_a_failure(complaint: str) -> None:
    with pytest.raises(AuditFailed):
        audit.read(2, b"", complaint)


@pytest.mark.parametrize(
    ("packages", "exit_code", "said"),
    [
        ([KNOWN, KNOWN], 0, "Packages audited: 2; known vulnerabilities: 0."),
        ([KNOWN, UNKNOWN], 0, "does not know them: ['b']\nPackages audited: 1;"),
        (
            [KNOWN, VULNERABLE],
            1,
            "c 2: X-1, fixed in 3\nPackages audited: 2; known vulnerabilities: 1.",
        ),
        ([UNKNOWN], 0, "Not audited: the vulnerability service knows none of the packages."),
    ],
)
def test_exit_code_tells_of_findings_alone(
    packages: list[dict[str, Any]], exit_code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_requirements: str, _options: tuple[str, ...]) -> Answers:
        return audit.read(0, answer(*packages), "")

    monkeypatch.setattr(audit, "pinned", lambda: "")
    monkeypatch.setattr(audit, "ask", ask)
    result = CliRunner().invoke(audit.main, [])

    assert result.exit_code == exit_code
    assert said in result.stdout
