"""Trials: what a leader costs, from the bytes of requests to the bytes of replies.

Knows nothing of sockets, nor of the log, which are measured elsewhere.
"""

import gc
import os
from collections.abc import Iterable
from pathlib import Path
from random import Random
from time import process_time

from bench.speed import flows, logs
from bench.speed.clocked import set_aside
from bench.speed.leader import Leader
from dex_protocol.codec import decode_receipts

_SEED = 1


def leader_cpu(file: str) -> float:
    """Lead through a flow of orders; µs of processor time for each, in batches."""
    flow = flows.read(Path(file))
    groups = list(logs.grouped(logs.requests(flow.steps)))
    resting = list(logs.grouped(logs.requests(flow.resting)))
    count = len(flow.steps)
    del flow
    set_aside()
    leader = Leader()
    for group in resting:
        leader.group(group)
    gc.collect()
    began = process_time()
    replies = [leader.group(group) for group in groups]
    took = process_time() - began
    check_executed(replies, count)
    return took / count * 1e6


def memory(count: str) -> float:
    """Rest so many orders, given as requests; bytes of resident memory for each."""
    leader = Leader()
    orders = int(count)
    gc.collect()
    before = _resident_bytes()
    # Each request is made when it is its turn: nothing that is freed later makes room for orders.
    for group in logs.grouped(logs.requests(flows.resting_orders(orders, Random(_SEED)))):
        leader.group(group)
    gc.collect()
    grown = _resident_bytes() - before
    found = len(leader.market.orders)
    assert found == orders, f"expected {orders} orders, found {found}"
    return grown / orders


def check_executed(replies: Iterable[list[bytes]], count: int) -> None:
    """Assert that so many commands were executed, and none refused."""
    receipts = [
        receipt for group in replies for reply in group for receipt in decode_receipts(reply)
    ]
    refused = [receipt for receipt in receipts if receipt.status in ("rejected", "retry")]
    assert not refused, f"expected no refusal, found {refused[0]}"
    assert len(receipts) == count, f"expected {count} receipts, found {len(receipts)}"


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
