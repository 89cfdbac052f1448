"""Options that several commands have, the load generator too: what they take, and what they say."""

import math
import re
from typing import Final

import click

from dex_protocol.ids import Kind, is_market, is_peer, parse_id
from dex_protocol.numbers import units
from dex_protocol.specification import PEER_FIELDS, AskedPeerFields

DEFAULT_NATS: Final = "nats://127.0.0.1:4222"

_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_PEER_LIMIT: Final = re.compile(r"([^:]+):([a-z_]+)=([0-9]{1,19})", re.ASCII)
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhd]?)", re.ASCII)


class CannotRun(click.ClickException):
    """It could not begin: one sentence that says what to do."""

    exit_code = 2


def nats_servers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Take addresses, by commas or one by one; none only where the option was not given."""
    servers = tuple(url.strip() for value in values for url in value.split(",") if url.strip())
    if values and not servers:
        raise click.BadParameter(f"expected an address such as {DEFAULT_NATS}, found none")
    return servers


def market_name(_: click.Context, __: click.Parameter, name: str) -> str:
    """Take the name of a market."""
    if not is_market(name):
        raise click.BadParameter(
            f"expected 1 to 24 letters, digits and dashes, such as BTC-USD, found {name!r}"
        )
    return name


def peer_name(_: click.Context, __: click.Parameter, name: str) -> str:
    """Take the name of a peer."""
    if not is_peer(name):
        raise click.BadParameter(
            f"expected 1 to 32 letters, digits, - and _, such as alice, found {name!r}"
        )
    return name


def decimal(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Take a price or a quantity, which goes to the market as it was typed."""
    if text is not None and units(text) is None:
        raise click.BadParameter(f"expected a decimal number such as 100.5, found {text!r}")
    return text


def order_id(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Take the id of an order."""
    return _id(text, "order")


def command_id(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Take the id of a command."""
    return _id(text, "command")


def duration_s(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Take a duration, and give its seconds."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise click.BadParameter(
            f"expected a whole number of seconds, or with s, m, h or d, such as 90s, found {text!r}"
        )
    return int(match[1]) * _SECONDS[match[2]]


def above_0(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Take a number above 0, or none."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"expected a number above 0, found {value:g}")
    return value


def peer_limits(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, AskedPeerFields] | None:
    """Take limits of peers, one by one, such as alice:orders_per_second=100; None if none."""
    peers: dict[str, dict[str, int]] = {}
    for text in values:
        match = _PEER_LIMIT.fullmatch(text)
        if match is None or not is_peer(match[1]) or match[2] not in PEER_FIELDS:
            raise click.BadParameter(
                "expected a peer, a limit and its number, such as alice:orders_per_second=100, "
                f"with a limit of {', '.join(PEER_FIELDS)}, found {text!r}"
            )
        peers.setdefault(match[1], {})[match[2]] = int(match[3])
    return {peer: AskedPeerFields(**own) for peer, own in peers.items()} or None


POSITIVE: Final = click.IntRange(1)


def _id(text: str | None, kind: Kind) -> str | None:
    if text is not None and parse_id(text, kind) is None:
        raise click.BadParameter(
            f"expected an id such as {kind}_alice_1763800000000_17, found {text!r}"
        )
    return text
