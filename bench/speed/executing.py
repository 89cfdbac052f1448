"""Trial: `Market.execute`, from a decoded command to its receipt and events.

With everything that a leader has done for a command: checks, limits, remembered outcomes, the
book's digest. Without decoding and encoding, which rivals have none of.
"""

from pathlib import Path

from bench.speed import flows
from bench.speed.clocked import rate, set_aside
from bench.speed.leader import NOW, a_market


def execute(file: str) -> float:
    """Execute a flow's steps; commands a second."""
    flow = flows.read(Path(file))
    steps = [(flows.command_of(step), flows.PEERS[step.peer]) for step in flow.steps]
    set_aside()
    market, _ = a_market()
    for each in flow.resting:
        market.execute(flows.command_of(each), peer=flows.PEERS[each.peer], time=NOW)

    def run() -> None:
        for command, peer in steps:
            market.execute(command, peer=peer, time=NOW)

    found = rate(len(steps), run)
    after = flow.resting_after
    assert len(market.orders) == after, f"expected {after} orders, found {len(market.orders)}"
    return found
