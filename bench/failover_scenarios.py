"""What is done to a cluster under load, and what is measured then.

Theory of operation. Every round waits for the cluster to be whole: all servers run, are current in
all markets, and have been up for a while. Which server is hurt is chosen by the market whose turn
it is, so that servers and markets take turns. Times begin right before the signal is sent, and end
with the acknowledgement's arrival in this process. In the end the load is verified.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from bench.failover_load import Acknowledgement
from bench.failover_results import Count, Result, Times, median, none_of
from bench.failover_stage import RULE, Change, LogLine, Stage, stage
from deploy.embedded import Say

MARKETS: Final = ("M-1", "M-2", "M-3")

SERVERS: Final = 4
"""One more than there are markets: each leads one or none, so whoever takes one over keeps it, and
no hand-over for balance makes it restless."""

JOIN_MARKETS: Final = tuple(f"M-{number:02d}" for number in range(1, 11))

RATE: Final = 50.0
"""Orders per second to each market: gaps are seen to within 20 ms, at a third of what a machine of
two cores takes."""

JOIN_RATE: Final = 20.0
"""The same for ten markets."""

STOP_RATE: Final = 100.0
"""Where the gap that is looked for is short."""

AFTER_S: Final = 1.0
"""How long after an event gaps are looked for."""

AROUND_S: Final = 0.1
"""How long before an event orders were sent that it may have hit."""

PAUSE_S: Final = 8.0
"""How long a server is paused: its record is old after 2 s, its connections are dropped after 3."""

SWALLOWED_AFTER_S: Final = 4.0
"""When no more requests may be swallowed."""

NODE_SETTLE_S: Final = 5.0
"""How long leaders may change after a node has come back, to be counted to its loss."""


# --- A fourth server joins ------------------------------------------------------------------------


async def join(say: Say) -> Result:
    """Let a fourth server join three that lead ten markets."""
    async with stage(JOIN_MARKETS, servers=3, rate=JOIN_RATE, say=say) as on:
        to_even = await on.until(lambda counts: _all_within(counts, 3, (3, 4)))
        await on.until_current()
        await asyncio.sleep(AFTER_S)
        say(f"even after {to_even:.1f} s; a fourth server joins")
        joined = time.monotonic()
        on.restart("server-4")
        to_fair = await on.until(lambda counts: _all_within(counts, 4, (2, 3)))
        await asyncio.sleep(AFTER_S)
        until = time.monotonic()
        moved = {market for market in on.markets if on.leaders.since(market, joined)}
        gaps = {market: on.load.gap(market, since=joined, until=until) for market in on.markets}
        result = await on.conclude(
            "join", "ten markets on three servers; a fourth server is started under load"
        )
        result.times += [
            Times("markets open -> each of three servers leads 3 or 4", [to_even]),
            Times("process start of the fourth -> each leads 2 or 3", [to_fair]),
            Times("longest gap of a market that moved", [gaps[market] for market in moved]),
            Times(
                "longest gap of a market that did not",
                [gaps[market] for market in on.markets if market not in moved],
            ),
        ]
        changes = sum(len(on.leaders.since(market, joined)) for market in on.markets)
        result.counts.append(
            Count("hand-overs to the fourth", changes, "2 or 3", changes in (2, 3))
        )
        return result


def _all_within(counts: Counter[str], servers: int, wanted: Sequence[int]) -> bool:
    return len(counts) == servers and all(count in wanted for count in counts.values())


# --- A leader is killed ---------------------------------------------------------------------------


class Takeover(Struct, frozen=True):
    """One market that lost its leader, and got another."""

    market: str
    before: str
    began: float
    noticed: float | None
    """When a server logged that it takes over."""
    leads: float
    """When the new leader logged that its term is stored."""
    change: Change
    first: Acknowledgement
    gap: float

    @property
    def seconds(self) -> float:
        """From the event to the first acknowledgement by the new leader."""
        return self.first.at - self.began

    @property
    def course(self) -> str:
        """What took how long, in a line."""
        noticed = "?" if self.noticed is None else f"{1_000 * (self.noticed - self.began):.0f}"
        return (
            f"{self.market} from {self.before} to {self.change.server}: noticed {noticed} ms, "
            f"leads {1_000 * (self.leads - self.began):.0f} ms, "
            f"acknowledged {1_000 * self.seconds:.0f} ms"
        )


async def kill(say: Say, *, kills: int, restless_kills: int) -> Result:
    """Kill leaders, calm ones and restless ones."""
    async with stage(MARKETS, servers=SERVERS, rate=RATE, say=say) as on:
        calm: list[Takeover] = []
        restless: list[Takeover] = []
        for number in range(kills):
            market = await on.turn(rested=True)
            before = on.leader(market)
            took = await _kill_leader(on, market)
            on.restart(before)
            calm += took
            say(f"kill {number + 1}: {took[0].course}")
        for number in range(restless_kills):
            market = await on.turn(rested=True)
            first = on.leader(market)
            await _kill_leader(on, market)
            # Its successor, a second later; the third server is there yet.
            second = on.leader(market)
            took = await _kill_leader(on, market)
            restless += [each for each in took if each.market == market]
            on.restart(first)
            on.restart(second)
            say(f"restless kill {number + 1}: {took[0].course}")
        result = await on.conclude(
            "kill",
            f"SIGKILL of a market's leader; {RULE}; restless: its successor is killed too, 1 s "
            "after it began to lead",
        )
        result.times += _takeover_times(on, "kill", calm)
        result.times += _takeover_times(on, "restless kill", restless)
        result.notes += [f"slow: {each.course}" for each in _slowest_of(calm, 3)]
        result.notes += [f"slow, restless: {each.course}" for each in _slowest_of(restless, 2)]
        return result


async def _kill_leader(on: Stage, market: str) -> list[Takeover]:
    """Kill a market's leader, and wait for all its markets."""
    before = on.leader(market)
    lost = [market, *(other for other in on.leaders.led_by(before) if other != market)]
    began = time.monotonic()
    await on.server(before).kill()
    return await _taken_over(on, lost, before, began)


async def _taken_over(on: Stage, lost: Sequence[str], before: str, began: float) -> list[Takeover]:
    found = []
    async with on.patience(f"another leader than {before} of {', '.join(lost)}"):
        for market in lost:
            change = await on.leaders.changed(market, since=began)
            first = await on.load.first_of_term(market, change.sequence, since=began)
            found.append((market, change, first))
    await asyncio.sleep(AFTER_S)
    until = time.monotonic()
    lines = on.log_lines(since=began, until=until)
    return [
        Takeover(
            market,
            before,
            began,
            _when(lines, f"taking {market} over from"),
            _when(lines, f"leads from commit {change.sequence} ", market=market) or change.at,
            change,
            first,
            gap=on.load.gap(market, since=began, until=until),
        )
        for market, change, first in found
    ]


def _when(lines: Sequence[LogLine], text: str, *, market: str = "") -> float | None:
    for line in lines:
        if text in line.text and (not market or f"market={market} " in line.text):
            return line.at
    return None


def _takeover_times(on: Stage, name: str, took: Sequence[Takeover]) -> list[Times]:
    noticed = [each for each in took if each.noticed is not None]
    return [
        Times(
            f"{name} -> first acknowledgement of that market by its new leader",
            [each.seconds for each in took],
        ),
        Times(
            f"  of it: {name} -> another server takes over (its log)",
            [each.noticed - each.began for each in noticed if each.noticed is not None],
        ),
        Times(
            "  of it: takes over -> leads, its term is stored (its log)",
            [each.leads - each.noticed for each in noticed if each.noticed is not None],
        ),
        Times(
            "  of it: leads -> first acknowledgement",
            [each.first.at - each.leads for each in took],
        ),
        Times("longest gap between two acknowledgements around it", [each.gap for each in took]),
        Times(
            "slowest order sent around it, from its first copy to its receipt",
            [
                on.load.slowest(each.market, since=each.began - AROUND_S, until=each.first.at)
                for each in took
            ],
        ),
    ]


def _slowest_of(took: Sequence[Takeover], count: int) -> list[Takeover]:
    return sorted(took, key=lambda each: -each.seconds)[:count]


# --- A leader is paused ---------------------------------------------------------------------------


async def pause(say: Say, *, pauses: int) -> Result:
    """Pause leaders for some seconds, and let them go on."""
    async with stage(MARKETS, servers=SERVERS, rate=RATE, say=say) as on:
        took: list[Takeover] = []
        follows: list[float] = []
        last_swallowed: list[float] = []
        notes: list[str] = []
        swallowed = late = woken = 0
        for number in range(pauses):
            market = await on.turn(rested=False)
            before = on.leader(market)
            lost = [market, *(other for other in on.leaders.led_by(before) if other != market)]
            began = time.monotonic()
            on.server(before).pause()
            took += await _taken_over(on, lost, before, began)
            await asyncio.sleep(began + PAUSE_S - time.monotonic())
            on.server(before).resume()
            resumed = time.monotonic()
            await _until_follows(on, before, lost)
            follows.append(time.monotonic() - resumed)
            # What was sent until now has had its time.
            await asyncio.sleep(3)
            last_swallowed.append(on.load.last_swallowed(since=began, until=resumed) - began)
            swallowed += on.load.swallowed(since=began, until=began + SWALLOWED_AFTER_S)
            late += on.load.swallowed(since=began + SWALLOWED_AFTER_S, until=resumed)
            woken_here = on.load.swallowed(since=resumed, until=time.monotonic())
            woken += woken_here
            if woken_here:
                notes.append(f"{woken_here} swallowed after SIGCONT of {before}, of {lost}:")
                notes += on.load.told_of_swallowed(since=resumed)
                notes += [
                    f"  +{1_000 * (line.at - resumed):.0f} ms {line.server}: {line.text}"
                    for line in on.log_lines(since=resumed, until=resumed + 2)
                ]
            say(f"pause {number + 1}: {took[-1].course}")
        result = await on.conclude(
            "pause", f"SIGSTOP of a market's leader for {PAUSE_S:g} s, then SIGCONT"
        )
        result.times += _takeover_times(on, "pause", took)
        result.times += [
            Times("pause -> the last copy left that nobody answered", last_swallowed),
            Times("SIGCONT -> it follows all its markets again, current", follows),
        ]
        result.counts += [
            Count(
                f"copies swallowed that were sent within {SWALLOWED_AFTER_S:g} s",
                swallowed,
                "any",
                is_good=True,
            ),
            none_of(f"copies swallowed that were sent later than {SWALLOWED_AFTER_S:g} s", late),
            none_of("copies swallowed that were sent after SIGCONT", woken),
        ]
        result.notes += [f"slow: {each.course}" for each in _slowest_of(took, 2)]
        result.notes += notes
        return result


async def _until_follows(on: Stage, server: str, markets: Sequence[str]) -> None:
    async with on.patience(f"{server} to follow {', '.join(markets)}"):
        while True:
            standing = (await on.standings()).get(server)
            held = {} if standing is None else {each.market: each for each in standing.markets}
            if all(
                market in held and held[market].role == "follower" and held[market].is_current
                for market in markets
            ):
                return


# --- A leader is told to stop ---------------------------------------------------------------------


async def stop(say: Say, *, stops: int) -> Result:
    """Stop leaders in an orderly way."""
    async with stage(MARKETS, servers=SERVERS, rate=STOP_RATE, say=say) as on:
        gaps: list[float] = []
        slowest: list[float] = []
        gone: list[float] = []
        quiet: list[float] = []
        courses: list[tuple[float, list[str]]] = []
        for number in range(stops):
            market = await on.turn(rested=False)
            before = on.leader(market)
            led = on.leaders.led_by(before)
            quiet.append(
                on.load.gap(market, since=time.monotonic() - AFTER_S, until=time.monotonic())
            )
            began = time.monotonic()
            await on.server(before).stop()
            gone.append(time.monotonic() - began)
            await asyncio.sleep(AFTER_S)
            until = time.monotonic()
            for each in led:
                gaps.append(on.load.gap(each, since=began, until=until))
                slowest.append(on.load.slowest(each, since=began - AROUND_S, until=until))
                lines = on.log_lines(since=began, until=began + gone[-1] + 0.1)
                courses.append(
                    (
                        gaps[-1],
                        [f"gap of {each} {1_000 * gaps[-1]:.0f} ms, led by {before} before"]
                        + [
                            f"  +{1_000 * (line.at - began):.0f} ms {line.server}: {line.text}"
                            for line in lines
                        ],
                    )
                )
            say(f"stop {number + 1}: {before}, longest gap {1_000 * gaps[-1]:.0f} ms")
            on.restart(before)
        result = await on.conclude("stop", "SIGTERM of a market's leader, then a new start")
        result.times += [
            Times("longest gap between two acknowledgements of a market it led", gaps),
            Times("  the same in the second before SIGTERM", quiet),
            Times("slowest order of such a market, from its first copy to its receipt", slowest),
            Times("SIGTERM -> the process is gone", gone),
        ]
        for _, course in sorted(courses, key=lambda each: -each[0])[:2]:
            result.notes += course
        return result


# --- A NATS node is killed ------------------------------------------------------------------------


async def node(say: Say, *, kills: int) -> Result:
    """Kill the node that leads a market's stream."""
    async with stage(MARKETS, servers=SERVERS, rate=RATE, say=say) as on:
        first: list[float] = []
        gaps: list[float] = []
        others: list[float] = []
        ready: list[float] = []
        changes: list[int] = []
        notes: list[str] = []
        for number in range(kills):
            market = await on.turn(rested=False)
            leading = {each: await on.stream_leader(each) for each in on.markets}
            index = next(
                index
                for index, each in enumerate(on.exchange.nodes)
                if each.settings.name == leading[market]
            )
            began = time.monotonic()
            await on.exchange.nodes[index].stop(graceful=False)
            async with on.patience("acknowledgements of all markets"):
                acknowledged = {
                    each: await on.load.first_sent_since(each, began) for each in on.markets
                }
            await asyncio.sleep(AFTER_S)
            until = time.monotonic()
            for each in on.markets:
                seconds = acknowledged[each].at - began
                gap = on.load.gap(each, since=began, until=until)
                if leading[each] == leading[market]:
                    first.append(seconds)
                    gaps.append(gap)
                else:
                    others.append(gap)
            again = time.monotonic()
            await on.exchange.start_nodes()
            ready.append(time.monotonic() - again)
            await asyncio.sleep(NODE_SETTLE_S)
            changed = {each: len(on.leaders.since(each, began)) for each in on.markets}
            changes += changed.values()
            notes.append(
                f"{leading[market]} led the streams of "
                f"{', '.join(each for each in on.markets if leading[each] == leading[market])}: "
                f"{1_000 * (acknowledged[market].at - began):.0f} ms, leader changes {changed}"
            )
            say(f"node {number + 1}: {notes[-1]}")
        result = await on.conclude(
            "node", "SIGKILL of the NATS node that leads a market's stream, then a new start"
        )
        result.times += [
            Times("kill -> first acknowledgement of an order sent after it", first),
            Times("longest gap between two acknowledgements, stream led by that node", gaps),
            Times("longest gap between two acknowledgements, stream led elsewhere", others),
            Times("process start of the node -> all nodes ready", ready),
        ]
        most = max(changes)
        result.counts.append(
            Count("leader_changed of one market for one node, at most", most, "<= 1", most <= 1)
        )
        result.counts.append(
            Count("leader_changed, all markets and kills", sum(changes), "few", is_good=True)
        )
        result.notes += notes
        result.notes.append(f"median of leader changes {median(changes):g}")
        return result
