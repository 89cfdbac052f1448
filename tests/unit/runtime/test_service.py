"""The life of a process, tried with real processes."""

import logging
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from dex_runtime.service import LineFormatter

LONG_S = 60.0


def started(main: str, *options: str) -> subprocess.Popen[str]:
    """Start a process whose main function has this body; it says "ready" when it runs."""
    program = f"""
import asyncio, sys
from dex_runtime import service

async def main(stop):
    print("ready", flush=True)
{textwrap.indent(textwrap.dedent(main), "    ")}

service.set_up_logging()
sys.exit(service.run(main, stop_timeout_s=0.2))
"""
    return subprocess.Popen(
        [sys.executable, *options, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process to end; give its status and what it wrote to stderr."""
    _, errors = process.communicate(timeout=LONG_S)
    return process.returncode, errors


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def test_main_that_returns_ends_well() -> None:
    assert ended(started("return")) == (0, "")


def test_main_that_fails_is_recorded_and_ends_with_1() -> None:
    status, errors = ended(started("raise RuntimeError('out of cheese')"))

    assert status == 1
    assert "CRITICAL" in errors
    assert "out of cheese" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_main_in_good_order(number: signal.Signals) -> None:
    process = started("await stop.wait()")
    wait_until_ready(process)

    process.send_signal(number)

    status, errors = ended(process)
    assert status == 0
    assert number.name in errors


def test_main_that_does_not_stop_in_time_is_ended_with_1() -> None:
    process = started("await asyncio.sleep(1000)")
    wait_until_ready(process)

    process.terminate()

    assert ended(process)[0] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once_whatever_main_does(number: signal.Signals) -> None:
    process = started(
        """
        import time
        await stop.wait()
        print("stopping", flush=True)
        while True:
            time.sleep(1)
        """
    )
    wait_until_ready(process)
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping\n"

    process.send_signal(number)

    assert ended(process)[0] == -number


def test_process_without_assertions_is_refused() -> None:
    status, errors = ended(started("return", "-O"))

    assert status == 2
    assert "assertions" in errors


def test_record_is_one_line_with_time_level_and_what_it_is_about() -> None:
    record = logging.makeLogRecord(
        {
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": "follows from %d\nand on",
            "args": (1042,),
            "created": 1769851800.123,
            "msecs": 123.0,
            "market": "BTC-USD",
            "server": "a1",
        }
    )

    assert LineFormatter().format(record) == (
        "2026-01-31T09:30:00.123Z INFO  market=BTC-USD server=a1 follows from 1042\\nand on"
    )
