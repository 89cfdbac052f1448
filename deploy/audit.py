"""Ask a service whether anything that is installed has a known vulnerability.

What is asked about is what the constraints of `pyproject.toml` hold, tools of development included;
`pip-audit` asks. Without network, and where no answer can be had, nothing is known: that is said
in a line, and is no failure, since the tests have to run there too. Knows nothing of what is
vulnerable.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
import msgspec
from msgspec import Struct

from deploy import processes

_OUT_OF_REACH: Final = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ServiceError")
"""How the last line of `pip-audit` (2.10.1) names an exception that says: ask again elsewhere."""

_EXPORT: Final = (
    *("export", "--quiet", "--no-hashes", "--no-header", "--no-annotate"),
    *("--no-emit-project", "--all-groups"),
)


class NotAudited(Exception):
    """Nobody could be asked; the text says why."""


class AuditFailed(Exception):
    """What should ask does not work; the text is what it printed."""


class Vulnerability(Struct, frozen=True):
    """Something known of a package."""

    id: str
    fix_versions: list[str] = []


class Package(Struct, frozen=True):
    """A package that was asked about."""

    name: str
    version: str = ""
    vulns: list[Vulnerability] = []
    skip_reason: str | None = None


class Answers(Struct, frozen=True):
    """What `pip-audit` prints as JSON."""

    dependencies: list[Package]


def read(exit_code: int, printed: bytes, complaint: str) -> Answers:
    """Read what `pip-audit` answered: 1 is its exit code for what it found, and for its errors.

    Raises:
        NotAudited: the service cannot be reached, or knows none of the packages.
        AuditFailed: anything else.
    """
    try:
        answers = msgspec.json.decode(printed, type=Answers)
    except msgspec.DecodeError:
        last = (complaint.strip().splitlines() or [f"exit code {exit_code}"])[-1]
        if any(name in last for name in _OUT_OF_REACH) or "Could not connect" in last:
            raise NotAudited("the vulnerability service cannot be reached") from None
        raise AuditFailed(complaint.strip() or last) from None
    if all(package.skip_reason is not None for package in answers.dependencies):
        raise NotAudited("the vulnerability service knows none of the packages")
    return answers


def ask(requirements: str, options: tuple[str, ...]) -> Answers:
    """Ask about packages.

    Args:
        requirements: A line for each, with its exact version.
        options: Further ones of `pip-audit`.

    Raises:
        NotAudited, AuditFailed: as `read`.
    """
    program = processes.executable("pip-audit", advice="`uv sync` installs it")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "requirements.txt")
        file.write_text(requirements, encoding="utf-8")
        # What stands there is complete, so that nothing has to be resolved or downloaded.
        command: list[str | Path] = [program, "--requirement", file, "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", *options]
        done = subprocess.run(command, capture_output=True, check=False)
    return read(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def pinned() -> str:
    """List everything that is installed for development, for every platform."""
    uv = processes.executable("uv", advice="`pip install uv`")
    return subprocess.run([uv, *_EXPORT], capture_output=True, check=True, text=True).stdout


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(options: tuple[str, ...]) -> None:
    """Ask about known vulnerabilities; options go to `pip-audit`. Exit 1 when there is one."""
    try:
        packages = ask(pinned(), options).dependencies
    except NotAudited as error:
        click.echo(f"Not audited: {error}.")
        return
    except AuditFailed as error:
        raise click.ClickException(str(error)) from error
    unknown = [package.name for package in packages if package.skip_reason is not None]
    if unknown:
        click.echo(f"Not audited, since the vulnerability service does not know them: {unknown}")
    found = [(package, each) for package in packages for each in package.vulns]
    for package, each in found:
        fixed = ", ".join(each.fix_versions) or "no version yet"
        click.echo(f"{package.name} {package.version}: {each.id}, fixed in {fixed}")
    asked = len(packages) - len(unknown)
    click.echo(f"Packages audited: {asked}; known vulnerabilities: {len(found)}.")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
