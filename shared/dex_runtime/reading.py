"""Reading what a node sends: whole messages, as many as have arrived, each cut out once.

Theory of operation. nats-py's parser (2.16.0) tries a regular expression at the beginning of what
has arrived, moves the rest to the front for each message, and hands it to a queue, from which a
task of each subscription takes it: some 20 µs a message, of which a leader that receives 30,000 a
second has not enough. Here a message costs 1 µs when its subscription is *direct*: its function is
called at once. What is not a whole message, or is anything else, goes to the library's parser,
whose state this one shares.

Knows nothing of what is in a message.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from nats.protocol import parser
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

if TYPE_CHECKING:
    from nats.aio.client import Client

OnDirect: TypeAlias = Callable[[bytes, bytes, bytes], None]
"""Called with a message's subject, its reply subject (empty when it has none), and its payload;
must not block and must not raise."""

REQUEST_INFO: Final = b"NATS/1.0\r\nNats-Request-Info: "
"""How the headers begin of what came from another account: NATS says which, and how far it is."""

_ONE_HEADER_LINES: Final = 3
"""Ends of lines when that is all: the version, the header, and the blank one."""


class QuickParser(Parser):
    """The library's parser, with a shorter way for whole messages.

    Attributes:
        direct: What is called for the messages of a subscription, by its number as nodes write it.
            Messages with headers of their own still go the library's way.
    """

    def __init__(self, client: "Client") -> None:
        super().__init__(client)
        self.direct: dict[bytes, OnDirect] = {}

    async def parse(self, data: bytes = b"") -> None:
        """Take in what has arrived next."""
        if self.state == AWAITING_MSG_PAYLOAD:
            missing = self.needed + CRLF_SIZE - len(self.buf)
            if len(data) <= missing:
                await super().parse(data)
                return
            await super().parse(data[:missing])
            data = data[missing:]
        if self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        end = await self._take(data)
        if end < len(data):
            await super().parse(data[end:])

    async def _take(self, data: bytes) -> int:
        # Whole messages from the beginning on; gives where they end.
        client, direct = self.nc, self.direct
        at, length = 0, len(data)
        while True:
            begin = data.find(b"\r\n", at) + 2
            if begin < 2:
                return at
            read = _read_line(data[at : begin - 2].split(b" "))
            if read is None:
                return at
            subject, sid, reply, header_size, size = read
            end = begin + size
            if end + 2 > length:
                return at
            at = end + 2
            payload_begin = begin + header_size
            on_direct = direct.get(sid)
            if on_direct is not None and (
                header_size == 0 or is_request_info(data[begin:payload_begin])
            ):
                on_direct(subject, reply, data[payload_begin:end])
            else:
                headers = data[begin:payload_begin] if header_size else None
                await client._process_msg(
                    int(sid), subject, reply, data[payload_begin:end], headers
                )


def is_request_info(headers: bytes) -> bool:
    """Tell whether headers only say what every request from another account says."""
    return headers.startswith(REQUEST_INFO) and headers.count(b"\r\n") == _ONE_HEADER_LINES


def _read_line(words: list[bytes]) -> tuple[bytes, bytes, bytes, int, int] | None:
    # MSG subject sid [reply] size; HMSG subject sid [reply] header-size size. As nodes write it,
    # with one blank between two words; anything else is for the library to judge.
    count = len(words)
    try:
        if words[0] == b"MSG":
            if count == 5:
                return words[1], words[2], words[3], 0, int(words[4])
            if count == 4:
                return words[1], words[2], b"", 0, int(words[3])
        elif words[0] == b"HMSG":
            if count == 6:
                return words[1], words[2], words[3], int(words[4]), int(words[5])
            if count == 5:
                return words[1], words[2], b"", int(words[3]), int(words[4])
    except ValueError:
        return None
    return None


def read_as_nodes_write() -> None:
    """Have the library's own expressions (2.16.0) take blanks where they took white space."""
    parser.MSG_RE = re.compile(
        rb"\AMSG[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?([0-9]+)\r\n"
    )
    parser.HMSG_RE = re.compile(
        rb"\AHMSG[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?"
        rb"([0-9]+)[ \t]+([0-9]+)\r\n"
    )
