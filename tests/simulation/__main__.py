"""Simulate a whole exchange from one number, or from many: `just sim SEED`, `just sim-many N`."""

from importlib import import_module
from typing import Any, Final

import click

from dex_protocol import limits
from tests.simulation import mutants

WINDOW_COUNT: Final = 24
"""Outcomes remembered of a peer: to be met, and exceeded, by some dozens of commands."""


def runner(mutant: str | None) -> Any:
    """Give the module that runs worlds; what it imports is made smaller, or worse, first."""
    limits.RETRY_WINDOW_COUNT = WINDOW_COUNT  # type: ignore[misc]
    if mutant is not None:
        mutants.install(mutant)
    return import_module("tests.simulation.runner")


mutant_option = click.option(
    "--mutant",
    type=click.Choice(list(mutants.MUTANTS)),
    help="Break the product in this way first.",
)


@click.group()
def main() -> None:
    """Simulate exchanges in virtual time."""


@main.command()
@click.argument("seed", type=click.IntRange(min=0))
@mutant_option
def one(seed: int, mutant: str | None) -> None:
    """Run the world of SEED, and print a line for each change of state."""
    raise SystemExit(runner(mutant).one(seed))


@main.command()
@click.argument("count", type=click.IntRange(min=1))
@click.option("--from", "first", type=click.IntRange(min=0), default=0, help="The first seed.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; as many as cores by default.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write the sums there.")
@click.option(
    "--total", "total_file", type=click.Path(dir_okay=False), help="Add the sums to those there."
)
@click.option("--until-caught", is_flag=True, help="Stop at the first seed that finds something.")
@mutant_option
def many(
    count: int,
    first: int,
    jobs: int | None,
    json_file: str | None,
    total_file: str | None,
    until_caught: bool,
    mutant: str | None,
) -> None:
    """Run COUNT worlds on all cores, and print what was done to them and what became of them."""
    raise SystemExit(
        runner(mutant).many(
            range(first, first + count),
            jobs=jobs,
            json_file=json_file,
            total_file=total_file,
            until_caught=until_caught,
        )
    )


@main.command("mutants")
@click.argument("names", nargs=-1, type=click.Choice(list(mutants.MUTANTS)))
@click.option("--from", "first", type=click.IntRange(min=0), default=0, help="The first seed.")
@click.option("--worlds", type=click.IntRange(min=1), default=1_000, help="At most, for each.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; as many as cores by default.")
def hunt_mutants(names: tuple[str, ...], first: int, worlds: int, jobs: int | None) -> None:
    """Look for the first world that kills each mutant, or each of NAMES, and print a table."""
    hunt: Any = import_module("tests.simulation.hunt")
    survivors = 0
    for caught in hunt.hunt(
        names or list(mutants.MUTANTS), range(first, first + worlds), jobs=jobs
    ):
        click.echo(hunt.row(caught))
        survivors += caught.seed is None
    raise SystemExit(1 if survivors else 0)


if __name__ == "__main__":
    main()
