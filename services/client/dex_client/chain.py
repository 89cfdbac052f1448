"""The commits of a market put in order: what to give next, and what is missing.

Theory of operation. Commits arrive in two ways. What is *heard* is broadcast: at once, but with
gaps, and again after a reconnection perhaps. What is *read* comes from the log, on demand, without
gaps. A commit is given when its sequence is the next one and it names the hash of the one given
before; anything heard that is older was given already, anything newer shows a gap, and anything
that does not fit is not believed: the log decides. Only what was read and does not fit is an error.

That the log goes further than what was heard is *told* from outside: a last commit that was lost
leaves no gap to see.

Pure. Knows nothing of connections, nor of what events mean.
"""

from collections import deque
from collections.abc import Iterable

from msgspec import structs

from dex_client.errors import ProtocolMismatch
from dex_protocol import limits
from dex_protocol.codec import UNREADABLE, decode_commit, hash_of
from dex_protocol.events import PROTOCOL, Commit, LeaderChanged


class StoredCommit(Commit, gc=False):
    """A commit, and its bytes as they are stored: `payload` is what the hash chain is made of."""

    payload: bytes

    def __repr__(self) -> str:
        """Name it; its events may be thousands."""
        return f"StoredCommit({self.market} {self.sequence}, {len(self.events)} events)"


class Chain:
    """What comes next of one market's commits.

    Attributes:
        next_sequence: Of the commit to be given next.
        has_dropped: Something heard found no room: the log may go further than is known here.
    """

    def __init__(
        self,
        market: str,
        next_sequence: int,
        *,
        heard_count_max: int = limits.HEARD_COMMITS_COUNT_MAX,
        heard_bytes_max: int = limits.HEARD_BYTES_MAX,
    ) -> None:
        """Begin before a commit, whose `previous` is believed."""
        self.market = market
        self.next_sequence = next_sequence
        self.has_dropped = False
        self._hash: str | None = None
        self._told = 0
        self._heard: deque[bytes] = deque()
        self._heard_bytes = 0
        self._heard_count_max = heard_count_max
        self._heard_bytes_max = heard_bytes_max
        # The first of what was heard, read already; None when it was not looked at yet.
        self._first: Commit | None = None
        self._read: deque[bytes] = deque()

    @property
    def missing(self) -> int:
        """How many commits, from the next one on, have to be read from the log; 0 for none."""
        return max(self._told + 1 - self.next_sequence, 0)

    def tell(self, sequence: int) -> None:
        """Note that the log goes at least so far."""
        self._told = max(self._told, sequence)

    def hear(self, payload: bytes) -> None:
        """Take in what was broadcast, in order of arrival."""
        if (
            len(self._heard) >= self._heard_count_max
            or self._heard_bytes + len(payload) > self._heard_bytes_max
        ):
            self.has_dropped = True
            return
        self._heard.append(payload)
        self._heard_bytes += len(payload)

    def read(self, payloads: Iterable[bytes]) -> None:
        """Take in what the log has from the next commit on.

        Ordering: everything of the previous read was given.
        """
        assert not self._read, "what was read before comes first"
        self._read.extend(payloads)

    def disbelieve(self) -> None:
        """Note that the log does not have what seemed to be missing.

        The first of what was heard, which may have said so, is dropped. That never loses anything:
        if it stands in the log, the next one shows the gap.
        """
        self._told = 0
        if self._heard:
            self._drop_first()

    def take(self) -> StoredCommit | None:
        """Give the next commit; None when it is not there, and perhaps `missing`.

        Raises:
            ProtocolMismatch: the log is not what the protocol says it is.
        """
        if self._read:
            return self._give(self._next_of_log(), self._read.popleft())
        while self._heard:
            commit = self._first or self._read_first()
            if commit is None or commit.sequence < self.next_sequence:
                self._drop_first()
            elif commit.sequence > self.next_sequence:
                self.tell(commit.sequence - 1)
                return None
            elif self._follows(commit):
                return self._give(commit, self._drop_first())
            else:
                self.tell(commit.sequence)
                self._drop_first()
                return None
        return None

    def _next_of_log(self) -> Commit:
        payload = self._read[0]
        what = f"commit {self.next_sequence} of the log of {self.market}"
        try:
            commit = decode_commit(payload)
        except UNREADABLE as error:
            self._read.clear()
            raise ProtocolMismatch(what, expected="a commit", found=str(error)) from error
        for name, expected, found in (
            ("market", self.market, commit.market),
            ("sequence", self.next_sequence, commit.sequence),
            ("previous", self._hash or commit.previous, commit.previous),
        ):
            if expected != found:
                self._read.clear()
                raise ProtocolMismatch(what, expected=f"{name} {expected}", found=str(found))
        return commit

    def _read_first(self) -> Commit | None:
        try:
            commit = decode_commit(self._heard[0])
        except UNREADABLE:
            return None
        if commit.market != self.market:
            return None
        self._first = commit
        return commit

    def _drop_first(self) -> bytes:
        payload = self._heard.popleft()
        self._heard_bytes -= len(payload)
        self._first = None
        return payload

    def _follows(self, commit: Commit) -> bool:
        return self._hash is None or commit.previous == self._hash

    def _give(self, commit: Commit, payload: bytes) -> StoredCommit:
        for event in commit.events:
            if type(event) is LeaderChanged and event.protocol != PROTOCOL:
                raise ProtocolMismatch(
                    f"the leader of {self.market} since commit {commit.sequence}",
                    expected=f"protocol {PROTOCOL}",
                    found=f"protocol {event.protocol}",
                )
        self.next_sequence = commit.sequence + 1
        self._hash = hash_of(payload)
        return StoredCommit(**structs.asdict(commit), payload=payload)
