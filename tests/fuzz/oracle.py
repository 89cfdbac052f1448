"""Which refusal a request must get before anybody looks at the market: 1001 to 1004, or none.

Written from docs/PROTOCOL.md alone, and from RFC 8259 where that says "JSON"; deliberately without
the codec, whose judge it is. It is slow and plain: a request is read whole into Python's own types,
and every rule of the document is one condition.

What the document leaves open stays open here: of an object that names a field twice (RFC 8259: "the
behavior of software that receives such an object is unpredictable") any refusal is right, and if it
is executed, then as its last names say, which must themselves be in order.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

MALFORMED: Final = "malformed"
UNKNOWN_VALUE: Final = "unknown_value"
BATCH_TOO_LARGE: Final = "batch_too_large"
WRONG_PEER: Final = "wrong_peer"

INTEGER_MAX: Final = 2**63 - 1
BATCH_MAX: Final = 1_000
DIGITS_MAX: Final = 4_000
"""Digits that Python reads as an integer; with more, a number is beyond every bound there is."""

SIDES: Final = ("buy", "sell")
TYPES: Final = ("limit", "market")
TIMES_IN_FORCE: Final = ("gtc", "ioc", "fok", "gtd")
SELF_TRADES: Final = ("cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow")

FIELDS: Final[dict[str, dict[str, str]]] = {
    # Of each command its fields, and what each holds.
    "submit": {
        "order_id": "text",
        "side": "text",
        "type": "text",
        "price": "decimal",
        "quantity": "decimal",
        "time_in_force": "text",
        "expires_at": "integer",
        "post_only": "boolean",
        "self_trade": "text",
    },
    "cancel": {"command_id": "text", "order_id": "text", "if_version": "integer"},
    "amend": {
        "command_id": "text",
        "order_id": "text",
        "price": "decimal",
        "quantity": "decimal",
        "if_version": "integer",
    },
    "cancel_all": {"command_id": "text", "side": "text"},
}
REQUIRED: Final = {
    "submit": ("side", "quantity"),
    "cancel": ("order_id",),
    "amend": ("order_id",),
    "cancel_all": (),
}
LISTS: Final = {
    "side": SIDES,
    "type": TYPES,
    "time_in_force": TIMES_IN_FORCE,
    "self_trade": SELF_TRADES,
}

PEER: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
DECIMAL: Final = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?", re.ASCII)
NUMBER: Final = re.compile(r"0|[1-9][0-9]*", re.ASCII)


class Unreadable(Exception):
    """These bytes are no JSON in UTF-8, or nest too deeply to be read."""


class NoInteger:
    """A number that is written with a fraction or an exponent, or is beyond every bound."""


@dataclass(frozen=True)
class Twice:
    """An object that names a field twice; `fields` has the last of each."""

    fields: dict[str, Any]
    pairs: list[tuple[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """What must become of one command.

    Attributes:
        reason: Why it is refused; None when it reaches the market.
        command: As the reference engine takes it, when it may reach the market.
        is_open: Whether the document leaves open if it is refused, and for which of the reasons.
    """

    reason: str | None
    command: dict[str, Any] | None = None
    is_open: bool = False


@dataclass(frozen=True)
class Answer:
    """What a request must be answered: one verdict for each command, and in which shape."""

    verdicts: list[Verdict]
    is_array: bool


def judge(payload: bytes, peer: str) -> Answer:
    """Tell how a request of a peer must be answered."""
    if not PEER.fullmatch(peer):
        return Answer([Verdict(MALFORMED)], is_array=False)
    try:
        value = read(payload)
    except Unreadable:
        return Answer([Verdict(MALFORMED)], is_array=False)
    if not isinstance(value, list):
        return Answer([judge_command(value, peer)], is_array=False)
    if not value:
        return Answer([Verdict(MALFORMED)], is_array=False)
    if len(value) > BATCH_MAX:
        return Answer([Verdict(BATCH_TOO_LARGE)], is_array=False)
    return Answer([judge_command(element, peer) for element in value], is_array=True)


# --- Reading ------------------------------------------------------------------------------------


def read(payload: bytes) -> Any:
    """Read JSON as RFC 8259 has it; bytes in texts that are no UTF-8 become lone surrogates."""
    if any(_surrogates(_loaded(payload.decode("utf-8", "replace")))):
        # Half a pair of escapes: it stands for no text, and nothing around it can be trusted.
        raise Unreadable
    return _loaded(payload.decode("utf-8", "surrogateescape"))


def _loaded(text: str) -> Any:
    try:
        return json.loads(
            # A byte order mark is no white space.
            text,
            object_pairs_hook=_members,
            parse_float=lambda _: NoInteger(),
            parse_int=_integer,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise Unreadable from error


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Twice:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else Twice(fields, pairs)


def _integer(text: str) -> int | NoInteger:
    return int(text) if len(text) <= DIGITS_MAX else NoInteger()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _surrogates(value: Any) -> list[str]:
    """Give all halves of surrogate pairs in all texts of a value."""
    match value:
        case str():
            return (
                [] if value.isascii() else [each for each in value if "\ud800" <= each <= "\udfff"]
            )
        case dict():
            return [each for pair in value.items() for part in pair for each in _surrogates(part)]
        case list():
            return [each for part in value for each in _surrogates(part)]
        case Twice():
            # Those that do not count are read too.
            return [each for pair in value.pairs for part in pair for each in _surrogates(part)]
        case _:
            return []


# --- One command --------------------------------------------------------------------------------


def judge_command(value: Any, peer: str) -> Verdict:
    """Tell what must become of a command that was read."""
    if isinstance(value, Twice):
        reason = _reason(value.fields, peer)
        return Verdict(reason, None if reason else value.fields, is_open=True)
    reason = _reason(value, peer)
    return Verdict(reason, None if reason else value)


def _reason(fields: Any, peer: str) -> str | None:
    """Climb the ladder: malformed, then unknown_value, then wrong_peer."""
    if not isinstance(fields, dict):
        return MALFORMED
    if any(_surrogates(fields)):
        return MALFORMED
    op = fields.get("op")
    if not isinstance(op, str):
        return MALFORMED
    if op not in FIELDS:
        # What its other fields should be, nobody knows.
        return UNKNOWN_VALUE
    if _has_wrong_shape(op, fields) or _contradicts_itself(op, fields):
        return MALFORMED
    if any(fields[name] not in LISTS[name] for name in LISTS if name in fields):
        return UNKNOWN_VALUE
    if any(_peer_of(fields[name]) != peer for name in ("order_id", "command_id") if name in fields):
        return WRONG_PEER
    return None


def _has_wrong_shape(op: str, fields: dict[str, Any]) -> bool:
    kinds = FIELDS[op]
    if any(name != "op" and name not in kinds for name in fields):
        return True
    if any(name not in fields for name in REQUIRED[op]):
        return True
    if any(not _is_a(kinds[name], fields[name]) for name in fields if name != "op"):
        return True
    if "command_id" in fields and not _is_id("command", fields["command_id"], timestamp_min=1):
        return True
    # Servers name orders with the timestamp 0, which a peer may speak of, but not use.
    timestamp_min = 1 if op == "submit" else 0
    return "order_id" in fields and not _is_id(
        "order", fields["order_id"], timestamp_min=timestamp_min
    )


def _is_a(kind: str, value: Any) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "decimal":
            return isinstance(value, str) and DECIMAL.fullmatch(value) is not None
        case "boolean":
            return isinstance(value, bool)
        case _:
            is_integer = isinstance(value, int) and not isinstance(value, bool)
            return is_integer and -INTEGER_MAX <= value <= INTEGER_MAX


def _is_id(kind: str, text: str, *, timestamp_min: int) -> bool:
    """Parse an id from the right."""
    parts = text.rsplit("_", 2)
    if len(parts) != 3:
        return False
    head, timestamp, number = parts
    prefix = f"{kind}_"
    return (
        head.startswith(prefix)
        and PEER.fullmatch(head.removeprefix(prefix)) is not None
        and _is_number(timestamp, timestamp_min, 10**14)
        and _is_number(number, 1, 10**12)
    )


def _is_number(text: str, least: int, end: int) -> bool:
    return len(text) <= 20 and NUMBER.fullmatch(text) is not None and least <= int(text) < end


def _peer_of(text: str) -> str:
    """Give the peer of a well-formed id."""
    return text.rsplit("_", 2)[0].partition("_")[2]


def _contradicts_itself(op: str, fields: dict[str, Any]) -> bool:
    """Tell whether fields that are in order do not go together.

    A value outside its list contradicts nothing, since nobody knows what it means.
    """
    if op == "amend":
        return "price" not in fields and "quantity" not in fields
    if op != "submit":
        return False
    order_type = fields.get("type", "limit")
    time_in_force = fields.get("time_in_force", "ioc" if order_type == "market" else "gtc")
    if order_type == "limit" and "price" not in fields:
        return True
    if order_type == "market" and ("price" in fields or time_in_force in ("gtc", "gtd")):
        return True
    if time_in_force == "gtd" and "expires_at" not in fields:
        return True
    if "expires_at" in fields and time_in_force in ("gtc", "ioc", "fok"):
        return True
    is_post_only = fields.get("post_only", False)
    return is_post_only and (order_type == "market" or time_in_force in ("ioc", "fok"))
