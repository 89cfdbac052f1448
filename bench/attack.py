"""What can one peer with a valid key do to the others, whatever it sends?

A locked exchange on real NATS nodes, two servers, a guard; nine polite peers by the load generator,
and one without manners, each a process of its own. Each phase says what was promised and what was
found; what is not kept makes the exit code 1. Polite peers' orders are verified after each run:
each exactly once in the log, as they were told.

    uv run just attack --seconds 30 --only flood
"""

import os
import platform
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Final

import click
import msgspec

from bench import attack_phases
from bench.attack_results import Result, table
from deploy.interruption import Interrupted, run

PHASES: Final = ("flood", "socket", "queries")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _phase(name: str, *, nodes: int, seconds: float, rate: float) -> Coroutine[None, None, Result]:
    match name:
        case "flood":
            return attack_phases.flood(_say, nodes=nodes, seconds=seconds, rate=rate)
        case "socket":
            return attack_phases.socket(_say, nodes=nodes, seconds=seconds, rate=rate)
        case _:
            return attack_phases.queries(_say, nodes=nodes, seconds=seconds, rate=rate)


@click.command()
@click.option(
    "--only",
    "names",
    type=click.Choice(PHASES),
    multiple=True,
    help="A phase; may be given several times. All, when left out.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(9),
    default=30.0,
    show_default=True,
    help="How long each phase is quiet, and how long it is attacked.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1, attack_phases.LIMIT),
    default=100.0,
    show_default=True,
    help="Orders per second of each polite peer.",
)
@click.option(
    "--nodes", type=click.IntRange(1), default=1, show_default=True, help="NATS nodes: 1, or 3."
)
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all that was measured there too.",
)
def main(
    names: tuple[str, ...], seconds: float, rate: float, nodes: int, file: Path | None
) -> None:
    """Attack an exchange that is made for it, and see who suffers (Linux)."""
    if not Path("/proc/self/stat").exists():
        raise click.ClickException("expected /proc, to read what processes use; found none")
    results = []
    for name in names or PHASES:
        _say(f"--- {name}")
        before = os.getloadavg()[0]
        try:
            result = run(_phase(name, nodes=nodes, seconds=seconds, rate=rate))
        except Interrupted as interrupted:
            # Everything was ended all the same.
            raise click.exceptions.Exit(interrupted.exit_code) from None
        result.load_averages = (before, os.getloadavg()[0])
        results.append(result)
        _say(table([result]))
    machine = f"{platform.platform()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    click.echo(f"{machine}, {nodes} NATS node{'' if nodes == 1 else 's'}")
    click.echo(table(results))
    if file is not None:
        written = {"machine": machine, "nodes": nodes, "results": results}
        file.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
    if not all(result.is_good for result in results):
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
