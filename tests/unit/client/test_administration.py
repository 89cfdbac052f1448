"""What an operator is told, whatever comes back, and what is asked of JetStream."""

import json
from collections.abc import Sequence
from random import Random

import pytest

from dex_client.administration import Administration
from dex_client.errors import NotConfirmed, ProtocolMismatch, Unavailable
from dex_protocol.administration import AdminReply
from dex_protocol.receipts import Receipt
from dex_protocol.specification import AskedSpecification, SpecificationChange
from dex_runtime import buckets
from dex_runtime.buckets import BucketUnavailable
from dex_runtime.messaging import NoReply, NoResponder

DONE = b'{"sequence":7}'
# Refusals rest on commits too.
REFUSED = b'{"status":"rejected","sequence":7,"reason":"market_halted","message":"closed"}'
BUSY = b'{"status":"retry","reason":"busy","message":"later"}'
NOBODY = NoResponder("nobody")
SILENCE = NoReply("silence")


class Channel:
    """Answers in turn, and then as it did last."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bytes]] = []

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Answer as a Requester does."""
        assert timeout_s > 0
        self.asked.append((subject, payload))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def administration(channel: Channel, *, deadline_s: float = 5.0) -> Administration:
    return Administration(channel, deadline_s=deadline_s, random=Random(1))


async def test_each_wish_has_its_subject_and_its_fields() -> None:
    channel = Channel(DONE)
    operator = administration(channel)
    specification = AskedSpecification(market="X", tick_size="0.01", lot_size="1")
    answers: Sequence[AdminReply | Receipt] = [
        await operator.open(specification),
        await operator.change("X", SpecificationChange(max_price="5")),
        await operator.halt("X"),
        await operator.resume("X"),
        await operator.close("X"),
    ]

    assert answers == [AdminReply(7)] * 5
    assert [(subject, json.loads(payload)) for subject, payload in channel.asked] == [
        (
            "dex.admin.X.open",
            {"specification": {"market": "X", "tick_size": "0.01", "lot_size": "1"}},
        ),
        ("dex.admin.X.change", {"max_price": "5"}),
        ("dex.admin.X.halt", {}),
        ("dex.admin.X.resume", {}),
        ("dex.admin.X.close", {}),
    ]


async def test_refusal_with_a_sequence_is_still_a_refusal() -> None:
    answer = await administration(Channel(REFUSED)).resume("X")

    assert isinstance(answer, Receipt)
    assert (answer.status, answer.reason) == ("rejected", "market_halted")


async def test_wish_is_sent_again_until_it_is_answered() -> None:
    channel = Channel(NOBODY, BUSY, SILENCE, DONE)

    assert await administration(channel).halt("X") == AdminReply(7)
    assert len(channel.asked) == 4


@pytest.mark.parametrize("answer", [NOBODY, BUSY])
async def test_wish_that_nobody_took_is_unavailable(answer: bytes | Exception) -> None:
    with pytest.raises(Unavailable, match=r"expected a server that can halt X within 0\.3 s"):
        await administration(Channel(answer), deadline_s=0.3).halt("X")


async def test_wish_that_somebody_may_have_taken_is_not_confirmed() -> None:
    with pytest.raises(NotConfirmed, match=r"expected an answer to halt of X within 0\.3 s"):
        await administration(Channel(SILENCE, NOBODY), deadline_s=0.3).halt("X")


async def test_answer_that_is_none_is_a_mismatch() -> None:
    with pytest.raises(ProtocolMismatch, match="the reply to halt"):
        await administration(Channel(b"[]")).halt("X")


# --- The directory ------------------------------------------------------------------------------


def page(*markets: str, total: int) -> bytes:
    subjects = {f"$KV.DEX-MARKETS.{market}": 1 for market in markets}
    return json.dumps({"total": total, "state": {"subjects": subjects}}).encode()


async def test_markets_are_listed_page_by_page() -> None:
    channel = Channel(page("C", "A", total=3), page("B", total=3))

    assert await administration(channel).markets() == ["A", "B", "C"]
    assert [(subject, json.loads(payload)) for subject, payload in channel.asked] == [
        ("$JS.API.STREAM.INFO.KV_DEX-MARKETS", {"subjects_filter": every, "offset": offset})
        for every, offset in [("$KV.DEX-MARKETS.>", 0), ("$KV.DEX-MARKETS.>", 2)]
    ]


async def test_no_bucket_and_an_empty_one_have_no_keys() -> None:
    missing = b'{"error":{"code":404,"err_code":10059,"description":"stream not found"}}'
    empty = b'{"state":{"messages":0}}'

    assert await buckets.keys(Channel(missing), "B", timeout_s=1) == []
    assert await buckets.keys(Channel(empty), "B", timeout_s=1) == []


@pytest.mark.parametrize("answer", [NOBODY, SILENCE, b"what?", b'{"error":{"err_code":10008}}'])
async def test_list_that_jetstream_does_not_give_is_unavailable(answer: bytes | Exception) -> None:
    with pytest.raises(BucketUnavailable):
        await buckets.keys(Channel(answer), "B", timeout_s=1)
    with pytest.raises(Unavailable, match="expected JetStream's list of markets"):
        await administration(Channel(answer), deadline_s=0.1).markets()


async def test_list_is_asked_for_again() -> None:
    assert await administration(Channel(NOBODY, page("A", total=1))).markets() == ["A"]
