"""A leader under fuzzed requests, and all that must be true of its answers and of its log.

Requests go to a real replica that leads in this process (tests/unit/server/harness.py). What must
become of each is said by two who know nothing of it: the oracle for the refusals that need no
state, the reference engine for all that reaches the market. After every moment:

- every request was answered exactly once, in its shape, and not before what it rests on was stored;
- every receipt is the expected one, and the log has the expected events and digest;
- where all was refused without state, nothing is different at all.
"""

import json
from collections import Counter
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from dex_engine import Bounds, Market
from dex_protocol.specification import Specification
from dex_server.replication.effects import Append, Request, Requests
from tests.fuzz import oracle
from tests.fuzz.requests import Moment, Shape, Stamp, huge_shapes, moments
from tests.property.reference_engine import ReferenceMarket
from tests.unit.server.harness import EFFECTS_COUNT_MAX, Harness

PAYLOAD_BYTES_MAX: Final = 1024 * 1024
"""What NATS lets through."""

UNDER_WAY_MAX: Final = 3
"""Appends under way before the next request is handed in."""

BOUNDS: Final = Bounds(window_count=25)
"""A memory short enough for ids that are too old."""

STATELESS: Final = {"malformed", "unknown_value", "batch_too_large", "wrong_peer"}

SPECIFICATIONS: Final[list[dict[str, Any]]] = [
    {},
    {"max_open_orders": 8, "max_peers": 4},
    {"price_band": "0.005", "min_notional": "100", "min_quantity": "1"},
    {"max_price": "1000", "max_quantity": "50", "max_open_orders": 3, "price_band": "0"},
]


class Play(NamedTuple):
    """What happens in one world; each moment again and again, with other ids and values."""

    seed: int
    specification: dict[str, Any]
    moments: list[Moment]
    huge: Shape | None


plays: Final = st.builds(
    Play,
    st.integers(0, 2**32 - 1),
    st.sampled_from(SPECIFICATIONS),
    st.lists(moments, min_size=2, max_size=8),
    st.sampled_from([False] * 11 + [True]).flatmap(
        lambda is_there: huge_shapes if is_there else st.none()
    ),
)


def play(what: Play, *, times: int) -> Counter[str]:
    """Play one world to its end; give how many requests, commands, and of each reason."""
    world = World(what.specification, what.seed)
    for _ in range(times):
        for moment in what.moments:
            world.pass_time(moment.wait_ms)
            world.send([world.stamp.request(shape) for shape in moment.shapes])
    if what.huge is not None:
        world.pass_time(900)
        world.send([world.stamp.request(what.huge)])
    world.check_replay()
    return world.counted


class World:
    """A leader, its log, and the reference that goes the same way.

    Attributes:
        counted: Requests, commands, and answers by their reason, or by their status.
    """

    def __init__(self, specification: dict[str, Any], seed: int) -> None:
        """Begin with an empty market that is led."""
        fields = {"market": "BTC-USD", "tick_size": "0.01", "lot_size": "0.05"} | specification
        self.harness = Harness(specification=Specification(**fields))
        self.harness.start()
        self.harness.run()
        assert self.harness.replica.role == "leader"
        # Nobody is known yet whose memory could have another length.
        self.harness.market.bounds = BOUNDS
        self.reference = ReferenceMarket(fields, window=BOUNDS.window_count)
        self.stamp = Stamp(seed, time_us=self.harness.wall)
        self.counted: Counter[str] = Counter()
        self._checked = self.harness.end
        self._number = 1_000_000

    def pass_time(self, ms: int) -> None:
        """Let time pass, and what is due happen."""
        self.harness.pass_time(ms=ms)
        self.harness.run()
        self.stamp.time_us = self.harness.wall
        self._check_log(self.reference.housekeeping(self.harness.wall))

    def send(self, requests: list[tuple[str, bytes]]) -> None:
        """Send requests that arrive together, and check all that comes of it."""
        requests = sorted(
            [(peer, payload[:PAYLOAD_BYTES_MAX]) for peer, payload in requests], key=itemgetter(0)
        )
        answers = [oracle.judge(payload, peer) for peer, payload in requests]
        is_harmless = all(each.reason for answer in answers for each in answer.verdicts)
        before = (self.harness.end, self.harness.market.snapshot()) if is_harmless else None

        replies = self._exchange(requests)

        events: list[dict[str, Any]] = []
        newest = self._checked + 1
        for (peer, payload), answer, reply in zip(requests, answers, replies, strict=True):
            self.counted["requests"] += 1
            assert isinstance(reply, list) == answer.is_array, (peer, payload, reply)
            receipts = reply if answer.is_array else [reply]
            for verdict, receipt in zip(answer.verdicts, receipts, strict=True):
                happened = self._check_receipt(peer, payload, verdict, receipt)
                events += happened
                if "sequence" in receipt:
                    assert newest <= receipt["sequence"] <= self.harness.end, (peer, payload)
                    newest = receipt["sequence"]
        self._check_log(events)
        if before is not None:
            assert (self.harness.end, self.harness.market.snapshot()) == before

    def check_replay(self) -> None:
        """Follow the whole log, as anybody may, to the same state."""
        market = Market("BTC-USD", BOUNDS)
        for sequence in range(1, self.harness.end + 1):
            market.apply_commit(self.harness.entry(sequence).payload)
        market.check()
        self.harness.market.check()

        assert market.digest == self.harness.market.digest == self.reference.digest()
        assert market.snapshot() == self.harness.market.snapshot()
        assert self.harness.alarms == []

    # --- One moment -----------------------------------------------------------------------------

    def _exchange(self, requests: list[tuple[str, bytes]]) -> list[Any]:
        """Hand the leader requests, and do what it wants, until all is quiet."""
        harness = self.harness
        numbers = range(self._number, self._number + len(requests))
        self._number += len(requests)
        given = [
            Request(peer=peer, payload=payload, reply_to=number, arrived=harness.monotonic)
            for number, (peer, payload) in zip(numbers, requests, strict=True)
        ]
        replies: dict[int, Any] = {}
        for _, own in groupby(given, key=attrgetter("peer")):
            # Executed at once, as long as the window of appends has room; peers that wait together
            # would take turns, and only each one's own order is promised.
            while len(harness.waiting(Append)) >= UNDER_WAY_MAX:
                harness.perform(harness.under_way.popleft())
                self._collect(numbers, replies)
            harness.give(Requests(list(own)))
            self._collect(numbers, replies)
        for _ in range(EFFECTS_COUNT_MAX):
            if not harness.under_way:
                break
            harness.perform(harness.under_way.popleft())
            self._collect(numbers, replies)

        assert not harness.under_way, "it never comes to rest"
        assert list(numbers) == sorted(replies), "not everybody was answered"
        return [replies[number] for number in numbers]

    def _collect(self, numbers: range, replies: dict[int, Any]) -> None:
        """Take what was answered since the last time, which must rest on what is stored."""
        # The harness itself sees to it that nobody is answered twice.
        for number in numbers:
            if number not in replies and (reply := self.harness.answer(number)) is not None:
                receipts = reply if isinstance(reply, list) else [reply]
                rests_on = max(each.get("sequence", 0) for each in receipts)
                assert rests_on <= self.harness.end, "answered before it was stored"
                replies[number] = reply

    def _check_receipt(
        self, peer: str, payload: bytes, verdict: oracle.Verdict, receipt: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Compare a receipt with what it must be; give the events that must have happened."""
        about = (peer, payload[:2_000], verdict, receipt)
        self.counted["commands"] += 1
        self.counted[receipt.get("reason", receipt["status"])] += 1
        is_stateless = receipt.get("reason") in STATELESS
        if verdict.reason is not None or (verdict.is_open and is_stateless):
            assert receipt["status"] == "rejected", about
            assert is_stateless, about
            assert verdict.is_open or receipt["reason"] == verdict.reason, about
            named = {"status", "reason", "message", "order_id", "command_id"}
            assert named.issuperset(receipt), about
            return []
        command = verdict.command
        assert command is not None
        if receipt["status"] == "retry":
            assert receipt["reason"] in ("busy", "rate_limited"), about
            return []
        expected, events = self.reference.execute(peer, command, self.harness.wall)
        seen = {name: value for name, value in receipt.items() if name != "message"}
        assert seen == expected | {"sequence": receipt.get("sequence")}, (about, expected)
        self.stamp.learn(peer, receipt)
        return events

    def _check_log(self, expected: list[dict[str, Any]]) -> None:
        """Compare what was stored since the last time with what must have happened."""
        commits = [
            json.loads(self.harness.entry(sequence).payload)
            for sequence in range(self._checked + 1, self.harness.end + 1)
        ]
        self._checked = self.harness.end

        assert [event for commit in commits for event in commit["events"]] == expected
        digest = self.reference.digest()
        if commits:
            assert {commit["time"] for commit in commits} == {self.harness.wall}
            assert commits[-1]["digest"] == digest
        assert self.harness.market.digest == digest
