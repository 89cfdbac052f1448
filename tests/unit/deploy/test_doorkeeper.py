"""The accounts of nodes that somebody else starts: written from keys, by commands."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy import keys
from deploy.keys import Keyring
from deploy.local import main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["accounts", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def written() -> str:
    return Path("accounts.conf").read_text("utf-8")


def test_first_file_lets_all_roles_in_and_no_peer_and_nobody_without_a_key() -> None:
    assert told("write") == "accounts.conf is written; the keys are in keys.\n"

    keyring = Keyring(Path("keys"))
    assert all(keyring.role(role) in written() for role in keys.ROLES)
    assert "PEER-" not in written()
    assert "no_auth_user" not in written()
    assert list(Path("keys", "peers").iterdir()) == []
    assert stat.S_IMODE(Path("accounts.conf").stat().st_mode) == 0o600


def test_file_has_no_private_key() -> None:
    told("add", "alice")
    seeds = [file.read_text("ascii").strip() for file in Path("keys").rglob("*.nk")]

    assert len(seeds) == len(keys.ROLES) + 1
    assert [seed for seed in seeds if seed in written()] == []


def test_peer_comes_gets_another_key_and_goes() -> None:
    assert told("add", "alice") == "alice is in accounts.conf, its key is keys/peers/alice.nk.\n"
    first = Keyring(Path("keys")).peers()["alice"]
    assert '"PEER-alice"' in written()
    assert first in written()

    told("rotate", "alice")
    assert first not in written()
    assert Keyring(Path("keys")).peers()["alice"] in written()

    told("remove", "alice")
    assert "alice" not in written()


def test_peer_may_keep_its_private_key() -> None:
    public = keys.public_key(keys.new_seed())

    said = told("add", "alice", "--public-key", public)

    assert said == "alice is in accounts.conf, with a key of its own.\n"
    assert public in written()


def test_observers_stay_in_or_out_until_it_is_said() -> None:
    told("write", "--observer")
    told("add", "alice")
    assert "no_auth_user" in written()

    told("write", "--no-observer")
    told("remove", "alice")
    assert "no_auth_user" not in written()


def test_role_whose_key_was_removed_gets_another_one() -> None:
    told("write")
    before = Keyring(Path("keys")).role("server")
    Path("keys", "server.nk").unlink()

    told("write")

    assert before not in written()
    assert Keyring(Path("keys")).role("server") in written()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["add", "a.b"], "expected 1 to 32 letters"),
        (["rotate", "bob"], "there is no peer bob; there are: none"),
        (["remove", "bob"], "there is no peer bob; there are: none"),
        (["add", "bob", "--public-key", "UX"], "expected a user's public nkey"),
    ],
)
def test_impossible_change_is_refused_and_writes_nothing(
    arguments: list[str], complaint: str
) -> None:
    result = CliRunner().invoke(main, ["accounts", *arguments])

    assert result.exit_code == 1
    assert complaint in result.stderr
    assert not Path("accounts.conf").exists()
