"""On what it was measured, and what: the machine, Python, the commit.

Knows nothing of what is measured.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

_ROOT = Path(__file__).resolve().parents[2]


class Machine(Struct, frozen=True, kw_only=True):
    """What a figure depends on besides the code."""

    processor: str
    cores: int
    """That this process may use."""
    python: str
    platform: str
    commit: str
    """With "+" when the tree is not that of the commit; empty when there is no git."""
    load_before: float
    """Load average of the last minute."""


def look() -> Machine:
    """Look at this machine, now."""
    return Machine(
        processor=_processor(),
        cores=_cores(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(),
        commit=_commit(),
        load_before=round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _commit() -> str:
    if shutil.which("git") is None:
        return ""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return commit + "+" if commit and _git("status", "--porcelain") else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, check=False)
    return done.stdout.decode().strip() if done.returncode == 0 else ""
