"""Every message as it was once written is still read, and written again the same.

The files in `golden/` are bytes of the wire. They are added to, one for each kind of message and
for each way it grew, and never changed: a change that breaks one breaks a peer or a log.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import Struct

from dex_protocol import administration, queries
from dex_protocol.codec import (
    decode_as,
    decode_commit,
    decode_receipts,
    decode_reply,
    decode_request,
    encode,
)
from dex_protocol.commands import Command
from dex_protocol.events import AnyEvent
from dex_protocol.queries import QUERIES, Reply
from dex_protocol.receipts import Receipt

FILES = sorted(Path(__file__).parent.joinpath("golden").glob("*.json"))

REPLIES: dict[str, type[Struct]] = {
    "book": queries.BookReply,
    "book.orders": queries.BookOrdersReply,
    "order": queries.OrderReply,
    "orders": queries.OrdersReply,
    "trades": queries.TradesReply,
    "status": queries.StatusReply,
    "snapshot": queries.SnapshotReply,
    "log": queries.LogReply,
    "admin": administration.AdminReply,
}


def decoder(path: Path) -> Callable[[bytes], Any]:
    """Choose how a file is read, by the words of its name: `query.book`, `commit.orders`."""
    kind, _, what = path.stem.partition(".")
    match kind:
        case "command":
            return lambda payload: decode_request(payload, "alice")[0][0]
        case "commit":
            return decode_commit
        case "receipt":
            return lambda payload: decode_receipts(payload)[0]
        case "receipts":
            return decode_receipts
        case "query":
            return lambda payload: decode_as(payload, QUERIES[what])
        case "admin":
            return lambda payload: decode_as(payload, administration.REQUESTS[what])
        case "reply":
            return lambda payload: decode_reply(payload, REPLIES[what])
    raise AssertionError(f"expected a kind of message, found {path.name}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_message_of_the_past_is_read_and_written_the_same(path: Path) -> None:
    payload = path.read_bytes().rstrip(b"\n")
    message = decoder(path)(payload)

    is_refusal = isinstance(message, Receipt) and not path.stem.startswith("receipt")
    assert not is_refusal, message
    assert encode(message) == payload


def test_every_kind_of_message_has_a_golden_file() -> None:
    stems = [path.stem for path in FILES]
    read = [decoder(path)(path.read_bytes()) for path in FILES]
    commits = [each for each, stem in zip(read, stems, strict=True) if stem.startswith("commit.")]
    kinds = {type(message) for message in read}
    kinds |= {type(event) for commit in commits for event in commit.events}

    assert kinds >= {*get_args(Command), *get_args(AnyEvent), Receipt}
    assert kinds >= {*QUERIES.values(), *REPLIES.values(), *administration.REQUESTS.values()}
    assert kinds >= set(Reply.__subclasses__())
