"""What an operator may ask of a market, and what he is told.

Knows nothing of who may ask: the accounts do.
"""

from typing import Final, Literal

from msgspec import Struct

from dex_protocol.specification import AskedSpecification, SpecificationChange

What = Literal["open", "change", "halt", "resume", "close"]


class OpenRequest(Struct, forbid_unknown_fields=True):
    """Open a market; doing it again with the same specification is harmless."""

    specification: AskedSpecification


class NoFields(Struct, forbid_unknown_fields=True):
    """A request without fields: `halt`, `resume` and `close`."""


class AdminReply(Struct):
    """It is done, as of this commit."""

    sequence: int


REQUESTS: Final[dict[str, type[Struct]]] = {
    "open": OpenRequest,
    "change": SpecificationChange,
    "halt": NoFields,
    "resume": NoFields,
    "close": NoFields,
}
"""The `what` of each request's subject, and its shape."""
