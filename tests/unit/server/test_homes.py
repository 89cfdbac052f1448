"""Where markets belong, as pictures: a line per server, with the markets that it leads."""

from collections.abc import Collection, Mapping, Sequence

import pytest

from dex_server.replication.homes import Move, Server, heirs, next_move, preference

TEN = "ABCDEFGHIJ"
"""Ten markets; the servers hold all of them, where it is not said which."""

BY_THREE = [
    "east: B F H",
    "north: C E G J",
    "west: A D I",
]

BY_FOUR = [
    "east: F H",
    "north: C E G",
    "south: B J",
    "west: A D I",
]

BY_THREE_AFTER_EAST_DIED = [
    "north: C E G",
    "south: B F J",
    "west: A D H I",
]

BY_FOUR_AFTER_EAST_CAME_BACK = [
    "east: G H",
    "north: C E",
    "south: B F J",
    "west: A D I",
]


def living(*names: str, holding: str = TEN) -> list[Server]:
    return [Server(name, frozenset(holding)) for name in names]


def read(*picture: str) -> dict[str, str]:
    """Tell who leads each market."""
    lines = [line.split(": ") for line in picture]
    return {market: name for name, markets in lines for market in markets.split()}


def drawn(leaders: Mapping[str, str]) -> list[str]:
    """Draw who leads what; servers that lead nothing are not seen."""
    return [
        f"{name}: {' '.join(market for market in sorted(leaders) if leaders[market] == name)}"
        for name in sorted(set(leaders.values()))
    ]


def balanced(servers: Collection[Server], picture: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hand over while anything is to be: the moves, and the picture after them."""
    leaders = read(*picture)
    moves: list[str] = []
    while len(moves) < len(TEN) and (move := next_move(servers, leaders, movable=TEN)):
        assert leaders[move.market] == move.giver
        leaders[move.market] = move.successor
        moves.append(f"{move.market}: {move.giver} to {move.successor}")
    return moves, drawn(leaders)


# --- Heirs --------------------------------------------------------------------------------------


def test_ten_markets_that_nobody_led_are_spread_over_three_servers() -> None:
    assert drawn(heirs(living("east", "north", "west"), {}, TEN)) == BY_THREE


def test_markets_of_a_dead_server_go_to_those_that_lead_the_fewest() -> None:
    _, *others = BY_FOUR
    leaders = read(*others)
    leaders |= heirs(living("north", "south", "west"), leaders, "FH")

    assert drawn(leaders) == BY_THREE_AFTER_EAST_DIED


def test_market_goes_to_a_server_that_holds_it_even_if_others_lead_fewer() -> None:
    servers = [*living("east"), *living("north", holding="AB"), *living("west", holding="")]

    assert heirs(servers, read("east: A B C D"), "EF") == {"E": "east", "F": "east"}


def test_market_that_nobody_holds_is_left_out() -> None:
    servers = [*living("east", holding="A"), *living("north", holding="C")]

    assert heirs(servers, {}, "ABC") == {"A": "east", "C": "north"}
    assert heirs([], {}, "ABC") == {}


def test_markets_of_a_server_that_leaves_count_for_nobody() -> None:
    leaders = read("gone: A B C D", "north: E")

    assert heirs(living("east", "north"), leaders, "F") == {"F": "east"}


def test_among_servers_that_lead_equally_many_each_market_has_its_own_preference() -> None:
    servers = living("east", "north", "west")
    one_by_one = {market: heirs(servers, {}, market)[market] for market in TEN}
    preferred = {market: preference(market, ["west", "north", "east"])[0] for market in TEN}

    assert one_by_one == preferred
    assert set(preferred.values()) == {"east", "north", "west"}


# --- Moves --------------------------------------------------------------------------------------


def test_server_that_joins_is_given_what_makes_the_counts_equal_and_no_more() -> None:
    moves, after = balanced(living("east", "north", "south", "west"), BY_THREE)

    assert moves == ["J: north to south", "B: east to south"]
    assert after == BY_FOUR


def test_server_that_comes_back_is_given_as_many_as_it_lacks() -> None:
    moves, after = balanced(living("east", "north", "south", "west"), BY_THREE_AFTER_EAST_DIED)

    assert moves == ["H: west to east", "G: north to east"]
    assert after == BY_FOUR_AFTER_EAST_CAME_BACK


def test_counts_that_differ_by_one_are_left_alone() -> None:
    leaders = read("east: A B C", "north: D E")

    assert next_move(living("east", "north"), leaders, movable=TEN) is None


def test_server_that_holds_only_some_markets_is_given_those_alone() -> None:
    servers = [*living("east", "north"), *living("south", holding="BG")]
    moves, after = balanced(servers, ["east: A B C D E", "north: F G H I J"])

    assert moves == ["B: east to south", "G: north to south"]
    assert after == ["east: A C D E", "north: F H I J", "south: B G"]


def test_where_the_first_can_give_nothing_the_next_one_gives() -> None:
    servers = living("east", "north", "west")
    leaders = read("east: A B C D", "north: E F G")

    assert next_move(servers, leaders, movable="G") == Move("G", "north", "west")


def test_where_the_one_with_the_fewest_can_take_nothing_the_next_one_takes() -> None:
    servers = [*living("east", "north"), *living("west", holding="")]
    leaders = read("east: A B C", "north: D")

    assert next_move(servers, leaders, movable="C") == Move("C", "east", "north")


def test_among_servers_that_lead_equally_many_the_first_name_gives_and_is_given() -> None:
    leaders = read("east: A B", "north: C D")
    move = next_move(living("west", "south", "north", "east"), leaders, movable="AC")

    assert move == Move("A", "east", "south")


@pytest.mark.parametrize("movable", ["", "DE"])
def test_what_may_not_be_handed_over_stays(movable: str) -> None:
    leaders = read("east: A B C", "north: D")

    assert next_move(living("east", "north"), leaders, movable=movable) is None


def test_server_that_leaves_is_neither_giver_nor_successor() -> None:
    leaders = read("gone: A B C D E F", "north: G H")

    assert next_move(living("north"), leaders, movable=TEN) is None
    assert next_move(living("east", "north"), leaders, movable="AG") == Move("G", "north", "east")


# --- Preference ---------------------------------------------------------------------------------


def test_preference_is_the_same_in_every_process_and_version() -> None:
    """Servers of different versions run side by side, and must agree."""
    order = preference("BTC-USD", ["east", "north", "south", "west"])

    assert order == ["east", "south", "west", "north"]
