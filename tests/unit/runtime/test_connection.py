"""Who one says to be, and files that cannot say it: told before any node is asked."""

from pathlib import Path

import pytest

from deploy.keys import new_seed, public_key
from dex_runtime import connection
from dex_runtime.connection import CannotConnect, ConnectionOptions, Credentials

NOWHERE = "nats://127.0.0.1:1"


@pytest.mark.parametrize(
    ("credentials", "shown"),
    [
        (Credentials(), "somebody without a key"),
        (Credentials(tls_ca="ca.pem", tls_cert="own.pem"), "somebody without a key"),
        (Credentials(user="alice", password="secret"), "the user 'alice'"),
        (Credentials(creds="alice.creds"), "the key in alice.creds"),
        (Credentials(nkey="alice.nk"), "the key in alice.nk"),
        (Credentials(nkey="alice.nk", user="alice"), "the key in alice.nk"),
    ],
)
def test_who_one_says_to_be_is_shown_without_its_secret(
    credentials: Credentials, shown: str
) -> None:
    assert credentials.shown == shown


async def why_not(credentials: Credentials) -> str:
    """Try to connect, which ends before it begins; tell why."""
    options = ConnectionOptions(servers=(NOWHERE,), name="test", credentials=credentials)
    with pytest.raises(CannotConnect) as raised:
        await connection.connect(options)
    assert raised.value.is_refusal
    assert raised.value.servers == (NOWHERE,)
    return raised.value.cause


async def test_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    cause = await why_not(Credentials(nkey=str(tmp_path / "alice.nk")))

    assert cause.startswith("the key cannot be read: ")
    assert "alice.nk" in cause


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"alice",
        b"SU",
        b"SUAAAA\xff",
        public_key(new_seed()).encode(),
        new_seed()[:-1],
        new_seed().lower(),
        b"-----BEGIN PRIVATE KEY-----\n",
        bytes(range(64)),
    ],
    ids=["empty", "blank", "word", "cut", "no text", "public", "short", "small", "pem", "bytes"],
)
async def test_file_that_has_no_key_is_named_without_what_it_has(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "alice.nk"
    file.write_bytes(content)

    cause = await why_not(Credentials(nkey=str(file)))

    assert cause == f"expected the seed of an nkey in {file} (SU…), found something else"


async def test_creds_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    cause = await why_not(Credentials(creds=str(tmp_path / "alice.creds")))

    assert cause.startswith("the key cannot be read: ")
    assert "alice.creds" in cause


@pytest.mark.parametrize(
    "content",
    [
        "",
        new_seed().decode(),
        "-----BEGIN NATS USER JWT-----",
        "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n",
        "-----BEGIN NATS USER JWT-----\neyJ0\n-----BEGIN USER NKEY SEED-----\nSU\n",
    ],
    ids=["empty", "seed", "cut", "no seed", "wrong seed"],
)
async def test_creds_file_without_what_it_should_have_is_named(
    tmp_path: Path, content: str
) -> None:
    """nats-py 2.16.0 would read one without a JWT for ever."""
    file = tmp_path / "alice.creds"
    file.write_text(content)

    cause = await why_not(Credentials(creds=str(file)))

    assert cause == f"expected a user JWT and its seed in {file}, found something else"


async def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    missing, wrong = tmp_path / "missing.pem", tmp_path / "wrong.pem"
    wrong.write_text("no certificate")

    for credentials in (
        Credentials(tls_ca=str(missing)),
        Credentials(tls_ca=str(wrong)),
        Credentials(tls_cert=str(wrong), tls_key=str(missing)),
    ):
        cause = await why_not(credentials)
        files = (credentials.tls_ca, credentials.tls_cert, credentials.tls_key)
        named = ", ".join(file for file in files if file is not None)
        assert cause.startswith(f"{named} cannot be used: ")
