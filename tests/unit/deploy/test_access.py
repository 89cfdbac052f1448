"""Who is let in: what is written of it, and what each is given."""

import stat
from pathlib import Path

from deploy import keys
from deploy.access import Doors
from deploy.certificates import certificates
from dex_runtime.connection import Credentials
from dex_runtime.keys import AUTHORITY


def doors(directory: Path, *, has_observer: bool = False, has_tls: bool = False) -> Doors:
    file = directory / "nodes" / "accounts.conf"
    return Doors(directory / "keys", file, has_observer=has_observer, has_tls=has_tls)


def written(directory: Path) -> str:
    return (directory / "nodes" / "accounts.conf").read_text("utf-8")


def test_file_has_the_public_keys_of_all_and_no_private_one(tmp_path: Path) -> None:
    made = doors(tmp_path)
    made.keyring.add("alice")
    made.write()

    public = [made.keyring.role(role) for role in keys.ROLES]
    public += made.keyring.peers().values()
    assert all(key in written(tmp_path) for key in public)
    for file in (tmp_path / "keys").rglob("*.nk"):
        assert file.read_text("ascii") not in written(tmp_path)
    assert made.keyring.routes_password not in written(tmp_path)
    file = tmp_path / "nodes" / "accounts.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.access.accounts_file == file


def test_somebody_without_a_key_is_let_in_only_where_that_is_wanted(tmp_path: Path) -> None:
    closed, ajar = doors(tmp_path / "closed"), doors(tmp_path / "ajar", has_observer=True)
    for made in (closed, ajar):
        made.write()

    assert closed.keyring.observer not in written(tmp_path / "closed")
    assert "no_auth_user" not in written(tmp_path / "closed")
    assert f'no_auth_user: "{ajar.keyring.observer}"' in written(tmp_path / "ajar")


def test_peer_that_is_removed_is_not_in_the_next_file(tmp_path: Path) -> None:
    made = doors(tmp_path)
    made.keyring.add("alice")
    made.write()
    key = made.keyring.peers()["alice"]
    assert key in written(tmp_path)

    made.keyring.remove("alice")
    made.write()

    assert key not in written(tmp_path)
    assert "PEER-alice" not in written(tmp_path)


def test_credentials_are_the_files_of_role_and_peer(tmp_path: Path) -> None:
    made = doors(tmp_path)
    directory = tmp_path / "keys"

    assert made.role("operator") == Credentials(nkey=str(directory / "operator.nk"))
    assert made.peer("alice") == Credentials(nkey=str(directory / "peers" / "alice.nk"))
    assert made.access.operator_key == directory / "operator.nk"
    assert made.access.certificates is None


def test_with_tls_everybody_is_told_whom_to_believe(tmp_path: Path) -> None:
    made = doors(tmp_path, has_tls=True)
    made.write()
    authority = str(tmp_path / "keys" / AUTHORITY)

    assert made.access.certificates == certificates(tmp_path / "keys")
    assert {made.role("server").tls_ca, made.peer("alice").tls_ca} == {authority}


def test_authority_goes_when_tls_does_since_clients_would_go_on_to_ask_for_it(
    tmp_path: Path,
) -> None:
    doors(tmp_path, has_tls=True).write()
    doors(tmp_path).write()

    assert not (tmp_path / "keys" / AUTHORITY).exists()


def test_keys_are_the_same_when_the_doors_are_made_again(tmp_path: Path) -> None:
    doors(tmp_path).write()
    before = written(tmp_path)
    doors(tmp_path).write()

    assert written(tmp_path) == before
