"""Whatever pieces a node's bytes arrive in, the same messages come out, in the same order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.protocol.parser import ProtocolError

from dex_runtime.reading import Direct, QuickParser, is_request_info

DIRECT = b"7"
ANYTHING = b"9"
INFO = b'NATS/1.0\r\nNats-Request-Info: {"acc":"A"}\r\n\r\n'
OWN = b"NATS/1.0\r\nStatus: 503\r\n\r\n"


class Node:
    """Stands where the connection does, and notes what the parser makes of the bytes."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.parser = QuickParser(self)  # type: ignore[arg-type]
        self.parser.direct[DIRECT] = Direct(self._on_direct, takes_headers=False)
        self.parser.direct[ANYTHING] = Direct(self._on_direct, takes_headers=True)

    def _on_direct(self, *message: bytes) -> None:
        self.seen.append(("direct", *message))

    async def _process_msg(self, sid: int, *message: Any) -> None:
        self.seen.append(("queued", sid, *message))

    async def _process_ping(self) -> None:
        self.seen.append(("ping",))

    async def _process_err(self, text: str) -> None:
        self.seen.append(("error", text))


def msg(subject: bytes, sid: bytes, payload: bytes, reply: bytes = b"") -> bytes:
    """Write a message as nodes do."""
    to = subject + b" " + sid + (b" " + reply if reply else b"")
    return b"MSG %b %d\r\n%b\r\n" % (to, len(payload), payload)


def hmsg(subject: bytes, sid: bytes, headers: bytes, payload: bytes, reply: bytes = b"") -> bytes:
    """Write a message with headers as nodes do."""
    to = subject + b" " + sid + (b" " + reply if reply else b"")
    size = len(headers) + len(payload)
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (to, len(headers), size, headers, payload)


SAID = [
    (msg(b"a.b", DIRECT, b"one", b"inbox.1"), ("direct", b"a.b", b"inbox.1", b"one")),
    (msg(b"a.b", DIRECT, b""), ("direct", b"a.b", b"", b"")),
    # What a payload looks like is nobody's business.
    (msg(b"a", DIRECT, b"MSG a 7 3\r\nxyz\r\n"), ("direct", b"a", b"", b"MSG a 7 3\r\nxyz\r\n")),
    (hmsg(b"a", DIRECT, INFO, b"two", b"r"), ("direct", b"a", b"r", b"two")),
    (hmsg(b"a", DIRECT, OWN, b"", b"r"), ("queued", 7, b"a", b"r", b"", OWN)),
    (hmsg(b"a", ANYTHING, OWN, b"five", b"r"), ("direct", b"a", b"r", b"five")),
    (msg(b"c", b"8", b"three"), ("queued", 8, b"c", b"", b"three", None)),
    # A blank is all that parts words: a subject may hold what others take for one.
    (msg(b"a\x0bb", DIRECT, b"four"), ("direct", b"a\x0bb", b"", b"four")),
    (b"PING\r\n", ("ping",)),
    (b"-ERR 'Slow'\r\n", ("error", "'slow'")),
]


@given(st.lists(st.sampled_from(SAID), max_size=12), st.data())
async def test_messages_are_the_same_in_whatever_pieces_they_arrive(
    said: list[tuple[bytes, tuple[Any, ...]]], data: st.DataObject
) -> None:
    node = Node()
    rest = b"".join(each for each, _ in said)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        await node.parser.parse(rest[:size])
        rest = rest[size:]

    assert node.seen == [heard for _, heard in said]


@pytest.mark.parametrize(
    "nonsense", [b"MSG a 7 x\r\n", b"MSG\r\n", b"MSG a 7 1 2 3 4\r\nx\r\n", b"HELLO\r\n"]
)
async def test_what_no_node_writes_ends_the_reading(nonsense: bytes) -> None:
    node = Node()
    with pytest.raises(ProtocolError):
        await node.parser.parse(msg(b"a", DIRECT, b"before") + nonsense)

    assert node.seen == [("direct", b"a", b"", b"before")]


async def test_mistake_with_one_message_does_not_end_the_reading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = Node()

    def stumble(subject: bytes, reply: bytes, payload: bytes) -> None:
        raise KeyError(payload)

    node.parser.direct[b"6"] = Direct(stumble, takes_headers=True)
    await node.parser.parse(msg(b"a", b"6", b"odd") + msg(b"a", DIRECT, b"next"))

    assert node.seen == [("direct", b"a", b"", b"next")]
    assert "a message to b'a' was not taken" in caplog.text


def test_headers_of_another_account_alone_are_passed_over() -> None:
    assert is_request_info(INFO)
    assert not is_request_info(INFO[:-2] + b"More: x\r\n\r\n")
    assert not is_request_info(OWN)
