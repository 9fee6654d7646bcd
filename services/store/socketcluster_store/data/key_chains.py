"""Key chains: how they lead through a value, and how errors speak of them. Pure functions.

Maps are walked by key, lists by decimal index. A chain that leads nowhere, or through a scalar, has nothing at its end;
only what puts something there minds what stands in its way. Nil in the way makes room for a map.

Functions take a *holder*: a map that has the tree's top-level value under its key, or is empty if there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.errors import ChainTooDeepError, InvalidError, TooLargeError, WrongTypeError

MAX_DEPTH = 32
"""Keys of the longest key chain."""
MAX_KEY_BYTES = 256
"""Bytes of UTF-8 of a top-level key; LMDB's keys have at most 511, a session id is in there too."""
MAX_CHAIN_BYTES = 4096
"""Bytes of a whole key chain, as MessagePack, where it is kept: of an expiry, of a watch."""

MAX_SHOWN = 200
"""Characters of a key chain in an error."""

_RECORD_HEADS = [b"d" + bytes((length,)) for length in range(256)]

NOTHING = object()
"""What stands where nothing stands; nil is something."""

_check = msgspec.msgpack.Decoder(msgspec.Raw).decode
_decode = msgspec.msgpack.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


class Addressed(Protocol):
    """What is done at a key chain."""

    @property
    def verb(self) -> int:
        """The verb of the protocol."""

    @property
    def keys(self) -> Sequence[str]:
        """The key chain."""


def record_key(session_id: bytes, keys: Sequence[str], command: Addressed) -> bytes:
    """Return the key under which the top-level value of a key chain is kept.

    Raises:
        InvalidError: there is no key.
        ChainTooDeepError: there are more than ``MAX_DEPTH``.
        TooLargeError: the top-level key has more than ``MAX_KEY_BYTES`` bytes.
    """
    depth = len(keys)
    if depth > MAX_DEPTH:
        raise ChainTooDeepError(f"{name_of(command)}: a key chain has at most {MAX_DEPTH} keys, this one has {depth}")
    if not depth:
        raise InvalidError(f"{name_of(command)}: a key chain has at least one key")
    key = keys[0].encode()
    if len(key) > MAX_KEY_BYTES:
        raise TooLargeError(
            f"{name_of(command)}: a top-level key has at most {MAX_KEY_BYTES} bytes, this one has {len(key)}"
        )
    return _RECORD_HEADS[len(session_id)] + session_id + key


def tree_prefix(kind: bytes, session_id: bytes) -> bytes:
    """Return what the keys of all records of one kind and tree begin with."""
    return kind + bytes((len(session_id),)) + session_id


def encode_chain(command: Addressed) -> bytes:
    """Return a key chain as it is kept.

    Raises:
        ChainTooDeepError: it has too many keys.
        TooLargeError: they have too many bytes.
    """
    keys = command.keys
    if len(keys) > MAX_DEPTH:
        raise ChainTooDeepError(
            f"{name_of(command)}: a key chain has at most {MAX_DEPTH} keys, this one has {len(keys)}"
        )
    encoded = _encode(tuple(keys))
    if len(encoded) > MAX_CHAIN_BYTES:
        raise TooLargeError(f"{_verb(command)}: the key chain has {len(encoded)} bytes, {MAX_CHAIN_BYTES} are allowed")
    return encoded


def check_value(value: bytes, name: Callable[[], str]) -> None:
    """Raise ``InvalidError`` unless ``value`` is one MessagePack value; ``name`` says whose it is."""
    try:
        _check(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"{name()}: the value is no MessagePack: {error}") from None


def parsed(value: bytes, command: Addressed, decode: Callable[[bytes], Any] = _decode) -> Any:
    """Return what MessagePack says.

    Integers of more than 64 bits stay extensions, unless ``decode`` is ``packing.unpack``: so they are written again.

    Raises:
        InvalidError: it is none.
    """
    try:
        return decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidError(f"{name_of(command)}: the value is no MessagePack: {error}") from None


def child(parent: Any, key: str) -> Any:
    """Return what a map or list has at ``key``."""
    if isinstance(parent, dict):
        return parent.get(key, NOTHING)
    if isinstance(parent, list) and is_index(key) and int(key) < len(parent):
        return parent[int(key)]
    return NOTHING


def is_index(key: object) -> bool:
    """Say whether a key is the decimal index of an item: each item has one, so it has no leading zeros."""
    if not isinstance(key, str) or not key.isascii() or not key.isdecimal() or len(key) >= 10:
        return False
    return key == "0" or key[0] != "0"


def walk(root: Any, keys: Sequence[str]) -> Any:
    """Return what stands at the key chain that begins below ``root``."""
    node = root
    for key in keys:
        node = child(node, key)
    return node


def put(holder: dict[str, Any], command: Addressed, value: Any) -> None:
    """Set ``value`` at the command's key chain, making the maps that are missing on the way.

    Raises:
        WrongTypeError: a scalar, or a list without such an index, stands in the way.
        InvalidError: the index is beyond the end of its list.
    """
    keys = command.keys
    node: Any = holder
    for depth in range(len(keys) - 1):
        key = keys[depth]
        below = node.get(key) if type(node) is dict else child(node, key)
        if below is None or below is NOTHING:
            below = {}
            _put_child(node, command, depth, below)
        node = below
    if type(node) is dict:
        node[keys[-1]] = value
    else:
        _put_child(node, command, len(keys) - 1, value)


def cut(holder: dict[str, Any], keys: Sequence[str]) -> Any:
    """Remove what stands at a key chain, and return it."""
    parent = walk(holder, keys[:-1])
    found = child(parent, keys[-1])
    if found is not NOTHING:
        del parent[keys[-1] if isinstance(parent, dict) else int(keys[-1])]
    return found


def _put_child(node: Any, command: Addressed, depth: int, value: Any) -> None:
    key = command.keys[depth]
    if isinstance(node, dict):
        node[key] = value
        return
    if not isinstance(node, list):
        raise wrong_type(command, node, "map", depth)
    if not is_index(key):
        raise WrongTypeError(
            f"{name_of(command)}: a list stands at {_chain(command, depth)}, {key!r} is no index of it"
        )
    index = int(key)
    if index < len(node):
        node[index] = value
    elif index == len(node):
        node.append(value)
    else:
        raise InvalidError(f"{name_of(command)}: the list at {_chain(command, depth)} has only {len(node)} items")


def wrong_type(command: Addressed, found: object, wanted: str, depth: int | None = None) -> WrongTypeError:
    """Return the error that names what stands after ``depth`` keys of the chain (all of them by default)."""
    depth = len(command.keys) if depth is None else depth
    return WrongTypeError(
        f"{name_of(command)}: {type_name(found)} stands at {_chain(command, depth)}, no {wanted}",
    )


def type_name(value: object) -> str:
    """Return what a value is, for people."""
    if value is None:
        return "nil"
    return _TYPE_NAMES.get(type(value), "a scalar")


_TYPE_NAMES: dict[type, str] = {
    bool: "a bool",
    int: "a number",
    float: "a number",
    str: "a text",
    bytes: "bytes",
    list: "a list",
    dict: "a map",
    msgspec.msgpack.Ext: "a number",  # one of more than 64 bits
}


def name_of(command: Addressed) -> str:
    """Return operation and key chain, for people."""
    return f"{_verb(command)} {_chain(command, len(command.keys))}"


def _verb(command: Addressed) -> str:
    known = store_pb2.Verb.DESCRIPTOR.values_by_number.get(command.verb)
    return known.name.removeprefix("VERB_") if known else f"verb {command.verb}"


def _chain(command: Addressed, depth: int) -> str:
    shown = repr(list(command.keys[:depth]))
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
