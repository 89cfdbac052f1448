"""Every NATS subject, stream and bucket name of the exchange.

Knows nothing of who may use them (the accounts do) nor of how they are configured (the topology
does).
"""

from typing import Final

MARKETS_BUCKET: Final = "DEX-MARKETS"
LEADERS_BUCKET: Final = "DEX-LEADERS"
SERVERS_BUCKET: Final = "DEX-SERVERS"
SNAPSHOTS_STORE: Final = "DEX-SNAPSHOTS"
LEADER_GROUP: Final = "leader"
"""The queue group in which leaders serve orders, so that each request reaches one server."""
REPLICA_GROUP: Final = "replica"
"""The queue group in which servers answer queries."""


def orders(market: str, peer: str) -> str:
    """Name the subject of a peer's commands to a market."""
    return f"dex.orders.{market}.{peer}"


def query(market: str, what: str, peer: str) -> str:
    """Name the subject of a peer's question about a market."""
    return f"dex.query.{market}.{what}.{peer}"


def admin(market: str, what: str) -> str:
    """Name the subject of an operator's request about a market."""
    return f"dex.admin.{market}.{what}"


def log(market: str) -> str:
    """Name the subject that a market's leader appends to."""
    return f"dex.log.{market}"


def events(market: str) -> str:
    """Name the subject on which stored commits are broadcast."""
    return f"dex.events.{market}"


def alarm(market: str) -> str:
    """Name the subject of what an operator must know at once."""
    return f"dex.alarm.{market}"


def lead(server: str, market: str, what: str) -> str:
    """Name the subject on which a server is handed operators' requests for a market it leads."""
    return f"dex.lead.{server}.{market}.{what}"


def leases(bucket: str) -> str:
    """Name where what is stored in a bucket of leases is broadcast to the servers."""
    return f"dex.leases.{bucket}"


def alive(server: str) -> str:
    """Name the subject on which a server says its incarnation."""
    return f"dex.alive.{server}"


def log_stream(market: str) -> str:
    """Name the stream that is a market's log."""
    return f"DEX-LOG-{market}"


def last_token(subject: str) -> str:
    """Give the last token of a subject: the peer of a request, or what it is about."""
    return subject.rpartition(".")[2]
