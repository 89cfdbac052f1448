"""Bytes to messages and back: the only place of the project that reads or writes the wire's JSON.

How messages may grow (the rules of msgspec's schema evolution, as they apply here):
1. a new field of a reply or event has a default, so that old readers' data still decodes;
2. fields are not renamed, retyped or removed;
3. a new kind of event changes no book, since old readers pass over it;
4. a new field of a command is understood by servers before clients send it, since what a server
   does not know it refuses.

Decoding is typed and fast for what is well-formed. What is not is decoded once more, with lax
types, to say precisely what is wrong and with which of the reasons 1001, 1002 and 1004.
"""

import json
import re
import zlib
from hashlib import blake2b
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from dex_protocol import limits
from dex_protocol.commands import (
    Amend,
    Cancel,
    CancelAll,
    Command,
    Submit,
    is_surely_well_formed,
    names_another_peer,
    what_is_malformed,
)
from dex_protocol.events import AnyEvent, Commit
from dex_protocol.ids import head_of, is_peer
from dex_protocol.memo import memo
from dex_protocol.reasons import Reason
from dex_protocol.receipts import Receipt, refused

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was expected; a ValidationError is a DecodeError.
"""

SENTENCE_LENGTH_MAX: Final = 160
"""Characters of a refusal's sentence; the longest of ours, with 80 of a peer's, has 155."""

_ID_LIKE: Final = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
_CONTENT: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
_HASH: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)

PEERS_REMEMBERED_COUNT_MAX: Final = 4_096
"""Names that are remembered as a peer's or none, with what its ids begin with."""

_encoder: Final = msgspec.json.Encoder()
_canonical_encoder: Final = msgspec.json.Encoder(order="sorted")
_command_decoder: Final = msgspec.json.Decoder(Command)
_batch_decoder: Final = msgspec.json.Decoder(list[Command])
_elements_decoder: Final = msgspec.json.Decoder(list[Raw])
_receipt_decoder: Final = msgspec.json.Decoder(Receipt)
_receipts_decoder: Final = msgspec.json.Decoder(list[Receipt])
_commit_decoder: Final = msgspec.json.Decoder(Commit)

encode = _encoder.encode
"""Write any message as JSON in UTF-8."""

encode_canonical = _canonical_encoder.encode
"""Write any message as canonical JSON: keys sorted, no white space."""

T = TypeVar("T", bound=Struct)

Element: TypeAlias = Command | Receipt
"""A command of a request, or the receipt that refuses what stood in its place."""


def hash_of(payload: bytes) -> str:
    """Hash a commit's or a snapshot's bytes: 32 hex digits (BLAKE2b, 16 bytes)."""
    return blake2b(payload, digest_size=16).hexdigest()


class NotPacked(Exception):
    """Bytes that are no whole gzip stream, or one of more than there may be."""


def unpacked(data: bytes, *, bytes_max: int) -> bytes:
    """Unpack one gzip stream of so many bytes at most, without making more of them.

    Raises:
        NotPacked: the bytes are something else, go on behind it, or unpack to more.
    """
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        # One more than there may be, so that it shows.
        found = unpacker.decompress(data, bytes_max + 1)
    except zlib.error as error:
        raise NotPacked(f"expected gzip, found {error}") from error
    if len(found) > bytes_max:
        raise NotPacked(f"expected at most {bytes_max} bytes when unpacked, found more")
    if not unpacker.eof or unpacker.unused_data:
        raise NotPacked("expected one whole gzip stream, found less or more")
    return found


# --- Requests -----------------------------------------------------------------------------------


def decode_request(
    payload: bytes, peer: str, batch_count_max: int = limits.BATCH_COUNT_MAX
) -> tuple[list[Element], bool]:
    """Read the commands of one request, each of which is refused by itself when it must be.

    Args:
        payload: An object, or an array of 1 to `batch_count_max`.
        peer: Whose request it is; no id may name another.
        batch_count_max: At most `BATCH_COUNT_MAX`.

    Returns:
        The elements in order, each a command or the receipt of its refusal (1001 to 1004), and
        whether the reply is an array. Never raises for what a peer sent.
    """
    heads = _heads(peer)
    if heads is None:
        return [_malformed(f"expected the subject to end in a peer's name, found {peer[:80]!r}")], (
            False
        )
    first = payload[:1]
    if first != b"{" and (first == b"[" or payload.lstrip(b" \t\r\n")[:1] == b"["):
        return _decode_batch(payload, peer, heads, batch_count_max)
    return [_decode_command(payload, peer, *heads)], False


def _heads_of(peer: str) -> tuple[str, str] | None:
    # What a peer's order ids and command ids begin with; None of what can be no peer.
    return (head_of("order", peer), head_of("command", peer)) if is_peer(peer) else None


_heads: Final = memo(_heads_of, count_max=PEERS_REMEMBERED_COUNT_MAX)


def _decode_batch(
    payload: bytes, peer: str, heads: tuple[str, str], batch_count_max: int
) -> tuple[list[Element], bool]:
    try:
        commands = _batch_decoder.decode(payload)
    except UNREADABLE:
        # One bad element fails the typed decoding of the whole array: read them one by one.
        try:
            raws = _elements_decoder.decode(payload)
        except UNREADABLE as error:
            return [_malformed(f"expected a JSON array of commands: {error}")], False
        if len(raws) <= batch_count_max:
            return [_decode_command(bytes(raw), peer, *heads) for raw in raws], True
        return [_too_large(len(raws), batch_count_max)], False
    if not commands:
        return [
            _malformed(f"expected 1 to {batch_count_max} commands in an array, found none")
        ], False
    if len(commands) > batch_count_max:
        return [_too_large(len(commands), batch_count_max)], False
    order_head, command_head = heads
    return [
        command
        if is_surely_well_formed(command, order_head, command_head)
        else _checked(command, peer)
        for command in commands
    ], True


def _decode_command(payload: bytes, peer: str, order_head: str, command_head: str) -> Element:
    try:
        command: Command = _command_decoder.decode(payload)
    except UNREADABLE as error:
        return _explained(payload, error)
    if is_surely_well_formed(command, order_head, command_head):
        return command
    return _checked(command, peer)


def _checked(command: Command, peer: str) -> Element:
    malformed = what_is_malformed(command)
    if malformed is not None:
        return _refused(Reason.malformed, malformed, command)
    foreign = names_another_peer(command, peer)
    if foreign is not None:
        return _refused(
            Reason.wrong_peer, f"expected ids of the peer {peer}, found {foreign}", command
        )
    return command


def _refused(reason: Reason, message: str, command: Any) -> Receipt:
    # What was sent as an id is sent back, so that the peer finds its command again.
    return refused(
        reason,
        _sentence(message),
        order_id=_short(getattr(command, "order_id", UNSET)),
        command_id=_short(getattr(command, "command_id", UNSET)),
    )


def _malformed(message: str) -> Receipt:
    return refused(Reason.malformed, _sentence(message))


def _sentence(text: str) -> str:
    # It may quote what was sent: cut, and without what JSON writes in six bytes, a thousand of
    # them fit one reply.
    return "".join(c if " " <= c <= "~" else "?" for c in text[:SENTENCE_LENGTH_MAX])


def _short(text: Any) -> str | UnsetType:
    # For the same reason no more comes back than could be an id.
    return text if isinstance(text, str) and _ID_LIKE.fullmatch(text) else UNSET


def _too_large(count: int, batch_count_max: int) -> Receipt:
    return refused(
        Reason.batch_too_large, f"expected at most {batch_count_max} commands, found {count}"
    )


# --- What is wrong with what cannot be decoded --------------------------------------------------


class _Op(Struct):
    op: str


class _Ids(Struct):
    order_id: Any = UNSET
    command_id: Any = UNSET


def _with_any_text(struct: type[Struct]) -> type[Struct]:
    # The same struct with every closed list opened: what it decodes and the strict one does not
    # has a value outside a list, and nothing worse.
    fields: list[tuple[str, Any, Any]] = []
    hints = get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        parts = get_args(hints[field.name]) or (hints[field.name],)
        closed = any(get_origin(part) is Literal for part in (hints[field.name], *parts))
        unset = UnsetType in parts
        opened: Any = (str | UnsetType if unset else str) if closed else hints[field.name]
        if field.required:
            fields.append((field.name, opened, msgspec.NODEFAULT))
        else:
            fields.append((field.name, opened, field.default))
    return msgspec.defstruct(
        f"Lax{struct.__name__}",
        fields,
        tag_field="op",
        tag=struct.__struct_config__.tag,
        forbid_unknown_fields=True,
        kw_only=True,
    )


_STRICT: Final[dict[str, type[Struct]]] = {
    str(struct.__struct_config__.tag): struct for struct in (Submit, Cancel, Amend, CancelAll)
}
_LAX: Final = {op: msgspec.json.Decoder(_with_any_text(s)) for op, s in _STRICT.items()}
_op_decoder: Final = msgspec.json.Decoder(_Op)
_ids_decoder: Final = msgspec.json.Decoder(_Ids)


def _explained(payload: bytes, error: Exception) -> Receipt:
    reason, message = _reason_of(payload, error)
    return _refused(reason, message, _ids_in(payload))


def _reason_of(payload: bytes, error: Exception) -> tuple[Reason, str]:
    try:
        op = _op_decoder.decode(payload).op
        if op not in _LAX:
            # Texts of fields that nobody asked for were passed over, UTF-8 or not.
            payload.decode()
            expected = ", ".join(_LAX)
            return Reason.unknown_value, f"expected op as one of {expected}, found {op[:80]!r}"
        lax = _LAX[op].decode(payload)
    except UNREADABLE as unreadable:
        return Reason.malformed, f"expected a command as a JSON object: {unreadable}"
    malformed = what_is_malformed(_as_command(lax, op))
    if malformed is not None:
        return Reason.malformed, malformed
    return Reason.unknown_value, str(error)


def _as_command(lax: Any, op: str) -> Any:
    # Struct construction does not check types, so an unknown value passes where it stands.
    return _STRICT[op](**msgspec.structs.asdict(lax))


def _ids_in(payload: bytes) -> _Ids | None:
    try:
        return _ids_decoder.decode(payload)
    except UNREADABLE:
        return None


# --- Everything else ----------------------------------------------------------------------------


def decode_as(payload: bytes, struct: type[T]) -> T | Receipt:
    """Read a query's or an operator's request; an empty payload is an empty object.

    Returns:
        The request, or the receipt of its refusal (`malformed`).
    """
    try:
        return msgspec.json.decode(payload or b"{}", type=struct)
    except UNREADABLE as error:
        return _malformed(f"expected {struct.__name__} as a JSON object: {error}")


def decode_reply(payload: bytes, struct: type[T]) -> T:
    """Read an answer of a server.

    Raises:
        msgspec.DecodeError: the server speaks another protocol.
    """
    return msgspec.json.decode(payload, type=struct)


def decode_receipts(payload: bytes) -> list[Receipt]:
    """Read the reply to a request: one receipt, or an array of them.

    Raises:
        msgspec.DecodeError: the server speaks another protocol.
    """
    if payload[:1] == b"[":
        return _receipts_decoder.decode(payload)
    return [_receipt_decoder.decode(payload)]


class _LooseCommit(Struct):
    market: str
    sequence: int
    term: int
    time: int
    previous: str
    digest: str
    events: list[Raw]


class _EventName(Struct):
    event: str


_EVENT_NAMES: Final = frozenset(str(event.__struct_config__.tag) for event in get_args(AnyEvent))
_loose_commit_decoder: Final = msgspec.json.Decoder(_LooseCommit)
_event_name_decoder: Final = msgspec.json.Decoder(_EventName)
_event_decoder: Final = msgspec.json.Decoder(AnyEvent)


def decode_commit(payload: bytes) -> Commit:
    """Read a commit; events of unknown name, which change no book, are passed over.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: these bytes are no commit, or one
            that can be read in two ways.
    """
    try:
        commit = _commit_decoder.decode(payload)
    except msgspec.ValidationError:
        loose = _loose_commit_decoder.decode(payload)
        events = [
            _event_decoder.decode(raw)
            for raw in loose.events
            if _event_name_decoder.decode(raw).event in _EVENT_NAMES
        ]
        commit = Commit(
            market=loose.market,
            sequence=loose.sequence,
            term=loose.term,
            time=loose.time,
            previous=loose.previous,
            digest=loose.digest,
            events=events,
        )
    # What is written as a leader of this code writes it says everything once. Anything else
    # (unknown fields, another order of them) is looked at again.
    if _encoder.encode(commit) != payload:
        check_unambiguous(payload)
    return commit


def check_unambiguous(payload: bytes) -> None:
    """Make sure that no object of a JSON document names a field twice, whatever it is.

    Two readers may each believe another one of the two. msgspec takes the last.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: one does.
    """
    try:
        json.loads(payload.decode(), object_pairs_hook=_fields_once)
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError | msgspec.DecodeError):
            raise
        raise msgspec.DecodeError(str(error)) from error


def _fields_once(fields: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in fields}
    if len(names) != len(fields):
        raise msgspec.DecodeError(f"a field is named twice, of {sorted(names)[:20]}")


def is_content(text: str) -> bool:
    """Tell whether a text may be a command's content hash: 16 hex digits."""
    return _CONTENT.fullmatch(text) is not None


def is_hash(text: str) -> bool:
    """Tell whether a text may be a hash of bytes: 32 hex digits."""
    return _HASH.fullmatch(text) is not None


def encode_commit(
    *, market: str, sequence: int, term: int, time: int, previous: str, digest: str, events: bytes
) -> bytes:
    """Write a commit whose events are encoded already, joined by commas, without brackets.

    The leader encodes each command's events once, to know their bytes before it puts them into a
    commit; the result is what `encode` makes of a `Commit`.
    """
    head = (
        f'{{"market":"{market}","sequence":{sequence},"term":{term},"time":{time},'
        f'"previous":"{previous}","digest":"{digest}","events":['
    )
    return b"%b%b]}" % (head.encode(), events)
