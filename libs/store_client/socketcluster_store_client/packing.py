"""Values as MessagePack, with what JSON has and MessagePack does not: integers of more than 64 bits, and JSON itself.

Such an integer is an extension of the type ``HUGE``: its bytes are the number, big-endian in two's complement. Who only
moves values, or looks for one among them, may leave the extension as it is: it is written again as it was read.

A value that came as JSON, and that goes to clients as JSON, is an extension of the type ``JSON``, whose bytes are the
text: nobody on its way has to make objects of it.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec

HUGE = 73
"""The type of the extension; MessagePack leaves 0 to 127 to applications."""
JSON = 74
MAX_DIGITS = 4300
"""Of an integer: Python reads and writes no more."""

_LEAST, _MOST = -(2**63), 2**64 - 1
_TOO_MUCH = 10**MAX_DIGITS
_AS_THEY_ARE = (bytes, bytearray, memoryview, datetime)
_EXTENSION_HEADS = {0xD4: 2, 0xD5: 2, 0xD6: 2, 0xD7: 2, 0xD8: 2, 0xC7: 3, 0xC8: 4, 0xC9: 6}
"""The first bytes of extensions, and how many come before the data; the type is the last of these."""
_decode_json = msgspec.json.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


def pack(value: Any) -> bytes:
    """Return a value as MessagePack.

    Raises:
        TypeError: it is, or holds, what MessagePack has no form for.
        ValueError: a text in it is not Unicode (``UnicodeEncodeError``).
        OverflowError: an integer has more than ``MAX_DIGITS``, or one beyond 64 bits is a key.
        RecursionError: it is nested too deeply, or holds itself.
    """
    try:
        return _encode(value)
    except OverflowError:
        # what holds the integer, be it a dataclass, a struct or a set, becomes lists and dicts
        return _encode(_extend(msgspec.to_builtins(value, builtin_types=_AS_THEY_ARE)))


def pack_json(text: bytes) -> bytes:
    """Return a JSON text as MessagePack; whoever unpacks that gets the value."""
    return _encode(msgspec.msgpack.Ext(JSON, text))


def json_of(packed: bytes) -> bytes | None:
    """Return the text of what ``pack_json`` packed; ``None``: it is something else."""
    start = _EXTENSION_HEADS.get(packed[0]) if packed else None
    return packed[start:] if start is not None and packed[start - 1] == JSON else None


def decoder(type_: Any = Any) -> msgspec.msgpack.Decoder[Any]:
    """Return a decoder of what ``pack`` writes."""
    return msgspec.msgpack.Decoder(type_, ext_hook=_read_extension)


def _extend(value: Any) -> Any:
    """Return the value with extensions in the place of huge integers."""
    kind = type(value)
    if kind is dict:
        return {key: _extend(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_extend(item) for item in value]
    if kind is not int or _LEAST <= value <= _MOST:
        return value
    if abs(value) >= _TOO_MUCH:
        raise OverflowError(f"an integer has at most {MAX_DIGITS} digits")
    return msgspec.msgpack.Ext(HUGE, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _read_extension(code: int, data: memoryview) -> Any:
    if code == HUGE:
        return int.from_bytes(data, "big", signed=True)
    return read_json(data) if code == JSON else msgspec.msgpack.Ext(code, bytes(data))


def read_json(text: bytes | memoryview | msgspec.Raw) -> Any:
    """Return the value of a JSON text that is well-formed."""
    try:
        return _decode_json(text)
    except msgspec.ValidationError:  # a number out of Python's range, which to JavaScript is Infinity
        return json.loads(bytes(text), parse_int=_read_integer)


def _read_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


unpack = decoder().decode
"""Reads what ``pack`` wrote."""
