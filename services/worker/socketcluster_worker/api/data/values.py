"""Values and key chains as they travel to the stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from socketcluster_store_client import packing
from socketcluster_wire.json_text import MAX_DEPTH, SHALLOW, may_hold_binary, nest_deeper
from socketcluster_worker.errors import NotSerializableError

Keys: TypeAlias = str | int | Sequence[str | int]
"""A key, or a chain of keys from the outermost to the innermost; an integer is an index into a list."""

FALSE = b"\xc2"
TRUE = b"\xc3"

MAX_PACKED_DEPTH = MAX_DEPTH + 4
"""Lists and dicts in each other: what clients may send, and what is put around it on its way."""

MAX_JSON = 256 * 1024
"""Bytes of JSON that travel as such where there is a choice: of booleans or of escapes it is several times as long as
MessagePack, and the stores take messages of 1 MiB."""

MAX_PUBLISHED_JSON = 1_000_000
"""Bytes of JSON that are published as they are: of booleans or of escapes, longer ones fit into the stores' 1 MiB as
MessagePack only. No client sends as much unless ``max_http_buffer_size`` is raised."""

_PLAIN = frozenset((str, bytes, int, float, bool, type(None)))
_NO_HEADS = bytes(code for code in range(256) if not (0x80 <= code <= 0x9F or 0xDC <= code <= 0xDF))
"""The bytes that begin no list or map in MessagePack; texts in ASCII have no others."""

NO_DATA = packing.pack(msgspec.msgpack.Ext(0, b""))
"""The packed message of a channel that has no data, which is not the same as null; no client's data give this."""
_encode_json = msgspec.json.Encoder().encode


def pack(value: Any) -> bytes:
    """Return a value as MessagePack.

    Raises:
        NotSerializableError: it has no such form, or is nested deeper than everybody can read.
    """
    try:
        packed = packing.pack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotSerializableError(str(error)) from None
    if len(packed) > MAX_PACKED_DEPTH and type(value) not in _PLAIN and _is_deep(packed):
        raise NotSerializableError(f"it is nested deeper than {MAX_PACKED_DEPTH} lists and dicts")
    return packed


def _is_deep(packed: bytes) -> bool:
    if len(packed.translate(None, _NO_HEADS)) <= MAX_PACKED_DEPTH:
        return False
    try:
        return nest_deeper((unpack(packed),), MAX_PACKED_DEPTH)
    except RecursionError:
        return True


unpack = packing.unpack
"""Returns the value of MessagePack data."""


def json_of_list(values: Sequence[Any]) -> bytes | None:
    """Return the JSON of a list of values; ``None``: they travel as MessagePack, being large, deep or no JSON."""
    if may_hold_binary(values):
        return None
    try:
        text = _encode_json(values)
    except (TypeError, ValueError, OverflowError, RecursionError):  # who packs them says why
        return None
    if len(text) > SHALLOW and (len(text) > MAX_JSON or text.count(b"[") + text.count(b"{") > MAX_DEPTH):
        return None
    return text


def pack_message(data: Any) -> bytes:
    """Return what is published to a channel as MessagePack.

    Args:
        data: the value, ``msgspec.Raw`` of its JSON, which travels as it is unless it is very long, or
            ``msgspec.UNSET``: there is none.

    Raises:
        NotSerializableError: it has no such form, or is nested deeper than everybody can read.
    """
    if type(data) is msgspec.Raw:
        text = bytes(data)
        return packing.pack_json(text) if len(text) <= MAX_PUBLISHED_JSON else pack(read_json(text))
    return NO_DATA if data is msgspec.UNSET else pack(data)


def unpack_message(packed: bytes, missing: Any = None) -> Any:
    """Return the data of a channel's message, ``missing`` if there are none."""
    return missing if packed == NO_DATA else unpack(packed)


def message_for_clients(packed: bytes) -> Any:
    """Return the data of a channel's message as ``pack_message`` was given them."""
    text = packing.json_of(packed)
    return unpack_message(packed, msgspec.UNSET) if text is None else msgspec.Raw(text)


def read_json(text: bytes | msgspec.Raw) -> Any:
    """Return the value of JSON that was found to be well-formed."""
    return packing.read_json(text)


def chain_of(keys: Keys) -> list[str]:
    """Return a key chain as it is written."""
    return [str(keys)] if isinstance(keys, str | int) else [str(key) for key in keys]
