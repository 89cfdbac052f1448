"""The load generator against a real exchange: its report, its exit codes, its manners."""

import asyncio
import json
import os
import pty
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from deploy import processes
from tests.integration.programs import PATIENCE_S, Exchange, eventually, exchange
from tests.nats_nodes import running


class Done(NamedTuple):
    """What a run of the load generator left."""

    exit_code: int
    stdout: bytes
    stderr: str


def command(place: Exchange, *options: str) -> list[str]:
    program = processes.executable("dex-client", advice="`uv sync` installs it")
    return [str(program), "--nats", place.urls, *options]


async def started(
    place: Exchange, *options: str, stderr: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command(place, *options), stdout=asyncio.subprocess.PIPE, stderr=stderr
    )


async def ended(process: asyncio.subprocess.Process) -> Done:
    try:
        async with asyncio.timeout(PATIENCE_S):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, stdout, (stderr or b"").decode())


async def run(place: Exchange, *options: str) -> Done:
    return await ended(await started(place, *options))


def the_report(done: Done) -> dict[str, Any]:
    """Read a run's JSON, and make sure that the run was good."""
    assert done.exit_code == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["accepted"] + sum(report["rejected"].values()) == report["orders"]
    assert (report["unknown"], report["unavailable"]) == (0, 0)
    verified = report["verified"]
    assert (verified["missing"], verified["duplicated"]) == (0, 0)
    assert verified["digest_equal"] is True
    assert verified["violations"] == []
    return report


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Exchange]:
    """Run a node that the test may hurt, for its own servers."""
    async with running(tmp_path / "node") as nodes, exchange(nodes, tmp_path) as place:
        yield place


# --- Loads --------------------------------------------------------------------------------------


async def test_json_on_stdout_is_all_of_stdout(venue: Exchange, market: str) -> None:
    await venue.open(market)

    done = await run(venue, "--orders", "500", "--market", market, "--json", "-")

    report = the_report(done)
    assert report["orders"] == 500
    assert report["markets"] == [market]
    assert report["trades"] > 0
    assert report["rejected"]["price_off_tick"] > 0
    assert report["orders_per_second"] > 0
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99_9"]
    assert latency["p99_9"] <= latency["max"]
    # The text goes to stderr then, and no progress to what is no terminal.
    assert "orders per second" in done.stderr
    assert "\x1b" not in done.stderr


async def test_without_json_the_text_is_on_stdout(venue: Exchange, market: str) -> None:
    await venue.open(market)

    done = await run(venue, "--orders", "50", "--market", market)

    assert done.exit_code == 0
    assert done.stdout.startswith(f"50 orders to {market} by 1 peer".encode())
    assert b"\nverified: " in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("batch", ["7", "100", "1000"])
async def test_batches_of_several_peers_to_two_markets_are_verified(
    venue: Exchange, market: str, batch: str
) -> None:
    """The log is read back, and each order's quantity counted again (G10)."""
    other = f"{market}-2"
    await venue.open(market)
    await venue.open(other)

    report = the_report(
        await run(
            venue,
            *("--orders", "3000", "--batch", batch, "--peers", "3", "--in-flight", "6"),
            *("--market", market, "--market", other, "--json", "-"),
        )
    )

    assert report["markets"] == [market, other]
    assert (report["peers"], report["batch"]) == (3, int(batch))
    # Both markets are read back: their openings, and what came after.
    assert report["verified"]["commits"] >= 4
    assert report["verified"]["events"] > 3_000


async def test_the_same_peers_go_on_with_new_ids(venue: Exchange, market: str) -> None:
    await venue.open(market)
    options = ("--orders", "400", "--batch", "10", "--market", market, "--json", "-")

    first = the_report(await run(venue, *options))
    second = the_report(await run(venue, *options))

    assert first["rejected"].keys() >= second["rejected"].keys() - {"no_liquidity"}
    assert not {"id_reused", "stale_id"} & second["rejected"].keys()


async def test_a_load_after_a_snapshot_is_verified_from_there(venue: Exchange, market: str) -> None:
    """The venue's server takes a snapshot every 20 commits; what is read back is what is new."""
    await venue.open(market)
    options = ("--orders", "60", "--in-flight", "1", "--market", market, "--json", "-")
    the_report(await run(venue, *options))

    async def look() -> bool | None:
        report = the_report(await run(venue, *options))
        return True if report["verified"]["commits"] < 100 else None

    await eventually(look, what="a snapshot")


async def test_a_rate_is_kept(venue: Exchange, market: str) -> None:
    await venue.open(market)

    report = the_report(
        await run(venue, "--orders", "200", "--rate", "400", "--market", market, "--json", "-")
    )

    # The last order is due 199 / 400 s after the first.
    assert report["seconds"] >= 199 / 400
    assert report["rate"] == 400


async def test_without_verification_the_log_is_not_read(venue: Exchange, market: str) -> None:
    await venue.open(market)

    done = await run(venue, "--orders", "50", "--no-verify", "--market", market, "--json", "-")

    assert done.exit_code == 0
    assert json.loads(done.stdout)["verified"] is None


async def test_a_terminal_shows_progress(venue: Exchange, market: str) -> None:
    await venue.open(market)
    ours, theirs = pty.openpty()
    loop, shown = asyncio.get_running_loop(), bytearray()
    try:
        # As a terminal does, read all the while: its buffer is small.
        loop.add_reader(ours, lambda: shown.extend(os.read(ours, 4096)))
        process = await started(
            venue, "--orders", "1000", "--rate", "1000", "--market", market, stderr=theirs
        )
        done = await ended(process)
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)

    assert done.exit_code == 0
    assert b"orders" in shown
    assert b"/1000" in shown


# --- What goes wrong ----------------------------------------------------------------------------


async def test_a_market_that_nobody_serves_is_one_sentence(venue: Exchange, market: str) -> None:
    done = await run(venue, "--market", market, "--json", "-")

    assert done.exit_code == 2
    assert done.stdout == b""
    assert market in done.stderr
    assert "--market" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_reports_what_is_known(
    venue: Exchange, market: str, number: signal.Signals
) -> None:
    await venue.open(market)
    process = await started(
        venue,
        *("--orders", "1000000", "--rate", "500", "--market", market, "--json", "-"),
    )
    await venue.reaches(market, 20)

    process.send_signal(number)
    done = await ended(process)

    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["interrupted"] is True
    assert report["verified"] is None
    assert 0 < report["orders"] < 1_000_000
    known = report["accepted"] + sum(report["rejected"].values())
    assert known + report["unknown"] + report["unavailable"] == report["orders"]
    assert "not verified: interrupted" in done.stderr


async def test_orders_that_nobody_executes_are_given_up_at_their_deadline(
    place: Exchange, market: str
) -> None:
    server = place.server()
    await place.open(market)
    load = await started(
        place,
        *("--orders", "400", "--rate", "200", "--deadline", "1", "--market", market),
        *("--json", "-"),
    )
    await place.reaches(market, 20)
    await server.killed()

    done = await ended(load)

    assert done.exit_code == 1
    report = msgspec.json.decode(done.stdout)
    assert report["orders"] == 400
    assert report["unavailable"] > 0
    known = report["accepted"] + sum(report["rejected"].values())
    assert known + report["unknown"] + report["unavailable"] == 400
    assert report["verified"] is None
    assert "nobody who serves it" in report["unverified_because"]


@pytest.mark.parametrize("batch", ["1", "25"])
async def test_a_load_goes_on_over_the_server_s_death_and_the_node_s(
    place: Exchange, market: str, batch: str
) -> None:
    """No acknowledged order is lost, and none is executed twice, whoever dies under it
    (G2, G3, G4)."""
    server = place.server()
    await place.open(market)
    load = await started(
        place,
        *("--orders", "6000", "--rate", "1500", "--peers", "2", "--batch", batch),
        *("--market", market, "--json", "-"),
    )
    await place.reaches(market, 20)

    await server.killed()
    server = place.server(name="server-1")
    await place.reaches_term(market, 2)
    await place.nodes.kill()
    await place.nodes.restart()

    report = the_report(await ended(load))
    assert report["orders"] == 6_000
    assert report["retried"] > 0
