"""How fast is the exchange, beside what bounds it and beside what else there is?

Stages are measured one after the other, each in rounds; see rounds.py. What is claimed, and what
was found, is printed; a claim that is missed is no error, since the machine may be at fault.

    uv run just bench --only execute --only dense_book
"""

from pathlib import Path
from typing import Final

import click

from bench.speed import engine, machine, wire
from bench.speed.children import ChildFailed
from bench.speed.report import Report, as_json, as_text
from bench.speed.rounds import MeasuredStage, Scale, Stage, measured
from deploy.interruption import Interrupted, run

STAGES: Final[dict[str, Stage]] = {stage.name: stage for stage in (*engine.STAGES, *wire.STAGES)}

QUICK_ROUNDS: Final = 3


def _say(text: str) -> None:
    click.echo(text, err=True)


async def _measured(stages: list[Stage], scale: Scale) -> list[MeasuredStage]:
    return [await measured(stage, scale, _say) for stage in stages]


@click.command()
@click.option("--quick", "is_quick", is_flag=True, help="Three rounds of short ones: two minutes.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help="How often each figure is measured.  [default: 5, or 3 when quick]",
)
@click.option(
    "--only",
    "names",
    type=click.Choice(list(STAGES)),
    multiple=True,
    help="A stage; may be given several times. All, when left out.",
)
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write all of it there as JSON; - is stdout, and the table then on stderr.",
)
def main(is_quick: bool, rounds: int | None, names: tuple[str, ...], file: Path | None) -> None:
    """Measure how fast the exchange is, beside what bounds it and what else there is."""
    scale = Scale(rounds or (QUICK_ROUNDS if is_quick else 5), is_quick)
    before = machine.look()
    try:
        stages = run(_measured([STAGES[name] for name in names or STAGES], scale))
    except Interrupted as interrupted:
        # Everything was ended all the same.
        raise click.exceptions.Exit(interrupted.exit_code) from None
    except ChildFailed as failed:
        raise click.ClickException(str(failed)) from failed
    report = Report(machine=before, rounds=scale.rounds, is_quick=scale.is_quick, stages=stages)
    is_for_programs = file == Path("-")
    click.echo(as_text(report), err=is_for_programs)
    if is_for_programs:
        click.echo(as_json(report), nl=False)
    elif file is not None:
        file.write_bytes(as_json(report))


if __name__ == "__main__":
    main()
