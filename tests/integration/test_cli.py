"""The command line as people use it: real processes, a real server, and what they print."""

import asyncio
import json
import os
import pty
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from deploy import processes
from dex_runtime.keys import VARIABLE
from tests.integration.programs import PATIENCE_S, Exchange, Program, asked
from tests.nats_nodes import Nodes, calling, connected, running

NOWHERE = "nats://127.0.0.1:1"
STATUS = Path(__file__).parents[1] / "unit" / "protocol" / "golden" / "reply.status.json"
ESCAPE = "\x1b["
OF_OURS = ("DEX_", "NATS_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM")
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name == VARIABLE or not name.startswith(OF_OURS)
}


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def data(self) -> list[dict[str, Any]]:
        """Its JSON, an object for each line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


async def command(*words: str, **environment: str) -> Ended:
    """Run a command to its end."""
    program = processes.executable("dex-client", advice="`uv sync` installs it")
    process = await asyncio.create_subprocess_exec(
        str(program),
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT | environment,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


class Desk:
    """Somebody at a terminal, with one market in mind."""

    def __init__(self, url: str, market: str) -> None:
        self.url = url
        self.market = market

    async def tries(self, *words: str, peer: str = "alice") -> Ended:
        """Give a command, whatever comes of it."""
        return await command(*words, DEX_NATS=self.url, DEX_MARKET=self.market, DEX_PEER=peer)

    async def says(self, *words: str, peer: str = "alice") -> str:
        """Give a command that does what it should; give its text."""
        ended = await self.tries(*words, peer=peer)
        assert (ended.exit_code, ended.stderr) == (0, ""), ended
        return ended.stdout

    async def data(self, *words: str, peer: str = "alice") -> dict[str, Any]:
        """Give a command that does what it should; give its JSON."""
        ended = await self.tries(*words, "--json", peer=peer)
        assert (ended.exit_code, ended.stderr) == (0, ""), ended
        (message,) = ended.data
        return message

    async def is_refused(self, *words: str, peer: str = "alice") -> str:
        """Give a command that is refused, in both ways; give the line that says why."""
        text = await self.tries(*words, peer=peer)
        data = await self.tries(*words, "--json", peer=peer)
        assert (text.exit_code, text.stdout, len(text.stderr.splitlines())) == (1, "", 1), text
        assert (data.exit_code, data.data[0]["status"]) == (1, "rejected"), data
        assert data.data[0]["reason"] in data.stderr
        return text.stderr.strip()


@pytest.fixture
def desk(venue: Exchange, market: str) -> Desk:
    """Sit down."""
    return Desk(venue.urls, market)


async def test_a_day(desk: Desk) -> None:
    market = desk.market
    steps = ("--tick-size", "0.01", "--lot-size", "0.001")

    # The market opens, twice, which is harmless.
    assert (
        await desk.says("markets", "open", market, *steps) == f"{market} is open, as of commit 1\n"
    )
    assert await desk.data("markets", "open", market, *steps) == {"sequence": 1}
    assert "malformed" in await desk.is_refused(
        "markets", "open", market, "--tick-size", "1", "--lot-size", "1"
    )
    assert await desk.data("markets", "change", market, "--max-price", "1000") == {"sequence": 2}
    assert (await desk.says("markets", "change", market, "--min-notional", "0.1")).startswith(
        f"{market} is changed, as of commit "
    )

    # Two orders rest, and one trades with both.
    resting = await desk.data("buy", "0.50", "--price", "101.250", "--expires-in", "1h")
    first = resting["order_id"]
    assert (resting["status"], resting["remaining_quantity"]) == ("new", "0.5")
    text = await desk.says("buy", "1", "--price", "101", "--post-only")
    assert re.fullmatch(
        r"new  order_alice_\d+_\d+  buy 1 at 101, filled 0, remaining 1, version 1\n", text
    )
    second = text.split()[1]
    text = await desk.says("sell", "0.75", peer="bob")
    assert text.startswith("filled  order_bob_")
    assert f": 0.5 at 101.25, against {first}\n" in text
    assert f": 0.25 at 101, against {second}\n" in text
    text = await desk.says("sell", "2", "--price", "103", peer="bob")
    assert text.startswith("new  order_bob_")

    # Everybody looks.
    assert await desk.says("book") == (
        "ORDERS  QUANTITY  BID  |  ASK  QUANTITY  ORDERS\n"
        "     1      0.75  101  |  103         2       1\n"
    )
    book = await desk.data("book", "--depth", "1")
    assert book["bids"] == [{"price": "101", "quantity": "0.75", "count": 1}]
    assert f"buy     101       0.75        1  {second}\n" in await desk.says("book", "--orders")
    assert (await desk.data("book", "--orders"))["bids"][0]["order_id"] == second
    assert second in await desk.says("orders")
    assert [each["order_id"] for each in (await desk.data("orders"))["orders"]] == [second]
    assert (await desk.says("order", first)).startswith(f"filled  {first}  buy 0.5 at 101.25, ")
    assert (await desk.data("order", first))["order"]["status"] == "filled"
    assert len((await desk.says("trades")).splitlines()) == 3
    trades = (await desk.data("trades", "--limit", "1"))["trades"]
    assert [trade["maker_order_id"] for trade in trades] == [second]

    # Orders change, and go.
    text = await desk.says("amend", second, "--quantity", "0.9", "--if-version", "1")
    assert "amended to 0.9, filled 0.25" in text
    assert "remaining 0.65, version 2" in text
    assert (await desk.data("amend", second, "--price", "100"))["version"] == 3
    assert "version_conflict" in await desk.is_refused("cancel", second, "--if-version", "1")
    assert (await desk.says("cancel", second)).startswith(f"canceled  {second}  ")
    assert "(" + second + " is canceled, 0.25 of it filled)" in await desk.is_refused(
        "cancel", second
    )
    third = (await desk.data("buy", "1", "--price", "99"))["order_id"]
    assert (await desk.data("cancel", third))["status"] == "canceled"
    fourth = (await desk.data("buy", "1", "--price", "98"))["order_id"]
    assert await desk.says("cancel-all", "--side", "buy") == f"canceled  1 order\n{fourth}\n"
    assert (await desk.data("cancel-all"))["canceled"] == []

    # The operator closes down.
    assert (await desk.says("markets", "halt", market)).startswith(f"{market} is halted, as of ")
    assert set(await desk.data("markets", "halt", market)) == {"sequence"}
    assert "market_halted" in await desk.is_refused("buy", "1", "--price", "98")
    assert (await desk.says("markets", "resume", market)).startswith(f"{market} trades, as of ")
    assert set(await desk.data("markets", "resume", market)) == {"sequence"}
    listed = [line for line in (await desk.says("markets", "list")).splitlines() if market in line]
    assert re.fullmatch(rf"{market} +trading +server-1 +1 +\d+ +101", *listed)
    assert (await desk.says("markets", "close", market)).startswith(f"{market} is closed, as of ")
    assert set(await desk.data("markets", "close", market)) == {"sequence"}
    assert "market_halted" in await desk.is_refused("markets", "resume", market)
    ended = await desk.tries("markets", "list", "--json")
    (line,) = [each for each in ended.data if each["market"] == market]
    assert (line["state"], line["leader"], line["last_price"]) == ("closed", "server-1", "101")
    assert line["specification"]["max_price"] == "1000"


# --- Mistakes -----------------------------------------------------------------------------------


async def test_typical_mistakes_are_told_in_a_sentence(desk: Desk) -> None:
    opening = ("markets", "open", desk.market, "--tick-size", "0.01", "--lot-size", "0.001")
    await desk.says(*opening)
    missing = "order_alice_1763800000000_17"

    nobody = await desk.tries("book", "--nats", NOWHERE)
    no_market = await desk.tries("buy", "1", "--price", "100", "--market", "NO-SUCH")
    no_decimal = await desk.tries("buy", "1", "--price", "100,5")
    off_tick = await desk.tries("buy", "1", "--price", "100.005")
    misspelt = await desk.tries("buy", "1", "--prise", "100")
    not_found = await desk.tries("order", missing)

    assert nobody.exit_code == 2
    assert nobody.stderr.startswith(f"Error: cannot connect to NATS at {NOWHERE}: ")
    assert no_market == Ended(
        1,
        "",
        "Error: unknown_market: there is no market 'NO-SUCH' "
        "(`dex-client markets list` lists them)\n",
    )
    assert no_decimal.exit_code == 2
    assert no_decimal.stderr.endswith(
        "Error: Invalid value for '--price': "
        "expected a decimal number such as 100.5, found '100,5'\n"
    )
    assert off_tick == Ended(
        1,
        "",
        "Error: price_off_tick: the price is not a multiple of the tick size "
        "(expected a multiple of 0.01, found 100.005)\n",
    )
    assert misspelt.exit_code == 2
    assert "No such option '--prise'" in misspelt.stderr
    assert "'--price'" in misspelt.stderr
    assert not_found == Ended(
        1,
        "",
        f"Error: unknown_order: this peer has no such order (asked as alice, in {desk.market})\n",
    )


async def test_market_that_nobody_serves_is_told_as_that(node: Nodes) -> None:
    desk = Desk(node.urls[0], "BTC-USD")
    buying = await desk.tries("buy", "1", "--deadline", "0.3")
    halting = await desk.tries("markets", "halt", "BTC-USD", "--deadline", "0.3")

    for ended in (buying, halting):
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "found nobody who serves it, and nothing was done; see that a server runs" in (
            ended.stderr
        )


async def test_markets_of_an_exchange_without_servers_are_none(tmp_path: Path) -> None:
    # On a node of its own: whatever others opened on a shared one would be listed.
    async with running(tmp_path / "node") as nodes:
        ended = await Desk(nodes.urls[0], "X").tries("markets", "list")

    assert ended.exit_code == 0
    assert ended.stdout == "no markets; open one: dex-client markets open --help\n"


# --- No outcome ---------------------------------------------------------------------------------


class SilentLeader:
    """A market whose leader takes orders and never says what became of them."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.has_taken = asyncio.Event()
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    async def lead(self, client: Client, market: str) -> None:
        """Subscribe."""
        status = STATUS.read_bytes()

        async def tell_status(message: Msg) -> None:
            await message.respond(status)

        async def take(message: Msg) -> None:
            self.taken.append(message.data)
            self.has_taken.set()
            if self.answer is not None:
                order = json.loads(message.data)
                is_batch = isinstance(order, list)
                receipt = self.answer(order[0] if is_batch else order)
                await message.respond(json.dumps([receipt] if is_batch else receipt).encode())

        await client.subscribe(f"dex.query.{market}.status.*", cb=tell_status)
        await client.subscribe(f"dex.orders.{market}.*", cb=take)
        await client.flush()


def the_order(payload: bytes) -> dict[str, Any]:
    """Read the one command of a request."""
    read = json.loads(payload)
    order: dict[str, Any] = read[0] if isinstance(read, list) else read
    return order


def placed(order: dict[str, Any]) -> dict[str, Any]:
    """Say that it rests."""
    return {
        "status": "new",
        "order_id": order["order_id"],
        "filled_quantity": "0",
        "remaining_quantity": order["quantity"],
        "version": 1,
        "sequence": 9,
    }


async def test_order_without_an_outcome_can_be_sent_again_as_it_says(
    node: Nodes, client: Client, market: str
) -> None:
    """The same content with the same id: nothing else would settle it."""
    leader = SilentLeader()
    await leader.lead(client, market)
    desk = Desk(node.urls[0], market)
    silent = await desk.tries(
        "buy", "0.5", "--price", "101", "--expires-in", "1h", "--deadline", "1"
    )

    assert (silent.exit_code, silent.stdout) == (1, "")
    assert "it may or may not have been executed" in silent.stderr
    again = shlex.split(silent.stderr.splitlines()[-1])
    assert again[:2] == ["dex-client", "buy"]

    copies = len(leader.taken)
    leader.answer = placed
    settled = await desk.tries(*again[1:])

    assert (settled.exit_code, settled.stderr) == (0, "")
    assert settled.stdout.startswith("new  order_alice_")
    orders = [the_order(payload) for payload in leader.taken]
    assert len(orders) == copies + 1
    assert orders == [orders[0]] * len(orders)


async def test_order_that_is_interrupted_says_how_to_send_it_again(
    node: Nodes, client: Client, market: str, tmp_path: Path
) -> None:
    leader = SilentLeader()
    await leader.lead(client, market)
    words = ("buy", "0.5", "--price", "101", "--market", market, "--nats", node.urls[0])
    program = Program("dex-client", *words, log=tmp_path / "buy.log")
    try:
        async with asyncio.timeout(PATIENCE_S):
            await leader.has_taken.wait()
        program.send(signal.SIGINT)
        exit_code = await program.ended()
    finally:
        program.end()

    assert exit_code == 1
    again = shlex.split(program.printed.splitlines()[-1])
    assert again[again.index("--order-id") + 1] == the_order(leader.taken[0])["order_id"]
    assert again[again.index("--nats") + 1] == node.urls[0]


# --- Following ----------------------------------------------------------------------------------


async def test_tail_and_a_plain_subscription_see_the_same_commits_in_the_same_order(
    venue: Exchange, desk: Desk, tmp_path: Path
) -> None:
    market = desk.market
    await venue.open(market)
    heard: list[bytes] = []
    where = ("--market", market, "--nats", venue.urls)
    program = Program("dex-client", "tail", "--json", *where, log=tmp_path / "tail.log")
    try:
        async with calling(venue.nodes) as callers, connected(venue.nodes, peer="carol") as client:

            async def hear(message: Msg) -> None:
                heard.append(message.data)

            await program.prints("Following")
            await client.subscribe(f"dex.events.{market}", cb=hear)
            await client.flush()
            orders = [
                {"op": "submit", "side": side, "quantity": "1", "price": str(100 + number % 3)}
                for number, side in enumerate(["buy", "sell", "buy"] * 10)
            ]
            subject = f"dex.orders.{market}"
            await asyncio.gather(
                *(asked(callers, f"{subject}.alice", order) for order in orders),
                *(asked(callers, f"{subject}.bob", order) for order in orders),
            )
            last = (await asked(callers, f"{subject}.alice", orders[0]))["sequence"]
            await program.prints(f'"market":"{market}","sequence":{last},')
            program.send(signal.SIGINT)
            exit_code = await program.ended()
            # What was published before this is there when it is back.
            await client.flush()
    finally:
        program.end()

    assert exit_code == 0
    told, following, *lines = program.printed.splitlines()
    assert (
        told == f"The same with the nats tool: nats sub 'dex.events.{market}' --server {venue.urls}"
    )
    assert following == f"Following {market}; Ctrl-C ends it."
    assert [line.encode() for line in lines] == heard
    assert heard == (await venue.log(market))[-len(heard) :]
    assert json.loads(heard[-1])["sequence"] == last

    first = json.loads(heard[0])["sequence"]
    options = ("--from", str(first), "--count", str(len(heard)))
    as_text = await desk.tries("tail", *options)
    as_data = await desk.tries("tail", "--json", *options)
    assert (as_text.exit_code, as_data.exit_code) == (0, 0)
    assert as_data.stdout.encode() == b"".join(payload + b"\n" for payload in heard)
    events = [
        (commit["sequence"], event["event"])
        for commit in map(json.loads, heard)
        for event in commit["events"] or [{"event": "(empty:"}]
    ]
    assert [
        (int(sequence), name)
        for sequence, _, name, *_ in (line.split() for line in as_text.stdout.splitlines())
    ] == events


async def test_tail_of_no_market_is_refused(desk: Desk) -> None:
    ended = await desk.tries("tail", "--json")

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "unknown_market: there is no market" in ended.stderr


async def test_tail_from_what_was_trimmed_says_where_the_log_begins(
    desk: Desk, venue: Exchange
) -> None:
    await venue.open(desk.market)
    for price in ("1", "2", "3"):
        await desk.says("buy", "1", "--price", price)
    async with connected(venue.nodes) as client:
        await client.jsm().purge_stream(f"DEX-LOG-{desk.market}", seq=3)
    ended = await desk.tries("tail", "--from", "1")

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.endswith("begin there: --from 3\n")


# --- Terminals ----------------------------------------------------------------------------------


async def at_a_terminal(desk: Desk, *words: str, typed: bytes = b"", **environment: str) -> Ended:
    """Run a command whose stdin, stdout and stderr are one terminal."""
    controller, terminal = pty.openpty()
    program = processes.executable("dex-client", advice="`uv sync` installs it")
    shown = b""
    try:
        process = await asyncio.create_subprocess_exec(
            str(program),
            *words,
            *("--nats", desk.url),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=ENVIRONMENT | {"TERM": "xterm-256color"} | environment,
        )
        os.write(controller, typed)
        async with asyncio.timeout(PATIENCE_S):
            exit_code = await process.wait()
        # All of it fits a terminal's buffer, and stays there after the program's end.
        shown = os.read(controller, 65_536)
    finally:
        os.close(terminal)
        os.close(controller)
    return Ended(exit_code, shown.decode(), "")


async def test_colours_are_for_terminals_without_no_color(desk: Desk, venue: Exchange) -> None:
    await venue.open(desk.market)
    await desk.says("buy", "1", "--price", "100")
    looking = ("book", "--market", desk.market)
    coloured = await at_a_terminal(desk, *looking)
    plain = await at_a_terminal(desk, *looking, NO_COLOR="1")
    as_data = await at_a_terminal(desk, *looking, "--json")

    assert ESCAPE in coloured.stdout
    assert ESCAPE not in plain.stdout
    assert ESCAPE not in as_data.stdout
    assert ESCAPE not in await desk.says("book")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured.stdout) == plain.stdout
    assert plain.stdout.replace("\r\n", "\n") == await desk.says("book")


async def test_at_a_terminal_closing_is_asked_about(desk: Desk, venue: Exchange) -> None:
    await venue.open(desk.market)
    closing = ("markets", "close", desk.market)
    no = await at_a_terminal(desk, *closing, typed=b"n\n")
    yes = await at_a_terminal(desk, *closing, typed=b"y\n")
    unasked = await at_a_terminal(desk, *closing, "--yes")

    assert (no.exit_code, yes.exit_code, unasked.exit_code) == (1, 0, 0)
    assert "will never trade again, and every order is canceled. Close it?" in no.stdout
    assert f"{desk.market} is closed, as of commit 2" in yes.stdout
    assert "Close it?" not in unasked.stdout
