"""Connections to NATS, with every option of the library chosen here, each for a reason.

A connection made here heals by itself, forgets what it could not send, and leaves a dead node
within seconds. Knows nothing of what is sent over it; `messaging` does.

Quirks of nats-py 2.16.0 that end here:

* A connection whose node stopped with unsent data waits for that data for ever when it should
  reconnect, `force_reconnect()` included, since both wait until the old socket is closed
  (nats.py issue 671). `_BoundedTransport` gives that wait an end, so no watchdog is needed.
* What was published but not yet written when the connection broke goes out after the
  reconnection, with `pending_size=0` too: seconds old orders. It is dropped at the disconnection.
* With `max_reconnect_attempts=-1` a connection is tried for ever, with a key that is refused too.
* A file with a key is read again at each reconnection, and one that is gone then is tried for ever;
  one of credentials without a JWT is read for ever, and nothing else happens meanwhile. They are
  read here, once.
* Trusted certificates are forgotten when a node says that it speaks plain text, whoever says so.
* A subject, a reply subject or a header that is not UTF-8, or a header cut short, ends the reading
  of the connection; nobody hears of it until pings go unanswered, 2 to 3 s later. Whoever may
  publish could keep a server deaf. `_TolerantClient` reads on.
* The parser takes a vertical tab or a form feed inside a subject for a blank, as the node does
  not, and so reads other arguments than were sent: what follows is lost with the connection, or
  goes to another subscription under another subject. `reading` parts words as nodes do.
* `Client.flush()` that is given up (by its timeout, or canceled) ends the reading of the
  connection when the late answer comes. Nothing here calls it; use `Requester.round_trip`.
* `force_reconnect()` may well choose the node that it should leave, and in the last step of a
  reconnection, which is such a flush, it cancels that. `reconnect` does neither.
* A reconnection that is canceled in the moment in which its socket connects does not notice it
  (`asyncio.wait_for` before Python 3.12), and goes on for ever with a connection that was closed.
  `close` ends it.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import ParseResult

import nats.errors
import nkeys
from msgspec import Struct
from nats.aio.client import Client, RawCredentials
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from dex_runtime.outbox import Outbox
from dex_runtime.reading import Direct, OnDirect, QuickParser, is_request_info

CLOSE_TIMEOUT_S: Final = 0.5
"""How long a socket may take to close, or to send the rest first: it takes milliseconds when the
node lives, and for ever when it does not."""

CANCEL_AGAIN_S: Final = 0.01
"""How long a reconnection may take to notice that it was canceled: a turn of the loop."""

PING_INTERVAL_S: Final = 1
"""With two pings unanswered a node counts as dead after 2 to 3 s, about as long as it takes a node
to give up a client, and less than an election in NATS takes (4 to 9 s)."""

REFUSED_S: Final = 3.0
"""For how long nothing but refusals end a connection for good: nodes that learn of a new key one
after another take a fraction of that."""

REFUSED_PAUSE_S: Final = 1.0
"""What is longer between two refusals was something else: each node is tried every 0.1 s."""

RECONNECT_WAIT_S: Final = 0.1
"""Pause before a node is tried again: long enough for a dead cluster not to be a busy loop."""

_FORBIDDEN: Final = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)

_CREDS: Final = re.compile(
    r"-BEGIN NATS USER JWT-+\s+(\S+)\s.*-BEGIN USER NKEY SEED-+\s+(\S+)", re.DOTALL
)

Connection: TypeAlias = Client
"""An open connection, for those who pass it on."""


class CannotConnect(Exception):
    """No server let us in: none answered in time, or one refused who we say we are."""

    def __init__(self, servers: tuple[str, ...], cause: str, *, is_refusal: bool = False) -> None:
        """Name the servers that were tried, what the last attempt said, and whether it was that
        they do not believe who we are, or we do not believe who they are."""
        super().__init__(f"cannot connect to NATS at {', '.join(servers)}: {cause}")
        self.servers = servers
        self.cause = cause
        self.is_refusal = is_refusal


class Credentials(Struct, frozen=True, kw_only=True):
    """Who one is to NATS, and whom one trusts to be NATS; all of it may be left out."""

    nkey: str | None = None
    """A file with the seed of an nkey."""
    creds: str | None = None
    """A file with a user JWT and its seed, as an alternative."""
    user: str | None = None
    """A name and a password, as another."""
    password: str | None = None
    tls_ca: str | None = None
    """A file with the certificates to trust. None: those of the system, when a node wants TLS."""
    tls_cert: str | None = None
    """A file with a certificate of one's own, for nodes that ask for one."""
    tls_key: str | None = None
    """A file with its private key."""

    @property
    def shown(self) -> str:
        """Who one says to be, for people."""
        if self.nkey is not None or self.creds is not None:
            return f"the key in {self.nkey or self.creds}"
        return "somebody without a key" if self.user is None else f"the user {self.user!r}"


class ConnectionOptions(Struct, frozen=True, kw_only=True):
    """Where to connect, and as whom."""

    servers: tuple[str, ...]
    """Addresses like nats://127.0.0.1:4222. Further nodes of a cluster are learned from these.

    NB: no user or password in an address; the nodes learned later would not get them.
    """
    name: str
    """What operators see in NATS' list of connections."""
    credentials: Credentials = Credentials()
    """Who we are to NATS, and whom we trust to be NATS."""
    inbox_prefix: str = "_INBOX"
    """What reply subjects begin with."""
    first_connection_timeout_s: float = 5.0
    """How long a first connection is tried, over all servers. Later ones are tried for ever."""


async def connect(
    options: ConnectionOptions,
    *,
    on_disconnected: Callable[[], None] | None = None,
    on_reconnected: Callable[[], None] | None = None,
    on_closed: Callable[[], None] | None = None,
    on_error: Callable[[str], None] | None = None,
    on_cluster_changed: Callable[[], None] | None = None,
) -> Client:
    """Connect to the first server that lets us in, and stay connected to any of them.

    Close the connection with `close`.

    Args:
        options: Where, and as whom.
        on_disconnected: Called when the connection is lost, or was closed. Until on_reconnected,
            whatever is published is refused at once, not kept for later.
        on_reconnected: Called when it is there again, its subscriptions included.
        on_closed: Called when it is closed for good: by `close`, or by nodes that will not have
            us any more (a key revoked, too many connections).
        on_cluster_changed: Called when the node tells that others came or went.
        on_error: Called with the text of what went wrong in the background: a permission missing,
            a subscription that drops messages, an attempt to reconnect that failed. Like the other
            three it runs in the event loop, must not block and must not raise.

    Raises:
        CannotConnect: not within options.first_connection_timeout_s, or we were refused.
    """
    known = options.credentials
    library_options = _library_options(options)
    client = _TolerantClient()
    client.on_cluster_changed = on_cluster_changed
    client.wants_tls = library_options["tls"] is not None or any(
        url.startswith("tls://") for url in options.servers
    )
    client._transport = _BoundedTransport()  # type: ignore[no-untyped-call]
    client._ps = QuickParser(client)
    client.outbox = Outbox(client)
    loop = asyncio.get_running_loop()
    is_made = is_refused = False
    cause = "no answer"
    # When a run of refusals began, and the newest one.
    refused_since = 0.0
    refused_at: float | None = None
    closing: asyncio.Task[None] | None = None

    async def disconnected() -> None:
        # What was not written yet would go out after the reconnection; its senders will have
        # given up by then. Subscriptions are replayed from a list of their own.
        client._pending.clear()
        client._pending_data_size = 0
        if is_made and on_disconnected is not None:
            on_disconnected()

    async def reconnected() -> None:
        nonlocal refused_at
        refused_at = None
        _transport_of(client).avoided = None
        if is_made and on_reconnected is not None:
            on_reconnected()

    async def closed() -> None:
        if is_made and on_closed is not None:
            on_closed()

    async def failed(error: Exception) -> None:
        nonlocal cause, is_refused, refused_since, refused_at, closing
        refusal = _refusal(error, known)
        text = refusal or str(error) or type(error).__name__
        if not is_made:
            # What follows a refusal is noise, as of a socket that was closed.
            if not is_refused:
                cause = text
                is_refused = refusal is not None
                if is_refused:
                    # Trying again would not help; without this it would go on until the timeout.
                    first_connection.reschedule(loop.time())
            return
        if on_error is not None:
            on_error(text)
        if refusal is not None and not client.is_connected:
            now = loop.time()
            if refused_at is None or now - refused_at > REFUSED_PAUSE_S:
                refused_since = now
            refused_at = now
            if now - refused_since >= REFUSED_S and closing is None:
                closing = asyncio.create_task(close(client))

    try:
        async with asyncio.timeout(options.first_connection_timeout_s) as first_connection:
            await client.connect(
                **library_options,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                closed_cb=closed,
                error_cb=failed,
            )
    except TimeoutError:
        await _discard(client)
        raise CannotConnect(options.servers, cause, is_refusal=is_refused) from None
    except (OSError, nats.errors.Error) as error:
        await _discard(client)
        refusal = _refusal(error, known)
        raise CannotConnect(
            options.servers, refusal or str(error), is_refusal=refusal is not None
        ) from error
    is_made = True
    return client


def forbidden_subject(text: str) -> str | None:
    """Read what on_error was told: the subject that we may not publish to, in small letters as
    nats-py 2.16.0 makes them; None when it is about anything else. The request got no answer."""
    match = _FORBIDDEN.search(text)
    return None if match is None else match[1].lower()


async def reconnect(client: Client) -> bool:
    """Leave the node for another one, because it brings nothing: perhaps it is cut off itself.

    Replies under way are lost, and so is what subscribers would have heard meanwhile. When no
    other node lets us in, it is the same again.

    Returns:
        Whether it is left; not when no other node is known, nor when there is no connection just
        now, so that nodes are tried already.
    """
    node = client.connected_url
    task = client._reconnection_task
    if node is None or len(client.servers) < 2 or (task is not None and not task.done()):
        return False
    _transport_of(client).avoided = node.netloc
    await client.force_reconnect()
    return True


async def close(client: Client) -> None:
    """Send what is not sent yet and close; within a second, whether or not the node lives."""
    transport = _transport_of(client)
    timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.abort)
    try:
        await _end_reconnecting(client)
        outbox_of(client).flush()
        await client.close()
    except OSError:
        # The socket went while the rest was being sent, and close() went no further.
        await _discard(client)
    finally:
        timer.cancel()
        transport.abort()


def call_directly(
    client: Client, subscription: Subscription, on_direct: OnDirect, *, takes_headers: bool
) -> None:
    """Have a function called at once for the messages of a subscription, past the library's queue.

    What arrived before goes to the callback that the subscription was made with, and so do messages
    with headers of their own, unless it takes them too, without these headers.
    """
    direct = Direct(on_direct, takes_headers)
    _parser_of(client).direct[str(subscription._id).encode()] = direct


def _parser_of(client: Client) -> QuickParser:
    parser = client._ps
    assert isinstance(parser, QuickParser)
    return parser


def outbox_of(client: Client) -> Outbox:
    """Give what messages go out by, over a connection that `connect` made."""
    assert isinstance(client, _TolerantClient)
    return client.outbox


async def _end_reconnecting(client: Client) -> None:
    task = client._reconnection_task
    while task is not None and not task.done() and task is not asyncio.current_task():
        task.cancel()
        await asyncio.wait((task,), timeout=CANCEL_AGAIN_S)


async def _discard(client: Client) -> None:
    # A close() that was interrupted, or that connect() was about to do itself, counts as done
    # from its first line on, so it is told otherwise.
    client._status = Client.DISCONNECTED
    await client.close()


def _refusal(error: Exception, known: Credentials) -> str | None:
    """Say why a node does not let us in, or we do not trust it; None when it is anything else."""
    text = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        by = "the system" if known.tls_ca is None else known.tls_ca
        return f"its certificate is not one that {by} vouches for ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and "alert" in text.lower():
        with_certificate = "no certificate" if known.tls_cert is None else known.tls_cert
        return f"it refused us with {with_certificate} ({error.reason})"
    if isinstance(error, _PlainText):
        return text
    if "maximum account active connections exceeded" in text:
        return f"it has as many connections of {known.shown} as one may have"
    if "authorization violation" in text.lower() or "authentication" in text.lower():
        return f"it refused {known.shown} (Authorization Violation)"
    return None


def _tls(options: ConnectionOptions) -> ssl.SSLContext | None:
    known = options.credentials
    if known.tls_ca is None and known.tls_cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=known.tls_ca)
        if known.tls_cert is not None:
            context.load_cert_chain(known.tls_cert, known.tls_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(file for file in (known.tls_ca, known.tls_cert, known.tls_key) if file)
        why = f"{files} cannot be used: {error}"
        raise CannotConnect(options.servers, why, is_refusal=True) from error
    return context


def _seed(options: ConnectionOptions) -> str | None:
    file = options.credentials.nkey
    if file is None:
        return None
    seed = _read(options, file).strip()
    if not _is_seed(seed):
        why = f"expected the seed of an nkey in {file} (SU…), found something else"
        raise CannotConnect(options.servers, why, is_refusal=True)
    return seed


def _user_credentials(options: ConnectionOptions) -> RawCredentials | None:
    file = options.credentials.creds
    if file is None:
        return None
    match = _CREDS.search(_read(options, file))
    if match is None or not _is_seed(match[2]):
        why = f"expected a user JWT and its seed in {file}, found something else"
        raise CannotConnect(options.servers, why, is_refusal=True)
    return RawCredentials(
        f"-----BEGIN NATS USER JWT-----\n{match[1]}\n-----BEGIN USER NKEY SEED-----\n{match[2]}\n"
    )


def _read(options: ConnectionOptions, file: str) -> str:
    try:
        return Path(file).read_text("ascii", errors="replace")
    except OSError as error:
        why = f"the key cannot be read: {error}"
        raise CannotConnect(options.servers, why, is_refusal=True) from error


def _is_seed(text: str) -> bool:
    # The library's errors for what is no key are of all kinds.
    try:
        nkeys.from_seed(bytearray(text.encode())).wipe()
    except (nkeys.NkeysError, ValueError, IndexError):
        return False
    return True


class _PlainText(nats.errors.Error):
    """A node speaks plain text to somebody who trusts certificates only."""

    def __str__(self) -> str:
        return "expected a node that speaks TLS, found one that speaks plain text"


def _library_options(options: ConnectionOptions) -> dict[str, Any]:
    known = options.credentials
    return {
        "servers": list(options.servers),
        "name": options.name,
        # As options, since nodes that are learned by gossip do not get what stands in an address.
        "user": known.user,
        "password": known.password,
        "token": None,
        "nkeys_seed_str": _seed(options),
        "user_credentials": _user_credentials(options),
        "tls": _tls(options),
        "tls_handshake_first": False,
        "inbox_prefix": options.inbox_prefix,
        # Clients spread over the nodes by chance; with a fixed order all would sit on the first.
        "dont_randomize": False,
        # A connection heals for as long as its process wants to live; the process decides when
        # to give up, not a count (the default gives up after 60 attempts for each node).
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_S,
        # For one attempt at one node: a distant node answers well within a second.
        "connect_timeout": 2,
        # The default, 2 minutes, notices a dead node after 6.
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": 2,
        # No buffering while disconnected: orders must not go out later, when nobody waits for
        # them any more. It also removes a flush inside publish() that swallows cancellation.
        # NB: nothing then holds back who publishes faster than the socket takes; that bound is
        # the number of requests under way.
        "pending_size": 0,
        # Only used by the flush that pending_size=0 removes.
        "flush_timeout": CLOSE_TIMEOUT_S,
        # Signals to the task that writes; it writes all there is at each.
        "flusher_queue_size": 1024,
        "drain_timeout": 5,
        # A round trip is a message to oneself.
        "no_echo": False,
        # Both would have the node check or confirm each message.
        "verbose": False,
        "pedantic": False,
        # Two regular expressions for each message, and no line break can smuggle in a command.
        "skip_subject_validation": False,
    }


class _TolerantClient(Client):
    # What cannot be read is read as something that nobody has a right or a use for.

    on_cluster_changed: Callable[[], None] | None = None
    wants_tls = False
    outbox: Outbox
    _nodes: frozenset[str] = frozenset()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self.wants_tls and not info.get("tls_required"):
            raise _PlainText
        # The library (2.16.0) tells of nodes that come, not of those that go.
        await super()._process_info(info, initial_connection)
        nodes = frozenset(info.get("connect_urls") or ())
        has_changed, self._nodes = nodes != self._nodes, nodes
        if has_changed and not initial_connection and self.on_cluster_changed is not None:
            self.on_cluster_changed()

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        _parser_of(self).direct.pop(str(sid).encode(), None)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        if not headers:
            return None
        if is_request_info(headers):
            # Every request from another account has it, and nobody here reads it.
            return None
        try:
            return await super()._process_headers(headers)
        except (IndexError, UnicodeDecodeError):
            return None

    def _build_message(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: dict[str, str] | None,
    ) -> Msg:
        return self.msg_class(
            subject=subject.decode(errors="replace"),
            reply=reply.decode(errors="replace"),
            data=data,
            headers=headers,
            _client=self,
            _sid=sid,
        )


def _transport_of(client: Client) -> "_BoundedTransport":
    transport = client._transport
    assert isinstance(transport, _BoundedTransport)
    return transport


class _BoundedTransport(TcpTransport):
    # nats-py makes a transport of its own if the client has none, and asks for that by bool().
    # Reconnections use the same one again.

    avoided: str | None = None
    """The node that is being left, by host and port: refused once, so that another has its turn."""

    def __bool__(self) -> bool:
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        # nats-py 2.16.0 forgets the socket of a node that let us connect and then said nothing.
        self.abort()
        if uri.netloc == self.avoided:
            self.avoided = None
            raise ConnectionRefusedError(f"{uri.netloc} is being left for another node")
        await super().connect(uri, buffer_size, connect_timeout)

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        assert self._io_writer is not None
        # Otherwise it takes the end of a connection for half an end, which TLS does not have, and
        # asyncio says so in its log.
        self._io_writer.transport.get_protocol()._over_ssl = True  # type: ignore[attr-defined]

    async def wait_closed(self) -> None:
        closing = asyncio.ensure_future(super().wait_closed())  # type: ignore[no-untyped-call]
        # How it ends is of no interest to who gave up waiting.
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                # Shielded, since all who wait here wait for one future: canceling one of them (the
                # library cancels its reconnection when it closes) would cancel the others too.
                await asyncio.shield(closing)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Close the socket at once, whatever was not sent."""
        if self._io_writer is not None:
            self._io_writer.transport.abort()
