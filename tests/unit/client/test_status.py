"""How the exchange stands, from what servers tell: what is wrong, what is red, and what is read."""

from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console
from rich.text import Text

from dex_client.commands.status import status_lines
from dex_client.comparison import View, compare
from dex_client.standings import read
from dex_protocol.codec import encode
from dex_protocol.standing import ENDPOINT, MarketStanding, Role, ServerStanding

BOOK = "00000000000000aa"
OTHER_BOOK = "00000000000000bb"
RED = "\x1b[1;31m"


def held(market: str = "BTC-USD", role: Role = "follower", **fields: Any) -> MarketStanding:
    base = {
        "market": market,
        "role": role,
        "term": 3,
        "sequence": 120,
        "digest": BOOK,
        "leader": "server-1",
        "lag": 0,
        "is_current": True,
    }
    return MarketStanding(**(base | fields))


def a_server(number: int, *markets: MarketStanding, incarnation: str = "") -> ServerStanding:
    name = f"server-{number}"
    return ServerStanding(
        server=name, incarnation=incarnation or f"{name}.0123456789", markets=list(markets)
    )


def plain(view: View) -> str:
    return "\n".join(line.plain for line in status_lines(view))


def red(view: View) -> list[str]:
    """Give what is red, as a terminal gets it."""
    console = Console(file=StringIO(), force_terminal=True, color_system="standard", width=200)
    console.print(Text("\n").join(status_lines(view)))
    assert isinstance(console.file, StringIO)
    _, *marked = console.file.getvalue().split(RED)
    return [text.partition("\x1b[0m")[0].rstrip() for text in marked]


def test_healthy_exchange_is_two_tables_and_a_word() -> None:
    eth = "ETH-USD"
    view = compare(
        [
            a_server(2, held(eth, "leader", sequence=7), held(sequence=118, digest=OTHER_BOOK)),
            a_server(1, held(role="leader"), held(eth, sequence=8)),
        ]
    )

    assert view.is_well
    assert (view.problems, view.remarks) == ([], [])
    assert plain(view) == (
        "MARKET   LEADER    TERM  SEQUENCE  DIGEST            CURRENT\n"
        "BTC-USD  server-1     3       120  00000000000000aa  2 of 2\n"
        "ETH-USD  server-2     3         7  00000000000000aa  2 of 2\n"
        "\n"
        "SERVER    MARKET   ROLE      TERM  SEQUENCE  LAG  DIGEST\n"
        "server-1  BTC-USD  leader       3       120    0  00000000000000aa\n"
        "server-1  ETH-USD  follower     3         8    0  00000000000000aa\n"
        "server-2  BTC-USD  follower     3       118    2  00000000000000bb\n"
        "server-2  ETH-USD  leader       3         7    0  00000000000000aa\n"
        "\n"
        "all is well: 2 markets, 2 servers"
    )
    assert red(view) == []


def test_servers_without_markets_are_well_and_are_listed() -> None:
    view = compare([a_server(1)])

    assert view.is_well
    assert plain(view) == (
        "no markets\n"
        "\n"
        "SERVER    MARKET  ROLE  TERM  SEQUENCE  LAG  DIGEST\n"
        "server-1  -       -        -         -    -  -\n"
        "\n"
        "all is well: 0 markets, 1 server"
    )


def test_two_leaders_are_a_problem_and_the_newer_term_is_shown() -> None:
    view = compare(
        [
            a_server(1, held(role="leader", sequence=130)),
            a_server(2, held(role="leader", term=4, sequence=121, leader="server-2")),
            a_server(3, held(sequence=121)),
        ]
    )

    assert view.problems == ["BTC-USD: more than one server leads: server-1, server-2"]
    (market,) = view.markets
    assert (market.leaders, market.term, market.sequence) == (["server-1", "server-2"], 4, 121)
    assert [server.markets[0].lag for server in view.servers] == [0, 0, 0]
    assert red(view) == ["server-1, server-2", "leader", "leader", *view.problems]


@pytest.mark.parametrize("role", ["follower", "candidate", "retiring"])
def test_market_without_a_leader_is_a_problem_and_lags_are_the_servers_own(role: Role) -> None:
    view = compare(
        [
            a_server(1, held(role=role, sequence=100, lag=7)),
            a_server(2, held(sequence=105, lag=2)),
        ]
    )

    assert view.problems == ["BTC-USD: no server leads"]
    (market,) = view.markets
    assert (market.leaders, market.sequence) == ([], 105)
    assert [server.markets[0].lag for server in view.servers] == [7, 2]
    assert red(view) == ["none", "BTC-USD: no server leads"]


def test_books_that_differ_at_the_same_sequence_are_a_problem() -> None:
    """At different sequences they may differ (G15)."""
    view = compare(
        [
            a_server(1, held(role="leader")),
            a_server(2, held(digest=OTHER_BOOK)),
            a_server(3, held(sequence=119, digest=OTHER_BOOK)),
        ]
    )

    assert view.problems == [
        f"BTC-USD: the books differ at sequence 120: {BOOK} on server-1, {OTHER_BOOK} on server-2"
    ]
    assert red(view) == [BOOK, BOOK, OTHER_BOOK, *view.problems]


def test_books_of_followers_are_compared_where_the_leader_is_farther() -> None:
    view = compare(
        [
            a_server(1, held(role="leader", sequence=121)),
            a_server(2, held()),
            a_server(3, held(digest=OTHER_BOOK)),
        ]
    )

    assert not view.is_well
    assert [server.markets[0].marks for server in view.servers] == [[], ["digest"], ["digest"]]
    assert view.markets[0].marks == ["digest"]


def test_books_of_different_markets_and_no_books_are_not_compared() -> None:
    view = compare(
        [
            a_server(1, held(role="leader"), held("ETH-USD", "leader", digest=OTHER_BOOK)),
            a_server(2, held("ETH-USD", sequence=0, digest="", is_current=False)),
            a_server(3, held("ETH-USD", digest="", is_current=False)),
        ]
    )

    assert view.is_well


def test_stopped_replica_is_a_problem_even_where_its_book_is_right() -> None:
    view = compare(
        [a_server(1, held(role="leader")), a_server(2, held(role="stopped", is_current=False))]
    )

    assert view.problems == ["BTC-USD: server-2 has stopped"]
    assert view.remarks == []
    assert red(view) == ["1 of 2", "stopped", "BTC-USD: server-2 has stopped"]


def test_replica_that_is_not_current_is_red_and_no_problem() -> None:
    view = compare(
        [
            a_server(1, held(role="leader", sequence=1_000)),
            a_server(2, held(sequence=0, term=0, digest="", is_current=False)),
        ]
    )

    assert view.is_well
    assert view.remarks == [
        "BTC-USD: server-2 is not current",
        "BTC-USD: server-2 is 1000 commits behind",
    ]
    assert red(view) == ["1 of 2", "follower, not current", "1000"]
    assert "server-2  BTC-USD  follower, not current     0         0  1000  -\n" in plain(view)


@pytest.mark.parametrize(("behind", "remarks"), [(100, 0), (101, 1)])
def test_lag_is_red_beyond_100_commits(behind: int, remarks: int) -> None:
    view = compare(
        [
            a_server(1, held(role="leader", sequence=1_000)),
            a_server(2, held(sequence=1_000 - behind)),
        ]
    )

    assert view.is_well
    assert len(view.remarks) == remarks
    assert red(view) == [str(behind)] * remarks


def test_one_name_of_two_servers_is_a_problem() -> None:
    view = compare(
        [a_server(1, held(role="leader")), a_server(1, held(), incarnation="server-1.other")]
    )

    assert view.problems == ["2 servers are named server-1"]


def test_nobody_is_a_problem() -> None:
    view = compare([])

    assert (view.is_well, view.problems) == (False, ["no server answers"])


def test_what_was_passed_over_is_remarked_first() -> None:
    servers = [a_server(1, held(role="leader")), a_server(2, held(is_current=False))]
    view = compare(servers, ["passed over somebody"])

    assert view.remarks == ["passed over somebody", "BTC-USD: server-2 is not current"]
    assert view.is_well


def test_json_says_all_that_the_text_says() -> None:
    view = compare([a_server(1, held(role="leader"))])

    assert msgspec.json.decode(encode(view)) == {
        "is_well": True,
        "problems": [],
        "remarks": [],
        "markets": [
            {
                "market": "BTC-USD",
                "leaders": ["server-1"],
                "term": 3,
                "sequence": 120,
                "digest": BOOK,
                "current": 1,
                "servers": 1,
                "marks": [],
            }
        ],
        "servers": [
            {
                "server": "server-1",
                "incarnation": "server-1.0123456789",
                "markets": [
                    {
                        "market": "BTC-USD",
                        "role": "leader",
                        "term": 3,
                        "sequence": 120,
                        "lag": 0,
                        "digest": BOOK,
                        "is_current": True,
                        "marks": [],
                    }
                ],
            }
        ],
    }


# --- Reading an answer --------------------------------------------------------------------------


def an_answer(data: object, *, endpoint: str = ENDPOINT, **fields: Any) -> bytes:
    endpoints = [{"name": "admin", "data": None}, {"name": endpoint, "data": data}]
    return msgspec.json.encode({"name": "dex-server", "id": "ID", "endpoints": endpoints} | fields)


def test_answer_of_a_server_is_its_standing() -> None:
    standing = a_server(1, held(role="leader"), held("ETH-USD", sequence=0, digest="", leader=""))

    assert read(an_answer(standing)) == standing
    assert read(an_answer(msgspec.to_builtins(standing) | {"of_later": 1})) == standing


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "an answer that cannot be read"),
        (b"\xff", "an answer that cannot be read"),
        (b"[" * 10_000, "an answer that cannot be read"),
        (b"{}", "an answer that cannot be read"),
        (an_answer(None), "does not tell how it stands"),
        (an_answer({}, endpoint="other"), "does not tell how it stands"),
        (an_answer({}, endpoints=[]), "does not tell how it stands"),
        (an_answer({}), "tells what cannot be read"),
        (an_answer("\x1b[31m"), "tells what cannot be read"),
        (an_answer(None, id="\x1b[31m" * 999), "does not tell how it stands"),
    ],
)
def test_answer_of_somebody_else_is_a_sentence(payload: bytes, expected: str) -> None:
    sentence = read(payload)

    assert isinstance(sentence, str)
    assert expected in sentence
    assert sentence.startswith("passed over ")
    assert sentence.isprintable()
    assert len(sentence) < 500


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (ServerStanding(server="\x1b[2J", incarnation="", markets=[]), "the server"),
        (ServerStanding(server="s", incarnation="\x1b[2J", markets=[]), "the incarnation"),
        (a_server(1, held("A"), held("A")), "a market twice"),
        (a_server(1, held("A B")), "the market 'A B'"),
        (a_server(1, held(leader="\n")), "the leader '\\n'"),
        (a_server(1, held(digest="green")), "the digest 'green'"),
        (a_server(1, held(sequence=-1)), "a number below 0 in BTC-USD"),
    ],
)
def test_answer_that_cannot_be_is_a_sentence(standing: ServerStanding, expected: str) -> None:
    sentence = read(an_answer(standing))

    assert isinstance(sentence, str)
    assert f"tells what cannot be: {expected}" in sentence
    assert sentence.isprintable()


def test_leader_that_its_log_does_not_answer_is_a_problem() -> None:
    """It answers every order with `retry`, however well it knows the book."""
    view = compare([a_server(1, held(role="leader", is_current=False)), a_server(2, held())])

    assert view.problems == ["BTC-USD: server-1 leads and cannot reach the log"]
    assert view.remarks == []
    assert view.markets[0].marks == ["current"]
