"""What every store of leases must do, whatever it is made of.

A class of tests to inherit from, with a fixture `world`; the store may hold others' records.
"""

import asyncio
from typing import Protocol

import pytest
from msgspec import structs

from dex_protocol.subjects import LEADERS_BUCKET, SERVERS_BUCKET
from dex_server.replication.ports import (
    LeaderNews,
    LeaderRecord,
    Leases,
    LogUnavailable,
    News,
    ServerNews,
    ServerRecord,
)


class LeaseWorld(Protocol):
    """One store of leases, and as many servers as a test wants."""

    async def open(self) -> Leases:
        """Give the leases as one more server sees them."""
        ...

    async def write(self, bucket: str, key: str, payload: bytes | None) -> None:
        """Write any bytes under a key, or delete it, as an operator may."""
        ...

    def interrupt(self) -> None:
        """Let nothing be answered, to anybody, until `resume`."""
        ...

    def resume(self) -> None:
        """Let all be answered again."""
        ...


def living(server: str, *markets: str) -> ServerRecord:
    """Make what a server says of itself."""
    return ServerRecord(server=server, incarnation=f"{server}-1", markets=markets)


def leading(server: str) -> LeaderRecord:
    """Make the record that names a leader."""
    return LeaderRecord(server=server, incarnation=f"{server}-1", changes=1)


def about(news: News, test: str) -> News:
    """Leave what is about a test's own keys, all of which begin with its name, and no times."""
    return News(
        servers=[found for found in news.servers if found.server.startswith(test)],
        leaders=[
            structs.replace(found, stored_at=0)
            for found in news.leaders
            if found.market.startswith(test)
        ],
    )


async def news_of(leases: Leases, test: str) -> tuple[list[ServerNews], list[LeaderNews]]:
    """Ask for the news, and leave what is about a test's own keys."""
    news = about(await leases.news(), test)
    return news.servers, news.leaders


async def named(leases: Leases, market: str, server: str, *, after: int = 0) -> int:
    """Name a leader where nothing stands in the way; give the revision."""
    revision = await leases.name(market, leading(server), after=after)
    assert revision is not None
    return revision


class LeaseContract:
    """The suite."""

    async def test_new_store_has_no_news_twice(self, world: LeaseWorld, market: str) -> None:
        leases = await world.open()

        assert await news_of(leases, market) == ([], [])
        assert await leases.news() == News(servers=[], leaders=[])

    async def test_first_news_are_all_that_stands(self, world: LeaseWorld, market: str) -> None:
        writer = await world.open()
        records = [living(f"{market}-s{n}", "A", "B") for n in range(3)]
        for record in records:
            await writer.renew(record)
        revisions = [await named(writer, f"{market}-{n}", "s") for n in range(3)]

        servers, leaders = await news_of(await world.open(), market)

        assert [found.record for found in servers] == records
        assert [found.server for found in servers] == [record.server for record in records]
        assert leaders == [
            LeaderNews(f"{market}-{n}", revision, leading("s"))
            for n, revision in enumerate(revisions)
        ]

    async def test_leaders_are_told_with_the_time_they_were_named(
        self, world: LeaseWorld, market: str
    ) -> None:
        writer, reader = await world.open(), await world.open()
        revision = await named(writer, market, "s1")
        (first,) = [each for each in (await reader.news()).leaders if each.market == market]
        await named(writer, market, "s2", after=revision)
        (second,) = [each for each in (await reader.news()).leaders if each.market == market]

        assert 0 < first.stored_at < second.stored_at

    async def test_later_news_are_what_changed_the_newest_of_each_key(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases, writer = await world.open(), await world.open()
        for name in ("s1", "s2"):
            await writer.renew(living(f"{market}-{name}"))
        first = await named(writer, market, "s1")
        await named(writer, f"{market}-2", "s1")
        await leases.news()

        for held in ("A", "B"):
            await writer.renew(living(f"{market}-s1", held))
        second = await named(writer, market, "s2", after=first)
        third = await named(writer, market, "s3", after=second)
        servers, leaders = await news_of(leases, market)

        assert [found.record for found in servers] == [living(f"{market}-s1", "B")]
        assert leaders == [LeaderNews(market, third, leading("s3"))]
        assert await leases.news() == News(servers=[], leaders=[])

    async def test_own_writings_are_news_too(self, world: LeaseWorld, market: str) -> None:
        leases = await world.open()
        await leases.news()

        await leases.renew(living(f"{market}-s1"))
        await named(leases, market, "s1")
        servers, leaders = await news_of(leases, market)

        assert [len(servers), len(leaders)] == [1, 1]

    async def test_each_renewal_has_a_greater_revision_with_the_same_bytes_too(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases, writer = await world.open(), await world.open()
        revisions = []
        for _ in range(3):
            await writer.renew(living(f"{market}-s1", "A"))
            servers, _ = await news_of(leases, market)
            assert [found.record for found in servers] == [living(f"{market}-s1", "A")]
            revisions.append(servers[0].revision)

        assert revisions == sorted(set(revisions))

    async def test_record_that_says_all_is_read_as_it_was_written(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases = await world.open()
        server = ServerRecord(f"{market}-s1", "äöü", ("A", "B-C"), is_leaving=True)
        leader = LeaderRecord("s1", "äöü", changes=7)

        await leases.renew(server)
        await leases.name(market, leader, after=0)
        servers, leaders = await news_of(leases, market)

        assert [found.record for found in servers] == [server]
        assert [found.record for found in leaders] == [leader]

    async def test_each_reader_has_its_own_news(self, world: LeaseWorld, market: str) -> None:
        one, two = await world.open(), await world.open()
        await one.renew(living(f"{market}-s1"))

        assert await news_of(one, market) == await news_of(two, market)
        assert await news_of(one, market) == ([], [])

    async def test_unread_news_are_not_lost_by_a_failure(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases, writer = await world.open(), await world.open()
        await leases.news()
        await writer.renew(living(f"{market}-s1"))
        revision = await named(writer, market, "s1")

        world.interrupt()
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                await leases.news()
        world.resume()
        servers, leaders = await news_of(leases, market)

        assert [found.record for found in servers] == [living(f"{market}-s1")]
        assert leaders == [LeaderNews(market, revision, leading("s1"))]

    async def test_write_without_an_answer_is_unavailable(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases = await world.open()

        world.interrupt()
        with pytest.raises(LogUnavailable):
            await leases.renew(living(f"{market}-s1"))
        with pytest.raises(LogUnavailable):
            await leases.name(market, leading("s1"), after=0)
        world.resume()

    async def test_leader_is_named_after_the_revision_that_stands(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases, other = await world.open(), await world.open()
        first = await named(leases, market, "s1")
        second = await named(other, market, "s2", after=first)

        assert second > first
        _, leaders = await news_of(leases, market)
        assert leaders == [LeaderNews(market, second, leading("s2"))]

    @pytest.mark.parametrize("distance", [-2, -1, 1, 1000])
    async def test_naming_after_another_revision_changes_nothing(
        self, world: LeaseWorld, market: str, distance: int
    ) -> None:
        leases = await world.open()
        first = await named(leases, market, "s1")
        second = await named(leases, market, "s2", after=first)
        await leases.news()
        wrong = max(0, second + distance)

        assert await leases.name(market, leading("s3"), after=wrong) is None
        assert await news_of(leases, market) == ([], [])
        assert await leases.name(market, leading("s3"), after=second) is not None

    async def test_naming_where_nobody_was_named_changes_nothing_after_a_revision(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases = await world.open()
        elsewhere = await named(leases, f"{market}-2", "s1")

        assert await leases.name(market, leading("s1"), after=elsewhere) is None
        assert await leases.name(market, leading("s1"), after=0) is not None
        assert await leases.name(market, leading("s2"), after=0) is None

    async def test_nobody_can_be_named(self, world: LeaseWorld, market: str) -> None:
        leases = await world.open()
        first = await named(leases, market, "s1")

        second = await leases.name(market, LeaderRecord(changes=2), after=first)

        assert second is not None
        _, leaders = await news_of(leases, market)
        assert leaders == [LeaderNews(market, second, LeaderRecord(changes=2))]

    async def test_of_twelve_that_name_at_once_one_wins(
        self, world: LeaseWorld, market: str
    ) -> None:
        readers = [await world.open() for _ in range(12)]
        after = 0
        for _ in range(10):
            revisions = await asyncio.gather(
                *(
                    leases.name(market, leading(f"s{n}"), after=after)
                    for n, leases in enumerate(readers)
                )
            )

            ((winner, after),) = [
                (n, revision) for n, revision in enumerate(revisions) if revision is not None
            ]
            _, leaders = await news_of(readers[0], market)
            assert leaders == [LeaderNews(market, after, leading(f"s{winner}"))]

    async def test_deleted_key_has_no_record_and_its_revision_can_be_followed(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases = await world.open()
        first = await named(leases, market, "s1")
        await leases.renew(living(f"{market}-s1"))
        await leases.news()

        await world.write(LEADERS_BUCKET, market, None)
        await world.write(SERVERS_BUCKET, f"{market}-s1", None)
        (server,), (leader,) = await news_of(leases, market)

        assert (server.server, server.record) == (f"{market}-s1", None)
        assert (leader.market, leader.record) == (market, None)
        assert leader.revision > first
        for wrong in (0, first):
            assert await leases.name(market, leading("s2"), after=wrong) is None
        assert await leases.name(market, leading("s2"), after=leader.revision) is not None

    @pytest.mark.parametrize(
        "garbage", [b"", b"\xff", b"[" * 5000, b'{"server":7}', b'{"incarnation":"x"', b"[1]"]
    )
    async def test_unreadable_bytes_are_no_record_and_can_be_followed(
        self, world: LeaseWorld, market: str, garbage: bytes
    ) -> None:
        leases = await world.open()
        await world.write(LEADERS_BUCKET, market, garbage)
        await world.write(SERVERS_BUCKET, f"{market}-s1", garbage)

        (server,), (leader,) = await news_of(leases, market)

        assert (server.record, leader.record) == (None, None)
        await leases.renew(living(f"{market}-s1"))
        revision = await named(leases, market, "s1", after=leader.revision)
        (server,), leaders = await news_of(leases, market)
        assert server.record == living(f"{market}-s1")
        assert leaders == [LeaderNews(market, revision, leading("s1"))]

    async def test_fields_of_later_versions_are_passed_over(
        self, world: LeaseWorld, market: str
    ) -> None:
        leases = await world.open()
        await world.write(LEADERS_BUCKET, market, b'{"server":"s1","since":1}')
        name = f"{market}-s1"
        written = f'{{"server":"{name}","incarnation":"i","load":0.5}}'
        await world.write(SERVERS_BUCKET, name, written.encode())

        (server,), (leader,) = await news_of(leases, market)

        assert leader.record == LeaderRecord(server="s1")
        assert server.record == structs.replace(living(name), incarnation="i")

    @pytest.mark.parametrize("name", ["a b", "a.b", "", "x" * 33])
    async def test_record_of_no_possible_server_is_none(
        self, world: LeaseWorld, market: str, name: str
    ) -> None:
        """Whoever wrote it there: it becomes a part of a subject, and must end no server."""
        leases = await world.open()
        named = f'{{"server":"{name or "*"}","incarnation":"i"}}'
        await world.write(LEADERS_BUCKET, market, named.encode())
        of_another = f'{{"server":"{name}","incarnation":"i"}}'
        await world.write(SERVERS_BUCKET, f"{market}-s1", of_another.encode())

        (server,), (leader,) = await news_of(leases, market)

        assert (server.record, leader.record) == (None, None)
