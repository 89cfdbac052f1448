"""How far a run is: one line on a terminal, nothing anywhere else."""

from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from dex_client.load.options import Load
from dex_client.load.session import Session

INTERVAL_S: Final = 0.1
"""Between two looks: often enough to seem alive, rare enough to cost nothing."""


class Screen:
    """Shows a session on stderr while it runs, when that is a terminal.

    Use it as a context manager, and call `show` every INTERVAL_S.
    """

    def __init__(self, load: Load) -> None:
        """Prepare; nothing is drawn before the context is entered."""
        console = Console(stderr=True)
        self._load = load
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            auto_refresh=False,
            # What is left on the screen in the end is the report.
            transient=True,
            disable=not console.is_terminal,
        )
        self._sending = self._progress.add_task("connecting", total=load.orders, note="")
        self._verifying = self._progress.add_task("verifying", total=None, visible=False, note="")

    def __enter__(self) -> "Screen":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, session: Session) -> None:
        """Draw how far it is now."""
        if self._progress.disable:
            return
        record = session.record
        done = record.answered + sum(record.given_up.values())
        note = f"{record.retried:,} sent again" if record.retried else ""
        description = "connecting" if session.phase == "beginning" else "orders"
        self._progress.update(self._sending, completed=done, description=description, note=note)
        if session.phase == "verifying":
            self._progress.update(
                self._verifying,
                visible=True,
                completed=session.commits_read,
                total=session.commits_count or None,
            )
        self._progress.refresh()
