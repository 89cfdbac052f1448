"""Any structure and any bytes, to every subject of a real server: it answers, and it lives.

Most of what is drawn is nearly right, so that it gets far; the rest is anything. Afterwards the log
is followed from its beginning, and has to lead to the book that the server tells of.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple, get_args

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dex_protocol.administration import REQUESTS
from dex_protocol.queries import QUERIES
from dex_protocol.reasons import Reason, RetryReason
from dex_protocol.receipts import Status
from tests.integration.wire import Wire, attacked, command_id, encoded, order_id, wired

pytestmark = pytest.mark.asyncio(loop_scope="module")

REASONS: Final = {reason.name for reason in (*Reason, *RetryReason)}
STATUSES: Final = set(get_args(Status))
PEERS: Final = ("alice", "bob", "carol")
TIMES: Final = (0, 1, -1, 1_700_000_000_000_000, 2**62, 2**63 - 1, 2**63, -(2**63), 10**30)


class Venues(NamedTuple):
    """A market for orders, and one for operators."""

    trading: Wire
    administered: Wire


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def venues(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Venues]:
    """Run an exchange, and verify in the end what became of it."""
    names = [f"FUZZ-{secrets.token_hex(4)}" for _ in range(2)]
    directory = tmp_path_factory.mktemp("fuzz")
    async with (
        attacked(directory, "--snapshot-commits", "100") as target,
        wired(target, names[0]) as trading,
        wired(target, names[1]) as administered,
    ):
        await trading.open(price_band="0.5", max_open_orders=50, max_peers=4)
        await administered.open()
        yield Venues(trading, administered)

        for wire in (trading, administered):
            await wire.followed()


# --- What is sent -------------------------------------------------------------------------------

numbers = st.integers(1, 40)
order_ids = st.one_of(
    st.builds(order_id, numbers, st.sampled_from(PEERS)),
    st.builds("order_{}_0_{}".format, st.sampled_from(PEERS), numbers),
)
command_ids = st.builds(command_id, st.integers(41, 90), st.sampled_from(PEERS))
prices = st.sampled_from(["100", "100.5", "99", "101", "99.99", "0.01", "0", "100.001", "9" * 18])
quantities = st.sampled_from(["1", "0.001", "2.5", "10", "0", "0.0001", "9223372036854775.807"])
versions = st.integers(-1, 4) | st.sampled_from(TIMES)
sides = st.sampled_from(["buy", "sell"])

anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
        st.sampled_from(TIMES),
        prices,
        order_ids,
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=10,
)

commands = st.one_of(
    st.fixed_dictionaries(
        {"op": st.just("submit"), "side": sides, "quantity": quantities, "price": prices},
        optional={
            "order_id": order_ids,
            "type": st.sampled_from(["limit", "market"]),
            "time_in_force": st.sampled_from(["gtc", "ioc", "fok", "gtd"]),
            "expires_at": st.sampled_from(TIMES),
            "post_only": st.booleans(),
            "self_trade": st.sampled_from(
                ["cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow"]
            ),
        },
    ),
    st.fixed_dictionaries(
        {"op": st.just("submit"), "side": sides, "quantity": quantities, "type": st.just("market")},
        optional={"order_id": order_ids, "time_in_force": st.sampled_from(["ioc", "fok"])},
    ),
    st.fixed_dictionaries(
        {"op": st.just("cancel"), "order_id": order_ids},
        optional={"command_id": command_ids, "if_version": versions},
    ),
    st.fixed_dictionaries(
        {"op": st.just("amend"), "order_id": order_ids},
        optional={
            "command_id": command_ids,
            "price": prices,
            "quantity": quantities,
            "if_version": versions,
        },
    ),
    st.fixed_dictionaries(
        {"op": st.just("cancel_all")}, optional={"command_id": command_ids, "side": sides}
    ),
)
queries = st.fixed_dictionaries(
    {},
    optional={
        # Beyond the newest commit each would wait for a second.
        "min_sequence": st.integers(-1, 2),
        "depth": st.integers(0, 1_001),
        "orders": st.booleans(),
        "order_id": order_ids,
        "after": order_ids,
        "limit": st.integers(0, 1_001),
        "snapshot_sequence": st.integers(-1, 1_000),
        "part": st.integers(-1, 2),
        "from_sequence": st.integers(-1, 1_000) | st.sampled_from(TIMES),
    },
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "min_quantity": quantities,
        "max_quantity": quantities,
        "max_price": prices,
        "min_notional": quantities,
        "price_band": prices,
        "max_open_orders": versions,
        "max_peers": versions,
    },
)
openings = st.builds(
    lambda name, fields, lot: {
        "specification": {"market": name, "tick_size": "0.01", "lot_size": lot} | fields
    },
    st.sampled_from([f"FUZZ-{number}" for number in range(4)]) | st.text(max_size=30),
    changes,
    quantities,
)


@st.composite
def faulty(draw: st.DrawFn, bodies: st.SearchStrategy[dict[str, Any]]) -> Any:
    """Take a body, and leave out, change or add something."""
    body = dict(draw(bodies))
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from([*body, "colour"]))
        if draw(st.booleans()):
            body[name] = draw(anything)
        else:
            body.pop(name, None)
    return body


@st.composite
def damaged(draw: st.DrawFn, bodies: st.SearchStrategy[Any]) -> bytes:
    """Take a body's bytes, and cut out, change or put in some."""
    payload = bytearray(encoded(draw(bodies)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(payload)))
        payload[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(payload)


def payloads(bodies: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    """Send mostly what is nearly right."""
    some = bodies | faulty(bodies)
    return st.one_of(
        some.map(encoded),
        damaged(some),
        st.lists(some, max_size=6).map(encoded),
        damaged(st.lists(some, max_size=3)),
        anything.map(encoded),
        st.binary(max_size=200),
    )


peers = st.sampled_from(PEERS) | st.sampled_from(["dave", "erin", "a:b", "p" * 33])
requests = st.one_of(
    st.tuples(st.just("orders"), st.just(""), peers, payloads(commands)),
    st.tuples(st.just("query"), st.sampled_from([*QUERIES, "nothing"]), peers, payloads(queries)),
    st.tuples(
        st.just("admin"),
        st.sampled_from([*REQUESTS, "nothing"]),
        st.just(""),
        payloads(changes | openings | st.just({})),
    ),
)


async def answered(venues: Venues, kind: str, what: str, peer: str, payload: bytes) -> None:
    match kind:
        case "orders":
            answer = await venues.trading.send(payload, peer=peer)
        case "query":
            answer = await venues.trading.ask(what, payload, peer=peer)
        case _:
            market = venues.administered.market
            if what == "open":
                market = "FUZZ-1"
            answer = await venues.administered.administer(what, payload, market=market)
    for each in answer if isinstance(answer, list) else [answer]:
        assert "sequence" in each or each["status"] in STATUSES, each
        assert each.get("status") not in ("rejected", "retry") or each["reason"] in REASONS, each


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(requests, min_size=1, max_size=12))
async def test_whatever_is_sent_is_answered(
    venues: Venues, sent: list[tuple[str, str, str, bytes]]
) -> None:
    """Together, so that bad and good share commits."""
    await asyncio.gather(*(answered(venues, *each) for each in sent))

    status = await venues.trading.ask("status")
    assert status["state"] == "trading"
