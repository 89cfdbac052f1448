"""A market: its whole replicated state, and how events change it.

Theory of operation. Every change is one of a few *facts* (`enter`, `trade`, `reduce`, `take_off`,
`amend`, `remember`, …). The leader's `execute` (execution.py) decides, from the state, which facts
a command leads to, establishes them, and writes them down as events. Everybody else's `apply`
reads events and establishes the same facts. Neither knows the other, and both end in the same
state, digest included.

Events become commits: `seal` closes one over what was executed; `apply_commit` follows one, and
checks sequence, chain, time, term and digest. The state between two commits belongs to the leader
alone. After any exception of this module a market must not be used any more.

Knows nothing of where commits are stored, of requests, of clocks, nor of which server leads.
"""

from collections import deque
from typing import Any, Final

from dex_protocol import limits
from dex_protocol.administration import What
from dex_protocol.codec import decode_commit, encode_commit, hash_of
from dex_protocol.commands import Command
from dex_protocol.events import (
    HASH_OF_NOTHING,
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    CanceledAll,
    Commit,
    Expired,
    LeaderChanged,
    MarketChanged,
    MarketOpened,
    MarketState,
    Reduced,
    Rejected,
    Trade,
)
from dex_protocol.ids import make_pair, pair_of, parse_id
from dex_protocol.numbers import Scale
from dex_protocol.queries import TimedTrade
from dex_protocol.reasons import Reason
from dex_protocol.receipts import DoneStatus
from dex_protocol.specification import Specification, SpecificationChange
from msgspec import UNSET, DecodeError, Struct
from sortedcontainers import SortedDict

from dex_engine import execution, invariants, snapshot
from dex_engine.book import Book
from dex_engine.digest import MASK, digest_text, key_of
from dex_engine.errors import Diverged, InvariantViolated
from dex_engine.order import Order, content_of_order
from dex_engine.peers import Peer
from dex_engine.rules import Rules
from dex_engine.window import Outcome

SERVER_NAMED_END: Final = make_pair(1, 0)
"""Pairs below this one are of orders that a server named; no outcome is remembered for them."""


class Bounds(Struct, frozen=True):
    """How much one command, one commit and one peer's memory hold; smaller ones are for tests."""

    window_count: int = limits.RETRY_WINDOW_COUNT
    makers_count_max: int = limits.MAKERS_COUNT_MAX
    housekeeping_count_max: int = limits.HOUSEKEEPING_COUNT_MAX
    canceled_count_max: int = limits.CANCELED_COUNT_MAX


class Market:
    """One market's replicated state.

    Attributes:
        orders: Open orders by id, in order of acceptance.
        peers: All peers the market knows, by name.
        sequence: The newest commit's sequence; 0 before the first.
        hash: The hash of the newest commit's bytes.
        digest_value: The book's digest as an integer.
        last_price: The last trade's price in ticks; 0 before the first trade.
        trades: The newest trades, oldest first.
        rules: The specification in integers; set by the first event.
    """

    def __init__(self, name: str, bounds: Bounds = Bounds()) -> None:  # noqa: B008  (frozen)
        self.name = name
        self.bounds = bounds
        self.log_id = ""
        self.state: MarketState = "trading"
        self.rules: Rules = _NO_RULES
        self.book = Book()
        self.orders: dict[str, Order] = {}
        self.peers: dict[str, Peer] = {}
        # gtd orders by (expires_at, acceptance): who is due first stands first.
        self.expiring: SortedDict[tuple[int, int], Order] = SortedDict()
        self.digest_value = 0
        self.last_price = 0
        self.next_trade_id = 1
        self.next_priority = 1
        self.next_acceptance = 1
        self.next_server_named = 1
        self.trades: deque[TimedTrade] = deque(maxlen=limits.TRADES_COUNT_MAX)
        self.leader = ""
        self.term = 0
        self.time = 0
        self.sequence = 0
        self.hash = HASH_OF_NOTHING
        # The order of the newest `accepted` or `amended`, whose doing the next events are, and
        # the outcome of that `amended`, which its trades still change.
        self._taker: Order | None = None
        self._amending: Outcome | None = None

    @property
    def specification(self) -> Specification:
        """The market's rules as they were written."""
        return self.rules.specification

    @property
    def digest(self) -> str:
        """The book in 16 hex digits."""
        return digest_text(self.digest_value)

    # --- For the leader -------------------------------------------------------------------------

    def execute(self, command: Command, *, peer: str, time: int) -> execution.Executed:
        """Execute one well-formed command.

        Args:
            command: Found well-formed and of this peer (reasons 1001 to 1004) before.
            peer: Who sent it.
            time: The commit's, in µs; never before the market's.

        Returns:
            The receipt, without its sequence, and the events in the order they happened; no
            events for what changed nothing.

        Ordering: `housekeeping` of that time has nothing more to do.
        """
        self._advance(time)
        return execution.execute(self, command, peer)

    def housekeeping(self, time: int) -> list[AnyEvent]:
        """Do what is due before any command: expiries, and the cancels of a closed market.

        Returns:
            At most `housekeeping_count_max` events; fewer, or none, when nothing more is due.
        """
        self._advance(time)
        return execution.housekeeping(self)

    def is_due(self, time: int) -> bool:
        """Tell whether housekeeping has something to do at a time."""
        if self.state == "closed":
            return bool(self.orders)
        return bool(self.expiring) and self.expiring.peekitem(0)[0][0] <= time

    def open(self, specification: Specification, *, log_id: str, time: int) -> list[AnyEvent]:
        """Open a market that has no commit yet, with a valid specification."""
        assert self.log_id == "", "the market is open already"
        self._advance(time)
        event = MarketOpened(specification=specification, log_id=log_id)
        self.apply(event)
        return [event]

    def administer(
        self, what: What, change: SpecificationChange | None = None, *, time: int
    ) -> tuple[Reason | None, str | None, list[AnyEvent]]:
        """Change the market's specification or state.

        Returns:
            Why it was refused, the sentence that says so, and the events; no events for what
            changed nothing.
        """
        self._advance(time)
        return execution.administer(self, what, change)

    def lead(
        self, *, server: str, term: int, protocol: int, rules: int, time: int
    ) -> list[AnyEvent]:
        """Begin a term."""
        self._advance(time)
        event = LeaderChanged(server=server, term=term, protocol=protocol, rules=rules)
        self.apply(event)
        return [event]

    def seal(self, events: list[AnyEvent], encoded: bytes, *, digest: str) -> bytes:
        """Close a commit over what was executed since the one before.

        Args:
            events: In the order they happened.
            encoded: The same, as JSON, joined by commas.
            digest: The book's digest after the last of them.

        Returns:
            The commit's payload.
        """
        sequence = self.sequence + 1
        payload = encode_commit(
            market=self.name,
            sequence=sequence,
            term=self.term,
            time=self.time,
            previous=self.hash,
            digest=digest,
            events=encoded,
        )
        self._sealed(events, sequence, hash_of(payload))
        return payload

    # --- For everybody else ---------------------------------------------------------------------

    def apply_commit(self, payload: bytes) -> Commit:
        """Follow one commit.

        Returns:
            The commit, decoded.

        Raises:
            Diverged: it does not follow from this state, or does not lead to its digest.
        """
        sequence = self.sequence + 1
        try:
            commit = decode_commit(payload)
        except (DecodeError, UnicodeDecodeError) as error:
            raise Diverged(sequence, "bytes", expected="a commit", found=error) from error
        self._check_follows(commit)
        self.time = commit.time
        try:
            for event in commit.events:
                self.apply(event)
        except (AssertionError, KeyError) as error:
            raise Diverged(sequence, "events", expected="possible", found=error) from error
        if commit.digest != self.digest:
            raise Diverged(sequence, "digest", expected=commit.digest, found=self.digest)
        if commit.term != self.term:
            raise Diverged(sequence, "term", expected=self.term, found=commit.term)
        self._sealed(commit.events, commit.sequence, hash_of(payload))
        return commit

    def apply(self, event: AnyEvent) -> None:
        """Establish what an event says.

        Raises:
            InvariantViolated: the event is impossible in this state.
        """
        _APPLY[type(event)](self, event)

    def _check_follows(self, commit: Commit) -> None:
        expected = self.sequence + 1
        if commit.market != self.name:
            raise Diverged(expected, "market", expected=self.name, found=commit.market)
        if commit.sequence != expected:
            raise Diverged(expected, "sequence", expected=expected, found=commit.sequence)
        if commit.previous != self.hash:
            raise Diverged(expected, "previous", expected=self.hash, found=commit.previous)
        if commit.time < self.time:
            raise Diverged(expected, "time", expected=f"at least {self.time}", found=commit.time)

    def _sealed(self, events: list[AnyEvent], sequence: int, payload_hash: str) -> None:
        for event in events:
            if type(event) is Trade:
                self.trades.append(
                    TimedTrade(
                        event.trade_id,
                        event.price,
                        event.quantity,
                        event.maker_order_id,
                        event.taker_order_id,
                        event.taker_side,
                        self.time,
                        sequence,
                    )
                )
        self.sequence = sequence
        self.hash = payload_hash

    def _advance(self, time: int) -> None:
        assert time >= self.time, f"expected a time of at least {self.time}, found {time}"
        self.time = time

    # --- Facts ----------------------------------------------------------------------------------

    def begin_command(self) -> None:
        """Forget the order whose doing the events before were."""
        self._taker = None
        self._amending = None

    def peer(self, name: str) -> Peer:
        """Give a peer of the market, which gets to know it when it did not."""
        peer = self.peers.get(name)
        if peer is None:
            peer = self.peers[name] = Peer(name, window_count_max=self.bounds.window_count)
        return peer

    def enter(self, order: Order, resting: int) -> None:
        """Take up an accepted order, with what of it rests in the book when its command is done."""
        self.next_acceptance = order.acceptance + 1
        peer = self.peer(order.peer)
        pair = pair_of(order.order_id)
        if pair >= SERVER_NAMED_END:
            peer.window.remember(pair, order)
        else:
            self.next_server_named += 1
        self._taker = order
        self._amending = None
        self._rest(order, resting)

    def trade(
        self, trade_id: int, *, maker: Order, taker: Order, price: int, quantity: int
    ) -> None:
        """Let a maker, which rests, and the current taker meet at the maker's price."""
        self.next_trade_id = trade_id + 1
        self.last_price = price
        value = price * quantity
        maker.filled += quantity
        maker.value += value
        self._lower(maker, quantity, "filled")
        taker.filled += quantity
        taker.value += value
        if taker.filled == taker.quantity:
            taker.done = "filled"
        if self._amending is not None:
            self._amending.note(taker)

    def reduce(self, order: Order, quantity: int) -> None:
        """Take a quantity off an order without a trade: off a maker, or off the current taker."""
        self._keep_content(order)
        order.quantity -= quantity
        order.version += 1
        if order is not self._taker:
            self._lower(order, quantity, "canceled")
        elif self._amending is not None:
            self._amending.note(order)

    def take_off(self, order: Order, how: DoneStatus) -> None:
        """End an order: out of the book if it rests there, else the current taker."""
        if order.level is not None:
            self._remove(order)
            order.remaining = 0
            self._forget_open(order)
        order.done = how
        if order is self._taker and self._amending is not None:
            self._amending.note(order)

    def amend(
        self, order: Order, *, price: int, quantity: int, resting: int, lost: bool, version: int
    ) -> None:
        """Give an order new totals; with its place lost it may trade, and rests anew."""
        if version != order.version:
            self._keep_content(order)
        order.version = version
        if lost:
            self._remove(order)
            order.price = price
            order.quantity = quantity
            order.remaining = 0
            self._taker = order
            self._rest(order, resting)
            if resting == 0:
                self._forget_open(order)
        elif quantity != order.quantity:
            lowered = order.quantity - quantity
            order.quantity = quantity
            self._subtract(order, lowered)
        self._amending = None

    def remember(self, peer: str, command_id: str, outcome: Outcome) -> None:
        """Remember what became of a command that is not an accepted submit."""
        self.peer(peer).window.remember(pair_of(command_id), outcome)

    def remember_amended(self, order: Order, command_id: str, outcome: Outcome) -> None:
        """Remember an amend, whose outcome its trades still change."""
        outcome.note(order)
        self.remember(order.peer, command_id, outcome)
        if order is self._taker:
            self._amending = outcome

    # --- Parts of facts -------------------------------------------------------------------------

    def _rest(self, order: Order, resting: int) -> None:
        # What does not rest is done; a trade that fills it whole says how.
        if resting == 0:
            order.done = "canceled"
            return
        order.priority = self.next_priority
        self.next_priority += 1
        order.remaining = resting
        order.key = key_of(order.order_id, order.side, order.price, order.priority)
        self.digest_value = (self.digest_value + order.key * resting) & MASK
        self.book.side(order.side).add(order)
        if order.order_id not in self.orders:
            self.orders[order.order_id] = order
            self.peers[order.peer].open[order.order_id] = order
            if order.expires_at:
                self.expiring[order.expires_at, order.acceptance] = order

    def _lower(self, order: Order, quantity: int, how: DoneStatus) -> None:
        if quantity < order.remaining:
            self._subtract(order, quantity)
            return
        assert quantity == order.remaining, f"{quantity} of {order.remaining} of {order.order_id}"
        self._remove(order)
        order.remaining = 0
        order.done = how
        self._forget_open(order)

    def _subtract(self, order: Order, quantity: int) -> None:
        self.digest_value = (self.digest_value - order.key * quantity) & MASK
        self.book.side(order.side).lower(order, quantity)

    def _remove(self, order: Order) -> None:
        self.digest_value = (self.digest_value - order.key * order.remaining) & MASK
        self.book.side(order.side).remove(order)

    def _forget_open(self, order: Order) -> None:
        del self.orders[order.order_id]
        del self.peers[order.peer].open[order.order_id]
        if order.expires_at:
            del self.expiring[order.expires_at, order.acceptance]

    def _keep_content(self, order: Order) -> None:
        # Before the fields change that the content hash of the submit follows from.
        if order.content is None:
            order.content = content_of_order(order, self.rules.tick, self.rules.lot)

    # --- Events ---------------------------------------------------------------------------------

    def _apply_opened(self, event: MarketOpened) -> None:
        self.log_id = event.log_id
        self._specify(event.specification)

    def _apply_changed(self, event: MarketChanged) -> None:
        if event.specification is not UNSET:
            self._specify(event.specification)
        if event.state is not UNSET:
            self.state = event.state

    def _specify(self, specification: Specification) -> None:
        if self.rules is _NO_RULES:
            tick, lot = Scale(specification.tick_size), Scale(specification.lot_size)
        else:
            tick, lot = self.rules.tick, self.rules.lot
        self.rules = Rules(specification, tick=tick, lot=lot)

    def _apply_leader(self, event: LeaderChanged) -> None:
        if event.term != self.term + 1:
            raise InvariantViolated(f"term {event.term} after term {self.term}")
        self.term = event.term
        self.leader = event.server

    def _apply_accepted(self, event: Accepted) -> None:
        order = Order(
            order_id=event.order_id,
            peer=event.peer,
            side=event.side,
            type=event.type,
            price=0 if event.price is UNSET else self._ticks(event.price),
            quantity=self._lots(event.quantity),
            time_in_force=event.time_in_force,
            expires_at=0 if event.expires_at is UNSET else event.expires_at,
            post_only=event.post_only,
            self_trade=event.self_trade,
            acceptance=self.next_acceptance,
        )
        self.enter(order, self._lots(event.resting_quantity))

    def _apply_trade(self, event: Trade) -> None:
        taker = self._taker
        if taker is None or taker.order_id != event.taker_order_id:
            raise InvariantViolated(f"trade {event.trade_id} is not the current taker's")
        self.trade(
            event.trade_id,
            maker=self._open_order(event.maker_order_id),
            taker=taker,
            price=self._ticks(event.price),
            quantity=self._lots(event.quantity),
        )

    def _apply_amended(self, event: Amended) -> None:
        order = self._open_order(event.order_id)
        self.amend(
            order,
            price=self._ticks(event.price),
            quantity=self._lots(event.quantity),
            resting=self._lots(event.resting_quantity),
            lost=event.priority == "lost",
            version=event.version,
        )
        if event.command_id is not UNSET and event.content is not UNSET:
            outcome = Outcome(event.command_id, event.content, event.order_id)
            self.remember_amended(order, event.command_id, outcome)

    def _apply_reduced(self, event: Reduced) -> None:
        self.reduce(self._taker_or_open(event.order_id), self._lots(event.quantity))

    def _apply_canceled(self, event: Canceled) -> None:
        if event.reason in ("requested", "market_closed"):
            self.begin_command()
        order = self._taker_or_open(event.order_id)
        self._check_left(order, event.quantity)
        self.take_off(order, "canceled")
        if event.command_id is not UNSET and event.content is not UNSET:
            outcome = Outcome(event.command_id, event.content, event.order_id)
            outcome.note(order)
            self.remember(order.peer, event.command_id, outcome)

    def _apply_canceled_all(self, event: CanceledAll) -> None:
        if event.command_id is not UNSET and event.content is not UNSET:
            parsed = parse_id(event.command_id, "command")
            if parsed is None:
                raise InvariantViolated(f"{event.command_id} is no command id")
            outcome = Outcome(event.command_id, event.content, count=event.count)
            self.remember(parsed[0], event.command_id, outcome)

    def _apply_expired(self, event: Expired) -> None:
        self.begin_command()
        order = self._open_order(event.order_id)
        self._check_left(order, event.quantity)
        self.take_off(order, "expired")

    def _apply_rejected(self, event: Rejected) -> None:
        if event.command_id is UNSET:
            assert event.order_id is not UNSET
            self.remember_refusal(
                event.peer, event.order_id, event.content, event.reason, order_id=None
            )
        else:
            target = None if event.order_id is UNSET else event.order_id
            self.remember_refusal(
                event.peer, event.command_id, event.content, event.reason, order_id=target
            )

    def remember_refusal(
        self, peer: str, own_id: str, content: str, reason: str, *, order_id: str | None
    ) -> None:
        """Remember that a command was refused, and its order as it stood."""
        outcome = Outcome(own_id, content, order_id, reason)
        if order_id is not None:
            order = self.peer(peer).order(order_id)
            if order is not None:
                outcome.note(order)
        self.remember(peer, own_id, outcome)

    def _check_left(self, order: Order, quantity: str) -> None:
        left = order.quantity - order.filled
        if self._lots(quantity) != left:
            raise InvariantViolated(f"{quantity} taken off {order.order_id}, which has {left} lots")

    def _open_order(self, order_id: str) -> Order:
        order = self.orders.get(order_id)
        if order is None:
            raise InvariantViolated(f"{order_id} is not open")
        return order

    def _taker_or_open(self, order_id: str) -> Order:
        taker = self._taker
        if taker is not None and taker.order_id == order_id:
            return taker
        return self._open_order(order_id)

    def _ticks(self, text: str) -> int:
        return _whole(self.rules.tick, text)

    def _lots(self, text: str) -> int:
        return _whole(self.rules.lot, text)

    # --- Whole states ---------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Write the whole replicated state as canonical JSON: equal states, equal bytes."""
        return snapshot.write(self)

    @classmethod
    def restore(cls, data: bytes, bounds: Bounds = Bounds()) -> "Market":  # noqa: B008  (frozen)
        """Build the market whose `snapshot` these bytes are, and check it.

        Raises:
            InvariantViolated: the bytes are no snapshot, or of an impossible state.
        """
        market = cls("", bounds)
        snapshot.read(market, data)
        market.check()
        return market

    def dispose(self) -> None:
        """Take the state apart, so that its memory is free at once; it must not be used again.

        Orders and levels refer to each other, and orders are outside the collector's sight.
        """
        for order in self.orders.values():
            order.level = order.older = order.newer = None
        self.orders.clear()
        self.peers.clear()
        self.book = Book()

    def check(self) -> None:
        """Assert every invariant of the state.

        Raises:
            InvariantViolated: one does not hold.

        Complexity: linear in the state.
        """
        invariants.check(self)


def _whole(scale: Scale, text: str) -> int:
    count = scale.count(text)
    if count is None:
        raise InvariantViolated(f"{text} is not a whole number of steps")
    return count


_NO_RULES: Final[Any] = None

_APPLY: Final[dict[type, Any]] = {
    MarketOpened: Market._apply_opened,
    MarketChanged: Market._apply_changed,
    LeaderChanged: Market._apply_leader,
    Accepted: Market._apply_accepted,
    Trade: Market._apply_trade,
    Amended: Market._apply_amended,
    Reduced: Market._apply_reduced,
    Canceled: Market._apply_canceled,
    CanceledAll: Market._apply_canceled_all,
    Expired: Market._apply_expired,
    Rejected: Market._apply_rejected,
}
"""What each kind of event does; there is no other way into the state but the facts above."""
