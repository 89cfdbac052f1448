"""What peers send is of all kinds, well-formed, and the same for the same seed."""

from collections import Counter
from random import Random

from dex_client.ids import Ids
from dex_protocol.codec import decode_request, encode
from dex_protocol.commands import Command, Submit, own_id, time_in_force
from dex_protocol.ids import Pair
from dex_protocol.receipts import Receipt
from tests.chaos.workload import Action, Ask, Mind, Send

NOW_MS = 1_763_800_000_000


def actions(seed: int, count: int = 3_000) -> list[Action]:
    mind = Mind(Ids("alice", above=Pair(0)), Random(seed))
    done: list[Action] = []
    for number in range(count):
        action = mind.next(NOW_MS + 10 * number)
        done.append(action)
        if isinstance(action, Send):
            for command in action.commands:
                mind.settled(command, number)
    return done


def commands(seed: int) -> list[Command]:
    sends = [action for action in actions(seed) if isinstance(action, Send)]
    return [command for send in sends for command in send.commands]


def test_same_seed_makes_the_same_commands() -> None:
    assert actions(1) == actions(1)
    assert actions(1) != actions(2)


def test_all_commands_are_well_formed_and_have_an_id() -> None:
    for command in commands(3):
        (element,), _ = decode_request(encode(command), "alice")

        assert not isinstance(element, Receipt), element
        assert isinstance(own_id(command), str)


def test_every_kind_of_command_and_of_order_comes() -> None:
    made = commands(4)
    orders = [command for command in made if isinstance(command, Submit)]

    assert {type(command).__name__ for command in made} == {
        "Submit",
        "Cancel",
        "Amend",
        "CancelAll",
    }
    assert {(order.type, time_in_force(order)) for order in orders} == {
        *(("limit", kind) for kind in ("gtc", "gtd", "ioc", "fok")),
        *(("market", kind) for kind in ("ioc", "fok")),
    }
    assert {order.self_trade for order in orders} == {
        *("cancel_taker", "cancel_maker", "cancel_both"),
        *("decrement", "allow"),
    }
    assert any(order.post_only for order in orders)


def test_some_commands_come_again_and_some_ids_with_other_content() -> None:
    contents: dict[str, Counter[bytes]] = {}
    for command in commands(5):
        contents.setdefault(str(own_id(command)), Counter())[encode(command)] += 1

    assert any(max(counted.values()) > 1 for counted in contents.values())
    assert any(len(counted) > 1 for counted in contents.values())


def test_some_questions_ask_for_what_was_told_already() -> None:
    asked = [action.query for action in actions(6) if isinstance(action, Ask)]

    assert any(query.min_sequence for query in asked)
    assert len({type(query) for query in asked}) == 5
