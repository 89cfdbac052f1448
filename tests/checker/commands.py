"""What was sent to the markets, put together by command: all its copies, and their answers.

Sorts answers by what they say of their copy. Knows no log and no engine.
"""

from typing import Final, Literal

from msgspec import Struct, field

from tests.checker.history import History, Json, Loss
from tests.checker.logs import UNREADABLE, Execution, Log
from tests.checker.verdict import Verdict
from tests.property.reference_engine import content_of, filled_in, pair_of

Kind = Literal["none", "turned_away", "unread", "of_copy", "duplicate", "fresh"]
"""What an answer says.

`none`: there is none, or it rests on what the log lost. `turned_away`: the copy was not executed,
and no state was asked (`retry`, `batch_too_large`). `unread`: nor can any other copy be.
`of_copy`: its id is too old, or was used for something else; this copy was not executed.
`duplicate`: the outcome, once more. `fresh`: the outcome, from where it was decided.
"""

UNREAD: Final = ("malformed", "unknown_value", "wrong_peer")
OF_COPY: Final = ("stale_id", "id_reused")

NOT_EXECUTED: Final = ("turned_away", "unread", "of_copy")
"""Answers that say that their copy was not executed."""

RECEIPT_FIELDS: Final = {
    "order_id", "command_id", "status", "filled_quantity", "remaining_quantity", "average_price",
    "trades", "version", "sequence", "duplicate", "canceled", "more", "count", "reason",
    "order_status",
}  # fmt: skip
"""All but `message`; what else there is, is not known to this protocol, and ignored."""

EMPTY: Final = (None, False, "", [])
"""Values of fields that may as well be left out."""


def essence(receipt: Json) -> Json:
    """Reduce a receipt to what can be compared."""
    return {
        name: value
        for name, value in receipt.items()
        if name in RECEIPT_FIELDS and value not in EMPTY
    }


class Answered(Struct):
    """A copy, and what its answer says."""

    sent: float
    ended: float | None
    answer: Json
    kind: Kind
    sequence: int | None = None
    """The commit that it names; None when it names none, or one beyond the log's end."""
    is_of_newcomer: bool = False
    """A refusal of a peer for whom the market has no room: there is no event, and nothing is
    remembered."""

    @property
    def is_refusal(self) -> bool:
        """Whether it refuses."""
        return self.answer.get("status") == "rejected"


class Known(Struct):
    """One command, as often as it was sent."""

    market: str
    peer: str
    own_id: str
    command: Json
    copies: list[Answered] = field(default_factory=list)
    unavailable: list[list[Answered]] = field(default_factory=list)
    """The copies of which its peer believes, together, that none was executed."""
    execution: Execution | None = None
    """Its first outcome in the log."""
    expected: Json | None = None
    """The naive engine's receipt of that execution, once it was executed again."""

    @property
    def content(self) -> str:
        """The hash of all it says; of one that cannot be read, something that is no hash."""
        try:
            return content_of(filled_in(self.command))
        except UNREADABLE:
            return repr(sorted(self.command.items(), key=str))


class Commands:
    """All commands of a history, by market and id."""

    def __init__(self, history: History, logs: dict[str, Log], verdict: Verdict) -> None:
        self.all: list[Known] = []
        self.verdict = verdict
        self.logs = logs
        self.losses = history.losses
        self._by_id: dict[tuple[str, str], list[Known]] = {}
        for sent in history.sent:
            known = self._known(
                Known(sent.market, sent.peer, own_id_of_command(sent.command) or "", sent.command)
            )
            copies = [
                self._answered(known, copy.sent, copy.ended, copy.answer) for copy in sent.copies
            ]
            known.copies += copies
            if sent.believed == "unavailable":
                known.unavailable.append(copies)
        verdict.commands = len(self.all)
        verdict.copies = sum(len(known.copies) for known in self.all)

    def _known(self, new: Known) -> Known:
        # The same command may be recorded several times, and an id used for several commands.
        of_id = self._by_id.setdefault((new.market, new.own_id), [])
        for known in of_id:
            if known.peer == new.peer and (
                known.command == new.command or known.content == new.content
            ):
                return known
        of_id.append(new)
        self.all.append(new)
        return new

    def _answered(
        self, known: Known, sent: float, ended: float | None, answer: Json | None
    ) -> Answered:
        if answer is None:
            return Answered(sent, ended, {}, "none")
        sequence = answer.get("sequence")
        if not isinstance(sequence, int):
            sequence = None
        if sequence is not None and is_lost(self.losses, known.market, ended, sequence):
            self.verdict.lost += 1
            return Answered(sent, ended, {}, "none")
        answered = Answered(sent, ended, answer, kind_of(answer), sequence)
        end = self.logs[known.market].end if known.market in self.logs else 0
        if sequence is not None and not 1 <= sequence <= end:
            answered.sequence = None
            self.verdict.report(
                "settled",
                known.market,
                known.own_id,
                f"expected a receipt that names a commit from 1 to {end}, found {sequence}",
            )
        return answered

    def find(self, market: str, execution: Execution) -> Known | None:
        """Find the command whose outcome stands in a log; None when nobody sent it."""
        of_id = [
            known
            for known in self._by_id.get((market, execution.own_id), ())
            if known.peer == execution.peer
        ]
        if len(of_id) > 1:
            # The id was used for several: the content tells. It follows from the fields of an
            # `accepted`.
            event = execution.event
            content = event.get("content") or content_of(filled_in(submit_of(event)))
            same = [known for known in of_id if known.content == content]
            of_id = same or of_id
        return of_id[0] if of_id else None


def is_lost(losses: list[Loss], market: str, ended: float | None, sequence: int) -> bool:
    """Tell whether an answer rests on commits that the log has lost since."""
    return any(
        loss.market == market and sequence > loss.kept and ended is not None and ended <= loss.at
        for loss in losses
    )


def own_id_of_command(command: Json) -> str | None:
    """Give a command's own id; None when it has none, or one that is no text."""
    own_id = command.get("order_id" if command.get("op") == "submit" else "command_id")
    return own_id if isinstance(own_id, str) else None


def pair_or_none(own_id: str) -> tuple[int, int] | None:
    """Read the pair off an id; None when it is no id."""
    try:
        return pair_of(own_id)
    except ValueError:
        return None


def submit_of(accepted: Json) -> Json:
    """Make the command of which an `accepted` is the outcome: all of it stands there."""
    names = (
        "order_id", "side", "type", "price", "quantity", "time_in_force", "expires_at",
        "post_only", "self_trade",
    )  # fmt: skip
    command = {name: accepted[name] for name in names if name in accepted}
    return {"op": "submit", "time_in_force": "gtc", **command}


def kind_of(answer: Json) -> Kind:
    """Sort an answer by what it says of its copy."""
    status, reason = answer.get("status"), answer.get("reason")
    if status == "retry" or reason == "batch_too_large":
        return "turned_away"
    if status == "rejected" and reason in UNREAD:
        return "unread"
    if status == "rejected" and reason in OF_COPY:
        return "of_copy"
    return "duplicate" if answer.get("duplicate") else "fresh"
