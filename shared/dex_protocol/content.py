"""The content hash of a command: what must be equal for a resend to be a resend.

The canonical form is JSON with sorted keys and no white space, without the command's own id, with
defaults filled in and decimals normalized. It is written by hand, since every string in it was
found to need no escape; tests compare it with a JSON library's.
"""

from hashlib import blake2b
from typing import Final

from msgspec import UNSET, UnsetType

from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Submit, time_in_force
from dex_protocol.numbers import normal

_BEGUN: Final = blake2b(digest_size=8)
# A copy of it is made in half the time of another one.


def content_of(command: Command) -> str:
    """Hash a well-formed command: 16 hex digits."""
    if type(command) is Cancel and command.if_version is UNSET:
        # Half of all commands: 0.2 µs less.
        return _hash(f'{{"op":"cancel","order_id":"{command.order_id}"}}')
    return _hash(canonical(command))


def canonical(command: Command) -> str:
    """Write a well-formed command's content as canonical JSON."""
    match command:
        case Submit():
            return canonical_submit(
                side=command.side,
                type=command.type,
                price=UNSET if command.price is UNSET else normal(command.price),
                quantity=normal(command.quantity),
                time_in_force=time_in_force(command),
                expires_at=command.expires_at,
                post_only=command.post_only,
                self_trade=command.self_trade,
            )
        case Cancel():
            version = _member("if_version", command.if_version)
            return f'{{{version}"op":"cancel","order_id":"{command.order_id}"}}'
        case Amend():
            version = _member("if_version", command.if_version)
            price = "" if command.price is UNSET else f',"price":"{normal(command.price)}"'
            quantity = (
                "" if command.quantity is UNSET else f',"quantity":"{normal(command.quantity)}"'
            )
            return f'{{{version}"op":"amend","order_id":"{command.order_id}"{price}{quantity}}}'
        case CancelAll():
            side = "" if command.side is UNSET else f',"side":"{command.side}"'
            return f'{{"op":"cancel_all"{side}}}'


def canonical_submit(
    *,
    side: str,
    type: str,
    price: str | UnsetType,
    quantity: str,
    time_in_force: str,
    expires_at: int | UnsetType,
    post_only: bool,
    self_trade: str,
) -> str:
    """Write a submit's content from its fields, decimals normalized already."""
    expires = _member("expires_at", expires_at)
    post = "true" if post_only else "false"
    at_price = "" if price is UNSET else f'"price":"{price}",'
    return (
        f'{{{expires}"op":"submit","post_only":{post},{at_price}"quantity":"{quantity}",'
        f'"self_trade":"{self_trade}","side":"{side}","time_in_force":"{time_in_force}",'
        f'"type":"{type}"}}'
    )


def content_of_submit(
    *,
    side: str,
    type: str,
    price: str | UnsetType,
    quantity: str,
    time_in_force: str,
    expires_at: int | UnsetType,
    post_only: bool,
    self_trade: str,
) -> str:
    """Hash a submit given by its fields: 16 hex digits."""
    return _hash(
        canonical_submit(
            side=side,
            type=type,
            price=price,
            quantity=quantity,
            time_in_force=time_in_force,
            expires_at=expires_at,
            post_only=post_only,
            self_trade=self_trade,
        )
    )


def _hash(text: str) -> str:
    hashed = _BEGUN.copy()
    hashed.update(text.encode())
    return hashed.hexdigest()


def _member(name: str, value: int | UnsetType) -> str:
    return "" if value is UNSET else f'"{name}":{value},'
