"""Finding a state to begin with: the newest snapshot that is good and fits the log, or none.

A snapshot is good when its bytes have the hash they were saved with and unpack to a bounded state
with its own hash, which breaks no invariant; it fits when the log has the very commit that it was
taken after. One that is damaged or gone costs time, never data: the one before it is tried, and at
last the log from its beginning.
"""

from dex_engine import InvariantViolated, Market
from dex_protocol import limits
from dex_protocol.codec import NotPacked, hash_of, unpacked
from dex_server.replication.effects import Effect, ListSnapshots, LoadSnapshot, Look, Note
from dex_server.replication.ports import Entry, Position, SnapshotName


class Contradicted(Exception):
    """The log and what this server knows of it do not fit: an operator must look."""


class Recovery:
    """One search for a state.

    Attributes:
        market: What was found, once `is_done`; without a snapshot the state before any commit.
        known: The newest commit that any snapshot shows to have stood in the log.
    """

    def __init__(self, name: str) -> None:
        """Search for a state of the market of that name."""
        self.market: Market | None = None
        self.known = 0
        self._name = name
        self._is_listed = False
        # Newest first.
        self._untried: list[SnapshotName] = []
        # Restored, and looked for in the log.
        self._restored: tuple[SnapshotName, Market] | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is a state."""
        return self.market is not None

    def begin(self) -> list[Effect]:
        """Ask for what there is."""
        return [ListSnapshots()]

    def listed(self, names: list[SnapshotName]) -> list[Effect]:
        """Try what there is, newest first."""
        if self._is_listed:
            # Somebody else asked too.
            return []
        self._is_listed = True
        self._untried = list(names)
        # A snapshot is stored only when the log has its commit.
        self.known = max([0, *(name.position.sequence for name in names)])
        return self._try_next()

    def unusable(self, name: SnapshotName, why: str) -> list[Effect]:
        """Go on without a snapshot that could not be loaded."""
        text = f"snapshot {name.position.sequence} cannot be used: {why}"
        return [Note(text, is_warning=True), *self._try_next()]

    def loaded(self, name: SnapshotName, data: bytes) -> list[Effect]:
        """Restore a snapshot's state, and look whether the log has its commit."""
        try:
            if hash_of(data) != name.hash:
                raise InvariantViolated(f"expected bytes with the hash {name.hash}")
            state = unpacked(data, bytes_max=limits.SNAPSHOT_BYTES_MAX)
            if hash_of(state) != name.state:
                raise InvariantViolated(f"expected a state with the hash {name.state}")
            market = Market.restore(state)
            found = (market.name, Position(market.sequence, market.hash), market.digest)
            if found != (self._name, name.position, name.digest):
                market.dispose()
                raise InvariantViolated(
                    f"expected {self._name} at {name.position} with the digest {name.digest},"
                    f" found {found}"
                )
        except (NotPacked, InvariantViolated) as error:
            return self.unusable(name, str(error))
        self._restored = (name, market)
        return [Look(name.position.sequence)]

    def stands(self, sequence: int, entry: Entry | None) -> list[Effect]:
        """Take the state, if the log has its commit.

        Raises:
            Contradicted: the log has another commit there.
        """
        if self._restored is None or self._restored[0].position.sequence != sequence:
            return []
        name, market = self._restored
        self._restored = None
        if entry is None:
            # Trimmed, or lost: where the log ends tells.
            market.dispose()
            return self.unusable(name, "the log has nothing there")
        if hash_of(entry.payload) != name.position.hash:
            market.dispose()
            raise Contradicted(
                f"the log has another commit {sequence} than the one that was stored there when"
                " a snapshot was taken: it has lost commits"
            )
        self.market = market
        return [Note(f"begins with snapshot {sequence}")]

    def _try_next(self) -> list[Effect]:
        if self._untried:
            return [LoadSnapshot(self._untried.pop(0))]
        self.market = Market(self._name)
        return []
