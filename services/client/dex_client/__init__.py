"""A peer's side of the exchange: the Python client.

    import asyncio

    from dex_client import connect

    async def main() -> None:
        async with connect("nats://127.0.0.1:4222", peer="alice") as exchange:
            receipt = await exchange.submit("BTC-USD", side="buy", quantity="0.5", price="100.25")
            print(receipt.status, receipt.order_id, receipt.reason)

    asyncio.run(main())

Refusals are receipts, not exceptions; what can go wrong beside them is in `dex_client.errors`. The
guide is docs/CLIENT.md, examples to run are in docs/examples.

The load generator is in `dex_client.load`, the command line in `dex_client.cli`.
"""

from dex_client.chain import StoredCommit
from dex_client.client import Exchange, connect
from dex_client.decimals import Number
from dex_client.errors import (
    BookUnavailable,
    ExchangeError,
    LogTrimmed,
    NotPermitted,
    OutcomeUnknown,
    ProtocolMismatch,
    Unavailable,
    UnknownMarket,
    Unreachable,
)
from dex_client.events import Events
from dex_client.replica import Divergence, MarketView, Replica
from dex_client.retry import Policy
from dex_protocol.commands import Amend, Cancel, CancelAll, Command, Side, Submit
from dex_protocol.queries import (
    BookLevel,
    BookOrdersReply,
    BookReply,
    OrderReply,
    OrdersReply,
    StatusReply,
    TradesReply,
)
from dex_protocol.receipts import Fill, Receipt
from dex_runtime.connection import Credentials

__all__ = [
    "Amend",
    "BookLevel",
    "BookOrdersReply",
    "BookReply",
    "BookUnavailable",
    "Cancel",
    "CancelAll",
    "Command",
    "Credentials",
    "Divergence",
    "Events",
    "Exchange",
    "ExchangeError",
    "Fill",
    "LogTrimmed",
    "MarketView",
    "NotPermitted",
    "Number",
    "OrderReply",
    "OrdersReply",
    "OutcomeUnknown",
    "Policy",
    "ProtocolMismatch",
    "Receipt",
    "Replica",
    "Side",
    "StatusReply",
    "StoredCommit",
    "Submit",
    "TradesReply",
    "Unavailable",
    "UnknownMarket",
    "Unreachable",
    "connect",
]
