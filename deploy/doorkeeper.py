"""Who is let in by nodes that somebody else starts: keys in a directory, and a file to bring them.

The file has public keys only; it is copied beside each node's configuration, and the nodes are told
to read it again. Knows nothing of where they are.
"""

from pathlib import Path
from typing import Final

from deploy import accounts
from deploy.keys import Keyring, write_private


class Doorkeeper:
    """The keys in a directory, and the accounts that are written from them."""

    def __init__(self, directory: Path, accounts_file: Path) -> None:
        """Make the keys that are missing; of peers there are none at first."""
        self.keyring: Final = Keyring(directory)
        self._file = accounts_file

    def write(self, *, has_observer: bool | None = None) -> None:
        """Write the accounts anew.

        Args:
            has_observer: Whether who brings no key may hear the events; None leaves it as it was.
        """
        if has_observer is None:
            has_observer = self.has_observer
        holders = self.keyring.holders(has_observer=has_observer)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._file, accounts.config_text(holders).encode())

    @property
    def has_observer(self) -> bool:
        """Whether the file lets somebody without a key in; not when there is none yet."""
        if not self._file.exists():
            return False
        lines = self._file.read_text("utf-8").splitlines()
        return any(line.startswith("no_auth_user:") for line in lines)
