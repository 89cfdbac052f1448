"""Gaps belong to the fault that caused them; what is counted adds up; a picture may be left out."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos import report
from tests.chaos.nemesis import Happened
from tests.chaos.onlooker import Change
from tests.chaos.picture import NoMatplotlib, draw
from tests.chaos.report import Report
from tests.chaos.run import Seen
from tests.checker.checker import Verdict, Violation
from tests.checker.history import Copy, History, Sent

START = 1_000.0
RETRY = {"status": "retry"}


def answered(at: float, *, sent: float | None = None, market: str = "BTC-USD") -> Sent:
    copies = [
        Copy(START + (at - 0.1 if sent is None else sent), START + at - 0.05, RETRY),
        Copy(START + at - 0.02, START + at, {"status": "new", "sequence": 1}),
    ]
    return Sent(market, "alice", {"op": "submit", "order_id": f"order_alice_{at}"}, copies)


def blow(fault: int, began: float, ended: float, kind: str = "node killed") -> Happened:
    return Happened(fault, kind, "kill nats-1", "nats-1", START + began, START + ended)


def a_report(
    moments: list[float], happened: list[Happened], verdict: Verdict | None = None
) -> Report:
    history = History(sent=[answered(at) for at in moments], logs={"BTC-USD": []})
    changes = [
        Change(START - 2, "BTC-USD", "server-1", 1),
        Change(START + 4.5, "BTC-USD", "server-2", 2),
    ]
    seen = Seen(START, START + 20, happened, changes, history, [])
    return report.report(seen, verdict or Verdict())


def steady(since: float, until: float) -> list[float]:
    count = round(10 * (until - since))
    return [since + number / 10 for number in range(count)]


def test_gap_belongs_to_the_fault_before_which_it_began() -> None:
    moments = [*steady(0.1, 4.0), *steady(10.0, 12.0), *steady(13.0, 20.0)]

    made = a_report(moments, [blow(0, 4.0, 6.0), blow(1, 9.0, 11.0, "server killed")])

    assert made.faults[0].gaps["BTC-USD"] == pytest.approx(6.1)
    assert made.faults[1].gaps["BTC-USD"] == pytest.approx(1.1)


def test_market_that_never_answers_again_has_a_gap_to_the_end() -> None:
    made = a_report(steady(0.1, 4.0), [blow(0, 4.0, 6.0)])

    assert made.faults[0].gaps["BTC-USD"] == pytest.approx(16.1)


def test_two_blows_of_a_fault_are_measured_together() -> None:
    made = a_report(steady(0.1, 20.0), [blow(0, 5.0, 6.0), blow(0, 4.0, 8.0)])

    (fault,) = made.faults

    assert (fault.began, fault.ended, len(fault.blows)) == (4.0, 8.0, 2)
    assert made.faulty_share == pytest.approx(0.2)


def test_first_leaders_are_no_changes() -> None:
    made = a_report(steady(0.1, 20.0), [])

    assert [(change.at, change.server) for change in made.changes] == [(4.5, "server-2")]


def test_throughput_counts_each_command_once_in_its_second() -> None:
    made = a_report([0.5, 0.6, 2.5, 20.5], [])

    counts = report.throughput(made.answers, made.duration)

    assert (counts[:4], len(counts)) == ([2, 0, 1, 0], 20)


def test_latency_is_from_the_first_copy_to_the_first_answer_for_good() -> None:
    made = a_report([1.0], [])

    assert made.answers[0].latency == pytest.approx(0.1)


def test_quantiles_of_few_values_are_among_them() -> None:
    assert report.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert report.quantile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert report.quantile([], 0.5) == 0.0


def test_evidence_holds_all_and_is_json() -> None:
    verdict = Verdict([Violation("once", "BTC-USD", "order_alice_1_1", "found two")])
    made = a_report(steady(0.1, 20.0), [blow(0, 4.0, 6.0)], verdict)

    written: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(report.evidence(made, {"seed": 1}))
    )

    assert written["seed"] == 1
    assert written["rules"]["once"]["violations"] == 1
    assert written["rules"]["chain"]["violations"] == 0
    assert written["gap_s_by_kind"]["node killed"]["count"] == 1
    assert len(written["violations"]) == 1
    assert not made.is_good


def test_text_says_what_is_wrong() -> None:
    verdict = Verdict([Violation("once", "BTC-USD", "order_alice_1_1", "found two")])
    made = a_report(steady(0.1, 20.0), [blow(0, 4.0, 6.0)], verdict)

    assert "once: BTC-USD order_alice_1_1: found two" in report.text(made)


def test_complaint_is_enough_to_be_wrong() -> None:
    made = a_report(steady(0.1, 20.0), [])
    assert made.is_good

    made.complaints.append("server-1 ended by itself")

    assert not made.is_good
    assert "WRONG: server-1 ended by itself" in report.text(made)


def test_without_matplotlib_the_picture_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(NoMatplotlib):
        draw(a_report([1.0], []), tmp_path / "picture.png", title="chaos")


def test_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="it is in the dependency group `chaos`")
    file = tmp_path / "picture.png"

    draw(a_report(steady(0.1, 20.0), [blow(0, 4.0, 6.0)]), file, title="chaos")

    assert file.read_bytes().startswith(b"\x89PNG")
