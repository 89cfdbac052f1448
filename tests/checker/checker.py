"""The checker: judges a history of an exchange by docs/PROTOCOL.md, whoever recorded it.

Theory of operation. Each market's log is read first, by itself (logs.py): its chain, its terms,
and where each id has its outcome. The history's commands are put together, and their answers
sorted by what they say (commands.py). Then the log is executed again by the naive engine
(re_execution.py), which also says what receipts without events and replies to queries should have
been; and, knowing nothing of that, its events are put into accounts (account.py). What is left is
to hold commands, times and replicas against the log: that is done here.

What is wrong is told once, under the rule that it breaks, wherever that can be told apart. Answers
that rest on what the log has lost (`Loss`) are excused, as if they had never come.

It imports nothing of the exchange, which is its worth: a misunderstanding that the exchange's
parts share is none of its own. It deliberately does not judge what only time would show: that a
command is answered at all, or soon.
"""

from bisect import bisect_left
from itertools import accumulate

from tests.checker import logs, replies
from tests.checker.account import Accounts, Broken
from tests.checker.commands import (
    NOT_EXECUTED,
    Answered,
    Commands,
    Known,
    essence,
    is_lost,
)
from tests.checker.history import Asked, History, Json
from tests.checker.logs import Log, is_server_named
from tests.checker.re_execution import Probe, ReExecution
from tests.checker.verdict import MEANINGS, RULES, Rule, Verdict, Violation, shown

__all__ = ["MEANINGS", "RULES", "Rule", "Verdict", "Violation", "check"]


def check(history: History, *, window: int = 4096) -> Verdict:
    """Judge a history.

    Args:
        history: All that was seen, with the logs as they were when all was over.
        window: How many outcomes a market remembers of each peer.

    Returns:
        The violations, none if all is well, and what was looked at.

    Complexity: n log n in commands, copies, events and queries, but for receipts without events:
        each is asked about after every command of its commit that touches its peer.
    """
    verdict = Verdict()
    read = {
        market: logs.read(market, payloads, history.specifications.get(market), verdict)
        for market, payloads in history.logs.items()
    }
    commands = Commands(history, read, verdict)
    for market, log in read.items():
        for execution in log.executions.values():
            known = commands.find(market, execution)
            if known is not None:
                known.execution = execution
            elif not is_server_named(execution.own_id):
                text = f"expected what somebody sent, found {shown(execution.event)}"
                verdict.report("unasked", market, execution.own_id, text)
    asked = _answered_queries(history, read, verdict)
    for market, log in read.items():
        _check_accounts(log, verdict)
        probes = _probes(market, commands)
        by_sequence: dict[int, list[Asked]] = {}
        for each in asked:
            if each.market == market:
                by_sequence.setdefault(each.reply["sequence"], []).append(each)
        ReExecution(
            log, commands, probes=probes, asked=by_sequence, window=window, verdict=verdict
        ).run()
    for known in commands.all:
        _Judge(known, verdict).judge()
    _check_real_time(commands, asked, verdict)
    _check_replicas(history, read, verdict)
    return verdict


# --- The book ---------------------------------------------------------------------------------


def _check_accounts(log: Log, verdict: Verdict) -> None:
    accounts = Accounts()
    for commit in log.commits:
        try:
            accounts.apply_commit(commit.events)
        except Broken as broken:
            text = f"{broken}; no accounts are kept from here on"
            verdict.report("book", log.market, f"commit {commit.sequence}", text)
            return


# --- Queries ----------------------------------------------------------------------------------


def _answered_queries(history: History, read: dict[str, Log], verdict: Verdict) -> list[Asked]:
    # Those whose replies name a commit that is in the log.
    answered = []
    for asked in history.asked:
        reply, log = asked.reply, read.get(asked.market)
        if reply.get("status") in ("retry", "rejected"):
            continue
        sequence = reply.get("sequence")
        what = f"{asked.what} of {asked.peer}"
        if not isinstance(sequence, int) or sequence < 1:
            text = f"expected a sequence in the reply, found {shown(reply)}"
            verdict.report("queries", asked.market, what, text)
            continue
        if is_lost(history.losses, asked.market, asked.ended, sequence):
            verdict.lost += 1
            continue
        end = log.end if log else 0
        if sequence > end:
            text = f"expected a reply as of a commit up to {end}, found {sequence}"
            verdict.report("settled", asked.market, what, text)
            continue
        least = asked.request.get("min_sequence", 0)
        if sequence < least:
            text = f"expected a reply as of commit {least} or later, found {sequence}"
            verdict.report("queries", asked.market, what, text)
        if asked.what == "log" and log is not None:
            verdict.queries += 1
            replies.check_log(asked, log, verdict)
        answered.append(asked)
    return answered


# --- Commands ---------------------------------------------------------------------------------


def _probes(market: str, commands: Commands) -> dict[int, list[Probe]]:
    # The receipts that made no event, by the commit that they name.
    probes: dict[int, list[Probe]] = {}
    for known in commands.all:
        if known.market != market:
            continue
        for copy in known.copies:
            if copy.sequence is not None and _is_without_events(known, copy):
                copy.is_of_newcomer = copy.kind == "fresh"
                probe = Probe(known, copy, essence(copy.answer))
                probes.setdefault(copy.sequence, []).append(probe)
    return probes


def _is_without_events(known: Known, copy: Answered) -> bool:
    if copy.kind == "duplicate":
        # Without an outcome in the log there is none to repeat, and that is told as such.
        return known.execution is not None
    if copy.kind == "fresh" and copy.is_refusal:
        # Of a newcomer for whom the market has no room nothing is remembered, so that the same
        # command may be executed later.
        return known.execution is None or known.execution.sequence != copy.sequence
    return copy.kind == "of_copy"


class _Judge:
    # One command, held against its outcome in the log.

    def __init__(self, known: Known, verdict: Verdict) -> None:
        self.known = known
        self.verdict = verdict
        self.execution = known.execution
        self.copies = known.copies

    def judge(self) -> None:
        self.count()
        self.check_retried()
        final = [
            copy
            for copy in self.copies
            if copy.kind in ("fresh", "duplicate", "unread") and not copy.is_of_newcomer
        ]
        # Told apart from each other: what is wrong with the outcome says nothing of the receipt.
        if not self.check_refused(final):
            for copy in final:
                self.check_acknowledged(copy)
        self.check_one_outcome(final)
        for copy in self.copies:
            if copy.kind in ("fresh", "duplicate", "of_copy") and not isinstance(
                copy.answer.get("sequence"), int
            ):
                rule: Rule = "acknowledged" if copy.kind == "fresh" else "repeated"
                self.report(rule, f"expected a sequence, found {shown(copy.answer)}")

    def count(self) -> None:
        verdict, copies = self.verdict, self.copies
        final = [copy for copy in copies if copy.kind in ("fresh", "duplicate", "unread")]
        if any(not copy.is_refusal for copy in final):
            verdict.acknowledged += 1
        elif final:
            verdict.refused += 1
        elif copies and all(copy.kind in NOT_EXECUTED for copy in copies):
            verdict.retried_only += 1
        else:
            verdict.unknown += 1
            verdict.unknown_executed += self.execution is not None

    def check_retried(self) -> None:
        kinds = {copy.kind for copy in self.copies}
        # Whichever copy was executed was answered so, or not at all: a duplicate is of another.
        is_executed = not kinds.isdisjoint({"fresh", "none", "unread"})
        if self.execution is not None and kinds and not is_executed:
            self.report(
                "retry",
                f"expected no event, as no copy was executed, found {shown(self.execution.event)}"
                f" in commit {self.execution.sequence}",
            )
        for copies in self.known.unavailable:
            others = [copy.answer for copy in copies if copy.kind != "turned_away"]
            if others:
                found = "no answer" if others[0] is None else shown(others[0])
                text = f"expected retry alone, as the peer believes, found {found}"
                self.report("believed", text)

    def check_refused(self, final: list[Answered]) -> bool:
        # Whether something was told of it.
        if self.execution is None:
            return False
        event = self.execution.event
        for copy in final:
            if not copy.is_refusal:
                continue
            reason = copy.answer.get("reason")
            if (
                event["event"] != "rejected"
                or event.get("reason") != reason
                or copy.kind == "unread"
            ):
                self.report(
                    "refused",
                    f"expected nothing but a refusal with {reason}, found {shown(event)}"
                    f" in commit {self.execution.sequence}",
                )
                return True
        return False

    def check_acknowledged(self, copy: Answered) -> None:
        execution, answer = self.execution, copy.answer
        if copy.kind == "unread" or (copy.kind == "fresh" and copy.is_refusal and not execution):
            # Nothing stands in the log; what may be wrong with that was told by the re-execution.
            return
        if execution is None:
            text = f"expected it in the log, found nothing of it, but {shown(answer)}"
            self.report("acknowledged", text)
            return
        if copy.kind == "duplicate" or copy.sequence is None:
            return
        if (execution.event["event"] == "rejected") != copy.is_refusal:
            text = f"expected what the log says, {shown(execution.event)}, found {shown(answer)}"
            self.report("acknowledged", text)
        elif execution.sequence != copy.sequence:
            text = f"expected it in commit {copy.sequence}, found it in {execution.sequence}"
            self.report("acknowledged", text)
        elif self.known.expected is not None:
            self.compare(self.known.expected, essence(answer))

    def compare(self, expected: Json, found: Json) -> None:
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                self.report(
                    "acknowledged",
                    f"expected a receipt with {name} {shown(expected.get(name))},"
                    f" found {shown(found.get(name))}",
                )
                return

    def check_one_outcome(self, final: list[Answered]) -> None:
        said = {str(copy.answer.get("reason")) if copy.is_refusal else "executed" for copy in final}
        if len(said) > 1:
            text = f"expected one outcome, found receipts that say {sorted(said)}"
            self.report("one_outcome", text)
        fresh = [copy.answer for copy in final if copy.kind == "fresh"]
        if len(fresh) > 1:
            self.report(
                "one_outcome",
                f"expected one receipt that is no duplicate, found {shown(fresh)}",
            )

    def report(self, rule: Rule, text: str) -> None:
        self.verdict.report(rule, self.known.market, self.known.own_id, text)


# --- Time -------------------------------------------------------------------------------------


def _check_real_time(commands: Commands, asked: list[Asked], verdict: Verdict) -> None:
    # Every command, held against the newest commit that was told of before it was sent.
    told: dict[str, list[tuple[float, int]]] = {}
    for known in commands.all:
        for copy in known.copies:
            if copy.sequence is not None and copy.ended is not None:
                told.setdefault(known.market, []).append((copy.ended, copy.sequence))
    for each in asked:
        told.setdefault(each.market, []).append((each.ended, each.reply["sequence"]))
    for market, answers in told.items():
        answers.sort()
        newest = list(accumulate((sequence for _, sequence in answers), max))
        for known in commands.all:
            if known.market != market:
                continue
            # An answer is of its own copy; the outcome may be of any.
            found = [(copy.sent, copy.sequence) for copy in known.copies if copy.sequence]
            if known.execution is not None and known.copies:
                first = min(copy.sent for copy in known.copies)
                found.append((first, known.execution.sequence))
            for sent, sequence in found:
                before = bisect_left(answers, (sent, 0))
                if before and sequence <= newest[before - 1]:
                    text = (
                        f"expected it after commit {newest[before - 1]}, which was told of before"
                        f" it was sent, found it in {sequence}"
                    )
                    verdict.report("real_time", market, known.own_id, text)
                    break


# --- Replicas ---------------------------------------------------------------------------------


def _check_replicas(history: History, read: dict[str, Log], verdict: Verdict) -> None:
    for end in history.ends:
        log = read.get(end.market)
        if log is None or not log.commits or log.commits[-1].sequence != log.end:
            continue
        verdict.replicas += 1
        last = log.commits[-1]
        expected = {"sequence": last.sequence, "hash": last.hash, "digest": last.digest}
        for name, value in expected.items():
            found = getattr(end, name)
            if found != value and not (name == "hash" and not found):
                text = f"expected {name} {value}, found {found}"
                verdict.report("replicas", end.market, end.who, text)
                break
