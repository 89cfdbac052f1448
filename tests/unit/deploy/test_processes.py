"""A process is known for good, ended whatever it does, and nobody else is signalled."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from deploy import processes
from deploy.processes import Process

SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(60)"
)


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """Processes to end after the test."""
    started: list[Process] = []
    yield started
    for process in started:
        asyncio.run(processes.kill(process))


def spawn(started: list[Process], code: str, log: Path) -> Process:
    process = processes.spawn([sys.executable, "-c", code], log=log)
    started.append(process)
    return process


def wait_for_a_line(log: Path) -> None:
    deadline = time.monotonic() + 10
    while "deaf" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_started_process_runs_in_a_session_of_its_own(
    started: list[Process], tmp_path: Path
) -> None:
    process = spawn(started, SLEEP, tmp_path / "log")

    assert processes.is_running(process)
    assert os.getsid(process.pid) == process.pid


def test_process_that_ended_does_not_run_and_its_output_is_in_the_log(
    started: list[Process], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = spawn(started, "print('one'); print('two')", log)

    assert asyncio.run(processes.wait_until_gone(process, timeout_s=10))
    assert not processes.is_running(process)
    assert processes.last_lines(log, count=1) == ["two"]
    assert processes.last_lines(log, count=9) == ["one", "two"]


def test_reused_pid_is_another_process_and_gets_no_signal(
    started: list[Process], tmp_path: Path
) -> None:
    process = spawn(started, SLEEP, tmp_path / "log")
    earlier_owner = structs.replace(process, started="1@another-boot")

    processes.send(earlier_owner, signal.SIGKILL)
    assert not processes.is_running(earlier_owner)
    assert asyncio.run(processes.stop(earlier_owner, grace_s=0))

    assert processes.is_running(process)


def test_stop_ends_a_process_in_time(started: list[Process], tmp_path: Path) -> None:
    process = spawn(started, SLEEP, tmp_path / "log")

    assert asyncio.run(processes.stop(process, grace_s=10))
    assert not processes.is_running(process)


def test_process_that_takes_no_sigterm_is_killed(started: list[Process], tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn(started, STUBBORN, log)
    wait_for_a_line(log)

    assert not asyncio.run(processes.stop(process, grace_s=0.1))
    assert not processes.is_running(process)


def test_paused_process_is_ended(started: list[Process], tmp_path: Path) -> None:
    process = spawn(started, SLEEP, tmp_path / "log")
    processes.send(process, signal.SIGSTOP)
    assert processes.is_running(process)

    assert asyncio.run(processes.stop(process, grace_s=10))
    assert not processes.is_running(process)


def test_program_next_to_python_is_found_and_a_missing_one_comes_with_advice() -> None:
    assert processes.executable("nats-server", advice="").name == "nats-server"

    with pytest.raises(processes.ProgramMissing, match="no-such-program not found: look around"):
        processes.executable("no-such-program", advice="look around")


def test_last_lines_are_those_of_the_last_start(started: list[Process], tmp_path: Path) -> None:
    log = tmp_path / "log"
    for code in ("print('old')", "print('new')"):
        process = spawn(started, code, log)
        assert asyncio.run(processes.wait_until_gone(process, timeout_s=10))

    assert processes.last_lines(log, count=9) == ["new"]
    assert "old" in log.read_text()


def test_missing_log_has_no_lines(tmp_path: Path) -> None:
    assert processes.last_lines(tmp_path / "none", count=3) == []
