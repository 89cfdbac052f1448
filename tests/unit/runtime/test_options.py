"""The options of who one is to NATS: from the command line, or the `nats` tool's variables."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dex_runtime import options
from dex_runtime.connection import Credentials


def told(*arguments: str, **environment: str) -> Result:
    """Run a program that shows who it would be."""

    def show(**values: Any) -> None:
        given = options.credentials(values)
        assert values == {}
        click.echo(given)

    program = click.Command("show", params=options.credential_options(), callback=show)
    surroundings = dict.fromkeys(options.VARIABLES) | environment
    return CliRunner().invoke(program, arguments, env=surroundings)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Have a file for each option."""
    found = {}
    for name in ("nkey", "creds", "tls-ca", "tls-cert", "tls-key"):
        file = tmp_path / name
        file.touch()
        found[name] = str(file)
    return found


def test_without_options_nothing_is_said() -> None:
    assert told().stdout == f"{Credentials()}\n"


def test_options_say_who_one_is(files: dict[str, str]) -> None:
    arguments = [word for name in files if name != "creds" for word in (f"--{name}", files[name])]
    given = Credentials(
        nkey=files["nkey"],
        tls_ca=files["tls-ca"],
        tls_cert=files["tls-cert"],
        tls_key=files["tls-key"],
    )

    assert told(*arguments).stdout == f"{given}\n"


def test_variables_of_the_nats_tool_say_so_too_and_options_go_before(
    files: dict[str, str],
) -> None:
    said = told(
        *("--creds", files["creds"]),
        NATS_CREDS="no-such-file",
        NATS_CA=files["tls-ca"],
        NATS_CERT=files["tls-cert"],
        NATS_KEY=files["tls-key"],
    )
    given = Credentials(
        creds=files["creds"],
        tls_ca=files["tls-ca"],
        tls_cert=files["tls-cert"],
        tls_key=files["tls-key"],
    )

    assert said.stdout == f"{given}\n"


def test_empty_variables_say_nothing() -> None:
    """So a program that starts another can keep from it what it was told itself."""
    assert told(**dict.fromkeys(options.VARIABLES, "")).stdout == f"{Credentials()}\n"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["nkey", "creds"], "expected --nkey or --creds, found both"),
        (["tls-cert"], "expected --tls-cert and --tls-key together, found one of them"),
        (["tls-key"], "expected --tls-cert and --tls-key together, found one of them"),
    ],
)
def test_what_does_not_go_together_is_refused(
    names: list[str], complaint: str, files: dict[str, str]
) -> None:
    refused = told(*(word for name in names for word in (f"--{name}", files[name])))

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert complaint in refused.stderr


def test_file_that_is_not_there_is_refused() -> None:
    refused = told("--nkey", "no-such-file")

    assert refused.exit_code == 2
    assert "'no-such-file' does not exist" in refused.stderr


def test_command_says_it_or_else_the_group_that_it_is_in() -> None:
    of_command = {"nkey": "own.nk", "creds": None, "tls_ca": None, "tls_cert": None}
    of_group = {"nkey": "group.nk", "tls_ca": "group.pem", "market": "X"}

    given = options.credentials({**of_command, "tls_key": None}, of_group)

    assert given == Credentials(nkey="own.nk", tls_ca="group.pem")
