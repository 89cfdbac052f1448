"""Peers of the simulation: they trade by the client's own rules, and write down all of it.

Theory of operation. What becomes of a request is decided by `dex_client.settling`, as in the
client; only sending, waiting and pausing are done here, in virtual time. Each copy is written down
with what came back for it, even when its peer had given it up by then. Sometimes a peer sends what
no good client would: an old command again, another command under an old id, and somebody on the
wire makes a copy of his own that arrives seconds later.

Knows nothing of servers, nor of what is done to them.
"""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import msgspec
from msgspec import UNSET, structs

from dex_client.ids import Ids, Window
from dex_client.retry import Policy
from dex_client.settling import Settling, Unanswered
from dex_protocol.codec import encode
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Submit, own_id
from dex_protocol.ids import Pair
from dex_protocol.queries import BookQuery, OrderQuery, OrdersQuery, Query, StatusQuery
from dex_protocol.receipts import Receipt
from tests.builders import NOW
from tests.checker.history import NO_RESPONDER, Asked, Copy, History, Sent, answers_in
from tests.simulation.cluster import LATE_US_MAX, MS, Cluster, S

PRICES: Final = ("99.8", "99.9", "100", "100.1", "100.2")
SELF_TRADES: Final = ("cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow")

PACE_US: Final = 120 * MS
"""How often a peer begins a request, on the average."""

UNDER_WAY_MAX: Final = 4
"""Requests of a peer that wait for their outcomes at a time."""


class Peer:
    """One peer, in all markets.

    Attributes:
        is_trading: Whether it begins anything new.
        is_closed: Whether it can send nothing more.
        under_way: How many of its requests wait for their outcomes.
        replayed: Commands of which copies were sent that its library did not know of.
    """

    def __init__(
        self, cluster: Cluster, name: str, history: History, *, random: Random, pace_us: int
    ) -> None:
        """Make one that begins a request about every pace_us, once it is told to `trade`."""
        self.name = name
        self.is_trading = False
        self.is_closed = False
        self.under_way = 0
        self.replayed: list[Sent] = []
        self._cluster = cluster
        self._history = history
        self._random = random
        self._pace_us = pace_us
        self._ids = Ids(name, above=Pair(0))
        self._windows = {market: Window() for market in cluster.markets}
        # Of each market: what was sent, newest last; open orders as last heard of, with version.
        self._sent: dict[str, list[tuple[Command, Sent]]] = {each: [] for each in cluster.markets}
        self._open: dict[str, dict[str, int]] = {market: {} for market in cluster.markets}
        self._newest: dict[str, int] = dict.fromkeys(cluster.markets, 0)

    # --- Trading ----------------------------------------------------------------------------

    def trade(self) -> None:
        """Begin something now and then, until told otherwise."""
        self.is_trading = True
        self._act()

    def close(self) -> None:
        """Have its connection closed for good."""
        self.is_closed = True

    def _act(self) -> None:
        if not self.is_trading or self.is_closed:
            return
        market = self._random.choice(self._cluster.markets)
        dice = self._random.randrange(100)
        if dice < 10:
            self._ask(market)
        elif dice < 17 and self._sent[market]:
            self._misbehave(market)
        elif self.under_way < UNDER_WAY_MAX:
            self._begin(market)
        self._cluster.later(self._act, self._random.randint(1, 2 * self._pace_us))

    def _begin(self, market: str) -> None:
        count = self._random.choice((1, 1, 1, 1, 2, 3, 6))
        window = self._windows[market]
        if not window.has_room(count):
            return
        index = window.sent(count)
        commands = [self._command(market) for _ in range(count)]
        sent = [Sent(market, self.name, plain(command)) for command in commands]
        self._history.sent += sent
        self._sent[market] += zip(commands, sent, strict=True)
        self._settle(
            market,
            commands,
            sent,
            is_doubtful=False,
            done=lambda: window.answered(index, count),
        )

    def _settle(
        self,
        market: str,
        commands: Sequence[Command],
        sent: Sequence[Sent],
        *,
        is_doubtful: bool,
        done: Callable[[], None],
    ) -> None:
        self.under_way += 1
        policy = Policy(deadline_s=self._random.choice((1.5, 4.0, 12.0, 30.0)))
        settling = Settling(
            commands,
            policy,
            self._random,
            as_batch=len(commands) > 1,
            is_doubtful=is_doubtful,
            now=self._cluster.now / S,
        )

        def finish() -> None:
            self.under_way -= 1
            unknown = []
            for command, each, receipt in zip(commands, sent, settling.receipts, strict=True):
                each.believed = "unknown" if receipt is None else "receipt"
                if receipt is None:
                    unknown.append((command, each))
                elif receipt.status == "retry":
                    each.believed = "unavailable"
                else:
                    self.learn(market, receipt)
            if unknown and not settling.is_forgotten and self._random.random() < 0.6:
                # As `Sender.settle` does, when its caller asks for it.
                self._settle(
                    market,
                    [command for command, _ in unknown],
                    [each for _, each in unknown],
                    is_doubtful=True,
                    done=done,
                )
            else:
                done()

        by_id = {own_id(command): each for command, each in zip(commands, sent, strict=True)}
        Request(self, market, settling, by_id, finish).send()

    def learn(self, market: str, receipt: Receipt) -> None:
        """Take note of what is open."""
        if receipt.sequence is not UNSET:
            self._newest[market] = max(self._newest[market], receipt.sequence)
        order_id = receipt.order_id
        if isinstance(order_id, str) and receipt.reason not in ("stale_id", "id_reused"):
            self._open[market].pop(order_id, None)
            if receipt.remaining_quantity not in ("0", UNSET) and receipt.version is not UNSET:
                self._open[market][order_id] = receipt.version
        if receipt.canceled is not UNSET:
            for each in receipt.canceled:
                self._open[market].pop(each, None)

    # --- What it sends ----------------------------------------------------------------------

    def _command(self, market: str) -> Command:
        now_ms = (NOW + self._cluster.now) // 1_000
        dice = self._random.randrange(100)
        if dice < 66:
            submit = self._submit()
            submit.order_id = self._ids.next("order", now_ms)
            return submit
        command: Cancel | Amend | CancelAll
        if dice < 80:
            command = Cancel(self._target(market))
        elif dice < 97:
            command = Amend(self._target(market))
            if self._random.random() < 0.7:
                command.quantity = self._quantity()
            if command.quantity is UNSET or self._random.random() < 0.4:
                command.price = self._random.choice(PRICES)
        else:
            command = CancelAll()
            if self._random.random() < 0.5:
                command.side = self._random.choice(("buy", "sell"))
        if not isinstance(command, CancelAll) and self._random.random() < 0.15:
            command.if_version = self._open[market].get(command.order_id, 1)
        command.command_id = self._ids.next("command", now_ms)
        return command

    def _submit(self) -> Submit:
        random = self._random
        submit = Submit(side=random.choice(("buy", "sell")), quantity=self._quantity())
        if random.random() < 0.1:
            submit.type = "market"
        else:
            submit.price = random.choice(PRICES)
            submit.time_in_force = random.choice(("gtc", "gtc", "gtc", "gtc", "gtd", "ioc", "fok"))
            if submit.time_in_force == "gtd":
                submit.expires_at = NOW + self._cluster.now + random.randrange(8 * S)
            if submit.time_in_force in ("gtc", "gtd") and random.random() < 0.1:
                submit.post_only = True
        submit.self_trade = random.choice(SELF_TRADES)
        return submit

    def _quantity(self) -> str:
        return str(self._random.randint(1, 9))

    def _target(self, market: str) -> str:
        targets = list(self._open[market])
        if targets and self._random.random() < 0.9:
            return self._random.choice(targets)
        submits = [each.order_id for each, _ in self._sent[market][-20:] if type(each) is Submit]
        if submits:
            return str(self._random.choice(submits))
        return f"order_{self.name}_1_1"

    # --- What else it does ------------------------------------------------------------------

    def _ask(self, market: str) -> None:
        query: Query = StatusQuery()
        what = self._random.choice(("status", "book", "order", "orders"))
        if what == "book":
            query = BookQuery(depth=self._random.choice((1, 3, 20)))
        elif what == "order":
            query = OrderQuery(order_id=self._target(market))
        elif what == "orders":
            query = OrdersQuery()
        if self._random.random() < 0.4:
            query.min_sequence = self._newest[market]
        sent = self._cluster.now / S

        def note(reply: bytes | None) -> None:
            if reply is not None:
                ended = self._cluster.now / S
                self._history.asked.append(
                    Asked(market, self.name, what, plain(query), sent, ended, plain(reply))
                )

        self._cluster.query(market, self.name, query, note)

    def _misbehave(self, market: str) -> None:
        command, sent = self._random.choice(self._sent[market][-60:])
        if self._random.random() < 0.3:
            command = self._another(market, command)
            sent = Sent(market, self.name, plain(command))
            self._history.sent.append(sent)
            self.send_once(market, command, sent)
        else:
            delay = self._random.choice((0, self._random.randrange(LATE_US_MAX)))
            self._cluster.later(lambda: self.send_once(market, command, sent), delay)

    def _another(self, market: str, command: Command) -> Command:
        if type(command) is Submit:
            return structs.replace(command, quantity=self._quantity())
        if type(command) is CancelAll:
            return structs.replace(command, side="sell" if command.side == "buy" else "buy")
        return structs.replace(command, order_id=self._target(market))  # type: ignore[type-var]

    def send_once(self, market: str, command: Command, sent: Sent) -> None:
        """Send one copy that nobody waits for, and write down what comes back."""
        self.send_copy(market, encode(command), [sent])

    def send_copy(self, market: str, payload: bytes, sent: Sequence[Sent]) -> None:
        """Send a copy of a request that its peer's library does not know of."""
        copies = copies_of(sent, self.now_s())
        self.replayed += sent

        def note(reply: bytes | None) -> None:
            note_reply(copies, reply, self.now_s())

        self._cluster.request(market, self.name, payload, note)

    # --- From requests ----------------------------------------------------------------------

    def now_s(self) -> float:
        """Tell the time."""
        return self._cluster.now / S

    def later(self, do: Callable[[], None], delay_s: float) -> None:
        """Have something done."""
        self._cluster.later(do, int(delay_s * S))

    def wire(
        self,
        market: str,
        payload: bytes,
        sent: Sequence[Sent],
        answer: Callable[[bytes | None], None],
    ) -> None:
        """Send a request; somebody on the way may keep a copy, and send it again, even later."""
        self._cluster.request(market, self.name, payload, answer)
        if self._cluster.meets("request doubled"):
            delay = self._random.choice((0, self._random.randrange(LATE_US_MAX)))
            self._cluster.later(lambda: self.send_copy(market, payload, sent), delay)


class Request:
    """One request on its way, copy by copy."""

    def __init__(
        self,
        peer: Peer,
        market: str,
        settling: Settling,
        sent: dict[Any, Sent],
        finish: Callable[[], None],
    ) -> None:
        """Prepare; sent has what is written down of each command, by its id."""
        self._peer = peer
        self._market = market
        self._settling = settling
        self._sent = sent
        self._finish = finish
        self._copies_count = 0

    def send(self) -> None:
        """Send the next copy, and wait for what comes back."""
        peer = self._peer
        commands = self._settling.waiting
        payload, patience_s = self._settling.copy(peer.now_s())
        self._copies_count += 1
        number = self._copies_count
        if peer.is_closed:
            self._answered(number, "closed")
            return
        sent = [self._sent[own_id(command)] for command in commands]
        copies = copies_of(sent, peer.now_s())

        def take(reply: bytes | None) -> None:
            note_reply(copies, reply, peer.now_s())
            self._answered(number, "no_responder" if reply is None else reply)

        peer.later(lambda: self._answered(number, "silence"), patience_s)
        peer.wire(self._market, payload, sent, take)

    def _answered(self, number: int, answer: bytes | Unanswered) -> None:
        if number != self._copies_count:
            # It was given up by then.
            return
        self._copies_count += 1
        pause_s = self._settling.answered(answer, now=self._peer.now_s())
        if pause_s is None:
            self._finish()
        else:
            self._peer.later(self.send, pause_s)


def plain(what: Any) -> Any:
    """Read what was sent, as JSON."""
    return json.loads(what if isinstance(what, bytes) else encode(what))


def copies_of(sent: Sequence[Sent], at: float) -> list[Copy]:
    """Write down that a copy of each command is sent."""
    copies = [Copy(at) for _ in sent]
    for each, copy in zip(sent, copies, strict=True):
        each.copies.append(copy)
    return copies


def note_reply(copies: Sequence[Copy], reply: bytes | None, at: float) -> None:
    """Write down what came back for the copies of a request; None: they reached nobody."""
    said = NO_RESPONDER if reply is None else msgspec.json.decode(reply)
    for copy, answer in zip(copies, answers_in(said, len(copies)), strict=True):
        copy.ended = at
        copy.answer = answer
