"""Which transitions of the state machines were taken: tables that count how they are read."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dex_client import retry
from dex_server.replication import roles


class Counted(dict[Any, Any]):
    """A table of transitions that counts which of them were taken."""

    def __init__(self, table: dict[Any, Any]) -> None:
        """Count from zero."""
        super().__init__(table)
        self.taken: Counter[str] = Counter()

    def __getitem__(self, key: Any) -> Any:
        """Take a transition."""
        to = super().__getitem__(key)
        self.taken[named(key, to)] += 1
        return to


def named(key: Any, to: str) -> str:
    """Name a transition."""
    state, occasion = key
    return f"{state} + {occasion} -> {to}"


ROLES = Counted(roles.TRANSITIONS)
REQUESTS = Counted(retry.TRANSITIONS)


def count() -> None:
    """Have the tables counted from now on."""
    roles.TRANSITIONS = ROLES  # type: ignore[misc]
    retry.TRANSITIONS = REQUESTS  # type: ignore[misc]


def missing(table: Counted, taken: Mapping[str, int]) -> list[str]:
    """Give the transitions of a table that nobody took."""
    return [name for key, to in table.items() if (name := named(key, to)) not in taken]
