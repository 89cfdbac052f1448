"""A market's log as it was found: its chain, its terms, and which ids have an outcome where.

All of it is read off the commits themselves. Knows no rule of matching, and nothing of what was
sent to the market.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct, field

from tests.checker.history import Json
from tests.checker.verdict import Rule, Verdict, shown
from tests.property.reference_engine import specification_of

COMMIT_BYTES_MAX: Final = 512 * 1024
HASH_OF_NOTHING: Final = "0" * 32

OPENING: Final = ("market_opened", "leader_changed")
"""Events that stand before all others of a commit, and are nobody's command."""

OUTCOMES: Final = ("accepted", "amended", "canceled", "canceled_all", "rejected")
"""Events that may be the outcome of a command with an id."""

EVENTS: Final = {*OPENING, *OUTCOMES, "market_changed", "trade", "reduced", "expired"}
"""All kinds; one that is not among them changes no book, and is passed over."""

UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What is raised for things of another shape than expected; msgspec's errors are ValueErrors."""


class Commit(Struct):
    """One entry of a log; its `sequence` is where it stands, whatever it says itself."""

    sequence: int
    hash: str
    term: int
    time: int
    digest: str
    events: list[Json]
    leader: str = ""


class Execution(Struct):
    """The outcome of a command: where it stands in the log, and as which event."""

    own_id: str
    peer: str
    sequence: int
    index: int
    event: Json


class Log(Struct):
    """A market's commits, in order, as far as they can be read."""

    market: str
    end: int
    """The sequence of the last commit, readable or not."""
    payloads: list[str]
    commits: list[Commit] = field(default_factory=list)
    executions: dict[str, Execution] = field(default_factory=dict)
    """By id, a server's names among them; where an id has several, its first."""
    repeated: set[tuple[int, int]] = field(default_factory=set)
    """Where second outcomes of an id or a pair stand: sequence and index."""


def hash_of(payload: str) -> str:
    """Hash a commit's bytes as the next one's `previous` does."""
    return blake2b(payload.encode(), digest_size=16).hexdigest()


def peer_of(any_id: str) -> str:
    """Read the peer's name off an order id or command id."""
    return any_id.partition("_")[2].rsplit("_", 2)[0]


def own_id_of(event: Json) -> str | None:
    """Give the id of the command whose outcome an event is; None when it is none, or has no id."""
    match event["event"]:
        case "accepted":
            # A name that a server gave has timestamp 0.
            return None if is_server_named(event["order_id"]) else event["order_id"]
        case "amended" | "canceled" | "canceled_all":
            return event.get("command_id")
        case "rejected":
            return event.get("command_id") or event.get("order_id")
    return None


def is_server_named(order_id: str) -> bool:
    """Tell whether a server gave an order its name."""
    parts = order_id.rsplit("_", 2)
    return len(parts) == 3 and parts[1] == "0"


def read(market: str, payloads: list[str], specification: Json | None, verdict: Verdict) -> Log:
    """Read a log, and judge the rules `chain`, `terms` and `once`.

    Args:
        market: Its name.
        payloads: The stored bytes, from commit 1.
        specification: As the market was opened; None when nobody knows.
        verdict: Where violations are noted.
    """
    log = Log(market, len(payloads), payloads)
    reading = _Reading(log, specification, verdict)
    for payload in payloads:
        if not reading.read(payload):
            break
    verdict.commits += len(log.commits)
    verdict.events += sum(len(commit.events) for commit in log.commits)
    return log


class _Reading:
    # What one commit leaves for the next to follow.

    def __init__(self, log: Log, specification: Json | None, verdict: Verdict) -> None:
        self.log = log
        self.specification = specification
        self.verdict = verdict
        self.sequence = 0
        self.previous = HASH_OF_NOTHING
        self.time = 0
        self.term = 0
        self.leader = ""
        # Where the first outcome of each pair, and of each name that a server gave, stands.
        self.first: dict[str, Execution] = {}

    def read(self, payload: str) -> bool:
        # Whether it could be read: what follows one that cannot be read is not.
        self.sequence += 1
        try:
            found = msgspec.json.decode(payload, type=Json)
            commit = Commit(
                sequence=self.sequence,
                hash=hash_of(payload),
                term=found["term"],
                time=found["time"],
                digest=found["digest"],
                events=[event for event in found["events"] if event["event"] in EVENTS],
            )
            self.check_chain(found, len(payload.encode()))
            self.check_terms(commit)
            self.note_executions(commit)
        except UNREADABLE as error:
            self.report("chain", f"expected a commit, found what cannot be read: {error!r}")
            return False
        commit.leader = self.leader
        self.previous = commit.hash
        self.time = commit.time
        self.log.commits.append(commit)
        return True

    def check_chain(self, found: Json, size: int) -> None:
        expected = {
            "market": self.log.market,
            "sequence": self.sequence,
            "previous": self.previous,
        }
        for name, value in expected.items():
            if found[name] != value:
                self.report("chain", f"expected {name} {value}, found {found[name]}")
        if found["time"] < self.time:
            self.report("chain", f"expected a time of at least {self.time}, found {found['time']}")
        if size > COMMIT_BYTES_MAX:
            self.report("chain", f"expected at most {COMMIT_BYTES_MAX} bytes, found {size}")

    def check_terms(self, commit: Commit) -> None:
        names = [event["event"] for event in commit.events]
        opening = list(OPENING) if commit.sequence == 1 else ["leader_changed"]
        begins = any(name in OPENING for name in names)
        if commit.sequence == 1 or begins:
            found = [name for name in names if name in OPENING]
            if found != opening or names[: len(opening)] != opening:
                self.report("terms", f"expected first {opening} and then none, found {names}")
        for event in commit.events:
            if event["event"] == "market_opened":
                self.check_specification(event["specification"])
            elif event["event"] == "leader_changed":
                for name in ("protocol", "rules"):
                    if event[name] != 1:
                        self.report("terms", f"expected {name} 1, found {event[name]}")
                if event["term"] != self.term + 1:
                    self.report("terms", f"expected term {self.term + 1}, found {event['term']}")
                self.term = event["term"]
                self.leader = event["server"]
        if commit.term != self.term:
            self.report("terms", f"expected a commit of term {self.term}, found {commit.term}")

    def check_specification(self, found: Json) -> None:
        if self.specification is None:
            return
        expected = specification_of(self.specification)
        if specification_of(found) != expected:
            self.report("terms", f"expected specification {shown(expected)}, found {shown(found)}")

    def note_executions(self, commit: Commit) -> None:
        for index, own_id, event in outcomes_of(commit):
            peer = peer_of(own_id)
            execution = Execution(own_id, peer, commit.sequence, index, event)
            # An order id and a command id of one pair are the same to the market.
            first = self.first.setdefault(own_id.partition("_")[2], execution)
            if first is execution:
                self.log.executions[own_id] = execution
                continue
            self.log.repeated.add((commit.sequence, index))
            self.verdict.report(
                "once",
                self.log.market,
                own_id,
                f"expected one outcome, found {shown(first.event)} in commit {first.sequence} and"
                f" {shown(event)} in commit {commit.sequence}",
            )

    def report(self, rule: Rule, text: str) -> None:
        self.verdict.report(rule, self.log.market, f"commit {self.sequence}", text)


def outcomes_of(commit: Commit) -> Iterator[tuple[int, str, Json]]:
    """Give the outcomes in a commit that have an id, or the name that a server gave."""
    for index, event in enumerate(commit.events):
        if event["event"] == "accepted":
            yield index, event["order_id"], event
        elif event["event"] in OUTCOMES and (own_id := own_id_of(event)):
            yield index, own_id, event
