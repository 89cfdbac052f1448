"""The Python client: one peer's way to the exchange, with every hardship on it taken care of.

Lost answers, deposed leaders, killed nodes and full queues end here: what is sent is sent again,
always with the same id, until it has an outcome. What cannot be hidden without a lie is told: that
nothing happened (`Unavailable`), or that nobody knows yet (`OutcomeUnknown`).

Knows nothing of how that is done: `sending`, `queries`, `events`, `replica` and `link` do.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final, Literal, TypeAlias, TypeVar, overload

from msgspec import UNSET, UnsetType, structs

from dex_client import events as following
from dex_client.decimals import Number, decimal_text
from dex_client.errors import OutcomeUnknown, Unavailable
from dex_client.events import Events
from dex_client.link import Link, linked
from dex_client.queries import Queries
from dex_client.replica import Divergence, Replica
from dex_client.retry import Policy
from dex_client.sending import Sender
from dex_protocol import limits
from dex_protocol.commands import (
    Amend,
    Cancel,
    CancelAll,
    Command,
    OrderType,
    SelfTrade,
    Side,
    Submit,
    TimeInForce,
)
from dex_protocol.ids import is_market, is_peer
from dex_protocol.queries import (
    BookOrdersReply,
    BookQuery,
    BookReply,
    OrderQuery,
    OrderReceipt,
    OrderReply,
    OrdersQuery,
    OrdersReply,
    Query,
    Reply,
    StatusQuery,
    StatusReply,
    TradesQuery,
    TradesReply,
)
from dex_protocol.reasons import Reason
from dex_protocol.receipts import Receipt
from dex_runtime import keys
from dex_runtime.connection import ConnectionOptions, Credentials

DEADLINE_S: Final = 30.0
"""How long a call tries: a NATS node's death takes 4 to 9 s to repair, a server's restart by hand
longer."""

R = TypeVar("R", bound=Reply)

MinSequence: TypeAlias = int | UnsetType
"""A commit that an answer must know of: a receipt's `sequence`, as it stands."""

OrderId: TypeAlias = str | UnsetType
"""An order's id: a receipt's `order_id`, as it stands."""


class Exchange:
    """One peer on the exchange; use `connect`.

    Every method may be called from many tasks at once. Any server may answer a query, and none does
    before it has what earlier calls were told: you read what you wrote. Prices and quantities are
    strings, Decimals or integers, never floats. A refusal is a receipt, with `status` `rejected`
    and its `reason`; what every call may raise is `Unavailable` (nothing happened) and
    `ProtocolMismatch`, and what every command may raise is `OutcomeUnknown` too.
    """

    def __init__(self, link: Link, peer: str, *, policy: Policy, random: Random) -> None:
        """Use `connect`.

        Args:
            link: The connection.
            peer: Whose name is used; one process at a time may use it.
            policy: How long a call tries, and how often.
            random: Spreads the pauses between attempts.
        """
        self.peer = peer
        self._link = link
        self._policy = policy
        self._random = random
        self._known: set[str] = set()
        # The newest commit that any call was told of, by market.
        self._told: dict[str, int] = {}
        self._sender = Sender(link, peer, random=random, known=self._known)

    # --- Commands -------------------------------------------------------------------------------

    async def submit(
        self,
        market: str,
        *,
        side: Side,
        quantity: Number,
        price: Number | None = None,
        type: OrderType = "limit",
        time_in_force: TimeInForce | None = None,
        expires_at: int | None = None,
        post_only: bool = False,
        self_trade: SelfTrade = "cancel_taker",
        order_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Place an order.

        Args:
            market: Where.
            side: `buy` or `sell`.
            quantity: How much.
            price: The worst price; of limit orders only, which must have one.
            type: `limit`, or `market` for whatever price there is.
            time_in_force: `gtc` until canceled, `ioc` at once or not, `fok` whole or not at all,
                `gtd` until `expires_at`. None: `gtc` for a limit, `ioc` for a market order.
            expires_at: In µs since 1970.
            post_only: Refuse the order rather than let it trade at once.
            self_trade: What happens when it meets an order of this peer.
            order_id: Only to send once more what an earlier process sent; otherwise one is made.
            deadline_s: How long to try, instead of the exchange's own.

        Returns:
            The receipt: how the order stood when its command was done, or why it was refused.

        Raises:
            OutcomeUnknown: it may have been placed: `settle` it.
            Unavailable: it was not placed, nor will be.
            TypeError: a price or quantity is a float, or anything else that is not exact.
        """
        order = Submit(
            side=side,
            quantity=decimal_text("quantity", quantity),
            order_id=_or_unset(order_id),
            type=type,
            price=UNSET if price is None else decimal_text("price", price),
            time_in_force=_or_unset(time_in_force),
            expires_at=_or_unset(expires_at),
            post_only=post_only,
            self_trade=self_trade,
        )
        return await self._command(market, order, deadline_s)

    async def cancel(
        self,
        market: str,
        order_id: OrderId,
        *,
        if_version: int | None = None,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Take what is left of an order out of the book.

        Args:
            market: Where it is.
            order_id: Which one.
            if_version: Refuse if it has another version by now.
            deadline_s: As for `submit`.
        """
        command = Cancel(order_id=_given(order_id), if_version=_or_unset(if_version))
        return await self._command(market, command, deadline_s)

    async def amend(
        self,
        market: str,
        order_id: OrderId,
        *,
        price: Number | None = None,
        quantity: Number | None = None,
        if_version: int | None = None,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Change an order's price, its quantity (the new total), or both.

        Only lowering the quantity keeps its place in the queue.
        """
        command = Amend(
            order_id=_given(order_id),
            price=UNSET if price is None else decimal_text("price", price),
            quantity=UNSET if quantity is None else decimal_text("quantity", quantity),
            if_version=_or_unset(if_version),
        )
        return await self._command(market, command, deadline_s)

    async def cancel_all(
        self,
        market: str,
        *,
        side: Side | None = None,
        all_of_them: bool = False,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Cancel the peer's open orders, the oldest 1,000 of them.

        Args:
            market: Where.
            side: Only orders of this side.
            all_of_them: Go on, each time with a new id, until there are no more; the receipts are
                put together to one. Its `more` is true when that ended early, because nobody
                served the market any more.
            deadline_s: As for `submit`, for each command of them.

        Returns:
            `canceled` names the orders; when an answer had to be asked for again there is only a
            `count`.
        """
        command = CancelAll(side=_or_unset(side))
        receipts = [await self._command(market, command, deadline_s)]
        while all_of_them and _goes_on(receipts[-1]):
            try:
                receipts.append(await self._command(market, command, deadline_s))
            except Unavailable:
                return _together(receipts, more=True)
        return receipts[0] if len(receipts) == 1 else _together(receipts, more=False)

    async def batch(
        self, market: str, commands: Sequence[Command], *, deadline_s: float | None = None
    ) -> list[Receipt]:
        """Send many commands at once; they are executed in their order, each for itself.

        A command without an id gets one. What is answered `retry` is sent again by its own id, and
        so may be executed after others. More than 1,000 are sent as several batches, each when
        the one before has its outcomes.

        Args:
            market: Where.
            commands: `Submit`, `Cancel`, `Amend` and `CancelAll`; prices and quantities as strings.
            deadline_s: As for `submit`, for all of them together.

        Returns:
            A receipt for each, in their order. One with `status` `retry` was not executed and will
            not be: the deadline came first.

        Raises:
            OutcomeUnknown: some may have been executed; it holds the receipts of the others.
            Unavailable: none was executed.
        """
        if not commands:
            return []
        receipts = await self._sender.send(
            _checked(market), commands, self._within(deadline_s), as_batch=True
        )
        self._heed(market, receipts)
        return receipts

    async def settle(
        self, error: OutcomeUnknown, *, deadline_s: float | None = None
    ) -> list[Receipt]:
        """Find out what became of commands whose outcome is unknown, by sending them once more.

        With their own ids: what was executed is not executed again, what was not is executed now.
        Do it before 4,096 more commands are sent to the market, or their outcomes may be forgotten.

        Returns:
            The receipts of all commands of the call that failed, in its order; one, of a `submit`.

        Raises:
            OutcomeUnknown: it still is; settle that one later. When `is_forgotten`, never.
        """
        receipts = await self._sender.settle(error, self._within(deadline_s))
        self._heed(error.market, receipts)
        return receipts

    # --- Queries --------------------------------------------------------------------------------

    @overload
    async def book(
        self,
        market: str,
        *,
        depth: int = ...,
        orders: Literal[False] = ...,
        min_sequence: MinSequence = ...,
        deadline_s: float | None = ...,
    ) -> BookReply | Receipt: ...

    @overload
    async def book(
        self,
        market: str,
        *,
        depth: int = ...,
        orders: Literal[True],
        min_sequence: MinSequence = ...,
        deadline_s: float | None = ...,
    ) -> BookOrdersReply | Receipt: ...

    async def book(
        self,
        market: str,
        *,
        depth: int = limits.BOOK_DEPTH,
        orders: bool = False,
        min_sequence: MinSequence = 0,
        deadline_s: float | None = None,
    ) -> BookReply | BookOrdersReply | Receipt:
        """Ask for the best levels of both sides; with `orders`, for each order of them.

        Like every query: `min_sequence` is a commit that the answer must know of, beside what this
        exchange was told already. Pass the `sequence` of a receipt that another process got.
        """
        query = BookQuery(depth=depth, orders=orders, min_sequence=_known(min_sequence))
        if orders:
            return await self._ask(market, query, BookOrdersReply, deadline_s)
        return await self._ask(market, query, BookReply, deadline_s)

    async def order(
        self,
        market: str,
        order_id: OrderId,
        *,
        min_sequence: MinSequence = 0,
        deadline_s: float | None = None,
    ) -> OrderReply | Receipt:
        """Ask for an order of this peer, while it is open or remembered.

        NB: this settles nothing: a copy of the order may still be under way. `settle` does.
        """
        query = OrderQuery(order_id=_given(order_id), min_sequence=_known(min_sequence))
        return await self._ask(market, query, OrderReply, deadline_s)

    async def orders(
        self,
        market: str,
        *,
        page_count: int = limits.PAGE_COUNT_MAX,
        min_sequence: MinSequence = 0,
        deadline_s: float | None = None,
    ) -> OrdersReply | Receipt:
        """Ask for all open orders of this peer, in order of acceptance, page by page.

        While they change, what is on different pages is as of different commits; `sequence` is the
        last page's.
        """
        found: list[OrderReceipt] = []
        query = OrdersQuery(limit=page_count, min_sequence=_known(min_sequence))
        while True:
            page = await self._ask(market, query, OrdersReply, deadline_s)
            if isinstance(page, Receipt):
                if page.reason == Reason.unknown_order.name and found:
                    # The order to go on from is done and forgotten meanwhile: from the beginning.
                    found.clear()
                    query = structs.replace(query, after=UNSET)
                    continue
                return page
            found += page.orders
            if not page.more or not page.orders:
                return OrdersReply(sequence=page.sequence, orders=found, more=False)
            query = structs.replace(query, after=str(found[-1].order_id))

    async def trades(
        self,
        market: str,
        *,
        limit: int = limits.TRADES_COUNT,
        min_sequence: MinSequence = 0,
        deadline_s: float | None = None,
    ) -> TradesReply | Receipt:
        """Ask for the newest trades of everybody, newest first."""
        query = TradesQuery(limit=limit, min_sequence=_known(min_sequence))
        return await self._ask(market, query, TradesReply, deadline_s)

    async def status(
        self, market: str, *, min_sequence: MinSequence = 0, deadline_s: float | None = None
    ) -> StatusReply | Receipt:
        """Ask how a market stands: who leads, its digest, state and specification."""
        query = StatusQuery(min_sequence=_known(min_sequence))
        return await self._ask(market, query, StatusReply, deadline_s)

    # --- Following ------------------------------------------------------------------------------

    def events(self, market: str, *, from_sequence: int | None = None) -> Events:
        """Follow a market: every commit, in order, none skipped, none twice.

        Args:
            market: Which one.
            from_sequence: The first commit to give, from 1; None for the next one that is stored
                after the iterator began.

        Returns:
            An asynchronous iterator, which begins when `async with` enters it, or else with the
            first commit that is waited for.
        """
        if from_sequence is not None and from_sequence < 1:
            raise ValueError(f"expected from_sequence of at least 1, found {from_sequence}")
        return Events(
            self._link,
            _checked(market),
            first=self._queries(None),
            later=self._queries(following.PATIENCE_S),
            from_sequence=from_sequence,
        )

    def replica(
        self, market: str, *, on_divergence: Callable[[Divergence], None] | None = None
    ) -> Replica:
        """Keep a live copy of a market's book, checked at every commit; enter it with `async with`.

        Args:
            market: Which one.
            on_divergence: Called when the copy and a commit do not agree, which is logged as an
                error too. Another copy is then built.
        """
        return Replica(
            _checked(market),
            queries=self._queries(None),
            follow=lambda sequence: self.events(market, from_sequence=sequence),
            on_divergence=on_divergence,
        )

    # --- The connection -------------------------------------------------------------------------

    @property
    def node(self) -> str | None:
        """The address of the NATS node it is connected to; None while it is to none."""
        return self._link.node

    async def reconnect(self) -> bool:
        """Leave the NATS node for another; it happens by itself when a node brings no answers.

        Returns:
            Whether it is left; not when no other is known, nor when there is no connection now.
        """
        return await self._link.reconnect()

    def _within(self, deadline_s: float | None) -> Policy:
        if deadline_s is None:
            return self._policy
        return structs.replace(self._policy, deadline_s=deadline_s)

    def _queries(self, deadline_s: float | None) -> Queries:
        return Queries(
            self._link,
            self.peer,
            policy=self._within(deadline_s),
            random=self._random,
            known=self._known,
        )

    async def _ask(
        self, market: str, query: Query, reply: type[R], deadline_s: float | None
    ) -> R | Receipt:
        # Whichever server answers knows at least what this peer knows.
        known = max(query.min_sequence, self._told.get(market, 0))
        query = structs.replace(query, min_sequence=known)
        answer = await self._queries(deadline_s).ask(_checked(market), query, reply)
        self._heed(market, [answer])
        return answer

    async def _command(self, market: str, command: Command, deadline_s: float | None) -> Receipt:
        (receipt,) = await self._sender.send(
            _checked(market), [command], self._within(deadline_s), as_batch=False
        )
        self._heed(market, [receipt])
        return receipt

    def _heed(self, market: str, answers: Sequence[Reply | Receipt]) -> None:
        for answer in answers:
            if answer.sequence is not UNSET:
                self._told[market] = max(answer.sequence, self._told.get(market, 0))


@asynccontextmanager
async def connect(
    servers: str | Sequence[str],
    *,
    peer: str,
    deadline_s: float = DEADLINE_S,
    policy: Policy | None = None,
    first_connection_timeout_s: float = 5.0,
    credentials: Credentials = Credentials(),  # noqa: B008  (frozen)
    inbox_prefix: str = "_INBOX",
) -> AsyncIterator[Exchange]:
    """Be a peer on an exchange for as long as the block lasts.

    Args:
        servers: Addresses of NATS nodes, such as nats://127.0.0.1:4222; a list, or one string with
            commas between. Further nodes of a cluster are learned from these.
        peer: The name to trade under: 1 to 32 letters, digits, `-` and `_`. One process at a time
            may use it.
        deadline_s: How long each call tries.
        policy: More about that, instead.
        first_connection_timeout_s: How long to try to connect; later it is tried for ever.
        credentials: The peer's key, and whom to trust. What is left out is looked for among the
            keys of an exchange on this machine: in $DEX_KEYS, or else in .dex/keys.
        inbox_prefix: What reply subjects begin with.

    Raises:
        Unreachable: no node let us in.
    """
    if not is_peer(peer):
        raise ValueError(f"expected peer as 1 to 32 letters, digits, - and _, found {peer!r}")
    if isinstance(servers, str):
        servers = [url.strip() for url in servers.split(",") if url.strip()]
    if not servers:
        raise ValueError("expected an address such as nats://127.0.0.1:4222, found none")
    options = ConnectionOptions(
        servers=tuple(servers),
        name=f"dex-client {peer}",
        credentials=keys.of_peer(peer, credentials),
        inbox_prefix=inbox_prefix,
        first_connection_timeout_s=first_connection_timeout_s,
    )
    async with linked(options) as link:
        yield Exchange(link, peer, policy=policy or Policy(deadline_s=deadline_s), random=Random())


T = TypeVar("T")


def _or_unset(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


def _known(sequence: MinSequence) -> int:
    # A receipt that rests on no commit has none.
    return 0 if sequence is UNSET else sequence


def _given(order_id: OrderId) -> str:
    if order_id is UNSET:
        raise ValueError("expected an order's id, found that of a receipt which has none")
    return order_id


def _checked(market: str) -> str:
    # It becomes a part of a subject, where a dot or a blank would mean something else.
    if not is_market(market):
        raise ValueError(f"expected market as 1 to 24 letters, digits and dashes, found {market!r}")
    return market


def _goes_on(receipt: Receipt) -> bool:
    # The outcome of a repeated copy does not say whether there is more.
    return receipt.more is True or (receipt.duplicate is True and bool(receipt.count))


def _together(receipts: Sequence[Receipt], *, more: bool) -> Receipt:
    last = receipts[-1]
    if last.status == "rejected":
        return last
    canceled: list[str] = []
    count = 0
    for receipt in receipts:
        if receipt.canceled is not UNSET:
            canceled += receipt.canceled
            count += len(receipt.canceled)
        elif receipt.count is not UNSET:
            count += receipt.count
    is_whole = len(canceled) == count
    return structs.replace(
        last,
        canceled=canceled if is_whole else UNSET,
        count=UNSET if is_whole else count,
        more=True if more else UNSET,
        duplicate=not is_whole,
    )
