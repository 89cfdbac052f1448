"""What was seen of an exchange from outside: all that the checker judges, and nothing else.

A history is recorded by whoever runs peers: the simulation, the integration tests, chaos on a real
cluster. Commands, receipts and commits are what the wire carries, as decoded JSON, so that a
history can be written to a file, and so that no code of the exchange stands between the wire and
the judge.

Times are in seconds, by one clock that all recorders share and that never goes back.
"""

from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

Json: TypeAlias = dict[str, Any]

NO_RESPONDER: Json = {"status": "retry", "reason": "no_responder"}
"""How the 503 of a copy that reached nobody is recorded: it reads as `retry`."""

Belief: TypeAlias = Literal["", "unavailable", "unknown", "receipt"]
"""What a peer's own library made of a command in the end: nothing was executed, nobody knows, it
has its outcome; empty when the library was not asked."""


class Copy(Struct):
    """One copy of a command on its way: alone, or in a batch with others."""

    sent: float
    ended: float | None = None
    """When its answer came; None when none came, or nobody waited for one."""
    answer: Json | None = None
    """This command's own receipt, `retry` included; None: nobody knows what became of the copy."""


class Sent(Struct):
    """One command with an id, and every copy of it that was ever sent, in the order of `sent`.

    A copy that the network made of one, or that somebody recorded and sent again, is one too. Two
    different commands may bear one id, by a peer's mistake: each is then a `Sent` of its own.
    """

    market: str
    peer: str
    command: Json
    copies: list[Copy] = field(default_factory=list)
    believed: Belief = ""


class Asked(Struct):
    """A query and its answer; one without an answer is not worth recording."""

    market: str
    peer: str
    what: str
    request: Json
    sent: float
    ended: float
    reply: Json


class End(Struct):
    """Where one replica of a market stood when all was over: a server's, or a client's."""

    who: str
    market: str
    sequence: int
    hash: str
    """Of the commit at that sequence, as the next one's `previous` names it; empty when the
    replica does not tell."""
    digest: str


class Loss(Struct):
    """The log lost its tail, as no log may: at a time, all entries after a sequence were gone."""

    market: str
    at: float
    kept: int
    """The last sequence that was left."""


class History(Struct):
    """Everything, in no particular order but where it is said."""

    specifications: dict[str, Json] = field(default_factory=dict)
    """The markets, as they were opened."""
    sent: list[Sent] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)
    """Each market's log when all was over: the stored payloads, from commit 1, byte for byte."""
    ends: list[End] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)


def answers_in(reply: Any, count: int) -> list[Json]:
    """Give the answer to each of so many commands, out of the decoded reply to them together.

    A batch that was not taken at all has one answer for all.
    """
    answers: list[Json] = reply if isinstance(reply, list) else [reply]
    if len(answers) == 1:
        answers = answers * count
    assert len(answers) == count, f"expected {count} answers, found {len(answers)}"
    return answers
