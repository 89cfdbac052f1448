"""A market in which alice trades while bob attacks, and what must be so whatever he does.

Whoever is asked at the end is not the attacked connection: the log is read from JetStream as an
operator, commit by commit, and followed with the engine.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from dex_engine import Market
from dex_runtime.messaging import Requester
from tests.integration.programs import PATIENCE_S, Exchange
from tests.integration.wire import command_id, encoded, order_id
from tests.nats_nodes import connected
from tests.security.attacker import Attacker, attacking

Executed = tuple[str, str]
"""What an event says was done, and the own id of the command that did it."""


def submit(number: int, peer: str = "alice", **fields: Any) -> dict[str, Any]:
    """Write a limit order that rests."""
    price = {"side": "buy", "price": "100", "quantity": "1"}
    return {"op": "submit", "order_id": order_id(number, peer)} | price | fields


def cancel(number: int, of: int, peer: str = "alice", owner: str = "") -> dict[str, Any]:
    """Write that an order is to be canceled."""
    named = order_id(of, owner or peer)
    return {"op": "cancel", "command_id": command_id(number, peer), "order_id": named}


class Alice:
    """A peer as the exchange's own client is one: each of her requests has its own answer."""

    def __init__(self, requester: Requester, market: str) -> None:
        """Use `staged`."""
        self._requester = requester
        self._market = market
        self.inbox: Final = requester._inbox
        """Where answers arrive, but for the count at its end; nobody is told."""

    async def send(self, command: Any) -> Any:
        """Send a command."""
        return await self._request(f"dex.orders.{self._market}.alice", command)

    async def ask(self, what: str) -> Any:
        """Send a query."""
        return await self._request(f"dex.query.{self._market}.{what}.alice", b"")

    async def _request(self, subject: str, body: Any) -> Any:
        payload = encoded(body)
        return msgspec.json.decode(
            await self._requester.request(subject, payload, timeout_s=PATIENCE_S)
        )


class Scene:
    """Who is there, and what they may have had executed."""

    def __init__(self, exchange: Exchange, market: str, alice: "Alice", bob: Attacker) -> None:
        """Use `staged`."""
        self.exchange: Final = exchange
        self.market: Final = market
        self.alice: Final = alice
        self.bob: Final = bob
        self.legitimate: list[Executed] = []
        """What must be in the log, in order, and nothing else."""
        self._count = 0
        self._streams: dict[str, Any] = {}

    def orders(self, peer: str) -> str:
        """Name the subject of a peer's orders here."""
        return f"dex.orders.{self.market}.{peer}"

    async def alice_trades(self, count: int = 1) -> None:
        """Have alice place orders; each rests."""
        for _ in range(count):
            self._count += 1
            receipt = await self.alice.send(submit(self._count))
            assert (receipt["status"], receipt["order_id"]) == ("new", order_id(self._count))
            self.legitimate.append(("accepted", order_id(self._count)))

    async def bob_trades(self, number: int, **fields: Any) -> Any:
        """Have bob place an order as he may; it rests. Give his receipt.

        The leader has then taken whatever he sent it before.
        """
        receipt = await self.bob.ask(self.orders("bob"), submit(number, "bob"), **fields)
        assert receipt["status"] == "new", receipt
        self.legitimate.append(("accepted", order_id(number, "bob")))
        return receipt

    async def unharmed(self) -> None:
        """Make sure that just what was legitimate was executed, that each of alice's orders stands
        as she left it, that no stream is other than it was, and that she trades on."""
        await self.alice_trades()
        market = Market(self.market)
        executed: list[Executed] = []
        payloads = await self.exchange.log(self.market)
        for payload in payloads:
            market.apply_commit(payload)
            executed += _executed(msgspec.json.decode(payload)["events"])
        market.check()

        assert executed == self.legitimate, (executed[:99], self.legitimate[:99])
        status = await self.exchange.status(self.market, min_sequence=len(payloads))
        assert (status["sequence"], status["digest"]) == (market.sequence, market.digest)
        open_orders = (await self.alice.ask("orders"))["orders"]
        assert [(order["order_id"], order["status"]) for order in open_orders] == [
            (name, "new") for _, name in self.legitimate if name.startswith("order_alice_")
        ]
        assert await self._look_at_streams() == self._streams

    async def begin(self) -> None:
        """Remember what there is before the attack."""
        await self.alice_trades()
        self._streams = await self._look_at_streams()

    async def _look_at_streams(self) -> dict[str, Any]:
        # What anybody could change of them, but for what they hold: of the log that is read anyway.
        async with connected(self.exchange.nodes, role="operator") as client:
            found = {info.config.name or "": info for info in await client.jsm().streams_info()}
        logs = {name for name in found if name.startswith("DEX-LOG-")}
        log = f"DEX-LOG-{self.market}"
        assert found[log].state.first_seq == 1
        return {
            name: (info.config.subjects, info.config.max_msgs, info.state.consumer_count)
            for name, info in found.items()
            if name not in logs - {log}
        }


OF_COMMANDS: Final = ("accepted", "rejected", "amended", "canceled", "canceled_all", "expired")


def _executed(events: list[dict[str, Any]]) -> list[Executed]:
    return [
        (event["event"], event.get("command_id") or event.get("order_id") or "without an id")
        for event in events
        if event["event"] in OF_COMMANDS
    ]


@asynccontextmanager
async def staged(exchange: Exchange, market: str, *, bob_at: int = 0) -> AsyncIterator[Scene]:
    """Open a market for alice and bob for as long as the block lasts."""
    await exchange.open(market)
    async with (
        connected(exchange.nodes, index=0, peer="alice") as client,
        attacking(exchange.nodes, peer="bob", index=bob_at) as bob,
    ):
        await bob.answers_come()
        scene = Scene(exchange, market, Alice(await Requester.start(client), market), bob)
        await scene.begin()
        yield scene
