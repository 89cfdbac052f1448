"""The command line of dex-local, as far as it starts nothing."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.local import main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["up", "--nodes", "2"], "'2' is not one of"),
        (["up", "--market", "BTC/USD"], "expected market as 1 to 24 letters"),
        (["up", "--port", "65535"], "expected ports from 1 to 65535"),
        (["demo", "--market", "BTC/USD"], "expected market as 1 to 24 letters"),
    ],
)
def test_impossible_option_is_refused_before_anything_starts(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, arguments)

    assert result.exit_code != 0
    assert complaint in result.stderr


def test_where_nothing_was_started_status_says_so_and_down_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    status = CliRunner().invoke(main, ["status"])
    down = CliRunner().invoke(main, ["down"])

    assert status.exit_code == 1
    assert "Nothing was started here." in status.stdout
    assert down.exit_code == 0
    assert "Nothing was running." in down.stdout
    assert list(tmp_path.iterdir()) == []
