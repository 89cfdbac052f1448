"""How a server stands in its markets, as it tells whoever looks after the exchange.

It is the `data` of the endpoint `query` in the answer to `$SRV.STATS.dex-server` (NATS ADR-32).
Knows nothing of how it is asked for.
"""

from typing import Final, Literal

from msgspec import Struct

SERVICE: Final = "dex-server"
"""The name under which every server registers with NATS' service discovery."""

ENDPOINT: Final = "query"
"""The endpoint whose data hold the standing."""

Role = Literal["follower", "candidate", "leader", "retiring", "stopped"]


class MarketStanding(Struct, kw_only=True):
    """How a server stands in one market."""

    market: str
    role: Role
    term: int
    """Of the newest commit it has; 0 when it has none."""
    sequence: int
    """The newest commit it knows to be stored, and has applied; 0 when it has none."""
    digest: str
    """The book's, after that commit; empty when it has none."""
    leader: str
    """The server that leads, as far as the log says; empty when nobody ever did."""
    lag: int
    """How many commits it knows to be in the log and has not applied."""
    is_current: bool
    """Whether it has read the log to its end, follows it, and could lead; of a leader, whether the
    log has answered it lately: without that it answers `retry`."""


class ServerStanding(Struct, kw_only=True):
    """How a server stands in all its markets."""

    server: str
    incarnation: str
    markets: list[MarketStanding]
    """In the order of their names."""
