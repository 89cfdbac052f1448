"""Keys in files: made once, for nobody else to read, renewed and removed by name."""

import stat
from pathlib import Path

import pytest

from deploy import keys
from deploy.keys import KeyConflict, Keyring


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys", first_peers=keys.PEERS)


def test_first_keys_are_those_of_all_roles_and_of_the_first_peers(keyring: Keyring) -> None:
    found = sorted(
        str(file.relative_to(keyring.directory)) for file in keyring.directory.rglob("*")
    )

    assert found == sorted(
        [
            *("server.nk", "operator.nk", "guard.nk"),
            *("observer.public", "routes.password", "peers.json", "peers"),
            *(f"peers/{peer}.nk" for peer in ("default", *(f"load-{n}" for n in range(1, 9)))),
        ]
    )
    assert list(keyring.peers()) == list(keys.PEERS)


def test_nobody_else_may_read_a_key(keyring: Keyring) -> None:
    keyring.add("alice")

    for path in (keyring.directory, *keyring.directory.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_all_keys_differ_and_are_those_of_users(keyring: Keyring) -> None:
    public = [keyring.role(role) for role in keys.ROLES]
    public += [keyring.observer, *keyring.peers().values()]

    assert all(keys.is_public_key(each) for each in public)
    assert len(set(public)) == len(public)


def test_keys_stay_when_the_directory_is_opened_again(keyring: Keyring) -> None:
    keyring.add("alice")
    again = Keyring(keyring.directory)

    assert again.peers() == keyring.peers()
    assert [again.role(role) for role in keys.ROLES] == [keyring.role(role) for role in keys.ROLES]
    assert (again.observer, again.routes_password) == (keyring.observer, keyring.routes_password)


def test_peer_that_is_removed_does_not_come_back(keyring: Keyring) -> None:
    keyring.remove("load-8")
    again = Keyring(keyring.directory, first_peers=keys.PEERS)

    assert "load-8" not in again.peers()
    assert not (again.directory / "peers" / "load-8.nk").exists()


def test_rotated_peer_has_another_key_in_the_same_place(keyring: Keyring) -> None:
    keyring.add("alice")
    before = keyring.peers()["alice"]
    keyring.rotate("alice")
    after = keyring.peers()["alice"]

    seed = (keyring.directory / "peers" / "alice.nk").read_bytes()
    assert before != after == keys.public_key(seed)
    assert list(keyring.peers())[-1] == "alice"


def test_peer_may_keep_its_private_key_to_itself(keyring: Keyring) -> None:
    keyring.add("alice")
    public = keys.public_key(keys.new_seed())
    keyring.rotate("alice", public)
    keyring.add("bob", keys.public_key(keys.new_seed()))

    assert keyring.peers()["alice"] == public
    assert not (keyring.directory / "peers" / "alice.nk").exists()
    assert not (keyring.directory / "peers" / "bob.nk").exists()


@pytest.mark.parametrize(
    ("name", "public", "said"),
    [
        ("", None, "expected 1 to 32 letters, digits, - and _, found ''"),
        ("a.b", None, "found 'a.b'"),
        ("../alice", None, "found '../alice'"),
        ("*", None, "found '*'"),
        ("x" * 33, None, "found 'xxx"),
        ("default", None, "there is a peer default already"),
        ("operator", None, "expected a peer's name, found that of a role: operator"),
        ("alice", "", "expected a user's public nkey"),
        ("alice", "U" * 56, "expected a user's public nkey"),
        # Another one in each process, where the test is to have one name.
        pytest.param("alice", keys.new_seed().decode(), "expected a user's public nkey", id="seed"),
    ],
)
def test_what_is_no_name_or_no_key_changes_nothing(
    keyring: Keyring, name: str, public: str | None, said: str
) -> None:
    before = keyring.peers()

    with pytest.raises(KeyConflict) as refused:
        keyring.add(name, public)

    assert said in str(refused.value)
    assert keyring.peers() == before


def test_peer_that_is_not_there_cannot_be_rotated_or_removed(keyring: Keyring) -> None:
    for change in (keyring.rotate, keyring.remove):
        with pytest.raises(KeyConflict, match="there is no peer alice; there are: default, load-1"):
            change("alice")


def test_public_key_with_one_letter_changed_is_none() -> None:
    public = keys.public_key(keys.new_seed())
    changed = public[:20] + ("A" if public[20] != "A" else "B") + public[21:]

    assert keys.is_public_key(public)
    assert not keys.is_public_key(changed)
