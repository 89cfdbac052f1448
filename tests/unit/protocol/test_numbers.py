"""Decimals are read and written exactly, or refused; averages are rounded half to even."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_protocol import numbers
from dex_protocol.numbers import COUNT_MAX, UNIT, Scale, normal, text_of_units, units

DECIMAL = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?", re.ASCII)

decimals = st.from_regex(DECIMAL, fullmatch=True)
steps = decimals.filter(lambda text: Fraction(text) > 0)


def test_text_too_long_for_a_decimal_is_not_remembered() -> None:
    """What is remembered is bounded by count, so it must be small: a text may be a megabyte."""
    remembered = numbers.short_units.__self__
    before = len(remembered)
    assert units("9" * 19 + "." + "9" * 18) is None
    assert units("x" * 1_000_000) is None

    assert len(remembered) == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", UNIT),
        ("0.000000000000000001", 1),
        ("100.50", 100 * UNIT + UNIT // 2),
        ("999999999999999999.999999999999999999", 10**36 - 1),
    ],
)
def test_decimal_is_read_as_its_count_of_the_smallest_unit(text: str, value: int) -> None:
    assert units(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "-", "+1", "-1", "-0", "01", "00", "1.", ".5", " 1", "1 ", "1\n", "1e5",
        "1E5", "1,5", "1_000", "0x1", "NaN", "Infinity", "1.2.3", "1" * 19, "0." + "1" * 19,
        "\u0661", "\uff11", "1.\uff15",
        "½", "²", "1\u200b", "\ufeff1", "1\x00",
    ],
)  # fmt: skip
def test_text_that_is_no_decimal_is_not_read(text: str) -> None:
    assert units(text) is None


@given(st.text(alphabet="0123456789.+-eE_ \u0663", max_size=40))
def test_text_is_read_exactly_when_it_is_a_decimal_of_the_protocol(text: str) -> None:
    """Any text at all: nothing is guessed at (G10)."""
    value = units(text)

    assert (value is not None) == (DECIMAL.fullmatch(text) is not None)
    if value is not None:
        assert Fraction(value, UNIT) == Fraction(text)


@given(decimals)
def test_normal_decimal_has_the_same_value_and_no_trailing_zeros(text: str) -> None:
    written = normal(text)

    assert Fraction(written) == Fraction(text)
    assert DECIMAL.fullmatch(written)
    assert "." not in written or written[-1] != "0"
    assert normal(written) == written


@given(decimals, decimals)
def test_decimals_are_equal_exactly_when_their_normals_are(one: str, other: str) -> None:
    assert (normal(one) == normal(other)) == (Fraction(one) == Fraction(other))


@pytest.mark.parametrize(
    ("text", "written"),
    [("0.0", "0"), ("1.10", "1.1"), ("10", "10"), ("100.00", "100"), ("0.010", "0.01")],
)
def test_normal_decimal_drops_zeros_behind_the_point_only(text: str, written: str) -> None:
    assert normal(text) == written


@given(st.integers(0, 10**40), st.integers(0, 30))
def test_units_are_written_with_as_many_decimals_as_they_need(value: int, decimals: int) -> None:
    assert Fraction(text_of_units(value, decimals=decimals)) == Fraction(value, 10**decimals)


@given(steps, decimals)
def test_scale_counts_whole_steps_and_nothing_else(step: str, text: str) -> None:
    count = Fraction(text) / Fraction(step)

    assert Scale(step).count(text) == (int(count) if count.denominator == 1 else None)


@given(steps, st.integers(0, COUNT_MAX))
def test_scale_writes_a_count_as_the_decimal_it_is(step: str, count: int) -> None:
    text = Scale(step).text(count)

    assert Fraction(text) == count * Fraction(step)
    assert "." not in text or text[-1] != "0"
    if DECIMAL.fullmatch(text):
        assert Scale(step).count(text) == count


def test_scale_counts_up_to_the_greatest_decimal_exactly() -> None:
    """No float could: they have 53 bits (G10)."""
    scale = Scale("0.000000000000000001")

    assert scale.count("999999999999999999.999999999999999999") == 10**36 - 1
    assert scale.text(10**36 - 1) == "999999999999999999.999999999999999999"


def test_scale_refuses_a_step_of_nothing() -> None:
    with pytest.raises(AssertionError, match="a step above 0"):
        Scale("0.00")


@given(steps, st.integers(0, COUNT_MAX * COUNT_MAX), st.integers(1, COUNT_MAX))
def test_average_is_rounded_half_to_even_to_eight_decimals_more(
    step: str, value: int, quantity: int
) -> None:
    scale = Scale(step)
    exact = Fraction(value, quantity) * Fraction(step)
    shift = 10 ** (scale.decimals + 8)

    # round() of a Fraction rounds half to even, exactly.
    assert Fraction(scale.average_text(value, quantity)) == Fraction(round(exact * shift), shift)


@pytest.mark.parametrize(
    ("step", "value", "quantity", "text"),
    [
        ("1", 1, 3, "0.33333333"),
        ("1", 2, 3, "0.66666667"),
        ("0.01", 10050 * 3 + 10060 * 4, 7, "100.5571428571"),
        ("0.01", 10000, 1, "100"),
        # Exactly half of the last place: down to an even digit, up to an even digit.
        ("1", 1, 2 * 10**8, "0"),
        ("1", 3, 2 * 10**8, "0.00000002"),
        ("1", 5, 2 * 10**8, "0.00000002"),
        ("0.25", 1, 8 * 10**8, "0.0000000003"),
    ],
)
def test_average_is_written_without_trailing_zeros(
    step: str, value: int, quantity: int, text: str
) -> None:
    assert Scale(step).average_text(value, quantity) == text
