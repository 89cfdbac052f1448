"""`dex-local`: up twice, taken ports, what ends by itself, Ctrl-C, servers that come and go, down.

Which server leads is nowhere taken for granted.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy import nodes, processes, state
from deploy.access import Doors
from deploy.embedded import cluster
from deploy.processes import Process
from dex_runtime.keys import VARIABLE

READY_TIMEOUT_S = 90

NODES = ["nats-1", "nats-2", "nats-3"]

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != VARIABLE}
"""Keys are in the directory of each exchange, not where tests keep theirs."""


class Local:
    """Runs `dex-local` in a directory of its own, on ports that nobody else has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "data"
        self.ports = free_runs(2, length=3)

    def command(self, *arguments: str) -> list[str]:
        program = processes.executable("dex-local", advice="")
        return [str(program), *arguments, "--dir", str(self.directory)]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=READY_TIMEOUT_S,
            check=False,
            env=ENVIRONMENT | environment,
        )

    def up(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        client_port, cluster_port = self.ports
        ports = ("--port", str(client_port), "--cluster-port", str(cluster_port))
        return self.run("up", *ports, *arguments, **environment)

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
    assert list(started) == [*NODES, "guard"]
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
        local.command("up", *ports, "--servers", "0"),
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
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


def test_up_starts_two_servers_and_opens_the_markets_and_brings_a_killed_server_back(
    local: Local,
) -> None:
    first = local.up("--market", "BTC-USD")
    assert first.returncode == 0, first.stderr
    before = local.processes()
    assert list(before) == [*NODES, "guard", "server-1", "server-2"]
    assert_trading(local, "BTC-USD")

    killed = local.run("kill-server", "server-1")
    assert killed.returncode == 0, killed.stderr
    assert "server-1 is killed; `uv run just up --dir" in killed.stdout
    assert running(local) == [*NODES, "guard", "server-2"]
    status = local.run("status")
    assert status.returncode == 1
    assert ["server-1", "not", "running"] in [row[:3] for row in rows(status.stdout, "PROCESS")]

    again = local.run("up", "--market", "ETH-USD")

    assert again.returncode == 0, again.stderr
    assert again.stderr == "server-1 had ended\nstarting server-1\n"
    after = local.processes()
    assert [name for name in before if before[name] != after[name]] == ["server-1"]
    assert_trading(local, "BTC-USD", "ETH-USD")
    assert local.run("down").returncode == 0
    assert not any(processes.is_running(process) for process in after.values())


def test_servers_come_and_go_while_the_rest_goes_on(local: Local) -> None:
    up = local.up("--nodes", "1", "--servers", "1", "--market", "BTC-USD")
    assert up.returncode == 0, up.stderr
    before = local.processes()

    for arguments, name in [([], "server-2"), (["alice"], "alice"), ([], "server-3")]:
        added = local.run("add-server", *arguments)
        assert added.returncode == 0, added.stderr
        assert added.stderr == f"starting {name}\n"
        assert rows(added.stdout, "PROCESS")[-1][0] == name
    names = ["nats-1", "guard", "server-1", "server-2", "alice", "server-3"]
    assert running(local) == names
    assert_trading(local, "BTC-USD")

    left = local.run("stop-server", "server-1")
    assert left.returncode == 0, left.stderr
    assert left.stderr == "stopping server-1\n"
    assert not processes.is_running(before["server-1"])
    names.remove("server-1")
    assert_trading(local, "BTC-USD")
    assert [row[0] for row in rows(local.run("status").stdout, "PROCESS")] == names

    assert local.run("kill-server", "alice").returncode == 0
    back = local.run("add-server", "alice")
    assert back.returncode == 0, back.stderr
    again = local.run("up")
    assert again.returncode == 0, again.stderr
    assert "The exchange is running already." in again.stdout
    assert sorted(running(local)) == sorted(names)
    assert local.processes()["nats-1"] == before["nats-1"]

    started = local.processes()
    assert local.run("down").returncode == 0
    assert not any(processes.is_running(process) for process in started.values())
    assert local.run("stop-server", "alice").returncode == 0
    brought_back = local.run("up")
    assert brought_back.returncode == 0, brought_back.stderr
    assert running(local) == ["nats-1", "guard", "server-2", "server-3"]


def test_first_server_joins_nodes_that_run_alone_and_opens_the_markets(local: Local) -> None:
    up = local.up("--nodes", "1", "--servers", "0", "--market", "BTC-USD")
    assert up.returncode == 0, up.stderr
    assert "MARKET" not in up.stdout

    added = local.run("add-server")

    assert added.returncode == 0, added.stderr
    assert running(local) == ["nats-1", "guard", "server-1"]
    assert_trading(local, "BTC-USD")


def test_impossible_change_of_the_servers_is_refused_and_says_why(local: Local) -> None:
    up = local.up("--nodes", "1", "--market", "BTC-USD")
    assert up.returncode == 0, up.stderr
    before = local.processes()

    for arguments, complaint in [
        (["add-server", "server-2"], "server-2 is running already"),
        (["kill-server", "server-9"], "no server server-9; running: server-1, server-2"),
        (["stop-server", "nats-1"], "no server nats-1; running: server-1, server-2"),
        (["up", "--servers", "1"], "or take servers out with `just stop-server`"),
    ]:
        refused = local.run(*arguments)
        assert refused.returncode == 1
        assert complaint in refused.stderr
    assert local.processes() == before
    assert running(local) == list(before)

    assert local.run("kill-server", "server-2").returncode == 0
    again = local.run("kill-server", "server-2")
    assert again.returncode == 1
    assert "server-2 is not running" in again.stderr


def test_server_that_cannot_join_is_ended_and_forgotten(local: Local) -> None:
    up = local.up("--nodes", "1", "--servers", "0")
    assert up.returncode == 0, up.stderr
    before = state.load(local.directory)
    with subprocess.Popen(
        local.command("add-server"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as add:
        # A server needs a moment to start, and the markets to open.
        until(lambda: "server-1" in local.processes())
        started = local.processes()
        add.send_signal(signal.SIGINT)
        _, said = add.communicate(timeout=30)

    assert add.returncode == 128 + signal.SIGINT
    assert said == "starting server-1\nstopping server-1\ninterrupted by SIGINT\n"
    assert not processes.is_running(started["server-1"])
    assert state.load(local.directory) == before


def test_guard_is_started_beside_nodes_and_again_when_it_has_ended(local: Local) -> None:
    assert local.up("--nodes", "1", "--servers", "0").returncode == 0
    before = local.processes()
    log = local.directory / "servers" / "guard.log"
    until(lambda: "guarding" in log.read_text())
    processes.send(before["guard"], signal.SIGKILL)
    until(lambda: not processes.is_running(before["guard"]))
    status = local.run("status")
    assert status.returncode == 1
    assert ["guard", "not", "running"] in [row[:3] for row in rows(status.stdout, "PROCESS")]

    again = local.run("up")

    assert again.returncode == 0, again.stderr
    assert again.stderr == "guard had ended\nstarting guard\n"
    until(lambda: log.read_text().count("guarding") == 2)
    assert local.processes()["nats-1"] == before["nats-1"]


def test_what_the_surroundings_say_of_keys_is_not_taken_for_those_of_the_exchange(
    local: Local, tmp_path: Path
) -> None:
    """Neither another exchange's directory, as where this one is started, nor the variables of the
    `nats` tool."""
    other = tmp_path / "elsewhere"
    Doors(other, tmp_path / "accounts.conf", has_observer=False, has_tls=True)
    variables = {
        VARIABLE: str(other),
        "NATS_CREDS": str(other / "server.nk"),
        "NATS_CA": str(other / "ca.pem"),
    }

    up = local.up("--nodes", "1", "--servers", "1", "--market", "BTC-USD", **variables)

    assert up.returncode == 0, up.stderr
    assert_trading(local, "BTC-USD")
    log = local.directory / "servers" / "guard.log"
    until(lambda: "guarding" in log.read_text())


def test_exchange_with_tls_lets_peers_come_and_go_while_others_trade(local: Local) -> None:
    up = local.up("--nodes", "1", "--servers", "1", "--market", "BTC-USD", "--tls")
    assert up.returncode == 0, up.stderr
    keys = str(local.directory / "keys")

    def buys(peer: str) -> subprocess.CompletedProcess[str]:
        program = processes.executable("dex-client", advice="")
        where = ("--market", "BTC-USD", "--nats", f"nats://127.0.0.1:{local.ports[0]}")
        return subprocess.run(
            [program, "buy", "1", "--price", "100", "--peer", peer, *where],
            capture_output=True,
            text=True,
            timeout=READY_TIMEOUT_S,
            check=False,
            env=ENVIRONMENT | {VARIABLE: keys},
        )

    assert buys("default").returncode == 0
    nobody = buys("alice")
    assert (nobody.returncode, nobody.stdout) == (2, "")

    added = local.run("peers", "add", "alice")
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("alice is let in, its key is ")
    assert buys("alice").returncode == 0
    assert rows(local.run("peers", "list").stdout, "PEER")[-1][0] == "alice"

    old = (local.directory / "keys" / "peers" / "alice.nk").read_bytes()
    assert local.run("peers", "rotate", "alice").returncode == 0
    assert buys("alice").returncode == 0
    (local.directory / "keys" / "peers" / "alice.nk").write_bytes(old)
    refused = buys("alice")
    assert refused.returncode == 2
    assert "refused the key in " in refused.stderr

    assert local.run("peers", "remove", "alice").returncode == 0
    assert "alice" not in local.run("peers", "list").stdout
    assert buys("default").returncode == 0


async def test_cluster_of_a_program_can_be_hurt_and_mended_and_leaves_nothing() -> None:
    said: list[str] = []
    async with cluster(["BTC-USD"], node_count=1, server_count=2, say=said.append) as exchange:
        first, second = exchange.servers
        directory = first.log.parent
        await first.kill()
        assert [server.is_running() for server in exchange.servers] == [False, True]

        again = exchange.start_server("server-1")
        third = exchange.start_server("server-3")
        assert exchange.servers == [again, second, third]
        await exchange.nodes[0].stop(graceful=False)
        await exchange.start_nodes()
        third.pause()
        assert all(server.is_running() for server in exchange.servers)
        started = [server.process for server in exchange.servers]
        started += [node.process for node in exchange.nodes]

    assert not any(processes.is_running(process) for process in started)
    assert not directory.exists()
    assert said[1:] == [
        "starting 2 servers, and opening BTC-USD",
        "stopping the servers and the node",
    ]


def running(local: Local) -> list[str]:
    return [name for name, process in local.processes().items() if processes.is_running(process)]


def rows(table: str, heading: str) -> list[list[str]]:
    """Read a table of `status` to its end."""
    lines = table.partition(heading)[2].partition("\n\n")[0].splitlines()
    return [line.split() for line in lines[1:]]


def assert_trading(local: Local, *markets: str) -> None:
    # A market may be on its way to another server; `status` asks any, and one may lag behind.
    until(lambda: local.run("status").returncode == 0)
    status = local.run("status")
    found = [row[:2] for row in rows(status.stdout, "MARKET")]
    assert found == [[market, "trading"] for market in markets], status.stdout


def until(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
