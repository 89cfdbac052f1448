"""Questions are asked until there is an answer, and long answers are put together again."""

from random import Random

import pytest

from dex_client.errors import ProtocolMismatch, Unavailable
from dex_client.queries import Queries
from dex_client.retry import Policy
from dex_protocol.codec import encode
from dex_protocol.queries import StatusReply
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt, refused, retry
from dex_runtime.messaging import NoReply, NoResponder
from tests.builders import a_market, buy, send
from tests.unit.client.exchange import Replica

SEED = 2
MARKET = "BTC-USD"


@pytest.fixture
def replica() -> Replica:
    market = a_market()
    snapshot = market.snapshot()
    log = [b'{"sequence":1}', *(send(market, buy("1 @ 100", number)) for number in range(1, 8))]
    return Replica(market, log, snapshot=snapshot)


@pytest.fixture
def queries(replica: Replica) -> Queries:
    return asking(replica, deadline_s=60)


def asking(replica: Replica, *, deadline_s: float) -> Queries:
    policy = Policy(deadline_s=deadline_s)
    return Queries(replica, "alice", policy=policy, random=Random(SEED))  # type: ignore[arg-type]


async def test_a_question_is_asked_again_until_somebody_answers(
    replica: Replica, queries: Queries
) -> None:
    replica.instead = [
        NoResponder("503"),
        NoReply("silence"),
        encode(retry(RetryReason.busy)),
        encode(retry(RetryReason.rate_limited)),
    ]

    status = await queries.status(MARKET)

    assert isinstance(status, StatusReply)
    assert status.digest == replica.market.digest
    assert replica.asked == ["status"] * 5


async def test_a_question_that_nobody_answers_is_given_up(replica: Replica) -> None:
    replica.instead = [NoResponder("503")] * 1_000

    with pytest.raises(Unavailable, match="an answer to status of BTC-USD"):
        await asking(replica, deadline_s=0.3).status(MARKET)


async def test_a_refusal_is_an_answer(replica: Replica, queries: Queries) -> None:
    replica.instead = [encode(refused(Reason.unknown_market))]

    answer = await queries.status(MARKET)

    assert isinstance(answer, Receipt)
    assert answer.reason == "unknown_market"


@pytest.mark.parametrize("reply", [b"", b"[]", b"\xff", b'{"sequence": 1}'])
async def test_what_is_neither_is_a_mismatch(
    replica: Replica, queries: Queries, reply: bytes
) -> None:
    replica.instead = [reply]

    with pytest.raises(ProtocolMismatch):
        await queries.status(MARKET)


@pytest.mark.parametrize("first", [1, 4, 8])
@pytest.mark.parametrize("last", [5, 8])
@pytest.mark.parametrize("page_count", [1, 3, 100])
async def test_a_log_is_read_page_by_page_byte_for_byte(
    replica: Replica, queries: Queries, first: int, last: int, page_count: int
) -> None:
    replica.page_count = page_count

    read = [payload async for payload in queries.log(MARKET, from_sequence=first, to_sequence=last)]

    assert read == replica.log[first - 1 : last]


async def test_a_log_that_has_no_more_ends_early(replica: Replica, queries: Queries) -> None:
    read = [payload async for payload in queries.log(MARKET, from_sequence=7, to_sequence=99)]

    assert read == replica.log[6:]


@pytest.mark.parametrize("part_bytes", [7, 100, 100_000])
async def test_a_snapshot_is_put_together_from_its_parts(
    replica: Replica, queries: Queries, part_bytes: int
) -> None:
    replica.part_bytes = part_bytes

    assert await queries.snapshot(MARKET) == replica.snapshot


async def test_a_market_without_a_snapshot_has_none(replica: Replica, queries: Queries) -> None:
    replica.snapshot = None

    assert await queries.snapshot(MARKET) is None


async def test_a_snapshot_that_is_replaced_meanwhile_is_fetched_anew(
    replica: Replica, queries: Queries
) -> None:
    replica.part_bytes = 100
    whole = replica.request

    async def gone_once(subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if len(replica.asked) == 2:
            replica.instead = [encode(retry(RetryReason.snapshot_gone))]
        return await whole(subject, payload, timeout_s=timeout_s)

    replica.request = gone_once  # type: ignore[method-assign]

    assert await queries.snapshot(MARKET) == replica.snapshot


async def test_a_snapshot_with_other_bytes_than_its_hash_says_is_a_mismatch(
    replica: Replica, queries: Queries
) -> None:
    whole = replica._snapshot

    def damaged(payload: bytes) -> object:
        reply = whole(payload)
        reply.hash = "0" * 32  # type: ignore[union-attr]
        return reply

    replica._snapshot = damaged  # type: ignore[method-assign, assignment]

    with pytest.raises(ProtocolMismatch, match="a snapshot"):
        await queries.snapshot(MARKET)
