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


def chain_of(keys: Keys) -> list[str]:
    """Return a key chain as it is written."""
    return [str(keys)] if isinstance(keys, str | int) else [str(key) for key in keys]
