"""Two commands have one content hash exactly when they ask for the same."""

import json
from hashlib import blake2b
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from dex_protocol.codec import decode_request, encode
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Submit, time_in_force
from dex_protocol.content import canonical, content_of, content_of_submit
from dex_protocol.numbers import normal
from dex_protocol.receipts import Receipt

decimals = st.from_regex(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?", fullmatch=True)
# Peers whose names look like numbers or like parts of an id.
peers = st.sampled_from(["alice", "bob_2", "-", "_1", "order", "p" * 32])
pairs = st.tuples(st.integers(1, 10**14 - 1), st.integers(1, 10**12 - 1))
sides = st.sampled_from(["buy", "sell"])
self_trades = st.sampled_from(["cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow"])
versions = st.integers(-(2**63) + 1, 2**63 - 1)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.just(UNSET) | strategy


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """Draw any well-formed command of any peer."""
    peer = draw(peers)

    def drawn_id(kind: str) -> str:
        timestamp, count = draw(pairs)
        return f"{kind}_{peer}_{timestamp}_{count}"

    own = UNSET if draw(st.booleans()) else drawn_id("command")
    match draw(st.integers(0, 3)):
        case 0:
            return draw(submits(drawn_id("order") if own is not UNSET else UNSET))
        case 1:
            return Cancel(drawn_id("order"), own, draw(maybe(versions)))
        case 2:
            price, quantity = draw(maybe(decimals)), draw(maybe(decimals))
            assume(price is not UNSET or quantity is not UNSET)
            return Amend(drawn_id("order"), own, price, quantity, draw(maybe(versions)))
        case _:
            return CancelAll(own, draw(maybe(sides)))


@st.composite
def submits(draw: st.DrawFn, order_id: Any) -> Submit:
    is_limit = draw(st.booleans())
    allowed = ["gtc", "gtd", "ioc", "fok"] if is_limit else ["ioc", "fok"]
    how_long = draw(maybe(st.sampled_from(allowed)))
    may_rest = is_limit and how_long in (UNSET, "gtc", "gtd")
    return Submit(
        side=draw(sides),
        quantity=draw(decimals),
        order_id=order_id,
        type="limit" if is_limit else "market",
        price=draw(decimals) if is_limit else UNSET,
        time_in_force=how_long,
        expires_at=draw(versions) if how_long == "gtd" else UNSET,
        post_only=draw(st.booleans()) if may_rest else False,
        self_trade=draw(self_trades),
    )


def by_the_book(command: Command) -> str:
    """Write the canonical JSON as docs/PROTOCOL.md says it, with a JSON library."""
    fields = json.loads(encode(command))
    fields.pop("order_id" if fields["op"] == "submit" else "command_id", None)
    if fields["op"] == "submit":
        fields.setdefault("type", "limit")
        fields.setdefault("time_in_force", "gtc" if fields["type"] == "limit" else "ioc")
        fields.setdefault("post_only", False)
        fields.setdefault("self_trade", "cancel_taker")
    for name in ("price", "quantity"):
        if name in fields:
            fields[name] = normal(fields[name])
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


@given(commands())
def test_content_is_the_hash_of_the_canonical_json(command: Command) -> None:
    expected = by_the_book(command)

    assert canonical(command) == expected
    assert content_of(command) == blake2b(expected.encode(), digest_size=8).hexdigest()


@given(commands())
def test_well_formed_command_is_read_back_with_the_same_content(command: Command) -> None:
    ids = [getattr(command, name, UNSET) for name in ("order_id", "command_id")]
    peer = next((name.rsplit("_", 2)[0].partition("_")[2] for name in ids if name), "alice")
    (read,), _ = decode_request(encode(command), peer)

    assert not isinstance(read, Receipt), read
    assert read == command
    assert content_of(read) == content_of(command)


@given(commands())
def test_command_said_otherwise_has_the_same_content(command: Command) -> None:
    """More zeros, or a default that is named, make no other command (G5)."""
    otherwise = structs.replace(command)
    if isinstance(otherwise, Submit):
        otherwise.time_in_force = time_in_force(otherwise)
    for name in ("price", "quantity"):
        text = getattr(otherwise, name, UNSET)
        if text is not UNSET and len(text.partition(".")[2]) < 18:
            setattr(otherwise, name, text + ("0" if "." in text else ".0"))

    assert content_of(otherwise) == content_of(command)


@given(commands(), st.data())
def test_command_with_one_field_changed_has_another_content(
    command: Command, data: st.DataObject
) -> None:
    """So that a second command under an old id is told from a copy (G5)."""
    other = structs.replace(command)
    match other:
        case Submit():
            name, value = data.draw(st.sampled_from(submit_changes(other)))
            setattr(other, name, value)
        case Cancel() | Amend():
            other.if_version = 5 if other.if_version == 4 else 4
        case CancelAll():
            other.side = "sell" if other.side == "buy" else "buy"

    assert content_of(other) != content_of(command)


def submit_changes(command: Submit) -> list[tuple[str, Any]]:
    changes: list[tuple[str, Any]] = [
        ("side", "sell" if command.side == "buy" else "buy"),
        ("quantity", "1" if normal(command.quantity) != "1" else "2"),
        ("self_trade", "allow" if command.self_trade != "allow" else "decrement"),
    ]
    if command.price is not UNSET:
        changes.append(("price", "1" if normal(command.price) != "1" else "2"))
        changes.append(("post_only", not command.post_only))
    if command.expires_at is not UNSET:
        changes.append(("expires_at", command.expires_at + 1))
    return changes


def test_known_submit_has_its_known_content() -> None:
    """So that a client in another language has something to compare with."""
    command = Submit(
        side="buy", price="100.50", quantity="2.0", order_id="order_alice_1763800000000_17"
    )
    text = (
        '{"op":"submit","post_only":false,"price":"100.5","quantity":"2",'
        '"self_trade":"cancel_taker","side":"buy","time_in_force":"gtc","type":"limit"}'
    )

    assert canonical(command) == text
    assert content_of(command) == blake2b(text.encode(), digest_size=8).hexdigest()
    assert content_of(command) == "bd62fdd5cac804c7"


def test_content_of_a_submit_follows_from_its_accepted_fields() -> None:
    fields: dict[str, Any] = {
        "side": "sell",
        "type": "limit",
        "price": "100.5",
        "quantity": "2",
        "time_in_force": "gtd",
        "expires_at": 1_763_800_000_000_001,
        "post_only": True,
        "self_trade": "decrement",
    }

    assert content_of_submit(**fields) == content_of(Submit(order_id="order_a_1_1", **fields))
