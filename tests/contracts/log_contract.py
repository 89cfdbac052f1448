"""What every log must do, whatever it is made of.

A class of tests to inherit from, with a fixture `world` that gives an empty log.
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

import pytest

from dex_protocol.codec import hash_of
from dex_server.replication.ports import Entry, Log, Position, Undecided

BEGINNING = Position(0, "0" * 32)
PLENTY = 1024 * 1024


class LogWorld(Protocol):
    """One log, and as many servers as a test wants."""

    async def open(self) -> Log:
        """Give the log as one more server sees it."""
        ...

    async def purge(self, first_sequence: int) -> None:
        """Remove what stands before a sequence, as an operator may: all of it, too."""
        ...


def after(sequence: int, payload: bytes) -> Position:
    """Name the place of an entry."""
    return Position(sequence, hash_of(payload))


async def filled(log: Log, count: int, *, size: int = 10) -> list[bytes]:
    """Append entries of a size to an empty log; give their bytes."""
    payloads = [f"{sequence:010}".encode().ljust(size, b".") for sequence in range(1, count + 1)]
    position = BEGINNING
    for payload in payloads:
        await log.append(payload, after=position)
        position = after(position.sequence + 1, payload)
    return payloads


async def contents(log: Log) -> list[bytes]:
    """Read all that a log has."""
    sequence, last = await log.bounds()
    payloads: list[bytes] = []
    while sequence <= last:
        entries = await log.read(sequence, through_sequence=last, bytes_max=PLENTY)
        assert [entry.sequence for entry in entries] == list(
            range(sequence, sequence + len(entries))
        )
        payloads += [entry.payload for entry in entries]
        sequence += len(entries)
    return payloads


async def said_to(append: Awaitable[None]) -> str:
    """Wait for an append, and tell what it said."""
    try:
        await append
    except Undecided:
        return "undecided"
    return "stored"


class LogContract:
    """The suite."""

    async def test_new_log_is_empty(self, world: LogWorld) -> None:
        log = await world.open()

        assert await log.bounds() == (1, 0)
        assert await log.entry(1) is None

    async def test_appended_entry_stands_at_the_next_sequence_for_all(
        self, world: LogWorld
    ) -> None:
        """Whoever reads it, over whichever connection (G11)."""
        log, other = await world.open(), await world.open()
        await log.append(b"one", after=BEGINNING)
        await log.append(b"two", after=after(1, b"one"))

        found = await other.entry(2)

        assert found is not None
        assert (found.sequence, found.payload) == (2, b"two")
        assert await other.bounds() == (1, 2)

    async def test_largest_commit_is_stored_whole(self, world: LogWorld) -> None:
        log = await world.open()
        largest = bytes(range(256)) * 2048
        await log.append(largest, after=BEGINNING)

        found = await log.entry(1)

        assert found is not None
        assert found.payload == largest
        assert await log.read(1, through_sequence=1, bytes_max=1) == [found]

    @pytest.mark.parametrize("sequence", [0, 1, 3, 7])
    async def test_append_at_another_place_than_the_end_is_not_stored(
        self, world: LogWorld, sequence: int
    ) -> None:
        """The fence by sequence: behind the end, and beyond it (G11, G12, G13)."""
        log = await world.open()
        stored = await filled(log, 2)
        place = BEGINNING if sequence == 0 else after(sequence, stored[1])

        with pytest.raises(Undecided):
            await log.append(b"other", after=place)

        assert await contents(log) == stored

    @pytest.mark.parametrize("count", [0, 1, 2])
    async def test_append_after_another_hash_is_not_stored_and_hurts_nothing(
        self, world: LogWorld, count: int
    ) -> None:
        """The fence by hash. A replicated stream of NATS 2.14 dies of the obvious way to have it:
        see dex_server/jetstream/log.py (G13)."""
        log, other = await world.open(), await world.open()
        stored = await filled(log, count)
        end = after(count, stored[-1]) if stored else BEGINNING

        for server in (log, other):
            with pytest.raises(Undecided):
                await server.append(b"other", after=Position(count, hash_of(b"stranger")))
        await other.append(b"next", after=end)

        assert await contents(log) == [*stored, b"next"]

    async def test_appends_under_way_together_are_stored_in_order(self, world: LogWorld) -> None:
        log = await world.open()
        payloads = [b"%d" % number for number in range(1, 9)]
        places = [
            BEGINNING,
            *(after(number, payload) for number, payload in enumerate(payloads, start=1)),
        ]

        async with asyncio.TaskGroup() as group:
            for payload, place in zip(payloads, places, strict=False):
                group.create_task(log.append(payload, after=place))

        assert await contents(log) == payloads

    async def test_append_behind_a_refused_one_is_refused_too(self, world: LogWorld) -> None:
        """X expects the end, Y expects X; a stranger is faster than X and as long (G13)."""
        log, stranger = await world.open(), await world.open()
        (first,) = await filled(log, 1)
        await stranger.append(b"stranger", after=after(1, first))

        outcomes = await asyncio.gather(
            said_to(log.append(b"X", after=after(1, first))),
            said_to(log.append(b"Y", after=after(2, b"X"))),
        )
        await stranger.append(b"goes on", after=after(2, b"stranger"))

        assert outcomes == ["undecided", "undecided"]
        assert await contents(log) == [first, b"stranger", b"goes on"]

    async def test_same_bytes_at_the_same_place_are_stored_once(self, world: LogWorld) -> None:
        """A resend is confirmed, or undecided, and then what stands is its own (G3)."""
        log, restarted = await world.open(), await world.open()
        await log.append(b"one", after=BEGINNING)
        await log.append(b"two", after=after(1, b"one"))

        for server in (log, restarted):
            await said_to(server.append(b"two", after=after(1, b"one")))
            await said_to(server.append(b"one", after=BEGINNING))

        assert await contents(log) == [b"one", b"two"]

    async def test_bytes_of_an_older_entry_are_not_confirmed_elsewhere(
        self, world: LogWorld
    ) -> None:
        """Stored again, or undecided; but never taken for stored where they are not (G1)."""
        log = await world.open()
        await log.append(b"one", after=BEGINNING)
        await log.append(b"two", after=after(1, b"one"))

        said = await said_to(log.append(b"one", after=after(2, b"two")))

        found = await log.entry(3)
        assert said == ("undecided" if found is None else "stored")

    async def test_of_many_at_one_place_one_is_stored(self, world: LogWorld) -> None:
        """The others are undecided, and find it standing there (G11, G13)."""
        servers = [await world.open() for _ in range(6)]
        (first,) = await filled(servers[0], 1)
        payloads = [b"%d" % number for number in range(len(servers))]

        outcomes = await asyncio.gather(
            *(
                said_to(server.append(payload, after=after(1, first)))
                for server, payload in zip(servers, payloads, strict=True)
            )
        )

        (winner,) = [
            payload for payload, said in zip(payloads, outcomes, strict=True) if said == "stored"
        ]
        assert await contents(servers[0]) == [first, winner]

    async def test_log_takes_the_right_append_after_wrong_ones(self, world: LogWorld) -> None:
        log = await world.open()
        stored = await filled(log, 3)
        for place in (BEGINNING, after(2, stored[1]), after(9, b"x"), Position(3, "f" * 32)):
            with pytest.raises(Undecided):
                await log.append(b"other", after=place)

        await log.append(b"next", after=after(3, stored[2]))

        assert await contents(log) == [*stored, b"next"]

    async def test_read_gives_a_run_up_to_the_last_wanted(self, world: LogWorld) -> None:
        log = await world.open()
        stored = await filled(log, 12)

        entries = await log.read(4, through_sequence=9, bytes_max=PLENTY)

        assert [entry.sequence for entry in entries] == [4, 5, 6, 7, 8, 9]
        assert [entry.payload for entry in entries] == stored[3:9]

    async def test_read_and_entry_say_the_same(self, world: LogWorld) -> None:
        log = await world.open()
        await filled(log, 3)

        by_reading = await log.read(1, through_sequence=3, bytes_max=PLENTY)
        one_by_one: list[Entry | None] = [await log.entry(sequence) for sequence in (1, 2, 3)]

        assert by_reading == one_by_one

    @pytest.mark.parametrize(
        ("bytes_max", "count_max"), [(1, 1), (100, 1), (199, 1), (200, 2), (350, 3), (9999, 8)]
    )
    async def test_read_gives_no_more_bytes_than_wanted_but_one_entry(
        self, world: LogWorld, bytes_max: int, count_max: int
    ) -> None:
        log = await world.open()
        stored = await filled(log, 10, size=100)

        entries = await log.read(3, through_sequence=10, bytes_max=bytes_max)

        assert 1 <= len(entries) <= count_max
        assert [entry.payload for entry in entries] == stored[2 : 2 + len(entries)]

    async def test_long_log_is_read_in_several_goes(self, world: LogWorld) -> None:
        log = await world.open()
        stored = await filled(log, 1_200, size=1_000)

        assert await contents(await world.open()) == stored

    async def test_trimmed_beginning_is_gone_and_the_rest_stays(self, world: LogWorld) -> None:
        log = await world.open()
        stored = await filled(log, 6)
        await log.trim(4)

        for server in (log, await world.open()):
            assert await server.bounds() == (4, 6)
            assert await server.entry(3) is None
            assert await server.read(2, through_sequence=6, bytes_max=PLENTY) == []
            assert await contents(server) == stored[3:]

    @pytest.mark.parametrize("again", [1, 2, 4])
    async def test_trimming_to_the_same_or_an_older_entry_again_is_harmless(
        self, world: LogWorld, again: int
    ) -> None:
        log, other = await world.open(), await world.open()
        stored = await filled(log, 6)
        await log.trim(4)

        for server in (log, other):
            await server.trim(again)

        assert await log.bounds() == (4, 6)
        assert await contents(log) == stored[3:]

    async def test_trimming_to_the_first_entry_removes_nothing(self, world: LogWorld) -> None:
        log = await world.open()
        stored = await filled(log, 3)
        await log.trim(1)

        assert await contents(log) == stored

    async def test_log_that_was_trimmed_to_its_last_entry_goes_on(self, world: LogWorld) -> None:
        log, other = await world.open(), await world.open()
        stored = await filled(log, 3)
        await other.trim(3)

        assert await log.bounds() == (3, 3)
        await log.append(b"next", after=after(3, stored[2]))
        await other.append(b"after it", after=after(4, b"next"))
        assert await contents(log) == [stored[2], b"next", b"after it"]
        assert await log.bounds() == (3, 5)

    @pytest.mark.parametrize("count", [0, 3])
    @pytest.mark.parametrize("beyond", [1, 5])
    async def test_trimming_beyond_the_end_removes_nothing(
        self, world: LogWorld, count: int, beyond: int
    ) -> None:
        """Else the next entry would stand there, and those between would seem to be lost."""
        log = await world.open()
        stored = await filled(log, count)
        await log.trim(count + beyond)

        assert await log.bounds() == (1, count)
        assert await contents(log) == stored

    async def test_log_that_was_purged_to_its_end_goes_on(self, world: LogWorld) -> None:
        log = await world.open()
        stored = await filled(log, 3)
        await world.purge(4)

        assert await log.bounds() == (4, 3)
        await log.append(b"next", after=after(3, stored[2]))
        assert await contents(log) == [b"next"]

    async def test_time_of_storing_does_not_go_back(self, world: LogWorld) -> None:
        log = await world.open()
        await filled(log, 20)

        entries = await log.read(1, through_sequence=20, bytes_max=PLENTY)

        times = [entry.stored_at for entry in entries]
        assert times == sorted(times)
