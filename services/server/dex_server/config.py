"""What a server's operator chooses, in one place."""

from msgspec import Struct

from dex_runtime.connection import Credentials
from dex_server.replication.replica import Settings


class Config(Struct, frozen=True):
    """A server's configuration."""

    name: str
    """The server's name, 1 to 32 letters, digits, `-` and `_`; unique among the servers."""
    nats: tuple[str, ...]
    """Addresses of NATS nodes, tried in any order; one is enough, more survive its loss."""
    credentials: Credentials
    """Those of servers, which may do everything in the exchange's account."""
    replicas: int
    """Copies that a newly made log or bucket gets: 1 (no copy), 3 (one node may be lost) or 5."""
    settings: Settings
    """What the replicas of the markets are told."""
