"""Ways to spoil a history, each so that it breaks few rules, and which ones.

Each way changes a good history of one market in place. Where a commit's bytes change, the log is
chained anew, so that only what is meant is wrong.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from tests.checker.commands import own_id_of_command
from tests.checker.history import Asked, Copy, History, Json, Sent
from tests.checker.logs import HASH_OF_NOTHING, hash_of, own_id_of
from tests.checker.recorded import MARKET, RETRY
from tests.checker.verdict import Rule


class Way(NamedTuple):
    """A way to spoil a history, and all the rules that it breaks."""

    name: str
    spoil: Callable[[History], None]
    rules: set[Rule]


WAYS: Final[list[Way]] = []


def way(*rules: Rule) -> Callable[[Callable[[History], None]], Callable[[History], None]]:
    """Note that a function breaks these rules, and no other."""

    def note(spoil: Callable[[History], None]) -> Callable[[History], None]:
        WAYS.append(Way(spoil.__name__, spoil, set(rules)))
        return spoil

    return note


# --- The log ----------------------------------------------------------------------------------


def commits(history: History) -> list[Json]:
    return [json.loads(payload) for payload in history.logs[MARKET]]


def rewrite(history: History, log: list[Json], *, chained: bool = True, padding: int = 0) -> None:
    """Store other commits: chained anew, and the replicas' ends with them."""
    payloads: list[str] = []
    previous = HASH_OF_NOTHING
    for commit in log:
        if chained:
            commit["previous"] = previous
        payloads.append(json.dumps(commit, separators=(",", ":")))
        previous = hash_of(payloads[-1])
    payloads[-1] += " " * padding
    history.logs[MARKET] = payloads
    for end in history.ends:
        end.sequence, end.digest = len(log), log[-1]["digest"]
        end.hash = end.hash and hash_of(payloads[-1])


def append(history: History, *events: Json, **fields: Any) -> None:
    """Append a commit: as the last one, but for its events."""
    log = commits(history)
    log.append({**log[-1], "sequence": len(log) + 1, "events": list(events), **fields})
    rewrite(history, log)


def unasked_about(history: History) -> Iterator[Json]:
    """Give the log's commits in the middle which no reply is about; `rewrite` is called after."""
    log = commits(history)
    told = {asked.reply.get("sequence") for asked in history.asked}
    for commit in log[2:-2]:
        if commit["sequence"] not in told:
            yield commit
            rewrite(history, log)
            return


@way("chain")
def a_commit_numbers_itself_wrongly(history: History) -> None:
    for commit in unasked_about(history):
        commit["sequence"] += 1


@way("chain")
def a_commit_is_of_another_market(history: History) -> None:
    for commit in unasked_about(history):
        commit["market"] = "ETH-USD"


@way("chain")
def a_commit_names_another_one_before_it(history: History) -> None:
    log = commits(history)
    log[-1]["previous"] = log[-2]["previous"]
    rewrite(history, log, chained=False)


@way("chain")
def a_commit_is_too_long(history: History) -> None:
    rewrite(history, commits(history), padding=512 * 1024)


@way("chain")
def time_goes_back(history: History) -> None:
    append(history, time=commits(history)[-1]["time"] - 1)


@way("chain")
def a_commit_cannot_be_read(history: History) -> None:
    append(history)
    history.logs[MARKET][-1] = "nonsense"


@way("terms")
def a_deposed_leader_commits(history: History) -> None:
    append(history, term=commits(history)[-1]["term"] - 1)


@way("terms")
def a_term_is_left_out(history: History) -> None:
    term = commits(history)[-1]["term"] + 2
    append(history, leader_changed(term), term=term)


@way("terms")
def a_term_begins_twice(history: History) -> None:
    term = commits(history)[-1]["term"]
    append(history, leader_changed(term), term=term)


@way("terms")
def a_term_begins_within_a_commit(history: History) -> None:
    term = commits(history)[-1]["term"]
    append(history, leader_changed(term + 1), leader_changed(term + 2), term=term + 2)


@way("terms")
def the_market_opens_again(history: History) -> None:
    log = commits(history)
    append(history, log[0]["events"][0])


@way("terms")
def the_market_opened_by_another_specification(history: History) -> None:
    history.specifications[MARKET]["max_peers"] = 77


def leader_changed(term: int) -> Json:
    return {"event": "leader_changed", "server": "s", "term": term, "protocol": 1, "rules": 1}


@way("digest")
def a_digest_is_of_another_book(history: History) -> None:
    for commit in unasked_about(history):
        commit["digest"] = "0123456789abcdef"


@way("replicas")
def a_replica_ends_early(history: History) -> None:
    history.ends[0].sequence -= 1


@way("replicas")
def a_replica_ends_with_another_commit(history: History) -> None:
    history.ends[0].hash = HASH_OF_NOTHING


@way("replicas")
def a_replica_ends_with_another_book(history: History) -> None:
    history.ends[1].digest = "0123456789abcdef"


# --- Events -----------------------------------------------------------------------------------


def outcome(history: History, kind: str, fits: Callable[[Json], bool] = lambda _: True) -> Json:
    """Give the outcome of a command that was sent once, as it stands in the log."""
    for commit in commits(history):
        for event in commit["events"]:
            if event["event"] == kind and fits(event):
                own_id = own_id_of(event)
                if own_id and len(all_of(history, own_id)) == 1:
                    return event
    raise AssertionError(f"no {kind} in the history that would do")


def all_of(history: History, own_id: str) -> list[Sent]:
    return [sent for sent in history.sent if own_id_of_command(sent.command) == own_id]


def change_event(history: History, event: Json, **fields: Any) -> None:
    log = commits(history)
    for commit in log:
        for each in commit["events"]:
            if each == event:
                each |= fields
    rewrite(history, log)


def forget_answers(history: History, event: Json) -> None:
    """Let nobody know what became of a command."""
    for copy in all_of(history, own_id_of(event) or "")[0].copies:
        copy.answer = None


@way("re_executed")
def a_command_is_refused_for_another_reason(history: History) -> None:
    event = outcome(history, "rejected")
    forget_answers(history, event)
    change_event(history, event, reason="price_off_tick")


@way("re_executed")
def an_order_is_accepted_with_another_content(history: History) -> None:
    event = outcome(history, "accepted", lambda event: event.get("self_trade") == "allow")
    forget_answers(history, event)
    change_event(history, event, self_trade="decrement")


@way("re_executed")
def a_market_changes_and_does_not(history: History) -> None:
    append(history, {"event": "market_changed", "state": "trading"})


@way("re_executed")
def all_are_canceled_of_somebody_who_has_none(history: History) -> None:
    append(history, {"event": "canceled_all", "count": 1})


@way("re_executed", "book")
def an_order_expires_that_never_was(history: History) -> None:
    append(history, {"event": "expired", "order_id": "order_nobody_1_1", "quantity": "1"})


@way("re_executed", "book")
def a_trade_has_another_price(history: History) -> None:
    event = first_event(history, "trade")
    change_event(history, event, price="100.07")


@way("re_executed", "book")
def a_trade_is_left_out(history: History) -> None:
    log = commits(history)
    event = first_event(history, "trade")
    for commit in log:
        commit["events"] = [each for each in commit["events"] if each != event]
    rewrite(history, log)


@way("re_executed", "book")
def a_trade_has_another_number(history: History) -> None:
    change_event(history, first_event(history, "trade"), trade_id=999)


def first_event(history: History, kind: str) -> Json:
    return next(e for commit in commits(history) for e in commit["events"] if e["event"] == kind)


def _add_unasked(kind: str) -> None:
    def spoil(history: History) -> None:
        event = outcome(history, kind)
        (sent,) = all_of(history, own_id_of(event) or "")
        history.sent.remove(sent)

    spoil.__name__ = f"nobody_sent_what_is_{kind}"
    way("unasked")(spoil)


for _kind in ("accepted", "amended", "canceled", "canceled_all", "rejected"):
    _add_unasked(_kind)


@way("once")
def a_command_is_refused_twice(history: History) -> None:
    append(history, outcome(history, "rejected"))


@way("once")
def a_pair_is_used_twice(history: History) -> None:
    event = outcome(history, "rejected", lambda event: "command_id" not in event)
    command_id = event["order_id"].replace("order_", "command_", 1)
    append(history, {**event, "command_id": command_id})


@way("once", "book")
def an_order_is_accepted_twice(history: History) -> None:
    append(history, outcome(history, "accepted"))


# --- Receipts ---------------------------------------------------------------------------------


def answered_once(
    history: History, fits: Callable[[Json], bool] = lambda _: True
) -> tuple[Sent, Json]:
    """Give a command that was sent once, and its answer, which is from where it was decided."""
    for sent in history.sent:
        own_id = own_id_of_command(sent.command)
        if len(sent.copies) == 1 and own_id and len(all_of(history, own_id)) == 1:
            answer = sent.copies[0].answer
            if answer and "sequence" in answer and not answer.get("duplicate") and fits(answer):
                return sent, answer
    raise AssertionError("no receipt in the history that would do")


def is_executed(answer: Json) -> bool:
    return answer["status"] != "rejected"


def is_refused(answer: Json) -> bool:
    return answer["status"] == "rejected" and answer["reason"] not in ("stale_id", "id_reused")


def forged(history: History, answer: Json, *, number: int = 1, peer: str = "alice") -> None:
    """Add a command that nobody executed, and its answer in the last commit's name."""
    order_id = f"order_{peer}_99999999999999_{number}"
    command = {
        "op": "submit",
        "order_id": order_id,
        "side": "buy",
        "price": "1",
        "quantity": "1",
    }
    answer = {"order_id": order_id, "sequence": len(history.logs[MARKET]), **answer}
    copy = Copy(before_all(history), end_of(history), answer)
    history.sent.append(Sent(MARKET, peer, command, [copy]))


def end_of(history: History) -> float:
    """Give a time after all others."""
    ended = [copy.ended or copy.sent for sent in history.sent for copy in sent.copies]
    return max(ended + [asked.ended for asked in history.asked]) + 1


def before_all(history: History) -> float:
    """Give a time when nobody had been told of anything yet."""
    return min(copy.sent for sent in history.sent for copy in sent.copies)


@way("acknowledged")
def an_executed_command_is_not_in_the_log(history: History) -> None:
    answer = {"status": "new", "filled_quantity": "0", "remaining_quantity": "1", "version": 1}
    forged(history, answer)


@way("acknowledged")
def a_repeated_command_is_not_in_the_log(history: History) -> None:
    answer = {"status": "filled", "filled_quantity": "1", "remaining_quantity": "0", "version": 1}
    forged(history, {**answer, "duplicate": True})


@way("acknowledged")
def a_refused_command_is_not_in_the_log(history: History) -> None:
    forged(history, {"status": "rejected", "reason": "price_off_tick"})


@way("acknowledged")
def a_peer_is_refused_for_whom_there_is_room(history: History) -> None:
    forged(history, {"status": "rejected", "reason": "too_many_peers"}, peer="newcomer")


@way("acknowledged")
def a_receipt_has_another_quantity(history: History) -> None:
    answered_once(history, is_executed)[1]["remaining_quantity"] = "77"


@way("acknowledged")
def a_receipt_has_another_status(history: History) -> None:
    answered_once(history, lambda answer: answer["status"] == "new")[1]["status"] = "filled"


@way("acknowledged")
def a_receipt_leaves_out_its_trades(history: History) -> None:
    del answered_once(history, lambda answer: bool(answer.get("trades")))[1]["trades"]


@way("acknowledged")
def a_receipt_leaves_out_its_average_price(history: History) -> None:
    del answered_once(history, lambda answer: "average_price" in answer)[1]["average_price"]


@way("acknowledged")
def a_receipt_has_no_sequence(history: History) -> None:
    del answered_once(history, is_executed)[1]["sequence"]


@way("acknowledged")
def a_receipt_names_a_later_commit(history: History) -> None:
    sent, answer = answered_once(history, is_executed)
    answer["sequence"] = len(history.logs[MARKET])
    # Or else those would be wrong that were sent after that was told.
    sent.copies[0].ended = end_of(history)


@way("refused")
def a_refused_command_is_executed(history: History) -> None:
    _, answer = answered_once(history, is_executed)
    answer |= {"status": "rejected", "reason": "market_halted"}


@way("refused")
def a_command_is_refused_and_executed_later(history: History) -> None:
    sent, answer = answered_once(history, is_executed)
    answer |= {"status": "rejected", "reason": "market_halted", "sequence": answer["sequence"] - 1}
    sent.copies[0].sent = before_all(history)


@way("refused")
def a_command_that_cannot_be_read_is_executed(history: History) -> None:
    sent, _ = answered_once(history, is_executed)
    sent.copies[0].answer = {"status": "rejected", "reason": "malformed"}


@way("refused")
def a_command_is_told_of_another_reason(history: History) -> None:
    _, answer = answered_once(history, is_refused)
    answer["reason"] = "market_halted" if answer["reason"] != "market_halted" else "no_liquidity"


@way("retry")
def a_command_is_to_be_sent_again_and_executed(history: History) -> None:
    sent, _ = answered_once(history, is_executed)
    sent.copies[0].answer = RETRY


@way("retry")
def a_batch_is_too_large_and_executed(history: History) -> None:
    sent, _ = answered_once(history, is_executed)
    sent.copies[0].answer = {"status": "rejected", "reason": "batch_too_large"}


@way("believed")
def a_peer_believes_in_nothing_against_a_receipt(history: History) -> None:
    answered_once(history)[0].believed = "unavailable"


@way("one_outcome")
def two_copies_are_executed(history: History) -> None:
    sent, _ = answered_once(history)
    sent.copies.append(sent.copies[0])


@way("one_outcome", "refused")
def a_command_is_refused_and_executed(history: History) -> None:
    sent, answer = answered_once(history, is_executed)
    first = sent.copies[0]
    refusal = {**answer, "status": "rejected", "reason": "no_liquidity"}
    sent.copies.append(Copy(first.sent, first.ended, refusal))


def repeated_answer(history: History, fits: Callable[[Json], bool]) -> Json:
    for sent in history.sent:
        for copy in sent.copies:
            if copy.answer and "sequence" in copy.answer and fits(copy.answer):
                return copy.answer
    raise AssertionError("no receipt in the history that would do")


def is_duplicate(answer: Json) -> bool:
    return bool(answer.get("duplicate"))


@way("repeated")
def a_duplicate_has_another_quantity(history: History) -> None:
    repeated_answer(history, lambda a: is_duplicate(a) and a["status"] == "new")[
        "remaining_quantity"
    ] = "77"


@way("repeated")
def a_duplicate_has_no_sequence(history: History) -> None:
    del repeated_answer(history, is_duplicate)["sequence"]


@way("repeated")
def a_repeated_cancel_of_all_counts_wrongly(history: History) -> None:
    repeated_answer(history, lambda answer: "count" in answer)["count"] += 1


@way("repeated")
def a_new_id_is_called_stale(history: History) -> None:
    forged(history, {"status": "rejected", "reason": "stale_id"})


@way("repeated")
def a_new_id_is_called_reused(history: History) -> None:
    forged(history, {"status": "rejected", "reason": "id_reused"})


@way("repeated")
def a_reused_id_is_called_stale(history: History) -> None:
    reused = repeated_answer(history, lambda answer: answer.get("reason") == "id_reused")
    reused["reason"] = "stale_id"


# --- Time -------------------------------------------------------------------------------------


@way("real_time")
def a_command_stands_before_what_was_told_before(history: History) -> None:
    sent, _ = answered_once(history, is_executed)
    late = end_of(history)
    sent.copies[0].sent, sent.copies[0].ended = late, late + 1


@way("real_time")
def a_command_nobody_was_told_of_stands_too_early(history: History) -> None:
    sent, _ = answered_once(history, is_executed)
    sent.copies[0] = Copy(end_of(history))


@way("real_time")
def a_copy_is_answered_from_before_it_was_sent(history: History) -> None:
    for sent in history.sent:
        for copy in sent.copies:
            if copy.answer and copy.answer.get("duplicate"):
                copy.sent = end_of(history)
                copy.ended = copy.sent + 1
                return
    raise AssertionError("no duplicate in the history")


@way("settled")
def a_receipt_names_a_commit_that_is_not_there(history: History) -> None:
    answered_once(history, is_executed)[1]["sequence"] = len(history.logs[MARKET]) + 1


@way("settled")
def a_reply_names_a_commit_that_is_not_there(history: History) -> None:
    asked(history, "status").reply["sequence"] = len(history.logs[MARKET]) + 1


# --- Queries ----------------------------------------------------------------------------------


def asked(
    history: History,
    what: str,
    fits: Callable[[Asked], bool] = lambda asked: "sequence" in asked.reply,
) -> Asked:
    return next(each for each in history.asked if each.what == what and fits(each))


def _add_status(name: str, value: Any) -> None:
    def spoil(history: History) -> None:
        asked(history, "status").reply[name] = value

    spoil.__name__ = f"status_has_another_{name}"
    way("queries")(spoil)


for _name, _value in (
    ("leader", "server-77"),
    ("term", 77),
    ("digest", "0123456789abcdef"),
    ("state", "closed"),
    ("specification", {"market": MARKET, "tick_size": "0.5", "lot_size": "1"}),
    ("last_price", "77"),
    ("highest", [77, 77]),
    ("forgotten", [77, 77]),
):
    _add_status(_name, _value)


@way("queries")
def a_book_has_another_quantity(history: History) -> None:
    reply = asked(
        history, "book", lambda each: bool(each.reply["bids"]) and not each.request.get("orders")
    ).reply
    reply["bids"][0]["quantity"] = "77"


@way("queries")
def a_book_leaves_out_an_order(history: History) -> None:
    reply = asked(
        history, "book", lambda each: bool(each.reply["asks"]) and "orders" in each.request
    ).reply
    del reply["asks"][0]


@way("queries")
def an_order_has_another_status(history: History) -> None:
    asked(history, "order", lambda each: "order" in each.reply).reply["order"]["status"] = "odd"


@way("queries")
def a_peer_has_fewer_orders(history: History) -> None:
    del asked(history, "orders", lambda each: bool(each.reply.get("orders"))).reply["orders"][0]


@way("queries")
def a_trade_was_for_another_quantity(history: History) -> None:
    reply = asked(history, "trades", lambda each: bool(each.reply["trades"])).reply
    reply["trades"][0]["quantity"] = "77"


@way("queries")
def a_reply_is_older_than_was_asked_for(history: History) -> None:
    each = asked(history, "status")
    each.request["min_sequence"] = each.reply["sequence"] + 1


@way("queries")
def a_reply_has_no_sequence(history: History) -> None:
    del asked(history, "status").reply["sequence"]


@way("queries")
def a_log_is_told_otherwise_than_it_is_stored(history: History) -> None:
    log = list(history.logs[MARKET])
    now = end_of(history)
    reply = {"sequence": len(log), "first_sequence": 1, "commits": [log[1], "{}"]}
    history.asked.append(Asked(MARKET, "alice", "log", {"from_sequence": 2}, now, now, reply))
