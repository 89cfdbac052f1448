"""What a peer is answered: receipts, and the answer `retry`.

Knows nothing of when a receipt may be sent: the leader sends what rests on its log only after the
log has it.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from dex_protocol.reasons import Reason, RetryReason

Status = Literal["new", "partially_filled", "filled", "canceled", "expired", "rejected", "retry"]
DoneStatus = Literal["filled", "canceled", "expired"]


class Fill(Struct, gc=False):
    """One trade of a receipt's own command, as its taker sees it."""

    trade_id: int
    price: str
    quantity: str
    maker_order_id: str


class Receipt(Struct, omit_defaults=True, gc=False):
    """The answer to one command; fields that do not apply are left out.

    `trades` are in the order they happened, `canceled` in order of acceptance.
    """

    status: Status
    order_id: str | UnsetType = UNSET
    command_id: str | UnsetType = UNSET
    filled_quantity: str | UnsetType = UNSET
    remaining_quantity: str | UnsetType = UNSET
    average_price: str | UnsetType = UNSET
    trades: list[Fill] | UnsetType = UNSET
    version: int | UnsetType = UNSET
    sequence: int | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    canceled: list[str] | UnsetType = UNSET
    more: bool | UnsetType = UNSET
    count: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    order_status: DoneStatus | UnsetType = UNSET
    message: str | UnsetType = UNSET


def refused(
    reason: Reason,
    message: str | None = None,
    *,
    order_id: str | UnsetType = UNSET,
    command_id: str | UnsetType = UNSET,
) -> Receipt:
    """Make the receipt of a refusal that needs no state (1001 to 1004), or a query's."""
    return Receipt(
        status="rejected",
        order_id=order_id,
        command_id=command_id,
        reason=reason.name,
        message=message or reason.sentence,
    )


def retry(
    reason: RetryReason,
    message: str | None = None,
    *,
    order_id: str | UnsetType = UNSET,
    command_id: str | UnsetType = UNSET,
) -> Receipt:
    """Make the answer that this copy was not and will not be executed."""
    return Receipt(
        status="retry",
        order_id=order_id,
        command_id=command_id,
        reason=reason.name,
        message=message or reason.sentence,
    )
