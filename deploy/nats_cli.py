"""The real `nats` command line tool, built from its Go module where there is Go.

Knows nothing of the exchange but where its nodes listen; what the tool is told goes to it as it is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from deploy import state
from deploy.nodes import HOST

DIRECTORY: Final = "bin"
"""Where the tool is put, under the directory of the local exchange."""

_MODULE: Final = "github.com/nats-io/natscli/nats"

_VERSION: Final = "v0.5.1"
"""Built with Go 1.26; `go` says so itself where it is too old, or fetches a newer one."""


class GoMissing(Exception):
    """There is no Go on this machine, and so no tool."""


def find(directory: Path) -> Path | None:
    """Find the tool, in a local exchange's directory or on PATH; None when it is in neither."""
    built = _place(directory)
    if os.access(built, os.X_OK):
        return built
    on_path = shutil.which("nats")
    return None if on_path is None else Path(on_path)


def build(directory: Path) -> Path:
    """Build the tool into a local exchange's directory, which takes a minute or two.

    Raises:
        GoMissing: there is no Go.
        subprocess.CalledProcessError: Go could not build it, and said why.
    """
    go = shutil.which("go")
    if go is None:
        raise GoMissing(
            "the nats CLI is built with Go, and there is no `go` on PATH: install it from "
            "https://go.dev/dl, or put a ready-made `nats` on PATH"
        )
    place = _place(directory)
    place.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOBIN": str(place.parent), "CGO_ENABLED": "0"}
    subprocess.run([go, "install", f"{_MODULE}@{_VERSION}"], env=environment, check=True)
    return place


def _place(directory: Path) -> Path:
    return directory.resolve() / DIRECTORY / "nats"


def _url(directory: Path) -> str:
    found = state.load(directory)
    ports = (state.Settings() if found is None else found.settings).client_ports
    return ",".join(f"nats://{HOST}:{port}" for port in ports)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(arguments: tuple[str, ...]) -> None:
    """Install the nats CLI when it is missing; with arguments, run it against the local nodes."""
    directory = Path(state.DIRECTORY)
    tool = find(directory)
    if tool is None:
        click.echo(f"Building nats {_VERSION}; that takes a minute or two.", err=True)
        try:
            tool = build(directory)
        except (GoMissing, subprocess.CalledProcessError) as error:
            raise click.ClickException(str(error)) from error
    if not arguments:
        click.echo(f"The nats CLI is {tool}. Try: uv run just nats-cli sub 'dex.events.>'")
        return
    # Replaces this process, so that signals and the terminal are the tool's own.
    sys.stdout.flush()
    # The address in the environment, so that an option --server goes before it.
    os.execve(tool, [str(tool), *arguments], {**os.environ, "NATS_URL": _url(directory)})


if __name__ == "__main__":
    main()
