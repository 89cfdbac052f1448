"""The guard as a process of this machine: started. Knows only its command line."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from deploy import processes
from deploy.processes import Process
from deploy.servers import UNTOLD, credential_arguments
from dex_runtime.connection import Credentials


class GuardProcess(Struct, frozen=True):
    """A guard that was started."""

    process: Process


def start(*, urls: Sequence[str], credentials: Credentials, log: Path) -> GuardProcess:
    """Start it; it watches as soon as it can.

    Raises:
        ProgramMissing: the project is not installed.
    """
    program = processes.executable("dex-guard", advice="`uv sync` installs it")
    log.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [program, "--nats", ",".join(urls)]
    command += credential_arguments(credentials)
    return GuardProcess(processes.spawn(command, log=log, environment=UNTOLD))
