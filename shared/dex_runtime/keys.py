"""Where keys are looked for when none is named: among those of an exchange on this machine.

Its directory has one file for each role and one for each peer, and the certificate of its own
authority when its nodes speak TLS. Knows nothing of what a key lets anybody do, and reads none.
"""

import os
from pathlib import Path
from typing import Final, Literal

from msgspec import structs

from dex_runtime.connection import Credentials

VARIABLE: Final = "DEX_KEYS"
"""The environment variable that names the directory."""

DIRECTORY: Final = Path(".dex", "keys")
"""Where it is otherwise, seen from where a program runs."""

AUTHORITY: Final = "ca.pem"

Role = Literal["server", "operator", "guard"]


def directory() -> Path:
    """Tell where keys are looked for; it need not exist."""
    return Path(os.environ.get(VARIABLE) or DIRECTORY)


def role_file(where: Path, role: Role) -> Path:
    """Tell where the key of a role is."""
    return where / f"{role}.nk"


def peer_file(where: Path, peer: str) -> Path:
    """Tell where the key of a peer is."""
    return where / "peers" / f"{peer}.nk"


def completed(given: Credentials, file: Path) -> Credentials:
    """Fill in what was not named: a key, if there is one in this file, and the authority.

    Args:
        given: What was named; a key, a user or an authority that was named stays. Somebody whose
            key is from elsewhere knows another exchange, and is told of no authority.
        file: Where a key would be.
    """
    is_named = given.nkey is not None or given.creds is not None or given.user is not None
    if is_named and not _is_ours(given):
        return given
    found: dict[str, str] = {}
    if not is_named and file.is_file():
        found["nkey"] = str(file)
    authority = directory() / AUTHORITY
    if given.tls_ca is None and authority.is_file():
        found["tls_ca"] = str(authority)
    return structs.replace(given, **found)


def _is_ours(given: Credentials) -> bool:
    named = given.nkey or given.creds
    return named is not None and Path(named).resolve().is_relative_to(directory().resolve())


def of_role(role: Role, given: Credentials = Credentials()) -> Credentials:  # noqa: B008 (frozen)
    """Complete the credentials of a role."""
    return completed(given, role_file(directory(), role))


def of_peer(peer: str, given: Credentials = Credentials()) -> Credentials:  # noqa: B008 (frozen)
    """Complete the credentials of a peer."""
    return completed(given, peer_file(directory(), peer))
