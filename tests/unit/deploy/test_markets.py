"""What the markets of the local exchange are opened with."""

import asyncio
import contextlib

import pytest

from deploy import markets, state
from dex_protocol.specification import what_is_wrong
from dex_runtime import connection
from dex_runtime.connection import ConnectionOptions, Credentials


@pytest.mark.parametrize("market", [*state.MARKETS, "SOL-USD"])
def test_specification_of_any_market_is_possible_and_has_its_name(market: str) -> None:
    specification = markets.specification(market)

    assert specification.market == market
    assert what_is_wrong(specification) is None


def test_impossible_name_is_refused() -> None:
    with pytest.raises(ValueError, match="expected market as 1 to 24 letters"):
        markets.specification("BTC/USD")


async def test_markets_without_a_node_have_no_leader() -> None:
    (view,) = await markets.look([], Credentials(), ["BTC-USD"])

    assert view.leader is None
    assert view.state == "no NATS node runs"


async def test_cancellation_that_the_connection_forgets_ends_the_waiting_nonetheless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_closed = False

    async def connect(_options: ConnectionOptions) -> object:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return object()

    async def close(_client: object) -> None:
        nonlocal is_closed
        is_closed = True

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(connection, "close", close)
    looking = asyncio.create_task(
        markets.look(["nats://127.0.0.1:4222"], Credentials(), ["BTC-USD"])
    )
    await asyncio.sleep(0.01)

    looking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await looking
    assert is_closed
