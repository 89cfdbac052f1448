"""Processes that outlive the program that started them: start one, recognize it later, end it.

A process is known by its pid and by when it started, so that a pid that the system has given to
somebody else is never mistaken for it, and never signalled. Knows nothing of what the programs do.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

STOP_POLL_S: Final = 0.02
"""How often a process that was told to end is looked at: nodes and servers end within 0.05 to
0.5 s, so a look is cheap against what is waited for."""

KILL_WAIT_S: Final = 5.0
"""How long a killed process may take to be gone; milliseconds, but for a loaded disk."""

_START_OF_LOG: Final = b"=== started ==="
"""A line of its own before what each start of a program adds to its log file."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes started by this very program: they stay in the system's table until their exit is
asked for."""


class ProgramMissing(Exception):
    """A program that this one starts is not installed; the text says what to install."""

    def __init__(self, program: str, advice: str) -> None:
        """Name the program and what to do."""
        super().__init__(f"{program} not found: {advice}")
        self.program = program


class ProcessStuck(Exception):
    """A process is still there after SIGKILL; only the system can tell why."""


class Process(Struct, frozen=True):
    """A process, for good: no other ever has the same two values."""

    pid: int
    started: str
    """When it started, in the system's own words: clock ticks since boot and the boot's id on
    Linux, the start date elsewhere."""


def executable(program: str, *, advice: str) -> Path:
    """Find a program next to the running Python, where its package puts it, or else on PATH.

    Raises:
        ProgramMissing: it is in neither place.
    """
    beside = Path(sysconfig.get_path("scripts")) / program
    if os.access(beside, os.X_OK):
        return beside
    on_path = shutil.which(program)
    if on_path is None:
        raise ProgramMissing(program, advice)
    return Path(on_path)


def spawn(
    command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Start a program in a session of its own; what it prints is appended to a log file.

    The session keeps it alive when the terminal closes, and keeps Ctrl-C away from it.
    """
    with log.open("ab") as output:
        output.write(_START_OF_LOG + b"\n")
        output.flush()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=None if environment is None else {**os.environ, **environment},
        )
    _children[child.pid] = child
    started = _started(child.pid)
    # Until this program asks, a child of its own is in the table even when it has ended already.
    assert started is not None, f"expected process {child.pid} to exist, found none"
    return Process(pid=child.pid, started=started)


def is_running(process: Process) -> bool:
    """Tell whether a process still runs; one that ended and was not yet asked for does not."""
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        del _children[process.pid]
    return _started(process.pid) == process.started and not _is_zombie(process.pid)


def send(process: Process, signal_number: signal.Signals) -> None:
    """Send a signal to a process if it still runs, and to nobody else if it does not."""
    if is_running(process):
        try:
            os.kill(process.pid, signal_number)
        except ProcessLookupError:
            return  # It ended between the look and the signal.


async def wait_until_gone(process: Process, *, timeout_s: float) -> bool:
    """Wait for a process to end; tell whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while is_running(process):
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(STOP_POLL_S)
    return True


async def stop(process: Process, *, grace_s: float) -> bool:
    """End a process: SIGTERM, and SIGKILL if it has not gone after a while.

    Returns:
        Whether it ended by itself in time.

    Raises:
        ProcessStuck: not even SIGKILL ended it.
    """
    send(process, signal.SIGTERM)
    # A stopped process takes no SIGTERM before it goes on.
    send(process, signal.SIGCONT)
    if await wait_until_gone(process, timeout_s=grace_s):
        return True
    await kill(process)
    return False


async def kill(process: Process) -> None:
    """End a process by SIGKILL, and wait until it is gone.

    Raises:
        ProcessStuck: it is still there after KILL_WAIT_S.
    """
    send(process, signal.SIGKILL)
    if not await wait_until_gone(process, timeout_s=KILL_WAIT_S):
        raise ProcessStuck(f"process {process.pid} is still there {KILL_WAIT_S} s after SIGKILL")


def last_lines(log: Path, *, count: int) -> list[str]:
    """Give the last lines of what a program printed since its last start, oldest first.

    None when there is no log file.
    """
    try:
        printed = log.read_bytes().rpartition(_START_OF_LOG + b"\n")[2]
    except FileNotFoundError:
        return []
    return printed.decode(errors="replace").splitlines()[-count:]


def _started(pid: int) -> str | None:
    """When the process that has this pid now started; None when nobody has it."""
    if not Path("/proc/self/stat").exists():
        return _ask_ps(pid, "lstart")
    fields = _stat_fields(pid)
    if fields is None:
        return None
    # Ticks count from boot, so only together with the boot are they unique.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{fields[19]}@{boot}"


def _is_zombie(pid: int) -> bool:
    if not Path("/proc/self/stat").exists():
        return (_ask_ps(pid, "stat") or "").startswith("Z")
    fields = _stat_fields(pid)
    return fields is not None and fields[0] in ("Z", "X")


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the name, `state` first (proc(5), number 3)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold any character, so look from the right.
    return text.rpartition(")")[2].split()


def _ask_ps(pid: int, column: str) -> str | None:
    """One column about a process, for systems without /proc (macOS)."""
    answer = subprocess.run(
        ["ps", "-o", f"{column}=", "-p", str(pid)],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None
