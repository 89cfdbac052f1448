"""What a replica is told, and what it wants done: the two sides of its decision function.

Each effect says before what it must be done, and which input answers it. An effect that fails
because the world does not answer is tried again by whoever performs it; only what is listed here
is the replica's to decide. Knows nothing of how effects are performed.
"""

from typing import Any, TypeAlias

from msgspec import Struct

from dex_protocol.administration import What
from dex_protocol.queries import Query
from dex_protocol.specification import SpecificationChange
from dex_server.replication.ports import Entry, Position, SnapshotName


class Instant(Struct, frozen=True, gc=False):
    """Now, by two clocks, in µs: one that others can compare, and one that never jumps."""

    wall: int
    monotonic: int


ReplyTo: TypeAlias = Any
"""Whom to answer: whatever came with the request, handed back as it is."""

# --- Inputs -------------------------------------------------------------------------------------


class Start(Struct):
    """Begin: find a snapshot, and the log."""


class Nominated(Struct):
    """This server is to lead the market, as soon as it can."""


class Dismissed(Struct):
    """Another server is to lead the market, or nobody: finish what is under way, and follow."""


class OnDuty(Struct):
    """Whether this server is the one that writes the market's snapshots."""

    is_mine: bool


class ToldToStop(Struct):
    """Finish what is in hand, then stop."""


class Tick(Struct):
    """Time has passed; sent a few times a second."""


class Request(Struct, gc=False):
    """A peer's request as it arrived; `arrived` by the monotonic clock."""

    peer: str
    payload: bytes
    reply_to: ReplyTo
    arrived: int


class Requests(Struct):
    """Requests, in order of arrival."""

    requests: list[Request]


class Asked(Struct, gc=False):
    """A peer's query about the state; `arrived` by the monotonic clock."""

    peer: str
    query: Query
    reply_to: ReplyTo
    arrived: int


class Administered(Struct):
    """An operator's wish."""

    what: What
    change: SpecificationChange | None
    reply_to: ReplyTo


class SnapshotsListed(Struct):
    """The snapshots there are, newest first; answers `ListSnapshots`."""

    names: list[SnapshotName]


class SnapshotLoaded(Struct):
    """A snapshot's stored bytes; answers `LoadSnapshot`."""

    name: SnapshotName
    data: bytes


class SnapshotUnusable(Struct):
    """A snapshot that is gone or damaged; answers `LoadSnapshot`."""

    name: SnapshotName
    why: str


class EndFound(Struct):
    """The first and the last sequence of the log; answers `FindEnd`."""

    first: int
    last: int


class LogRead(Struct):
    """Entries of the log, oldest first; answers `ReadLog`."""

    entries: list[Entry]


class Heard(Struct):
    """Entries that were broadcast when they were stored, oldest first; some may be missing."""

    entries: list[Entry]


class AppendConfirmed(Struct, gc=False):
    """The entry stands in the log at that sequence; answers `Append`."""

    sequence: int


class AppendUndecided(Struct, gc=False):
    """Nobody knows whether the entry stands there, or will; answers `Append`."""

    sequence: int
    why: str


class Stands(Struct, gc=False):
    """What stands at a sequence of the log; answers `Look`."""

    sequence: int
    entry: Entry | None


class SnapshotTaken(Struct):
    """The state that `TakeSnapshot` asked for, as bytes to be stored; answers it."""

    name: SnapshotName
    data: bytes


class SnapshotFailed(Struct):
    """The state could not be written; answers `TakeSnapshot` and `HashState`."""

    position: Position


class SnapshotSaved(Struct):
    """A snapshot is stored; answers `SaveSnapshot`."""

    name: SnapshotName


class StateHashed(Struct):
    """The hash of the state at a position, as `SnapshotName.state`; answers `HashState`."""

    position: Position
    state: str


Input: TypeAlias = (
    Start
    | Nominated
    | Dismissed
    | OnDuty
    | ToldToStop
    | Tick
    | Requests
    | Asked
    | Administered
    | SnapshotsListed
    | SnapshotLoaded
    | SnapshotUnusable
    | EndFound
    | LogRead
    | Heard
    | AppendConfirmed
    | AppendUndecided
    | Stands
    | SnapshotTaken
    | SnapshotFailed
    | SnapshotSaved
    | StateHashed
)

# --- Effects ------------------------------------------------------------------------------------


class ListSnapshots(Struct):
    """List the market's snapshots."""


class LoadSnapshot(Struct):
    """Load a snapshot."""

    name: SnapshotName


class FindEnd(Struct):
    """Find where the log begins and ends."""


class ReadLog(Struct):
    """Read some entries from one sequence on, at most through another."""

    from_sequence: int
    through_sequence: int


class Append(Struct, gc=False):
    """Append an entry after a position.

    Several may be under way, and must set out in order. `again` is set for one that is resent
    because nothing stands there: it may wait a moment first.
    """

    payload: bytes
    after: Position
    again: bool = False


class Look(Struct, gc=False):
    """Look what stands at a sequence of the log, as its leader knows it."""

    sequence: int


class Send(Struct, gc=False):
    """Answer a request. What it says is settled: it may be sent at any time from now on."""

    reply_to: ReplyTo
    payload: bytes


class Serve(Struct):
    """Take in the market's requests from now on."""


class Unserve(Struct):
    """Take in no more requests. What arrived already still comes in, to be answered `retry`."""


class Listen(Struct):
    """Give what is broadcast of the log from now on, as `Heard`."""


class Unlisten(Struct):
    """Give it no more."""


class TakeSnapshot(Struct):
    """Write the market's state as it is now, before the next input changes it."""

    position: Position
    digest: str


class HashState(Struct):
    """Hash the market's state as it is now, before the next input changes it."""

    position: Position


class SaveSnapshot(Struct):
    """Store a snapshot."""

    name: SnapshotName
    data: bytes


class RemoveSnapshot(Struct):
    """Forget a snapshot that newer ones replace."""

    name: SnapshotName


class TrimLog(Struct):
    """Remove the entries before one from the log, for good."""

    first_sequence: int


class Alarm(Struct):
    """Tell an operator at once."""

    text: str


class Note(Struct):
    """Write a line for whoever reads the server's output."""

    text: str
    is_warning: bool = False
    """Whether something is wrong that mends itself."""


class Stopped(Struct):
    """Nothing more will come of this replica."""


Effect: TypeAlias = (
    ListSnapshots
    | LoadSnapshot
    | FindEnd
    | ReadLog
    | Append
    | Look
    | Send
    | Serve
    | Unserve
    | Listen
    | Unlisten
    | TakeSnapshot
    | HashState
    | SaveSnapshot
    | RemoveSnapshot
    | TrimLog
    | Alarm
    | Note
    | Stopped
)
