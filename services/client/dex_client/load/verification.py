"""Is what the peers were told true? The log is read, and everything is counted again.

Theory of operation. An `Audit` follows one market's log from a point before the load to one after
it, commit by commit, in two ways at once. A replica of the engine applies the events, and compares
chain and digest at every commit. And an account is kept for every order, from the events alone:
what it was accepted for, filled, and taken off. Receipts are compared with the events of their own
command the moment these have been read; what has to be there once, not at all, or in balance, is
asked at the end. Whatever does not fit is a `Violation`; a good run has none.

When the replica diverges the accounts go on, so that one report tells both.

Pure. Knows nothing of how the log is read.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from dex_client.load.record import Told
from dex_client.settling import OF_ONE_COPY
from dex_engine import Diverged, InvariantViolated, Market
from dex_protocol.codec import UNREADABLE, decode_commit
from dex_protocol.commands import Submit, time_in_force
from dex_protocol.events import (
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    Commit,
    Expired,
    Reduced,
    Rejected,
    Trade,
)
from dex_protocol.ids import Pair, pair_of
from dex_protocol.numbers import Scale
from dex_protocol.reasons import Reason
from dex_protocol.receipts import Fill, Receipt, Status
from dex_protocol.specification import Specification

ViolationKind = Literal[
    "missing",
    "duplicated",
    "refused_accepted",
    "refusal_differs",
    "unasked",
    "receipt_differs",
    "not_conserved",
    "diverged",
]
"""An acknowledged order is not in the log; an order is there twice; one that was refused, or not
executed, was accepted; a refusal is not in the log, or for another reason; an order is there that
nobody sent, or other than it was sent; a receipt says other than its events; quantities do not add
up; the log is no chain, or its digests are not the book's."""

VIOLATIONS_KEPT_MAX: Final = 100
"""Violations that are kept whole; the others are counted."""

WITHOUT_EVENT: Final = frozenset(
    reason.name
    for reason in (
        Reason.malformed,
        Reason.unknown_value,
        Reason.batch_too_large,
        Reason.wrong_peer,
        Reason.too_many_peers,
    )
)
"""Refusals that the log does not hold."""

ABOUT_THIS_COPY: Final = OF_ONE_COPY | {Reason.id_reused.name}
"""Refusals that say nothing of other copies: the order may have been accepted before."""


class Violation(Struct, frozen=True):
    """Something that must not be."""

    kind: ViolationKind
    market: str
    id: str
    """An order's id, a commit, or the market."""
    expected: str
    found: str

    @property
    def sentence(self) -> str:
        """The violation in a line."""
        return (
            f"{self.market} {self.id}: expected {self.expected}, found {self.found} ({self.kind})"
        )


class Verified(Struct, frozen=True, kw_only=True):
    """What an audit came to: a count for each kind of violation, and the first ones whole."""

    missing: int
    duplicated: int
    refused_accepted: int
    refusal_differs: int
    unasked: int
    receipt_differs: int
    not_conserved: int
    diverged: int
    digest_equal: bool
    """At every commit, and with the market's own in the end."""
    unknown_accepted: int
    """Orders of unknown outcome that the log has: no violation."""
    commits: int
    events: int
    violations: list[Violation]

    @property
    def violations_count(self) -> int:
        """All of them."""
        return sum(getattr(self, kind) for kind in get_args(ViolationKind))


class _Account(Struct, gc=False):
    # What the events say of one order, in lots.
    side: str
    quantity: int
    filled: int = 0
    taken_off: int = 0


class _Doing(Struct):
    # What has been read so far of the events of one command of ours.
    told: Told
    account: _Account
    event: Accepted
    fills: list[Fill]
    filled: int = 0
    value: int = 0
    version: int = 1
    done: Status = "canceled"


class Audit:
    """Follows one market's log, and compares it with what its peers were told.

    Attributes:
        market: Its name.
        sequence: The newest commit that was read.
        newest_told: The newest commit that a receipt rests on; the log has to go at least so far.
        commits, events: How many were read.
        violations: The first ones; `counts` has how many there were of each kind.

    Ordering: `read` each commit once, from the one after the replica's on; then `finish`.
    """

    def __init__(
        self,
        replica: Market,
        told: Mapping[str, Told],
        *,
        specification: Specification,
        above: Mapping[str, Pair],
    ) -> None:
        """Begin.

        Args:
            replica: The market as it was before the load; it is followed from there.
            specification: The market's, whose steps never change.
            told: The orders of the run by id, with what came of them.
            above: The peers of the run, and the pair above which all their ids are this run's.
        """
        self.market = replica.name
        self.commits = 0
        self.events = 0
        self.unknown_accepted = 0
        self.digest_equal = True
        self.violations: list[Violation] = []
        self.counts: dict[ViolationKind, int] = dict.fromkeys(get_args(ViolationKind), 0)
        self._replica: Market | None = replica
        self._tick = Scale(specification.tick_size)
        self._lot = Scale(specification.lot_size)
        self._told = told
        self._above = above
        self.sequence: int = replica.sequence
        self.newest_told = max(
            (
                each.outcome.sequence
                for each in self._told.values()
                if isinstance(each.outcome, Receipt) and each.outcome.sequence is not UNSET
            ),
            default=0,
        )
        self._bought = 0
        self._sold = 0
        self._refusals: dict[str, str] = {}
        # Orders told as duplicates: what was filled when they were accepted.
        self._filled_at_first: dict[str, int] = {}
        self._doing: _Doing | None = None
        self._accounts = {
            order.order_id: _Account(order.side, order.quantity, order.filled)
            for order in replica.orders.values()
        }

    # --- Reading ----------------------------------------------------------------------------

    def read(self, payload: bytes) -> None:
        """Follow one stored commit."""
        commit = self._applied(payload)
        if commit is None:
            return
        self.sequence = commit.sequence
        self.commits += 1
        self.events += len(commit.events)
        for event in commit.events:
            self._count(event)
        self._close()

    def _applied(self, payload: bytes) -> Commit | None:
        if self._replica is not None:
            try:
                return self._replica.apply_commit(payload)
            except Diverged as error:
                self._diverged(
                    f"commit {error.sequence}", f"{error.what} {error.expected}", f"{error.found}"
                )
        try:
            return decode_commit(payload)
        except UNREADABLE as error:
            self._diverged(f"after commit {self.sequence}", "a commit", str(error))
            return None

    def _diverged(self, where: str, expected: str, found: str) -> None:
        # What was applied in part must not be used any more.
        self._replica = None
        self.digest_equal = False
        self._violate("diverged", where, expected, found)

    def _count(self, event: AnyEvent) -> None:
        match event:
            case Accepted():
                self._close()
                self._accepted(event)
            case Trade():
                self._traded(event)
            case Rejected():
                self._rejected(event)
            case Reduced() | Canceled() | Expired():
                self._taken_off(event)
            case Amended():
                self._close()
                account = self._account_of(event.order_id)
                account.quantity = self._lots(event.quantity) + account.taken_off

    def _accepted(self, event: Accepted) -> None:
        order_id = event.order_id
        account = _Account(event.side, self._lots(event.quantity))
        if order_id in self._accounts or order_id in self._refusals:
            self._violate("duplicated", order_id, "one outcome in the log", "another: accepted")
        self._accounts[order_id] = account
        told = self._told.get(order_id)
        if told is not None:
            self._doing = _Doing(told, account, event, [])
        elif self._is_ours(event.peer, order_id):
            self._violate("unasked", order_id, "orders that were sent", "an order nobody sent")

    def _is_ours(self, peer: str, order_id: str) -> bool:
        above = self._above.get(peer)
        return above is not None and pair_of(order_id) > above

    def _traded(self, event: Trade) -> None:
        quantity = self._lots(event.quantity)
        maker = self._account_of(event.maker_order_id)
        taker = self._account_of(event.taker_order_id)
        maker.filled += quantity
        taker.filled += quantity
        for account in (maker, taker):
            if account.side == "buy":
                self._bought += quantity
            else:
                self._sold += quantity
        doing = self._doing
        if doing is not None and doing.event.order_id == event.taker_order_id:
            fill = Fill(event.trade_id, event.price, event.quantity, event.maker_order_id)
            doing.fills.append(fill)
            doing.filled += quantity
            doing.value += quantity * self._ticks(event.price)
            doing.done = "filled"

    def _taken_off(self, event: Reduced | Canceled | Expired) -> None:
        self._account_of(event.order_id).taken_off += self._lots(event.quantity)
        doing = self._doing
        if doing is not None and doing.event.order_id == event.order_id:
            doing.done = "canceled"
            if type(event) is Reduced:
                doing.version += 1

    def _rejected(self, event: Rejected) -> None:
        if event.command_id is not UNSET or event.order_id is UNSET:
            return
        order_id = event.order_id
        if order_id in self._accounts or order_id in self._refusals:
            self._violate("duplicated", order_id, "one outcome in the log", "another: rejected")
        if order_id in self._told:
            self._refusals[order_id] = event.reason
        elif self._is_ours(event.peer, order_id):
            self._violate("unasked", order_id, "orders that were sent", "an order nobody sent")

    def _account_of(self, order_id: str) -> _Account:
        account = self._accounts.get(order_id)
        if account is None:
            self._violate("not_conserved", order_id, "an accepted order", "none in the log")
            account = self._accounts[order_id] = _Account("buy", 0)
        return account

    def _ticks(self, text: str | UnsetType) -> int:
        return 0 if text is UNSET else self._tick.count(text) or 0

    def _lots(self, text: str) -> int:
        return self._lot.count(text) or 0

    # --- One order --------------------------------------------------------------------------

    def _close(self) -> None:
        # All events of a command have been read: compare them with what its peer was told.
        doing = self._doing
        if doing is None:
            return
        self._doing = None
        order_id = doing.event.order_id
        self._compare_order(doing.told.order, doing.event)
        self._compare_quantities(order_id, doing.account, self._lots(doing.event.resting_quantity))
        outcome = doing.told.outcome
        if outcome == "unknown":
            self.unknown_accepted += 1
        elif outcome == "unavailable":
            self._violate("refused_accepted", order_id, "nothing executed", "accepted in the log")
        elif outcome.status == "rejected":
            if outcome.reason not in ABOUT_THIS_COPY:
                self._violate(
                    "refused_accepted",
                    order_id,
                    f"rejected ({outcome.reason})",
                    "accepted in the log",
                )
        elif outcome.duplicate is True:
            # It shows the order as it stood some time later.
            self._filled_at_first[order_id] = doing.filled
        else:
            self._compare_receipt(doing, outcome)

    def _compare_order(self, order: Submit, event: Accepted) -> None:
        wanted = {
            "side": (order.side, event.side),
            "type": (order.type, event.type),
            "price": (self._ticks(order.price), self._ticks(event.price)),
            "quantity": (self._lots(order.quantity), self._lots(event.quantity)),
            "time_in_force": (time_in_force(order), event.time_in_force),
            "expires_at": (order.expires_at, event.expires_at),
            "post_only": (order.post_only, event.post_only),
            "self_trade": (order.self_trade, event.self_trade),
        }
        for name, (sent, stored) in wanted.items():
            if sent != stored:
                self._violate(
                    "unasked",
                    event.order_id,
                    f"accepted with {name} {_shown(sent)}",
                    f"{name} {_shown(stored)}",
                )

    def _compare_quantities(self, order_id: str, account: _Account, remaining: int) -> None:
        if account.filled + account.taken_off + remaining != account.quantity:
            self._violate(
                "not_conserved",
                order_id,
                f"{account.quantity} lots",
                f"{account.filled} filled + {account.taken_off} taken off + {remaining} open",
            )

    def _compare_receipt(self, doing: _Doing, receipt: Receipt) -> None:
        remaining = self._lots(doing.event.resting_quantity)
        status = doing.done
        if remaining > 0:
            status = "partially_filled" if doing.filled else "new"
        expected = Receipt(
            status,
            order_id=doing.event.order_id,
            filled_quantity=self._lot.text(doing.filled),
            remaining_quantity=self._lot.text(remaining),
            average_price=(
                self._tick.average_text(doing.value, doing.filled) if doing.filled else UNSET
            ),
            trades=doing.fills,
            version=doing.version,
            sequence=self.sequence,
            duplicate=False,
        )
        if receipt == expected:
            return
        # What is false or empty may also be left out.
        for name in expected.__struct_fields__:
            wanted, found = getattr(expected, name), getattr(receipt, name)
            if wanted != found and (wanted or found):
                self._violate(
                    "receipt_differs",
                    doing.event.order_id,
                    f"a receipt with {name} {_shown(wanted)}",
                    f"{name} {_shown(found)}",
                )

    # --- The end ----------------------------------------------------------------------------

    def finish(self, *, sequence: int, digest: str) -> None:
        """Ask what can be asked only at the end.

        Args:
            sequence: A commit of the log.
            digest: The book's at that commit, as the market itself tells it.
        """
        self._finish_digest(sequence, digest)
        for order_id, told in self._told.items():
            self._finish_order(order_id, told)
        for order_id, account in self._accounts.items():
            self._finish_account(order_id, account)
        if self._bought != self._sold:
            self._violate(
                "not_conserved",
                "all trades",
                f"as much sold as bought, {self._bought} lots",
                f"{self._sold}",
            )

    def _finish_digest(self, sequence: int, digest: str) -> None:
        if self.sequence != sequence:
            self._diverged(
                "the log", f"commits up to {sequence}", f"the newest to be {self.sequence}"
            )
        elif self._replica is not None and self._replica.digest != digest:
            self._diverged(f"commit {sequence}", f"digest {self._replica.digest}", digest)
        if self._replica is not None:
            try:
                self._replica.check()
            except InvariantViolated as error:
                self._diverged(f"commit {sequence}", "every invariant of the book", str(error))

    def _finish_order(self, order_id: str, told: Told) -> None:
        is_accepted = order_id in self._accounts
        refusal = self._refusals.get(order_id)
        outcome = told.outcome
        if outcome == "unknown":
            return
        if outcome == "unavailable":
            if refusal is not None:
                self._violate(
                    "refusal_differs", order_id, "nothing executed", f"rejected ({refusal})"
                )
        elif outcome.status != "rejected":
            if not is_accepted:
                found = "nothing" if refusal is None else f"rejected ({refusal})"
                self._violate("missing", order_id, "accepted in the log", found)
            elif outcome.duplicate is True:
                self._finish_duplicate(order_id, outcome)
        elif (
            not is_accepted
            and refusal != outcome.reason
            and outcome.reason not in WITHOUT_EVENT
            and outcome.reason not in ABOUT_THIS_COPY
        ):
            found = "nothing" if refusal is None else f"rejected ({refusal})"
            self._violate(
                "refusal_differs", order_id, f"rejected ({outcome.reason}) in the log", found
            )

    def _finish_duplicate(self, order_id: str, receipt: Receipt) -> None:
        least, most = self._filled_at_first[order_id], self._accounts[order_id].filled
        found = 0 if receipt.filled_quantity is UNSET else self._lots(receipt.filled_quantity)
        if not least <= found <= most:
            self._violate(
                "receipt_differs",
                order_id,
                f"a receipt with {least} to {most} lots filled",
                f"{found}",
            )

    def _finish_account(self, order_id: str, account: _Account) -> None:
        if self._replica is None:
            return
        resting = self._replica.orders.get(order_id)
        remaining = 0 if resting is None else resting.remaining
        self._compare_quantities(order_id, account, remaining)
        if resting is not None and resting.filled != account.filled:
            self._violate(
                "not_conserved", order_id, f"{account.filled} lots filled", f"{resting.filled}"
            )

    def _violate(self, kind: ViolationKind, what: str, expected: str, found: str) -> None:
        self.counts[kind] += 1
        if len(self.violations) < VIOLATIONS_KEPT_MAX:
            self.violations.append(Violation(kind, self.market, what, expected, found))


def total(audits: list[Audit]) -> Verified:
    """Sum up the audits of all markets."""
    counts: dict[str, int] = {
        kind: sum(audit.counts[kind] for audit in audits) for kind in get_args(ViolationKind)
    }
    violations = [violation for audit in audits for violation in audit.violations]
    return Verified(
        **counts,
        digest_equal=all(audit.digest_equal for audit in audits),
        unknown_accepted=sum(audit.unknown_accepted for audit in audits),
        commits=sum(audit.commits for audit in audits),
        events=sum(audit.events for audit in audits),
        violations=violations[:VIOLATIONS_KEPT_MAX],
    )


def _shown(value: object) -> str:
    if value is UNSET:
        return "left out"
    return msgspec.json.encode(value).decode()
