"""An authority of one's own: made once, believed by who has its certificate, and nobody else's."""

import ssl
import stat
from pathlib import Path

import pytest

from deploy.certificates import certificates
from deploy.nodes import HOST, Certificates


def files(made: Certificates) -> list[Path]:
    return [made.authority, made.certificate, made.key]


def handshake(server: Certificates, authority: Path, host: str) -> None:
    """Have a client meet a server in memory, who believes an authority.

    Raises:
        SSLCertVerificationError: the client does not believe the server.
    """
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(server.certificate, server.key)
    calling = ssl.create_default_context(cafile=str(authority))
    ends = [
        calling.wrap_bio(to_client, to_server, server_hostname=host),
        listening.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_node_is_believed_under_its_names(tmp_path: Path, host: str) -> None:
    made = certificates(tmp_path)

    handshake(made, made.authority, host)


def test_node_is_believed_neither_under_another_name_nor_by_another_authority(
    tmp_path: Path,
) -> None:
    made = certificates(tmp_path)
    (tmp_path / "other").mkdir()
    other = certificates(tmp_path / "other")

    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(made, made.authority, "dex.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, other.authority, HOST)


def test_files_stay_as_they_are_and_are_for_nobody_else(tmp_path: Path) -> None:
    before = [file.read_bytes() for file in files(certificates(tmp_path))]
    again = certificates(tmp_path)

    assert [file.read_bytes() for file in files(again)] == before
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(again)} == {0o600}


def test_all_are_made_anew_when_one_is_missing(tmp_path: Path) -> None:
    """The authority's own key is forgotten, so that there is no other way."""
    made = certificates(tmp_path)
    before = [file.read_bytes() for file in files(made)]
    made.authority.unlink()

    again = certificates(tmp_path)

    assert not {*before} & {file.read_bytes() for file in files(again)}
    handshake(again, again.authority, HOST)
    assert sorted(tmp_path.iterdir()) == sorted(files(again))
