"""The keys of an exchange on this machine: an nkey for each role and each peer, in files.

A private key is in a file with mode 600, and nowhere else: whoever should have it is given the
file, and the exchange itself needs public keys only. Knows nothing of what a key lets anybody do.
"""

import base64
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import nkeys

from deploy.accounts import Holders
from dex_protocol.ids import is_peer
from dex_runtime.keys import Role, peer_file, role_file

ROLES: Final[tuple[Role, ...]] = ("server", "operator", "guard")

LOAD_PEERS: Final = tuple(f"load-{number}" for number in range(1, 9))
"""The first peers of the load generator."""

PEERS: Final = ("default", *LOAD_PEERS)
"""Who is let in from the first start on this machine: the peer of the command line, and those."""

_PEERS: Final = "peers.json"
_ROUTES: Final = "routes.password"
_OBSERVER: Final = "observer.public"


class KeyConflict(Exception):
    """A key cannot be made, changed or removed as asked; the text says what was expected."""


class Keyring:
    """The directory of keys; made, with those of all roles, when it is first needed."""

    def __init__(self, directory: Path, *, first_peers: Sequence[str] = ()) -> None:
        """Make what is missing.

        Args:
            directory: Where keys are, for nobody else to read.
            first_peers: Who is let in when nobody was ever added or removed.
        """
        self.directory: Final = directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        (directory / "peers").mkdir(exist_ok=True, mode=0o700)
        for role in ROLES:
            file = role_file(directory, role)
            if not file.exists():
                write_private(file, new_seed())
        if not self._routes_file.exists():
            write_private(self._routes_file, secrets.token_hex(16).encode())
        if not self._observer_file.exists():
            # Nobody has this key: whoever brings none is taken for its holder.
            write_private(self._observer_file, public_key(new_seed()).encode())
        if not self._peers_file.exists():
            self._keep({})
            for peer in first_peers:
                self.add(peer)

    def role(self, role: Role) -> str:
        """Give a role's public key."""
        return public_key(role_file(self.directory, role).read_bytes())

    @property
    def observer(self) -> str:
        """The public key that stands for whoever brings none."""
        return self._observer_file.read_text("ascii")

    @property
    def routes_password(self) -> str:
        """What the nodes of a cluster know each other by."""
        return self._routes_file.read_text("ascii")

    def holders(self, *, has_observer: bool) -> Holders:
        """Give whose public keys open what."""
        return Holders(
            server=self.role("server"),
            operator=self.role("operator"),
            guard=self.role("guard"),
            observer=self.observer if has_observer else None,
            peers=self.peers(),
        )

    def peers(self) -> dict[str, str]:
        """Give the public keys of all peers, by name, in the order they were added."""
        return msgspec.json.decode(self._peers_file.read_bytes(), type=dict[str, str])

    def add(self, peer: str, public: str | None = None) -> None:
        """Let one more peer in.

        Args:
            peer: Its name.
            public: Its public key, when it keeps the private one itself; None makes both.

        Raises:
            KeyConflict: not a name, not a public key, or there already.
        """
        if not is_peer(peer):
            raise KeyConflict(f"expected 1 to 32 letters, digits, - and _, found {peer!r}")
        peers = self.peers()
        if peer in peers:
            raise KeyConflict(f"there is a peer {peer} already; `rotate` gives it another key")
        if peer in ROLES:
            raise KeyConflict(f"expected a peer's name, found that of a role: {peer}")
        self._keep(peers | {peer: self._key_of(peer, public)})

    def rotate(self, peer: str, public: str | None = None) -> None:
        """Give a peer another key; the old one is worth nothing from then on.

        Raises:
            KeyConflict: there is no such peer, or public is not a public key.
        """
        peers = self.peers()
        _refuse_unknown(peer, peers)
        self._keep(peers | {peer: self._key_of(peer, public)})

    def remove(self, peer: str) -> None:
        """Let a peer in no more, and remove its key.

        Raises:
            KeyConflict: there is no such peer.
        """
        peers = self.peers()
        _refuse_unknown(peer, peers)
        del peers[peer]
        self._keep(peers)
        peer_file(self.directory, peer).unlink(missing_ok=True)

    def _key_of(self, peer: str, public: str | None) -> str:
        file = peer_file(self.directory, peer)
        if public is not None:
            if not is_public_key(public):
                # NB: not in full, since it may be a private one.
                raise KeyConflict(
                    f"expected a user's public nkey, 56 characters from U on, found {public[:2]!r}…"
                )
            if public in self._all_public():
                # No node takes accounts in which one key opens two.
                raise KeyConflict(f"expected a key of its own, found somebody's: {public}")
            file.unlink(missing_ok=True)
            return public
        seed = new_seed()
        write_private(file, seed)
        return public_key(seed)

    def _all_public(self) -> set[str]:
        roles = {self.role(role) for role in ROLES}
        return {self.observer, *roles, *self.peers().values()}

    def _keep(self, peers: dict[str, str]) -> None:
        write_private(self._peers_file, msgspec.json.format(msgspec.json.encode(peers)))

    @property
    def _peers_file(self) -> Path:
        return self.directory / _PEERS

    @property
    def _routes_file(self) -> Path:
        return self.directory / _ROUTES

    @property
    def _observer_file(self) -> Path:
        return self.directory / _OBSERVER


def _refuse_unknown(peer: str, peers: dict[str, str]) -> None:
    if peer not in peers:
        raise KeyConflict(f"there is no peer {peer}; there are: {', '.join(peers) or 'none'}")


def new_seed() -> bytes:
    """Make a user's nkey; its seed is the private key."""
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    return seed


def public_key(seed: bytes) -> str:
    """Give the public key of a seed."""
    public: bytes = nkeys.from_seed(bytearray(seed.strip())).public_key
    return public.decode()


def is_public_key(text: str) -> bool:
    """Tell whether this is a user's public nkey: 56 characters, the last ones a checksum."""
    try:
        raw = base64.b32decode(text)
    except ValueError:
        return False
    known, checksum = raw[:-2], raw[-2:]
    is_user = len(known) == 33 and known[0] == nkeys.PREFIX_BYTE_USER
    return is_user and bytes(nkeys.crc16_checksum(known)) == checksum


def write_private(file: Path, content: bytes) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    new.replace(file)
