"""Histories in files, and of several recorders put together.

A file is lines of JSON, each `["sent", {…}]`: a part of the history, named as the field that it
belongs to; parts of dicts are `["logs", ["BTC-USD", […]]]`. A name that ends in `.gz` makes it
packed.

Knows nothing of what is in a history.
"""

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, get_args, get_type_hints

import msgspec

from tests.checker.history import History

_HINTS = get_type_hints(History)


def write(history: History, path: Path) -> None:
    """Write a history, instead of what the file had."""
    with _open(path, "wb") as file:
        for line in _lines(history):
            file.write(line + b"\n")


def read(path: Path) -> History:
    """Read a history, to judge it once more.

    Raises:
        ValueError: a line is no part of a history (also as msgspec's error).
    """
    history = History()
    with _open(path, "rb") as file:
        for line in file:
            _put(history, *msgspec.json.decode(line, type=tuple[str, Any]))
    return history


def merged(histories: Iterable[History]) -> History:
    """Put together what several have recorded.

    Raises:
        ValueError: two of them have different things to say of one market.
    """
    whole = History()
    for history in histories:
        for line in _lines(history):
            _put(whole, *msgspec.json.decode(line, type=tuple[str, Any]))
    return whole


def _lines(history: History) -> Iterator[bytes]:
    for name in history.__struct_fields__:
        parts = getattr(history, name)
        for part in parts.items() if isinstance(parts, dict) else parts:
            yield msgspec.json.encode((name, part))


def _put(history: History, name: str, part: Any) -> None:
    parts = getattr(history, name, None)
    match parts:
        case list():
            (kind,) = get_args(_HINTS[name])
            parts.append(msgspec.convert(part, kind))
        case dict():
            key, value = msgspec.convert(part, tuple[get_args(_HINTS[name])])  # type: ignore[misc]
            parts[key] = _the_longer(f"{name} of {key}", parts.get(key, value), value)
        case _:
            raise ValueError(f"expected a part of a history, found {name!r}")


def _the_longer(what: str, one: Any, other: Any) -> Any:
    # A log that was read earlier is the beginning of the one that was read later.
    if isinstance(one, list):
        one, other = sorted((one, other), key=len)
        if other[: len(one)] == one:
            return other
    elif one == other:
        return one
    raise ValueError(f"expected one {what}, found two")


def _open(path: Path, mode: str) -> IO[Any]:
    return gzip.open(path, mode) if path.suffix == ".gz" else path.open(mode)
