"""What leases make of a store that changes while it is read, or fails half way."""

import json
from base64 import b64encode
from typing import Any

import pytest

from dex_protocol.subjects import LEADERS_BUCKET, SERVERS_BUCKET
from dex_runtime.messaging import NoReply
from dex_server.jetstream import api
from dex_server.jetstream.leases import JetStreamLeases
from dex_server.replication.ports import LeaderRecord, LogUnavailable, News

TIME = "2026-01-31T09:30:00.123456789Z"
NONE = {"error": {"code": 404, "err_code": api.NO_MESSAGE_FOUND, "description": "none"}}


class MadeUp:
    """A requester over two buckets whose keys have nothing but revisions."""

    def __init__(self) -> None:
        self.revisions: dict[str, int] = {}
        self.request_count = 0
        self.fails_at: int | None = None
        self.rewritten: dict[str, list[str]] = {}
        """What is written as soon as a key was read."""
        self.answer_to_writing: dict[str, Any] = {}

    def write(self, bucket: str, *keys: str) -> None:
        for key in keys:
            self.revisions[f"$KV.{bucket}.{key}"] = max(self.revisions.values(), default=0) + 1

    async def request(self, subject: str, payload: bytes, **_: object) -> bytes:
        self.request_count += 1
        if self.request_count == self.fails_at:
            raise NoReply("none")
        if subject.startswith("$KV."):
            return json.dumps(self.answer_to_writing).encode()
        bucket = subject.removeprefix("$JS.API.STREAM.MSG.GET.KV_")
        found = self._found(bucket, json.loads(payload))
        if found is None:
            return json.dumps(NONE).encode()
        revision, key = found
        self.write(bucket, *self.rewritten.get(key, []))
        message = {
            "subject": f"$KV.{bucket}.{key}",
            "seq": revision,
            "time": TIME,
            "data": b64encode(b"{}").decode(),
        }
        return json.dumps({"message": message}).encode()

    def _found(self, bucket: str, query: dict[str, Any]) -> tuple[int, str] | None:
        begin = f"$KV.{bucket}."
        keys = [
            (revision, subject.removeprefix(begin))
            for subject, revision in self.revisions.items()
            if subject.startswith(begin)
        ]
        if "last_by_subj" in query:
            keys = [found for found in keys if f"{begin}{found[1]}" == query["last_by_subj"]]
        else:
            assert query["next_by_subj"] == f"{begin}>"
            keys = [found for found in keys if found[0] >= query["seq"]]
        return min(keys, default=None)


def leases(made_up: MadeUp) -> JetStreamLeases:
    return JetStreamLeases(made_up)  # type: ignore[arg-type]


def keys_of(news: News) -> list[str]:
    return [found.server for found in news.servers] + [found.market for found in news.leaders]


async def test_nothing_new_costs_a_request_for_each_bucket() -> None:
    made_up = MadeUp()
    made_up.write(LEADERS_BUCKET, "A", "B")
    own = leases(made_up)
    await own.news()
    made_up.request_count = 0

    assert await own.news() == News(servers=[], leaders=[])
    assert made_up.request_count == 2


@pytest.mark.parametrize("fails_at", range(1, 7))
async def test_news_are_given_the_next_time_whichever_request_failed(fails_at: int) -> None:
    """Four keys, and twice that there are no more."""
    made_up = MadeUp()
    made_up.write(SERVERS_BUCKET, "s1", "s2")
    made_up.write(LEADERS_BUCKET, "A", "B")
    own = leases(made_up)
    made_up.fails_at = fails_at
    with pytest.raises(LogUnavailable):
        await own.news()

    assert keys_of(await own.news()) == ["s1", "s2", "A", "B"]
    assert keys_of(await own.news()) == []


async def test_key_that_is_rewritten_ahead_of_the_reading_is_met_farther_on() -> None:
    made_up = MadeUp()
    made_up.write(SERVERS_BUCKET, "s1", "s2", "s3")
    made_up.rewritten = {"s1": ["s2"]}

    assert keys_of(await leases(made_up).news()) == ["s1", "s3", "s2"]


async def test_reading_ends_where_others_write_as_fast_as_it_reads() -> None:
    """And no key that was always written just ahead of it passes for unchanged."""
    made_up = MadeUp()
    made_up.write(SERVERS_BUCKET, "s1", "s2", "s3")
    own = leases(made_up)
    await own.news()
    # Whenever one of two is read it is written again, and the third once more after it.
    made_up.rewritten = {"s1": ["s2", "s3"], "s2": ["s1", "s3"]}
    made_up.write(SERVERS_BUCKET, "s1", "s3")
    made_up.request_count = 0
    revisions: dict[str, int] = {}

    for _ in range(10):
        news = await own.news()

        assert sorted(keys_of(news)) == ["s1", "s2", "s3"]
        for found in news.servers:
            assert found.revision > revisions.get(found.server, 0)
            revisions[found.server] = found.revision
    # Two for each key and one more, and one for the leaders.
    assert made_up.request_count <= 10 * (2 * 3 + 1 + 1)


async def test_keys_of_several_tokens_are_nobody_elses() -> None:
    """A bucket takes them, though no name of ours has a dot."""
    made_up = MadeUp()
    made_up.write(LEADERS_BUCKET, "A.B", "B")

    assert keys_of(await leases(made_up).news()) == ["A.B", "B"]


@pytest.mark.parametrize("code", sorted(api.WRONG_LAST_SEQUENCE))
async def test_naming_that_is_refused_for_another_is_none(code: int) -> None:
    made_up = MadeUp()
    made_up.answer_to_writing = {"error": {"code": 400, "err_code": code}}

    assert await leases(made_up).name("A", LeaderRecord(), after=3) is None


async def test_naming_that_is_refused_otherwise_is_unavailable() -> None:
    made_up = MadeUp()
    made_up.answer_to_writing = {"error": {"code": 503, "err_code": 10077}}

    with pytest.raises(LogUnavailable):
        await leases(made_up).name("A", LeaderRecord(), after=3)
