"""The shell around one replica: inputs in, effects out.

It decides nothing. Everything that arrives is put into one inbox; each turn hands the replica all
of it, and performs the effects in their order. What the world does not answer is asked again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar, assert_never

from dex_engine import Market
from dex_protocol import subjects
from dex_protocol.standing import Role
from dex_runtime.clock import monotonic_us, now_us
from dex_runtime.listening import Listener
from dex_runtime.messaging import NoResponder
from dex_runtime.serving import Incoming, Responder, Service
from dex_server import snapshotting
from dex_server.replication.effects import (
    Alarm,
    Append,
    AppendConfirmed,
    AppendUndecided,
    Effect,
    EndFound,
    FindEnd,
    HashState,
    Heard,
    Input,
    Instant,
    Listen,
    ListSnapshots,
    LoadSnapshot,
    LogRead,
    Look,
    Note,
    ReadLog,
    RemoveSnapshot,
    Request,
    Requests,
    SaveSnapshot,
    Send,
    Serve,
    SnapshotFailed,
    SnapshotLoaded,
    SnapshotSaved,
    SnapshotsListed,
    SnapshotTaken,
    SnapshotUnusable,
    Stands,
    Start,
    StateHashed,
    Stopped,
    TakeSnapshot,
    Tick,
    ToldToStop,
    TrimLog,
    Unlisten,
    Unserve,
)
from dex_server.replication.ports import (
    Entry,
    Log,
    LogUnavailable,
    Position,
    SnapshotInvalid,
    SnapshotName,
    Snapshots,
    Undecided,
)
from dex_server.replication.replica import Replica
from dex_server.snapshotting import Writing, WritingFailed, Written

TICK_S: Final = 0.1
"""How often a replica hears of the time when nothing happens: `gtd` orders are over within 1 s."""

AGAIN_S: Final = 0.05
"""The pause before something unanswered is asked again; it was waited for long enough before."""

READ_BYTES: Final = 4 * 1024 * 1024
"""How much of a log is asked for at once: applied in about 0.2 s, while other markets wait."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Alarms(Protocol):
    """Where what an operator must know at once is told."""

    async def raise_alarm(self, market: str, text: str) -> None:
        """Tell it, if anybody can be told just now."""
        ...


class Observer(Protocol):
    """Who wants to know how replicas stand."""

    def replica_stands(self, market: str, role: Role, *, could_lead: bool) -> None:
        """Take note of it; called when it has changed."""
        ...


Broadcasts = Callable[[Callable[[Entry], None]], Coroutine[Any, Any, Listener]]
"""Gives each entry of the log to a function when it is broadcast."""


class Driver:
    """One market on this server: its replica, its ports, and the requests to it."""

    def __init__(
        self,
        replica: Replica,
        *,
        log: Log,
        listen: Broadcasts,
        snapshots: Snapshots,
        orders: Responder,
        alarms: Alarms,
        observer: Observer,
    ) -> None:
        """Take the ports of one market, and the connection that its orders arrive on."""
        self.replica = replica
        self.log = log
        self._listen = listen
        self._snapshots = snapshots
        self._orders = orders
        self._alarms = alarms
        self._observer = observer
        self._about = {"market": replica.name, "server": replica.server}
        self._inputs: list[Input] = [Start()]
        self._requests: list[Request] = []
        self._heard: list[Entry] = []
        self._ticked_at = 0
        self._stood: tuple[Role, bool] | None = None
        self._wake = asyncio.Event()
        self._service: Service | None = None
        self._listener: Listener | None = None
        self._ending: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup
        self._under_way: set[asyncio.Task[None]] = set()
        self.is_stopped = False

    # --- From outside ---------------------------------------------------------------------------

    def give(self, given: Input) -> None:
        """Put an input into the inbox."""
        self._inputs.append(given)
        self._wake.set()

    def stop(self) -> None:
        """Have the replica finish what it has in hand; `run` returns then."""
        self.give(ToldToStop())

    async def run(self) -> None:
        """Drive the replica until it stops."""
        loop = asyncio.get_running_loop()
        timer: asyncio.Handle

        def wake_again() -> None:
            nonlocal timer
            self._wake.set()
            timer = loop.call_later(TICK_S, wake_again)

        timer = loop.call_soon(wake_again)
        async with asyncio.TaskGroup() as self._tasks:
            while not self.is_stopped:
                await self._wake.wait()
                self._wake.clear()
                await self._turn()
                if self.replica.has_more_to_tell:
                    # After whatever else the loop has to do.
                    loop.call_soon(self._wake.set)
            timer.cancel()
            await self._stop_listening()
            if self._ending is not None:
                # What came in until the node knew is answered too.
                await self._ending
            await self._turn()
            self._cancel_tasks()

    async def _turn(self) -> None:
        now = Instant(now_us(), monotonic_us())
        inputs, self._inputs = self._inputs, []
        if self._heard:
            inputs.insert(0, Heard(self._heard))
            self._heard = []
        if self._requests:
            # First of all, so that a confirmation finds them waiting for the next commit.
            inputs.insert(0, Requests(self._requests))
            self._requests = []
        if not inputs or now.monotonic - self._ticked_at >= TICK_S * 1e6:
            self._ticked_at = now.monotonic
            inputs.append(Tick())
        for given in inputs:
            for effect in self.replica.step(given, now):
                if type(effect) is Send:
                    # Nearly all are: a coroutine less, 0.2 µs.
                    effect.reply_to.send(effect.payload)
                else:
                    await self._perform(effect)
        # Not a turn of the loop later, as they would be: that is 20 µs for whoever waits.
        self._orders.flush()
        stands = (self.replica.role, self.replica.could_lead(now))
        if stands != self._stood:
            self._stood = stands
            self._observer.replica_stands(self.replica.name, stands[0], could_lead=stands[1])

    def _on_entry(self, entry: Entry) -> None:
        self._heard.append(entry)
        self._wake.set()

    def _on_request(self, incoming: Incoming) -> None:
        self._requests.append(
            Request(
                peer=subjects.last_token(incoming.subject),
                payload=incoming.payload,
                reply_to=incoming.reply_to,
                arrived=monotonic_us(),
            )
        )
        self._wake.set()

    # --- Effects --------------------------------------------------------------------------------

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                effect.reply_to.send(effect.payload)
            case Append():
                self._spawn(self._append(effect))
            case Look():
                self._spawn(self._look(effect.sequence))
            case Serve():
                await self._start_serving()
            case Unserve():
                service, self._service = self._service, None
                if service is not None:
                    # What it still takes in is answered meanwhile.
                    self._ending = self._tasks.create_task(service.stop())
            case Listen():
                await self._start_listening()
            case Unlisten():
                await self._stop_listening()
            case ListSnapshots():
                self._spawn(self._list_snapshots())
            case LoadSnapshot():
                self._spawn(self._load_snapshot(effect.name))
            case FindEnd():
                self._spawn(self._find_end())
            case ReadLog():
                self._spawn(self._read(effect))
            case TakeSnapshot():
                self._write(
                    snapshotting.fork_snapshot,
                    effect.position,
                    lambda written: self._taken(effect, written),
                )
            case HashState():
                self._write(
                    snapshotting.fork_hash,
                    effect.position,
                    lambda state: StateHashed(effect.position, state),
                )
            case SaveSnapshot():
                self._spawn(self._save_snapshot(effect))
            case RemoveSnapshot():
                self._spawn(self._remove_snapshot(effect.name))
            case TrimLog():
                self._spawn(self._trim(effect.first_sequence))
            case Alarm():
                _log.error("%s", effect.text, extra=self._about)
                self._spawn(self._alarms.raise_alarm(self.replica.name, effect.text))
            case Note():
                level = logging.WARNING if effect.is_warning else logging.INFO
                _log.log(level, "%s", effect.text, extra=self._about)
            case Stopped():
                self.is_stopped = True
                self._wake.set()
            case _:
                assert_never(effect)

    async def _append(self, effect: Append) -> None:
        sequence = effect.after.sequence + 1
        if effect.again:
            await asyncio.sleep(AGAIN_S)
        try:
            await self.log.append(effect.payload, after=effect.after)
        except Undecided as undecided:
            _log.info("append of commit %s: %s", sequence, undecided, extra=self._about)
            self.give(AppendUndecided(sequence, str(undecided)))
        else:
            self.give(AppendConfirmed(sequence))

    async def _look(self, sequence: int) -> None:
        self.give(Stands(sequence, await self._answered(lambda: self.log.entry(sequence))))

    async def _find_end(self) -> None:
        first, last = await self._answered(self.log.bounds)
        self.give(EndFound(first, last))

    async def _read(self, effect: ReadLog) -> None:
        entries = await self._answered(
            lambda: self.log.read(
                effect.from_sequence,
                through_sequence=effect.through_sequence,
                bytes_max=READ_BYTES,
            )
        )
        self.give(LogRead(entries))

    async def _list_snapshots(self) -> None:
        names = await self._answered(lambda: self._snapshots.names(self.replica.name))
        self.give(SnapshotsListed(names))

    async def _load_snapshot(self, name: SnapshotName) -> None:
        try:
            data = await self._answered(lambda: self._snapshots.load(name))
        except SnapshotInvalid as invalid:
            self.give(SnapshotUnusable(name, str(invalid)))
        else:
            self.give(SnapshotLoaded(name, data))

    def _write(
        self,
        fork: Callable[[Market], Writing[T]],
        position: Position,
        answer: Callable[[T], Input],
    ) -> None:
        # Before the next input changes the state: the fork happens here and now.
        assert self.replica.market is not None
        try:
            writing = fork(self.replica.market)
        except WritingFailed as failed:
            self._not_written(position, failed)
        else:
            self._spawn(self._await_written(writing, position, answer))

    async def _await_written(
        self, writing: Writing[T], position: Position, answer: Callable[[T], Input]
    ) -> None:
        try:
            result = await writing.result()
        except WritingFailed as failed:
            self._not_written(position, failed)
        else:
            self.give(answer(result))

    def _taken(self, effect: TakeSnapshot, written: Written) -> SnapshotTaken:
        name = snapshotting.name_of(self.replica.name, effect.position, effect.digest, written)
        return SnapshotTaken(name, written.data)

    def _not_written(self, position: Position, failed: WritingFailed) -> None:
        _log.warning(
            "the state after commit %s was not written: %s",
            *(position.sequence, failed),
            extra=self._about,
        )
        self.give(SnapshotFailed(position))

    async def _save_snapshot(self, effect: SaveSnapshot) -> None:
        await self._answered(lambda: self._snapshots.save(effect.name, effect.data))
        self.give(SnapshotSaved(effect.name))

    async def _remove_snapshot(self, name: SnapshotName) -> None:
        await self._answered(lambda: self._snapshots.remove(name))

    async def _trim(self, first_sequence: int) -> None:
        await self._answered(lambda: self.log.trim(first_sequence))
        _log.info("the log begins at commit %s now", first_sequence, extra=self._about)

    async def _answered(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        is_told = False
        while True:
            try:
                return await ask()
            except LogUnavailable as unavailable:
                if not is_told:
                    _log.warning("waiting for NATS: %s", unavailable, extra=self._about)
                    is_told = True
                await asyncio.sleep(AGAIN_S)

    # --- Tasks ----------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _cancel_tasks(self) -> None:
        for task in self._under_way:
            task.cancel()

    async def _start_serving(self) -> None:
        try:
            self._service = await self._orders.serve(
                subjects.orders(self.replica.name, "*"),
                queue=subjects.LEADER_GROUP,
                on_request=self._on_request,
            )
        except NoResponder:
            # The connection is closed for good, and the server ends.
            return

    async def _start_listening(self) -> None:
        try:
            self._listener = await self._listen(self._on_entry)
        except NoResponder:
            # The connection is closed for good, and the server ends.
            return

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop()
