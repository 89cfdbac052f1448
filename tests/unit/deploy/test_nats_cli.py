"""Finding the nats command line tool, and saying what is missing."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy import nats_cli


def an_executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_tool_built_here_is_preferred_to_one_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert nats_cli.find(tmp_path) is None

    on_path = an_executable(tmp_path / "path" / "nats")
    assert nats_cli.find(tmp_path) == on_path

    built = an_executable(tmp_path / "bin" / "nats")
    assert nats_cli.find(tmp_path) == built


def test_machine_without_go_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(nats_cli.main, [])

    assert result.exit_code == 1
    assert "there is no `go` on PATH" in result.stderr
