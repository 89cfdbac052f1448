"""Reading what a node sends: whole messages, as many as have arrived, each cut out once.

Theory of operation. nats-py's parser (2.16.0) tries a regular expression at the beginning of what
has arrived, moves the rest to the front for each message, and hands it to a queue, from which a
task of each subscription takes it: some 20 µs a message, of which a leader that receives 30,000 a
second has not enough. Here a message costs 1 µs when its subscription is *direct*: its function is
called at once, in order of arrival. What is not whole yet waits for the rest; what is no message
goes to the library's parser.

Knows nothing of what is in a message.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

if TYPE_CHECKING:
    from nats.aio.client import Client

_log: Final = logging.getLogger(__name__)

_MESSAGE: Final = b"MSG "
_WITH_HEADERS: Final = b"HMSG "

OnDirect: TypeAlias = Callable[[bytes, bytes, bytes], None]
"""Called with a message's subject, its reply subject (empty when it has none), and its payload;
must not block and must not raise."""

REQUEST_INFO: Final = b"NATS/1.0\r\nNats-Request-Info: "
"""How the headers begin of what came from another account: NATS says which, and how far it is."""

_ONE_HEADER_LINES: Final = 3
"""Ends of lines when that is all: the version, the header, and the blank one."""


class Direct(NamedTuple):
    """What is called for the messages of a subscription."""

    call: OnDirect
    takes_headers: bool
    """Whether also for messages with headers of their own, which it does not see. Otherwise these
    go the library's way, behind others that came later."""


class QuickParser(Parser):
    """The library's parser, with a shorter way for messages.

    Attributes:
        direct: The direct subscriptions, by their numbers as nodes write them.
    """

    def __init__(self, client: "Client") -> None:
        super().__init__(client)
        self.direct: dict[bytes, Direct] = {}
        # How many bytes there must be before it is of any use to look at them again.
        self._wanted = 0

    def reset(self) -> None:
        """Forget what has arrived in part: the connection is another one."""
        super().reset()
        self._wanted = 0

    async def parse(self, data: bytes = b"") -> None:
        """Take in what has arrived next."""
        if self.buf:
            self.buf.extend(data)
            if len(self.buf) < self._wanted:
                return
            data = bytes(self.buf)
            self.buf.clear()
        while True:
            end = await self._take(data)
            rest = data[end:]
            if not rest:
                return
            if _MESSAGE.startswith(rest[:4]) or _WITH_HEADERS.startswith(rest[:5]):
                # Not all of it is there.
                self.buf.extend(rest)
                return
            # It takes one line, and would go on with messages.
            line = rest.find(b"\r\n") + 2
            if line < 2:
                line = len(rest)
            await super().parse(rest[:line])
            if self.buf:
                return
            data = rest[line:]

    async def _take(self, data: bytes) -> int:
        # Whole messages from the beginning on; gives where they end.
        client, direct = self.nc, self.direct
        at, length = 0, len(data)
        self._wanted = 0
        while True:
            begin = data.find(b"\r\n", at) + 2
            if begin < 2:
                return at
            words = data[at : begin - 2].split(b" ")
            if words[0] != b"MSG" and words[0] != b"HMSG":
                return at
            subject, sid, reply, header_size, size = _read_line(words)
            end = begin + size
            if end + 2 > length:
                self._wanted = end + 2 - at
                return at
            at = end + 2
            payload = data[begin + header_size : end]
            called = direct.get(sid)
            if called is not None and (
                header_size == 0
                or called.takes_headers
                or is_request_info(data[begin : begin + header_size])
            ):
                try:
                    called.call(subject, reply, payload)
                except Exception:  # noqa: BLE001  (whatever it is)
                    # A mistake with one message must not end the reading of all others.
                    _log.exception("a message to %s was not taken", subject)
            else:
                headers = data[begin : begin + header_size] if header_size else None
                await client._process_msg(int(sid), subject, reply, payload, headers)


def is_request_info(headers: bytes) -> bool:
    """Tell whether headers only say what every request from another account says."""
    return headers.startswith(REQUEST_INFO) and headers.count(b"\r\n") == _ONE_HEADER_LINES


def _read_line(words: list[bytes]) -> tuple[bytes, bytes, bytes, int, int]:
    # MSG subject sid [reply] size; HMSG subject sid [reply] header-size size. As nodes write it,
    # with one blank between two words.
    count = len(words)
    try:
        if words[0] == b"MSG":
            if count == 5:
                return words[1], words[2], words[3], 0, int(words[4])
            if count == 4:
                return words[1], words[2], b"", 0, int(words[3])
        elif count == 6:
            return words[1], words[2], words[3], int(words[4]), int(words[5])
        elif count == 5:
            return words[1], words[2], b"", int(words[3]), int(words[4])
    except ValueError as error:
        raise ProtocolError(f"nats: malformed {words[0]!r}") from error
    raise ProtocolError(f"nats: malformed {words[0]!r}")
