"""Everything that could grow has an end: commits, groups, queues, replies."""

from typing import Final

import pytest

from dex_engine.following import REFUSALS
from dex_protocol import limits
from dex_protocol.codec import encode
from dex_protocol.commands import Cancel, Command
from dex_protocol.events import (
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    CanceledAll,
    Expired,
    Reduced,
    Rejected,
    Trade,
)
from dex_protocol.queries import BookQuery, StatusQuery
from dex_protocol.receipts import Receipt
from dex_protocol.specification import AskedPeerFields, SpecificationChange
from dex_server.replication.commits import EVENT_BYTES_MAX
from dex_server.replication.effects import Append, AppendConfirmed, Send
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


def trades_count(receipt: Receipt) -> int:
    """Tell how many trades a receipt names."""
    assert isinstance(receipt.trades, list)
    return len(receipt.trades)


# --- Commits ------------------------------------------------------------------------------------

_ID: Final = f"command_{LONGEST_PEER}_{LONG_TIMESTAMP}_{10**12 - 1}"
_DECIMAL: Final = "9" * 18 + "." + "9" * 18
_CONTENT: Final = "f" * 16
_COUNT: Final = 2**63 - 1


@pytest.mark.parametrize(
    "event",
    [
        Accepted(
            order_id=_ID,
            peer=LONGEST_PEER,
            side="sell",
            quantity=_DECIMAL,
            type="market",
            price=_DECIMAL,
            time_in_force="gtd",
            expires_at=_COUNT,
            post_only=True,
            self_trade="cancel_maker",
            resting_quantity=_DECIMAL,
        ),
        Trade(_COUNT, _DECIMAL, _DECIMAL, _ID, _ID, "sell"),
        Amended(_ID, _DECIMAL, _DECIMAL, "lost", _COUNT, _ID, _CONTENT, _DECIMAL),
        Reduced(_ID, _DECIMAL),
        Canceled(_ID, _DECIMAL, "too_many_makers", _ID, _CONTENT),
        CanceledAll(_COUNT, _ID, _CONTENT),
        Expired(_ID, _DECIMAL),
        Rejected(LONGEST_PEER, max(REFUSALS, key=len), _CONTENT, _ID, _ID),
    ],
    ids=lambda event: type(event).__name__,
)
def test_no_event_of_a_command_is_longer_than_it_counts_before_it_is_encoded(
    event: AnyEvent,
) -> None:
    assert len(encode(event)) + 1 <= EVENT_BYTES_MAX


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
    assert [trades_count(receipt) for receipt in receipts] == [1_000] * 4
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

    assert trades_count(leader.receipt(number)) == 1_000
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
    """They are not kept, so they cannot be executed later (G7)."""
    leader.send(buy("1 @ 100", 1))
    waiting = [
        leader.send(*(buy("1 @ 1", peer=peer) for _ in range(1_000)), peer=peer)
        for peer, count in (("bob", 8), ("carol", 4), ("dave", 2), ("erin", 1))
        for _ in range(count)
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
    half = limits.WAITING_BYTES_MAX // len(wide) // 2
    waiting = leader.send_together(*[wide] * half)

    # One is on its way already, and has left its place to one more.
    leader.send_together(wide)
    assert leader.retries(leader.send_raw(wide)) == ["busy"]
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
    peers = limits.WAITING_QUERIES_COUNT_MAX // limits.PEER_QUERIES_COUNT_MAX
    waiting = [
        leader.ask(far, peer=f"peer-{number}")
        for number in range(peers)
        for _ in range(limits.PEER_QUERIES_COUNT_MAX)
    ]

    assert leader.retries(leader.ask(far)) == ["busy"]
    leader.send(buy("1 @ 100", 1))
    leader.run()
    assert {leader.answer(number)["sequence"] for number in waiting} == {2}
    assert leader.answer(leader.ask())["sequence"] == 2


def test_answers_that_wait_for_an_append_are_bounded_in_number(leader: Harness) -> None:
    """They are the largest things of all to keep; beyond them the queries wait, each peer's own."""
    leader.send(buy("1 @ 100", 1))
    count = limits.WAITING_QUERIES_COUNT_MAX + limits.PEER_QUERIES_COUNT_MAX
    numbers = [leader.ask(BookQuery()) for _ in range(count)]

    assert leader.retries(leader.ask(BookQuery())) == ["rate_limited"]
    numbers.append(leader.ask(peer="bob"))
    leader.run()
    assert {leader.answer(number)["sequence"] for number in numbers} == {2}
    assert leader.answer(leader.ask())["sequence"] == 2


def test_answers_to_queries_leave_room_for_the_world_in_between(leader: Harness) -> None:
    """Orders that arrive behind a flood of queries are not held up by all of it."""
    far = StatusQuery(min_sequence=2)
    count = 3 * limits.TOLD_QUERIES_COUNT_MAX
    numbers = [leader.ask(far, peer=f"peer-{number % 3}") for number in range(count)]
    leader.send(buy("1 @ 100", 1))
    leader.perform(leader.take(Append))

    told = [leader.answer(number) is not None for number in numbers]
    assert sum(told) == limits.TOLD_QUERIES_COUNT_MAX * 2
    assert leader.replica.has_more_to_tell
    leader.run()
    assert {leader.answer(number)["sequence"] for number in numbers} == {2}
    assert not leader.replica.has_more_to_tell


def test_long_answers_to_queries_are_given_a_few_at_a_time(leader: Harness) -> None:
    rest(leader, 5_000)
    before = len(leader.given(Send))
    far = BookQuery(min_sequence=leader.end + 1, depth=1_000, orders=True)
    numbers = [leader.ask(far) for _ in range(40)]
    leader.send(buy("1 @ 1", 9_000))
    leader.perform(leader.take(Append))

    sent = [len(effect.payload) for effect in leader.given(Send)[before:]]
    assert sum(sent) < 2 * limits.TOLD_BYTES_MAX + 4 * max(sent)
    leader.run()
    assert all(leader.answer(number)["more"] for number in numbers)


def test_long_answers_that_wait_for_an_append_are_bounded_in_bytes(leader: Harness) -> None:
    rest(leader, 1_000)
    leader.send(buy("1 @ 1", 9_000))
    numbers = [leader.ask(BookQuery(depth=1_000, orders=True)) for _ in range(500)]
    for _ in range(500):
        leader.pass_time(ms=1)
    before = len(leader.given(Send))
    leader.perform(leader.take(Append))

    sent = [len(effect.payload) for effect in leader.given(Send)[before:]]
    longest = max(sent)
    assert sum(sent) < limits.TOLD_WAITING_BYTES_MAX + limits.TOLD_BYTES_MAX + 2 * longest
    leader.run()
    assert all(leader.answer(number) is not None for number in numbers)


def test_more_wishes_of_operators_than_may_wait_are_busy_at_once(leader: Harness) -> None:
    """All that wait are executed together, and have to fit a commit."""
    leader.send(buy("1 @ 100", 1))
    changes = [SpecificationChange(max_price=f"{1_000 + n}") for n in range(2_000)]
    numbers = [leader.administer("change", change) for change in changes]

    done, busy = numbers[: limits.WAITING_WISHES_COUNT_MAX], numbers[-1]
    assert leader.retries(busy) == ["busy"]
    leader.run()
    assert {leader.answer(number)["sequence"] for number in done} == {3}
    assert len(leader.commits()[2].events) == len(done)


def test_wishes_whose_events_do_not_fit_one_commit_wait_for_the_next(leader: Harness) -> None:
    """A specification that names many peers stands whole in each event; the harness measures the
    commits. Commands wait for all of them."""
    leader.send(buy("1 @ 100", 1))
    names = [f"{number:032}" for number in range(limits.NAMED_PEERS_COUNT_MAX)]
    numbers = [
        leader.administer(
            "change",
            SpecificationChange(
                peers={
                    name: AskedPeerFields(orders_burst=10**18 + n, orders_per_second=10**18)
                    for name in names
                }
            ),
        )
        for n in range(limits.WAITING_WISHES_COUNT_MAX)
    ]
    order_after = leader.send(buy("1 @ 100", 2))
    leader.run()

    sequences = [leader.answer(number)["sequence"] for number in numbers]
    assert sequences == sorted(sequences)
    assert sequences[-1] > sequences[0]
    assert leader.receipt(order_after).sequence == sequences[-1]
    leader.check()


# --- Time ---------------------------------------------------------------------------------------


def test_command_that_waited_a_second_is_late_and_not_executed(leader: Harness) -> None:
    """Two appends take 0.6 s each, and a third group would begin 1.2 s after it arrived (G7)."""
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
    leader.run()

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


LONGEST_TIMES: Final = f"{LONG_TIMESTAMP}_{10**12 - 1}"
UNREADABLE: Final = encode({"op": '"' * 80, "order_id": "x" * 80, "command_id": "x" * 80}).decode()


@pytest.mark.parametrize(
    "element",
    [
        encode(
            Cancel(
                f"order_{LONGEST_PEER}_{LONGEST_TIMES}",
                command_id=f"command_{LONGEST_PEER}_{LONGEST_TIMES}",
            )
        ).decode(),
        UNREADABLE,
    ],
    ids=["retry", "malformed"],
)
def test_reply_has_room_for_the_receipts_of_what_is_not_executed(element: str) -> None:
    """The harness measures each reply; of the longest ids and decimals a fourth sweep does not
    leave room for the rest of a batch of 1,000."""
    leader = a_leader(specification=a_specification(tick_size=SMALLEST, lot_size=SMALLEST))
    peer, price = LONGEST_PEER, "9.000000000000000001"
    for first in range(10**12 - 7_000, 10**12 - 1_000, 1_000):
        orders = [sell(f"{SMALLEST} @ {price}") for _ in range(1_000)]
        for n, order_of_peer in enumerate(orders):
            order_of_peer.order_id = f"order_{peer}_{LONG_TIMESTAMP}_{first + n}"
        leader.send(*orders, peer=peer)
        leader.run()
    takers = [encode(buy(f"0.000000000000001 @ {price}", self_trade="allow")).decode()] * 5

    number = leader.send_raw(f"[{','.join(takers + [element] * 995)}]".encode(), peer=peer)
    leader.run()

    receipts = leader.receipts(number)
    assert len(receipts) == 1_000
    assert trades_count(receipts[0]) == 1_000
    assert {str(receipt.reason) for receipt in receipts[-2:]} <= {"busy", "unknown_value"}


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
