"""A server's life: it holds markets, serves queries and operators, and ends when told to.

Orders are served by each market's driver, while it leads.
"""

import asyncio
import logging
from typing import Final

from dex_protocol import subjects
from dex_server.admin import Admin
from dex_server.config import Config
from dex_server.markets import Markets, Ports
from dex_server.queries import Queries

_log: Final = logging.getLogger(__name__)


async def serve(config: Config, ports: Ports, stop: asyncio.Event) -> None:
    """Hold the markets of the directory, and serve, until told to stop."""
    async with asyncio.TaskGroup() as tasks:
        markets = Markets(config, ports, tasks)
        markets.spawn(markets.watch())
        await ports.queries.serve(
            subjects.query("*", "*", "*"),
            queue=subjects.REPLICA_GROUP,
            on_request=Queries(markets, ports.snapshots).on_request,
        )
        await ports.queries.serve(
            subjects.admin("*", "*"),
            queue=subjects.REPLICA_GROUP,
            on_request=Admin(markets).on_request,
        )
        await ports.queries.settle()
        _log.info("serving", extra={"server": config.name})
        await stop.wait()
        await markets.stop()
