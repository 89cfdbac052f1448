"""The engine does what the naive reference engine does, command by command.

`DEX_TWIN_STEPS` is how many steps the seeded loop takes in all.
"""

import os
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.property.twins import Twins
from tests.property.workload import Drawn, Seeded

SEEDS = 100
STEPS = int(os.environ.get("DEX_TWIN_STEPS", "100000"))


@pytest.mark.parametrize("part", range(10))
def test_seeded_workload_is_executed_as_the_reference_does(part: int) -> None:
    """Receipts, events and digest, after every command (G8)."""
    for seed in range(part, SEEDS, 10):
        twins = Twins(Seeded(random.Random(seed)), check_every=7)
        for _ in range(STEPS // SEEDS):
            twins.step()


class EngineAndReference(RuleBasedStateMachine):
    """Hypothesis chooses every step, and shrinks what differs to the fewest."""

    twins: Twins

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.twins = Twins(Drawn(data.draw))

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.twins.choose = Drawn(data.draw)
        self.twins.step()

    @invariant()
    def laws_hold(self) -> None:
        if hasattr(self, "twins"):
            self.twins.leader.check()


TestEngineAndReference = pytest.mark.long(EngineAndReference.TestCase)
TestEngineAndReference.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
