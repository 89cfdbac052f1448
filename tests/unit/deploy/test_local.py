"""The command line of dex-local, as far as it starts nothing."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy import state
from deploy.local import main
from deploy.processes import Process
from deploy.state import Settings, State


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["up", "--nodes", "2"], "'2' is not one of"),
        (["up", "--market", "BTC/USD"], "expected market as 1 to 24 letters"),
        (["up", "--port", "65535"], "expected ports from 1 to 65535"),
        (["up", "--servers", "-1"], "-1 is not in the range x>=0"),
        (["demo", "--market", "BTC/USD"], "expected market as 1 to 24 letters"),
        (["demo", "--servers", "0"], "0 is not in the range x>=1"),
        (["add-server", "nats-4"], "that do not begin with nats-, found 'nats-4'"),
        (["add-server", "a.b"], "expected 1 to 32 letters, digits, - and _"),
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


@pytest.mark.parametrize(
    "arguments", [["add-server"], ["stop-server", "server-1"], ["kill-server", "server-1"]]
)
def test_where_nothing_was_started_there_are_no_servers_to_change(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = CliRunner().invoke(main, arguments)
    assert list(tmp_path.iterdir()) == []

    (tmp_path / state.DIRECTORY).mkdir()
    cleaned = CliRunner().invoke(main, arguments)

    for result in (nowhere, cleaned):
        assert result.exit_code == 1
        assert "nothing was started here: start the exchange with `just up`" in result.stderr


def test_server_does_not_join_when_no_node_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = ended(tmp_path)

    result = CliRunner().invoke(main, ["add-server"])

    assert result.exit_code == 1
    assert "not running: nats-1, nats-2, nats-3; start the exchange with" in result.stderr
    assert state.load(tmp_path / state.DIRECTORY) == before


def test_server_that_has_ended_cannot_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended(tmp_path)

    result = CliRunner().invoke(main, ["kill-server", "server-2"])

    assert result.exit_code == 1
    assert "server-2 is not running" in result.stderr


@pytest.mark.parametrize("name", ["server-9", "nats-1"])
@pytest.mark.parametrize("command", ["kill-server", "stop-server"])
def test_server_that_there_is_not_is_named_with_those_that_run(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = ended(tmp_path)

    result = CliRunner().invoke(main, [command, name])

    assert result.exit_code == 1
    assert f"there is no server {name}; running: none" in result.stderr
    assert state.load(tmp_path / state.DIRECTORY) == before


def test_server_that_has_left_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended(tmp_path)

    result = CliRunner().invoke(main, ["stop-server", "server-1"])

    assert result.exit_code == 0
    assert "server-1 has left" in result.stdout
    after = state.load(tmp_path / state.DIRECTORY)
    assert after is not None
    assert after.settings.servers == ("server-2",)
    assert list(after.processes) == ["nats-1", "server-2"]


def ended(directory: Path) -> State:
    """Remember an exchange whose processes have all ended."""
    gone = Process(pid=1, started="0@another-boot")
    remembered = State(
        settings=Settings(),
        processes={"nats-1": gone, "server-1": gone, "server-2": gone},
    )
    (directory / state.DIRECTORY).mkdir()
    state.save(directory / state.DIRECTORY, remembered)
    return remembered
