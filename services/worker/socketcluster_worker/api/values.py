"""Values and key chains as they travel to the stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from socketcluster_worker.errors import NotSerializableError

Keys: TypeAlias = str | int | Sequence[str | int]
"""A key, or a chain of keys from the outermost to the innermost; an integer is an index into a list."""

FALSE = b"\xc2"
TRUE = b"\xc3"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

NO_DATA = _encode(msgspec.msgpack.Ext(0, b""))
"""The packed message of a channel that has no data, which is not the same as null; no client's data give this."""


def pack(value: Any) -> bytes:
    """Return a value as MessagePack.

    Raises:
        NotSerializableError: it has no such form.
    """
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotSerializableError(str(error)) from None


def unpack(data: bytes) -> Any:
    """Return the value of MessagePack data."""
    return _decode(data)


def pack_message(data: Any) -> bytes:
    """Return what is published to a channel as MessagePack; ``msgspec.UNSET``: a message without data.

    Raises:
        NotSerializableError: it has no such form.
    """
    return NO_DATA if data is msgspec.UNSET else pack(data)


def unpack_message(packed: bytes, missing: Any = None) -> Any:
    """Return the data of a channel's message, ``missing`` if there are none."""
    return missing if packed == NO_DATA else _decode(packed)


def chain_of(keys: Keys) -> list[str]:
    """Return a key chain as it is written."""
    return [str(keys)] if isinstance(keys, str | int) else [str(key) for key in keys]
