"""Hurts a real cluster under load, and judges everything that was seen.

    uv run just chaos --seed 1 --duration 120

Three NATS nodes, three servers and two markets, over links that can be cut; peers that send all
kinds of commands by the client's own way; and a nemesis that kills, stops, pauses, cuts off and
slows servers, nodes and peers, as the seed has it. In the end the logs are read, and the checker
(tests/checker) judges by the protocol what everybody was told. Exits with 1 when anything is wrong.
"""

import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from deploy import processes
from deploy.interruption import Interrupted
from deploy.interruption import run as interruptible
from tests.chaos.picture import NoMatplotlib, draw
from tests.chaos.report import evidence, report, text
from tests.chaos.run import run
from tests.chaos.schedule import schedule
from tests.checker import files
from tests.checker.checker import check
from tests.evidence import commit, said_by

RATE: Final = 100.0
"""Actions in a second, of all peers together. Some are batches and some are questions, so about as
many commands: 12,000 in two minutes, of which two cores have time for the nodes' elections."""


@click.command()
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--duration", type=click.FloatRange(1), default=120.0, show_default=True)
@click.option("--rate", type=click.FloatRange(1), default=RATE, show_default=True)
@click.option(
    "--evidence",
    "evidence_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what the run shows there, as JSON.",
)
@click.option(
    "--picture",
    "picture_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw it there (PNG).",
)
@click.option("--plan", is_flag=True, help="Say what would be done, and end.")
def main(
    seed: int,
    duration: float,
    rate: float,
    evidence_file: Path | None,
    picture_file: Path | None,
    plan: bool,
) -> None:
    """Hurt a cluster for so many seconds."""
    faults = schedule(seed, duration)
    click.echo(f"seed {seed}, {duration:g} s, {len(faults)} faults:")
    for fault in faults:
        click.echo(f"  {fault}")
    if plan:
        return
    directory = Path(tempfile.mkdtemp(prefix="dex-chaos-"))
    # What the client says of nodes that it leaves.
    logging.basicConfig(filename=directory / "onlooker.log", format="%(asctime)s %(message)s")
    try:
        seen = interruptible(
            run(directory, faults, seed=seed, duration=duration, rate=rate, say=_say)
        )
    except Interrupted as interrupted:
        # Everything was ended all the same.
        shutil.rmtree(directory)
        sys.exit(interrupted.exit_code)
    except BaseException:
        click.echo(f"all logs are in {directory}", err=True)
        raise
    began = time.monotonic()
    made = report(seen, check(seen.history))
    click.echo(f"judged in {time.monotonic() - began:.1f} s")
    click.echo(text(made))
    if evidence_file is not None:
        about = _about(seed, duration, rate)
        written = msgspec.json.encode(evidence(made, about))
        evidence_file.write_bytes(msgspec.json.format(written, indent=2) + b"\n")
    if picture_file is not None:
        title = (
            f"chaos, seed {seed}: {len(made.faults)} faults, {len(made.answers):,} commands "
            f"answered, {len(made.verdict.violations) + len(made.complaints)} violations"
        )
        try:
            draw(made, picture_file, title=title)
        except NoMatplotlib as error:
            click.echo(f"no picture: {error}")
    if made.is_good:
        shutil.rmtree(directory)
        return
    history = directory / "history.jsonl.gz"
    files.write(seen.history, history)
    click.echo(f"the history is in {history}, and all logs are beside it")
    sys.exit(1)


def _say(at: float | None, what: str) -> None:
    click.echo(f"{'' if at is None else f'{at:+8.2f}':>8}  {what}")


def _about(seed: int, duration: float, rate: float) -> dict[str, Any]:
    nats_server = processes.executable("nats-server", advice="`uv sync` installs it")
    return {
        "seed": seed,
        "duration_s": duration,
        "actions_per_second": rate,
        "commit": commit(),
        "machine": {
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "nats-server": said_by(str(nats_server), "--version").rpartition("v")[2],
        },
    }


if __name__ == "__main__":
    main()
