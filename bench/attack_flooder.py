"""The impolite peer of an attack, as a process: valid keys, hand-written NATS, no manners.

`orders` sends single orders by the clock, whatever becomes of them; `queries` has so many requests
under way and asks again at once, whatever it is told; both until SIGTERM. `socket` sends one tiny
message over and over, as fast as the node reads, until it is cut, and comes back.

Each prints `began`, and in the end what it came to as a line of JSON.
"""

import asyncio
import base64
import json
import os
import secrets
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import msgspec
import nkeys
from msgspec import Struct

from bench.attack_peers import BEGAN
from deploy.conversation import Conversation, conversation
from dex_protocol import subjects
from dex_protocol.codec import UNREADABLE, decode_receipts, encode
from dex_protocol.commands import Submit
from dex_protocol.ids import make_id

TICK_S: Final = 0.005
"""Between two bunches of orders."""

LATE_S: Final = 1.5
"""How long answers are waited for in the end: a leader keeps nothing for longer than 1 s."""

LOST_S: Final = 2.0
"""A question without an answer for so long is asked again."""

NICENESS: Final = 10
"""An attacker works on a machine of its own; here it should not take the others' processors, but
only what it makes them do. How fast it is nevertheless is told."""

RECONNECT_S: Final = 0.05

BLOCK_BYTES: Final = 256 * 1024
"""Written at a time at most, of as many messages as fit."""

UNANSWERED: Final = "unanswered"
ACCEPTED: Final = "accepted"


class Flooded(Struct, frozen=True, kw_only=True):
    """What a flood of requests came to."""

    began: float
    ended: float
    """The last request; by the machine's monotonic clock."""
    sent: int
    answers: dict[str, int]
    """By what they say: accepted, a reason, or that there was none."""
    answers_bytes: int
    cuts: int
    """How often the connection was lost."""


class Cut(Struct, frozen=True, kw_only=True):
    """One connection that flooded."""

    began: float
    seconds: float
    """From the first message until the connection was gone."""
    is_cut: bool
    """Or given up."""
    messages: int
    """That the system took over, the last ones perhaps for nothing."""


class Where(Struct, frozen=True, kw_only=True):
    """Whom to flood, and as whom."""

    url: str
    key: Path
    market: str
    peer: str

    @property
    def address(self) -> tuple[str, int]:
        """The node's."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port


@asynccontextmanager
async def _connected(where: Where, inbox: str) -> AsyncIterator[Conversation]:
    host, port = where.address
    async with conversation(host, port, seed=where.key.read_bytes()) as talking:
        talking.write(f"SUB {inbox}.* 1\r\n".encode())
        refused = await talking.round_trip()
        assert refused.startswith(b"PONG"), f"expected to be let in, found {refused!r}"
        yield talking


async def _answer(talking: Conversation) -> tuple[int, bytes] | None:
    """Read one message: the number that its subject ends in, and its payload; None for others."""
    line = await talking.line()
    if line.startswith(b"PING"):
        talking.write(b"PONG\r\n")
        return None
    if not line.startswith((b"MSG ", b"HMSG ")):
        return None
    fields = line.split()
    body = (await talking.read(int(fields[-1]) + 2))[:-2]
    if line.startswith(b"HMSG "):
        body = body[int(fields[-2]) :]
    return int(fields[1].rpartition(b".")[2]), body


def _what_it_says(answer: bytes) -> str:
    if not answer:
        return "nobody serves"
    try:
        receipt = decode_receipts(answer)[0]
    except UNREADABLE:
        return "answered"
    return ACCEPTED if receipt.status not in ("rejected", "retry") else str(receipt.reason)


# --- Orders -------------------------------------------------------------------------------------


class OrderFlood:
    """Orders that are executed, trade with nobody and do not rest, at a rate."""

    def __init__(self, where: Where, *, rate: float) -> None:
        """Send nothing yet."""
        self._where = where
        self._rate = rate
        self._inbox = f"_INBOX.{secrets.token_hex(16)}"
        self._answers: Counter[str] = Counter()
        self._bytes = 0
        self._sent = 0
        self._ended = 0.0

    async def run(self, stop: asyncio.Event) -> Flooded:
        """Flood until told to stop."""
        cuts = 0
        async with _connected(self._where, self._inbox) as talking:
            began = time.monotonic()
            reading = asyncio.create_task(self._read(talking))
            print(BEGAN, flush=True)  # noqa: T201  (whoever started it reads it)
            while not stop.is_set() and not reading.done():
                self._send(talking, int((time.monotonic() - began) * self._rate) - self._sent)
                await asyncio.sleep(TICK_S)
            self._ended = time.monotonic()
            await asyncio.wait((reading,), timeout=LATE_S)
            if reading.done():
                cuts = 1
            reading.cancel()
            await asyncio.wait((reading,))
        self._answers[UNANSWERED] = self._sent - self._answers.total()
        return Flooded(
            began=began,
            ended=self._ended,
            sent=self._sent,
            answers=dict(self._answers),
            answers_bytes=self._bytes,
            cuts=cuts,
        )

    def _send(self, talking: Conversation, count: int) -> None:
        where = self._where
        subject = subjects.orders(where.market, where.peer)
        now_ms = time.time_ns() // 1_000_000
        requests = []
        for _ in range(count):
            self._sent += 1
            order = Submit(
                side="buy",
                quantity="1",
                order_id=make_id("order", where.peer, now_ms, self._sent),
                price="0.01",
                time_in_force="ioc",
            )
            payload = encode(order)
            head = f"PUB {subject} {self._inbox}.{self._sent} {len(payload)}\r\n"
            requests.append(head.encode() + payload + b"\r\n")
        talking.write(b"".join(requests))

    async def _read(self, talking: Conversation) -> None:
        try:
            while True:
                answer = await _answer(talking)
                if answer is not None:
                    self._answers[_what_it_says(answer[1])] += 1
                    self._bytes += len(answer[1])
        except (OSError, asyncio.IncompleteReadError):
            return


# --- Queries ------------------------------------------------------------------------------------


class QueryFlood:
    """Questions with long answers, so many under way at all times."""

    def __init__(self, where: Where, *, in_flight: int) -> None:
        """Ask nothing yet."""
        self._where = where
        self._in_flight = in_flight
        self._answers: Counter[str] = Counter()
        self._bytes = 0
        self._sent = 0

    async def run(self, stop: asyncio.Event) -> Flooded:
        """Flood until told to stop; who is cut comes back."""
        cuts = 0
        began = time.monotonic()
        print(BEGAN, flush=True)  # noqa: T201  (whoever started it reads it)
        stopped = asyncio.create_task(stop.wait())
        while not stop.is_set():
            flooding = asyncio.create_task(self._flood())
            await asyncio.wait((flooding, stopped), return_when=asyncio.FIRST_COMPLETED)
            if flooding.done():
                flooding.result()
                cuts += 1
                await asyncio.sleep(RECONNECT_S)
            flooding.cancel()
            await asyncio.wait((flooding,))
        return Flooded(
            began=began,
            ended=time.monotonic(),
            sent=self._sent,
            answers=dict(self._answers),
            answers_bytes=self._bytes,
            cuts=cuts,
        )

    async def _flood(self) -> None:
        inbox = f"_INBOX.{secrets.token_hex(16)}"
        asked_at = [0.0] * self._in_flight
        try:
            async with _connected(self._where, inbox) as talking, asyncio.TaskGroup() as tasks:
                # Lost ones too: with an empty reply subject nobody asks twice.
                again = tasks.create_task(self._ask_again(talking, inbox, asked_at))
                try:
                    while True:
                        answer = await _answer(talking)
                        if answer is None:
                            continue
                        slot, payload = answer
                        self._answers[_what_it_says(payload)] += 1
                        self._bytes += len(payload)
                        self._ask(talking, inbox, slot, asked_at)
                except (OSError, asyncio.IncompleteReadError):
                    return
                finally:
                    again.cancel()
        except (OSError, asyncio.IncompleteReadError):
            return

    async def _ask_again(self, talking: Conversation, inbox: str, asked_at: list[float]) -> None:
        while True:
            now = time.monotonic()
            for slot, at in enumerate(asked_at):
                if now - at > LOST_S:
                    self._answers[UNANSWERED] += at > 0
                    self._ask(talking, inbox, slot, asked_at)
            await asyncio.sleep(LOST_S / 4)

    def _ask(self, talking: Conversation, inbox: str, slot: int, asked_at: list[float]) -> None:
        self._sent += 1
        asked_at[slot] = time.monotonic()
        where = self._where
        what, payload = ("log", b'{"from_sequence":1}') if slot % 2 else ("snapshot", b"{}")
        subject = subjects.query(where.market, what, where.peer)
        head = f"PUB {subject} {inbox}.{slot} {len(payload)}\r\n"
        talking.write(head.encode() + payload + b"\r\n")


# --- A socket at line rate ----------------------------------------------------------------------


def flood_socket(where: Where, subject: str, *, give_up_s: float) -> Cut:
    """Send a message of two bytes over and over, until the node ends the connection.

    It reads what the node says: whoever does not is harder to cut, since it waits to be heard.
    """
    message = f"PUB {subject} 2\r\n{{}}\r\n".encode()
    block = memoryview(message * (BLOCK_BYTES // len(message)))
    with socket.create_connection(where.address) as connected:
        _say_hello(connected, where.key.read_bytes())
        connected.setblocking(False)
        sent = 0
        began = time.monotonic()
        is_cut = False
        while time.monotonic() - began < give_up_s:
            readable, writable, _ = select.select([connected], [connected], [], 0.1)
            try:
                if readable and not connected.recv(BLOCK_BYTES):
                    is_cut = True
                    break
                if writable:
                    sent += connected.send(block[sent % len(block) :])
            except BlockingIOError:
                continue
            except OSError:
                is_cut = True
                break
    return Cut(
        began=began,
        seconds=time.monotonic() - began,
        is_cut=is_cut,
        messages=sent // len(message),
    )


def _say_hello(connected: socket.socket, seed: bytes) -> None:
    greeting = json.loads(_line(connected).removeprefix(b"INFO "))
    pair = nkeys.from_seed(bytearray(seed.strip()))
    signature = base64.b64encode(pair.sign(greeting.get("nonce", "").encode())).decode()
    hello: dict[str, Any] = {"verbose": False, "nkey": pair.public_key.decode(), "sig": signature}
    connected.sendall(b"CONNECT %b\r\nPING\r\n" % json.dumps(hello).encode())
    answer = _line(connected)
    assert answer.startswith(b"PONG"), f"expected to be let in, found {answer!r}"


def _line(connected: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n"):
        byte = connected.recv(1)
        assert byte, f"expected a line, found the end after {found!r}"
        found += byte
    return found


# --- The command line ---------------------------------------------------------------------------


@click.group()
@click.option("--nats", "url", required=True)
@click.option("--key", type=click.Path(path_type=Path), required=True)
@click.option("--market", required=True)
@click.option("--peer", required=True)
@click.pass_context
def main(context: click.Context, url: str, key: Path, market: str, peer: str) -> None:
    """Attack an exchange that was made for it."""
    os.nice(NICENESS)
    context.obj = Where(url=url, key=key, market=market, peer=peer)


@main.command()
@click.option("--rate", type=float, required=True)
@click.pass_obj
def orders(where: Where, rate: float) -> None:
    """Send single orders at a rate until SIGTERM."""
    click.echo(msgspec.json.encode(asyncio.run(_until_sigterm(OrderFlood(where, rate=rate)))))


@main.command()
@click.option("--in-flight", type=int, required=True)
@click.pass_obj
def queries(where: Where, in_flight: int) -> None:
    """Ask for log and snapshots until SIGTERM."""
    flood = QueryFlood(where, in_flight=in_flight)
    click.echo(msgspec.json.encode(asyncio.run(_until_sigterm(flood))))


@main.command("socket")
@click.option("--subject", required=True)
@click.option("--seconds", type=float, required=True, help="No connection begins after that.")
@click.option("--every", "every_s", type=float, required=True, help="Between two beginnings.")
@click.option("--give-up", "give_up_s", type=float, required=True)
@click.pass_obj
def socket_command(
    where: Where, subject: str, seconds: float, every_s: float, give_up_s: float
) -> None:
    """Flood from one socket, and come back."""
    click.echo(BEGAN)
    cuts = []
    due = time.monotonic()
    end = due + seconds
    while due < end:
        time.sleep(max(due - time.monotonic(), 0))
        cuts.append(flood_socket(where, subject, give_up_s=give_up_s))
        due = max(due + every_s, time.monotonic())
    click.echo(msgspec.json.encode(cuts))


async def _until_sigterm(flood: OrderFlood | QueryFlood) -> Flooded:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return await flood.run(stop)


if __name__ == "__main__":
    main()
