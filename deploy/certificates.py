"""An authority of one's own for the nodes of this machine, made by the library `trustme`.

For trying TLS out, and for tests: who runs an exchange for others has an authority already.
"""

from pathlib import Path
from typing import Final

import trustme

from deploy.keys import write_private
from deploy.nodes import HOST, Certificates
from dex_runtime.keys import AUTHORITY

_CERTIFICATE: Final = "node.pem"
_KEY: Final = "node.key"


def certificates(directory: Path) -> Certificates:
    """Give the files of a directory, which are made when there are none yet.

    The authority's own key is forgotten at once: nobody can make another certificate of it.
    """
    made = Certificates(
        authority=directory / AUTHORITY,
        certificate=directory / _CERTIFICATE,
        key=directory / _KEY,
    )
    files = (made.authority, made.certificate, made.key)
    if not all(file.exists() for file in files):
        authority = trustme.CA()
        # Nodes are servers to clients, and both to each other.
        issued = authority.issue_cert(HOST, "localhost")
        write_private(made.key, issued.private_key_pem.bytes())
        write_private(made.certificate, b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        write_private(made.authority, authority.cert_pem.bytes())
    return made
