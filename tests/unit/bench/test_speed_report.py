"""The report of what was measured: what a reader sees, and what a program reads."""

import msgspec

from bench.speed.machine import Machine
from bench.speed.report import Report, as_json, as_text
from bench.speed.rounds import Claim, MeasuredFigure, MeasuredStage, verdict

MACHINE = Machine(
    processor="A processor",
    cores=2,
    python="CPython 3.11.7",
    platform="Linux",
    commit="0123456789ab+",
    load_before=0.25,
)

FOUND = {"dex": [150_000.0, 250_000.0, 200_000.0], "rival": [100_000.0, 100_000.0, 100_000.0]}

CLAIMS = (
    Claim(figure="dex", value=210_000.0),
    Claim(figure="dex", against=("rival",), ratio=1.5),
    Claim(figure="dex", against=("rival", "absent"), ratio=1.0),
    Claim(figure="dex", value=1_000_000.0, is_at_most=True),
)

REPORT = Report(
    machine=MACHINE,
    rounds=3,
    is_quick=True,
    stages=[
        MeasuredStage(
            name="execute",
            title="What it is about",
            figures=[MeasuredFigure(name, "commands/s", FOUND[name]) for name in FOUND],
            verdicts=[verdict(claim, FOUND) for claim in CLAIMS],
            missing="absent: expected it installed",
        )
    ],
)


def lines() -> list[str]:
    """Give the report's lines, white space set aside."""
    return [" ".join(line.split()) for line in as_text(REPORT).splitlines()]


def test_report_says_on_what_it_was_measured() -> None:
    head = lines()[:3]

    assert head[0] == "A processor, 2 cores, CPython 3.11.7, Linux"
    assert head[1] == "commit 0123456789ab+, load average 0.25 before"
    assert head[2].startswith("3 rounds, quick: ")


def test_figures_have_their_median_between_the_least_and_the_greatest() -> None:
    assert "dex 200,000 (150,000 - 250,000) commands/s" in lines()


def test_claims_say_what_was_found_and_wanted_and_whether_they_hold() -> None:
    found = lines()

    assert "> dex 200,000 (150,000 - 250,000), wanted at least 210,000: NO" in found
    assert "> dex / rival 2.00 (1.50 - 2.50), wanted at least 1.50: yes" in found
    assert "> dex / (rival + absent) wanted at least 1.00: not measured" in found
    assert "> dex 200,000 (150,000 - 250,000), wanted at most 1,000,000: yes" in found
    assert found[-1] == "2 of 4 claims hold, 1 not measured"


def test_what_is_missing_is_said() -> None:
    assert "missing: absent: expected it installed" in lines()


def test_json_has_every_round() -> None:
    written = msgspec.json.decode(as_json(REPORT))
    (stage,) = written["stages"]

    assert written["machine"]["commit"] == "0123456789ab+"
    assert stage["figures"][0]["rounds"] == FOUND["dex"]
    assert stage["verdicts"][1]["ratio"] == {"median": 2.0, "least": 1.5, "most": 2.5}
    assert [each["holds"] for each in stage["verdicts"]] == ["no", "yes", "not measured", "yes"]
