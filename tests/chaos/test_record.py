"""What passes a watched link is in the record, copy by copy, as it was on the wire."""

import asyncio

import msgspec
import pytest

from dex_client.link import Link
from dex_runtime.messaging import NoReply, NoResponder
from tests.chaos.record import Record, Watched
from tests.checker.history import NO_RESPONDER

ORDERS = "dex.orders.BTC-USD.alice"
SUBMIT = {"op": "submit", "side": "buy", "quantity": "1", "order_id": "order_alice_1_1"}
CANCEL = {"op": "cancel", "order_id": "order_alice_1_1", "command_id": "command_alice_1_2"}
RETRY = {"status": "retry", "reason": "busy"}
DONE = {"status": "new", "order_id": "order_alice_1_1", "sequence": 7}
CANCELED = {"status": "canceled", "command_id": "command_alice_1_2", "sequence": 7}


class Answering(Link):
    """A link that answers as it was told to."""

    def __init__(self, *answers: object) -> None:
        super().__init__()
        self.answers = list(answers)

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return msgspec.json.encode(answer)


def recorded(*answers: object) -> tuple[Record, Watched, list[str]]:
    heard: list[str] = []
    record = Record(lambda market, _: heard.append(market))
    return record, Watched(Answering(*answers), record), heard


async def send(watched: Watched, what: object, subject: str = ORDERS) -> None:
    await watched.request(subject, msgspec.json.encode(what), timeout_s=1)


async def test_copies_of_a_command_are_under_it_in_the_order_they_were_sent() -> None:
    record, watched, heard = recorded(RETRY, NoReply("lost"), NoResponder("nobody"), DONE)
    await send(watched, SUBMIT)
    with pytest.raises(NoReply):
        await send(watched, SUBMIT)
    with pytest.raises(NoResponder):
        await send(watched, SUBMIT)
    await send(watched, SUBMIT)

    (sent,) = record.sent

    assert (sent.market, sent.peer, sent.command) == ("BTC-USD", "alice", SUBMIT)
    assert [copy.answer for copy in sent.copies] == [RETRY, None, NO_RESPONDER, DONE]
    assert [copy.ended is None for copy in sent.copies] == [False, True, False, False]
    assert [copy.sent for copy in sent.copies] == sorted(copy.sent for copy in sent.copies)
    assert heard == ["BTC-USD"]


async def test_each_command_of_a_batch_has_its_own_answer() -> None:
    record, watched, _ = recorded([RETRY, CANCELED])
    await send(watched, [SUBMIT, CANCEL])

    assert [sent.copies[0].answer for sent in record.sent] == [RETRY, CANCELED]


async def test_one_answer_to_a_batch_is_that_of_all() -> None:
    record, watched, _ = recorded([RETRY])
    await send(watched, [SUBMIT, CANCEL])

    assert [sent.copies[0].answer for sent in record.sent] == [RETRY, RETRY]


async def test_same_id_with_other_content_is_another_command() -> None:
    record, watched, _ = recorded(DONE, DONE)
    await send(watched, SUBMIT)
    await send(watched, {**SUBMIT, "quantity": "2"})

    assert [sent.command["quantity"] for sent in record.sent] == ["1", "2"]


async def test_copy_whose_sender_was_canceled_has_no_answer() -> None:
    record, watched, _ = recorded(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await send(watched, SUBMIT)

    assert record.sent[0].copies[0].answer is None


async def test_receipt_is_believed_whatever_becomes_of_later_copies() -> None:
    record, watched, _ = recorded(DONE)
    await send(watched, SUBMIT)
    for belief in ("unavailable", "unknown", "receipt", "unknown"):
        record.believe("BTC-USD", "alice", SUBMIT, belief)

    assert record.sent[0].believed == "receipt"


async def test_command_that_never_left_is_not_in_the_record() -> None:
    record, _, _ = recorded()
    record.believe("BTC-USD", "alice", SUBMIT, "unavailable")

    assert record.sent == []


async def test_answered_questions_are_in_the_record_and_retries_are_not() -> None:
    record, watched, _ = recorded({"sequence": 3, "bids": [], "asks": []}, RETRY)
    for _ in range(2):
        await send(watched, {"depth": 5}, "dex.query.BTC-USD.book.alice")

    (asked,) = record.asked

    assert (asked.what, asked.peer, asked.request) == ("book", "alice", {"depth": 5})
    assert asked.reply["sequence"] == 3


async def test_pages_of_the_log_are_not_in_the_record() -> None:
    record, watched, _ = recorded({"sequence": 3, "first_sequence": 1, "commits": []})
    await send(watched, {"from_sequence": 1}, "dex.query.BTC-USD.log.alice")

    assert record.asked == []
