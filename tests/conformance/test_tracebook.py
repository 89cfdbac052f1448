"""tracebook's conformance suite qualifies the engine: an order book of other people's making.

Each profile is a set of fixed cases and 25 generated traces of 200 events, each in a process of
its own; after every event the outcome, the trades and the hash of all books must be the suite's.
"""

import json
import sys
from pathlib import Path

import pytest
from tracebook.conformance import (
    ExternalProcessAdapterFactory,
    QualificationResult,
    run_qualification,
)

ADAPTER = Path(__file__).with_name("adapter.py")

ANSWER_TIMEOUT_S = 30.0
"""What one answer may take on a machine that does much else; only a hang is longer."""


@pytest.mark.parametrize("profile", ["fifo-limit-v1", "fifo-full-v1", "fifo-partial-fill-v1"])
def test_engine_behind_the_adapter_qualifies(profile: str) -> None:
    """Who trades with whom, at which price, by the judgement of others (G8)."""
    result = run_qualification(
        ExternalProcessAdapterFactory([sys.executable, str(ADAPTER)], ANSWER_TIMEOUT_S),
        profile,
        seed=1337,
        traces=25,
        events_per_trace=200,
    )

    assert result.qualified, divergence(result)


def divergence(result: QualificationResult) -> str:
    """Show what differed: first in each fixed case, then in the shortest trace that fails."""
    shown = [
        {"case": case["name"], "divergence": case["report"]["divergence"]}
        for case in result.suite_report["cases"]
        if not case["report"]["conformant"]
    ]
    failure = result.campaign.failure
    if failure is not None:
        report = failure.minimization.report.to_dict()
        events = [event.to_dict() for event in failure.minimization.events]
        shown.append({"events": events, "divergence": report["divergence"]})
    return json.dumps([result.to_dict()["checks"], *shown], indent=2)
