"""Who may do what on the NATS nodes of an exchange: accounts, keys and permissions, as data.

Theory of operation. NATS checks the subject of what somebody publishes, but not the reply subject
that comes with it: a service answers there with its own rights. Only accounts are walls: an answer
that crosses one arrives in the account that asked, whatever subject it names. So the exchange has
an account of its own, and **each peer has one too**: there, its reply subjects reach nobody but
itself, and what it may ask of the exchange is what its account imports, under its own name.

An operator's key opens an account like that, with other imports. Who brings no key is an observer,
if observers are wanted. The guard's key opens the system account, to look at connections and to cut
them. Knows nothing of files, of private keys, nor of how nodes are started.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

EXCHANGE: Final = "DEX"
"""The account of servers, streams and buckets; nothing in it is forbidden to them."""

OPERATORS: Final = "OPERATORS"
OBSERVERS: Final = "OBSERVERS"
SYSTEM: Final = "SYS"

PEER_PREFIX: Final = "PEER-"
"""What the accounts of peers begin with, and no other."""

INBOXES: Final = "_INBOX.>"
"""Where answers arrive: every NATS client's own default. Nobody else is in a peer's account."""

EVENTS: Final = "dex.events.*"
ALARMS: Final = "dex.alarm.*"

RESPONSE_THRESHOLD: Final = "10s"
"""How long the way back of an unanswered request is kept (NATS: 2 minutes): requests wait 1 s, and
a node should not remember those of a server that was killed for much longer."""

PEER_CONNECTIONS_COUNT_MAX: Final = 16
"""Connections of one peer, over all nodes: a process has one, and somebody looks on."""

SUBSCRIPTIONS_COUNT_MAX: Final = 1_000
"""Subscriptions of each connection: two for each market it follows, and its inboxes."""

OPERATORS_COUNT_MAX: Final = 256
"""Connections of all operators, over all nodes."""

OBSERVERS_COUNT_MAX: Final = 256
"""Connections of all who bring no key, over all nodes: they must not use up what nodes have for
those who bring one (NATS: 65,536, if the system has as many files)."""

OBSERVER_SUBSCRIPTIONS_COUNT_MAX: Final = 64
"""Subscriptions of each of them: each gets a copy of each commit; one hears all markets."""

_ORDERS: Final = "dex.orders.*"
_QUERIES: Final = "dex.query.*.*"

_OPERATOR_ASKS_ONE: Final = (
    "dex.admin.*.*",
    f"{_QUERIES}.operator",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
)
"""What operators ask of somebody who answers once: administration, queries, reading streams."""

_OPERATOR_ASKS_MANY: Final = (
    "$JS.API.DIRECT.GET.>",
    "$SRV.PING",
    "$SRV.PING.>",
    "$SRV.INFO",
    "$SRV.INFO.>",
    "$SRV.STATS",
    "$SRV.STATS.>",
)
"""What may have many answers, of one or of all servers."""

_GUARD_ASKS: Final = (
    "$SYS.REQ.SERVER.PING.IDZ",
    "$SYS.REQ.SERVER.*.CONNZ",
    "$SYS.REQ.SERVER.*.KICK",
    "$SYS.REQ.USER.INFO",
)
"""Which nodes there are, who is connected to them, who is to go, and who the guard itself is."""


class Holders(Struct, frozen=True, kw_only=True):
    """Whose public keys open what."""

    server: str
    operator: str
    guard: str
    observer: str | None
    """Who brings no key is taken for the holder of this one; None: nobody comes in without."""
    peers: Mapping[str, str]
    """By name."""


def peer_account(peer: str) -> str:
    """Name a peer's account."""
    return f"{PEER_PREFIX}{peer}"


def config_text(holders: Holders) -> str:
    """Write the accounts in NATS' configuration format, of which JSON is a part."""
    accounts = {
        SYSTEM: {"users": [_user(holders.guard, publish=_GUARD_ASKS, subscribe=(INBOXES,))]},
        EXCHANGE: {
            "jetstream": "enabled",
            "users": [{"nkey": holders.server}],
            "exports": _exports(),
        },
        OPERATORS: _operators(holders.operator),
        **{peer_account(name): _peer(name, key) for name, key in holders.peers.items()},
    }
    config: dict[str, Any] = {"accounts": accounts, "system_account": SYSTEM}
    if holders.observer is not None:
        accounts[OBSERVERS] = _observers(holders.observer)
        config["no_auth_user"] = holders.observer
    lines = [f"{name}: {_json(value)}" for name, value in config.items()]
    return "\n".join(["# Written by dex-local; changes are lost.", *lines]) + "\n"


def _exports() -> list[dict[str, Any]]:
    operators = {"accounts": [OPERATORS]}
    one_answer = {"response_threshold": RESPONSE_THRESHOLD}
    many_answers = one_answer | {"response_type": "stream"}
    return [
        {"service": f"{_ORDERS}.*", **one_answer},
        {"service": f"{_QUERIES}.*", **one_answer},
        {"stream": EVENTS},
        *(
            {"service": subject, **operators, **one_answer}
            for subject in _OPERATOR_ASKS_ONE
            # Exported to all already, under any name.
            if not subject.startswith(_QUERIES)
        ),
        *({"service": subject, **operators, **many_answers} for subject in _OPERATOR_ASKS_MANY),
        {"stream": ALARMS, **operators},
    ]


def _peer(name: str, key: str) -> dict[str, Any]:
    asks = (f"{_ORDERS}.{name}", f"{_QUERIES}.{name}")
    return {
        "users": [_user(key, publish=asks, subscribe=(INBOXES, "dex.events.>"))],
        "imports": _imports(services=asks, streams=(EVENTS,)),
        "limits": _limits(PEER_CONNECTIONS_COUNT_MAX, SUBSCRIPTIONS_COUNT_MAX),
    }


def _operators(key: str) -> dict[str, Any]:
    asks = _OPERATOR_ASKS_ONE + _OPERATOR_ASKS_MANY
    hears = (INBOXES, "dex.events.>", "dex.alarm.>")
    return {
        "users": [_user(key, publish=asks, subscribe=hears)],
        "imports": _imports(services=asks, streams=(EVENTS, ALARMS)),
        "limits": _limits(OPERATORS_COUNT_MAX, SUBSCRIPTIONS_COUNT_MAX),
    }


def _observers(key: str) -> dict[str, Any]:
    return {
        "users": [_user(key, publish=(), subscribe=("dex.events.>",))],
        "imports": _imports(services=(), streams=(EVENTS,)),
        "limits": _limits(OBSERVERS_COUNT_MAX, OBSERVER_SUBSCRIPTIONS_COUNT_MAX),
    }


def _user(key: str, *, publish: Iterable[str], subscribe: Iterable[str]) -> dict[str, Any]:
    # NB: an empty list of what is allowed would allow everything.
    allowed = list(publish)
    return {
        "nkey": key,
        "permissions": {
            "publish": {"allow": allowed} if allowed else {"deny": [">"]},
            "subscribe": {"allow": list(subscribe)},
        },
    }


def _limits(connections_count: int, subscriptions_count: int) -> dict[str, int]:
    return {"max_connections": connections_count, "max_subscriptions": subscriptions_count}


def _imports(*, services: Iterable[str], streams: Iterable[str]) -> list[dict[str, Any]]:
    return [
        *({"service": {"account": EXCHANGE, "subject": subject}} for subject in services),
        *({"stream": {"account": EXCHANGE, "subject": subject}} for subject in streams),
    ]


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()
