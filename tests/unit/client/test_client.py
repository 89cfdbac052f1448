"""Commands keep their ids until they have an outcome, and what is told of them is true."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

import dex_client
from dex_client import link as linking
from dex_client.client import Exchange, connect
from dex_client.decimals import decimal_text
from dex_client.errors import OutcomeUnknown, ProtocolMismatch, Unavailable
from dex_client.link import Link
from dex_client.retry import Policy
from dex_protocol.codec import decode_commit, decode_request, encode
from dex_protocol.commands import Cancel, CancelAll, Command, Submit, own_id
from dex_protocol.events import Accepted, Canceled, CanceledAll
from dex_protocol.ids import pair_of
from dex_protocol.limits import BATCH_COUNT_MAX, RETRY_WINDOW_COUNT
from dex_protocol.queries import OrderReceipt, OrdersReply, StatusReply, TradesReply
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Receipt, refused, retry
from dex_runtime.messaging import NoReply, NoResponder
from tests.builders import TIMESTAMP, order
from tests.unit.client import exchange as fakes

MARKET = "BTC-USD"

Answer = Callable[[list[Command]], bytes | Exception]


class Venue:
    """A market in memory; `instead` has what is answered to the next requests instead."""

    def __init__(self, *, faults_percent: int = 0, seed: int = 1) -> None:
        self.exchange = fakes.Exchange(faults_percent=faults_percent, seed=seed)
        self.queries = fakes.Replica(self.exchange.market, self.exchange.log)
        self.instead: list[Answer] = []
        self.copies: list[list[Command]] = []
        self.highest = self.forgotten = (0, 0)
        self.asked: list[str] = []

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if subject.startswith("dex.query"):
            self.asked.append(subject)
            reply = self.queries._status(payload)
            reply.highest, reply.forgotten = self.highest, self.forgotten
            return encode(reply)
        elements, _ = decode_request(payload, "alice")
        commands: list[Any] = elements
        self.copies.append(commands)
        if self.instead:
            answer = self.instead.pop(0)(commands)
            if isinstance(answer, Exception):
                await asyncio.sleep(0)
                raise answer
            return answer
        return await self.exchange.request(subject, payload, timeout_s=timeout_s)

    def peer(self, **policy: Any) -> Exchange:
        return Exchange(
            self,  # type: ignore[arg-type]
            "alice",
            policy=Policy(**{"deadline_s": 30.0, "pause_min_s": 0.001} | policy),
            random=Random(1),
        )

    def accepted(self) -> list[str]:
        return [
            event.order_id
            for payload in self.exchange.log
            for event in decode_commit(payload).events
            if isinstance(event, Accepted)
        ]

    def executes(self, commands: list[Command]) -> bytes:
        return self.exchange.executes(f"dex.orders.{MARKET}.alice", encode(commands))


def nobody(commands: list[Command]) -> Exception:
    return NoResponder("503")


def silence(commands: list[Command]) -> Exception:
    return NoReply("silence")


def busy(commands: list[Command]) -> bytes:
    answers = [retry(RetryReason.busy, order_id=own_id(command)) for command in commands]
    return encode(answers if len(answers) > 1 else answers[0])


def buys(count: int) -> list[Submit]:
    return [Submit(side="buy", quantity="1", price=str(number + 1)) for number in range(count)]


async def buy(exchange: Exchange, **fields: Any) -> Receipt:
    return await exchange.submit(MARKET, side="buy", quantity=1, price=1, **fields)


# --- Numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("100.50", "100.50"),
        ("nonsense", "nonsense"),
        (7, "7"),
        (Decimal("0.1"), "0.1"),
        (Decimal("100.50"), "100.5"),
        (Decimal("100"), "100"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-8"), "0.00000001"),
        (Decimal("12345678901234567890123456789.5"), "12345678901234567890123456789.5"),
    ],
)
def test_exact_number_is_written_exactly(number: Any, text: str) -> None:
    assert decimal_text("price", number) == text


@pytest.mark.parametrize("number", [0.1, 1.0, True, None, Fraction(1, 2), b"1"])
def test_inexact_number_is_refused(number: Any) -> None:
    """A float is not the number that was written (G10)."""
    with pytest.raises(TypeError, match="expected price as a str, a Decimal or an int"):
        decimal_text("price", number)


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_number_without_a_value_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        decimal_text("price", Decimal(number))


# --- Ids and retries ----------------------------------------------------------------------------


async def test_ids_start_above_what_the_market_knows_and_only_grow() -> None:
    venue = Venue()
    future = 10**13
    venue.highest, venue.forgotten = (future, 5), (future, 9)
    exchange = venue.peer()

    receipts = [await buy(exchange) for _ in range(3)]

    assert [receipt.order_id for receipt in receipts] == [
        f"order_alice_{future}_{count}" for count in (10, 11, 12)
    ]
    assert len(venue.asked) == 1


async def test_ids_are_above_those_of_every_market_used() -> None:
    venue = Venue()
    exchange = venue.peer()
    first = await buy(exchange)
    venue.highest = (10**13, 1)
    second = await exchange.submit("ETH-USD", side="buy", quantity=1, price=1)

    assert pair_of(str(first.order_id)) < pair_of(str(second.order_id))
    assert str(second.order_id).startswith(f"order_alice_{10**13}_")


async def test_own_id_is_kept_and_the_next_ones_are_above_it() -> None:
    venue = Venue()
    exchange = venue.peer()
    far = f"order_alice_{10**13}_7"

    receipt = await buy(exchange, order_id=far)
    following = await buy(exchange)

    assert receipt.order_id == far
    assert pair_of(str(following.order_id)) > pair_of(far)


@pytest.mark.parametrize("seed", range(5))
async def test_bad_exchange_executes_every_order_once(seed: int) -> None:
    """Whatever is lost, late, double or refused (G4)."""
    venue = Venue(faults_percent=40, seed=seed)
    exchange = venue.peer()

    async with asyncio.TaskGroup() as tasks:
        singles = [tasks.create_task(buy(exchange)) for _ in range(50)]
        batch = tasks.create_task(exchange.batch(MARKET, buys(50)))

    receipts = [task.result() for task in singles] + batch.result()
    assert {receipt.status for receipt in receipts} <= {"new", "partially_filled", "filled"}
    told = sorted(str(receipt.order_id) for receipt in receipts)
    assert told == sorted(venue.accepted())
    assert len(set(told)) == 100


async def test_copies_are_the_same_command_with_the_same_id() -> None:
    venue = Venue()
    venue.instead = [nobody, silence, busy]

    receipt = await buy(venue.peer())

    assert receipt.status == "new"
    assert len(venue.copies) == 4
    assert all(copy == venue.copies[0] for copy in venue.copies)


async def test_refusal_is_a_receipt() -> None:
    receipt = await Venue().peer().cancel(MARKET, order(99))

    assert (receipt.status, receipt.reason) == ("rejected", "unknown_order")


async def test_market_that_is_not_there_refuses_every_command() -> None:
    venue = Venue()
    venue.queries.instead = []

    async def unknown(subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        return encode(refused(Reason.unknown_market))

    venue.request = unknown  # type: ignore[method-assign]

    receipts = await venue.peer().batch(MARKET, buys(3))

    assert [receipt.reason for receipt in receipts] == ["unknown_market"] * 3


async def test_server_that_does_not_know_a_market_any_more_is_asked_again() -> None:
    venue = Venue()
    exchange = venue.peer()
    await exchange.status(MARKET)
    whole = venue.request
    answers = [encode(refused(Reason.unknown_market))] * 3

    async def just_come(subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        return answers.pop() if answers else await whole(subject, payload, timeout_s=timeout_s)

    venue.request = just_come  # type: ignore[method-assign]

    assert isinstance(await exchange.status(MARKET), StatusReply)


# --- Given up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [nobody, busy])
async def test_nothing_happened_when_every_copy_was_refused_or_reached_nobody(
    answer: Answer,
) -> None:
    """Only then is it said (G7)."""
    venue = Venue()
    venue.instead = [answer] * 1_000

    with pytest.raises(Unavailable, match="a leader of BTC-USD"):
        await buy(venue.peer(), deadline_s=0.3)

    assert venue.accepted() == []


async def test_one_silent_copy_leaves_the_outcome_unknown() -> None:
    """However many were refused after it (G7)."""
    venue = Venue()
    venue.instead = [silence, *[nobody] * 1_000]

    with pytest.raises(OutcomeUnknown) as caught:
        await buy(venue.peer(), deadline_s=0.3)

    error = caught.value
    assert error.market == MARKET
    assert error.unknown_ids == [error.own_id]
    assert error.commands == (venue.copies[0][0],)
    assert not error.is_forgotten


@pytest.mark.parametrize("is_executed", [True, False])
async def test_unknown_outcome_is_settled_by_the_same_id(is_executed: bool) -> None:
    venue = Venue()
    exchange = venue.peer()

    def reply_lost(commands: list[Command]) -> Exception:
        if is_executed:
            venue.executes(commands)
        return NoReply("lost")

    venue.instead = [reply_lost, *[nobody] * 1_000]
    with pytest.raises(OutcomeUnknown) as caught:
        await buy(exchange, deadline_s=0.3)
    venue.instead = [busy, nobody]

    (receipt,) = await exchange.settle(caught.value)

    assert receipt.order_id == caught.value.own_id
    assert receipt.duplicate is is_executed
    assert venue.accepted() == [caught.value.own_id]


async def test_settling_that_fails_leaves_the_outcome_unknown() -> None:
    """No copy of the settling was executed; one from before may have been."""
    venue = Venue()
    exchange = venue.peer()
    venue.instead = [silence, *[nobody] * 1_000]
    with pytest.raises(OutcomeUnknown) as caught:
        await buy(exchange, deadline_s=0.3)
    venue.instead = [nobody] * 1_000

    with pytest.raises(OutcomeUnknown) as again:
        await exchange.settle(caught.value, deadline_s=0.3)

    assert again.value.commands == caught.value.commands


async def test_id_forgotten_after_a_silent_copy_says_nothing_of_that_copy() -> None:
    """`stale_id` is about the copy that it answers (G4)."""
    venue = Venue()

    def stale(commands: list[Command]) -> bytes:
        return encode(refused(Reason.stale_id, order_id=own_id(commands[0])))

    venue.instead = [silence, stale]

    with pytest.raises(OutcomeUnknown, match="has forgotten it") as caught:
        await buy(venue.peer())

    assert caught.value.is_forgotten
    venue.instead = [stale]
    assert (await buy(venue.peer())).reason == "stale_id"


@pytest.mark.parametrize("reason", [Reason.batch_too_large, Reason.too_many_peers])
async def test_refusal_that_is_not_remembered_says_nothing_of_a_silent_copy(reason: Reason) -> None:
    """What a peer may send was lowered after the first copy was executed (G4)."""
    venue = Venue()

    def executes_silently(commands: list[Command]) -> Exception:
        venue.executes(commands)
        return silence(commands)

    venue.instead = [executes_silently, lambda commands: encode(refused(reason))]

    with pytest.raises(OutcomeUnknown) as caught:
        await venue.peer().batch(MARKET, buys(3))

    assert not caught.value.is_forgotten
    assert caught.value.receipts == (None, None, None)
    assert len(venue.accepted()) == 3


# --- Batches ------------------------------------------------------------------------------------


async def test_batch_beyond_a_request_is_split_in_order() -> None:
    venue = Venue()
    count = 2 * BATCH_COUNT_MAX + 5

    receipts = await venue.peer().batch(MARKET, buys(count))

    assert [len(copy) for copy in venue.copies] == [BATCH_COUNT_MAX, BATCH_COUNT_MAX, 5]
    assert [receipt.order_id for receipt in receipts] == venue.accepted()
    assert len(set(venue.accepted())) == count


async def test_elements_answered_retry_are_sent_again_by_their_ids() -> None:
    venue = Venue()

    def takes_two(commands: list[Command]) -> bytes:
        executed = venue.executes(commands[:2])
        refusals = [retry(RetryReason.busy, order_id=own_id(each)) for each in commands[2:]]
        return executed[:-1] + b"," + encode(refusals)[1:]

    venue.instead = [takes_two, takes_two]

    receipts = await venue.peer().batch(MARKET, buys(5))

    assert [len(copy) for copy in venue.copies] == [5, 3, 1]
    assert venue.copies[1] == venue.copies[0][2:]
    assert [receipt.order_id for receipt in receipts] == [own_id(c) for c in venue.copies[0]]
    assert {receipt.status for receipt in receipts} == {"new"}


async def test_what_of_a_batch_was_not_executed_by_the_deadline_is_told_retry() -> None:
    venue = Venue()

    def takes_one(commands: list[Command]) -> bytes:
        executed = venue.executes(commands[:1])
        refusals = [retry(RetryReason.busy, order_id=own_id(each)) for each in commands[1:]]
        return executed[:-1] + b"," + encode(refusals)[1:]

    venue.instead = [takes_one, *[nobody] * 1_000]

    receipts = await venue.peer().batch(MARKET, buys(BATCH_COUNT_MAX + 3), deadline_s=0.3)

    assert [receipt.status for receipt in receipts] == ["new"] + ["retry"] * (BATCH_COUNT_MAX + 2)
    assert len(venue.accepted()) == 1


async def test_unknown_batch_holds_the_receipts_of_the_others() -> None:
    venue = Venue()
    exchange = venue.peer()

    def takes_one(commands: list[Command]) -> bytes:
        executed = venue.executes(commands[:1])
        refusals = [retry(RetryReason.busy, order_id=own_id(each)) for each in commands[1:]]
        return executed[:-1] + b"," + encode(refusals)[1:]

    venue.instead = [takes_one, silence, *[nobody] * 1_000]
    with pytest.raises(OutcomeUnknown) as caught:
        await exchange.batch(MARKET, buys(3), deadline_s=0.3)
    venue.instead = []

    receipts = await exchange.settle(caught.value)

    first, *others = caught.value.receipts
    assert first == receipts[0]
    assert others == [None, None]
    assert [receipt.order_id for receipt in receipts] == venue.accepted()


async def test_batch_of_nothing_is_nothing() -> None:
    venue = Venue()

    assert await venue.peer().batch(MARKET, []) == []
    assert venue.copies == []


async def test_nobody_runs_further_ahead_than_a_market_remembers() -> None:
    """The oldest unanswered and the newest sent id span at most 4,096 ids (G4)."""
    venue = Venue()
    exchange = venue.peer()
    is_held, hold = asyncio.Event(), asyncio.Event()
    whole = venue.request

    async def first_is_held(subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if not is_held.is_set() and subject.startswith("dex.orders"):
            is_held.set()
            await hold.wait()
        return await whole(subject, payload, timeout_s=timeout_s)

    venue.request = first_is_held  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(buy(exchange))
        await is_held.wait()
        rest = tasks.create_task(exchange.batch(MARKET, buys(5_000)))
        late = tasks.create_task(buy(exchange))
        # Many turns of the loop, in which all could be sent.
        for _ in range(10_000):
            await asyncio.sleep(0)
        assert not rest.done()
        assert late.done()
        assert 4_000 < len(venue.accepted()) < RETRY_WINDOW_COUNT
        hold.set()

    assert len(set(venue.accepted())) == 5_002


async def test_command_given_up_makes_room() -> None:
    venue = Venue()
    exchange = venue.peer()
    for _ in range(3):
        venue.instead = [silence, *[nobody] * 1_000]
        with pytest.raises(OutcomeUnknown):
            await exchange.batch(MARKET, buys(BATCH_COUNT_MAX), deadline_s=0.3)
    venue.instead = []

    receipts = await exchange.batch(MARKET, buys(4 * BATCH_COUNT_MAX))

    assert len(receipts) == 4 * BATCH_COUNT_MAX


# --- What is no answer --------------------------------------------------------------------------


def of_another(commands: list[Command]) -> bytes:
    return encode(Receipt("new", order_id=order(99)))


def without_id(commands: list[Command]) -> bytes:
    return encode(Receipt("new"))


def two(commands: list[Command]) -> bytes:
    return encode([Receipt("new"), Receipt("new")])


def noise(commands: list[Command]) -> bytes:
    return b"\xff\x00"


@pytest.mark.parametrize("answer", [of_another, without_id, two, noise])
async def test_reply_that_is_no_receipt_of_the_command_is_a_mismatch(answer: Answer) -> None:
    venue = Venue()
    venue.instead = [answer]

    with pytest.raises(ProtocolMismatch):
        await buy(venue.peer())


async def test_refusal_that_could_not_read_the_id_is_taken() -> None:
    venue = Venue()
    venue.instead = [lambda commands: encode(refused(Reason.malformed))]

    assert (await buy(venue.peer())).reason == "malformed"


# --- Many ---------------------------------------------------------------------------------------


def canceled(count: int, *, more: bool) -> Answer:
    def answer(commands: list[Command]) -> bytes:
        (command,) = commands
        assert isinstance(command, CancelAll)
        return encode(
            Receipt(
                "canceled",
                command_id=command.command_id,
                canceled=[order(number) for number in range(count)],
                more=more,
                duplicate=False,
                sequence=7,
            )
        )

    return answer


async def test_cancel_all_goes_on_with_new_ids_when_told_to() -> None:
    venue = Venue()
    venue.instead = [canceled(3, more=True), canceled(2, more=True), canceled(1, more=False)]

    receipt = await venue.peer().cancel_all(MARKET, all_of_them=True)

    assert len({own_id(copy[0]) for copy in venue.copies}) == 3
    assert isinstance(receipt.canceled, list)
    assert (len(receipt.canceled), receipt.more, receipt.duplicate) == (6, UNSET, False)


async def test_cancel_all_by_itself_is_one_command() -> None:
    venue = Venue()
    venue.instead = [canceled(3, more=True)]

    receipt = await venue.peer().cancel_all(MARKET)

    assert receipt.more is True
    assert len(venue.copies) == 1


async def test_cancel_all_that_ends_early_says_that_there_are_more() -> None:
    venue = Venue()
    venue.instead = [canceled(3, more=True), *[nobody] * 1_000]

    receipt = await venue.peer().cancel_all(MARKET, all_of_them=True, deadline_s=0.3)

    assert receipt.more is True
    assert isinstance(receipt.canceled, list)
    assert len(receipt.canceled) == 3


async def test_cancel_all_whose_answer_was_asked_for_again_goes_on_and_counts() -> None:
    venue = Venue()

    def duplicate(commands: list[Command]) -> bytes:
        return encode(
            Receipt("canceled", command_id=own_id(commands[0]), count=1_000, duplicate=True)
        )

    venue.instead = [silence, duplicate, canceled(5, more=False)]

    receipt = await venue.peer().cancel_all(MARKET, all_of_them=True)

    assert (receipt.count, receipt.canceled, receipt.duplicate) == (1_005, UNSET, True)


@pytest.mark.parametrize("command", [Cancel(order(1)), CancelAll()])
async def test_cancels_have_ids_of_commands(command: Command) -> None:
    venue = Venue()
    await venue.peer().batch(MARKET, [command])

    (sent,) = venue.copies[0]
    assert not isinstance(sent, Submit)
    assert str(sent.command_id).startswith("command_alice_")
    events = [event for payload in venue.exchange.log for event in decode_commit(payload).events]
    assert not any(isinstance(event, Canceled) for event in events)
    assert sum(isinstance(event, CanceledAll) for event in events) == (command == CancelAll())


def an_order(number: int) -> OrderReceipt:
    return OrderReceipt("new", order_id=order(number), side="buy", type="limit", quantity="1")


async def test_orders_are_asked_for_page_by_page() -> None:
    venue = Venue()
    asked: list[bytes] = []
    pages = [
        OrdersReply(sequence=1, orders=[an_order(1), an_order(2)], more=True),
        refused(Reason.unknown_order),
        OrdersReply(sequence=2, orders=[an_order(2), an_order(3)], more=True),
        OrdersReply(sequence=3, orders=[an_order(4)], more=False),
    ]

    async def answered(subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        asked.append(payload)
        return encode(pages.pop(0))

    venue.request = answered  # type: ignore[method-assign]

    found = await venue.peer().orders(MARKET, page_count=2, min_sequence=1)

    assert isinstance(found, OrdersReply)
    assert [each.order_id for each in found.orders] == [order(2), order(3), order(4)]
    assert (found.sequence, found.more) == (3, False)
    assert [b"after" in payload for payload in asked] == [False, True, False, True]
    assert f"order_alice_{TIMESTAMP}_3".encode() in asked[-1]


async def test_query_asks_for_no_less_than_any_call_before_was_told() -> None:
    """Any server may answer, and a follower may be behind: a peer reads what it wrote (G14)."""
    venue = Venue()
    asked: list[int] = []

    async def answered(subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if ".query." not in subject or ".status." in subject:
            return await Venue.request(venue, subject, payload, timeout_s=timeout_s)
        asked.append(msgspec.json.decode(payload).get("min_sequence", 0))
        return encode(TradesReply(sequence=40, trades=[]))

    peer = venue.peer()
    venue.request = answered  # type: ignore[method-assign]

    receipt = await buy(peer)
    await peer.trades(MARKET)
    await peer.trades(MARKET, min_sequence=7)
    await peer.trades(MARKET, min_sequence=70)

    assert asked == [receipt.sequence, 40, 70]


# --- The door -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("servers", "peer"), [("nats://x", "no body"), ("", "alice"), ([], "a")])
async def test_connecting_as_nobody_or_to_nowhere_is_refused(servers: Any, peer: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        async with connect(servers, peer=peer):
            pass


async def test_name_that_is_no_market_is_refused() -> None:
    with pytest.raises(ValueError, match="expected market"):
        await Venue().peer().submit("BTC.USD", side="buy", quantity=1, price=1)


def test_what_the_package_exports_is_there() -> None:
    assert sorted(dex_client.__all__) == dex_client.__all__
    assert all(hasattr(dex_client, name) for name in dex_client.__all__)


# --- The connection -----------------------------------------------------------------------------


class Requester:
    """Fails or answers as told."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.timeouts: list[float] = []

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        self.timeouts.append(timeout_s)
        if self.failure is not None:
            raise self.failure
        return b"{}"


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count the nodes that are left, with a patience of no time at all."""
    nodes: list[str] = []

    async def reconnect(client: object) -> bool:
        nodes.append("left")
        return True

    monkeypatch.setattr(linking.connection, "reconnect", reconnect)
    monkeypatch.setattr(linking, "SILENCE_S", 0.0)
    return nodes


def a_link(requester: Requester) -> Link:
    link = Link()
    link._silence_s = 0.0
    link._client = object()  # type: ignore[assignment]
    link._requester = requester  # type: ignore[assignment]
    return link


@pytest.mark.parametrize("failure", [NoReply("silence"), NoResponder("503")])
async def test_node_that_brings_no_answers_is_left(left: list[str], failure: Exception) -> None:
    requester = Requester()
    requester.failure = failure
    link = a_link(requester)

    with pytest.raises(type(failure)):
        await link.request("a", b"", timeout_s=1)

    assert left == ["left"]


async def test_node_that_answers_is_kept(left: list[str]) -> None:
    link = a_link(Requester())

    assert await link.request("a", b"", timeout_s=1) == b"{}"
    assert left == []


async def test_node_is_not_left_again_before_twice_the_time(
    left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requester = Requester()
    requester.failure = NoReply("silence")
    link = a_link(requester)
    link._silence_s = 0.01
    deadline = asyncio.get_running_loop().time() + 30
    while not left and asyncio.get_running_loop().time() < deadline:
        with pytest.raises(NoReply):
            await link.request("a", b"", timeout_s=1)
        await asyncio.sleep(0.001)

    assert left == ["left"]
    assert link._silence_s == 0.02
    requester.failure = None
    await link.request("a", b"", timeout_s=1)
    assert link._silence_s == linking.SILENCE_S


async def test_wait_is_cut_short_to_leave_in_time() -> None:
    requester = Requester()
    link = a_link(requester)
    link._silence_s = 0.5

    await link.request("a", b"", timeout_s=2)
    await link.request("a", b"", timeout_s=0.1)

    assert requester.timeouts[0] <= 0.5
    assert requester.timeouts[1] == 0.1


async def test_closed_link_reaches_nobody() -> None:
    with pytest.raises(NoResponder):
        await Link().request("a", b"", timeout_s=1)
