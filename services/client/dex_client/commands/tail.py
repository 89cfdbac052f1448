"""Live events: one readable line each, or the commits as they are stored."""

from collections.abc import Iterator
from typing import Final

import click
from msgspec import UNSET, structs
from rich.text import Text

from dex_client.commands.frame import Caller, PeerCommand, say
from dex_client.commands.options import DEFAULT_NATS
from dex_client.commands.output import SIDE_STYLES, time_text
from dex_protocol import subjects
from dex_protocol.events import (
    Accepted,
    Amended,
    AnyEvent,
    Canceled,
    CanceledAll,
    Commit,
    Expired,
    LeaderChanged,
    MarketChanged,
    MarketOpened,
    Reduced,
    Rejected,
    Trade,
)
from dex_protocol.numbers import ZERO
from dex_protocol.specification import Specification
from dex_runtime import keys

_NAME_WIDTH: Final = len("market_changed")
_EVENT_STYLES: Final = {"trade": "yellow", "rejected": "magenta", "leader_changed": "cyan"}


class TailCommand(PeerCommand):
    """Goes on until it is interrupted, which is how it ends well."""

    ends_by_interrupt = True


@click.command(cls=TailCommand)
@click.option(
    "--from",
    "from_sequence",
    type=click.IntRange(1),
    metavar="COMMIT",
    help="Begin with this commit; the first is 1.  [default: the next one that is stored]",
)
@click.option("--count", type=click.IntRange(1), metavar="COMMITS", help="End after so many.")
async def tail(caller: Caller, *, from_sequence: int | None, count: int | None) -> None:
    """Follow what happens in a market, an event in each line.

    It goes on until Ctrl-C.

    With --json each line is a commit, byte for byte as it is stored. No commit is skipped or
    given twice, whatever happens to connections and servers.

    \b
    Example: everything since the beginning, and on
      dex-client tail --market ETH-USD --from 1
    """
    say(f"The same with the nats tool: {nats_command(caller)}")
    async with (
        caller.exchange() as exchange,
        exchange.events(caller.market, from_sequence=from_sequence) as events,
    ):
        say(f"Following {caller.market}; Ctrl-C ends it.")
        async for commit in events:
            if caller.output.as_json:
                caller.output.write(commit.payload)
            else:
                caller.output.say(*commit_lines(commit))
            if count is not None:
                count -= 1
                if count == 0:
                    return


def nats_command(caller: Caller) -> str:
    """Write the command of the nats tool that shows the same."""
    server = "" if caller.servers == (DEFAULT_NATS,) else f" --server {','.join(caller.servers)}"
    authority = keys.of_peer(caller.peer, caller.credentials).tls_ca
    trusting = "" if authority is None else f" --tlsca {authority}"
    return f"nats sub '{subjects.events(caller.market)}'{server}{trusting}"


def commit_lines(commit: Commit) -> list[Text]:
    """Write a commit's events, a line each; an empty commit has a line too."""
    head = f"{commit.sequence:>7}  {time_text(commit.time)}  "
    if not commit.events:
        return [Text(f"{head}(empty: it proves that what was answered is stored)")]
    return [Text.assemble(head, *event_text(event)) for event in commit.events]


def event_text(event: AnyEvent) -> Iterator[Text]:
    """Write one event: its name, then what it says."""
    name = str(event.__struct_config__.tag)
    yield Text(f"{name:<{_NAME_WIDTH}}  ", _EVENT_STYLES.get(name, ""))
    match event:
        case Accepted():
            yield from _accepted(event)
        case Trade():
            yield from _trade(event)
        case Amended():
            yield Text(
                f"{event.order_id}  now {event.quantity} at {event.price}"
                f"{_resting(event.resting_quantity)}, priority {event.priority}, "
                f"version {event.version}"
            )
        case Reduced():
            yield Text(f"{event.order_id}  {event.quantity} taken off")
        case Canceled():
            yield Text(f"{event.order_id}  {event.quantity} taken off: {event.reason}")
        case CanceledAll():
            of = "" if event.command_id is UNSET else f"{event.command_id}  "
            yield Text(f"{of}orders: {event.count}")
        case Expired():
            yield Text(f"{event.order_id}  {event.quantity} taken off")
        case Rejected():
            ids = [id_ for id_ in (event.command_id, event.order_id) if id_ is not UNSET]
            yield Text(f"{', '.join(ids)}  {event.reason}")
        case MarketOpened():
            yield Text(_specification_text(event.specification))
        case MarketChanged():
            yield Text(_change_text(event))
        case LeaderChanged():
            yield Text(f"{event.server} leads in term {event.term}")


def _accepted(event: Accepted) -> Iterator[Text]:
    yield Text(f"{event.order_id}  ")
    yield Text(event.side, SIDE_STYLES[event.side])
    price = "any price" if event.price is UNSET else event.price
    yield Text(f" {event.quantity} at {price}, {event.time_in_force}")
    if event.expires_at is not UNSET:
        yield Text(f" until {time_text(event.expires_at)}")
    if event.post_only:
        yield Text(", post only")
    yield Text(_resting(event.resting_quantity))


def _trade(event: Trade) -> Iterator[Text]:
    yield Text(f"{event.trade_id}  {event.quantity} at {event.price}, {event.taker_order_id} ")
    yield Text("bought" if event.taker_side == "buy" else "sold", SIDE_STYLES[event.taker_side])
    yield Text(f", maker {event.maker_order_id}")


def _resting(quantity: str) -> str:
    return f", {quantity} in the book" if quantity != ZERO else ""


def _change_text(event: MarketChanged) -> str:
    parts: list[str] = [] if event.state is UNSET else [event.state]
    if event.specification is not UNSET:
        parts.append(_specification_text(event.specification))
    return ", ".join(parts)


def _specification_text(specification: Specification) -> str:
    texts = _field_texts(structs.asdict(specification) | {"peers": UNSET})
    peers = {} if specification.peers is UNSET else specification.peers
    for peer, own in peers.items():
        texts += [f"{peer}'s {text}" for text in _field_texts(structs.asdict(own))]
    return ", ".join(texts)


def _field_texts(fields: dict[str, object]) -> list[str]:
    return [f"{name} {value}" for name, value in fields.items() if value is not UNSET]
