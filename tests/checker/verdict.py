"""What the checker says in the end: which rules, where, and how much it has looked at.

Knows nothing of how a rule is judged.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import Struct, field

Rule = Literal[
    "chain",
    "terms",
    "digest",
    "re_executed",
    "unasked",
    "acknowledged",
    "refused",
    "retry",
    "believed",
    "once",
    "one_outcome",
    "repeated",
    "real_time",
    "settled",
    "queries",
    "book",
    "replicas",
]

RULES: Final[tuple[Rule, ...]] = get_args(Rule)

MEANINGS: Final[Mapping[Rule, str]] = {
    "chain": "Commits are numbered from 1 without holes, each names the hash of the one before,"
    " time never goes back, and none is too long.",
    "terms": "The log opens its market, terms count up by 1, each begins with its first commit,"
    " and every commit is of the term in which it stands.",
    "digest": "Each commit's digest is that of the book after it.",
    "re_executed": "The commands of the log, executed again by the naive engine, make the same"
    " events in the same order.",
    "unasked": "Every event with an id is of a command that somebody sent.",
    "acknowledged": "What has a receipt of its own stands in the log, in the commit that the"
    " receipt names, and the receipt says what the naive engine says.",
    "refused": "A refused command is executed nowhere in the log, and is refused there for the same"
    " reason.",
    "retry": "A command of which no copy was executed, by all answers to them, makes no event.",
    "believed": "A peer believes that nothing was executed only if every copy was answered so.",
    "once": "No id, and no pair of a peer's, has more than one outcome in the log.",
    "one_outcome": "All receipts of a command say the same outcome, and one alone is no duplicate.",
    "repeated": "A receipt without events (a duplicate, stale_id, id_reused) is what the naive"
    " engine answers at some place of the commit that it names.",
    "real_time": "What was sent after a commit was told of stands after that commit.",
    "settled": "Nobody was told of a commit beyond the log's end.",
    "queries": "A reply tells the state after the commit that it names, which is as new as was"
    " asked for.",
    "book": "By the events alone: quantities add up, trades meet the best and oldest maker at its"
    " price, trade ids count up, and the book never is crossed.",
    "replicas": "All replicas end where the log ends, in the same state.",
}


class Violation(Struct, frozen=True):
    """A rule that does not hold somewhere."""

    rule: Rule
    market: str
    what: str
    """An id, a commit, a query or a replica."""
    text: str
    """What was expected, and what was found."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.market} {self.what}: {self.text}"


class Verdict(Struct):
    """What was found, and how much was looked at."""

    violations: list[Violation] = field(default_factory=list)
    commands: int = 0
    copies: int = 0
    acknowledged: int = 0
    """Commands with a receipt that says that they were executed."""
    refused: int = 0
    """Commands with a receipt that refuses them, and none of the first kind."""
    retried_only: int = 0
    """Commands all of whose copies were answered that they were not executed."""
    unknown: int = 0
    """All other commands: nobody was told what became of them."""
    unknown_executed: int = 0
    """Those of them that stand in the log."""
    commits: int = 0
    events: int = 0
    repeated: int = 0
    """Duplicates and other receipts without events that the naive engine was asked about."""
    queries: int = 0
    """Replies that were compared."""
    replicas: int = 0
    """Ends that were compared."""
    lost: int = 0
    """Receipts and replies that rest on what the log lost, and so are excused."""
    re_executed: dict[str, int] = field(default_factory=dict)
    """The last commit of each market that was executed again; less than its log has where the naive
    engine could not follow: from there on no rule is judged that needs it."""

    @property
    def is_good(self) -> bool:
        """Whether no rule was broken."""
        return not self.violations

    @property
    def rules(self) -> set[Rule]:
        """The rules that were broken."""
        return {violation.rule for violation in self.violations}

    def report(self, rule: Rule, market: str, what: str, text: str) -> None:
        """Note that a rule does not hold."""
        self.violations.append(Violation(rule, market, what, text))

    @property
    def counts(self) -> dict[str, Any]:
        """How much was looked at, by the names above."""
        names = [name for name in self.__struct_fields__ if name != "violations"]
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        lines = [f"{len(self.violations)} violations; {shown(self.counts)}"]
        return "\n".join([*lines, *map(str, self.violations)])


def shown(value: Any) -> str:
    """Write a value so that people can compare it with another; long ones are cut."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 600 else f"{text[:600]}… ({len(text)} characters)"
