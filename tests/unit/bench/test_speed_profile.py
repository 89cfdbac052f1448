"""A profile tells what functions did themselves, and what they had done."""

from bench.speed.profile import shares


def test_functions_are_ranked_by_what_they_did_themselves() -> None:
    stacks = [
        "run (driver.py:1);step (replica.py:20);execute (market.py:7) 6",
        "run (driver.py:1);step (replica.py:22) 3",
        # On the stack twice, and counted once.
        "run (driver.py:1);step (replica.py:20);step (replica.py:20) 1",
    ]

    assert shares(stacks) == [
        ("execute (market.py)", 0.6, 0.6),
        ("step (replica.py)", 0.4, 1.0),
    ]
