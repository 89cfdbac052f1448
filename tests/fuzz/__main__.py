"""Fuzzes requests by their structure, then everything that reads bytes by raw bytes.

    uv run just fuzz --requests 1000000 --seed 1

What goes wrong ends it, with the seed of the round or the bytes that show it again.
"""

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import click

from tests.fuzz.campaign import fuzz
from tests.fuzz.readers import seeds

READING_S_MAX: Final = 10
"""How long one reader may take for a few thousand bytes: beyond that it hangs."""

BYTES_MAX: Final = 8_192


@click.command()
@click.option("--requests", type=click.IntRange(0), default=1_000_000, show_default=True)
@click.option("--seconds", type=float, default=3_600.0, show_default=True, help="Of each half.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
def main(requests: int, seconds: float, seed: int, processes: int) -> None:
    """Fuzz as many requests, and as many raw bytes."""
    began = time.monotonic()
    counted: Counter[str] = Counter()
    for counted in fuzz(requests=requests, seconds=seconds, first_seed=seed, processes=processes):
        click.echo(f"\r{counted['requests']:>12,} requests", nl=False, err=True)
    click.echo(err=True)
    rounds = counted.pop("rounds", 0)
    click.echo(
        f"{counted.pop('requests', 0):,} requests of {counted.pop('commands', 0):,} commands in "
        f"{time.monotonic() - began:,.0f} s: rounds of the seeds {seed} to {seed + rounds - 1}"
    )
    for name, count in counted.most_common():
        click.echo(f"{count:>12,} {name}")
    if importlib.util.find_spec("atheris") is None:
        click.echo(
            "no raw bytes: atheris is not there, which is made for Linux on x86-64 and for "
            "Python 3.11 to 3.13"
        )
        return
    sys.exit(_fuzz_bytes(requests, seconds=seconds, seed=seed))


def _fuzz_bytes(runs: int, *, seconds: float, seed: int) -> int:
    # libFuzzer ends its process itself, so it gets one of its own.
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds()):
            (Path(folder) / f"seed-{number}").write_bytes(data)
        options = {
            "atheris_runs": runs,
            "max_total_time": int(seconds),
            # Of its seeds 0 stands for any.
            "seed": seed + 1,
            "max_len": BYTES_MAX,
            "timeout": READING_S_MAX,
            "print_final_stats": 1,
            "artifact_prefix": f"{folder}/",
        }
        command = [sys.executable, "-m", "tests.fuzz.codec_fuzz"]
        command += [f"-{name}={value}" for name, value in options.items()]
        return subprocess.run([*command, folder], check=False).returncode


if __name__ == "__main__":
    main()
