"""Keys are found where an exchange of this machine keeps them, and what is named goes before."""

from pathlib import Path

import pytest
from msgspec import structs

from dex_runtime import keys
from dex_runtime.connection import Credentials

NAMED = [
    Credentials(nkey="/elsewhere/server.nk"),
    Credentials(creds="/elsewhere/alice.creds"),
    Credentials(user="alice", password="p"),
]


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a directory with the keys of a server and of alice."""
    directory = tmp_path / "keys"
    (directory / "peers").mkdir(parents=True)
    (directory / "server.nk").touch()
    (directory / "peers" / "alice.nk").touch()
    monkeypatch.setenv(keys.VARIABLE, str(directory))
    return directory


def test_directory_is_named_by_the_environment(where: Path) -> None:
    assert keys.directory() == where


@pytest.mark.parametrize("value", [None, ""])
def test_directory_is_that_of_the_local_exchange_otherwise(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv(keys.VARIABLE)
    else:
        monkeypatch.setenv(keys.VARIABLE, value)

    assert keys.directory() == Path(".dex", "keys")


def test_role_and_peer_have_a_file_each(where: Path) -> None:
    assert keys.of_role("server") == Credentials(nkey=str(where / "server.nk"))
    assert keys.of_peer("alice") == Credentials(nkey=str(where / "peers" / "alice.nk"))


def test_who_has_no_file_has_no_key(where: Path) -> None:
    (where / "peers" / "bob.nk").mkdir()

    assert keys.of_role("operator") == Credentials()
    assert keys.of_peer("bob") == Credentials()
    # The names of roles are not those of peers.
    assert keys.of_peer("server") == Credentials()


@pytest.mark.parametrize("given", NAMED)
def test_what_is_named_stays_alone_whatever_is_found(where: Path, given: Credentials) -> None:
    """Whose key is from elsewhere knows another exchange: its nodes are not those of this one."""
    (where / keys.AUTHORITY).touch()

    assert keys.of_role("server", given) == given
    assert keys.of_peer("alice", given) == given


def test_authority_is_found_beside_the_keys(where: Path) -> None:
    authority = where / keys.AUTHORITY
    authority.touch()
    found = str(authority)

    assert keys.of_peer("alice").tls_ca == found
    # Somebody without a key may be let in, too.
    assert keys.of_peer("nobody") == Credentials(tls_ca=found)


def test_authority_is_found_for_a_key_of_the_directory_that_is_named(
    where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (where / keys.AUTHORITY).touch()
    monkeypatch.chdir(where.parent)
    given = Credentials(nkey="keys/peers/alice.nk")

    assert keys.of_role("operator", given) == structs.replace(
        given, tls_ca=str(where / keys.AUTHORITY)
    )


def test_authority_that_is_named_stays(where: Path) -> None:
    (where / keys.AUTHORITY).touch()

    assert keys.of_peer("alice", Credentials(tls_ca="other.pem")) == Credentials(
        nkey=str(where / "peers" / "alice.nk"), tls_ca="other.pem"
    )


def test_directory_that_is_not_there_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(keys.VARIABLE, str(tmp_path / "nowhere"))

    assert keys.of_role("server") == Credentials()
