"""A market's specification: what may be traded in which steps, and between which bounds.

Beside the bounds of orders it has the limits of those who send them: the same for all peers, but
for those it names. Knows nothing of a market's state. Tick size and lot size never change, since
every integer inside a market counts them.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, Struct, UnsetType, structs

from dex_protocol import limits
from dex_protocol.ids import is_market, is_peer
from dex_protocol.numbers import COUNT_MAX, normal, units

DECIMAL_FIELDS: Final = (
    "tick_size",
    "lot_size",
    "min_quantity",
    "max_quantity",
    "max_price",
    "min_notional",
    "price_band",
)
POSITIVE_FIELDS: Final = ("tick_size", "lot_size", "max_quantity", "max_price")
PEER_FIELDS: Final[Mapping[str, int]] = {
    "max_open_orders": COUNT_MAX,
    "orders_per_second": COUNT_MAX,
    "orders_burst": COUNT_MAX,
    "max_batch_count": limits.BATCH_COUNT_MAX,
    "max_request_bytes": limits.PAYLOAD_BYTES_MAX,
}
"""The limits of a peer, each with the most it may be set to; the least is 1."""

COUNT_FIELDS: Final[Mapping[str, int]] = {"max_peers": COUNT_MAX, **PEER_FIELDS}
COUNT_DEFAULTS: Final[Mapping[str, int]] = {
    "max_open_orders": limits.OPEN_ORDERS_COUNT_MAX,
    "max_peers": limits.PEERS_COUNT_MAX,
    "orders_per_second": limits.ORDERS_PER_SECOND,
    "max_batch_count": limits.BATCH_COUNT_MAX,
    "max_request_bytes": limits.PAYLOAD_BYTES_MAX,
}
"""What holds where nothing is said; the burst follows from the orders in a second."""

UNCHANGEABLE_FIELDS: Final = ("market", "tick_size", "lot_size")


class PeerFields(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """The limits of one peer that a specification names; UNSET is as for all."""

    max_open_orders: int | UnsetType = UNSET
    orders_per_second: int | UnsetType = UNSET
    orders_burst: int | UnsetType = UNSET
    max_batch_count: int | UnsetType = UNSET
    max_request_bytes: int | UnsetType = UNSET


class AskedPeerFields(PeerFields, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The same as an operator asks for them."""


class Specification(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """A market's rules in numbers: decimal strings, then integers.

    `peers` names those with limits of their own. What is left out has no bound, but for the
    integers, whose bounds are then those of limits.py.
    """

    market: str
    tick_size: str
    lot_size: str
    min_quantity: str | UnsetType = UNSET
    max_quantity: str | UnsetType = UNSET
    max_price: str | UnsetType = UNSET
    min_notional: str | UnsetType = UNSET
    price_band: str | UnsetType = UNSET
    max_open_orders: int | UnsetType = UNSET
    max_peers: int | UnsetType = UNSET
    orders_per_second: int | UnsetType = UNSET
    orders_burst: int | UnsetType = UNSET
    max_batch_count: int | UnsetType = UNSET
    max_request_bytes: int | UnsetType = UNSET
    peers: Mapping[str, PeerFields] | UnsetType = UNSET


class AskedSpecification(Specification, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A specification as an operator asks for it: no field is misspelt silently."""

    peers: Mapping[str, AskedPeerFields] | UnsetType = UNSET


class SpecificationChange(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The fields of a specification that may change while a market lives; UNSET stays as it is.

    `peers` stands for the whole: who is not in it has no limits of its own any more.
    """

    min_quantity: str | UnsetType = UNSET
    max_quantity: str | UnsetType = UNSET
    max_price: str | UnsetType = UNSET
    min_notional: str | UnsetType = UNSET
    price_band: str | UnsetType = UNSET
    max_open_orders: int | UnsetType = UNSET
    max_peers: int | UnsetType = UNSET
    orders_per_second: int | UnsetType = UNSET
    orders_burst: int | UnsetType = UNSET
    max_batch_count: int | UnsetType = UNSET
    max_request_bytes: int | UnsetType = UNSET
    peers: Mapping[str, AskedPeerFields] | UnsetType = UNSET


def changed(specification: Specification, change: SpecificationChange) -> Specification:
    """Give the specification with the change's fields in place."""
    fields = {name: value for name, value in structs.asdict(change).items() if value is not UNSET}
    return structs.replace(specification, **fields)


def normalized(specification: Specification) -> Specification:
    """Write every decimal of a valid specification without trailing zeros, and no default.

    Peers are in the order of their names, without those of whom nothing is said. A burst stays as
    it is written, since what it is by default changes with the orders in a second.
    """
    fields = structs.asdict(specification)
    for name in DECIMAL_FIELDS:
        if fields[name] is not UNSET:
            fields[name] = normal(fields[name])
    for name, default in COUNT_DEFAULTS.items():
        if fields[name] == default:
            fields[name] = UNSET
    if fields["peers"] is not UNSET:
        named = {
            peer: PeerFields(**structs.asdict(own)) for peer, own in sorted(fields["peers"].items())
        }
        said = {peer: own for peer, own in named.items() if own != PeerFields()}
        fields["peers"] = said or UNSET
    return Specification(**fields)


def what_is_wrong(specification: Specification) -> str | None:
    """Tell what makes a specification impossible, in a sentence; None when nothing does."""
    if not is_market(specification.market):
        return (
            "expected market as 1 to 24 letters, digits and dashes, "
            f"found {specification.market[:80]!r}"
        )
    return (
        _wrong_decimals(specification)
        or _wrong_counts(specification, COUNT_FIELDS)
        or _wrong_peers(specification)
        or _wrong_quantities(specification)
    )


def _wrong_decimals(specification: Specification) -> str | None:
    for name in DECIMAL_FIELDS:
        text = getattr(specification, name)
        if text is UNSET:
            continue
        value = units(text)
        if value is None:
            return f'expected {name} as a decimal in a string ("0.01"), found {text[:80]!r}'
        if value == 0 and name in POSITIVE_FIELDS:
            return f"expected {name} above 0, found {text!r}"
    return None


def _wrong_counts(
    fields: Specification | PeerFields, most: Mapping[str, int], *, of: str = ""
) -> str | None:
    for name, count_max in most.items():
        count = getattr(fields, name)
        if count is not UNSET and not 1 <= count <= count_max:
            return f"expected {of}{name} from 1 to {count_max}, found {count}"
    return None


def _wrong_peers(specification: Specification) -> str | None:
    peers = {} if specification.peers is UNSET else specification.peers
    if len(peers) > limits.NAMED_PEERS_COUNT_MAX:
        return f"expected peers with at most {limits.NAMED_PEERS_COUNT_MAX}, found {len(peers)}"
    for peer, own in peers.items():
        if not is_peer(peer):
            return (
                "expected peers by names of 1 to 32 letters, digits, dashes and underscores, "
                f"found {peer[:80]!r}"
            )
        wrong = _wrong_counts(own, PEER_FIELDS, of=f"peers.{peer}.")
        if wrong is not None:
            return wrong
    return None


def _wrong_quantities(specification: Specification) -> str | None:
    least, most = specification.min_quantity, specification.max_quantity
    if most is UNSET:
        return None
    if least is not UNSET and _units(least) > _units(most):
        return f"expected min_quantity of at most max_quantity {most}, found {least}"
    if _units(most) < _units(specification.lot_size):
        return f"expected max_quantity of at least one lot, found {most}"
    return None


def _units(text: str) -> int:
    value = units(text)
    assert value is not None, f"expected a decimal, found {text!r}"
    return value


# --- What holds for a peer ----------------------------------------------------------------------


class PeerLimits(Struct, frozen=True, gc=False):
    """How much one peer may have and send in a market.

    `orders_per_second` and `orders_burst` count submits and amends; as many cancels pass beside
    them.
    """

    open_orders_count_max: int
    orders_per_second: int
    orders_burst: int
    batch_count_max: int
    request_bytes_max: int


def limits_of(specification: Specification, peer: str) -> PeerLimits:
    """Tell what holds for a peer: what is said of it, else what is said of all, else the default.

    A rate that comes without a burst brings its own, so many seconds' worth.
    """
    own = PeerFields() if specification.peers is UNSET else specification.peers.get(peer)
    said = (PeerFields() if own is None else own, specification)
    rate, burst = COUNT_DEFAULTS["orders_per_second"], None
    for fields in said:
        if burst is None and fields.orders_burst is not UNSET:
            burst = fields.orders_burst
        if fields.orders_per_second is not UNSET:
            rate = fields.orders_per_second
            break
    return PeerLimits(
        open_orders_count_max=_said(said, "max_open_orders"),
        orders_per_second=rate,
        orders_burst=rate * limits.BURST_SECONDS if burst is None else burst,
        batch_count_max=_said(said, "max_batch_count"),
        request_bytes_max=_said(said, "max_request_bytes"),
    )


def _said(said: tuple[PeerFields, Specification], name: str) -> int:
    for fields in said:
        value: int | UnsetType = getattr(fields, name)
        if value is not UNSET:
            return value
    return COUNT_DEFAULTS[name]
