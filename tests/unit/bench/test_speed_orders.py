"""What the benches on the wire send."""

import msgspec
import pytest

from bench.speed.orders import CYCLE_COUNT, DEPTH_COUNT, Writer
from deploy.keys import LOAD_PEERS
from deploy.markets import specification
from dex_engine import Market
from dex_protocol.codec import decode_request
from dex_protocol.commands import Submit
from dex_protocol.events import Trade

PEER = LOAD_PEERS[0]
NOW = 1_763_800_000_000_000


@pytest.fixture
def market() -> Market:
    made = Market("BTC-USD")
    made.open(specification("BTC-USD"), log_id="log", time=NOW)
    made.lead(server="server-1", term=1, protocol=1, rules=1, time=NOW)
    return made


def commands(payload: bytes) -> list[Submit]:
    elements, _ = decode_request(payload, PEER)
    for element in elements:
        assert isinstance(element, Submit), f"expected an order, found {element}"
    return [element for element in elements if isinstance(element, Submit)]


def trades_of(market: Market, payload: bytes) -> int:
    """Execute a request, of which nothing is refused; give how many trades that makes."""
    trades = 0
    for command in commands(payload):
        executed = market.execute(command, peer=PEER, time=NOW)
        assert executed.receipt.status in ("new", "partially_filled", "filled"), executed.receipt
        trades += sum(type(event) is Trade for event in executed.events)
    return trades


def test_depth_rests_whole(market: Market) -> None:
    assert trades_of(market, Writer(PEER, at_ms=1).depth()) == 0
    assert len(market.orders) == DEPTH_COUNT


def test_cycle_trades_and_leaves_the_book_as_it_was(market: Market) -> None:
    writer = Writer(PEER, at_ms=1)
    trades_of(market, writer.depth())
    digest = market.digest
    for batch in writer.batches(3):
        assert trades_of(market, batch) == 60
        assert market.digest == digest


def test_singles_are_the_batch_one_by_one() -> None:
    singles = Writer(PEER, at_ms=1).singles(CYCLE_COUNT)
    (batch,) = Writer(PEER, at_ms=1).batches(1)
    assert msgspec.json.decode(batch) == [msgspec.json.decode(single) for single in singles]


def test_ids_of_all_that_is_written_grow() -> None:
    writer = Writer(PEER, at_ms=1)
    written = [writer.depth(), *writer.singles(1), *writer.batches(2)]
    ids = [str(each.order_id) for payload in written for each in commands(payload)]
    numbers = [int(each.removeprefix(f"order_{PEER}_1_")) for each in ids]
    assert numbers == list(range(1, len(ids) + 1))
    assert len(ids) == DEPTH_COUNT + 3 * CYCLE_COUNT
