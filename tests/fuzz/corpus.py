"""Requests that are worth keeping, each with the reason that it must be refused for.

All are alice's. A reason None stands for a request that reaches the market; a list, for an array
whose elements are answered one by one. A request that ever got a wrong reason is kept here.
"""

from typing import Final

ORDER: Final = b'"order_alice_1763800000000_17"'
COMMAND: Final = b'"command_alice_1763800000000_18"'
LIMIT: Final = b'"op":"submit","side":"buy","price":"100","quantity":"1"'

Reasons = str | None | list[str | None]


def limit(more: bytes) -> bytes:
    """Write a limit order with more fields."""
    return b"{%b,%b}" % (LIMIT, more)


def cancel(more: bytes) -> bytes:
    """Write a cancel with more fields."""
    return b'{"op":"cancel","order_id":%b,%b}' % (ORDER, more)


CORPUS: Final[list[tuple[str, bytes, Reasons]]] = [
    # Bytes.
    ("nothing", b"", "malformed"),
    ("a byte order mark", b"\xef\xbb\xbf{%b}" % LIMIT, "malformed"),
    ("UTF-16", '{"op":"cancel_all"}'.encode("utf-16"), "malformed"),
    ("no UTF-8 in an unknown command", b'{"op":"x","a":"\xff"}', "malformed"),
    ("no UTF-8 in the name of a field of an unknown command", b'{"op":"x","\xc3":1}', "malformed"),
    ("an encoded surrogate", b'{"op":"x","a":"\xed\xa0\x80"}', "malformed"),
    ("an overlong slash", b'{"op":"x","a":"\xc0\xaf"}', "malformed"),
    ("no UTF-8 in one of two", b'[{"op":"cancel_all"},{"op":"\xff"}]', [None, "malformed"]),
    ("no UTF-8 in an unknown one of two", b'[{"op":"x","a":"\xff"},{"op":"x"}]',
     ["malformed", "unknown_value"]),
    ("half a pair of escapes", b'{"op":"x","a":"\\ud83d"}', "malformed"),
    ("a pair of escapes", b'{"op":"x","a":"\\ud83d\\ude00"}', "unknown_value"),
    ("a control character", b'{"op":"x","a":"\x1f"}', "malformed"),
    ("a delete character", b'{"op":"x","a":"\x7f"}', "unknown_value"),
    ("a zero as an escape", limit(b'"order_id":"\\u0000"'), "malformed"),
    # Structure.
    ("arrays without end", b"[" * 100_000, "malformed"),
    ("objects without end", b'{"op":' * 100_000, "malformed"),
    ("an empty array", b"[ ]", "malformed"),
    ("an array in an array", b'[[{"op":"cancel_all"}]]', ["malformed"]),
    ("1,001 of nothing", b"[" + b",".join([b"0"] * 1_001) + b"]", "batch_too_large"),
    ("an array and more", b'[{"op":"cancel_all"}]]', "malformed"),
    ("a comma too many", b'[{"op":"cancel_all"},]', "malformed"),
    # Names.
    ("a name in escapes", b'{"\\u006fp":"cancel\\u005fall"}', None),
    ("a name in capitals", b'{"Op":"cancel_all"}', "malformed"),
    ("an empty name", limit(b'"":1'), "malformed"),
    ("a name that looks alike", limit(b'"post_only\xe2\x80\x8b":true'), "malformed"),
    ("a field of another command", limit(b'"if_version":1'), "malformed"),
    # Numbers.
    ("minus zero", cancel(b'"if_version":-0'), None),
    ("zero with a fraction", cancel(b'"if_version":0.0'), "malformed"),
    ("an exponent", cancel(b'"if_version":1e0'), "malformed"),
    ("the greatest integer", cancel(b'"if_version":9223372036854775807'), None),
    ("one more", cancel(b'"if_version":9223372036854775808'), "malformed"),
    ("the least integer", cancel(b'"if_version":-9223372036854775807'), None),
    ("one less", cancel(b'"if_version":-9223372036854775808'), "malformed"),
    ("2^64", cancel(b'"if_version":18446744073709551616'), "malformed"),
    ("5,000 digits", cancel(b'"if_version":' + b"9" * 5_000), "malformed"),
    ("5,000 digits in an unknown command", b'{"op":"x","a":%b}' % (b"9" * 5_000), "unknown_value"),
    ("no finite number in an unknown command", b'{"op":"x","a":1e999}', "unknown_value"),
    ("a boolean for an integer", cancel(b'"if_version":true'), "malformed"),
    ("an integer for a boolean", limit(b'"post_only":0'), "malformed"),
    ("another script's digit", b'{"op":"amend","order_id":%b,"price":"\\u0661"}' % ORDER,
     "malformed"),
    ("a decimal of 19 digits", b'{"op":"amend","order_id":%b,"price":"1%018d"}' % (ORDER, 0),
     "malformed"),
    # Ids.
    ("an id with a line's end", limit(b'"order_id":"order_alice_1_1\\n"'), "malformed"),
    ("the greatest pair", limit(b'"order_id":"order_alice_99999999999999_999999999999"'), None),
    ("a timestamp too great", limit(b'"order_id":"order_alice_100000000000000_1"'), "malformed"),
    ("a count too great", limit(b'"order_id":"order_alice_1_1000000000000"'), "malformed"),
    ("a server's timestamp in a submit", limit(b'"order_id":"order_alice_0_1"'), "malformed"),
    ("a server's order as a target", b'{"op":"cancel","order_id":"order_alice_0_1"}', None),
    ("no peer between", limit(b'"order_id":"order__1_1"'), "malformed"),
    ("a peer that begins alike", limit(b'"order_id":"order_alice_2_1_1"'), "wrong_peer"),
    ("a foreign server's order", b'{"op":"cancel","order_id":"order_bob_0_1"}', "wrong_peer"),
    # What does not go together, and what comes first.
    ("a market order at its default", b'{"op":"submit","side":"buy","quantity":"1",'
     b'"type":"market","time_in_force":"ioc","post_only":false}', None),
    ("an unknown type, without a price",
     b'{"op":"submit","side":"buy","quantity":"1","type":"stop"}', "unknown_value"),
    ("an unknown type, gtd without a time", limit(b'"type":"stop","time_in_force":"gtd"'),
     "malformed"),
    (
        "an unknown time in force, with a time that is no 64-bit integer",
        limit(b'"time_in_force":"gtt","expires_at":-9223372036854775808'),
        "malformed",
    ),
    ("an unknown time in force, with a time", limit(b'"time_in_force":"gtt","expires_at":1'),
     "unknown_value"),
    ("an unknown time in force, of a market order, post-only",
     b'{"op":"submit","side":"buy","quantity":"1","type":"market","time_in_force":"day",'
     b'"post_only":true}', "malformed"),
    ("an unknown side, and null", limit(b'"self_trade":"x","order_id":null'), "malformed"),
    ("an unknown side, and a foreign id",
     b'{"op":"cancel_all","side":"both","command_id":"command_bob_1_1"}', "unknown_value"),
    ("a foreign id, and a quantity of nothing",
     b'{"op":"submit","side":"buy","price":"0","quantity":"0","order_id":"order_bob_1_1"}',
     "wrong_peer"),
]  # fmt: skip
