"""`dex-local`: up twice, taken ports, what ends by itself, Ctrl-C, down, clean."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy import nodes, processes, state
from deploy.processes import Process

READY_TIMEOUT_S = 90


class Local:
    """Runs `dex-local` in a directory of its own, on ports that nobody else has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "data"
        self.ports = free_runs(2, length=3)

    def command(self, *arguments: str) -> list[str]:
        program = processes.executable("dex-local", advice="")
        return [str(program), *arguments, "--dir", str(self.directory)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=READY_TIMEOUT_S,
            check=False,
        )

    def up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        client_port, cluster_port = self.ports
        ports = ("--port", str(client_port), "--cluster-port", str(cluster_port))
        return self.run("up", *ports, *arguments)

    def processes(self) -> dict[str, Process]:
        remembered = state.load(self.directory)
        return {} if remembered is None else remembered.processes


def free_runs(count: int, *, length: int) -> list[int]:
    """Find first ports of runs that are free."""
    while True:
        ports = [port for port in nodes.free_ports(count) if port + length <= 30_000]
        free = all(nodes.is_free(port + index) for port in ports for index in range(length))
        far = all(abs(a - b) >= length for a in ports for b in ports if a != b)
        if len(ports) == count and free and far:
            return ports


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    local = Local(tmp_path)
    yield local
    local.run("down")


def test_up_twice_is_harmless_and_down_leaves_no_process_but_the_data(local: Local) -> None:
    first = local.up("--servers", "0")
    assert first.returncode == 0, first.stderr
    assert "The exchange is ready." in first.stdout
    started = local.processes()
    assert list(started) == ["nats-1", "nats-2", "nats-3"]
    assert all(processes.is_running(process) for process in started.values())
    assert f"nats://127.0.0.1:{local.ports[0]}" in first.stdout

    second = local.up("--servers", "0")
    assert second.returncode == 0, second.stderr
    assert "The exchange is running already." in second.stdout
    assert local.processes() == started

    down = local.run("down")
    assert down.returncode == 0, down.stderr
    assert not any(processes.is_running(process) for process in started.values())
    assert local.processes() == {}
    assert (local.directory / "nodes" / "nats-3" / "store").is_dir()
    assert "Nothing was running." in local.run("down").stdout


def test_clean_ends_everything_and_removes_the_data_and_nothing_else(local: Local) -> None:
    assert local.up("--servers", "0", "--nodes", "1").returncode == 0
    started = local.processes()
    not_ours = local.directory / "letter.txt"
    not_ours.touch()

    clean = local.run("clean")

    assert clean.returncode == 0, clean.stderr
    assert not any(processes.is_running(process) for process in started.values())
    assert list(local.directory.iterdir()) == [not_ours]
    not_ours.unlink()
    assert local.run("clean").returncode == 0
    assert not local.directory.exists()


def test_up_starts_again_what_has_ended_and_nothing_else(local: Local) -> None:
    assert local.up("--servers", "0").returncode == 0
    before = local.processes()
    processes.send(before["nats-2"], signal.SIGKILL)
    until(lambda: not processes.is_running(before["nats-2"]))
    assert "not running" in local.run("status").stdout

    again = local.run("up")

    assert again.returncode == 0, again.stderr
    assert "nats-2 had ended\nstarting nats-2\n" in again.stderr
    after = local.processes()
    assert [name for name in before if before[name] != after[name]] == ["nats-2"]
    assert local.run("status").returncode == 0


def test_taken_port_is_named_before_anything_is_started(local: Local) -> None:
    taken = local.ports[1] + 1
    with socket.create_server((nodes.HOST, taken)):
        up = local.up("--servers", "0")

    assert up.returncode == 1
    assert f"port {taken} (cluster of nats-2)" in up.stderr
    assert "starting" not in up.stderr
    assert local.processes() == {}


def test_moving_what_runs_is_refused(local: Local) -> None:
    assert local.up("--servers", "0", "--nodes", "1").returncode == 0

    moved = local.run("up", "--port", "4333")

    assert moved.returncode == 1
    assert "end it first with `just down`" in moved.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_up_leaves_nothing_running(local: Local, number: signal.Signals) -> None:
    client_port, cluster_port = local.ports
    ports = ("--port", str(client_port), "--cluster-port", str(cluster_port))
    with subprocess.Popen(
        local.command("up", *ports, "--servers", "0"), stderr=subprocess.PIPE, text=True
    ) as up:
        # Three nodes need a second to agree on a leader; by then the first one runs.
        until(lambda: "nats-2" in local.processes())
        started = local.processes()
        up.send_signal(number)
        _, said = up.communicate(timeout=30)

    assert up.returncode == 128 + number
    assert f"interrupted by {number.name}" in said
    assert not any(processes.is_running(process) for process in started.values())
    assert local.processes() == {}


def test_up_with_a_server_opens_the_markets_and_brings_a_killed_server_back(local: Local) -> None:
    first = local.up("--market", "BTC-USD")
    assert first.returncode == 0, first.stderr
    assert_trading(local, "BTC-USD")
    before = local.processes()
    processes.send(before["server-1"], signal.SIGKILL)
    until(lambda: not processes.is_running(before["server-1"]))

    again = local.run("up", "--market", "ETH-USD")

    assert again.returncode == 0, again.stderr
    assert "server-1 had ended\nstarting server-1\n" in again.stderr
    assert_trading(local, "BTC-USD", "ETH-USD")
    after = local.processes()
    assert local.run("down").returncode == 0
    assert not any(processes.is_running(process) for process in after.values())


def assert_trading(local: Local, *markets: str) -> None:
    status = local.run("status")
    assert status.returncode == 0, status.stdout
    rows = [line.split() for line in status.stdout.partition("MARKET")[2].splitlines()[1:]]
    assert [row[:2] for row in rows] == [[market, "trading"] for market in markets]


def until(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
