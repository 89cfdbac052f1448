"""Each blow meets whom it means, and all is undone, whatever ends it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.chaos.nemesis import Nemesis
from tests.chaos.network import LINKS, NEWCOMER, NODES, OPEN, SERVERS, LinkState
from tests.chaos.schedule import Blow, Fault


class Network:
    """Links, as they were set last."""

    def __init__(self) -> None:
        self.states = {link.name: OPEN for link in LINKS}
        self.told: list[Mapping[str, LinkState]] = []

    async def set(self, states: Mapping[str, LinkState]) -> None:
        self.states.update(states)
        self.told.append(states)

    @property
    def changed(self) -> dict[str, LinkState]:
        return {name: state for name, state in self.states.items() if state != OPEN}


class FakeStage:
    """Parties that do nothing but run, or not."""

    def __init__(self) -> None:
        self.network = Network()
        self.nodes = dict.fromkeys(NODES)
        self.servers = dict.fromkeys(SERVERS)
        self.running = {*NODES, *SERVERS}
        self.paused: set[str] = set()
        self.done: list[str] = []

    def start(self, who: str) -> None:
        self.done.append(f"start {who}")
        if who not in NODES:
            self.servers[who] = None
        self.running.add(who)

    def is_running(self, who: str) -> bool:
        return who in self.running

    def pause(self, who: str) -> None:
        self.paused.add(who)

    def resume(self, who: str) -> None:
        self.paused.discard(who)

    async def kill(self, who: str) -> None:
        self.done.append(f"kill {who}")
        self.running.discard(who)

    async def stop(self, who: str) -> None:
        self.done.append(f"stop {who}")
        self.running.discard(who)


class Scene:
    """A nemesis on a fake stage, and whom its blows mean."""

    def __init__(self, *faults: Fault, parts: Mapping[str, str] | None = None) -> None:
        self.stage = FakeStage()
        self.said: list[str] = []
        stage: Any = self.stage
        self.nemesis = Nemesis(stage, faults, cast=self.cast(parts or {}), say=self.said.append)

    @staticmethod
    def cast(parts: Mapping[str, str]) -> Callable[[Blow], Awaitable[str]]:
        async def found(blow: Blow) -> str:
            return parts.get(blow.whom, blow.whom)

        return found

    async def run(self) -> None:
        await self.nemesis.run(time.monotonic())


def fault(*blows: Blow) -> Fault:
    return Fault("kind", blows)


def blow(how: Any, whom: str, begins: float = 0.0, ends: float = 0.1, **more: Any) -> Blow:
    otherwise = "server-1" if " " in whom else whom
    return Blow(how, whom, otherwise, begins=begins, ends=ends, **more)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_who_is_ended_is_started_again(how: str) -> None:
    scene = Scene(fault(blow(how, "nats-2")))

    await scene.run()

    assert scene.stage.done == [f"{how} nats-2", "start nats-2"]
    assert scene.nemesis.complaints == []


async def test_newcomer_comes_and_goes() -> None:
    scene = Scene(fault(blow("join", NEWCOMER)))

    await scene.run()

    assert scene.stage.done == [f"start {NEWCOMER}", f"stop {NEWCOMER}"]
    scene.nemesis.check()
    assert scene.nemesis.complaints == []


async def test_part_is_looked_up_when_the_blow_falls() -> None:
    scene = Scene(
        fault(blow("kill", "leader BTC-USD")),
        parts={"leader BTC-USD": "server-3"},
    )

    await scene.run()

    assert scene.stage.done == ["kill server-3", "start server-3"]
    assert [each.whom for each in scene.nemesis.happened] == ["server-3"]


async def test_newcomer_that_leads_is_not_meant() -> None:
    scene = Scene(
        fault(blow("kill", "leader BTC-USD")),
        parts={"leader BTC-USD": NEWCOMER},
    )

    await scene.run()

    assert scene.stage.done == ["kill server-1", "start server-1"]


async def test_blow_on_who_is_down_already_is_left_out() -> None:
    scene = Scene(
        fault(blow("kill", "server-2", 0.0, 0.2), blow("pause", "leader BTC-USD", 0.05, 0.1)),
        parts={"leader BTC-USD": "server-2"},
    )

    await scene.run()

    assert len(scene.nemesis.happened) == 1
    assert scene.stage.paused == set()


async def test_link_that_two_blows_cut_is_open_when_both_are_over() -> None:
    scene = Scene(
        fault(
            blow("cut", "nats-1", 0.0, 0.2, mode="held"),
            blow("cut", "server-1", 0.01, 0.1, mode="held"),
            blow("slow", "nats-1", 0.02, 0.15, delay_ms=5),
        )
    )

    await scene.run()

    name = "server-1>nats-1"
    assert [states[name] for states in scene.stage.network.told if name in states] == [
        LinkState(passes_there=False, passes_back=False),
        LinkState(passes_there=False, passes_back=False, delay_ms=5),
        LinkState(delay_ms=5),
        OPEN,
    ]
    assert scene.stage.network.changed == {}


async def test_who_ends_by_itself_is_noted_and_started_again() -> None:
    scene = Scene(fault(blow("pause", "nats-1")))
    scene.stage.running.discard("server-2")

    await scene.run()

    assert scene.nemesis.complaints == ["server-2 ended by itself"]
    assert scene.stage.done == ["start server-2"]


async def test_all_is_undone_when_it_is_ended_before_its_time() -> None:
    scene = Scene(
        fault(
            blow("kill", "server-1", 0.0, 60.0),
            blow("pause", "nats-1", 0.0, 60.0),
            blow("cut", "server-2", 0.0, 60.0),
            blow("join", NEWCOMER, 0.0, 60.0),
        )
    )
    running = asyncio.create_task(scene.run())
    await asyncio.sleep(0.05)
    assert len(scene.stage.network.changed) == 3
    running.cancel()
    await asyncio.wait([running])

    await scene.nemesis.heal()

    assert scene.stage.running == {*NODES, *SERVERS}
    assert scene.stage.paused == set()
    assert scene.stage.network.changed == {}
