"""The command `dex-guard`: its options, and who it connects as."""

import sys
from typing import Any

import click

from dex_guard.flood import Limits
from dex_guard.guard import Config, guard
from dex_guard.link import ConnectionLost
from dex_guard.monitoring import NotOfSystemAccount
from dex_runtime import keys, options
from dex_runtime.connection import ConnectionOptions
from dex_runtime.service import run, set_up_logging


@click.command()
@click.option(
    "--nats",
    default="nats://127.0.0.1:4222",
    show_default=True,
    help="Addresses of NATS nodes, with commas between them.",
)
@click.option(
    "--messages-per-second",
    # A leader takes some 30,000 requests of one order in a second: no peer needs more than two
    # thirds of that, since one that is faster sends batches.
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Messages that a user may send to one node.",
)
@click.option(
    "--bytes-per-second",
    # A full batch is 130 KB: 500 of them are more orders than a leader executes. A node passes on
    # several times as much.
    type=click.IntRange(1),
    default=64 * 1024 * 1024,
    show_default=True,
    help="Bytes of payloads and headers that a user may send to one node.",
)
@click.option(
    "--exempt",
    multiple=True,
    default=("DEX",),
    show_default=True,
    help="An account that may send anything, beside the system account; repeatable.",
)
def main(
    nats: str,
    messages_per_second: int,
    bytes_per_second: int,
    exempt: tuple[str, ...],
    **others: Any,
) -> None:
    """Cut clients' connections that flood NATS, until told to stop.

    Every node of the cluster is watched, whichever is connected to. Any number of guards may run,
    on any machines. A user above a limit in two intervals of 0.25 s running, or far above it in
    one, loses the connections that send most. Needs a user of NATS' system account.

    Example: dex-guard --nats nats://127.0.0.1:4222 --nkey guard.nk
    """
    config = Config(
        connection=_connection_options(nats, others),
        limits=Limits(messages_per_second=messages_per_second, bytes_per_second=bytes_per_second),
        exempt=frozenset(exempt),
    )
    set_up_logging()
    sys.exit(run(lambda stop: guard(config, stop), explained=(ConnectionLost, NotOfSystemAccount)))


main.params += options.credential_options()


def _connection_options(nats: str, others: dict[str, Any]) -> ConnectionOptions:
    servers = tuple(address for address in nats.split(",") if address)
    if not servers:
        raise click.BadParameter("expected at least one address, found none", param_hint="--nats")
    return ConnectionOptions(
        servers=servers,
        name="guard",
        credentials=keys.of_role("guard", options.credentials(others)),
    )
