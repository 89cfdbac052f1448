"""Makes up hostile requests: Hypothesis draws their structure, and each is sent several times.

What Hypothesis draws is a *template*: which fields a command has, in which order, which of them is
missing, there twice, of the wrong type or nested without end, and what stands beside it in a batch.
Where a template says "an id that was used before" or "the right version", a `Stamp` puts in what
suits the moment, so that one template makes many requests, and enough of them reach the book.

Knows no rule: what must become of a request, oracle.py and the reference engine say.
"""

import json
import random
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

PEERS: Final = ("alice", "bob_2", "carol")
"""Whose orders meet each other; an underscore, since ids are read from the right."""
STRANGERS: Final = ("dave", "erin", "alice_1", "-", "p" * 32)
NO_PEERS: Final = ("a:b", "\u00e9", "p" * 33, "", "a b", "\U0001f600")

START_MS: Final = 1_763_800_000_000
"""The timestamp of the first id."""

BATCH_MAX: Final = 1_000
DEEP: Final = 50_000
"""Levels of nesting that nobody reads."""


class Hole(NamedTuple):
    """A place in a template that is filled in when the request is sent."""

    what: str


class Raw(NamedTuple):
    """A value as it is written, JSON or not."""

    text: bytes


class Template(NamedTuple):
    """One command, or what is there instead: names and values in order, or a value alone."""

    members: tuple[tuple[Any, Any], ...] | None
    alone: Any = None
    damage: tuple[tuple[int, int, bytes], ...] = ()


class Shape(NamedTuple):
    """One request: whose it is, and its elements; one that is not a batch has one."""

    peer: int
    elements: tuple[Template, ...]
    is_batch: bool
    times: int
    """How often the elements of a batch stand in it."""
    damage: tuple[tuple[int, int, bytes], ...]


class Moment(NamedTuple):
    """Requests that arrive together, and how much time passes before."""

    shapes: tuple[Shape, ...]
    wait_ms: int


# --- Values -------------------------------------------------------------------------------------

RAW: Final = [
    Raw(text)
    for text in (
        *(b"null", b"true", b"false", b"0", b"-0", b"1", b"-1", b"1.0", b"1e3", b"1E-2", b"-0.0"),
        *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775807"),
        *(b"-9223372036854775808", b"18446744073709551615", b"18446744073709551616"),
        *(b"9" * 400, b"-" + b"9" * 5_000, b"1e999", b"-1e-999", b"0." + b"1" * 400),
        *(b"NaN", b"Infinity", b"-Infinity", b"nul", b"01", b"+1", b"1.", b".5", b"0x10", b"-"),
        *(b'"\\ud800"', b'"\\udfff"', b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\u0000"'),
        *(b'"\xff"', b'"\xc3\x28"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xc0\xaf"'),
        *(b'"\x00"', b'"\n"', b'"\\q"', b'"\\u12"', b"'buy'", b'"buy', b'"\\"', b'"\x7f"'),
        *(b"[]", b"{}", b"[[]]", b'{"op":"submit"}', b'{"":{}}', b'["buy"]', b"[1,]", b'{"a":1,}'),
        *(b"[" * 30 + b"]" * 30, b'{"a":' * 30 + b"0" + b"}" * 30),
        *(b"/* */1", b"", b" ", b'"buy"\xef\xbb\xbf'),
    )
]
RARE: Final = [
    Raw(text)
    for text in (
        b"[" * DEEP + b"]" * DEEP,
        b'{"op":' * DEEP + b"0" + b"}" * DEEP,
        b"[" * DEEP,
        b'"' + b"x" * 60_000 + b'"',
        b"9" * 60_000,
        b'"' + b"\\u0001" * 10_000 + b'"',
    )
]
TEXTS: Final = [
    *("", "buy", "BUY", "Buy ", "submit", "limit", "market", "stop", "gtc", "gtd", "day", "ioc"),
    *("cancel_taker", "allow", "nobody", "null", "0", "\u0430lice", "\u0661", "\uff11", "\u200b"),
    *("\x00", "\x1f", "\u2028", "\U0001f600", "\ufeff", "\u0301", "'", '"', "\\", "x" * 200),
]
DECIMALS: Final = [
    *("0", "0.00", "0.01", "100.005", "0.05", "0.33", "1.000000000000000000", "1.0", "100.10"),
    *("9" * 18, "0." + "0" * 17 + "1", "9" * 18 + "." + "9" * 18, "92233720368547758.07"),
    *("92233720368547758.08", "9223372036854775.807", "461168601842738790.35"),
    *("-1", "+1", "1e3", "01", "1.", ".5", " 1", "1 ", "1,5", "1_0", "1" * 19, "0." + "1" * 19),
    *("0x1", "NaN", "Infinity", "1\n", "1\x00", "\u0661"),
]
IDS: Final = [
    *("7", "order_alice_1", "order_alice_01_1", "order_alice_1_0", "order_alice_-1_1"),
    *("order_alice_1_01", f"order_alice_{10**14}_1", f"order_alice_1_{10**12}", "order__1_1"),
    *("order_a.b_1_1", f"order_{'p' * 33}_1_1", "order_alice_1_1\n", "ORDER_alice_1_1"),
    *("command_alice_0_1", "command_alice_1_0", "command__1_1", f"command_alice_{10**14}_1"),
    *("order_alice_0_1", "order_alice_99999999999999_999999999999", "order_order_alice_1_1_1_1"),
]
NAMES: Final = [
    *("op", "side", "type", "price", "quantity", "order_id", "command_id", "time_in_force"),
    *("expires_at", "post_only", "self_trade", "if_version"),
]
NO_NAMES: Final = [
    *("", "colour", "Side", "post-only", "order_id ", "peer", "sequence", "\x00", "\U0001f600"),
    *("__proto__", "op\u200b", "\u043ep", "x" * 300),
]

_BOUNDS: Final = [
    *(Raw(text) for text in (b"0", b"-1", b"9223372036854775807", b"9223372036854775808")),
    *(Raw(text) for text in (b"-9223372036854775807", b"-9223372036854775808", b"1.0", b"1e3")),
]
_OWN: Final = [Hole("server_order"), Hole("used_order"), Hole("foreign_order"), *IDS]
APT: Final[dict[str, list[Any]]] = {
    "op": ["submit", "cancel", "amend", "cancel_all"],
    "side": ["buy", "sell"],
    "type": ["limit", "market"],
    "price": [Hole("price"), *DECIMALS],
    "quantity": [Hole("quantity"), *DECIMALS],
    "order_id": _OWN,
    "command_id": [Hole("used_command"), Hole("foreign_command"), Hole("shared_command"), *IDS],
    "time_in_force": ["gtc", "ioc", "fok", "gtd"],
    "expires_at": [Hole("later"), Hole("earlier"), *_BOUNDS],
    "post_only": [True, True, False],
    "self_trade": ["cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow", "none"],
    "if_version": [Hole("version"), *_BOUNDS],
}
"""Of each field what is of its kind, and nearly right or against another field."""

_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
_holes = st.sampled_from(
    [
        Hole(what)
        for what in (
            *("new_order", "used_order", "open_order", "foreign_order", "server_order"),
            *("new_command", "used_command", "foreign_command", "shared_order", "shared_command"),
            *("price", "quantity", "version", "later", "earlier"),
        )
    ]
)
_values = st.one_of(
    st.sampled_from([Hole("any_raw"), Hole("any_text"), Hole("any_id"), Hole("any_decimal")]),
    st.sampled_from([*RAW, *RAW, *RAW, *RAW, *RAW, *RARE]),
    st.sampled_from([*TEXTS, *DECIMALS, *IDS]),
    _holes,
    _anything,
)
"""What no field is ready for, and what another field is."""


# --- Commands -----------------------------------------------------------------------------------

_own_orders = st.sampled_from(
    [Hole(w) for w in ("new_order",) * 6 + ("used_order", "shared_order")]
)
_own_commands = st.sampled_from(
    [Hole(w) for w in ("new_command",) * 6 + ("used_command", "shared_command")]
)
_targets = st.sampled_from([Hole(w) for w in ("open_order",) * 5 + ("used_order", "server_order")])
_prices = st.sampled_from([Hole("price")] * 9 + [Hole("odd_price")])
_quantities = st.sampled_from([Hole("quantity")] * 9 + [Hole("odd_quantity")])
_sides = st.sampled_from(["buy", "sell"])
_self_trades = st.sampled_from(
    ["cancel_taker", "cancel_maker", "cancel_both", "decrement", "allow"]
)
_versions = st.sampled_from([Hole("version")] * 3 + [0, -1, 2**63 - 1, -(2**63 - 1)])

_limits = st.fixed_dictionaries(
    {"op": st.just("submit"), "side": _sides, "quantity": _quantities, "price": _prices},
    optional={
        "order_id": _own_orders,
        "type": st.just("limit"),
        "self_trade": _self_trades,
        "post_only": st.booleans(),
    },
)
_timed = st.fixed_dictionaries(
    {
        "op": st.just("submit"),
        "side": _sides,
        "quantity": _quantities,
        "price": _prices,
        "order_id": _own_orders,
        "time_in_force": st.sampled_from(["gtc", "ioc", "fok", "gtd"]),
    },
    optional={
        "expires_at": st.sampled_from([Hole("later")] * 4 + [Hole("earlier"), 2**63 - 1, 0, -5]),
        "post_only": st.booleans(),
        "self_trade": _self_trades,
    },
)
_markets = st.fixed_dictionaries(
    {
        "op": st.just("submit"),
        "type": st.just("market"),
        "side": _sides,
        "quantity": _quantities,
    },
    optional={
        "order_id": _own_orders,
        "time_in_force": st.sampled_from(["ioc", "fok"]),
        "self_trade": _self_trades,
    },
)
_cancels = st.fixed_dictionaries(
    {"op": st.just("cancel"), "order_id": _targets},
    optional={"command_id": _own_commands, "if_version": _versions},
)
_amends = st.fixed_dictionaries(
    {"op": st.just("amend"), "order_id": _targets, "quantity": _quantities},
    optional={"command_id": _own_commands, "price": _prices, "if_version": _versions},
)
_all_canceled = st.fixed_dictionaries(
    {"op": st.just("cancel_all")}, optional={"command_id": _own_commands, "side": _sides}
)
_commands = st.one_of(_limits, _limits, _timed, _timed, _markets, _cancels, _amends, _all_canceled)


_HOW: Final = [
    *("change", "change", "drop", "add", "odd", "repeat", "turn", "bring", "bring", "bring"),
    *("unlisted", "unlisted", "foreign", "foreign"),
]
_LISTED: Final = ("op", "side", "type", "time_in_force", "self_trade")
_NAMED: Final = ("order_id", "command_id")
_unlisted = st.just(Hole("any_text")) | st.text(max_size=6)
_foreign = st.sampled_from(
    [Hole("foreign_order"), Hole("foreign_command"), Hole("any_id"), "order_bob_0_1"]
)


@st.composite
def _spoilt(draw: st.DrawFn) -> Template:
    """Take a command, and leave out, change, add, repeat or move some of its fields."""
    members: list[tuple[Any, Any]] = list(draw(_commands).items())
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        how = draw(st.sampled_from(_HOW))
        place = draw(st.integers(0, len(members)))
        if how == "turn":
            members = members[place:] + members[:place]
        elif how in ("unlisted", "foreign"):
            names, values = (_LISTED, _unlisted) if how == "unlisted" else (_NAMED, _foreign)
            standing = [name for name, _ in members if name in names]
            if standing:
                name = draw(st.sampled_from(standing))
                index = [name for name, _ in members].index(name)
                members[index] = (name, draw(values))
        elif how == "add":
            value = draw(st.just(Hole("apt")) | _values)
            members.insert(place, (draw(st.sampled_from(NAMES)), value))
        elif how == "bring":
            # With what the field is often wrong with, however it stood there before.
            name = draw(st.sampled_from(NAMES))
            members = [each for each in members if each[0] != name]
            members.append((name, Hole("apt")))
        elif how == "odd":
            name = draw(st.sampled_from(NO_NAMES) | st.text(max_size=6))
            members.insert(place, (name, draw(_values)))
        elif members and place < len(members):
            if how == "change":
                members[place] = (members[place][0], draw(_values))
            elif how == "drop":
                del members[place]
            else:
                members.append((members[place][0], draw(st.just(members[place][1]) | _values)))
    return Template(tuple(members))


_damage = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=3
).map(tuple)

templates: Final = st.one_of(
    _commands.map(lambda fields: Template(tuple(fields.items()))),
    _spoilt(),
    _spoilt(),
    st.builds(lambda each, damage: each._replace(damage=damage), _spoilt(), _damage),
    _values.map(lambda value: Template(None, value)),
)
"""Any element of a request."""

_good: Final = _commands.map(lambda fields: Template(tuple(fields.items())))

_peers = st.integers(0, 63)
shapes: Final = st.one_of(
    st.builds(Shape, _peers, st.tuples(templates), st.just(False), st.just(1), st.just(())),
    st.builds(Shape, _peers, st.tuples(templates), st.just(False), st.just(1), st.just(())),
    st.builds(Shape, _peers, st.tuples(templates), st.just(False), st.just(1), _damage),
    st.builds(Shape, _peers, st.tuples(_good), st.just(False), st.just(1), st.just(())),
    st.builds(
        Shape,
        _peers,
        st.lists(templates, max_size=6).map(tuple),
        st.just(True),
        st.sampled_from([1] * 30 + [3, 8]),
        st.just(()) | _damage,
    ),
)
"""Any request."""

huge_shapes: Final = st.builds(
    Shape,
    _peers,
    st.tuples(_good | templates),
    st.just(True),
    st.sampled_from([BATCH_MAX - 1, BATCH_MAX, BATCH_MAX + 1, 5 * BATCH_MAX]),
    st.just(()),
)
"""A batch of the greatest size, or of a greater one."""

moments: Final = st.builds(
    Moment,
    st.lists(shapes, min_size=3, max_size=12).map(tuple),
    st.sampled_from([0, 1, 7, 50, 400, 900]),
)


# --- Requests -----------------------------------------------------------------------------------


@dataclass
class Known:
    """What a peer knows of its own: ids in the order they were used, and its open orders."""

    count: int = 0
    orders: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)


class Stamp:
    """Makes requests of templates, by a seed, and by what was answered so far."""

    def __init__(self, seed: int, *, time_us: int) -> None:
        """Begin at a time, knowing of nothing."""
        self.random = random.Random(seed)
        self.time_us = time_us
        self.known: dict[str, Known] = {}

    def of(self, peer: str) -> Known:
        """Give what a peer knows."""
        return self.known.setdefault(peer, Known())

    def learn(self, peer: str, receipt: dict[str, Any]) -> None:
        """Take note of a receipt."""
        own = self.of(peer)
        for order_id in receipt.get("canceled", ()):
            own.versions.pop(order_id, None)
        if "version" in receipt and "order_id" in receipt:
            own.versions.pop(receipt["order_id"], None)
            if receipt["remaining_quantity"] != "0":
                own.versions[receipt["order_id"]] = receipt["version"]

    def request(self, shape: Shape) -> tuple[str, bytes]:
        """Make a request: whose it is, and its bytes."""
        peer = self.peer(shape.peer)
        if shape.is_batch:
            # A batch of thousands is the same few texts, or else it would take seconds.
            times = min(shape.times, 8)
            elements = [self.written(each, peer) for _ in range(times) for each in shape.elements]
            if shape.times > times:
                elements = (elements * (shape.times // max(1, len(elements)) + 1))[: shape.times]
            payload = b"[" + b",".join(elements) + b"]"
        else:
            payload = self.written(shape.elements[0], peer)
        return peer, damaged(payload, shape.damage)

    def peer(self, number: int) -> str:
        """Choose whose request it is: mostly one of the few."""
        if number < 52:
            return PEERS[(number + self.random.randrange(3)) % 3]
        if number < 62:
            return self.random.choice(STRANGERS)
        return self.random.choice(NO_PEERS)

    def written(self, template: Template, peer: str) -> bytes:
        """Write one element."""
        if template.members is None:
            text = self.value(template.alone, peer)
        else:
            members = [
                b"%b:%b" % (self.value(name, peer), self.value(value, peer, name))
                for name, value in template.members
            ]
            text = b"{" + b",".join(members) + b"}"
        return damaged(text, template.damage)

    def value(self, value: Any, peer: str, name: str = "") -> bytes:
        """Write a value, of a field of that name, and fill in what is a hole."""
        if isinstance(value, Hole) and value.what == "apt":
            value = self.random.choice(APT.get(name, RAW))
        if isinstance(value, Hole):
            value = getattr(self, value.what)(peer)
        if isinstance(value, Raw):
            return value.text
        # Escaped or not: both are JSON, and the same text.
        return json.dumps(value, ensure_ascii=self.random.random() < 0.5).encode()

    # --- Holes ----------------------------------------------------------------------------------

    def any_raw(self, peer: str) -> Raw:
        """Choose what may be no JSON, or of no use."""
        return self.random.choice(RAW)

    def any_text(self, peer: str) -> str:
        """Choose a text that is in few lists."""
        return self.random.choice(TEXTS)

    def any_id(self, peer: str) -> str:
        """Choose what is nearly an id, of this peer's or of another's."""
        return self.random.choice(IDS).replace("alice", self.random.choice((peer, "alice")))

    def any_decimal(self, peer: str) -> str:
        """Choose what is nearly a decimal."""
        return self.random.choice(DECIMALS)

    def _pair(self, own: Known) -> str:
        own.count += self.random.choice((1, 1, 1, 2))
        count = own.count
        if count > 3 and self.random.random() < 0.05:
            # One that is late, and perhaps was used.
            count = self.random.randint(1, count)
        return f"{START_MS + count // 4}_{count}"

    def new_order(self, peer: str) -> str:
        """Name a new order of the peer's."""
        own = self.of(peer)
        own.orders.append(f"order_{peer}_{self._pair(own)}")
        return own.orders[-1]

    def new_command(self, peer: str) -> str:
        """Name a new command of the peer's."""
        own = self.of(peer)
        own.commands.append(f"command_{peer}_{self._pair(own)}")
        return own.commands[-1]

    def used_order(self, peer: str) -> str:
        """Name an order of the peer's that was sent before, if there is one."""
        own = self.of(peer)
        return self.random.choice(own.orders[-40:]) if own.orders else self.new_order(peer)

    def used_command(self, peer: str) -> str:
        """Name a command of the peer's that was sent before, if there is one."""
        own = self.of(peer)
        return self.random.choice(own.commands[-40:]) if own.commands else self.new_command(peer)

    def shared_order(self, peer: str) -> str:
        """Name an order by a pair that a command has."""
        return self.used_command(peer).replace("command_", "order_", 1)

    def shared_command(self, peer: str) -> str:
        """Name a command by a pair that an order has."""
        return self.used_order(peer).replace("order_", "command_", 1)

    def open_order(self, peer: str) -> str:
        """Name an order of the peer's that was open when it was last told of it."""
        own = self.of(peer)
        return self.random.choice(list(own.versions)) if own.versions else self.used_order(peer)

    def foreign_order(self, peer: str) -> str:
        """Name an order of somebody else's, a real one if there is any."""
        return self.open_order(self._other(peer))

    def foreign_command(self, peer: str) -> str:
        """Name a command of somebody else's."""
        return self.used_command(self._other(peer))

    def _other(self, peer: str) -> str:
        return self.random.choice([each for each in PEERS if each != peer])

    def server_order(self, peer: str) -> str:
        """Name an order as a server does."""
        return f"order_{peer}_0_{self.random.randint(1, 30)}"

    def version(self, peer: str) -> int:
        """Choose a version that many orders have."""
        return self.random.choice((1, 1, 1, 2, 3))

    def price(self, peer: str) -> str:
        """Choose a price at which others trade."""
        return self.random.choice(("99.98", "99.99", "100", "100.01", "100.02", "100.50"))

    def quantity(self, peer: str) -> str:
        """Choose a quantity that is soon used up."""
        return self.random.choice(("0.5", "1", "1.5", "2", "2.500", "4"))

    def odd_price(self, peer: str) -> str:
        """Choose a price at a bound, and perhaps beyond it."""
        return self.random.choice(DECIMALS[:16])

    def odd_quantity(self, peer: str) -> str:
        """Choose a quantity at a bound, and perhaps beyond it."""
        return self.random.choice(DECIMALS[:16])

    def later(self, peer: str) -> int:
        """Choose a time to come."""
        return self.time_us + self.random.randint(1, 3_000_000)

    def earlier(self, peer: str) -> int:
        """Choose a time that is over, or is just now."""
        return self.time_us - self.random.randint(0, 3)


def damaged(payload: bytes, damage: tuple[tuple[int, int, bytes], ...]) -> bytes:
    """Cut bytes out of a payload, and put others in."""
    changed = bytearray(payload)
    for place, cut, put in damage:
        start = place % (len(changed) + 1)
        changed[start : start + cut] = put
    return bytes(changed)
