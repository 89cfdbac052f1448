"""What NATS nodes tell the system account, and do for it, as plain data.

The subjects and the JSON are those of nats-server 2.15 (`monitor.go`, `events.go`); nothing else
knows them. Rights that this needs: to publish to `$SYS.REQ.SERVER.PING.IDZ`,
`$SYS.REQ.SERVER.*.CONNZ`, `$SYS.REQ.SERVER.*.KICK` and `$SYS.REQ.USER.INFO`, and to subscribe to
one's inboxes. Knows nothing of who floods.

Quirks of nats-server 2.15.1 that end here:

* What a node counts of a connection are its messages, refused ones included, their payloads and
  headers; not pings, subscriptions, nor the subjects of messages.
* The account of those who were let in without one is left out of the answer.
* Who is cut while the node waits to write to it, since it reads nothing, is heard until that write
  is given up (`write_deadline`, 2 s in our nodes): refusals are answers, and a flood of them.
* Each page of an answer costs the node as much as all pages, so that one page is asked for.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from dex_guard.flood import Connection, Counters, Sample
from dex_runtime.messaging import NoReply, NoResponder, Requester

CONNECTIONS_COUNT_MAX: Final = 4_096
"""Connections that a node tells of at a time, those that were active last before all others: who
floods was active in the last milliseconds. 1,000 of them are 0.36 MB, and cost a node 4 to 6 ms of
a processor."""

ANSWER_TIMEOUT_S: Final = 1.0
"""For one question: milliseconds while a connection floods the node, and 0.7 s to cut one that has
400,000 subscriptions."""

QUIET_S: Final = 0.2
"""No other node answers after that long: one that is later is found the next time."""

T = TypeVar("T")

_WITHOUT_ACCOUNT: Final = "$G"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_CONNECTIONS: Final = msgspec.json.encode(
    {"auth": True, "sort": "last", "limit": CONNECTIONS_COUNT_MAX}
)


class NodeGone(Exception):
    """No such node any more, or it cannot be reached just now."""


class NoAnswer(Exception):
    """Asked, and no answer that can be read; ask again."""


class NotOfSystemAccount(Exception):
    """Nodes do not serve this user: it does not belong to the system account."""


class _Named(Struct):
    name: str
    id: str


class _ConnectionInfo(Struct):
    cid: int
    start: datetime
    ip: str = ""
    port: int = 0
    in_msgs: int = 0
    in_bytes: int = 0
    name: str = ""
    account: str = _WITHOUT_ACCOUNT
    authorized_user: str = ""


class _Connections(Struct):
    now: datetime
    total: int
    connections: list[_ConnectionInfo]


class _ConnectionsAnswer(Struct):
    data: _Connections


class _User(Struct):
    account: str


class _UserAnswer(Struct):
    data: _User


class _Error(Struct):
    description: str = ""


class _Done(Struct):
    error: _Error | None = None


_NAMED: Final = msgspec.json.Decoder(_Named)
_CONNECTIONS_ANSWER: Final = msgspec.json.Decoder(_ConnectionsAnswer)
_USER_ANSWER: Final = msgspec.json.Decoder(_UserAnswer)
_DONE: Final = msgspec.json.Decoder(_Done)


class Monitoring:
    """The nodes of one cluster, asked over one connection."""

    def __init__(self, requester: Requester) -> None:
        """Take a connection of a user of the system account."""
        self._requester = requester

    async def own_account(self) -> str:
        """Ask for the account that this connection belongs to.

        Raises:
            NodeGone: not connected just now.
            NoAnswer: as it says.
        """
        return _decoded(_USER_ANSWER, await self._ask("$SYS.REQ.USER.INFO", b"")).data.account

    async def nodes(self) -> dict[str, str]:
        """Ask all nodes who they are; the names by id.

        Raises:
            NodeGone: not connected just now.
            NoAnswer: as it says.
            NotOfSystemAccount: none of them serves us.
        """
        try:
            replies = await self._requester.gather(
                "$SYS.REQ.SERVER.PING.IDZ", b"", quiet_s=QUIET_S, timeout_s=ANSWER_TIMEOUT_S
            )
        except NoResponder as error:
            if self._requester.is_connected:
                raise NotOfSystemAccount(
                    "expected a user of the NATS system account, found one whom no node serves"
                ) from error
            raise NodeGone(str(error)) from error
        except NoReply as error:
            raise NoAnswer(str(error)) from error
        found = [_decoded(_NAMED, reply.payload) for reply in replies]
        return {each.id: each.name for each in found}

    async def sample(self, node: str) -> tuple[Sample, int]:
        """Ask a node what its connections sent.

        Returns:
            The sample, and how many connections are not in it, since there are too many.

        Raises:
            NodeGone: as it says.
            NoAnswer: as it says.
        """
        payload = await self._ask(f"$SYS.REQ.SERVER.{node}.CONNZ", _CONNECTIONS)
        data = _decoded(_CONNECTIONS_ANSWER, payload).data
        sample = Sample(
            node=node, at_us=_us(data.now), counters=[_counters(each) for each in data.connections]
        )
        return sample, data.total - len(data.connections)

    async def cut(self, node: str, connection: Connection) -> bool:
        """Have a node close a connection.

        Returns:
            Whether it did; not when there is no such connection any more.

        Raises:
            NodeGone: as it says.
            NoAnswer: it may be cut, or not.
        """
        payload = msgspec.json.encode({"cid": connection.connection_id})
        answer = await self._ask(f"$SYS.REQ.SERVER.{node}.KICK", payload)
        return _decoded(_DONE, answer).error is None

    async def _ask(self, subject: str, payload: bytes) -> bytes:
        try:
            return await self._requester.request(subject, payload, timeout_s=ANSWER_TIMEOUT_S)
        except NoResponder as error:
            raise NodeGone(str(error)) from error
        except NoReply as error:
            raise NoAnswer(str(error)) from error


def _counters(info: _ConnectionInfo) -> Counters:
    return Counters(
        connection=Connection(
            connection_id=info.cid,
            started_us=_us(info.start),
            account=info.account,
            user=info.authorized_user,
            name=info.name,
            address=f"{info.ip}:{info.port}",
        ),
        messages_count=info.in_msgs,
        bytes_count=info.in_bytes,
    )


def _us(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _decoded(decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NoAnswer(
            f"expected what nats-server 2.15 answers, found {payload[:200]!r}"
        ) from error
