"""Every bound of the exchange: a name with its unit, a number, and the reason for the number.

Knows nothing of who keeps a bound. What the wire promises is in docs/PROTOCOL.md; the rest is the
servers' own.
"""

from typing import Final

# --- What the wire promises ---------------------------------------------------------------------

BATCH_COUNT_MAX: Final = 1_000
"""Commands in one request. At 130 bytes each a full batch is an eighth of a payload."""

COMMIT_BYTES_MAX: Final = 512 * 1024
"""Bytes of one commit: half of what a NATS message may have by default (1 MiB), so that a commit,
quoted as a JSON string in a `log` reply, still fits."""

REPLY_BYTES_MAX: Final = 512 * 1024
"""Bytes of log or of snapshot in one reply, for the same reason."""

PAYLOAD_BYTES_MAX: Final = 1024 * 1024
"""Bytes of one NATS message by default (`max_payload`); no reply may be longer."""

MAKERS_COUNT_MAX: Final = 1_000
"""Resting orders that one command may touch. With the longest ids a trade takes 340 bytes, so the
events of one command always fit one commit."""

HOUSEKEEPING_COUNT_MAX: Final = 1_000
"""Events of one commit of expiries, or of cancels by a closing market: the same arithmetic."""

CANCELED_COUNT_MAX: Final = 1_000
"""Orders that one `cancel_all` cancels: its receipt names each (66 bytes), as do its events."""

RETRY_WINDOW_COUNT: Final = 4_096
"""Outcomes remembered for each peer of a market: four full batches under way, at about 300 bytes
an outcome 1.2 MB a peer."""

TRADES_COUNT_MAX: Final = 1_000
"""Trades that a market keeps for the query `trades`, and so the most it answers."""

PAGE_COUNT_MAX: Final = 1_000
"""Orders, levels or commits in one reply to a query."""

BOOK_DEPTH: Final = 20
"""Levels a side in a reply to `book` when the request names none: what a screen shows."""

TRADES_COUNT: Final = 100
"""Trades in a reply to `trades` when the request names no limit."""

OPEN_ORDERS_COUNT_MAX: Final = 100_000
"""Open orders of one peer where the specification says nothing: 40 to 60 MB of a server."""

PEERS_COUNT_MAX: Final = 1_000
"""Peers of one market where the specification says nothing: with full retry windows 1.2 GB."""

ORDERS_PER_SECOND: Final = 10_000
"""Orders (submits and amends) of one peer of a market in a second, and cancels beside them, where
the specification says nothing: a fifth of what a leader commits, and more than any peer that waits
for its receipts sends."""

BURST_SECONDS: Final = 2
"""How many seconds' worth of orders a peer may send at once after a pause, where the specification
says nothing of a burst: what came together, after a reconnection say, is not held against it."""

NAMED_PEERS_COUNT_MAX: Final = 100
"""Peers with limits of their own in a specification, which stands whole in events and in `status`:
at 250 bytes each they make it 25 KB."""

LATE_US: Final = 1_000_000
"""A command that waited so long in a server is answered `retry`, not executed: its peer has asked
again by then, perhaps somebody else."""

MIN_SEQUENCE_WAIT_US: Final = 1_000_000
"""How long a query waits for its `min_sequence` before it is answered `retry`."""

# --- The servers' own ---------------------------------------------------------------------------

CONVERSIONS_COUNT_MAX: Final = 65_536
"""Decimal strings remembered for each conversion: about 10 MB when full."""

READ_REQUESTS_PER_SECOND: Final = 100
"""Requests of a peer that a market's leader reads in a second, whatever they say, beside one for
each order and each cancel that the peer may send: at some 10 µs each, a thousandth of its time."""

UNREAD_REQUESTS_PER_SECOND: Final = 5_000
"""Requests beyond that which it answers, unread; the rest are dropped. What comes in at a node's
full speed would otherwise keep the leader answering for seconds after it has ended."""

WAITING_COMMANDS_COUNT_MAX: Final = 16_384
"""Commands that wait in a market's leader before others are answered `busy`: what it commits in
well under the second after which they would be late."""

WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of requests that wait in a market's leader, for the same reason.

Of both, no peer may hold more than it leaves free: one that is alone holds half, each of nine a
tenth, and always as much is left for whoever comes next. That bounds every peer by what the others
do, without a number of its own."""

TURN_COMMANDS_COUNT: Final = 100
"""Commands of one peer that are executed before it is the next one's turn: a group of commands has
room for the turns of 20 peers, so up to 20 that flood hold nobody up for a whole group."""

SPECIFICATION_BYTES_MAX: Final = 32 * 1024
"""A specification at its longest: all peers named that may be, all numbers of 19 digits."""

WAITING_QUERIES_COUNT_MAX: Final = 1_024
"""Queries that wait in a server for a market before others are answered `busy`, and as many answers
that wait for an append."""

PEER_QUERIES_COUNT_MAX: Final = 64
"""Queries of one peer that wait in a server for a market, or for what is stored, before its others
are answered `rate_limited`: it takes 16 peers to make all others `busy`. A client that follows 20
markets, and asks for something in each, has a third of that."""

WAITING_WISHES_COUNT_MAX: Final = 64
"""Operators' requests that wait in a market's leader before others are answered `busy`: executed
together, with 1 KB of specification each, they leave a commit most of its room; with longer ones,
those that do not fit wait for the next."""

TOLD_QUERIES_COUNT_MAX: Final = 64
"""Queries answered between two looks at the world: at most 5 ms each, mostly a tenth of that."""

TOLD_BYTES_MAX: Final = 1024 * 1024
"""Bytes of answers to queries between two looks at the world: two or three of the longest."""

TOLD_WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of answers to queries that wait for an append before no more queries are answered."""

READS_COUNT_MAX: Final = 4
"""Queries answered from the log or from snapshots at a time, in a server: they bring up to 1 MiB
each over the connection that appends use."""

PEER_READS_COUNT_MAX: Final = 2
"""Of those, for one peer: the next is read while one is on its way, and other peers have room."""

PEER_UNANSWERED_COUNT_MAX: Final = 128
"""Queries of one peer that a server has taken and not answered, whatever they wait for, before its
others are answered `rate_limited`: what arrives at once is answered before anything is counted, and
so many of the longest answers about the state are 32 MiB."""

PEER_ANSWERS_BYTES_PER_SECOND: Final = 16 * 1024 * 1024
"""Bytes of answers to one peer's queries, of one server: `log` and `snapshot` answer a hundred
bytes with up to 1 MiB. A peer that catches up, page after page, is answered by all servers in turn,
and applies some MiB of log a second."""

PEER_ANSWERS_BYTES_BURST: Final = 32 * 1024 * 1024
"""How much of it a peer may take at once, after 2 s without: 32 of the longest answers."""

ANSWER_BYTES_MIN: Final = 4 * 1024
"""As how many bytes a shorter answer counts, since a query costs a server about 0.1 ms whatever it
asks: 4,096 queries a second from one peer."""

READ_BYTES_MIN: Final = 64 * 1024
"""As how many bytes it counts, besides the answer, that JetStream is asked for something, be it
whether there is a market of some name: at most 256 times a second for one peer."""

PEERS_ANSWERED_COUNT_MAX: Final = 4_096
"""Peers of which a server remembers that they were answered lately, about 200 bytes each; those
beyond share what one peer may take."""

ADMINISTERED_COUNT_MAX: Final = 256
"""Operators' requests that a server has under way, for all markets, before others are answered
`busy`: each is a task that waits for a leader, some seconds at most."""

GROUP_COMMANDS_COUNT_MAX: Final = 2_000
"""Commands executed between two looks at the world: about 15 ms of one core."""

SNAPSHOT_BYTES_MAX: Final = 2 * 1024 * 1024 * 1024
"""Bytes of an unpacked snapshot: the full retry windows of 1,000 peers, and beside them more than a
million open orders. What unpacks to more is not used, however few bytes it was packed in."""

SNAPSHOT_COMMITS_COUNT: Final = 10_000
"""Commits between two snapshots: at 1 ms each a restart replays at most some seconds of log."""

SNAPSHOT_EVENTS_COUNT: Final = 200_000
"""Events between two snapshots: at about 5 µs each, a second of replay."""

# --- The peers' own -----------------------------------------------------------------------------

HEARD_COMMITS_COUNT_MAX: Final = 4_096
"""Commits that wait in a client for whoever follows a market: some seconds of a busy one. What
comes beyond is dropped, and read from the log later."""

HEARD_BYTES_MAX: Final = 16 * 1024 * 1024
"""Their bytes: 32 commits of the greatest size."""
