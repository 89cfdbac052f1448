"""Everything that could grow has an end: commits, groups, queues, replies."""

import pytest

from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.commands import Command
from dex_protocol.queries import BookQuery, StatusQuery
from dex_server.replication.effects import Append, AppendConfirmed
from tests.builders import LONGEST_PEER, a_specification, buy, cancel_all, command, order, sell
from tests.unit.server.harness import Harness, a_leader

LONG_TIMESTAMP = 10**14 - 1
SMALLEST = "0.000000000000000001"


def rest(leader: Harness, count: int, *, peer: str = "alice") -> None:
    """Let a peer offer one lot each in that many orders, at 100."""
    for first in range(1, count, 1_000):
        leader.send(
            *(sell("0.001 @ 100", n, peer=peer) for n in range(first, first + 1_000)), peer=peer
        )
        leader.run()


def sweeps(count: int) -> list[Command]:
    """Make bob's orders that trade with a thousand others each."""
    return [buy("1 @ 100", number, peer="bob") for number in range(1, count + 1)]


# --- Commits ------------------------------------------------------------------------------------


def test_command_whose_events_do_not_fit_opens_the_next_commit(leader: Harness) -> None:
    """The harness follows the log: each commit's size, and its digest, which is the book's before
    the command that did not fit."""
    rest(leader, 7_000)
    before = leader.end
    numbers = [leader.send(sweep, peer="bob") for sweep in sweeps(7)]
    leader.run()

    commits = leader.commits()[before:]
    counts = [len(commit.events) for commit in commits]
    assert counts == [1_001, 2_002, 1_001, 2_002, 1_001]
    assert [leader.receipt(number).sequence for number in numbers] == [
        before + offset for offset in (1, 2, 2, 3, 4, 4, 5)
    ]


def test_batch_spans_commits_and_is_answered_with_the_last(leader: Harness) -> None:
    rest(leader, 5_000)
    before = leader.end
    number = leader.send(*sweeps(4), peer="bob")

    leader.perform(leader.take(Append))
    assert leader.answer(number) is None
    leader.run()

    receipts = leader.receipts(number)
    assert [len(receipt.trades) for receipt in receipts] == [1_000] * 4
    assert [receipt.sequence for receipt in receipts] == [before + n for n in (1, 1, 2, 3)]


def test_largest_events_of_one_command_fit_one_commit() -> None:
    """A thousand trades between the longest ids, with the longest decimals."""
    leader = a_leader(specification=a_specification(tick_size=SMALLEST, lot_size=SMALLEST))
    peer = LONGEST_PEER
    price = "9.000000000000000001"
    for first in range(10**12 - 5_000, 10**12 - 4_000, 1_000):
        orders = []
        for n in range(first, first + 1_000):
            one = sell(f"{SMALLEST} @ {price}", peer=peer)
            one.order_id = f"order_{peer}_{LONG_TIMESTAMP}_{n}"
            orders.append(one)
        leader.send(*orders, peer=peer)
        leader.run()
    before = leader.end
    taker = buy(f"0.000000000000001 @ {price}", self_trade="allow")
    taker.order_id = f"order_{peer}_{LONG_TIMESTAMP}_{10**12 - 1}"
    number = leader.send(taker, peer=peer)
    leader.run()

    assert len(leader.receipt(number).trades) == 1_000
    assert leader.end == before + 1
    leader.check()


def test_group_ends_after_so_many_commands(leader: Harness) -> None:
    """More would keep the loop from the world for too long."""
    leader.send(buy("1 @ 100", 1))
    for first in range(2, 4_502, 500):
        leader.send(*(buy("1 @ 1", n) for n in range(first, first + 500)))
    leader.run()

    counts = [len(commit.events) for commit in leader.commits()[1:]]
    assert counts == [1, 2_000, 2_000, 500]


# --- Queues -------------------------------------------------------------------------------------


def test_more_commands_than_may_wait_are_busy_at_once(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1))
    full = limits.WAITING_COMMANDS_COUNT_MAX // 1_000
    waiting = [
        leader.send(*(buy("1 @ 1", peer="bob") for _ in range(1_000)), peer="bob")
        for _ in range(full)
    ]

    batch = leader.send(*(buy("1 @ 1", n) for n in range(2, 1_002)))
    assert {receipt.reason for receipt in leader.receipts(batch)} == {"busy"}
    assert [receipt.order_id for receipt in leader.receipts(batch)][-1] == order(1_001)
    one = leader.send(buy("1 @ 1", 2))
    assert leader.answer(one) is None
    leader.run()
    assert leader.receipt(one).status == "new"
    assert all(len(leader.receipts(number)) == 1_000 for number in waiting)

    again = leader.send(*(buy("1 @ 1", n) for n in range(3, 1_003)))
    leader.run()
    assert {receipt.status for receipt in leader.receipts(again)} == {"new"}


def test_more_bytes_than_may_wait_are_busy_at_once(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1))
    wide = encode(buy("1 @ 1", 2)).ljust(limits.PAYLOAD_BYTES_MAX)
    full = limits.WAITING_BYTES_MAX // len(wide)
    waiting = leader.send_together(*[wide] * full)

    assert leader.retries(leader.send(buy("1 @ 1", 3))) == ["busy"]
    assert leader.answer(waiting[-1]) is None
    leader.run()
    assert leader.receipt(waiting[-1]).duplicate is True


def test_malformed_request_is_refused_and_not_busy_in_a_full_queue(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1))
    leader.send_together(*[b" " * limits.PAYLOAD_BYTES_MAX] * 20)
    for _ in range(17):
        leader.send(*(buy("1 @ 1", peer="bob") for _ in range(1_000)), peer="bob")

    assert leader.receipt(leader.send_raw(b"{")).reason == "malformed"


def test_more_queries_than_may_wait_are_busy_at_once(leader: Harness) -> None:
    far = StatusQuery(min_sequence=2)
    waiting = [leader.ask(far) for _ in range(limits.WAITING_QUERIES_COUNT_MAX)]

    assert leader.retries(leader.ask(far)) == ["busy"]
    leader.send(buy("1 @ 100", 1))
    leader.run()
    assert {leader.answer(number)["sequence"] for number in waiting} == {2}
    assert leader.answer(leader.ask())["sequence"] == 2


def test_answers_that_wait_for_an_append_count_as_waiting_queries(leader: Harness) -> None:
    """They are the largest things of all to keep."""
    leader.send(buy("1 @ 100", 1))
    numbers = [leader.ask(BookQuery()) for _ in range(limits.WAITING_QUERIES_COUNT_MAX + 1)]

    assert leader.retries(numbers[-1]) == ["busy"]
    leader.run()
    assert {leader.answer(number)["sequence"] for number in numbers[:-1]} == {2}
    assert leader.answer(leader.ask())["sequence"] == 2


# --- Time ---------------------------------------------------------------------------------------


def test_command_that_waited_a_second_is_late_and_not_executed(leader: Harness) -> None:
    """Two appends take 0.6 s each, and a third group would begin 1.2 s after it arrived."""
    leader.send(buy("1 @ 100", 1))
    early = [
        leader.send(*(buy("1 @ 1", n) for n in range(first, first + 1_000))) for first in (2, 1_002)
    ]
    late = leader.send(buy("1 @ 1", 9_000))
    for _ in range(2):
        leader.pass_time(ms=600)
        leader.perform(leader.take(Append))

    assert leader.retries(late) == ["late"]
    assert all({r.status for r in leader.receipts(number)} == {"new"} for number in early)
    again = leader.send(buy("1 @ 1", 9_000))
    leader.run()
    assert (leader.receipt(again).status, leader.receipt(again).duplicate) == ("new", False)


def test_command_that_waited_just_less_is_executed(leader: Harness) -> None:
    leader.send(buy("1 @ 100", 1))
    number = leader.send(buy("1 @ 1", 2))
    leader.pass_time(ms=999)
    leader.run()

    assert leader.receipt(number).status == "new"


def test_rest_of_a_late_batch_is_sent_back_with_what_was_executed(leader: Harness) -> None:
    rest(leader, 7_000)
    leader.send(buy("1 @ 1", 9_000))
    number = leader.send(*sweeps(4), peer="bob")
    leader.pass_time(ms=900)
    leader.perform(leader.take(Append))
    # Two are in this one, the third opened the next.
    leader.pass_time(ms=200)
    assert leader.answer(number) is None
    leader.run()

    receipts = leader.receipts(number)
    assert [receipt.status for receipt in receipts] == ["filled", "filled", "filled", "retry"]
    assert (receipts[3].reason, receipts[3].order_id) == ("late", order(4, "bob"))


def test_group_of_late_commands_leaves_no_trace(leader: Harness) -> None:
    """Neither a commit nor a time: a state is that after its newest commit, to the byte."""
    leader.send(buy("1 @ 100", 1))
    leader.run()
    market = leader.replica.market
    assert market is not None
    stored = market.snapshot()
    leader.pass_time(ms=2_000)

    # The loop was held up, with a request in its socket.
    late = leader.send(buy("1 @ 1", 2), waited_us=limits.LATE_US)

    assert leader.retries(late) == ["late"]
    assert market.snapshot() == stored
    assert leader.waiting(Append) == []


# --- Replies ------------------------------------------------------------------------------------


def test_reply_of_many_trades_ends_before_a_megabyte_and_the_rest_is_busy(leader: Harness) -> None:
    rest(leader, 20_000)
    number = leader.send(*sweeps(20), peer="bob")
    leader.run()

    done = _done_and_then_busy(leader, number)
    assert done >= 3
    again = leader.send(*sweeps(20)[done:], peer="bob")
    leader.run()
    assert leader.receipts(again)[0].status == "filled"


def test_reply_of_many_canceled_orders_ends_before_a_megabyte(leader: Harness) -> None:
    rest(leader, 20_000)
    number = leader.send(*(cancel_all(n) for n in range(30_001, 30_021)))
    leader.run()

    done = _done_and_then_busy(leader, number)
    assert done >= 5
    assert leader.receipts(number)[done].command_id == command(30_001 + done)


def _done_and_then_busy(leader: Harness, number: int) -> int:
    receipts = leader.receipts(number)
    done = [receipt.status != "retry" for receipt in receipts].index(False)
    assert {receipt.reason for receipt in receipts[done:]} == {"busy"}
    assert len(receipts) == 20
    return done


@pytest.mark.parametrize("field", ["order_id", "side", "quantity", "op", "time_in_force"])
@pytest.mark.parametrize("character", ["x", "\\u0007", "\\u00e9", "\U0001f600", '\\"'])
def test_reply_to_an_unreadable_request_of_any_length_fits_a_message(
    leader: Harness, field: str, character: str
) -> None:
    """What is sent back of a request, in a message or as an id, does not grow beyond it."""
    fields = {"op": "submit", "side": "buy", "quantity": "1", "price": "100"}
    fields[field] = character * (1_000_000 // len(character.encode()))
    payload = "{" + ",".join(f'"{name}":"{text}"' for name, text in fields.items()) + "}"

    single = leader.send_raw(payload.encode())
    batch = leader.send_raw(f"[{payload}]".encode())

    assert leader.answer(single)["status"] == "rejected"
    assert leader.answer(batch)[0]["status"] == "rejected"


def test_reply_to_a_batch_of_long_unreadable_elements_fits_a_message(leader: Harness) -> None:
    """Each echoes what it can; all of them together have to be sent all the same."""
    op, order_id = "\U0001f600" * 80, "\\u0007" * 110
    element = f'{{"op":"{op}","order_id":"{order_id}"}}'
    payload = "[" + ",".join([element] * 999) + "," + encode(buy("1 @ 100", 1)).decode() + "]"
    assert len(payload.encode()) <= limits.PAYLOAD_BYTES_MAX

    number = leader.send_raw(payload.encode())
    leader.run()

    assert leader.receipts(number)[-1].status in ("new", "retry")


def test_confirmation_of_what_is_not_pending_is_ignored(leader: Harness) -> None:
    leader.give(AppendConfirmed(7))

    assert leader.replica.stored == 1
