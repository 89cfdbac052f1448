"""The attacks: a flood of orders, a socket at line rate, a flood of queries.

Polite peers send at a rate of their own, quiet and attacked in turn, so that a mood of the machine
shows as a difference between quiet times too.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from bench.attack_flooder import ACCEPTED, UNANSWERED, Cut, Flooded
from bench.attack_peers import Polite
from bench.attack_results import (
    Pair,
    Promise,
    Result,
    Use,
    at_least,
    at_most,
    equal,
    kept_by,
    pairs_lines,
    promise_of_latency,
    promises_of,
    promises_of_memory,
    use_of,
)
from bench.attack_stage import FLOODER, MARKET, PEERS, SERVERS, Stage, Window, stage
from bench.failover_results import Times
from deploy.embedded import Say
from dex_protocol import limits, subjects
from dex_protocol.reasons import RetryReason

LIMIT: Final = 300
"""Orders that each peer may send in a second, and at once."""

FLOOD: Final = 10 * LIMIT

SENT_SHARE_MIN: Final = 0.95
"""Of the flood, or else it was none."""

QUERIES_IN_FLIGHT: Final = 64

PAIRS: Final = 3

CUTS: Final = 10
CUT_S_MAX: Final = 2.0
"""By when the guard has cut who floods: two intervals of 0.25 s, the look that sees the second, and
what a busy node and a busy machine add."""

REFUSED_CUTS: Final = 3
RESTLESS_S: Final = 10.0
WITHOUT_GUARD_S: Final = 5.0

WINDOWS_ORDERS: Final = PEERS * limits.RETRY_WINDOW_COUNT
"""Sent before anything is measured, so that the memory of all peers' outcomes is full."""

LOG_ORDERS: Final = 100_000
"""The same where log and snapshots are asked for: some ten times the longest answer."""

FILL_BATCH: Final = 100
FILL_IN_FLIGHT: Final = 32

MIB: Final = 1024 * 1024


class _Attack:
    # A stage, what was measured on it, and who led before.

    def __init__(self, on: Stage, *, rate: float, say: Say, term: int) -> None:
        self.stage = on
        self.rate = rate * PEERS
        self.quiet: list[Polite] = []
        self.attacked: list[Polite] = []
        self._say = say
        self._term = term

    async def polite(self, seconds: float) -> Polite:
        return await self.stage.polite(orders=int(self.rate * seconds), rate=self.rate)

    async def pair(self, seconds: float, how: str, **options: object) -> Flooded:
        self.quiet.append(await self.polite(seconds))
        async with self.stage.attacker(how, **options) as attacker:
            self.attacked.append(await self.polite(seconds))
            attacker.stop()
            flooded = msgspec.json.decode(await attacker.result(), type=Flooded)
        self._say(pairs_lines([self.pairs()[-1]])[-1])
        return flooded

    def pairs(self) -> list[Pair]:
        return [
            Pair(self.stage.seen(before), self.stage.seen(during))
            for before, during in zip(self.quiet, self.attacked, strict=True)
        ]

    async def uses(self) -> list[Use]:
        """What the processes used; those of the exchange first."""
        names = await self.stage.roles() | {each: each for each in ("polite peers", "attacker")}
        quiet, attacked = map(_windows, (self.quiet, self.attacked))
        found = []
        for name, shown in names.items():
            samples = [self.stage.usage.within(name, window) for window in attacked]
            if any(samples):
                before = [self.stage.usage.within(name, window) for window in quiet]
                found.append(use_of(shown, quiet=before, attacked=samples))
        return found

    async def same_leader(self) -> Promise:
        return equal("term of the leader", (await self.stage.status()).term, self._term)


def _windows(runs: Sequence[Polite]) -> list[Window]:
    return [Window(run.began, run.ended) for run in runs]


@asynccontextmanager
async def _attacked(
    *, nodes: int, rate: float, say: Say, orders: int = WINDOWS_ORDERS
) -> AsyncIterator[_Attack]:
    async with stage(nodes=nodes, say=say) as on:
        say(f"sending {orders:,} orders before anything is measured")
        await on.polite(orders=orders, batch=FILL_BATCH, in_flight=FILL_IN_FLIGHT)
        yield _Attack(on, rate=rate, say=say, term=(await on.status()).term)


# --- A flood of orders --------------------------------------------------------------------------


async def flood(say: Say, *, nodes: int, seconds: float, rate: float) -> Result:
    """Have one peer send ten times as many orders as it may."""
    each_s = seconds / PAIRS
    result = Result(
        phase="flood",
        about=(
            f"each peer may send {LIMIT} orders/s, and {LIMIT} at once; {PEERS} send {rate:g} each "
            f"for {each_s:g} s, alone, and then while {FLOODER} sends {FLOOD}, "
            f"{PAIRS} times in turn; latency counts from when an order was due"
        ),
    )
    async with _attacked(nodes=nodes, rate=rate, say=say) as attack:
        on = attack.stage
        await on.limit(per_second=LIMIT, burst=LIMIT)
        # What is loaded, compiled and cached once is not the attack's.
        await attack.polite(each_s)
        floods: list[Flooded] = []
        executed: list[int] = []
        for _ in range(PAIRS):
            newest = (await on.status()).sequence
            floods.append(await attack.pair(each_s, "orders", rate=FLOOD))
            executed.append(await on.accepted(FLOODER, after=newest))
        result.pairs = attack.pairs()
        result.uses = await attack.uses()
        result.promises = [
            *promises_of(result.pairs),
            promise_of_latency(result.pairs),
            *_promises_of_flood(floods, executed),
            *_promises_of_memory(result.uses),
            await attack.same_leader(),
        ]
    seconds_flooded = sum(each.ended - each.began for each in floods)
    answers = _answers(floods)
    result.notes += [
        f"{FLOODER} sent {sum(each.sent for each in floods):,} orders in {seconds_flooded:.1f} s, "
        f"{sum(each.sent for each in floods) / seconds_flooded:,.0f}/s: {_told(answers)}",
        _said(attack.quiet, attack.attacked),
    ]
    return result


def _promises_of_flood(floods: Sequence[Flooded], executed: Sequence[int]) -> list[Promise]:
    # One second's worth more, since full buckets are forgotten between two floods.
    allowed = sum(int(LIMIT * (each.ended - each.began)) + LIMIT for each in floods)
    answers = _answers(floods)
    limited = answers[RetryReason.rate_limited.name]
    seconds = sum(each.ended - each.began for each in floods)
    pace = sum(each.sent for each in floods) / seconds
    others = answers.total() - answers[ACCEPTED] - limited
    return [
        at_most("the flooder's orders in the log: burst and limit", sum(executed), allowed),
        equal("those that it was told are accepted", answers[ACCEPTED], sum(executed)),
        equal("its orders neither accepted nor rate_limited", others, 0),
        equal("its connections cut", sum(each.cuts for each in floods), 0),
        at_least("its orders a second, or it was no flood", pace, FLOOD * SENT_SHARE_MIN),
    ]


def _promises_of_memory(uses: Sequence[Use]) -> list[Promise]:
    # Of nodes it is shown only: Go lets garbage lie until the heap has doubled.
    servers = [use for use in uses if use.process.startswith("server-")]
    return [promise for use in servers for promise in promises_of_memory(use)]


# --- A socket at line rate ----------------------------------------------------------------------


async def socket(say: Say, *, nodes: int, seconds: float, rate: float) -> Result:
    """Have one socket send as fast as the node reads, again and again."""
    every_s = max(seconds / CUTS, CUT_S_MAX + 1)
    own = subjects.orders(MARKET, FLOODER)
    result = Result(
        phase="socket",
        about=(
            f"a socket with a valid key sends messages of 2 bytes at line rate, {CUTS} times, a "
            f"new connection each {every_s:g} s, while {PEERS} polite peers send {rate:g} orders/s "
            "each; then to a subject that it may not use, then back at once whenever it is cut, "
            "then without a guard"
        ),
    )
    async with _attacked(nodes=nodes, rate=rate, say=say) as attack:
        await attack.polite(every_s)
        attack.quiet.append(await attack.polite(every_s * 3))
        cuts = await _cut(attack, own, times=CUTS, every_s=every_s)
        foreign = subjects.orders(MARKET, "load-1")
        refused = await _cut(attack, foreign, times=REFUSED_CUTS, every_s=every_s)
        guarded = list(attack.attacked)
        result.promises = [
            at_most("time until it is cut, worst", _worst(cuts), CUT_S_MAX, form=".2f", unit=" s"),
            equal("connections that were not cut", sum(not each.is_cut for each in cuts), 0),
            await attack.same_leader(),
            *kept_by([attack.stage.seen(run) for run in (*attack.quiet, *guarded)]),
        ]
        result.uses = await attack.uses()
        result.promises += _promises_of_memory(result.uses)
        say("back at once whenever it is cut, and then without a guard")
        term = (await attack.stage.status()).term
        restless = await _cut_and_back(attack, own, seconds=RESTLESS_S, give_up_s=CUT_S_MAX)
        await attack.stage.exchange.stop_guard()
        unguarded = await _cut_and_back(
            attack, own, seconds=WITHOUT_GUARD_S, give_up_s=WITHOUT_GUARD_S
        )
        after = await attack.stage.status()
    result.times = [
        Times("first message -> connection cut", _seconds(cuts)),
        Times("the same, subject refused (permission violation)", _seconds(refused)),
        Times("the same, back at once", _seconds(restless)),
        Times("longest gap of acknowledgements: quiet", [attack.quiet[0].longest_gap_s]),
        *(
            Times(f"longest gap of acknowledgements: {what}", [run.longest_gap_s])
            for what, run in zip(_WHAT, attack.attacked, strict=True)
        ),
    ]
    # What is not promised is told, and the log is right all the same.
    others = [attack.stage.seen(run) for run in attack.attacked[len(guarded) :]]
    result.promises.append(
        equal(
            "violations of exactly-once, back at once and without a guard",
            sum(each.violations for each in others),
            0,
        )
    )
    led_on = "the leader stayed" if after.term == term else f"term {term} became {after.term}"
    result.notes += [
        f"{what}: {_pace(sent)}, {run.report.orders} orders of polite peers, {_fared(run)}"
        for what, sent, run in zip(
            _WHAT, (cuts, refused, restless, unguarded), attack.attacked, strict=True
        )
    ]
    result.notes += [
        f"back at once and without a guard: {led_on}",
        _said(attack.quiet, attack.attacked),
    ]
    return result


_WHAT: Final = ("attacked", "attacked, refused", "attacked, back at once", "attacked, no guard")


def _fared(run: Polite) -> str:
    latency = run.report.latency_ms
    told = (
        "none answered" if latency is None else f"p50 {latency.p50:,.0f}, p99 {latency.p99:,.0f} ms"
    )
    lost = run.report.unavailable + run.report.unknown
    return f"{told}, {run.report.retried} copies sent again, {lost} lost"


async def _cut(attack: _Attack, subject: str, *, times: int, every_s: float) -> list[Cut]:
    # One more would begin at the end.
    seconds = (times - 0.5) * every_s
    return await _flood_socket(
        attack, subject, seconds=seconds, every_s=every_s, give_up_s=every_s - 0.5
    )


async def _cut_and_back(
    attack: _Attack, subject: str, *, seconds: float, give_up_s: float
) -> list[Cut]:
    return await _flood_socket(attack, subject, seconds=seconds, every_s=0, give_up_s=give_up_s)


async def _flood_socket(
    attack: _Attack, subject: str, *, seconds: float, every_s: float, give_up_s: float
) -> list[Cut]:
    options = {"subject": subject, "seconds": seconds, "every": every_s, "give_up": give_up_s}
    async with attack.stage.attacker("socket", **options) as attacker:
        attack.attacked.append(await attack.polite(seconds + every_s / 2))
        return msgspec.json.decode(await attacker.result(), type=list[Cut])


def _seconds(cuts: Sequence[Cut]) -> list[float]:
    return [each.seconds for each in cuts]


def _worst(cuts: Sequence[Cut]) -> float:
    return max(_seconds(cuts))


def _pace(cuts: Sequence[Cut]) -> str:
    messages, seconds = sum(each.messages for each in cuts), sum(_seconds(cuts))
    return f"{messages / seconds:,.0f} messages/s"


# --- A flood of queries -------------------------------------------------------------------------


async def queries(say: Say, *, nodes: int, seconds: float, rate: float) -> Result:
    """Have one peer pull log and snapshots, as much as it gets."""
    each_s = seconds / PAIRS
    result = Result(
        phase="queries",
        about=(
            f"{PEERS} polite peers send {rate:g} orders/s each for {each_s:g} s, alone, and then "
            f"while {FLOODER} has {QUERIES_IN_FLIGHT} questions for log and snapshot under way, "
            f"whatever it is answered, {PAIRS} times in turn; the log had {LOG_ORDERS:,} orders"
        ),
    )
    async with _attacked(nodes=nodes, rate=rate, say=say, orders=LOG_ORDERS) as attack:
        await attack.polite(each_s)
        floods = [
            await attack.pair(each_s, "queries", in_flight=QUERIES_IN_FLIGHT) for _ in range(PAIRS)
        ]
        result.pairs = attack.pairs()
        result.uses = await attack.uses()
        # No promise of latency: what may be asked for makes two cores busy, and all share them.
        result.promises = [
            *promises_of(result.pairs),
            _promise_of_bytes(floods),
            *_promises_of_memory(result.uses),
            await attack.same_leader(),
        ]
    flooded_s = sum(each.ended - each.began for each in floods)
    result.notes += [
        f"{FLOODER} asked {sum(each.sent for each in floods) / flooded_s:,.0f} times a second: "
        f"{_told(_answers(floods))}; cut {sum(each.cuts for each in floods)} times",
        _said(attack.quiet, attack.attacked),
    ]
    return result


def _promise_of_bytes(floods: Sequence[Flooded]) -> Promise:
    # Each server counts for itself, and lends what is under way.
    seconds = sum(each.ended - each.began for each in floods)
    burst = limits.PEER_ANSWERS_BYTES_BURST + limits.PEER_READS_COUNT_MAX * limits.PAYLOAD_BYTES_MAX
    most = SERVERS * (limits.PEER_ANSWERS_BYTES_PER_SECOND * seconds + burst * len(floods))
    return at_most(
        f"MiB/s of answers to {FLOODER}, {SERVERS} servers, bursts included",
        sum(each.answers_bytes for each in floods) / seconds / MIB,
        most / seconds / MIB,
        form=".1f",
    )


# --- What is said of all ------------------------------------------------------------------------


def _answers(floods: Sequence[Flooded]) -> Counter[str]:
    answers: Counter[str] = Counter()
    for each in floods:
        answers.update(each.answers)
    return +answers


def _told(answers: Counter[str]) -> str:
    return ", ".join(f"{what} {count:,}" for what, count in answers.most_common()) or UNANSWERED


def _said(quiet: Sequence[Polite], attacked: Sequence[Polite]) -> str:
    runs = (*quiet, *attacked)
    sentences = [
        violation.sentence
        for run in runs
        if run.report.verified is not None
        for violation in run.report.verified.violations[:3]
    ]
    sentences += [
        f"not verified: {run.report.unverified_because}"
        for run in runs
        if run.report.unverified_because is not None
    ]
    gaps = max(run.longest_gap_s for run in attacked)
    said = (
        f"polite peers: {sum(run.report.orders for run in runs):,} orders, all verified against "
        f"the log; copies sent again {sum(run.report.retried for run in quiet)} quiet, "
        f"{sum(run.report.retried for run in attacked)} attacked; longest gap of acknowledgements "
        f"{1_000 * max(run.longest_gap_s for run in quiet):,.0f} ms quiet, "
        f"{1_000 * gaps:,.0f} ms attacked"
    )
    return "; ".join([said, *sentences])
