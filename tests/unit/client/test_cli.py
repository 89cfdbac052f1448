"""The command line: help, and what is said about values that cannot be."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from dex_client.cli import main

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dex_client.load.session.BEGIN_DEADLINE_S", 0.1)


def test_help_shows_an_example_and_what_the_exit_codes_mean() -> None:
    result = CliRunner().invoke(main, ["--help"])

    assert result.exit_code == 0
    assert "dex-client --orders 10000 --peers 3" in result.stdout
    assert "Exit codes: 0" in result.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--orders", "0"], "0 is not in the range x>=1"),
        (["--orders", "ten"], "'ten' is not a valid integer"),
        (["--batch", "1001"], "1001 is not in the range 1<=x<=1000"),
        (["--in-flight", "0"], "0 is not in the range 1<=x<=4096"),
        (["--peers", "501"], "501 is not in the range 1<=x<=500"),
        (["--rate", "0"], "expected a number above 0, found 0"),
        (["--rate", "nan"], "expected a number above 0, found nan"),
        (["--deadline", "inf"], "expected a number above 0, found inf"),
        (["--deadline", "-1"], "expected a number above 0, found -1"),
        (["--market", "BTC USD"], "expected 1 to 24 letters, digits and dashes"),
        (["--market", ""], "expected 1 to 24 letters, digits and dashes"),
        (["--nats", ","], "expected an address such as nats://127.0.0.1:4222, found none"),
        (["--json", "/nowhere/at/all.json"], "expected a file in a directory that exists"),
        (["--order", "5"], "No such option"),
        (["sel"], "No such command 'sel'. Did you mean 'sell'?"),
        (["--orders", "5", "book"], "--orders stands before book"),
        (["--market", "ETH-USD", "book"], "--market stands before book"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_was_expected(
    options: list[str], expected: str
) -> None:
    result = CliRunner().invoke(main, options)

    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stdout == ""


def test_nobody_at_the_address_is_one_sentence_that_says_what_to_do() -> None:
    result = CliRunner().invoke(main, ["--nats", NOWHERE, "--orders", "1"])

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: cannot connect to NATS at {NOWHERE}")
    assert "--nats" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_addresses_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEX_NATS", f"{NOWHERE},nats://127.0.0.1:2")

    result = CliRunner().invoke(main, ["--orders", "1"])

    assert result.exit_code == 2
    assert f"{NOWHERE}, nats://127.0.0.1:2" in result.stderr


def test_no_report_is_left_of_a_run_that_could_not_begin(tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    result = CliRunner().invoke(main, ["--nats", NOWHERE, "--json", str(report)])

    assert result.exit_code == 2
    assert not report.exists()
