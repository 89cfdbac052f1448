"""The buckets of the leases on real nodes, for the tests that need them."""

import asyncio

from nats.aio.client import Client

from dex_runtime import topology
from dex_runtime.messaging import Requester
from dex_runtime.topology import TopologyUnavailable
from dex_server.jetstream.leases import JetStreamLeases
from dex_server.replication.ports import LogUnavailable
from tests.contracts.lease_contract import leading, living
from tests.nats_nodes import MAKE_TIMEOUT_S


async def make_buckets(client: Client, requester: Requester, *, replicas: int) -> None:
    """Make them unless they exist, and wait until they take messages from this connection.

    A cluster that is new refuses at first, and so does a node that has not heard of a bucket.
    """
    probe = JetStreamLeases(requester)
    async with asyncio.timeout(MAKE_TIMEOUT_S):
        while True:
            try:
                await topology.make_shared(client, replicas=replicas)
                await probe.renew(living("probe"))
                await probe.name("probe", leading("probe"), after=0)
                return
            except (TopologyUnavailable, LogUnavailable):
                await asyncio.sleep(0.02)
