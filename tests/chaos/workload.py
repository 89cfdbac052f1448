"""What peers do next: many kinds of commands at few prices, so that much of it meets.

Theory of operation. A `Mind` is one peer in one market. It makes commands, ids included, and
remembers those that it made: it cancels and amends what may still be open, sends again what has its
outcome, or has none yet, and now and then misuses an id for something else. It does not expect
anything; whether the answers are right is judged elsewhere.

Pure: the time comes in, and so does the Random. Knows nothing of sending.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias, get_args

from msgspec import UNSET, Struct, UnsetType, structs

from dex_client.ids import Ids
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, SelfTrade, Side, Submit
from dex_protocol.queries import (
    BookQuery,
    OrderQuery,
    OrdersQuery,
    Query,
    StatusQuery,
    TradesQuery,
)

PRICES: Final = ("98", "99", "100", "101", "102")
"""Both sides use all of them, so about half of what comes trades."""

QUANTITIES: Final = ("0.1", "0.2", "0.3", "0.5")

REMEMBERED_COUNT: Final = 40
"""Commands of each kind that a peer remembers: enough to find an open order among them."""

BATCH_COUNTS: Final = (2, 3, 5, 8)

SELF_TRADES: Final = get_args(SelfTrade)


class Send(Struct, frozen=True):
    """Commands to send, as one request."""

    commands: list[Command]
    as_batch: bool


class Ask(Struct, frozen=True):
    """A question to ask."""

    query: Query


Action: TypeAlias = Send | Ask


class Mind:
    """One peer in one market."""

    def __init__(self, ids: Ids, random: Random) -> None:
        """Begin with nothing to remember; the ids are shared with the peer's other markets."""
        self._ids = ids
        self._random = random
        self._orders: deque[str] = deque(maxlen=REMEMBERED_COUNT)
        self._settled: deque[Command] = deque(maxlen=REMEMBERED_COUNT)
        self._sent: deque[Command] = deque(maxlen=REMEMBERED_COUNT)
        self._newest = 0
        actions: dict[Callable[[int], Action], float] = {
            self._one: 72,
            self._batch: 6,
            self._again: 6,
            self._other_content: 3,
            self._question: 13,
        }
        self._actions = list(actions)
        self._action_weights = list(actions.values())

    def next(self, now_ms: int) -> Action:
        """Decide what to do, at a time in milliseconds since 1970."""
        (action,) = self._random.choices(self._actions, self._action_weights)
        return action(now_ms)

    def settled(self, command: Command, sequence: int | UnsetType) -> None:
        """Remember that a command has its outcome, and the commit that it rests on."""
        self._settled.append(command)
        if sequence is not UNSET:
            self._newest = max(self._newest, sequence)

    # --- What there is to do --------------------------------------------------------------------

    def _one(self, now_ms: int) -> Action:
        return Send([self._new(now_ms)], as_batch=False)

    def _batch(self, now_ms: int) -> Action:
        count = self._random.choice(BATCH_COUNTS)
        return Send([self._new(now_ms) for _ in range(count)], as_batch=True)

    def _again(self, now_ms: int) -> Action:
        # Mostly one with an outcome; or one that may still be under way.
        known = self._settled if self._random.random() < 0.8 else self._sent
        if not known:
            return self._one(now_ms)
        return Send([self._random.choice(known)], as_batch=False)

    def _other_content(self, now_ms: int) -> Action:
        known = self._settled if self._random.random() < 0.8 else self._sent
        if not known:
            return self._one(now_ms)
        command = self._random.choice(known)
        other = self._new(now_ms, kind=type(command))
        field = "order_id" if type(command) is Submit else "command_id"
        if type(other) is not type(command):
            return Send([other], as_batch=False)
        changed = structs.replace(other, **{field: getattr(command, field)})
        return Send([changed], as_batch=False)

    def _question(self, now_ms: int) -> Action:
        at_least = self._newest if self._random.random() < 0.4 else 0
        kind = self._random.random()
        if kind < 0.35 and self._orders:
            order_id = self._random.choice(self._orders)
            return Ask(OrderQuery(order_id=order_id, min_sequence=at_least))
        if kind < 0.6:
            return Ask(BookQuery(depth=10, min_sequence=at_least))
        if kind < 0.85:
            return Ask(StatusQuery(min_sequence=at_least))
        if kind < 0.93:
            return Ask(OrdersQuery(limit=20, min_sequence=at_least))
        return Ask(TradesQuery(limit=20, min_sequence=at_least))

    # --- Commands -------------------------------------------------------------------------------

    def _new(self, now_ms: int, *, kind: type[Command] | None = None) -> Command:
        if kind is None:
            (kind,) = self._random.choices((Submit, Cancel, Amend, CancelAll), (72, 14, 12, 2))
        if kind is Submit or (kind is not CancelAll and not self._orders):
            order = self._order(now_ms)
            self._orders.append(str(order.order_id))
            command: Command = order
        else:
            command = self._change(kind, self._ids.next("command", now_ms))
        self._sent.append(command)
        return command

    def _change(self, kind: type[Command], command_id: str) -> Command:
        random = self._random
        if kind is CancelAll:
            return CancelAll(
                command_id=command_id,
                side=random.choice((UNSET, *get_args(Side))),
            )
        order_id = random.choice(self._orders)
        if_version = random.choice((1, 2)) if random.random() < 0.2 else UNSET
        if kind is Cancel:
            return Cancel(order_id=order_id, command_id=command_id, if_version=if_version)
        price = random.choice(PRICES) if random.random() < 0.5 else UNSET
        wants_quantity = price is UNSET or random.random() < 0.5
        return Amend(
            order_id=order_id,
            command_id=command_id,
            price=price,
            quantity=random.choice(QUANTITIES) if wants_quantity else UNSET,
            if_version=if_version,
        )

    def _order(self, now_ms: int) -> Submit:
        random = self._random
        order = Submit(
            side=random.choice(get_args(Side)),
            quantity=random.choice(QUANTITIES),
            order_id=self._ids.next("order", now_ms),
            self_trade=random.choice(SELF_TRADES),
        )
        kind = random.random()
        if kind < 0.1:
            order.type = "market"
            order.time_in_force = random.choice((UNSET, "ioc", "fok"))
            return order
        order.price = random.choice(PRICES)
        if kind < 0.22:
            order.time_in_force = random.choice(("ioc", "fok"))
        elif kind < 0.34:
            order.time_in_force = "gtd"
            # Some are over before they come.
            order.expires_at = (now_ms + random.choice((-100, 200, 1_000, 5_000))) * 1_000
        if order.time_in_force not in ("ioc", "fok"):
            order.post_only = random.random() < 0.15
        return order
