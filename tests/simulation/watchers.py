"""Clients that hold a copy of each book: by what is broadcast, and by asking for what was missed.

The order of commits, and what is missing, is the client's own `dex_client.chain`; the state is the
engine's. Only asking is done here, in virtual time, the way the client's replica does it.
"""

from typing import Final

from dex_client.chain import Chain
from dex_client.errors import ProtocolMismatch
from dex_engine import Diverged, Market
from dex_protocol.codec import hash_of
from dex_server.replication.ports import Entry
from tests.simulation.cluster import MS, Cluster, S

QUIET_US: Final = 1 * S
"""So often a watcher asks how far the log goes."""

READ_COUNT: Final = 50
"""How far beyond the next commit is read at a time."""


class Watcher:
    """One client's copy of one book.

    Attributes:
        market: The copy.
        wrong: What it found that must not be; empty, unless the log itself lost something.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        """Begin with nothing."""
        self.name = name
        self.wrong: list[str] = []
        self._cluster = cluster
        self._is_asking = False
        self.begin()
        cluster.on_broadcast(self._hear)
        self._look()

    def begin(self) -> None:
        """Forget all, and begin again."""
        self.market = Market(self.name)
        self.hash = ""
        self._chain = Chain(self.name, 1)

    def _hear(self, market: str, entry: Entry) -> None:
        if market != self.name or self._cluster.meets("broadcast lost"):
            return
        for _ in range(2 if self._cluster.meets("broadcast doubled") else 1):
            self._cluster.later(lambda: self._take_in(entry.payload))

    def _take_in(self, payload: bytes) -> None:
        self._chain.hear(payload)
        self._give()

    def _give(self) -> None:
        try:
            while (commit := self._chain.take()) is not None:
                self.market.apply_commit(commit.payload)
                self.hash = hash_of(commit.payload)
        except (ProtocolMismatch, Diverged) as error:
            self.wrong.append(str(error))
            self.begin()
        if self._chain.missing and not self._is_asking:
            self._ask()

    def _look(self) -> None:
        # A last commit that was lost leaves no gap to see.
        stored = self._stored()
        if stored is not None:
            self._chain.tell(stored)
            self._give()
        self._cluster.later(self._look, QUIET_US)

    def _stored(self) -> int | None:
        # What the server that is asked knows to be stored.
        servers = [
            process
            for process in self._cluster.alive()
            if process.is_up and not process.is_paused and self.name in process.replicas
        ]
        if not servers:
            return None
        return self._cluster.random.choice(servers).replicas[self.name].stored

    def _ask(self) -> None:
        self._is_asking = True

        def arrive() -> None:
            self._is_asking = False
            stored = self._stored()
            if stored is None:
                self._cluster.later(self._give, 500 * MS)
                return
            first = self._chain.next_sequence
            last = min(stored, first + READ_COUNT)
            # A trimmed log's beginning would come from a snapshot.
            entries = [self._cluster.entry(self.name, each) for each in range(first, last + 1)]
            payloads = [entry.payload for entry in entries if entry is not None]
            if not payloads:
                self._chain.disbelieve()
                return
            self._chain.read(payloads)
            self._give()

        self._cluster.later(arrive)
