"""The tables of docs/BENCHMARKS.md, from what a full run of `just bench --json` has written."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeAlias

Table: TypeAlias = Callable[[list[str], Sequence[tuple[str, ...]]], str]


def measured(file: Path, table: Table) -> str:
    """Write on what machine it was measured, what is claimed, and every figure."""
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    machine = report["machine"]
    about = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['python']}, "
        f"{machine['platform']}; commit {machine['commit']}, {report['rounds']} rounds."
    )
    claims = [
        (stage["name"], *_claim(verdict))
        for stage in report["stages"]
        for verdict in stage["verdicts"]
    ]
    parts = [
        about,
        table(["stage", "claim", "found: median (least to greatest)", "wanted", "holds"], claims),
    ]
    for stage in report["stages"]:
        parts.append(f"**{stage['name']}**: {stage['title']}.")
        if stage["missing"]:
            parts.append(f"Missing: {stage['missing']}.")
        if stage["figures"]:
            rows = [
                (each["name"], _spread(each["rounds"]), each["unit"]) for each in stage["figures"]
            ]
            parts.append(table(["", "median (least to greatest)", "unit"], rows))
    return "\n\n".join(parts)


def _claim(verdict: dict[str, Any]) -> tuple[str, str, str, str]:
    relation = "at most" if verdict["is_at_most"] else "at least"
    names, found, wanted = [], [], []
    if verdict.get("ratio_wanted") is not None:
        names.append(f"{verdict['figure']} / {' + '.join(verdict['against'])}")
        found.append(_of(verdict.get("ratio")))
        wanted.append(f"{relation} {_number(verdict['ratio_wanted'])}")
    if verdict.get("value_wanted") is not None:
        names.append(verdict["figure"])
        found.append(_of(verdict.get("value")))
        wanted.append(f"{relation} {_number(verdict['value_wanted'])}")
    return "; ".join(names), "; ".join(found), "; ".join(wanted), verdict["holds"]


def _of(spread: dict[str, float] | None) -> str:
    if spread is None:
        return ""
    least, most = _number(spread["least"]), _number(spread["most"])
    return f"{_number(spread['median'])} ({least} to {most})"


def _spread(values: list[float]) -> str:
    return _of({"median": median(values), "least": min(values), "most": max(values)})


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def capacity(file: Path, table: Table) -> str:
    """Write what the processor times of a full run allow, and what was measured beside them."""
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    found = {
        (stage["name"], each["name"]): median(each["rounds"])
        for stage in report["stages"]
        for each in stage["figures"]
    }
    whats = ("singles", "batches")
    costs = {what: _Costs.of(found, what) for what in whats}
    rows = [
        ("peer (the load generator here)", *(_number(costs[what].peer) for what in whats)),
        ("leader", *(_number(costs[what].leader) for what in whats)),
        ("follower, each", *(_number(costs[what].follower) for what in whats)),
        ("NATS, one node", *(_number(costs[what].node) for what in whats)),
        ("NATS, three nodes, all together", *(_number(costs[what].nodes) for what in whats)),
    ]
    bounds = [
        ("one market, and one server that leads only", *(_rate(costs[what].led) for what in whats)),
        *(
            (
                f"{count} servers, {count} markets, each leads one and follows the others",
                *(_rate(costs[what].cluster(count)) for what in whats),
            )
            for count in (2, 4, 8)
        ),
        ("any number of servers", *(_rate(1e6 / costs[what].follower) for what in whats)),
    ]
    cores = report["machine"]["cores"]
    checks = []
    for count in (1, 2, 4):
        name = "1 server, 1 market" if count == 1 else f"{count} servers, {count} markets"
        measured_rate = found.get(("scaling", name))
        if measured_rate is not None:
            predicted = costs["batches"].on_one_machine(cores, count)
            share = f"{measured_rate / predicted:.0%}"
            checks.append((name, _rate(predicted), _rate(measured_rate), share))
    return "\n\n".join(
        [
            "Processor time for an order, in µs:",
            table(["process", "single orders", "batches of 100"], rows),
            "Orders a second that this allows, with a core for each server, and cores enough for"
            " nodes and peers:",
            table(["", "single orders", "batches of 100"], bounds),
            f"All of it on one machine with {cores} cores and one node, batches of 100, where the"
            " sum of all processes is the bound; the model knows the processor times above, and"
            " nothing of these runs:",
            table(["", "predicted", "measured", "of it"], checks),
        ]
    )


class _Costs(NamedTuple):
    # Of one order, in µs.
    peer: float
    leader: float
    follower: float
    node: float
    nodes: float

    @classmethod
    def of(cls, found: dict[tuple[str, str], float], what: str) -> "_Costs":
        def cost(process: str) -> float:
            return found["cpu", f"1 node, {what}: {process}"]

        nodes = sum(
            found["cpu", f"3 nodes, {what}: {node}"]
            for node in ("busiest node", "second node", "third node")
        )
        return cls(cost("load"), cost("leader"), cost("follower"), cost("busiest node"), nodes)

    @property
    def led(self) -> float:
        return 1e6 / self.leader

    def cluster(self, servers: int) -> float:
        return servers * 1e6 / (self.leader + (servers - 1) * self.follower)

    def on_one_machine(self, cores: int, servers: int) -> float:
        used = self.peer + self.leader + (servers - 1) * self.follower + self.node
        return min(cores * 1e6 / used, self.cluster(servers))


def _rate(value: float) -> str:
    return f"{value:,.0f}"
