"""What a peer asks for: the four commands, and what makes one well-formed.

Knows nothing of books: what is asked here needs no state (reasons 1001, 1002 and 1004). Decoding
is in codec.py. Strings that hold decimals stay strings; the market converts them.
"""

from typing import Final, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from dex_protocol.ids import SERVER_NAMED_END, Kind, own_pair, parse_id
from dex_protocol.numbers import DECIMAL_LENGTH_MAX, short_units, units

Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market"]
TimeInForce = Literal["gtc", "ioc", "fok", "gtd"]
SelfTrade = Literal["cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow"]

TIME_MAX: Final = 2**63 - 1
"""The greatest time, and the greatest integer of any command: a signed 64-bit integer."""


class Submit(
    Struct, tag_field="op", tag="submit", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """A new order.

    `time_in_force` left out is `gtc` for a limit and `ioc` for a market order.
    """

    side: Side
    quantity: str
    order_id: str | UnsetType = UNSET
    type: OrderType = "limit"
    price: str | UnsetType = UNSET
    time_in_force: TimeInForce | UnsetType = UNSET
    expires_at: int | UnsetType = UNSET
    post_only: bool = False
    self_trade: SelfTrade = "cancel_taker"


class Cancel(
    Struct, tag_field="op", tag="cancel", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """Take what is left of an order out of the book; with `if_version`, of that version only."""

    order_id: str
    command_id: str | UnsetType = UNSET
    if_version: int | UnsetType = UNSET


class Amend(
    Struct, tag_field="op", tag="amend", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """Change an order's price, its quantity (the new total), or both."""

    order_id: str
    command_id: str | UnsetType = UNSET
    price: str | UnsetType = UNSET
    quantity: str | UnsetType = UNSET
    if_version: int | UnsetType = UNSET


class CancelAll(
    Struct,
    tag_field="op",
    tag="cancel_all",
    forbid_unknown_fields=True,
    omit_defaults=True,
    gc=False,
):
    """Cancel the peer's open orders of a side, or of both, the oldest first."""

    command_id: str | UnsetType = UNSET
    side: Side | UnsetType = UNSET


Command: TypeAlias = Submit | Cancel | Amend | CancelAll


def time_in_force(command: Submit) -> TimeInForce:
    """Give an order's time in force, its default filled in."""
    if command.time_in_force is not UNSET:
        return command.time_in_force
    return "gtc" if command.type == "limit" else "ioc"


def own_id(command: Command) -> str | UnsetType:
    """Give the id that makes the command unique: an order's own, or the command's."""
    return command.order_id if type(command) is Submit else command.command_id  # type: ignore[union-attr]


def what_is_malformed(command: Command) -> str | None:
    """Tell what makes a decoded command malformed (1001), in a sentence; None if nothing."""
    match command:
        case Submit():
            return _malformed_submit(command)
        case Cancel():
            return _malformed_ids(command) or _malformed_version(command)
        case Amend():
            if command.price is UNSET and command.quantity is UNSET:
                return "expected a price or a quantity to change, found neither"
            return (
                _malformed_ids(command)
                or _malformed_decimal("price", command.price)
                or _malformed_decimal("quantity", command.quantity)
                or _malformed_version(command)
            )
        case CancelAll():
            return _malformed_id(command.command_id, "command")


def is_surely_well_formed(command: Command, order_head: str, command_head: str) -> bool:
    """Tell whether nothing is wrong with a command of the usual kinds, and that it is its peer's.

    In a third of the time (1 µs) that the questions above and below take, which say what is wrong:
    whatever is not one of the usual kinds is theirs to answer.

    Args:
        command: Decoded.
        order_head: What its peer's order ids begin with, as `ids.head_of` writes it.
        command_head: The same of command ids.
    """
    if type(command) is Submit:
        return (
            command.type == "limit"
            and (
                command.time_in_force is UNSET
                or (command.time_in_force != "gtd" and not command.post_only)
            )
            and command.expires_at is UNSET
            and command.price is not UNSET
            and command.order_id is not UNSET
            # Without a call more for each, which `units` would be.
            and len(command.price) <= DECIMAL_LENGTH_MAX
            and len(command.quantity) <= DECIMAL_LENGTH_MAX
            and short_units(command.price) is not None
            and short_units(command.quantity) is not None
            and (pair := own_pair(command.order_id, order_head)) is not None
            and pair >= SERVER_NAMED_END
        )
    if type(command) is Cancel:
        return (
            command.if_version is UNSET
            and command.command_id is not UNSET
            and own_pair(command.order_id, order_head) is not None
            and (pair := own_pair(command.command_id, command_head)) is not None
            and pair >= SERVER_NAMED_END
        )
    return False


def names_another_peer(command: Command, peer: str) -> str | None:
    """Give the first id of a well-formed command that names another peer (1004), if one does."""
    if type(command) is not CancelAll:
        order_id = command.order_id  # type: ignore[union-attr]
        if order_id is not UNSET and not _is_of(order_id, peer):
            return str(order_id)
    if type(command) is not Submit:
        command_id = command.command_id  # type: ignore[union-attr]
        if command_id is not UNSET and not _is_of(command_id, peer):
            return str(command_id)
    return None


def _malformed_submit(command: Submit) -> str | None:
    if units(command.quantity) is None:
        return _malformed_decimal("quantity", command.quantity)
    if command.order_id is not UNSET:
        wrong = _malformed_id(command.order_id, "order")
        if wrong is not None:
            return wrong
    if command.type == "limit":
        if command.price is UNSET:
            return "expected a price, for a limit order, found none"
        if units(command.price) is None:
            return _malformed_decimal("price", command.price)
    elif command.type == "market":
        if command.price is not UNSET:
            return "expected no price, for a market order, found one"
        if command.time_in_force in ("gtc", "gtd"):
            return f"expected ioc or fok, for a market order, found {command.time_in_force}"
    elif command.price is not UNSET and units(command.price) is None:
        # A type outside its list is not yet what is wrong (1002): a decimal is read before.
        return _malformed_decimal("price", command.price)
    if command.expires_at is not UNSET and abs(command.expires_at) > TIME_MAX:
        return f"expected expires_at of at most {TIME_MAX}, found a greater one"
    if command.time_in_force == "gtd":
        if command.expires_at is UNSET:
            return "expected expires_at, for a gtd order, found none"
    elif command.expires_at is not UNSET and command.time_in_force in (UNSET, "gtc", "ioc", "fok"):
        return "expected expires_at with gtd only, found it with another time in force"
    if command.post_only and (command.type == "market" or command.time_in_force in ("ioc", "fok")):
        return "expected post_only with gtc and gtd only, found it with another time in force"
    return None


def _malformed_ids(command: Cancel | Amend) -> str | None:
    # A target may be an order that a server named, with the timestamp 0.
    if parse_id(command.order_id, "order") is None:
        return _expected_id(command.order_id, "order")
    return _malformed_id(command.command_id, "command")


def _malformed_id(text: str | UnsetType, kind: Kind) -> str | None:
    if text is UNSET:
        return None
    parsed = parse_id(text, kind)
    # Only servers name orders with the timestamp 0.
    if parsed is None or parsed[1] < SERVER_NAMED_END:
        return _expected_id(text, kind)
    return None


def _expected_id(text: str, kind: Kind) -> str:
    return f"expected an id {kind}_{{peer}}_{{timestamp}}_{{sequence_number}}, found {text[:80]!r}"


def _malformed_decimal(name: str, text: str | UnsetType) -> str | None:
    if text is UNSET or units(text) is not None:
        return None
    return f'expected {name} as a decimal in a string, such as "100.5", found {text[:80]!r}'


def _malformed_version(command: Cancel | Amend) -> str | None:
    if command.if_version is UNSET or abs(command.if_version) <= TIME_MAX:
        return None
    return f"expected if_version of at most {TIME_MAX}, found a greater one"


def _is_of(text: str, peer: str) -> bool:
    return text.rsplit("_", 2)[0].partition("_")[2] == peer
