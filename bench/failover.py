"""How long does a market stand still when something dies, stops, leaves or joins?

Real clusters of three NATS nodes (each write synced, three copies) and some servers, under a
steady load by the Python client; each scenario has a cluster of its own. What is measured between
which two events stands in the table, and the load is verified after each scenario.

    uv run just failover --only kill --kills 20
"""

import os
import platform
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Final

import click
import msgspec

from bench.failover_newcomer import RESTING, newcomer
from bench.failover_results import Result, table
from bench.failover_scenarios import join, kill, node, pause, stop
from deploy.interruption import Interrupted, run

SCENARIOS: Final = ("join", "kill", "pause", "stop", "node", "newcomer")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _scenario(name: str, *, kills: int, rounds: int, events: int) -> Coroutine[None, None, Result]:
    match name:
        case "join":
            return join(_say)
        case "kill":
            return kill(_say, kills=kills, restless_kills=rounds)
        case "pause":
            return pause(_say, pauses=rounds)
        case "stop":
            return stop(_say, stops=kills)
        case "node":
            return node(_say, kills=rounds)
        case _:
            return newcomer(_say, events=events)


@click.command()
@click.option(
    "--only",
    "names",
    type=click.Choice(SCENARIOS),
    multiple=True,
    help="A scenario; may be given several times. All, when left out.",
)
@click.option(
    "--kills",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many leaders are killed, and how many are stopped.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How many leaders are killed while restless, or paused, and how many nodes are killed.",
)
@click.option(
    "--events",
    type=click.IntRange(2 * RESTING),
    default=1_000_000,
    show_default=True,
    help="Of the log that a newcomer finds.",
)
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all samples there too.",
)
def main(names: tuple[str, ...], kills: int, rounds: int, events: int, file: Path | None) -> None:
    """Measure what failures cost, on clusters made for it."""
    results = []
    for name in names or SCENARIOS:
        _say(f"--- {name}")
        before = os.getloadavg()[0]
        try:
            result = run(_scenario(name, kills=kills, rounds=rounds, events=events))
        except Interrupted as interrupted:
            # Everything was ended all the same.
            raise click.exceptions.Exit(interrupted.exit_code) from None
        result.load_averages = (before, os.getloadavg()[0])
        results.append(result)
        _say(table([result]))
    machine = f"{platform.platform()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    click.echo(machine)
    click.echo(table(results))
    if file is not None:
        written = {"machine": machine, "results": results}
        file.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
    if any(not count.is_good for result in results for count in result.counts):
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
