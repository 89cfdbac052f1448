"""What stands beside evidence: of which code it is."""

import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


def commit() -> str:
    """Name the commit of this checkout, and whether anything was changed since; or `unknown`."""
    command = ("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12")
    return said_by(*command)


def said_by(*command: str) -> str:
    """Give what a program prints, without the end of the line; `unknown` when there is none."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return ended.stdout.strip() or "unknown"
