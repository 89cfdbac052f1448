"""Who is let in by nodes that somebody else starts: keys in a directory, and a file to bring them.

The file has public keys only; it is copied beside each node's configuration, and the nodes are told
to read it again. Knows nothing of where they are.
"""

from pathlib import Path
from typing import Final

from deploy import accounts
from deploy.accounts import Holders
from deploy.keys import Keyring, write_private


class Doorkeeper:
    """The keys in a directory, and the accounts that are written from them."""

    def __init__(self, directory: Path, accounts_file: Path) -> None:
        """Make the keys that are missing; of peers there are none at first."""
        is_new = not directory.exists()
        self.keyring: Final = Keyring(directory)
        if is_new:
            # Those of an exchange on this machine, whom nobody asked for here.
            for peer in self.keyring.peers():
                self.keyring.remove(peer)
        self._file = accounts_file

    def write(self, *, has_observer: bool | None = None) -> None:
        """Write the accounts anew.

        Args:
            has_observer: Whether who brings no key may hear the events; None leaves it as it was.
        """
        if has_observer is None:
            has_observer = self.has_observer
        keyring = self.keyring
        holders = Holders(
            server=keyring.role("server"),
            operator=keyring.role("operator"),
            guard=keyring.role("guard"),
            observer=keyring.observer if has_observer else None,
            peers=keyring.peers(),
        )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._file, accounts.config_text(holders).encode())

    @property
    def has_observer(self) -> bool:
        """Whether the file lets somebody without a key in; not when there is none yet."""
        if not self._file.exists():
            return False
        lines = self._file.read_text("utf-8").splitlines()
        return any(line.startswith("no_auth_user:") for line in lines)
