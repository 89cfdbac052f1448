"""A server's life: it holds markets, takes part in deciding who leads them, serves, and leaves.

Orders are served by each market's driver, while it leads.
"""

import asyncio
import logging
from importlib.metadata import version
from typing import Final

from dex_protocol import subjects
from dex_protocol.standing import ENDPOINT, SERVICE, ServerStanding
from dex_runtime.discovery import Endpoint, Registration
from dex_runtime.serving import Incoming, Service
from dex_server.admin import Admin
from dex_server.config import Config
from dex_server.electing import Electing, ServerDisplaced
from dex_server.markets import Markets, Ports
from dex_server.queries import Queries

LEAVING_S: Final = 1.5
"""How long a server hands its markets over, one after another at some ms each, when it is told to
stop; without NATS nothing can be handed over, and others see that it is gone."""

_log: Final = logging.getLogger(__name__)


async def serve(
    config: Config, incarnation: str, ports: Ports, electing: Electing, stop: asyncio.Event
) -> None:
    """Hold the markets of the directory, and serve, until told to stop.

    Raises:
        ServerDisplaced: another process runs under this server's name.
    """
    try:
        await _serve(config, incarnation, ports, electing, stop)
    except* ServerDisplaced as group:
        # The only thing that can end the tasks and is no bug.
        raise ServerDisplaced(str(group.exceptions[0])) from None


async def _serve(
    config: Config, incarnation: str, ports: Ports, electing: Electing, stop: asyncio.Event
) -> None:
    about = {"server": config.name}
    async with asyncio.TaskGroup() as tasks:
        markets = Markets(config, incarnation, ports, electing, tasks)
        # Who has a record is pinged, so pings are answered before there is one.
        services = await _register(config, incarnation, ports, markets)
        markets.watch()
        tasks.create_task(electing.run(markets))
        _log.info("serving", extra=about)
        await stop.wait()
        electing.leave()
        try:
            async with asyncio.timeout(LEAVING_S):
                await electing.has_left.wait()
        except TimeoutError:
            _log.warning("not everything could be handed over", extra=about)
        electing.stop()
        # Others answer from now on; what has come in is answered here.
        await asyncio.gather(*(service.stop() for service in services))
        await markets.stop()


async def _register(
    config: Config, incarnation: str, ports: Ports, markets: Markets
) -> list[Service | Registration]:
    admin = Admin(markets, ports.requester)

    def on_ping(incoming: Incoming) -> None:
        incoming.reply_to.send(incarnation.encode())

    def data(endpoint: str) -> ServerStanding | None:
        if endpoint != ENDPOINT:
            return None
        drivers = [driver for _, driver in sorted(markets.drivers.items())]
        return ServerStanding(
            server=config.name,
            incarnation=incarnation,
            markets=[driver.replica.standing for driver in drivers],
        )

    alive = await ports.vitals.serve(subjects.alive(config.name), queue="alive", on_request=on_ping)
    handed_on = await ports.queries.serve(
        subjects.lead(config.name, "*", "*"), queue="lead", on_request=admin.on_handed_on
    )
    registration = await ports.register(
        name=SERVICE,
        version=version("dex"),
        description="Holds markets, matches orders where it leads, and answers queries.",
        metadata={"server": config.name, "incarnation": incarnation},
        endpoints=[
            Endpoint(
                ENDPOINT,
                subjects.query("*", "*", "*"),
                subjects.REPLICA_GROUP,
                Queries(markets, ports.snapshots).on_request,
            ),
            Endpoint("admin", subjects.admin("*", "*"), subjects.REPLICA_GROUP, admin.on_request),
        ],
        data=data,
    )
    await ports.vitals.settle()
    await ports.queries.settle()
    return [alive, handed_on, registration]
