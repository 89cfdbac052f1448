"""A real cluster under fire keeps what is promised
(G1, G2, G3, G5, G6, G7, G10, G11, G12, G13, G14, G18)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.helpers import ROOT

pytestmark = pytest.mark.long

SEED = 99
"""Of six faults: servers killed and stopped, a node cut off, links slow, a server more."""
DURATION_S = 60
"""As long as a few faults take, an election in NATS among them."""


def test_nothing_is_lost_nor_executed_twice_under_fire(tmp_path: Path) -> None:
    """No guarantee is broken by what a nemesis does to nodes, servers and links."""
    evidence = tmp_path / "evidence.json"
    options = {"--seed": SEED, "--duration": DURATION_S, "--evidence": evidence}
    command = [sys.executable, "-m", "tests.chaos"]
    command += [str(part) for option in options.items() for part in option]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    printed = ended.stdout + ended.stderr
    assert ended.returncode == 0, printed
    seen = json.loads(evidence.read_text("utf-8"))
    assert seen["violations"] == seen["complaints"] == [], printed
    assert len({fault["kind"] for fault in seen["faults"]}) >= 3, printed
    assert len(seen["leader_changes"]) > 0, printed
    assert seen["counts"]["acknowledged"] > 500, printed
    assert seen["counts"]["replicas"] == 12, printed
