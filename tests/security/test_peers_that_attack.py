"""What bob can do to alice with a valid key of his own: nothing (G20).

He speaks NATS' protocol by hand. After each attack the log has just what was legitimate, alice's
orders stand, no stream has changed, and bob was told why.
"""

import asyncio
from collections.abc import Callable

import pytest

from dex_protocol.limits import RETRY_WINDOW_COUNT
from tests.integration.wire import command_id, order_id
from tests.nats_nodes import connected, doors
from tests.security.attacker import NOBODY, attacking, deaf, forbidden
from tests.security.command_line import said_by_client
from tests.security.scene import Scene, cancel, submit

COMMANDS = {
    "submit": submit(901, "alice"),
    "cancel": cancel(902, 1, "alice"),
    "amend": {
        "op": "amend",
        "command_id": command_id(903, "alice"),
        "order_id": order_id(1, "alice"),
        "quantity": "0.5",
    },
    "cancel_all": {"op": "cancel_all", "command_id": command_id(904, "alice")},
}

OF_SERVERS = (
    "dex.log.{market}",
    "dex.events.{market}",
    "dex.alarm.{market}",
    "dex.alive.server-1",
    "dex.lead.server-1.{market}.close",
    "dex.leases.DEX-LEADERS.{market}",
    "dex.admin.{market}.halt",
    "dex.admin.{market}.close",
    "dex.admin.NEW-ONE.open",
    "dex",
    "dex.orders",
    "dex.orders.{market}",
    "dex.orders.{market}.bob.x",
    "dex.query.{market}.bob",
    "dex.query.{market}.orders.alice",
    "dex.query.{market}.status.operator",
    "$JS.API.INFO",
    "$JS.API.STREAM.CREATE.BOBS",
    "$JS.API.STREAM.UPDATE.DEX-LOG-{market}",
    "$JS.API.STREAM.DELETE.DEX-LOG-{market}",
    "$JS.API.STREAM.PURGE.DEX-LOG-{market}",
    "$JS.API.STREAM.MSG.DELETE.DEX-LOG-{market}",
    "$JS.API.STREAM.MSG.GET.DEX-LOG-{market}",
    "$JS.API.DIRECT.GET.DEX-LOG-{market}",
    "$JS.API.STREAM.SNAPSHOT.DEX-LOG-{market}",
    "$JS.API.STREAM.LEADER.STEPDOWN.DEX-LOG-{market}",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.API.CONSUMER.CREATE.DEX-LOG-{market}",
    "$JS.API.CONSUMER.DURABLE.CREATE.DEX-LOG-{market}.bobs",
    "$JS.ACK.DEX-LOG-{market}.bobs.1.1.1.1.0",
    "$JS.FC.DEX-LOG-{market}.bobs.x",
    "$KV.DEX-LEADERS.{market}",
    "$KV.DEX-SERVERS.server-1",
    "$O.DEX-SNAPSHOTS.C.x",
    "$O.DEX-SNAPSHOTS.M.x",
    "$SRV.PING",
    "$SRV.STATS.dex-server",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.ACCOUNT.PEER-alice.CONNZ",
    "$SYS.ACCOUNT.PEER-alice.DISCONNECT",
    "_R_.abcdef.ghijkl",
    "_INBOX.somebody",
    "alice",
)

NOT_FOR_PEERS = (
    (">", ""),
    ("*", ""),
    ("*.>", ""),
    ("dex.>", ""),
    ("dex.*.*", ""),
    ("dex.orders.*.*", "leader"),
    ("dex.orders.{market}.*", "leader"),
    ("dex.orders.{market}.alice", ""),
    ("dex.orders.{market}.bob", "leader"),
    ("dex.query.*.*.*", "replica"),
    ("dex.query.*.*.bob", "replica"),
    ("dex.log.*", ""),
    ("dex.admin.*.*", "replica"),
    ("dex.alarm.*", ""),
    ("dex.alive.*", ""),
    ("dex.lead.>", ""),
    ("dex.leases.>", ""),
    ("$JS.>", ""),
    ("$JS.API.>", ""),
    ("$KV.>", ""),
    ("$O.>", ""),
    ("$SRV.>", ""),
    ("$SYS.>", ""),
    ("_R_.>", ""),
    ("_INBOX", ""),
    ("_INBOX_alice.>", ""),
)
"""Subjects with the queue group that has them to itself."""

Reply = Callable[[Scene], str]

REPLIES: dict[str, Reply] = {
    "alice's orders": lambda scene: scene.orders("alice"),
    "his own orders": lambda scene: scene.orders("bob"),
    "a question of his": lambda scene: f"dex.query.{scene.market}.book.bob",
    "the log": lambda scene: f"dex.log.{scene.market}",
    "the events": lambda scene: f"dex.events.{scene.market}",
    "a purge": lambda scene: f"$JS.API.STREAM.PURGE.DEX-LOG-{scene.market}",
    "a lease": lambda scene: f"$KV.DEX-LEADERS.{scene.market}",
    "an operator's wish": lambda scene: f"dex.admin.{scene.market}.halt",
    "everybody's inbox": lambda scene: "_INBOX.>",
}


async def test_commands_under_alices_name_are_refused_by_nats(scene: Scene) -> None:
    for command in COMMANDS.values():
        assert await scene.bob.ask(scene.orders("alice"), command) == forbidden(
            scene.orders("alice")
        )
    await scene.unharmed()


@pytest.mark.parametrize("op", COMMANDS)
async def test_commands_with_alices_ids_under_bobs_name_are_of_the_wrong_peer(
    scene: Scene, op: str
) -> None:
    receipt = await scene.bob.ask(scene.orders("bob"), COMMANDS[op])

    assert (receipt["status"], receipt["reason"]) == ("rejected", "wrong_peer")
    assert receipt["message"].startswith("expected ids of the peer bob, found ")
    await scene.unharmed()


@pytest.mark.parametrize("op", ["cancel", "amend"])
async def test_alices_order_is_not_changed_by_a_command_of_bobs_own(scene: Scene, op: str) -> None:
    command = COMMANDS[op] | {"command_id": command_id(7, "bob")}

    receipt = await scene.bob.ask(scene.orders("bob"), command)

    assert (receipt["status"], receipt["reason"]) == ("rejected", "wrong_peer")
    assert "remaining_quantity" not in receipt
    await scene.unharmed()


async def test_bobs_cancel_all_leaves_alices_orders(scene: Scene) -> None:
    mine = {"op": "cancel_all", "command_id": command_id(8, "bob")}

    receipt = await scene.bob.ask(scene.orders("bob"), mine)

    assert (receipt["status"], receipt["canceled"]) == ("canceled", [])
    scene.legitimate.append(("canceled_all", command_id(8, "bob")))
    await scene.unharmed()


async def test_alices_order_is_not_told_to_bob(scene: Scene) -> None:
    question = {"order_id": order_id(1, "alice")}

    answer = await scene.bob.ask(f"dex.query.{scene.market}.order.bob", question)

    assert answer["reason"] == "wrong_peer"
    assert (await scene.bob.ask(f"dex.query.{scene.market}.orders.bob"))["orders"] == []


async def test_answers_to_alice_are_not_heard_by_bob(scene: Scene) -> None:
    for subject in ("_INBOX.>", f"{scene.alice.inbox}.>", f"{scene.alice.inbox}.*"):
        scene.bob.subscribe(subject)
    assert await scene.bob.refused() == []

    await scene.alice_trades(50)
    await scene.bob_trades(1)

    # His own arrives once for each of his subscriptions to it.
    assert {heard.subject.rpartition(".")[0] for heard in scene.bob.heard} == {scene.bob.inbox}
    assert b"alice" not in b"".join(heard.payload for heard in scene.bob.heard)
    await scene.unharmed()


async def test_nothing_is_published_but_orders_and_questions(scene: Scene) -> None:
    subjects = [subject.format(market=scene.market) for subject in OF_SERVERS]
    everything = {"deliver_subject": "_INBOX.x", "name": "BOBS", "subjects": ["dex.>"]}

    told = [await scene.bob.ask(subject, everything) for subject in subjects]

    assert told == [forbidden(subject) for subject in subjects]
    await scene.unharmed()


async def test_nothing_is_heard_but_events_and_own_answers(scene: Scene) -> None:
    wanted = [(subject.format(market=scene.market), queue) for subject, queue in NOT_FOR_PEERS]
    for subject, queue in wanted:
        scene.bob.subscribe(subject, queue)
    assert await scene.bob.refused() == [deaf(subject, queue) for subject, queue in wanted]

    # None of these is swallowed by a member of a queue group that should not be there.
    await scene.alice_trades(50)
    await scene.bob_trades(1)

    assert {heard.subject.rpartition(".")[0] for heard in scene.bob.heard} == {scene.bob.inbox}
    await scene.unharmed()


async def test_queue_group_of_bobs_own_takes_no_event_from_alice(scene: Scene) -> None:
    async with attacking(scene.exchange.nodes, peer="alice") as listening:
        listening.subscribe(f"dex.events.{scene.market}")
        await listening.refused()
        for queue in ("leader", "replica", "q"):
            scene.bob.subscribe("dex.events.>", queue)
        assert await scene.bob.refused() == []

        await scene.alice_trades(20)
        await scene.bob_trades(1)

        while len(listening.heard) < 21:
            await listening.settled()
    await scene.unharmed()


@pytest.mark.parametrize("wildcard", ["dex.orders.*.bob", "dex.orders.>", "dex.query.*.orders.bob"])
async def test_wildcards_are_no_subject_to_publish_to(scene: Scene, wildcard: str) -> None:
    assert await scene.bob.ask(wildcard, submit(1, "bob")) in (
        "Invalid Publish Subject",
        forbidden(wildcard),
    )
    await scene.unharmed()


@pytest.mark.parametrize("name", REPLIES)
async def test_answer_goes_nowhere_but_to_bob_whatever_he_names(scene: Scene, name: str) -> None:
    """A service answers with its own rights; only the wall between accounts stops it."""
    reply = REPLIES[name](scene)
    async with attacking(scene.exchange.nodes, role="server") as witness:
        witness.subscribe(reply)
        await witness.refused()

        for number in (1, 2, 3):
            scene.bob.publish(scene.orders("bob"), submit(number, "bob"), reply=reply)
            scene.legitimate.append(("accepted", order_id(number, "bob")))
        assert await scene.bob.refused() == []
        # Behind those of before, which are answered by now. NB: a wildcard costs bob answers to
        # requests of his own (nats-server 2.15.1), and nobody else any.
        await scene.alice_trades(2)
        await witness.settled()

        assert [each for each in witness.heard if b'"status":' in each.payload] == []
    await scene.unharmed()


async def test_answer_within_one_account_goes_wherever_it_is_told(scene: Scene) -> None:
    """So it is not the server that keeps bob's answers from others, but the wall."""
    nodes = scene.exchange.nodes
    async with (
        attacking(nodes, role="server") as witness,
        attacking(nodes, role="server") as server,
    ):
        witness.subscribe("somebody.else")
        await witness.refused()

        server.publish(scene.orders("bob"), submit(1, "bob"), reply="somebody.else")
        scene.legitimate.append(("accepted", order_id(1, "bob")))
        await server.refused()
        await scene.alice_trades()
        await witness.settled()

        (answer,) = witness.heard
        assert b'"status":"new"' in answer.payload
    await scene.unharmed()


async def test_own_answers_are_told_from_those_that_bob_had_sent_to_alices_inbox(
    wide_scene: Scene,
) -> None:
    scene = wide_scene
    done = asyncio.Event()

    async def attack() -> int:
        # Even knowing what nobody is told: her inbox, and how far she has counted.
        number = 1_000
        while not done.is_set():
            for count in range(1, 200):
                number += 1
                scene.bob.publish(
                    f"dex.query.{scene.market}.order.bob",
                    {"order_id": order_id(number, "bob")},
                    reply=f"{scene.alice.inbox}.{count}",
                )
            assert await scene.bob.refused() == []
            await asyncio.sleep(0.05)
        return number

    attacking_task = asyncio.create_task(attack())
    try:
        # Each of her receipts is of the order that she asked for.
        await scene.alice_trades(100)
    finally:
        done.set()
    assert await attacking_task > 1_000

    await scene.bob_trades(1)
    await scene.unharmed()


async def test_reply_subject_of_somebody_elses_request_is_refused(scene: Scene) -> None:
    scene.bob.publish(scene.orders("bob"), submit(1, "bob"), reply="_R_.abcdef.ghijkl")

    assert await scene.bob.refused() == [
        'Permissions Violation for Publish with Reply of "_R_.abcdef.ghijkl"'
    ]
    await scene.unharmed()


SMUGGLED = (
    {"Nats-Expected-Last-Sequence": "0"},
    {"Nats-Expected-Stream": "DEX-SNAPSHOTS"},
    {"Nats-Expected-Last-Msg-Id": "nothing"},
    {"Nats-Msg-Id": "the-same"},
    {"Nats-Msg-Id": "the-same"},
    {"Nats-Rollup": "all"},
    {"Nats-TTL": "1s"},
    {"Nats-Request-Info": '{"acc":"PEER-alice","user":"alice"}'},
    {"Nats-Sequence": "99", "Nats-Last-Sequence": "98"},
    {"Status": "503"},
    {"Reply-To": "dex.log.X", "traceparent": "00-x"},
)


async def test_headers_of_jetstream_mean_nothing_in_an_order(scene: Scene) -> None:
    for number, headers in enumerate(SMUGGLED, start=1):
        receipt = await scene.bob_trades(number, headers=headers)
        assert receipt["order_id"] == order_id(number, "bob")
    async with connected(scene.exchange.nodes, role="operator") as client:
        stream = f"DEX-LOG-{scene.market}"
        newest = await client.jsm().get_last_msg(stream, f"dex.log.{scene.market}")

    assert newest.headers is not None
    assert newest.headers["Nats-Msg-Id"] != "the-same"
    assert "Nats-Rollup" not in newest.headers
    await scene.unharmed()


async def test_message_trace_is_sent_nowhere_that_bob_may_not_publish_to(scene: Scene) -> None:
    for target in (f"dex.log.{scene.market}", scene.orders("alice"), scene.alice.inbox):
        traced = {"Nats-Trace-Dest": target}
        told = await scene.bob.ask(scene.orders("bob"), submit(1, "bob"), headers=traced)
        assert told == forbidden(target)
    # Where he may, it is read as an order of his.
    traced = {"Nats-Trace-Dest": scene.orders("bob"), "Nats-Trace-Only": "true"}
    scene.bob.publish(scene.orders("bob"), submit(1, "bob"), headers=traced)
    assert await scene.bob.refused() == []

    await scene.bob_trades(2)
    await scene.unharmed()


async def test_captured_request_is_never_executed_again(scene: Scene) -> None:
    """Neither while its outcome is remembered, nor after (G3)."""
    captured = submit(1, "bob")
    await scene.bob_trades(1)
    again = await scene.bob.ask(scene.orders("bob"), captured)
    assert (again["status"], again["duplicate"]) == ("new", True)
    changed = await scene.bob.ask(scene.orders("bob"), captured | {"quantity": "2"})
    assert changed["reason"] == "id_reused"

    others = range(2, 10_002)
    assert len(others) > 2 * RETRY_WINDOW_COUNT
    for start in range(others.start, others.stop, 1_000):
        batch = [submit(number, "bob") for number in range(start, start + 1_000)]
        receipts = await scene.bob.ask(scene.orders("bob"), batch)
        assert {receipt["status"] for receipt in receipts} == {"new"}
        scene.legitimate += [("accepted", receipt["order_id"]) for receipt in receipts]
    for command in (captured, captured | {"quantity": "2"}):
        replayed = await scene.bob.ask(scene.orders("bob"), command)
        assert (replayed["status"], replayed["reason"]) == ("rejected", "stale_id")
    newest = await scene.bob.ask(scene.orders("bob"), submit(10_001, "bob"))

    assert (newest["status"], newest["duplicate"]) == ("new", True)
    await scene.unharmed()


async def test_market_that_nobody_serves_is_told_from_one_that_is_forbidden(scene: Scene) -> None:
    assert await scene.bob.ask("dex.orders.NO-SUCH.bob", submit(1, "bob")) == NOBODY
    assert await scene.bob.ask("dex.orders.NO-SUCH.alice", submit(1)) == forbidden(
        "dex.orders.NO-SUCH.alice"
    )


async def test_attacks_upon_another_node_of_the_cluster_are_refused_as_well(
    wide_scene: Scene,
) -> None:
    scene = wide_scene
    for command in COMMANDS.values():
        assert await scene.bob.ask(scene.orders("alice"), command) == forbidden(
            scene.orders("alice")
        )
        receipt = await scene.bob.ask(scene.orders("bob"), command)
        assert receipt["reason"] == "wrong_peer"
    scene.bob.subscribe("_INBOX.>")
    scene.bob.subscribe(f"{scene.alice.inbox}.>")
    for name in ("the log", "a purge", "alice's orders"):
        scene.bob.publish(scene.orders("bob"), {"op": "none"}, reply=REPLIES[name](scene))
    assert await scene.bob.refused() == []

    await scene.alice_trades(20)
    await scene.bob_trades(1)

    assert {heard.subject.rpartition(".")[0] for heard in scene.bob.heard} == {scene.bob.inbox}
    await scene.unharmed()


def sentence(peer: str, subject: str) -> str:
    """What the command line says to who brings another peer's key."""
    return (
        f"Error: NATS does not let the key in {doors().peer('bob').nkey} publish to {subject}, and "
        f"nothing was done: expected the key of {peer!r}; keys are in $DEX_KEYS, or else in "
        ".dex/keys, unless --nkey or --creds names one\n"
    )


@pytest.mark.parametrize(
    ("words", "what"),
    [
        # Which asks for its highest id first.
        (["buy", "1", "--price", "100"], "dex.query.{market}.status.alice"),
        (["cancel", order_id(1, "alice")], "dex.query.{market}.status.alice"),
        (["cancel-all"], "dex.query.{market}.status.alice"),
        (["orders"], "dex.query.{market}.orders.alice"),
    ],
)
async def test_command_line_says_in_one_line_whose_key_was_expected(
    scene: Scene, words: list[str], what: str
) -> None:
    key = doors().peer("bob").nkey
    options = ["--peer", "alice", "--market", scene.market, "--nkey", str(key)]

    said = await said_by_client(*words, *options, nodes=scene.exchange.nodes)

    assert said.stderr == sentence("alice", what.format(market=scene.market))
    assert (said.code, said.stdout) == (2, "")
    await scene.unharmed()
