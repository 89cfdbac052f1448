"""The way in to an exchange of this machine: its keys, what they open, and the nodes told of both.

The accounts are written to a file that all nodes include; when it changes they read it again, and
whoever waits here waits until each node acts upon it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy import accounts, nodes
from deploy.certificates import certificates
from deploy.keys import PEERS, Keyring, write_private
from deploy.nodes import Access, NodeProcess
from dex_runtime.connection import Credentials
from dex_runtime.keys import AUTHORITY, Role, peer_file, role_file


class Doors:
    """Who is let in: the keys in a directory, and the nodes' file about them."""

    def __init__(self, directory: Path, accounts_file: Path, *, has_observer: bool, has_tls: bool):
        """Make the keys that are missing; the file is written by `write`."""
        self.keyring: Final = Keyring(directory, first_peers=PEERS)
        self._accounts_file = accounts_file
        self._has_observer = has_observer
        self._certificates = certificates(directory) if has_tls else None

    @property
    def access(self) -> Access:
        """What the nodes are told at their start."""
        return Access(
            accounts_file=self._accounts_file,
            operator_key=role_file(self.keyring.directory, "operator"),
            routes_password=self.keyring.routes_password,
            certificates=self._certificates,
        )

    def role(self, role: Role) -> Credentials:
        """Give a role's credentials."""
        return self._credentials(role_file(self.keyring.directory, role))

    def peer(self, name: str) -> Credentials:
        """Give a peer's credentials."""
        return self._credentials(peer_file(self.keyring.directory, name))

    def write(self) -> None:
        """Write the file anew; nodes that run have to be told."""
        keyring = self.keyring
        if self._certificates is None:
            # Clients would find it there, and trust nothing else.
            (keyring.directory / AUTHORITY).unlink(missing_ok=True)
        holders = keyring.holders(has_observer=self._has_observer)
        self._accounts_file.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._accounts_file, accounts.config_text(holders).encode())

    async def tell(self, running: Sequence[NodeProcess]) -> None:
        """Write the file anew, and wait until nodes that run act upon it.

        Raises:
            NodeNotReady: one of them does not.
        """
        self.write()
        await nodes.reload(running)

    def _credentials(self, key: Path) -> Credentials:
        made = self._certificates
        return Credentials(nkey=str(key), tls_ca=None if made is None else str(made.authority))
