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

LATE_US: Final = 1_000_000
"""A command that waited so long in a server is answered `retry`, not executed: its peer has asked
again by then, perhaps somebody else."""

MIN_SEQUENCE_WAIT_US: Final = 1_000_000
"""How long a query waits for its `min_sequence` before it is answered `retry`."""

# --- The servers' own ---------------------------------------------------------------------------

CONVERSIONS_COUNT_MAX: Final = 65_536
"""Decimal strings remembered for each conversion: about 10 MB when full."""

WAITING_COMMANDS_COUNT_MAX: Final = 16_384
"""Commands that wait in a market's leader before others are answered `busy`: what it commits in
well under the second after which they would be late."""

WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of requests that wait in a market's leader, for the same reason."""

WAITING_QUERIES_COUNT_MAX: Final = 1_024
"""Queries that wait in a server for a market before others are answered `busy`."""

WAITING_WISHES_COUNT_MAX: Final = 64
"""Operators' requests that wait in a market's leader before others are answered `busy`: executed
together, with 1 KB of specification each, they leave a commit most of its room."""

TOLD_QUERIES_COUNT_MAX: Final = 64
"""Queries answered between two looks at the world: at most 5 ms each, mostly a tenth of that."""

TOLD_BYTES_MAX: Final = 1024 * 1024
"""Bytes of answers to queries between two looks at the world: two or three of the longest."""

TOLD_WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of answers to queries that wait for an append before no more queries are answered."""

READS_COUNT_MAX: Final = 4
"""Queries answered from the log or from snapshots at a time, in a server: they bring up to 1 MiB
each over the connection that appends use."""

GROUP_COMMANDS_COUNT_MAX: Final = 2_000
"""Commands executed between two looks at the world: about 15 ms of one core."""

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
