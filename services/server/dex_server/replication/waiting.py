"""Requests that wait in a market's leader: peers take turns, and none takes the places of others.

Theory of operation. Each peer's requests stand in a line, in order of arrival. The lines take
turns, so many commands each; a batch longer than what is left of its peer's turn goes on in the
next one, unless nobody else waits. A peer may hold as many places as it leaves free, of those for
commands and of those for bytes: alone it has half of them, and whoever comes next has always as
many as each of those who flood.

Knows nothing of what requests say, nor of how they are executed.
"""

from collections import deque
from collections.abc import Iterator

from dex_protocol import limits
from dex_server.replication.commits import Waiting


class Places:
    """Who holds how many of the places for commands, and for bytes of requests."""

    __slots__ = ("_bytes_free", "_commands_free", "_held")

    def __init__(self) -> None:
        """Begin with all of them free."""
        self._commands_free = limits.WAITING_COMMANDS_COUNT_MAX
        self._bytes_free = limits.WAITING_BYTES_MAX
        # Commands and bytes, by peer; of those that hold any.
        self._held: dict[str, tuple[int, int]] = {}

    def take(self, peer: str, commands: int, size: int) -> bool:
        """Take places for a request of so many commands and bytes, if there are as many.

        Returns:
            Whether there were: its peer then holds no more than it leaves free.
        """
        held_commands, held_bytes = self._held.get(peer, (0, 0))
        held_commands += commands
        held_bytes += size
        commands_free = self._commands_free - commands
        bytes_free = self._bytes_free - size
        if held_commands > commands_free or held_bytes > bytes_free:
            return False
        self._held[peer] = (held_commands, held_bytes)
        self._commands_free = commands_free
        self._bytes_free = bytes_free
        return True

    def give_back(self, peer: str, commands: int, size: int) -> None:
        """Give back what was taken for a request."""
        held_commands, held_bytes = self._held[peer]
        if held_commands == commands:
            assert held_bytes == size, f"{peer} holds {held_bytes} bytes of no command"
            del self._held[peer]
        else:
            self._held[peer] = (held_commands - commands, held_bytes - size)
        self._commands_free += commands
        self._bytes_free += size


class FairQueue:
    """Requests that wait: the peers' lines, taking turns.

    Attributes:
        left: How many commands the first request's peer may still have executed in this turn.
    """

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._places = Places()
        self._lines: dict[str, deque[Waiting]] = {}
        # All that have a line; whose turn it is stands first.
        self._turns: deque[str] = deque()
        self.left = limits.TURN_COMMANDS_COUNT

    def __bool__(self) -> bool:
        """Tell whether anybody waits."""
        return bool(self._turns)

    def __iter__(self) -> Iterator[Waiting]:
        """Give all that wait: line by line, in order of turns, oldest first."""
        for peer in self._turns:
            yield from self._lines[peer]

    def put(self, waiting: Waiting) -> bool:
        """Put a request at the end of its peer's line; tell whether there was room for it."""
        peer = waiting.peer
        if not self._places.take(peer, len(waiting.elements), waiting.bytes):
            return False
        line = self._lines.get(peer)
        if line is None:
            self._lines[peer] = deque((waiting,))
            self._turns.append(peer)
        else:
            line.append(waiting)
        return True

    @property
    def first(self) -> Waiting | None:
        """The request whose turn it is; None when nobody waits."""
        return self._lines[self._turns[0]][0] if self._turns else None

    def went_on(self, count: int, *, is_done: bool) -> None:
        """Note that so many commands of the first were executed, and whether it waits no more.

        Whoever has had a turn goes on behind the others.
        """
        peer = self._turns[0]
        if is_done:
            line = self._lines[peer]
            waiting = line.popleft()
            self._places.give_back(peer, len(waiting.elements), waiting.bytes)
            if not line:
                del self._lines[peer]
                self._turns.popleft()
                self.left = limits.TURN_COMMANDS_COUNT
                return
        self.left -= count
        if self.left <= 0:
            self._turns.rotate(-1)
            self.left = limits.TURN_COMMANDS_COUNT

    def clear(self) -> None:
        """Take all out."""
        self._places = Places()
        self._lines.clear()
        self._turns.clear()
        self.left = limits.TURN_COMMANDS_COUNT
