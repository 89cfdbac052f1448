"""Trial: following a log. Each event is checked against the state, and each commit's digest.

Knows nothing of how a log is read.
"""

from pathlib import Path

from bench.speed import flows, logs
from bench.speed.clocked import rate, set_aside
from bench.speed.leader import SPECIFICATION
from dex_engine import Market
from dex_protocol.codec import decode_commit


def apply(file: str) -> dict[str, float]:
    """Decode, then follow, the commits that a leader made of a flow; events a second of each."""
    log = logs.of(flows.read(Path(file)))
    set_aside()

    def decode() -> None:
        for payload in log.steps:
            decode_commit(payload)

    market = Market(SPECIFICATION.market)

    def follow() -> None:
        for payload in log.steps:
            market.apply_commit(payload)

    decoded = rate(log.events_count, decode)
    for payload in log.beginning:
        market.apply_commit(payload)
    return {"decode": decoded, "apply": rate(log.events_count, follow)}
