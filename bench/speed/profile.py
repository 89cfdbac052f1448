"""Where does a leader's time go, while orders come in?

An exchange on one node takes orders, singly or in batches, and py-spy looks at the leader's stack
some hundred times a second. What is printed: each function's share of the samples, by itself and
with all that it called. py-spy must be allowed to look at another process (Linux: as root, or with
kernel.yama.ptrace_scope=0).

    uv run just profile --batches --flame leader.svg
"""

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from bench.speed.exchange import opened
from bench.speed.rounds import CannotMeasure
from bench.speed.wire import IN_FLIGHT
from deploy.interruption import Interrupted, run

SAMPLES_PER_SECOND: Final = 400

SHOWN: Final = 30
"""Functions in the table."""

_FRAME: Final = re.compile(r"(?P<function>[^ ]+) \((?P<file>[^:)]+)(?::\d+)?\)")


def shares(stacks: Iterable[str]) -> list[tuple[str, float, float]]:
    """Sum up stacks.

    Args:
        stacks: As py-spy writes them raw: frames with `;` between them, the outermost first, each
            `function (file:line)`; then how many samples were so.

    Returns:
        Of each function its name with its file, the share of all samples in which it was at work
        itself, and in which it was on the stack; the first by what it did itself.
    """
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in stacks:
        stack, _, number = line.rpartition(" ")
        count = int(number)
        names = [_name(frame) for frame in stack.split(";")]
        total += count
        own[names[-1]] += count
        for name in set(names):
            within[name] += count
    return [(name, own[name] / total, within[name] / total) for name, _ in own.most_common()]


def _name(frame: str) -> str:
    match = _FRAME.fullmatch(frame)
    return frame if match is None else f"{match['function']} ({Path(match['file']).name})"


async def _sampled(pid: int, seconds: float, arguments: list[str]) -> bytes:
    words = ["--pid", str(pid), "--duration", str(round(seconds)), *arguments]
    try:
        spy = await asyncio.create_subprocess_exec(
            "py-spy",
            "record",
            "--rate",
            str(SAMPLES_PER_SECOND),
            *words,
            stdout=DEVNULL,
            stderr=PIPE,
        )
    except FileNotFoundError as error:
        raise CannotMeasure("expected py-spy, found none: uv sync --group bench") from error
    _, said = await spy.communicate()
    if spy.returncode != 0:
        why = said.decode(errors="replace").strip()[-500:]
        raise CannotMeasure(f"py-spy cannot look at the leader: {why}")
    return said


async def profile(*, is_batch: bool, seconds: float, raw: Path, flame: Path | None) -> None:
    """Sample a leader under load; what it did goes to a file, and into a picture if that is asked.

    Raises:
        CannotMeasure: the exchange does not run, or py-spy may not look.
    """
    async with opened() as exchange:
        (leader,) = await exchange.leaders()
        pid = leader.process.pid
        samplings = [_sampled(pid, seconds, ["--format", "raw", "--output", str(raw)])]
        if flame is not None:
            samplings.append(_sampled(pid, seconds, ["--output", str(flame)]))
        # The load goes on a little longer than they look.
        if is_batch:
            load = exchange.batches(seconds=seconds)
        else:
            load = exchange.closed(in_flight=IN_FLIGHT, seconds=seconds)
        sent, *_ = await asyncio.gather(load, *samplings)
    click.echo(f"{sent.rate:,.0f} orders/s, with py-spy beside")


@click.command()
@click.option("--batches", "is_batch", is_flag=True, help="Batches of 100, not single orders.")
@click.option("--seconds", type=click.IntRange(2), default=6, show_default=True)
@click.option(
    "--flame",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a flame graph there (SVG).",
)
def main(is_batch: bool, seconds: int, flame: Path | None) -> None:
    """Show where a leader's time goes, while orders come in."""
    raw = Path(".dex") / "profile.txt"
    raw.parent.mkdir(exist_ok=True)
    try:
        run(profile(is_batch=is_batch, seconds=seconds, raw=raw, flame=flame))
    except Interrupted as interrupted:
        raise click.exceptions.Exit(interrupted.exit_code) from None
    except CannotMeasure as error:
        raise click.ClickException(str(error)) from error
    click.echo("itself    with all it called")
    for name, own, within in shares(raw.read_text().splitlines())[:SHOWN]:
        click.echo(f"{own:6.1%}  {within:6.1%}  {name}")
    click.echo(f"all stacks: {raw}")


if __name__ == "__main__":
    main()
