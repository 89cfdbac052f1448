"""One whole run: connect, ask how the markets stand, send, read the logs back, sum up.

Knows nothing of options and screens: the load comes in, and how far it is can be looked at.
"""

from contextlib import AsyncExitStack
from random import Random
from typing import Final, Literal

from msgspec import Struct

from dex_client.errors import (
    ExchangeError,
    NotPermitted,
    ProtocolMismatch,
    Unavailable,
    unreachable_hint,
)
from dex_client.ids import Ids
from dex_client.load.options import Load
from dex_client.load.profile import Profile, profile_random
from dex_client.load.record import Record
from dex_client.load.report import Report, make_report
from dex_client.load.runner import Lane, Runner
from dex_client.load.verification import Audit, Verified, total
from dex_client.queries import Queries
from dex_client.retry import Policy
from dex_engine import InvariantViolated, Market
from dex_protocol import subjects
from dex_protocol.ids import Pair, make_pair
from dex_protocol.queries import StatusReply
from dex_protocol.receipts import Receipt
from dex_runtime import keys
from dex_runtime.connection import (
    CannotConnect,
    ConnectionOptions,
    Credentials,
    close,
    connect,
    forbidden_subject,
)
from dex_runtime.messaging import Requester

BEGIN_DEADLINE_S: Final = 5.0
"""How long NATS may take to let a peer in, and a market to answer its first question: longer than a
server's restart takes (2 to 3 s), and short enough for somebody who mistyped a name."""

Phase = Literal["beginning", "sending", "verifying"]


class CannotBegin(Exception):
    """There is nobody to send to; the text is one sentence that says what to do."""


class _Peer(Struct):
    # A peer's connection, and what the markets know of it.
    name: str
    requester: Requester
    queries: Queries
    statuses: dict[str, StatusReply]

    @property
    def above(self) -> Pair:
        """The pair above which its ids are new in every market."""
        return max(
            make_pair(*pair)
            for status in self.statuses.values()
            for pair in (status.highest, status.forgotten)
        )


class Session:
    """One run of the load generator.

    Attributes:
        record: What became of the orders so far.
        phase: What it is at.
        commits_read: Of the logs that are read back, in the last phase.
        commits_count: How many there are to read.
    """

    def __init__(
        self,
        load: Load,
        servers: tuple[str, ...],
        credentials: Credentials = Credentials(),  # noqa: B008  (frozen)
    ) -> None:
        """Prepare; `run` does it."""
        self.record = Record(keep=load.verify)
        self.phase: Phase = "beginning"
        self.commits_read = 0
        self.commits_count = 0
        self._load = load
        self._servers = servers
        self._credentials = credentials
        self._random = Random(load.seed)
        self._nats_error: str | None = None
        self._verified: Verified | None = None
        self._unverified_because: str | None = None

    def report(self, *, interrupted: bool = False) -> Report:
        """Sum up what is known so far."""
        because = self._unverified_because
        if interrupted and self._load.verify and self._verified is None:
            because = "interrupted"
        return make_report(
            self._load,
            self.record,
            self._verified,
            unverified_because=because,
            interrupted=interrupted,
        )

    async def run(self) -> None:
        """Do it all.

        Raises:
            CannotBegin: nobody can be reached, or nobody serves a market; nothing was sent.
            ProtocolMismatch: the servers speak something else.
        """
        async with AsyncExitStack() as connections:
            peers = [await self._peer(name, connections) for name in self._load.peer_names]
            for peer in peers:
                for market in self._load.markets:
                    peer.statuses[market] = await self._first_status(peer, market)
            above = {peer.name: peer.above for peer in peers}
            replicas = await self._replicas(peers[0]) if self._load.verify else []
            self.phase = "sending"
            await Runner(self._load, self._lanes(peers), self.record).run()
            if self._load.verify:
                self.phase = "verifying"
                await self._verify(peers[0], replicas, above)

    # --- Before -----------------------------------------------------------------------------

    async def _peer(self, name: str, connections: AsyncExitStack) -> _Peer:
        options = ConnectionOptions(
            servers=self._servers,
            name=f"dex-client {name}",
            credentials=self._credentials_of(name),
            first_connection_timeout_s=BEGIN_DEADLINE_S,
        )
        try:
            client = await connect(options, on_error=self._hear)
        except CannotConnect as error:
            hint = unreachable_hint(is_refusal=error.is_refusal)
            raise CannotBegin(f"{error}{hint}") from error
        connections.push_async_callback(close, client)
        requester = await Requester.start(client)
        return _Peer(name, requester, self._queries(name, requester, BEGIN_DEADLINE_S), {})

    def _credentials_of(self, peer: str) -> Credentials:
        return keys.of_peer(peer, self._credentials)

    def _hear(self, error: str) -> None:
        # NATS refuses without an answer: what it said in the background explains the silence.
        self._nats_error = error

    def _queries(self, peer: str, requester: Requester, deadline_s: float) -> Queries:
        policy = Policy(deadline_s=deadline_s)
        return Queries(requester, peer, policy=policy, random=self._random)

    async def _first_status(self, peer: _Peer, market: str) -> StatusReply:
        try:
            status = await peer.queries.status(market)
        except Unavailable as error:
            subject = subjects.query(market, "status", peer.name)
            if forbidden_subject(self._nats_error or "") == subject.lower():
                raise CannotBegin(
                    f"{NotPermitted(subject, who=self._credentials_of(peer.name).shown)}; "
                    f"`just peers add {peer.name}` makes one on this machine"
                ) from error
            heard = "" if self._nats_error is None else f" (NATS says: {self._nats_error})"
            raise CannotBegin(
                f"no server answers for the market {market}{heard}; "
                "see that a server runs and the market is open, or name another with --market"
            ) from error
        if isinstance(status, Receipt):
            raise CannotBegin(
                f"the market {market} cannot be asked ({status.reason}: {status.message}); "
                "name another with --market"
            )
        return status

    async def _replicas(self, peer: _Peer) -> list[Market]:
        replicas = []
        for market in self._load.markets:
            snapshot = await peer.queries.snapshot(market)
            try:
                replicas.append(Market(market) if snapshot is None else Market.restore(snapshot))
            except InvariantViolated as error:
                raise ProtocolMismatch(
                    f"the snapshot of {market}", expected="a market's state", found=str(error)
                ) from error
        return replicas

    def _lanes(self, peers: list[_Peer]) -> list[Lane]:
        lanes = []
        for peer in peers:
            ids = Ids(peer.name, above=peer.above)
            for market, status in peer.statuses.items():
                profile = Profile(
                    status.specification,
                    last_price=status.last_price,
                    random=profile_random(self._load.seed, market, peer.name),
                )
                lanes.append(Lane(market, ids=ids, profile=profile, requester=peer.requester))
        return lanes

    # --- After ------------------------------------------------------------------------------

    async def _verify(self, peer: _Peer, replicas: list[Market], above: dict[str, Pair]) -> None:
        queries = self._queries(peer.name, peer.requester, self._load.deadline_s)
        audits = [
            Audit(
                replica,
                self.record.told(replica.name),
                specification=peer.statuses[replica.name].specification,
                above=above,
            )
            for replica in replicas
        ]
        try:
            ends = [await self._end(queries, audit) for audit in audits]
            for audit, end in zip(audits, ends, strict=True):
                async for payload in queries.log(
                    audit.market, from_sequence=audit.sequence + 1, to_sequence=end.sequence
                ):
                    audit.read(payload)
                    self.commits_read += 1
                audit.finish(sequence=end.sequence, digest=end.digest)
        except ExchangeError as error:
            self._unverified_because = str(error)
            return
        self._verified = total(audits)

    async def _end(self, queries: Queries, audit: Audit) -> StatusReply:
        # A status of at least the newest commit that any receipt rests on.
        status = await queries.status(audit.market, min_sequence=audit.newest_told)
        if isinstance(status, Receipt):
            raise ProtocolMismatch(
                f"the status of {audit.market}", expected="an answer", found=str(status.reason)
            )
        self.commits_count += status.sequence - audit.sequence
        return status
