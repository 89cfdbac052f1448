"""What effects of a replica come to, with the ports' rules as plain state.

Knows nothing of when anything arrives, nor of what is lost on the way.
"""

from typing import TypeAlias

from dex_engine import Market
from dex_server import snapshotting
from dex_server.replication.effects import (
    EndFound,
    FindEnd,
    HashState,
    Input,
    ListSnapshots,
    LoadSnapshot,
    LogRead,
    Look,
    ReadLog,
    SaveSnapshot,
    SnapshotLoaded,
    SnapshotSaved,
    SnapshotsListed,
    SnapshotTaken,
    SnapshotUnusable,
    Stands,
    StateHashed,
    TakeSnapshot,
)
from dex_server.replication.ports import SnapshotInvalid
from tests.contracts.memory import MemoryLog, MemorySnapshots

Question: TypeAlias = Look | FindEnd | ReadLog | ListSnapshots | LoadSnapshot | SaveSnapshot
"""Effects that are asked again until they are answered."""


def answer(
    question: Question,
    market: str,
    log: MemoryLog,
    snapshots: MemorySnapshots,
    *,
    read_bytes_max: int,
) -> Input:
    """Do what a market's replica asks of its log, or of the store of snapshots, as they are now."""
    match question:
        case Look():
            return Stands(question.sequence, log.entry(question.sequence))
        case FindEnd():
            return EndFound(*log.bounds())
        case ReadLog():
            entries = log.read(
                question.from_sequence,
                through_sequence=question.through_sequence,
                bytes_max=read_bytes_max,
            )
            return LogRead(entries)
        case ListSnapshots():
            return SnapshotsListed(snapshots.names(market))
        case LoadSnapshot():
            try:
                return SnapshotLoaded(question.name, snapshots.load(question.name))
            except SnapshotInvalid as invalid:
                return SnapshotUnusable(question.name, str(invalid))
        case SaveSnapshot():
            snapshots.save(question.name, question.data)
            return SnapshotSaved(question.name)


def written(effect: TakeSnapshot | HashState, market: Market) -> SnapshotTaken | StateHashed:
    """Write down a market's state as it is now, or hash it."""
    state = snapshotting.write(market)
    match effect:
        case TakeSnapshot():
            name = snapshotting.name_of(market.name, effect.position, effect.digest, state)
            return SnapshotTaken(name, state.data)
        case HashState():
            return StateHashed(effect.position, state.state)
