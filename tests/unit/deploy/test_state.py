"""What is remembered, and what may be changed of it."""

from pathlib import Path

import pytest
from msgspec import structs

from deploy import state
from deploy.processes import Process
from deploy.state import Busy, Conflict, Memory, Settings, State, Wishes

OURS = Settings(
    node_count=3,
    servers=("server-1", "server-2"),
    client_port=5000,
    cluster_port=7500,
    markets=("BTC-USD",),
)


def test_nothing_wished_for_the_first_time_is_the_default() -> None:
    settings = state.settle(Wishes(), None, is_running=False)

    assert settings == Settings()
    assert list(settings.client_ports) == [4222, 4223, 4224]
    assert list(settings.cluster_ports) == [6222, 6223, 6224]
    assert settings.replica_count == 3
    assert settings.servers == ("server-1", "server-2")


def test_nothing_wished_is_as_the_last_time() -> None:
    last = State(settings=OURS)

    assert state.settle(Wishes(), last, is_running=False) == OURS
    assert state.settle(Wishes(), last, is_running=True) == OURS


def test_single_node_needs_no_cluster_port_and_keeps_one_replica() -> None:
    settings = state.settle(Wishes(node_count=1), None, is_running=False)

    assert list(settings.cluster_ports) == []
    assert settings.replica_count == 1


def test_moved_client_port_moves_the_cluster_port_unless_it_is_named() -> None:
    moved = state.settle(Wishes(client_port=6000), State(settings=OURS), is_running=False)
    both = state.settle(Wishes(client_port=6000, cluster_port=9000), None, is_running=False)

    assert moved.cluster_port == 8000
    assert both.cluster_port == 9000


def test_named_markets_replace_the_default_and_join_those_that_are_there() -> None:
    first = state.settle(Wishes(markets=("A-B",)), None, is_running=False)
    more = state.settle(Wishes(markets=("A-B", "BTC-USD")), State(settings=OURS), is_running=True)

    assert first.markets == ("A-B",)
    assert more.markets == ("BTC-USD", "A-B")


@pytest.mark.parametrize(
    ("before", "count", "after"),
    [
        ((), 0, ()),
        ((), 2, ("server-1", "server-2")),
        (("server-1", "server-2"), 3, ("server-1", "server-2", "server-3")),
        (("server-2", "alice"), 2, ("server-2", "alice")),
        (("server-2", "alice"), 4, ("server-2", "alice", "server-1", "server-3")),
        (("server-1", "alice"), 1, ("server-1",)),
        (("server-1", "alice"), 0, ()),
        (("server-3", "alice"), None, ("server-3", "alice")),
    ],
)
def test_servers_that_are_there_stay_and_those_that_lack_get_the_first_free_names(
    before: tuple[str, ...], count: int | None, after: tuple[str, ...]
) -> None:
    last = State(settings=structs.replace(OURS, servers=before))

    settings = state.settle(Wishes(server_count=count), last, is_running=False)

    assert settings.servers == after


def test_more_servers_may_join_what_runs() -> None:
    settings = state.settle(Wishes(server_count=3), State(settings=OURS), is_running=True)

    assert settings.servers == ("server-1", "server-2", "server-3")


@pytest.mark.parametrize("name", ["a", "server-1", "_", "A-b_9", "x" * 32, "nats", "Nats-1"])
def test_name_of_letters_digits_and_dashes_is_a_servers(name: str) -> None:
    assert state.is_server_name(name)
    assert state.is_server(name)


@pytest.mark.parametrize(
    "name", ["", "x" * 33, "a.b", "a b", "a/b", "ä", "²", "a\n", "nats-", "nats-1", "nats-x"]
)
def test_name_that_a_file_a_subject_or_a_node_would_mistake_is_not(name: str) -> None:
    assert not state.is_server_name(name)


@pytest.mark.parametrize(
    ("wishes", "is_running", "complaint"),
    [
        (Wishes(client_port=65_534), False, "expected ports from 1 to 65535, found 65536"),
        (Wishes(client_port=0), False, "expected ports from 1 to 65535, found 0"),
        (Wishes(cluster_port=5002), False, "port 5002 would be needed for clients and"),
        (Wishes(node_count=1), False, "the data were made with 3 NATS nodes, not 1"),
        (Wishes(client_port=5001), True, "it runs with ports from 5000 and from 7500 on"),
        (Wishes(cluster_port=7501), True, "it runs with ports from 5000 and from 7500 on"),
        (
            Wishes(server_count=1),
            True,
            "more servers than 1, server-1 and server-2: .* with `just stop-server`",
        ),
    ],
)
def test_wish_that_does_not_go_with_what_is_there_is_refused(
    wishes: Wishes, is_running: bool, complaint: str
) -> None:
    with pytest.raises(Conflict, match=complaint):
        state.settle(wishes, State(settings=OURS), is_running=is_running)


def test_each_change_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert state.load(tmp_path) is None
    node, server = Process(pid=17, started="4@boot"), Process(pid=18, started="5@boot")

    memory = Memory(tmp_path, State(settings=OURS))
    memory.add("nats-1", node)
    memory.add("server-1", server)
    assert state.load(tmp_path) == State(
        settings=OURS, processes={"nats-1": node, "server-1": server}
    )

    memory.remove("nats-1")
    assert state.load(tmp_path) == State(settings=OURS, processes={"server-1": server})

    more = structs.replace(OURS, servers=(*OURS.servers, "alice"))
    memory.settle(more)
    assert state.load(tmp_path) == State(settings=more, processes={"server-1": server})


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"settings": 1}')

    with pytest.raises(Conflict, match="cannot be read"):
        state.load(tmp_path)


def test_directory_is_for_one_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    with state.locked(directory), pytest.raises(Busy, match="another dex-local"):
        state.locked(directory).__enter__()

    with state.locked(directory):
        assert directory.is_dir()
