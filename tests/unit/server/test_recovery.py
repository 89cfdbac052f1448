"""A replica finds its state again: the newest snapshot that is good, and the log from there.

What does not fit stops it for good, with an alarm that says what and where.
"""

import gzip
from collections.abc import Callable

import pytest

from dex_protocol import limits
from dex_protocol.codec import encode_commit, hash_of
from dex_server import snapshotting
from dex_server.replication.effects import (
    Append,
    LoadSnapshot,
    Look,
    ReadLog,
    SnapshotLoaded,
    Stands,
    Stopped,
)
from dex_server.replication.ports import Entry, SnapshotName
from tests.builders import buy
from tests.contracts.memory import MemoryLog, MemorySnapshots
from tests.unit.server.harness import Harness, a_leader, beside, cut, leading


@pytest.fixture
def past() -> Harness:
    """A server that stopped at commit 10, and left three snapshots."""
    server = a_leader(snapshot_commits=3)
    server.on_duty()
    server.commit(1, 9)
    server.stop()

    assert server.is_stopped
    assert [name.position.sequence for name in stored(server)] == [9, 6, 3]
    assert server.end == 10
    return server


def stored(server: Harness) -> list[SnapshotName]:
    return server.snapshots.names("BTC-USD")


def restarted(
    past: Harness, *, log: MemoryLog | None = None, snapshots: MemorySnapshots | None = None
) -> Harness:
    """Start a new process on what the old one left."""
    server = Harness(log=log or past.log, snapshots=snapshots or past.snapshots, wall=past.wall)
    server.start()
    server.run()
    return server


def in_doubt(server: Harness) -> Harness:
    """Let a server ask a log that ends too early for 15 s, as it might be a node's error."""
    assert (server.replica.role, server.alarms) == ("follower", [])
    assert not server.could_lead
    for _ in range(15):
        assert server.replica.role == "follower"
        server.pass_time(ms=1_000)
        server.run()
    return server


def leads_with_all_of_it(server: Harness) -> bool:
    server.check()
    market = server.replica.market
    assert market is not None
    return server.replica.role == "leader" and len(market.orders) == 9


def first_read(server: Harness) -> int:
    """Tell from where on the log was read."""
    return server.given(ReadLog)[0].from_sequence


# --- Where to begin -----------------------------------------------------------------------------


def test_newest_snapshot_is_taken_and_only_the_rest_of_the_log_is_read(past: Harness) -> None:
    server = restarted(past)

    assert leads_with_all_of_it(server)
    assert first_read(server) == 10


def test_without_snapshots_the_whole_log_is_read(past: Harness) -> None:
    server = restarted(past, snapshots=MemorySnapshots())

    assert leads_with_all_of_it(server)
    assert first_read(server) == 1


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
    "the last byte flipped": lambda data: data[:-1] + bytes([data[-1] ^ 0x80]),
    "truncated": lambda data: data[:-1],
    "empty": lambda data: b"",
    "other bytes": lambda data: b"not gzip at all",
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("is_noticed_by", ["the store", "the replica"])
def test_damaged_snapshot_is_passed_over_for_the_older_one(
    past: Harness, how: str, is_noticed_by: str
) -> None:
    """And said, with what is wrong with it (G17)."""
    newest = stored(past)[0]
    damaged = DAMAGES[how](past.snapshots.load(newest))
    past.snapshots.save(newest, damaged)

    if is_noticed_by == "the store":
        server = restarted(past)
    else:
        server = Harness(log=past.log, snapshots=past.snapshots, wall=past.wall)
        server.start()
        server.perform(server.under_way.popleft())
        server.under_way.clear()
        server.give(SnapshotLoaded(newest, damaged))
        server.run()

    assert leads_with_all_of_it(server)
    assert first_read(server) == 7
    (warning,) = server.warnings
    assert warning.startswith("snapshot 9 cannot be used: ")
    assert newest.hash in warning


def test_snapshot_that_is_gone_when_it_is_loaded_is_passed_over(past: Harness) -> None:
    server = Harness(log=past.log, snapshots=past.snapshots, wall=past.wall)
    server.start()
    server.run(hold=(LoadSnapshot,))
    past.snapshots.remove(stored(past)[0])
    server.run()

    assert leads_with_all_of_it(server)
    assert first_read(server) == 7
    (warning,) = server.warnings
    assert "gone" in warning


def test_snapshot_with_the_hash_of_wrong_bytes_is_passed_over(past: Harness) -> None:
    """Bytes as they were saved, of no state that can be."""
    newest, older, _ = stored(past)
    for wrong in (b"not gzip", past.snapshots.load(older)):
        past.snapshots.save(
            SnapshotName("BTC-USD", newest.position, hash_of(wrong), newest.digest, newest.state),
            wrong,
        )
    past.snapshots.remove(newest)
    server = restarted(past)

    assert leads_with_all_of_it(server)
    assert first_read(server) == 7


def test_snapshot_of_a_state_that_can_be_but_was_not_is_passed_over(past: Harness) -> None:
    """Only the hash in its name tells (G17)."""
    newest = stored(past)[0]
    state = gzip.decompress(past.snapshots.load(newest))
    other = state.replace(b'"last_price":null', b'"last_price":"7"')
    assert other != state
    server = Harness(log=past.log, snapshots=past.snapshots, wall=past.wall)
    server.start()
    server.perform(server.under_way.popleft())
    server.under_way.clear()
    server.give(SnapshotLoaded(newest, snapshotting.pack(other)))
    server.run()

    assert leads_with_all_of_it(server)
    assert first_read(server) == 7


@pytest.mark.parametrize("is_bomb", [True, False], ids=["too long", "with something behind"])
def test_snapshot_that_does_not_unpack_to_one_bounded_state_is_passed_over(
    past: Harness, monkeypatch: pytest.MonkeyPatch, is_bomb: bool
) -> None:
    newest = stored(past)[0]
    data = past.snapshots.load(newest)
    state = gzip.decompress(data)
    if is_bomb:
        monkeypatch.setattr(limits, "SNAPSHOT_BYTES_MAX", 100_000)
        wrong = snapshotting.pack(state + b" " * 100_000)
    else:
        wrong = data + gzip.compress(b" ")
    name = SnapshotName(
        "BTC-USD", newest.position, hash_of(wrong), newest.digest, hash_of(gzip.decompress(wrong))
    )
    past.snapshots.remove(newest)
    past.snapshots.save(name, wrong)
    server = restarted(past)

    assert leads_with_all_of_it(server)
    assert first_read(server) == 7
    (warning,) = server.warnings
    assert ("at most 100000 bytes" if is_bomb else "one whole gzip stream") in warning


def test_all_snapshots_damaged_means_the_whole_log(past: Harness) -> None:
    """The log alone leads to the same state (G17)."""
    for name in stored(past):
        past.snapshots.save(name, b"")
    server = restarted(past)

    assert leads_with_all_of_it(server)
    assert first_read(server) == 1
    assert [warning.split(" cannot")[0] for warning in server.warnings] == [
        "snapshot 9",
        "snapshot 6",
        "snapshot 3",
    ]


def test_snapshots_that_were_listed_for_something_else_too_are_tried_once_each(
    past: Harness,
) -> None:
    """Whoever is on duty lists them at the same time. Tried twice, the damaged one would have cost
    the good one its turn, and a log that was cut cannot do without."""
    past.snapshots.remove(stored(past)[2])
    past.snapshots.save(stored(past)[0], b"")
    past.log.trim(6)
    server = Harness(log=past.log, snapshots=past.snapshots, wall=past.wall)
    server.start()
    server.on_duty()

    assert (server.replica.role, server.alarms) == ("leader", [])
    assert first_read(server) == 7
    assert len(server.given(LoadSnapshot)) == 2


def test_answer_to_an_older_look_says_nothing_of_the_snapshot(past: Harness) -> None:
    server = Harness(log=past.log, snapshots=past.snapshots, wall=past.wall)
    server.start()
    server.run(hold=(Look,))

    server.give(Stands(4, past.log.entry(4)))
    server.run()

    assert leads_with_all_of_it(server)
    assert first_read(server) == 10


# --- What does not fit --------------------------------------------------------------------------


def stopped_with(server: Harness, *words: str) -> None:
    """Make sure that a replica stopped for good, said why, and still answers."""
    assert server.replica.role == "stopped"
    (alarm,) = server.alarms
    assert all(word in alarm for word in words), alarm
    assert server.given(Append) == []
    answers = [server.send(buy("1 @ 100", 90)), server.ask(), server.administer("halt")]
    assert server.retries(*answers) == ["not_leader", "unavailable", "unavailable"]
    server.nominate()
    assert server.replica.role == "stopped"
    assert server.given(Stopped) == []
    server.stop()
    assert len(server.given(Stopped)) == 1


def test_log_with_another_commit_than_a_snapshots_has_lost_commits(past: Harness) -> None:
    """It grew anew over what was stored there once (G16)."""
    assert stored(past)[0].position.sequence == 9
    other = Harness(log=cut(past.log, 8), wall=past.wall)
    other.start()
    other.run()
    number = other.send(buy("1 @ 99", 20))
    other.run()
    assert other.receipt(number).sequence == 10

    stopped_with(restarted(past, log=other.log), "another commit 9", "lost commits")


def test_log_that_ends_before_a_snapshot_has_lost_commits(past: Harness) -> None:
    """A snapshot is stored only after its commit, so that commit was acknowledged (G16)."""
    server = in_doubt(restarted(past, log=cut(past.log, 7)))

    stopped_with(server, "ends at 7", "commit 9", "lost")


def test_log_that_ends_before_a_damaged_snapshot_has_lost_commits_too(past: Harness) -> None:
    past.snapshots.save(stored(past)[0], b"")

    server = in_doubt(restarted(past, log=cut(past.log, 7)))

    stopped_with(server, "ends at 7", "commit 9", "lost")


def test_log_that_is_empty_beside_snapshots_has_lost_commits(past: Harness) -> None:
    """A new market is not opened over an old one's orders."""
    server = in_doubt(restarted(past, log=MemoryLog()))

    stopped_with(server, "ends at 0", "commit 9", "lost")


def test_log_that_ends_before_what_this_replica_knew_has_lost_commits() -> None:
    """A leader that was deposed still knows what it saw stored (G16)."""
    leader = a_leader()
    leader.commit(1, 3)
    leader.send(buy("1 @ 100", 4))
    # Another entry stands where the next one should, so it begins again; and the tail is gone.
    other = leading(beside(leader))
    leader.log = cut(leader.log, 2)
    leader.under_way.clear()
    leader.give(Stands(5, other.entry(5)))
    leader.run()
    in_doubt(leader)

    assert leader.replica.role == "stopped"
    assert "ends at 2" in leader.alarms[0]
    assert "commit 4" in leader.alarms[0]


def test_trimmed_log_needs_a_snapshot_that_reaches_its_beginning(past: Harness) -> None:
    past.log.trim(5)

    server = restarted(past, snapshots=MemorySnapshots())

    stopped_with(server, "begins at 5", "snapshot")


def test_trimmed_log_with_a_snapshot_is_enough(past: Harness) -> None:
    past.log.trim(9)

    server = restarted(past)

    assert server.replica.role == "leader"
    assert first_read(server) == 10


def test_log_trimmed_beyond_the_snapshots_stops_the_replica(past: Harness) -> None:
    """There is no way left to its state (G17)."""
    past.log.trim(10)
    past.snapshots.remove(stored(past)[0])

    stopped_with(restarted(past), "begins at 10", "snapshot")


def test_log_that_is_trimmed_while_it_is_read_is_looked_at_again(past: Harness) -> None:
    server = Harness(log=past.log, snapshots=MemorySnapshots(), wall=past.wall)
    server.start()
    server.run(hold=(ReadLog,))
    past.log.trim(5)
    server.run()

    stopped_with(server, "begins at 5", "snapshot")


def _commit(past: Harness, **changes: object) -> bytes:
    # Commit 8 of the log, with something changed.
    entry = past.log.entry(7)
    assert entry is not None
    fields = {
        "market": "BTC-USD",
        "sequence": 8,
        "term": 1,
        "time": past.wall,
        "previous": hash_of(entry.payload),
        "digest": "0" * 16,
        "events": b"",
    } | changes
    return encode_commit(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "digest"),
        ({"previous": "1" * 32}, "previous"),
        ({"sequence": 9}, "sequence"),
        ({"market": "ETH-USD"}, "market"),
        ({"time": 1}, "time"),
        ({"term": 2}, "term"),
        ({"events": b'{"event":"expired","order_id":"order_a_1_1","quantity":"1"}'}, "events"),
        (None, "bytes"),
    ],
    ids=["digest", "previous", "sequence", "market", "time", "term", "events", "bytes"],
)
def test_commit_that_does_not_follow_stops_the_replica_and_is_named(
    past: Harness, changes: dict[str, object] | None, word: str
) -> None:
    """On its way to a state already, before it could lead or tell anything (G15)."""
    if word == "term":
        market = restarted(Harness(log=cut(past.log, 7), wall=past.wall)).replica.market
        assert market is not None
        changes = {"term": 2, "digest": market.digest}
    bad = b"\xff no commit" if changes is None else _commit(past, **changes)
    log = cut(past.log, 7, instead=bad)

    server = restarted(past, log=log, snapshots=MemorySnapshots())

    stopped_with(server, "commit 8", word)


def test_answers_that_come_after_the_end_are_ignored(past: Harness) -> None:
    server = in_doubt(restarted(past, log=cut(past.log, 7)))

    server.give(SnapshotLoaded(stored(past)[0], b""))
    server.give(Stands(1, Entry(1, b"", 0)))
    server.pass_time(ms=1_000)
    assert server.replica.role == "stopped"
    assert len(server.alarms) == 1
