"""What each holder of a key may do on a node, found out by trying, against what was meant.

`RIGHTS` says it once more, by hand, so that a slip in what is generated is no slip here. What is
tried is made from both: each subject that is allowed, and its neighbours, which are one step away
from it: a token more, a token less, another one, somebody else's name, a wildcard.

Whatever a node lets through that was not meant is a `Hole`; whatever it refuses that was meant is
one too.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Final

from msgspec import Struct

from deploy.accounts import EXCHANGE, OBSERVERS, OPERATORS, SYSTEM, peer_account
from dex_runtime.keys import Role
from tests.nats_nodes import Nodes, doors
from tests.security.attacker import Attacker, attacking, deaf, forbidden, seed_of

Config = dict[str, Any]


class Rights(Struct, frozen=True, kw_only=True):
    """What the holder of a key may do."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    reaches: tuple[str, ...] = ()
    """What of the exchange's account is reached by publishing, would every user be free to."""
    hears: tuple[str, ...] = ()
    """What of it is heard, would every user be free to subscribe."""


def _of_peer(name: str) -> Rights:
    asks = (f"dex.orders.*.{name}", f"dex.query.*.*.{name}")
    return Rights(
        publish=asks,
        subscribe=("_INBOX.>", "dex.events.>"),
        reaches=asks,
        hears=("dex.events.*",),
    )


_OPERATOR_ASKS: Final = (
    "dex.admin.*.*",
    "dex.query.*.*.operator",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
    "$JS.API.DIRECT.GET.>",
    "$SRV.PING",
    "$SRV.PING.>",
    "$SRV.INFO",
    "$SRV.INFO.>",
    "$SRV.STATS",
    "$SRV.STATS.>",
)

RIGHTS: Final[Mapping[str, Rights]] = {
    SYSTEM: Rights(
        publish=(
            "$SYS.REQ.SERVER.PING.IDZ",
            "$SYS.REQ.SERVER.*.CONNZ",
            "$SYS.REQ.SERVER.*.KICK",
            "$SYS.REQ.USER.INFO",
        ),
        subscribe=("_INBOX.>",),
    ),
    OPERATORS: Rights(
        publish=_OPERATOR_ASKS,
        subscribe=("_INBOX.>", "dex.events.>", "dex.alarm.>"),
        reaches=_OPERATOR_ASKS,
        hears=("dex.events.*", "dex.alarm.*"),
    ),
    OBSERVERS: Rights(subscribe=("dex.events.>",), hears=("dex.events.*",)),
    **{peer_account(name): _of_peer(name) for name in ("alice", "bob")},
}
"""By account, each of which has one user. All of the exchange's own account is the servers'."""

FOR_EVERYBODY: Final = {"dex.orders.*.*", "dex.query.*.*.*", "dex.events.*"}
"""What the exchange's account offers to whoever imports it."""

_ELSEWHERE: Final = (
    "dex.log.X",
    "dex.lead.server-1.X.halt",
    "dex.leases.DEX-LEADERS.X",
    "dex.alive.server-1",
    "$JS.API.STREAM.PURGE.DEX-LOG-X",
    "$JS.API.STREAM.DELETE.DEX-LOG-X",
    "$JS.API.CONSUMER.CREATE.DEX-LOG-X",
    "$JS.ACK.X",
    "$KV.DEX-LEADERS.X",
    "$O.DEX-SNAPSHOTS.C.X",
    "$SYS.REQ.SERVER.PING",
    "$SYS.ACCOUNT.DEX.CONNECT",
    "_R_.X.X",
    "_INBOX.X",
    "X",
)
"""Subjects that nobody but servers and nodes has to do with, and one that nobody has."""


class Hole(Struct, frozen=True):
    """Something that is not as it was meant."""

    account: str
    what: str
    subject: str
    was_meant: bool


def parsed(text: str) -> Config:
    """Read a configuration that `deploy.accounts` wrote."""
    config: Config = {}
    rest = text.partition("\n")[2]
    while rest.strip():
        name, _, rest = rest.lstrip().partition(": ")
        config[name], end = json.JSONDecoder().raw_decode(rest)
        rest = rest[end:]
    return config


def written(config: Config) -> str:
    """Write it again."""
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in config.items())


def covers(allowed: Iterable[str], subject: str) -> bool:
    """Tell whether all that a subject stands for is among what is allowed."""
    return any(_covers(one.split("."), subject.split(".")) for one in allowed)


def _covers(allowed: list[str], wanted: list[str]) -> bool:
    for index, token in enumerate(allowed):
        if token == ">":
            return len(wanted) > index
        if index == len(wanted) or wanted[index] == ">":
            return False
        if token not in ("*", wanted[index]):
            return False
    return len(wanted) == len(allowed)


def tried(config: Config) -> list[str]:
    """Give all subjects that are worth trying, those with wildcards among them."""
    allowed = {subject for rights in RIGHTS.values() for subject in _named(rights)}
    for account in config["accounts"].values():
        for user in account["users"]:
            for direction in user.get("permissions", {}).values():
                allowed |= {subject for subjects in direction.values() for subject in subjects}
        for way in (*account.get("imports", ()), *account.get("exports", ())):
            for named in (way.get("service"), way.get("stream")):
                if named is not None:
                    allowed.add(named if isinstance(named, str) else named["subject"])
    found = {near for subject in allowed for near in neighbours(subject)}
    return sorted(found | set(_ELSEWHERE) | {">", "*", "*.>", "*.*", "*.*.*.*"})


def _named(rights: Rights) -> Iterator[str]:
    yield from rights.publish + rights.subscribe + rights.reaches + rights.hears


def neighbours(subject: str) -> Iterator[str]:
    """Give what a subject stands for, and what is one step away from that."""
    tokens = subject.split(".")
    yield subject
    if tokens[-1] == ">":
        tokens = [*tokens[:-1], "X"]
        yield from (".".join([*tokens[:-1], *more]) for more in (["*"], ["X", "Y"], ["X", ">"]))
    choices = [("X",) if token == "*" else (token,) for token in tokens]
    for index, token in enumerate(tokens):
        others = ("bob", "alice", "operator", "X", "x", "*", token)
        for chosen in product(*choices[:index], others, *choices[index + 1 :]):
            yield ".".join(chosen)
        yield ".".join([*tokens[:index], ">"])
    concrete = [choice[0] for choice in choices]
    for other in ([*concrete, "X"], [*concrete, ">"], concrete[:-1], [*concrete[:-1], "X", "X"]):
        if other:
            yield ".".join(other)


def is_literal(subject: str) -> bool:
    """Tell whether it has no wildcard, so that one may publish to it."""
    return not {"*", ">"} & set(subject.split("."))


def key_of(account: str) -> bytes | None:
    """Give the private key of the user of an account; None where it is to bring none."""
    roles: dict[str, Role] = {SYSTEM: "guard", EXCHANGE: "server", OPERATORS: "operator"}
    if account == OBSERVERS:
        return None
    if account in roles:
        return seed_of(doors().role(roles[account]))
    return seed_of(doors().peer(account.removeprefix("PEER-")))


async def holes_of_users(nodes: Nodes, config: Config, *accounts: str) -> list[Hole]:
    """Try to publish and to subscribe to everything as the users of some accounts; of all that are
    known when none is named."""
    subjects = tried(config)
    found = []
    for account in accounts or tuple(RIGHTS):
        rights = RIGHTS[account]
        async with attacking(nodes, seed=key_of(account)) as user:
            for subject in filter(is_literal, subjects):
                user.publish(subject)
            refused = set(await user.refused())
            found += [
                Hole(account, "publish", subject, covers(rights.publish, subject))
                for subject in filter(is_literal, subjects)
                if (forbidden(subject) not in refused) != covers(rights.publish, subject)
            ]
            for subject in subjects:
                user.subscribe(subject)
            refused = set(await user.refused())
            found += [
                Hole(account, "subscribe", subject, covers(rights.subscribe, subject))
                for subject in subjects
                if (deaf(subject) not in refused) != covers(rights.subscribe, subject)
            ]
    return found


def without_permissions(config: Config) -> Config:
    """Let every user do everything in its own account, so that accounts are the only walls."""
    accounts = {
        name: account
        | {"users": [{"nkey": user["nkey"]} for user in account["users"]]}
        | {"limits": {}}
        for name, account in copy.deepcopy(config["accounts"]).items()
    }
    return copy.deepcopy(config) | {"accounts": accounts}


async def holes_in_walls(nodes: Nodes, config: Config, *accounts: str) -> list[Hole]:
    """Try what crosses the walls between accounts, on nodes whose users may do everything in
    their own: what of each arrives in the exchange's account, and the other way round.

    The subjects of nodes themselves are left out: those may be heard by nobody but nodes.
    """
    found = []
    subjects = [each for each in tried(config) if is_literal(each) and not each.startswith("$SYS.")]
    for account in accounts or tuple(name for name in RIGHTS if name != SYSTEM):
        rights = RIGHTS[account]
        async with (
            attacking(nodes, seed=key_of(EXCHANGE)) as inside,
            attacking(nodes, seed=key_of(account)) as outside,
        ):
            for what, sender, hearer, meant in (
                ("reach", outside, inside, rights.reaches),
                ("hear", inside, outside, rights.hears),
            ):
                crossed = await _crossing(sender, hearer, subjects)
                found += [
                    Hole(account, what, subject, covers(meant, subject))
                    for subject in subjects
                    if (subject in crossed) != covers(meant, subject)
                ]
    return found


async def _crossing(sender: Attacker, hearer: Attacker, subjects: list[str]) -> set[str]:
    hearer.subscribe(">")
    assert await hearer.refused() == []
    for subject in subjects:
        sender.publish(subject, b"crossing " + subject.encode())
    assert await sender.refused() == []
    await hearer.settled()
    own = {
        heard.payload.decode().removeprefix("crossing ")
        for heard in hearer.heard
        if heard.payload.startswith(b"crossing ")
    }
    hearer.heard.clear()
    return own
