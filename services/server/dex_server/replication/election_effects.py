"""What a server's elections are told, and what they want done.

The other pair of sides beside `effects`: those are of one market's replica, these of a whole
server. An effect that the world does not answer is not tried again by whoever performs it.
"""

from typing import TypeAlias

from msgspec import Struct

from dex_protocol.standing import Role
from dex_server.replication.effects import Note, Tick
from dex_server.replication.ports import LeaderRecord, News, ServerRecord

# --- Inputs -------------------------------------------------------------------------------------


class ReplicaStands(Struct):
    """How this server's replica of a market stands now."""

    market: str
    role: Role
    could_lead: bool


class LeasesRead(Struct):
    """What was written since the reading before; answers `ReadLeases`."""

    news: News


class LeasesUnread(Struct):
    """Nothing is known; answers `ReadLeases`."""


class LeadersChanged(Struct):
    """Somebody was named to lead something: it is time to read."""


class Renewed(Struct):
    """This server's record is written; answers `Renew`."""


class RenewalFailed(Struct):
    """It may or may not be written; answers `Renew`."""


class Named(Struct):
    """The record is written, at that revision; with None another stands there. Answers `Name`."""

    market: str
    record: LeaderRecord
    revision: int | None


class NamingUnknown(Struct):
    """It may or may not be written, now or later; answers `Name`."""

    market: str


class PingAnswered(Struct):
    """A server answered; answers `Ping`, as the next two do."""

    server: str


class PingRefused(Struct):
    """Nobody answers for a server: the ping reached nobody."""

    server: str


class PingLost(Struct):
    """No answer came."""

    server: str


class Connected(Struct):
    """This server's connection to NATS is there again, or is lost."""

    is_up: bool


class ClusterChanged(Struct):
    """NATS nodes came or went."""


class ToldToLeave(Struct):
    """Hand everything over, and take nothing more."""


ElectionInput: TypeAlias = (
    Tick
    | ReplicaStands
    | LeasesRead
    | LeasesUnread
    | LeadersChanged
    | Renewed
    | RenewalFailed
    | Named
    | NamingUnknown
    | PingAnswered
    | PingRefused
    | PingLost
    | Connected
    | ClusterChanged
    | ToldToLeave
)

# --- Effects ------------------------------------------------------------------------------------


class ReadLeases(Struct):
    """Read what was written."""


class Renew(Struct):
    """Write this server's record."""

    record: ServerRecord


class Name(Struct):
    """Write who is to lead a market, if nobody wrote since a revision."""

    market: str
    record: LeaderRecord
    after: int


class Ping(Struct):
    """Ask whether a server lives."""

    server: str


class Nominate(Struct):
    """Tell this server's replica that it is to lead."""

    market: str


class Dismiss(Struct):
    """Tell this server's replica that it is not to lead any more."""

    market: str


class Assign(Struct):
    """Tell this server's replica whether it writes the market's snapshots."""

    market: str
    is_mine: bool


class Left(Struct):
    """All is handed over that can be."""


class Displaced(Struct):
    """Another process runs under this server's name: end."""

    text: str


ElectionEffect: TypeAlias = (
    ReadLeases | Renew | Name | Ping | Nominate | Dismiss | Assign | Left | Displaced | Note
)
