"""Every right that is generated is tried, and would be noticed if it were wider (G20).

Permissions and accounts are two walls, one behind the other: each is tried by itself, on nodes
without the other one.
"""

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from deploy import nodes
from deploy.accounts import (
    EXCHANGE,
    OBSERVER_SUBSCRIPTIONS_COUNT_MAX,
    OBSERVERS,
    OBSERVERS_COUNT_MAX,
    OPERATORS,
    OPERATORS_COUNT_MAX,
    PEER_CONNECTIONS_COUNT_MAX,
    PEER_PREFIX,
    SUBSCRIPTIONS_COUNT_MAX,
    SYSTEM,
    peer_account,
)
from deploy.keys import new_seed, public_key
from dex_runtime.keys import Role
from tests.integration.programs import Exchange
from tests.nats_nodes import PEERS, Nodes, connected, doors
from tests.security.attacker import NOBODY, attacking
from tests.security.command_line import said
from tests.security.holes import (
    FOR_EVERYBODY,
    RIGHTS,
    Config,
    holes_in_walls,
    holes_of_users,
    key_of,
    parsed,
    without_permissions,
    written,
)

BOB = peer_account("bob")
ALICE = peer_account("alice")


def generated() -> Config:
    """Read what the nodes of this session were given."""
    return parsed(doors().access.accounts_file.read_text())


CONFIG = generated()


def settings_of(config: Config, directory: Path) -> nodes.NodeSettings:
    """Describe a node with other accounts."""
    file = directory / "accounts.conf"
    file.write_text(written(config))
    access = structs.replace(doors().access, accounts_file=file)
    (port,) = nodes.free_ports(1)
    alone = nodes.alone(directory / "node", port=port, access=access)
    # Attackers answer pings only while they read, and some have to wait for others.
    return structs.replace(alone, extra='ping_interval: "1m"')


@asynccontextmanager
async def node_with(config: Config, directory: Path) -> AsyncIterator[Nodes]:
    """Run a node with other accounts for as long as the block lasts."""
    running = Nodes([settings_of(config, directory)])
    try:
        await running.start()
        yield running
    finally:
        await running.end()


@pytest.mark.parametrize("account", RIGHTS)
async def test_user_may_do_what_was_meant_and_nothing_beside(node: Nodes, account: str) -> None:
    assert await holes_of_users(node, CONFIG, account) == []


async def test_accounts_alone_let_through_what_was_meant_and_nothing_beside(
    tmp_path: Path,
) -> None:
    config = without_permissions(CONFIG)
    async with node_with(config, tmp_path) as node:
        assert await holes_in_walls(node, config) == []


def test_every_account_is_one_that_is_tried_or_the_like_of_alices() -> None:
    accounts = CONFIG["accounts"]
    peers = {name for name in accounts if name.startswith(PEER_PREFIX)}
    assert set(accounts) - peers == {SYSTEM, EXCHANGE, OPERATORS, OBSERVERS}
    assert {peer_account(name) for name in PEERS} <= peers

    for name in peers:
        peer = name.removeprefix(PEER_PREFIX)
        assert _renamed(accounts[name], peer) == _renamed(accounts[ALICE], "alice")


def _renamed(account: Any, peer: str) -> Any:
    if isinstance(account, dict):
        return {
            name: "" if name == "nkey" else _renamed(each, peer) for name, each in account.items()
        }
    if isinstance(account, list):
        return [_renamed(each, peer) for each in account]
    return account.replace(f".{peer}", ".{peer}") if isinstance(account, str) else account


def test_every_user_has_permissions_but_the_servers() -> None:
    users = {name: account["users"] for name, account in CONFIG["accounts"].items()}
    assert {name: len(found) for name, found in users.items()} == dict.fromkeys(users, 1)

    for name, (user,) in users.items():
        assert ("permissions" in user) == (name != EXCHANGE), name
    assert len({user["nkey"] for (user,) in users.values()}) == len(users)


@pytest.mark.parametrize("export", CONFIG["accounts"][EXCHANGE]["exports"], ids=str)
async def test_account_of_somebody_else_gets_no_export_that_is_not_for_everybody(
    export: dict[str, Any], tmp_path: Path
) -> None:
    """Nodes refuse a configuration in which one imports what it was not offered."""
    (kind,) = {"service", "stream"} & set(export)
    config = copy.deepcopy(CONFIG)
    config["accounts"]["STRANGERS"] = {
        "users": [{"nkey": public_key(new_seed())}],
        "imports": [{kind: {"account": EXCHANGE, "subject": export[kind]}}],
    }
    file = nodes.write_config(settings_of(config, tmp_path))

    answer = await said("nats-server", "-t", "--config", str(file))

    is_let_in = answer.code == 0
    assert is_let_in == (export[kind] in FOR_EVERYBODY), answer.stderr
    assert is_let_in or "authorized" in answer.stderr


# --- What the check would notice ----------------------------------------------------------------


def widened(subject: str) -> str:
    """Make a subject stand for the next wider range of subjects."""
    *others, last = subject.split(".")
    if last == ">":
        return ".".join([*others[:-1], ">"])
    return ".".join([*others, ">" if last == "*" else "*"])


RULES = [
    (account, direction, index, subject)
    for account in (*(name for name in RIGHTS if name != ALICE),)
    for direction in ("publish", "subscribe")
    for index, subject in enumerate(
        CONFIG["accounts"][account]["users"][0]["permissions"][direction].get("allow", [])
    )
]


def changed(account: str, change: Callable[[dict[str, Any]], None]) -> Config:
    """Change one account."""
    config = copy.deepcopy(CONFIG)
    change(config["accounts"][account])
    return config


def permissions(account: dict[str, Any]) -> dict[str, Any]:
    """Give those of its only user."""
    found: dict[str, Any] = account["users"][0]["permissions"]
    return found


@pytest.mark.parametrize(("account", "direction", "index", "subject"), RULES)
async def test_rule_that_is_widened_is_noticed(
    account: str, direction: str, index: int, subject: str, tmp_path: Path
) -> None:
    def widen(found: dict[str, Any]) -> None:
        permissions(found)[direction]["allow"][index] = widened(subject)

    config = changed(account, widen)
    async with node_with(config, tmp_path) as node:
        holes = await holes_of_users(node, config, account)

    assert {(hole.account, hole.what, hole.was_meant) for hole in holes} == {
        (account, direction, False)
    }


def _and_publish(subject: str) -> Callable[[dict[str, Any]], None]:
    return lambda account: permissions(account)["publish"]["allow"].append(subject)


def _and_subscribe(subject: str) -> Callable[[dict[str, Any]], None]:
    return lambda account: permissions(account)["subscribe"]["allow"].append(subject)


SLIPS: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "an order of another peer": (BOB, _and_publish("dex.orders.*.alice")),
    "an inbox to publish to": (BOB, _and_publish("_INBOX.>")),
    "the log": (BOB, _and_publish("dex.log.*")),
    "the events": (BOB, _and_publish("dex.events.*")),
    "administration": (BOB, _and_publish("dex.admin.*.*")),
    "a purge": (BOB, _and_publish("$JS.API.STREAM.PURGE.*")),
    "consumers": (BOB, _and_publish("$JS.API.CONSUMER.>")),
    "answers of services": (BOB, _and_publish("_R_.>")),
    "orders to hear": (BOB, _and_subscribe("dex.orders.*.*")),
    "the log to hear": (BOB, _and_subscribe("dex.log.*")),
    "no rules": (BOB, lambda account: account["users"][0].pop("permissions")),
    "no rules for publishing": (BOB, lambda account: permissions(account).pop("publish")),
    "an empty list": (BOB, lambda account: permissions(account).update(publish={"allow": []})),
    "an observer who may speak": (
        OBSERVERS,
        lambda account: permissions(account).pop("publish"),
    ),
    "an observer with an inbox": (OBSERVERS, _and_subscribe("_INBOX.>")),
    "an operator who purges": (OPERATORS, _and_publish("$JS.API.STREAM.PURGE.*")),
    "a guard who trades": (SYSTEM, _and_publish("dex.orders.*.*")),
}


@pytest.mark.parametrize("slip", SLIPS)
async def test_slip_in_the_permissions_is_noticed(slip: str, tmp_path: Path) -> None:
    account, change = SLIPS[slip]
    config = changed(account, change)
    async with node_with(config, tmp_path) as node:
        holes = await holes_of_users(node, config, account)

    assert any(not hole.was_meant for hole in holes)


def _imported(kind: str, subject: str) -> dict[str, Any]:
    return {kind: {"account": EXCHANGE, "subject": subject}}


def _tear(config: Config, account: str, kind: str, subject: str, *, is_offered: bool) -> None:
    if not is_offered:
        config["accounts"][EXCHANGE]["exports"].append({kind: subject})
    config["accounts"][account]["imports"].append(_imported(kind, subject))


def _tear_replacing(config: Config, account: str, subject: str, by: str) -> None:
    imports = config["accounts"][account]["imports"]
    imports[imports.index(_imported("service", subject))] = _imported("service", by)


def _tear_together(config: Config) -> None:
    accounts = config["accounts"]
    accounts[ALICE]["users"] += accounts[BOB].pop("users")
    del accounts[BOB]


def _offer_to_all(config: Config, subject: str) -> None:
    for export in config["accounts"][EXCHANGE]["exports"]:
        if subject in export.values():
            del export["accounts"]


def _tear_alarms(config: Config) -> None:
    _offer_to_all(config, "dex.alarm.*")
    _tear(config, BOB, "stream", "dex.alarm.*", is_offered=True)


def _tear_administration(config: Config) -> None:
    _offer_to_all(config, "dex.admin.*.*")
    _tear(config, BOB, "service", "dex.admin.*.*", is_offered=True)


TEARS: dict[str, tuple[str, Callable[[Config], None]]] = {
    "orders of everybody": (
        BOB,
        lambda config: _tear_replacing(config, BOB, "dex.orders.*.bob", "dex.orders.*.*"),
    ),
    "questions of everybody": (
        BOB,
        lambda config: _tear_replacing(config, BOB, "dex.query.*.*.bob", "dex.query.*.*.*"),
    ),
    "orders of alice": (
        BOB,
        lambda config: _tear(config, BOB, "service", "dex.orders.*.alice", is_offered=True),
    ),
    "an operator's questions": (
        BOB,
        lambda config: _tear(config, BOB, "service", "dex.query.*.*.operator", is_offered=True),
    ),
    "alice's account": (BOB, _tear_together),
    "administration": (BOB, _tear_administration),
    "alarms": (BOB, _tear_alarms),
    "the log": (
        BOB,
        lambda config: _tear(config, BOB, "service", "dex.log.*", is_offered=False),
    ),
    "orders to hear": (
        BOB,
        lambda config: _tear(config, BOB, "stream", "dex.orders.*.*", is_offered=False),
    ),
    "questions of observers": (
        OBSERVERS,
        lambda config: _tear(config, OBSERVERS, "service", "dex.query.*.*.*", is_offered=True),
    ),
    "an operator's purge": (
        OPERATORS,
        lambda config: _tear(
            config, OPERATORS, "service", "$JS.API.STREAM.PURGE.*", is_offered=False
        ),
    ),
}


@pytest.mark.parametrize("tear", TEARS)
async def test_tear_in_the_wall_between_accounts_is_noticed(tear: str, tmp_path: Path) -> None:
    account, change = TEARS[tear]
    config = without_permissions(CONFIG)
    change(config)
    async with node_with(config, tmp_path) as node:
        holes = await holes_in_walls(node, config, account)

    assert any(not hole.was_meant for hole in holes)


# --- What is allowed is of use ------------------------------------------------------------------


async def test_operator_is_answered_whatever_he_may_ask(stage: Exchange, market: str) -> None:
    await stage.open(market)
    stream = f"DEX-LOG-{market}"
    asked = {
        f"dex.admin.{market}.resume": b"",
        f"dex.query.{market}.status.operator": b"",
        "$JS.API.INFO": b"",
        "$JS.API.STREAM.NAMES": b"",
        "$JS.API.STREAM.LIST": b"",
        f"$JS.API.STREAM.INFO.{stream}": b"",
        f"$JS.API.STREAM.MSG.GET.{stream}": {"seq": 1},
        f"$JS.API.DIRECT.GET.{stream}.dex.log.{market}": b"",
        "$SRV.PING": b"",
        "$SRV.PING.dex-server": b"",
        "$SRV.INFO": b"",
        "$SRV.INFO.dex-server": b"",
        "$SRV.STATS": b"",
        "$SRV.STATS.dex-server": b"",
    }
    async with attacking(stage.nodes, role="operator") as operator:
        await operator.answers_come()
        for subject, body in asked.items():
            answer = await operator.ask(subject, body)
            assert isinstance(answer, dict), (subject, answer)
            assert "error" not in answer, (subject, answer)


async def test_guard_is_answered_whatever_it_may_ask(stage: Exchange) -> None:
    async with attacking(stage.nodes, role="guard") as guard:
        await guard.answers_come()
        for subject in ("$SYS.REQ.SERVER.PING.IDZ", "$SYS.REQ.USER.INFO"):
            assert isinstance(await guard.ask(subject), dict), subject
        server = (await guard.ask("$SYS.REQ.SERVER.PING.IDZ"))["id"]
        connections = await guard.ask(f"$SYS.REQ.SERVER.{server}.CONNZ", {"auth": True})
        assert connections["data"]["num_connections"] > 1

        async with attacking(stage.nodes, peer="bob") as bob:
            await bob.answers_come()
            connections = await guard.ask(f"$SYS.REQ.SERVER.{server}.CONNZ", {"acc": BOB})
            (cid,) = [each["cid"] for each in connections["data"]["connections"]]
            assert await guard.ask(f"$SYS.REQ.SERVER.{server}.KICK", {"cid": cid}) != NOBODY
            await bob.cut()


# --- Limits -------------------------------------------------------------------------------------


async def test_peer_has_so_many_connections_over_all_nodes_and_no_more(cluster: Nodes) -> None:
    async with AsyncExitStack() as stack:
        for number in range(PEER_CONNECTIONS_COUNT_MAX):
            one = attacking(cluster, peer="carol", index=number % cluster.replicas)
            carol = await stack.enter_async_context(one)
            assert await carol.settled() == []
        for index in range(cluster.replicas):
            one = attacking(cluster, peer="carol", index=index)
            refused = await stack.enter_async_context(one)
            assert await refused.cut() == "maximum account active connections exceeded"
        # Nobody else is any the worse.
        async with connected(cluster, peer="alice"):
            pass


@pytest.mark.parametrize(
    ("role", "count"), [(None, OBSERVERS_COUNT_MAX), ("operator", OPERATORS_COUNT_MAX)]
)
async def test_account_of_many_has_so_many_connections_together_and_no_more(
    role: Role | None, count: int, tmp_path: Path
) -> None:
    async with node_with(CONFIG, tmp_path) as node, AsyncExitStack() as stack:
        for _ in range(count):
            one = await stack.enter_async_context(attacking(node, role=role))
            assert await one.settled() == []
        one_more = await stack.enter_async_context(attacking(node, role=role))
        assert await one_more.cut() == "maximum account active connections exceeded"
        # Who has a key finds room.
        async with connected(node, peer="alice"):
            pass


@pytest.mark.parametrize(
    ("peer", "subject", "count"),
    [
        ("carol", "_INBOX.X", SUBSCRIPTIONS_COUNT_MAX),
        (None, "dex.events.X", OBSERVER_SUBSCRIPTIONS_COUNT_MAX),
    ],
)
async def test_connection_has_so_many_subscriptions_and_no_more(
    node: Nodes, peer: str | None, subject: str, count: int
) -> None:
    async with attacking(node, peer=peer) as somebody:
        for _ in range(count):
            somebody.subscribe(subject)
        assert await somebody.settled() == []

        somebody.subscribe(subject)

        assert await somebody.settled() == ["maximum subscriptions exceeded"]


def test_private_keys_are_not_in_the_configuration() -> None:
    text = doors().access.accounts_file.read_text()
    seeds = [key for account in RIGHTS if (key := key_of(account)) is not None]

    assert [public_key(seed) for seed in seeds if public_key(seed) not in text] == []
    assert [seed for seed in seeds if seed.decode().strip() in text] == []
