"""The checker finds nothing in a good history, and in a spoiled one just what is wrong with it."""

import copy
import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.checker.account import Accounts, Broken
from tests.checker.checker import MEANINGS, RULES, check
from tests.checker.history import Copy, End, History, Loss, Sent
from tests.checker.logs import hash_of
from tests.checker.recorded import MARKET, Recorder
from tests.checker.spoiling import WAYS, Way, append, commits, end_of, rewrite

SPECIFICATION = {"market": MARKET, "tick_size": "0.01", "lot_size": "0.05"}


@cache
def recorded() -> History:
    history = Recorder(3, specification=dict(SPECIFICATION)).record(300)
    # It ends with a commit that nobody waited for.
    append(history)
    return history


# --- Good histories ---------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 10, 60, 4096])
@pytest.mark.parametrize("seed", range(5))
def test_good_history_has_no_violation(seed: int, window: int) -> None:
    history = Recorder(seed, window=window).record(150)
    verdict = check(history, window=window)

    assert str(verdict).splitlines()[1:] == []
    assert verdict.re_executed == {MARKET: len(history.logs[MARKET])}
    assert verdict.commands == (
        verdict.acknowledged + verdict.refused + verdict.retried_only + verdict.unknown
    )


def test_all_that_can_happen_is_in_the_histories() -> None:
    """Or else a good verdict would say little."""
    verdict = check(recorded())

    assert verdict.is_good
    for count in (
        "acknowledged", "refused", "retried_only", "unknown", "unknown_executed", "commits",
        "events", "repeated", "queries", "replicas",
    ):  # fmt: skip
        assert getattr(verdict, count) > 0, count


def test_empty_history_is_good() -> None:
    assert check(History()).is_good


def test_market_of_which_nothing_is_known_is_good() -> None:
    assert check(History(sent=[Sent(MARKET, "alice", {"op": "cancel_all"}, [Copy(1.0)])])).is_good


# --- Spoiled histories ------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_spoiled_history_breaks_the_rules_meant_and_no_other(way: Way) -> None:
    history = copy.deepcopy(recorded())
    way.spoil(history)
    verdict = check(history)

    assert verdict.rules == way.rules, str(verdict)
    assert len(verdict.violations) <= 3, "expected one fault to be told about once"


def test_every_rule_is_broken_by_some_way_and_nearly_every_one_alone() -> None:
    assert {rule for way in WAYS for rule in way.rules} == set(RULES) == set(MEANINGS)
    # What breaks the laws of the book is nothing that the naive engine does; see below.
    alone = {rule for way in WAYS for rule in way.rules if len(way.rules) == 1}
    assert alone == {*RULES} - {"book"}


# --- Losses -----------------------------------------------------------------------------------


def without_tail(count: int) -> tuple[History, int]:
    history = copy.deepcopy(recorded())
    log = commits(history)[:-count]
    rewrite(history, log)
    return history, len(log)


def test_what_rests_on_lost_commits_is_excused() -> None:
    history, kept = without_tail(20)
    history.losses.append(Loss(MARKET, end_of(history), kept))
    verdict = check(history)

    assert verdict.is_good, str(verdict)
    assert verdict.lost > 0


def test_loss_that_is_not_told_is_seen() -> None:
    history, _ = without_tail(20)

    assert check(history).rules == {"settled", "acknowledged"}


def test_loss_excuses_nothing_that_came_after_it() -> None:
    history, kept = without_tail(20)
    history.losses.append(Loss(MARKET, 0.0, kept))

    assert check(history).rules == {"settled", "acknowledged"}


def test_loss_excuses_no_replica() -> None:
    history, kept = without_tail(20)
    history.losses.append(Loss(MARKET, end_of(history), kept))
    history.ends.append(End("server-2", MARKET, kept + 20, "", "0123456789abcdef"))

    assert check(history).rules == {"replicas"}


# --- Small histories --------------------------------------------------------------------------


def small(*events: dict[str, Any], time: int = 100) -> History:
    """Make a market with one commit more than the first, whose digest is not asked about."""
    opened = [
        {"event": "market_opened", "specification": SPECIFICATION, "log_id": "log"},
        {"event": "leader_changed", "server": "s", "term": 1, "protocol": 1, "rules": 1},
    ]
    head = {"market": MARKET, "term": 1, "digest": "0" * 16}
    log = [
        {**head, "sequence": 1, "time": 1, "events": opened},
        {**head, "sequence": 2, "time": time, "events": [*events]},
    ]
    history = History(specifications={MARKET: dict(SPECIFICATION)})
    rewrite(history, log)
    return history


def accepted(number: int, side: str, price: str, quantity: str, **fields: Any) -> dict[str, Any]:
    peer = fields.pop("peer", "alice")
    resting = {"resting_quantity": quantity, **fields}
    if resting["resting_quantity"] == "0":
        del resting["resting_quantity"]
    return {
        "event": "accepted",
        "order_id": f"order_{peer}_1_{number}",
        "peer": peer,
        "side": side,
        "price": price,
        "quantity": quantity,
        **resting,
    }


def trade(number: int, price: str, quantity: str, maker: str, taker: str) -> dict[str, Any]:
    return {
        "event": "trade",
        "trade_id": number,
        "price": price,
        "quantity": quantity,
        "maker_order_id": f"order_{maker}",
        "taker_order_id": f"order_{taker}",
        "taker_side": "buy",
    }


def test_command_before_what_is_due_is_seen() -> None:
    gtd = accepted(1, "buy", "1", "1", time_in_force="gtd", expires_at=50)
    history = small(gtd, time=10)
    log = commits(history)
    log.append({**log[-1], "sequence": 3, "time": 60, "events": [accepted(2, "buy", "1", "1")]})
    rewrite(history, log)

    assert "re_executed" in check(history).rules


def test_nothing_is_re_executed_after_what_the_engine_does_not_do() -> None:
    history = small({"event": "canceled_all", "command_id": "command_alice_1_1", "count": 1})
    verdict = check(history)

    assert verdict.rules == {"unasked", "re_executed"}
    assert verdict.re_executed == {MARKET: 1}


def test_newcomer_without_room_leaves_no_trace() -> None:
    history = copy.deepcopy(recorded())
    log = commits(history)
    specification = {**SPECIFICATION, "max_peers": 1}
    log[0]["events"][0]["specification"] = specification
    # Nothing but the opening, and a peer for whom there is no room after one came.
    submit = {"op": "submit", "side": "buy", "price": "1", "quantity": "1"}
    refusal = {
        "status": "rejected", "reason": "too_many_peers", "filled_quantity": "0",
        "remaining_quantity": "0", "sequence": 2, "duplicate": False,
    }  # fmt: skip
    history = History(
        specifications={MARKET: specification},
        sent=[
            Sent(MARKET, peer, {**submit, "order_id": f"order_{peer}_1_1"}, [Copy(1.0)])
            for peer in ("alice", "bob")
        ],
    )
    history.sent[1].copies[0] = Copy(1.0, 2.0, {"order_id": "order_bob_1_1", **refusal})
    second = {**log[1], "sequence": 2, "term": 1, "events": [accepted(1, "buy", "1", "1")]}
    rewrite(history, [log[0], second])

    assert check(history).rules == {"digest"}  # Nobody has reckoned that of commit 2.
    assert check(history).repeated == 1


def test_peer_that_had_no_answer_to_a_copy_cannot_believe_that_none_was_executed() -> None:
    history = copy.deepcopy(recorded())
    unanswered = next(
        sent
        for sent in history.sent
        if any(copy.answer is None for copy in sent.copies)
        and any(copy.answer and copy.answer["status"] != "retry" for copy in sent.copies)
    )
    unanswered.believed = "unavailable"

    assert check(history).rules == {"believed"}


def test_event_of_unknown_name_is_passed_over() -> None:
    history = copy.deepcopy(recorded())
    append(history, {"event": "weather_changed", "to": "rain"})

    assert check(history).is_good


# --- The book, by the events alone ------------------------------------------------------------

# Two asks of alice's, 5 at 10 and 5 at 11; bob buys.
ASKS = [
    accepted(1, "sell", "10", "5"),
    accepted(2, "sell", "10", "5"),
    accepted(3, "sell", "11", "5"),
]


def bought(quantity: str, resting: str = "0", price: str = "11") -> dict[str, Any]:
    return accepted(1, "buy", price, quantity, peer="bob", resting_quantity=resting)


@pytest.mark.parametrize(
    ("law", "events"),
    [
        ("first of the best price", [bought("5"), trade(1, "10", "5", "alice_1_2", "bob_1_1")]),
        ("first of the best price", [bought("5"), trade(1, "11", "5", "alice_1_3", "bob_1_1")]),
        ("the maker's price", [bought("5"), trade(1, "10.5", "5", "alice_1_1", "bob_1_1")]),
        ("taker's limit", [bought("5", price="9"), trade(1, "10", "5", "alice_1_1", "bob_1_1")]),
        ("both have left", [bought("9"), trade(1, "10", "6", "alice_1_1", "bob_1_1")]),
        ("trade 1", [bought("5"), trade(2, "10", "5", "alice_1_1", "bob_1_1")]),
        ("to rest", [bought("5")]),
        ("crossed book", [bought("5", resting="5")]),
        ("incoming order", [bought("5"), trade(1, "10", "5", "alice_1_1", "alice_1_2")]),
        ("accepted once", [ASKS[0]]),
        ("with oneself", [
            accepted(4, "buy", "11", "5", resting_quantity="0"),
            trade(1, "10", "5", "alice_1_1", "alice_1_4"),
        ]),
        ("5000000000000000000 of order_alice_1_1 left", [
            {"event": "canceled", "order_id": "order_alice_1_1", "quantity": "4",
             "reason": "requested"},
        ]),
        ("possible events", [
            {"event": "expired", "order_id": "order_alice_1_7", "quantity": "4"},
        ]),
        ("its place kept", [
            {"event": "amended", "order_id": "order_alice_1_1", "price": "10", "quantity": "6",
             "resting_quantity": "6", "priority": "kept", "version": 2},
        ]),
    ],
)  # fmt: skip
def test_law_of_the_book_is_asked(law: str, events: list[dict[str, Any]]) -> None:
    accounts = Accounts()
    accounts.apply_commit(ASKS)

    with pytest.raises(Broken, match=law):
        accounts.apply_commit(events)


def test_makers_of_the_same_peer_leave_before_the_next_is_met() -> None:
    accounts = Accounts()
    accounts.apply_commit(ASKS)
    accounts.apply_commit(
        [
            accepted(4, "buy", "11", "12", self_trade="cancel_maker", resting_quantity="12"),
            *(
                {
                    "event": "canceled",
                    "order_id": f"order_alice_1_{number}",
                    "quantity": "5",
                    "reason": "self_trade",
                }
                for number in (1, 2, 3)
            ),
        ]
    )

    assert accounts.resting == {"order_alice_1_4"}


def test_hash_is_that_of_the_chain() -> None:
    first, second = recorded().logs[MARKET][:2]

    assert json.loads(second)["previous"] == hash_of(first)


# --- The checker itself -----------------------------------------------------------------------


def test_checker_knows_nothing_of_the_exchange() -> None:
    """Or else it would misunderstand what the exchange does."""
    here = Path(__file__).parent
    names = (
        "account", "checker", "commands", "files", "history", "indexed_engine", "logs",
        "re_execution", "replies", "verdict",
    )  # fmt: skip
    judges = [here / f"{name}.py" for name in names]
    judges.append(here.parent / "property" / "reference_engine.py")

    assert [path.name for path in judges if re.search("(import|from) dex_", path.read_text())] == []


@pytest.mark.parametrize("seed", range(20))
def test_what_cannot_be_read_is_a_violation_or_does_not_matter(seed: int) -> None:
    """Whatever stands in a log or in an answer, the checker comes to an end."""
    choose = random.Random(seed)
    history = copy.deepcopy(recorded())
    values = [None, 0, -5, True, "", "x", "1e5", [], {}, "order_alice_1_1", "canceled"]
    log = commits(history)
    commit = choose.choice(log)
    answers = [each.answer for sent in history.sent for each in sent.copies if each.answer]
    event = choose.choice(commit["events"] or [commit])
    spoiled = choose.choice([commit, event, choose.choice(answers)])
    spoiled[choose.choice(list(spoiled))] = choose.choice(values)
    rewrite(history, log)

    check(history)
