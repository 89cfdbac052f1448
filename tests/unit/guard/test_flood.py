"""Who floods, as pictures: a line for each sample of a node, a column for each connection.

A column is headed by [account/]user:connection; its cells are what the connection has sent since it
began, in messages or in messages/bytes, or `.` where the node does not tell of it. Above them stand
the times at which connections began, on the right who is to be cut. 1,000 messages/s and 1,000,000
bytes/s are allowed: 250 and 250,000 in the 0.25 s between two samples.
"""

import pytest

from dex_guard.flood import Connection, Counters, Flood, Floods, Limits, Rate, Sample

LIMITS = Limits(messages_per_second=1_000, bytes_per_second=1_000_000)


def us(seconds: str) -> int:
    return round(float(seconds) * 1_000_000)


def connection(head: str, since: str) -> Connection:
    name, _, number = head.partition(":")
    account, _, user = name.rpartition("/")
    return Connection(
        connection_id=int(number),
        started_us=us(since),
        account=account or "PEERS",
        user="" if user == "_" else user,
        name=head,
    )


def rows(picture: str) -> tuple[list[Connection], list[tuple[str, list[str], list[str]]]]:
    """Read a picture: the connections, and of each sample its time, its cells and who is cut."""
    head, since, *lines = [line.partition("|") for line in picture.strip().splitlines()]
    (_, *heads), (_, *starts) = head[0].split(), since[0].split()
    connections = [connection(*each) for each in zip(heads, starts, strict=True)]
    samples = [(before.split()[0], before.split()[1:], after.split()) for before, _, after in lines]
    return connections, samples


def taken(floods: Floods, picture: str, *, node: str = "A") -> list[tuple[str, list[str]]]:
    """Show a picture's samples to it; give who is to be cut at each."""
    connections, samples = rows(picture)
    return [
        (at, [flood.connection.name for flood in floods.take(sample(at, connections, cells, node))])
        for at, cells, _ in samples
    ]


def sample(at: str, connections: list[Connection], cells: list[str], node: str) -> Sample:
    counters = []
    for each, cell in zip(connections, cells, strict=True):
        if cell != ".":
            messages, _, payloads = cell.partition("/")
            counters.append(
                Counters(
                    connection=each,
                    messages_count=int(messages),
                    bytes_count=int(payloads or 0),
                )
            )
    return Sample(node=node, at_us=us(at), counters=counters)


def new() -> Floods:
    return Floods(LIMITS, exempt=frozenset({"DEX", "SYS"}))


PICTURES = {
    "above_the_limit_in_two_intervals": """
        s     bob:1  eve:2 |
        since 0      0     |
        1.00  0      0     |
        1.25  0      300   |
        1.50  10     600   | eve:2
        """,
    "at_the_limit": """
        s     eve:2        |
        since 0            |
        1.00  0            |
        1.25  250          |
        1.50  500          |
        """,
    "a_burst_in_one_interval": """
        s     bob:1        |
        since 0            |
        1.00  0            |
        1.25  900          |
        1.50  900          |
        1.75  1800         |
        2.00  1800         |
        """,
    "far_above_the_limit_in_one_interval": """
        s     bob:1  eve:2 |
        since 0      0     |
        1.00  0      0     |
        1.25  999    1000  | eve:2
        """,
    "still_there_after_the_verdict": """
        s     eve:2        |
        since 0            |
        1.00  0            |
        1.25  300          |
        1.50  600          | eve:2
        1.75  900          | eve:2
        2.00  900          |
        """,
    "bytes_above_the_limit": """
        s     eve:2        |
        since 0            |
        1.00  0/0          |
        1.25  1/250001     |
        1.50  2/500002     | eve:2
        """,
    "messages_in_one_interval_and_bytes_in_the_next": """
        s     eve:2        |
        since 0            |
        1.00  0/0          |
        1.25  300/0        |
        1.50  301/300000   | eve:2
        """,
    "new_and_above_the_limit_since_it_began": """
        s     eve:2        |
        since 0.80         |
        1.00  300          |
        1.25  600          | eve:2
        """,
    "first_seen_long_after_it_began": """
        s     bob:1  eve:2 |
        since 0      0     |
        9.00  8000   8000  |
        9.25  8100   8300  |
        9.50  8200   8600  | eve:2
        """,
    "samples_too_near_to_each_other": """
        s     bob:1        |
        since 0            |
        1.00  0            |
        1.01  100          |
        1.02  200          |
        1.25  210          |
        1.50  220          |
        """,
    "too_new_to_compare": """
        s     bob:1  eve:2 |
        since 0.99   0.99  |
        1.00  60     60    |
        1.25  100    400   |
        1.50  100    700   | eve:2
        """,
    "a_node_that_stood_still_and_then_read_what_had_come": """
        s     bob:1        |
        since 0            |
        1.00  0            |
        4.00  2900         |
        4.25  3000         |
        """,
    "an_answer_is_missing": """
        s     eve:2        |
        since 0            |
        1.00  0            |
        1.25  300          |
        2.50  2000         | eve:2
        """,
    "the_clock_is_set_back": """
        s     bob:1  eve:2 |
        since 0      8     |
        9.00  0      0     |
        5.00  10     300   |
        5.25  20     600   |
        5.50  30     900   | eve:2
        """,
    "accounts_that_are_exempt": """
        s     DEX/server:1  SYS/guard:2  |
        since 0             0            |
        1.00  0             0            |
        1.25  9000          9000         |
        1.50  18000         18000        |
        """,
    "many_connections_of_one_user": """
        s     eve:1  eve:2  eve:3  bob:4 |
        since 0      0      0      0     |
        1.00  0      0      0      0     |
        1.25  100    120    80     200   |
        1.50  200    240    160    400   | eve:2
        """,
    "as_many_of_a_user_as_it_takes": """
        s     eve:1  eve:2  eve:3  |
        since 0      0      0      |
        1.00  0      0      0      |
        1.25  300    600    10     |
        1.50  600    1200   20     | eve:2 eve:1
        """,
    "one_connection_after_another_of_one_user": """
        s     eve:1  eve:2  eve:3  |
        since 0      1.10   1.35   |
        1.00  0      .      .      |
        1.25  300    200    .      |
        1.50  .      500    300    | eve:3 eve:2
        """,
    "users_of_the_same_name_in_two_accounts": """
        s     A/bob:1  B/bob:2 |
        since 0        0       |
        1.00  0        0       |
        1.25  200      200     |
        1.50  400      400     |
        """,
    "clients_without_a_name": """
        s     _:1    _:2    _:3    |
        since 0      0      0      |
        1.00  0      0      0      |
        1.25  200    200    300    |
        1.50  400    400    600    | _:3
        """,
    "the_number_is_used_again": """
        s     bob:1  bob:1  |
        since 0      1.20   |
        1.00  3000   .      |
        1.25  .      0      |
        1.50  .      10     |
        """,
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES.keys())
def test_who_is_cut(picture: str) -> None:
    """Each picture says on its right who is cut when."""
    expected = [(at, cut) for at, _, cut in rows(picture)[1]]

    assert expected == taken(new(), picture)


def test_verdict_says_how_much_of_the_connection_and_of_its_user() -> None:
    """A verdict has what the log line needs, as of the newest interval."""
    connections = [connection("eve:1", "0"), connection("eve:2", "0")]
    floods = new()
    for at, cells in (("1.00", ["0/0", "0/0"]), ("1.25", ["100/5", "250/10"])):
        floods.take(sample(at, connections, cells, "A"))

    (flood,) = floods.take(sample("1.50", connections, ["150/10", "650/30"], "A"))

    assert flood == Flood(
        node="A",
        connection=connections[1],
        rate=Rate(messages_per_second=1_600, bytes_per_second=80),
        user_rate=Rate(messages_per_second=1_800, bytes_per_second=100),
    )


def test_nodes_are_judged_apart() -> None:
    """The same numbers at another node, or at one that was started again, are other connections."""
    floods = new()
    first = """
        s     eve:2        |
        since 0            |
        1.00  0            |
        1.25  300          |
        """
    second = """
        s     eve:2        |
        since 0            |
        1.50  600          |
        """

    assert taken(floods, first, node="A")[-1] == ("1.25", [])
    assert taken(floods, second, node="B") == [("1.50", [])]
    assert taken(floods, second, node="A") == [("1.50", ["eve:2"])]


def test_node_that_is_forgotten_begins_again() -> None:
    """Nothing is kept of a node that is gone."""
    floods = new()
    picture = """
        s     eve:2        |
        since 0            |
        1.00  0            |
        1.25  300          |
        """
    taken(floods, picture)

    floods.forget("A")
    floods.forget("B")

    assert taken(floods, "s eve:2 |\nsince 0 |\n1.50 600 |") == [("1.50", [])]
