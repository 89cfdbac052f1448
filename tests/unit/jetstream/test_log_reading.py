"""What a log makes of answers that are late, short or wrong; answers are made up here."""

import json
from base64 import b64encode

import pytest

from dex_runtime.messaging import NoReply, NoResponder, Replies, Reply
from dex_server.jetstream.log import JetStreamLog
from dex_server.replication.ports import LogUnavailable, Undecided
from tests.contracts.log_contract import BEGINNING, after

TIME = "2026-01-31T09:30:00.123456789Z"


class MadeUp:
    """A requester whose answers a test writes, in the order they are asked for."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    async def request(self, subject: str, payload: bytes, **_: object) -> bytes:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer).encode()

    async def request_many(self, subject: str, payload: bytes, **_: object) -> Replies:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Replies)
        return answer


def log(*answers: object) -> JetStreamLog:
    return JetStreamLog(MadeUp(*answers), "M")  # type: ignore[arg-type]


def replies(*sequences: int, status: str = "204") -> Replies:
    return Replies(
        [
            Reply(
                {"Nats-Sequence": str(n), "Nats-Subject": "s", "Nats-Time-Stamp": TIME}, b"%d" % n
            )
            for n in sequences
        ],
        status,
        "",
    )


def stands(sequence: int, payload: bytes) -> dict[str, object]:
    data = b64encode(payload).decode()
    return {"message": {"subject": "s", "seq": sequence, "data": data, "time": TIME}}


NOT_FOUND = {"error": {"code": 404, "err_code": 10037, "description": "no message found"}}
NO_LEADER = {"error": {"code": 503, "err_code": 10008, "description": "unavailable"}}


@pytest.mark.parametrize(
    ("received", "given"), [((4, 5, 6), [4, 5, 6]), ((4, 6), [4]), ((4, 5, 5), [4, 5])]
)
async def test_read_ends_at_the_first_hole(received: tuple[int, ...], given: list[int]) -> None:
    entries = await log(replies(*received)).read(4, through_sequence=6, bytes_max=1000)

    assert [entry.sequence for entry in entries] == given
    assert entries[0].stored_at == 1_769_851_800_123_457


@pytest.mark.parametrize("received", [(), (5, 6), (3,)])
async def test_leader_is_asked_when_a_replica_has_not_the_first(received: tuple[int, ...]) -> None:
    """A replica may be behind, or have been trimmed already."""
    short = replies(*received, status="204" if received else "404")

    (entry,) = await log(short, stands(4, b"four")).read(4, through_sequence=6, bytes_max=1000)

    assert (entry.sequence, entry.payload) == (4, b"four")
    assert await log(short, NOT_FOUND).read(4, through_sequence=6, bytes_max=1000) == []


@pytest.mark.parametrize(
    "answer", [NoReply("late"), NoResponder("nobody"), replies(4, status="408")]
)
async def test_read_without_a_proper_end_is_unavailable(answer: object) -> None:
    with pytest.raises(LogUnavailable):
        await log(answer).read(4, through_sequence=6, bytes_max=1000)


@pytest.mark.parametrize("answer", [NoReply("late"), NoResponder("nobody"), NO_LEADER, {}, "?"])
async def test_entry_and_bounds_without_a_proper_answer_are_unavailable(answer: object) -> None:
    with pytest.raises(LogUnavailable):
        await log(answer).entry(1)
    with pytest.raises(LogUnavailable):
        await log(answer).bounds()


@pytest.mark.parametrize(
    "answer",
    [
        NoReply("late"),
        NoResponder("nobody"),
        "?",
        {"stream": "S", "seq": 0, "error": {"code": 400, "err_code": 10071}},
        {"stream": "S", "seq": 7},
        {"stream": "S", "seq": 7, "duplicate": True},
        {},
    ],
)
async def test_append_without_a_confirmation_at_its_place_is_undecided(answer: object) -> None:
    with pytest.raises(Undecided):
        await log(answer).append(b"one", after=BEGINNING)


async def test_append_that_is_confirmed_as_a_copy_at_its_place_is_stored() -> None:
    await log({"stream": "S", "seq": 1, "duplicate": True}).append(b"one", after=BEGINNING)


async def test_predecessor_is_looked_at_once_and_not_after_an_own_append() -> None:
    """The made-up answers run out if anything more is asked."""
    own = log(stands(7, b"seven"), {"stream": "S", "seq": 8}, {"stream": "S", "seq": 9})

    await own.append(b"eight", after=after(7, b"seven"))
    await own.append(b"nine", after=after(8, b"eight"))


@pytest.mark.parametrize("answer", [stands(7, b"other"), NOT_FOUND, NO_LEADER, NoReply("late")])
async def test_nothing_is_sent_behind_a_predecessor_that_is_not_seen(answer: object) -> None:
    with pytest.raises(Undecided, match="expected"):
        await log(answer).append(b"eight", after=after(7, b"seven"))
