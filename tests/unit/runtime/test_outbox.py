"""What is put into an outbox is written as the protocol has it, and nothing is smuggled in."""

import pytest

from dex_runtime.outbox import header_block, is_subject


@pytest.mark.parametrize("text", ["a", "a.b.c", "_INBOX.x-1", "ä"])
def test_subject_is_one_piece(text: str) -> None:
    assert is_subject(text)


@pytest.mark.parametrize("text", ["", " ", "a b", "a\r\nPUB b 0", "a\n", "a\t", "\va", "a\u2028b"])
def test_what_has_blanks_or_line_ends_is_no_subject(text: str) -> None:
    assert not is_subject(text)


def test_headers_are_written_line_by_line() -> None:
    assert header_block({"A": "1", "B": "2"}) == b"NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n"


@pytest.mark.parametrize(("name", "value"), [("A", "1\r\nB: 2"), ("A\n", "1"), ("A:", "1")])
def test_header_that_would_end_its_line_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="expected a header in one line"):
        header_block({name: value})
