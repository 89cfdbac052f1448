"""Histories in files and in parts: what was written is read, and nothing gets lost between."""

from pathlib import Path

import pytest

from tests.checker import files
from tests.checker.checker import check
from tests.checker.history import End, History, Loss, Sent
from tests.checker.recorded import MARKET, Recorder


@pytest.mark.parametrize("name", ["history.jsonl", "history.jsonl.gz"])
def test_history_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    history = Recorder(1).record(50)
    history.losses.append(Loss(MARKET, 0.5, 7))
    files.write(history, tmp_path / name)

    assert files.read(tmp_path / name) == history


def test_parts_of_several_recorders_make_one_history() -> None:
    history = Recorder(2).record(50)
    parts = [History(sent=[sent]) for sent in history.sent]
    parts.append(History(asked=history.asked, ends=history.ends))
    parts.append(History(logs=history.logs, specifications=history.specifications))
    whole = files.merged(parts)

    assert whole == history
    assert check(whole).is_good


def test_merged_histories_have_all_of_each() -> None:
    one = History(sent=[Sent("M", "alice", {"op": "cancel_all"})], logs={"M": ["1", "2"]})
    other = History(ends=[End("server-1", "M", 2, "", "")], logs={"M": ["1", "2", "3"], "N": []})
    whole = files.merged([one, other, one])

    assert whole.sent == one.sent * 2
    assert whole.ends == other.ends
    assert whole.logs == {"M": ["1", "2", "3"], "N": []}


def test_contradicting_logs_are_not_merged() -> None:
    with pytest.raises(ValueError, match="expected one logs of M, found two"):
        files.merged([History(logs={"M": ["1", "2"]}), History(logs={"M": ["1", "3"]})])


@pytest.mark.parametrize("line", ["nonsense", '["nothing", {}]', '["sent", {"market": 5}]'])
def test_line_that_is_no_part_of_a_history_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(line + "\n")

    with pytest.raises(ValueError, match=r"."):
        files.read(path)
