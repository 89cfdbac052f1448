"""What nobody asked for: orders whose time has come, and the orders of a closed market."""

from dex_protocol.events import Expired
from dex_server.replication.effects import Append
from tests.builders import NOW, buy, cancel, order, sell
from tests.unit.server.harness import Harness, names

SECOND = 1_000_000


def rest_until(leader: Harness, count: int, *, after_s: int, first: int = 1) -> None:
    """Rest orders that are over after some seconds."""
    for start in range(first, first + count, 1_000):
        orders = range(start, min(start + 1_000, first + count))
        leader.send(
            *(
                buy("1 @ 100", n, time_in_force="gtd", expires_at=NOW + after_s * SECOND)
                for n in orders
            )
        )
        leader.run()


def test_due_order_is_over_at_the_next_tick_when_nothing_else_happens(leader: Harness) -> None:
    rest_until(leader, 1, after_s=1)
    leader.pass_time(ms=999)
    assert leader.waiting(Append) == []

    leader.pass_time(ms=1)
    leader.run()
    assert leader.commits()[-1].events == [Expired(order(1), "1")]


def test_due_orders_expire_first_in_a_commit_by_time_and_then_acceptance(leader: Harness) -> None:
    rest_until(leader, 1, after_s=3, first=1)
    rest_until(leader, 2, after_s=2, first=2)
    rest_until(leader, 1, after_s=1, first=4)
    rest_until(leader, 1, after_s=9, first=5)
    leader.wall += 4 * SECOND
    number = leader.send(sell("5 @ 100", 1, peer="bob"), peer="bob")
    leader.run()

    last = leader.commits()[-1]
    assert [e.order_id for e in last.events if isinstance(e, Expired)] == [
        order(4),
        order(2),
        order(3),
        order(1),
    ]
    assert names(last)[4:] == ["accepted", "trade"]
    assert leader.receipt(number).filled_quantity == "1"


def test_a_thousand_expire_in_a_commit_and_commands_wait_for_the_rest(leader: Harness) -> None:
    rest_until(leader, 2_500, after_s=1)
    leader.wall += SECOND
    number = leader.send(sell("1", 1, peer="bob"), peer="bob")
    wish = leader.administer("halt")
    leader.run()

    commits = leader.commits()[-3:]
    assert [names(commit).count("expired") for commit in commits] == [1_000, 1_000, 500]
    assert names(commits[-1])[500:] == ["market_changed", "rejected"]
    assert leader.receipt(number).sequence == leader.answer(wish)["sequence"] == leader.end


def test_orders_expire_in_a_halted_market_too(leader: Harness) -> None:
    rest_until(leader, 1, after_s=1)
    leader.administer("halt")
    leader.run()
    leader.pass_time(ms=1_000)
    leader.run()

    assert names(leader.commits()[-1]) == ["expired"]


def test_command_for_an_order_that_is_due_comes_too_late(leader: Harness) -> None:
    rest_until(leader, 1, after_s=1)
    leader.wall += SECOND
    number = leader.send(cancel(1, 9))
    leader.run()

    receipt = leader.receipt(number)
    assert (receipt.reason, receipt.order_status) == ("order_done", "expired")


def test_clock_that_goes_back_takes_no_time_from_the_log(leader: Harness) -> None:
    """Commits go on, all at the highest time that there was (G19)."""
    leader.send(buy("1 @ 100", 1))
    leader.run()
    leader.wall -= 60 * SECOND
    leader.send(buy("1 @ 100", 2))
    leader.run()

    assert [commit.time for commit in leader.commits()] == [NOW, NOW, NOW]


def test_closing_cancels_every_order_in_commits_of_a_thousand(leader: Harness) -> None:
    for first in range(1, 2_500, 500):
        leader.send(*(buy("1 @ 100", n) for n in range(first, first + 500)))
        leader.run()
    before = leader.end
    wish = leader.administer("close")
    late = leader.send(buy("1 @ 100", 9_000))
    gone = leader.send(cancel(2_500, 9_001))
    leader.run()

    commits = leader.commits()[before:]
    assert names(commits[0]) == ["market_changed"]
    assert [names(commit).count("canceled") for commit in commits[1:]] == [1_000, 1_000, 500]
    assert leader.answer(wish) == {"sequence": before + 1}
    assert leader.receipt(late).reason == "market_halted"
    assert leader.receipt(gone).reason == "order_done"
    market = leader.replica.market
    assert market is not None
    assert (market.state, market.digest) == ("closed", "0" * 16)
