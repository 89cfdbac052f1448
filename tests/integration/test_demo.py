"""`dex-local demo`: an exchange for one load, verified, and nothing left of it."""

import json
import subprocess
from pathlib import Path

from deploy import processes

TIMEOUT_S = 110
"""What a stranger is promised: the demonstration ends within two minutes."""


def demo(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = processes.executable("dex-local", advice="")
    return subprocess.run(
        [program, "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={"TMPDIR": str(directory), "PATH": ""},
    )


def test_demo_sends_a_thousand_orders_and_prints_one_json_object(tmp_path: Path) -> None:
    done = demo(tmp_path, "--json", "-")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["orders"] == 1_000
    assert report["accepted"] + sum(report["rejected"].values()) == 1_000
    assert report["trades"] > 0
    assert report["orders_per_second"] > 0
    assert report["latency_ms"].keys() >= {"p50", "p90", "p99", "p99_9", "max"}
    verified = report["verified"]
    assert (verified["missing"], verified["duplicated"]) == (0, 0)
    assert verified["digest_equal"] is True


def test_demo_leaves_nothing_behind_and_passes_the_exit_code_on(tmp_path: Path) -> None:
    done = demo(tmp_path, "--no-such-option-of-the-load-generator")

    assert done.returncode == 2, done.stderr
    assert "stopping the servers and the node" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_demo_has_the_options_of_the_load_generator(tmp_path: Path) -> None:
    done = demo(tmp_path, "--orders", "50", "--in-flight", "8", "--market", "SOL-USD")

    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout.lower()
