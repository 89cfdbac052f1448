"""The digest is one number for the book: these are the two examples of docs/PROTOCOL.md."""

from dex_engine.digest import MASK, digest_text, key_of
from tests.builders import a_market, amend, buy, cancel, order, sell, send

ALONE = key_of("order_alice_1763800000000_17", "buy", 10050, 3) * 25
BESIDE = key_of("order_bob_1763800000001_1", "sell", 10060, 4) * 7


def test_digest_of_one_order_is_its_key_times_its_remaining_lots() -> None:
    assert digest_text(ALONE & MASK) == "587c8614dad8f225"


def test_digest_of_two_orders_is_their_sum() -> None:
    assert digest_text((ALONE + BESIDE) & MASK) == "2863e7a04687e7c2"


def test_digest_of_an_empty_book_is_zero() -> None:
    market = a_market()
    send(market, buy("1 @ 100", 1))
    send(market, cancel(1, 2))

    assert market.digest == "0" * 16


def test_market_has_the_digest_of_its_book() -> None:
    """Kept up order by order, it is that of what rests in the end (G11)."""
    market = a_market()
    send(market, buy("3 @ 100", 1))
    send(market, sell("1 @ 101", 1, peer="bob"), peer="bob")
    send(market, sell("1 @ 100", 2, peer="bob"), peer="bob")
    bid = key_of(order(1), "buy", 10_000, 1)
    ask = key_of(order(1, "bob"), "sell", 10_100, 2)

    assert market.digest == digest_text((bid * 2_000 + ask * 1_000) & MASK)


def test_priority_counts_every_entry_into_a_queue() -> None:
    market = a_market()
    send(market, buy("3 @ 100", 1))
    send(market, amend(1, 2, quantity="2"))
    kept = key_of(order(1), "buy", 10_000, 1)
    assert market.digest == digest_text(kept * 2_000 & MASK)

    send(market, amend(1, 3, quantity="4"))
    lost = key_of(order(1), "buy", 10_000, 2)
    assert market.digest == digest_text(lost * 4_000 & MASK)


def test_order_that_never_rests_counts_no_priority() -> None:
    market = a_market()
    send(market, buy("3 @ 100", 1, time_in_force="ioc"))

    assert market.next_priority == 1
