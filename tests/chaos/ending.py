"""The end of a run: all stands still at one place, and everything that was seen is put together."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from deploy import markets as specifications
from dex_protocol.standing import ServerStanding
from dex_runtime.messaging import NoReply, NoResponder
from tests.chaos.generators import Generators
from tests.chaos.network import SERVERS
from tests.chaos.onlooker import LogUnreadable, Onlooker
from tests.checker.files import merged
from tests.checker.history import End, History

SETTLE_S: Final = 90.0
"""How long everything may take to stand at one place: an election in NATS, a takeover, a log read
again, and the leaders that then go home."""

STILL_S: Final = 6.0
"""How long nothing may have happened: orders expire until 5 s after the last command."""

POLL_S: Final = 0.5

ATTEMPTS_COUNT: Final = 5
"""A leader that goes home meanwhile makes another attempt necessary; each comes later than the one
before."""


async def collect(
    onlooker: Onlooker,
    generators: Generators,
    markets: Sequence[str],
    *,
    say: Callable[[str], None],
) -> tuple[History, list[str]]:
    """Wait until all stands still, and give everything that was seen, and what was complained of.

    That it does not stand still is such a complaint, and so is a log that cannot be read.
    """
    for _ in range(ATTEMPTS_COUNT):
        place, complaints = await _settled(onlooker, markets)
        parts = await generators.finish(place)
        logs: dict[str, list[str]] = {}
        for market in markets:
            try:
                logs[market] = await onlooker.log(market)
            except LogUnreadable as error:
                complaints.append(str(error))
        found = await onlooker.standings()
        own = History(
            specifications={
                market: msgspec.to_builtins(specifications.specification(market))
                for market in markets
            },
            logs=logs,
            ends=[
                End(name, held.market, held.sequence, "", held.digest)
                for name, standing in sorted(found.items())
                for held in standing.markets
            ],
        )
        history = merged([*(part.history for part in parts), own])
        after = {market: len(log) for market, log in logs.items()}
        is_still = after == place and all(end.sequence == place[end.market] for end in history.ends)
        if complaints or is_still:
            break
        say("the markets went on meanwhile; once more")
    return history, complaints + [text for part in parts for text in part.complaints]


async def _settled(onlooker: Onlooker, markets: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    # Where each log ends, and all servers, for a while; or how they stand instead.
    deadline = time.monotonic() + SETTLE_S
    since, last = time.monotonic(), None
    while True:
        found = await onlooker.standings()
        place = _one_place(found, markets)
        now = time.monotonic()
        if place is None or place != last:
            since, last = now, place
        elif now - since > STILL_S and await _are_ends(onlooker, place):
            return place, []
        if now > deadline:
            held = [(name, each) for name, all_of in found.items() for each in all_of.markets]
            lines = [f"  {name}: {each}" for name, each in held]
            furthest = {
                market: max((each.sequence for _, each in held if each.market == market), default=0)
                for market in markets
            }
            text = f"the servers do not stand at one place after {SETTLE_S:g} s:"
            return furthest, ["\n".join([text, *sorted(lines)])]
        await asyncio.sleep(POLL_S)


def _one_place(found: dict[str, ServerStanding], markets: Sequence[str]) -> dict[str, int] | None:
    if set(found) != set(SERVERS):
        return None
    places: dict[str, set[tuple[int, str]]] = {market: set() for market in markets}
    leaders: list[str] = []
    for standing in found.values():
        if {held.market for held in standing.markets} != set(markets):
            return None
        for held in standing.markets:
            if not held.is_current:
                return None
            places[held.market].add((held.sequence, held.digest))
            leaders += [held.market] if held.role == "leader" else []
    if sorted(leaders) != sorted(markets) or any(len(place) > 1 for place in places.values()):
        return None
    return {market: sequence for market, [(sequence, _)] in places.items()}


async def _are_ends(onlooker: Onlooker, places: dict[str, int]) -> bool:
    try:
        return all(
            [await onlooker.last_sequence(market) == place for market, place in places.items()]
        )
    except (NoResponder, NoReply):
        return False
