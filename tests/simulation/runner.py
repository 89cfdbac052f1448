"""Run worlds: one, with all that happens in it; or many, on all cores, and sum them up.

NB: import it only after `__main__` has made the product's limits small.
"""

import gc
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from os import cpu_count
from pathlib import Path
from typing import Final

import click
import msgspec
from msgspec import Struct, field

from tests.evidence import commit
from tests.simulation import coverage
from tests.simulation.cluster import S
from tests.simulation.run import Outcome, World, judge

COLUMNS: Final = """\
time  virtual seconds since the world began
logs  the last sequence of each market's log at that moment
who   a server, the nemesis, or * for the world
what  what changed: a role in a market (M0, M1), who is named to lead, what was done to whom
"""

CHUNK_COUNT: Final = 10
"""Worlds that a process runs before it says what became of them."""

BAD_MAX: Final = 20
"""Worlds that went wrong of which more than the seed is told."""


class Sums(Struct):
    """What became of some worlds."""

    worlds: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    mishaps: dict[str, int] = field(default_factory=dict)
    changes: int = 0
    faults_min: int = sys.maxsize
    changes_min: int = sys.maxsize
    commits: int = 0
    commands: int = 0
    copies: int = 0
    virtual_s: float = 0.0
    roles: dict[str, int] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)

    def add(self, other: "Sums") -> None:
        """Add other worlds."""
        self.worlds += other.worlds
        self.changes += other.changes
        self.faults_min = min(self.faults_min, other.faults_min)
        self.changes_min = min(self.changes_min, other.changes_min)
        self.commits += other.commits
        self.commands += other.commands
        self.copies += other.copies
        self.virtual_s += other.virtual_s
        self.bad |= other.bad
        for name in ("faults", "mishaps", "roles", "requests"):
            setattr(self, name, dict(Counter(getattr(self, name)) + Counter(getattr(other, name))))

    @classmethod
    def of(cls, outcome: Outcome) -> "Sums":
        """Begin with one world."""
        return cls(
            worlds=1,
            faults=dict(outcome.faults),
            mishaps=dict(outcome.mishaps),
            changes=outcome.changes,
            faults_min=sum(outcome.faults.values()),
            changes_min=outcome.changes,
            commits=outcome.commits,
            commands=outcome.verdict.commands,
            copies=outcome.verdict.copies,
            virtual_s=outcome.seconds,
            bad={} if outcome.is_good else {outcome.seed: judge(outcome)},
        )


class Run(Struct):
    """Some worlds that were run, and the code that they ran."""

    first: int
    count: int
    commit: str
    bad: int


class Total(Struct):
    """All worlds that were run for the record, run after run."""

    runs: list[Run] = field(default_factory=list)
    sums: Sums = field(default_factory=Sums)


def one(seed: int) -> int:
    """Run one world, print what happens in it, and give the exit code."""
    coverage.count()
    world = World(seed)
    outcome = world.run()
    click.echo(COLUMNS)
    for when, ends, who, what in world.cluster.notes:
        click.echo(f"{when / S:9.4f}  {ends:>9}  {who:10}  {what}")
    click.echo("")
    _print(Sums.of(outcome), seconds=None)
    return 0 if outcome.is_good else 1


def many(
    seeds: range,
    *,
    jobs: int | None,
    json_file: str | None,
    total_file: str | None,
    until_caught: bool,
) -> int:
    """Run many worlds, print their sums, and give the exit code."""
    began = time.monotonic()
    sums = Sums()
    chunks = [seeds[start : start + CHUNK_COUNT] for start in range(0, len(seeds), CHUNK_COUNT)]
    with ProcessPoolExecutor(jobs or cpu_count(), initializer=coverage.count) as pool:
        waiting: set[Future[Sums]] = {pool.submit(_chunk, chunk) for chunk in chunks}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for each in done:
                sums.add(each.result())
            if sys.stderr.isatty():
                click.echo(f"\r{sums.worlds} of {len(seeds)}", nl=False, err=True)
            if until_caught and sums.bad:
                for future in waiting:
                    future.cancel()
                break
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
    click.echo(f"seeds {seeds.start} to {seeds.stop - 1}")
    _print(sums, seconds=time.monotonic() - began)
    if json_file is not None:
        _write(json_file, sums)
    if total_file is not None:
        _add_to_total(total_file, seeds, sums)
    return 1 if sums.bad else 0


def _add_to_total(file: str, seeds: range, sums: Sums) -> None:
    path = Path(file)
    total = msgspec.json.decode(path.read_bytes(), type=Total) if path.exists() else Total()
    total.runs.append(Run(seeds.start, sums.worlds, commit(), len(sums.bad)))
    total.sums.add(sums)
    _write(file, total)


def _write(file: str, what: Sums | Total) -> None:
    Path(file).write_bytes(msgspec.json.format(msgspec.json.encode(what)) + b"\n")


def _chunk(seeds: range) -> Sums:
    gc.disable()
    coverage.ROLES.taken.clear()
    coverage.REQUESTS.taken.clear()
    sums = Sums()
    for seed in seeds:
        sums.add(Sums.of(World(seed).run()))
        # Once for each world is enough, and saves a tenth of the time.
        gc.collect()
    sums.roles = dict(coverage.ROLES.taken)
    sums.requests = dict(coverage.REQUESTS.taken)
    return sums


def _print(sums: Sums, *, seconds: float | None) -> None:
    rate = "" if seconds is None else f" in {seconds:.1f} s, {sums.worlds / seconds:.1f} worlds/s"
    click.echo(f"{sums.worlds} worlds{rate}")
    click.echo(
        f"{sums.virtual_s:,.0f} s of virtual time, {sums.commands:,} commands in"
        f" {sums.copies:,} copies, {sums.commits:,} commits"
    )
    click.echo(
        f"{sums.changes:,} changes of leader (at least {sums.changes_min} in each world),"
        f" {sum(sums.faults.values()):,} faults (at least {sums.faults_min}),"
        f" {sum(sums.mishaps.values()):,} mishaps of messages"
    )
    _print_counts("faults", sums.faults)
    _print_counts("mishaps of messages", sums.mishaps)
    if seconds is not None:
        for name, table, taken in (
            ("roles", coverage.ROLES, sums.roles),
            ("requests", coverage.REQUESTS, sums.requests),
        ):
            missing = coverage.missing(table, taken)
            click.echo(
                f"\ntransitions of {name}: {len(table) - len(missing)} of {len(table)} taken"
            )
            for transition, count in sorted(taken.items()):
                click.echo(f"  {count:>9,}  {transition}")
            for transition in missing:
                click.echo(f"      never  {transition}")
    click.echo("")
    for seed, text in list(sorted(sums.bad.items()))[:BAD_MAX]:
        click.echo(f"seed {seed} went wrong:\n{text}\n")
    click.echo(f"{len(sums.bad)} worlds went wrong" + (f": {sorted(sums.bad)}" if sums.bad else ""))


def _print_counts(name: str, counts: dict[str, int]) -> None:
    click.echo(f"\n{name}")
    for kind, count in sorted(counts.items(), key=lambda each: -each[1]):
        click.echo(f"  {count:>9,}  {kind}")
