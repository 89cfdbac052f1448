"""Figures that one measurement gives together."""

from bench.speed.together import together


async def test_a_round_measures_once_in_whatever_order_it_asks() -> None:
    measured = 0

    async def measure() -> dict[str, float]:
        nonlocal measured
        measured += 1
        return {"a": measured, "b": 10.0 * measured}

    a, b = together({"a": "ms", "b": "µs"}, measure)
    assert (a.unit, b.unit) == ("ms", "µs")
    assert [await a.measure(), await b.measure()] == [1, 10]
    assert [await b.measure(), await a.measure()] == [20, 2]
    assert measured == 2


async def test_what_a_round_did_not_ask_for_is_not_of_the_next_one() -> None:
    values = iter([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}])

    async def measure() -> dict[str, float]:
        return next(values)

    a, b = together({"a": "", "b": ""}, measure)
    assert await a.measure() == 1
    assert await a.measure() == 3
    assert await b.measure() == 4
