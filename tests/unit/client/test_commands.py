"""The commands' words: help texts, what is refused before anything is sent, and what is sent."""

import shlex
import time
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from dex_client.cli import main
from dex_client.commands import frame, orders
from dex_client.commands.frame import Caller
from dex_client.commands.orders import bound_text, resend_words
from dex_client.commands.output import Output
from dex_client.commands.tail import nats_command
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Submit
from dex_protocol.reasons import Reason
from dex_protocol.receipts import refused
from dex_protocol.specification import Specification
from dex_runtime.connection import Credentials

NOWHERE = "nats://127.0.0.1:1"
ORDER = "order_alice_1763800000000_17"
COMMAND = "command_alice_1763800000000_18"

COMMANDS = {
    (name, *sub): command
    for name, group in main.commands.items()
    for sub, command in (
        [((inner,), each) for inner, each in group.commands.items()]
        if isinstance(group, click.Group)
        else [((), group)]
    )
}


def run(*words: str) -> Any:
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Caller, Command]]:
    """Collect what would be sent."""
    collected: list[tuple[Caller, Command]] = []

    async def collect(caller: Caller, command: Command) -> None:
        collected.append((caller, command))

    monkeypatch.setattr(orders, "_carry_out", collect)
    return collected


# --- Help ---------------------------------------------------------------------------------------


def test_commands_are_those_that_are_documented() -> None:
    assert sorted(" ".join(words) for words in COMMANDS) == [
        "amend",
        "book",
        "buy",
        "cancel",
        "cancel-all",
        "markets change",
        "markets close",
        "markets halt",
        "markets list",
        "markets open",
        "markets resume",
        "order",
        "orders",
        "sell",
        "status",
        "tail",
        "trades",
    ]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_has_an_example_that_can_be_parsed(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")

    assert result.exit_code == 0
    assert "Example:" in result.stdout
    (example, *_) = [
        shlex.split(line.partition("|")[0])
        for line in result.stdout.splitlines()
        if line.strip().startswith("dex-client ")
    ]
    assert tuple(example[1 : 1 + len(words)]) == words
    COMMANDS[words].make_context("x", example[1 + len(words) :])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_first_line_of_help_is_whole_in_the_list(words: tuple[str, ...]) -> None:
    """What does not fit a line of the list would end in dots."""
    (line,) = [
        line
        for line in run(*words[:-1], "--help").stdout.splitlines()
        if line.startswith(f"  {words[-1]} ")
    ]

    assert line.endswith(".")
    assert not line.endswith("...")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_speaks_to_machines_and_says_where(words: tuple[str, ...]) -> None:
    stdout = run(*words, "--help").stdout

    assert all(option in stdout for option in ("--json", "--nats", "--deadline"))
    assert (
        ("--peer " in stdout) == ("--market" in stdout) == (words[0] not in ("markets", "status"))
    )


# --- What is refused before anything is sent ----------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["buy"], "Missing argument 'QUANTITY'"),
        (["buy", "half"], "'QUANTITY': expected a decimal number such as 100.5, found 'half'"),
        (["buy", "1,5"], "expected a decimal number such as 100.5, found '1,5'"),
        (["buy", "1", "--price", "1e3"], "'--price': expected a decimal number such as 100.5"),
        (["buy", "1", "--prise", "100"], "No such option '--prise'"),
        (["buy", "1", "--price", "1", "--time-in-force", "day"], "'day' is not one of 'gtc'"),
        (["buy", "1", "--price", "1", "--expires-in", "soon"], "such as 90s, found 'soon'"),
        (["buy", "1", "--price", "1", "--expires-in", "0"], "such as 90s, found '0'"),
        (["buy", "1", "--price", "1", "--time-in-force", "gtd"], "gtd needs --expires-in"),
        (
            ["buy", "1", "--price", "1", "--expires-in", "5", "--expires-at", "5"],
            "--expires-in and --expires-at say the same",
        ),
        (
            ["buy", "1", "--price", "1", "--time-in-force", "ioc", "--expires-in", "5"],
            "expected expires_at with gtd only",
        ),
        (["buy", "1", "--time-in-force", "gtc"], "without --price it is a market order"),
        (["buy", "1", "--post-only"], "expected post_only with gtc and gtd only"),
        (["buy", "1", "--order-id", "17"], "expected an id such as order_alice_1763800000000_17"),
        (["buy", "1", "--market", "BTC USD"], "expected 1 to 24 letters, digits and dashes"),
        (["buy", "1", "--peer", "al.ice"], "expected 1 to 32 letters, digits, - and _"),
        (["buy", "1", "--nats", ","], "expected an address such as nats://127.0.0.1:4222"),
        (["buy", "1", "--deadline", "0"], "expected a number above 0, found 0"),
        (["cancel", "17"], "expected an id such as order_alice_1763800000000_17, found '17'"),
        (["cancel", ORDER, "--command-id", ORDER], "expected an id such as command_alice_"),
        (["cancel", ORDER, "--if-version", "0"], "0 is not in the range x>=1"),
        (["amend", ORDER], "Nothing to change: give --price, --quantity, or both"),
        (["cancel-all", "--side", "bid"], "'bid' is not one of 'buy', 'sell'"),
        (["order", "x"], "expected an id such as order_alice_1763800000000_17, found 'x'"),
        (["book", "--depth", "1001"], "1001 is not in the range 1<=x<=1000"),
        (["trades", "--limit", "0"], "0 is not in the range 1<=x<=1000"),
        (["tail", "--from", "0"], "0 is not in the range x>=1"),
        (["markets", "halt"], "Missing argument 'MARKET'"),
        (["markets", "hold", "X"], "No such command 'hold'"),
        (["markets", "halt", "A.B"], "expected 1 to 24 letters, digits and dashes"),
        (["markets", "open", "X", "--tick-size", "1"], "Missing option '--lot-size'"),
        (
            ["markets", "open", "X", "--tick-size", "0", "--lot-size", "1"],
            "expected tick_size above 0, found '0'",
        ),
        (["markets", "change", "X"], "Nothing to change: give at least one of the bounds"),
        (["markets", "change", "X", "--max-batch", "1001"], "not in the range 1<=x<=1000"),
        (
            ["markets", "change", "X", "--peer-limit", "alice:orders_per_hour=5"],
            "such as alice:orders_per_second=100, with a limit of max_open_orders, ",
        ),
        (["markets", "change", "X", "--peer-limit", "al.ice:orders_burst=5"], "found 'al.ice:"),
        (
            ["markets", "change", "X", "--peer-limit", "alice:orders_burst=5", "--no-peer-limits"],
            "--peer-limit and --no-peer-limits contradict each other",
        ),
        (
            [
                *("markets", "open", "X", "--tick-size", "1", "--lot-size", "1"),
                *("--peer-limit", "alice:orders_burst=0"),
            ],
            "expected peers.alice.orders_burst from 1 to",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_was_expected(
    words: list[str], expected: str
) -> None:
    result = run("--nats", NOWHERE, *words)

    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.startswith("Usage: ")
    assert result.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["buy", "1"],
        ["buy", "1", "--order-id", ORDER],
        ["cancel-all", "--json"],
        ["book"],
        ["tail"],
        ["markets", "list"],
        ["markets", "halt", "X"],
    ],
    ids=" ".join,
)
def test_nobody_at_the_address_is_one_sentence_that_says_what_to_do(words: list[str]) -> None:
    result = run(*words, "--nats", NOWHERE, "--deadline", "0.1")

    assert result.exit_code == 2
    assert result.stdout == ""
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence.startswith(f"Error: cannot connect to NATS at {NOWHERE}")
    assert sentence.endswith(
        "start an exchange with `just up`, or name its NATS servers with --nats"
    )


# --- What is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("buy 0.50 --price 101.250", Submit(side="buy", quantity="0.50", price="101.250")),
        ("sell 2", Submit(side="sell", quantity="2", type="market")),
        (
            "sell 2 --time-in-force fok",
            Submit(side="sell", quantity="2", type="market", time_in_force="fok"),
        ),
        (
            "buy 1 --price 5 --post-only --self-trade decrement --expires-at 7",
            Submit(
                side="buy",
                quantity="1",
                price="5",
                post_only=True,
                self_trade="decrement",
                time_in_force="gtd",
                expires_at=7,
            ),
        ),
        (f"cancel {ORDER} --if-version 3", Cancel(order_id=ORDER, if_version=3)),
        (
            f"amend {ORDER} --price 5 --command-id {COMMAND}",
            Amend(order_id=ORDER, price="5", command_id=COMMAND),
        ),
        ("cancel-all", CancelAll()),
        ("cancel-all --side sell", CancelAll(side="sell")),
    ],
)
def test_words_become_the_command(
    words: str, expected: Command, sent: list[tuple[Caller, Command]]
) -> None:
    result = run(*words.split())

    assert (result.exit_code, result.output) == (0, "")
    assert [command for _, command in sent] == [expected]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("5m", 300), ("8h", 28_800)])
def test_duration_becomes_a_time(
    text: str, seconds: int, sent: list[tuple[Caller, Command]]
) -> None:
    before = time.time_ns() // 1_000
    run("buy", "1", "--price", "5", "--expires-in", text)
    after = time.time_ns() // 1_000

    ((_, command),) = sent
    assert isinstance(command, Submit)
    assert isinstance(command.expires_at, int)
    assert command.time_in_force == "gtd"
    assert before <= command.expires_at - seconds * 1_000_000 <= after


def test_who_and_where_come_from_options_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[Caller, Command]]
) -> None:
    monkeypatch.setenv("DEX_PEER", "bob")
    monkeypatch.setenv("DEX_MARKET", "ETH-USD")
    monkeypatch.setenv("DEX_NATS", "nats://a,nats://b")
    run("cancel-all")
    run("cancel-all", "--peer", "carol", "--market", "X", "--nats", "nats://c")
    run("--nats", "nats://d", "cancel-all")

    assert [(c.peer, c.market, c.servers, c.servers_were_named) for c, _ in sent] == [
        ("bob", "ETH-USD", ("nats://a", "nats://b"), False),
        ("carol", "X", ("nats://c",), True),
        ("bob", "ETH-USD", ("nats://d",), True),
    ]


# --- Sending once more --------------------------------------------------------------------------


def a_caller(**fields: Any) -> Caller:
    base = {
        "servers": ("nats://127.0.0.1:4222",),
        "servers_were_named": False,
        "peer": "alice",
        "market": "ETH-USD",
        "deadline_s": 1.0,
        "output": Output(as_json=False),
        "credentials": Credentials(),
    }
    return Caller(**(base | fields))


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(UNSET), values)


DECIMALS = st.sampled_from(["1", "0.5", "100.250"])
VERSIONS = optional(st.integers(1, 2**63 - 1))
LIMITS = st.builds(
    Submit,
    side=st.sampled_from(["buy", "sell"]),
    quantity=DECIMALS,
    order_id=st.just(ORDER),
    price=DECIMALS,
    time_in_force=optional(st.sampled_from(["gtc", "ioc", "fok"])),
    post_only=st.booleans(),
    self_trade=st.sampled_from(["cancel_taker", "allow", "decrement"]),
)
EXPIRING = st.builds(
    Submit,
    side=st.sampled_from(["buy", "sell"]),
    quantity=DECIMALS,
    order_id=st.just(ORDER),
    price=DECIMALS,
    time_in_force=st.just("gtd"),
    expires_at=st.integers(1, 2**63 - 1),
)
ANY_PRICE = st.builds(
    Submit,
    side=st.sampled_from(["buy", "sell"]),
    quantity=DECIMALS,
    order_id=st.just(ORDER),
    type=st.just("market"),
    time_in_force=optional(st.sampled_from(["ioc", "fok"])),
)
OTHERS = st.one_of(
    st.builds(Cancel, order_id=st.just(ORDER), command_id=st.just(COMMAND), if_version=VERSIONS),
    st.builds(
        Amend,
        order_id=st.just(ORDER),
        command_id=st.just(COMMAND),
        price=DECIMALS,
        quantity=optional(DECIMALS),
        if_version=VERSIONS,
    ),
    st.builds(
        CancelAll, command_id=st.just(COMMAND), side=optional(st.sampled_from(["buy", "sell"]))
    ),
)


@given(command=st.one_of(LIMITS, EXPIRING, ANY_PRICE, OTHERS), named=st.booleans())
def test_printed_resend_is_the_same_command_by_the_same_peer(command: Command, named: bool) -> None:
    """With another content the id would be `id_reused`, and nothing would be settled."""
    caller = a_caller(servers_were_named=named, servers=("nats://a", "nats://b"))
    (_, *words) = shlex.split(frame.shell_text(resend_words(caller, command)))
    collected: list[tuple[Caller, Command]] = []

    async def collect(caller: Caller, command: Command) -> None:
        collected.append((caller, command))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "_carry_out", collect)
        patch.setenv("DEX_NATS", "nats://a,nats://b")
        result = run(*words)

    assert result.exit_code == 0, result.output
    ((again, same),) = collected
    assert same == command
    assert (again.peer, again.market, again.servers) == ("alice", "ETH-USD", caller.servers)


# --- Hints --------------------------------------------------------------------------------------

BOUNDS = Specification(
    market="ETH-USD",
    tick_size="0.01",
    lot_size="0.1",
    min_quantity="0.2",
    max_price="1000",
    min_notional="10",
    price_band="0.5",
)
ORDERED = Submit(side="buy", quantity="7", price="2000.001")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.price_off_tick, " (expected a multiple of 0.01, found 2000.001)"),
        (Reason.quantity_off_lot, " (expected a multiple of 0.1, found 7)"),
        (
            Reason.price_out_of_range,
            " (expected above 0, at most 1000, within a band of 0.5, found 2000.001)",
        ),
        (Reason.quantity_out_of_range, " (expected above 0, at least 0.2, found 7)"),
        (Reason.notional_out_of_range, " (expected at least 10, found 2000.001 times 7)"),
        (Reason.market_halted, ""),
    ],
)
def test_refused_number_is_shown_beside_what_the_market_takes(
    reason: Reason, expected: str
) -> None:
    assert bound_text(refused(reason), ORDERED, BOUNDS) == expected


def test_nothing_is_hinted_at_where_nothing_is_known() -> None:
    assert bound_text(refused(Reason.price_off_tick), ORDERED, None) == ""
    assert bound_text(refused(Reason.price_off_tick), CancelAll(), BOUNDS) == ""


def test_nats_command_names_servers_that_the_tool_would_not_find_itself() -> None:
    assert nats_command(a_caller()) == "nats sub 'dex.events.ETH-USD'"
    assert nats_command(a_caller(servers=("nats://a", "nats://b"))) == (
        "nats sub 'dex.events.ETH-USD' --server nats://a,nats://b"
    )
