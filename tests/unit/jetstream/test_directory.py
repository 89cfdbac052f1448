"""What the directory makes of answers that fail half way; answers are made up here."""

import pytest

from dex_runtime.messaging import NoReply, Replies, Reply
from dex_server.jetstream.markets import Directory
from dex_server.replication.ports import LogUnavailable

TIME = "2026-01-31T09:30:00.123456789Z"


class MadeUp:
    """A requester whose answers a test writes, in the order they are asked for."""

    def __init__(self, *answers: Replies | Exception) -> None:
        self._answers = list(answers)

    async def request_many(self, subject: str, payload: bytes, **_: object) -> Replies:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def entries(*sequences: int) -> Replies:
    return Replies(
        [
            Reply(
                {
                    "Nats-Sequence": str(n),
                    "Nats-Subject": f"$KV.DEX-MARKETS.M-{n}",
                    "Nats-Time-Stamp": TIME,
                },
                b"%d" % n,
            )
            for n in sequences
        ],
        "204",
        "",
    )


NOTHING = Replies([], "404", "")


async def test_markets_found_before_a_failure_are_given_the_next_time() -> None:
    """A server that starts reads them all at once, and must not lose them to one lost answer."""
    directory = Directory(
        MadeUp(entries(1, 2), NoReply("none"), entries(1, 2), NOTHING, NOTHING)  # type: ignore[arg-type]
    )
    with pytest.raises(LogUnavailable):
        await directory.news()

    assert await directory.news() == [("M-1", b"1"), ("M-2", b"2")]
    assert await directory.news() == []
