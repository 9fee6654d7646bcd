"""Trees of values on key chains, on top of an ordered key-value transaction.

A record holds one top-level key of one tree, so that setting a key does not rewrite its session::

    d <length of the session id> <session id> <top-level key>    the value, MessagePack
    r <session id>                                               the session's record, see ``sessions``

What stands below a top-level key is inside its value: maps are walked by key, lists by decimal index. A chain that
leads nowhere, or through a scalar, has nothing at its end; only ``SET`` minds what stands in its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store import channel_log
from socketcluster_store.engines.base import END_SESSION, PUT_RECORD, Command, KeyValue, Outcome
from socketcluster_store.errors import InvalidError, Refusal, TooLargeError, WrongTypeError

MAX_DEPTH = 32
"""Keys of the longest key chain."""
MAX_KEY_BYTES = 256
"""Bytes of UTF-8 of a key; LMDB's keys have at most 511, a session id is in there too."""
MAX_TREE_BYTES = 32 * 1024 * 1024
"""The largest answer to GET_ALL: it must fit a gRPC message."""

NIL = b"\xc0"
FALSE = b"\xc2"
TRUE = b"\xc3"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_check = msgspec.msgpack.Decoder(msgspec.Raw).decode
_NOTHING = object()


class Documents:
    """Carries commands out; holds no data itself."""

    def __init__(self, max_value_bytes: int) -> None:
        self._max_value_bytes = max_value_bytes
        self._verbs: dict[int, Callable[[KeyValue, Command], bytes]] = {
            store_pb2.VERB_GET: self._get,
            store_pb2.VERB_SET: self._set,
            store_pb2.VERB_REMOVE: self._remove,
            store_pb2.VERB_EXISTS: self._exists,
            store_pb2.VERB_GET_ALL: self._get_all,
            store_pb2.VERB_REMOVE_ALL: self._remove_all,
            PUT_RECORD: self._put_record,
            END_SESSION: self._end_session,
            **channel_log.VERBS,
        }

    def apply(self, kv: KeyValue, batch: Sequence[Command]) -> list[Outcome]:
        """Carry a batch out within the transaction ``kv``."""
        outcomes: list[Outcome] = []
        verbs = self._verbs
        for command in batch:
            try:
                outcomes.append(verbs[command.verb](kv, command))
            except Refusal as refusal:
                outcomes.append(refusal)
            except RecursionError:
                outcomes.append(InvalidError(f"{_name(command)}: the value is nested too deeply"))
        return outcomes

    def _get(self, kv: KeyValue, command: Command) -> bytes:
        keys = command.keys
        raw = kv.get(_record_key(command.session_id, keys))
        if raw is None:
            return NIL
        if len(keys) == 1:
            return raw
        found = _walk(_decode(raw), keys)
        return NIL if found is _NOTHING else _encode(found)

    def _exists(self, kv: KeyValue, command: Command) -> bytes:
        keys = command.keys
        raw = kv.get(_record_key(command.session_id, keys))
        if raw is None:
            return FALSE
        return TRUE if len(keys) == 1 or _walk(_decode(raw), keys) is not _NOTHING else FALSE

    def _set(self, kv: KeyValue, command: Command) -> bytes:
        keys = command.keys
        key = _record_key(command.session_id, keys)
        value = command.value
        if len(value) > self._max_value_bytes:
            raise self._too_large(command, len(value))
        if len(keys) == 1:
            check_value(value, lambda: _name(command))
            kv.put(key, value)
            return b""
        new = _parsed(value, command)
        raw = kv.get(key)
        root = None if raw is None else _decode(raw)
        if root is None:
            root = {}
        _put_below(root, command, new)
        self._put_root(kv, key, root, command)
        return b""

    def _remove(self, kv: KeyValue, command: Command) -> bytes:
        keys = command.keys
        key = _record_key(command.session_id, keys)
        raw = kv.get(key)
        if raw is None:
            return FALSE
        if len(keys) == 1:
            kv.delete(key)
            return TRUE
        root = _decode(raw)
        parent = _walk(root, keys[:-1])
        if _child(parent, keys[-1]) is _NOTHING:
            return FALSE
        del parent[keys[-1] if isinstance(parent, dict) else int(keys[-1])]
        kv.put(key, _encode(root))
        return TRUE

    def _get_all(self, kv: KeyValue, command: Command) -> bytes:
        if command.keys:
            raw = kv.get(_record_key(command.session_id, command.keys))
            found = _NOTHING if raw is None else _walk(_decode(raw), command.keys)
            if found is _NOTHING or found is None:
                return _encode({})
            if not isinstance(found, dict):
                raise _wrong_type(command, len(command.keys), found)
            return _encode(found)
        prefix = _tree_prefix(command.session_id)
        skip = len(prefix)
        size = 0
        tree = {}
        for key, value in kv.scan(prefix):
            size += len(key) + len(value)
            if size > MAX_TREE_BYTES:
                raise TooLargeError(f"GET_ALL: the answer would exceed {MAX_TREE_BYTES} bytes; ask for single keys")
            tree[key[skip:].decode()] = msgspec.Raw(value)
        return _encode(tree)

    def _remove_all(self, kv: KeyValue, command: Command) -> bytes:
        if not command.keys:
            for key, _value in list(kv.scan(_tree_prefix(command.session_id))):
                kv.delete(key)
            return b""
        key = _record_key(command.session_id, command.keys)
        raw = kv.get(key)
        if raw is None:
            return b""
        root = _decode(raw)
        found = _walk(root, command.keys)
        if found is _NOTHING or found is None:
            return b""
        if not isinstance(found, dict):
            raise _wrong_type(command, len(command.keys), found)
        found.clear()
        kv.put(key, _encode(root))
        return b""

    def _put_record(self, kv: KeyValue, command: Command) -> bytes:
        kv.put(b"r" + command.session_id, command.value)
        return b""

    def _end_session(self, kv: KeyValue, command: Command) -> bytes:
        kv.delete(b"r" + command.session_id)
        for key, _value in list(kv.scan(_tree_prefix(command.session_id))):
            kv.delete(key)
        return b""

    def _put_root(self, kv: KeyValue, key: bytes, root: object, command: Command) -> None:
        raw = _encode(root)
        if len(raw) > self._max_value_bytes:
            raise self._too_large(command, len(raw))
        kv.put(key, raw)

    def _too_large(self, command: Command, size: int) -> TooLargeError:
        return TooLargeError(
            f"{_name(command)}: the value at the top-level key would have {size} bytes, "
            f"{self._max_value_bytes} are allowed"
        )


def records(kv: KeyValue) -> list[tuple[str, bytes]]:
    """Return every session's id and record."""
    return [(key[1:].decode(), value) for key, value in kv.scan(b"r")]


def _tree_prefix(session_id: bytes) -> bytes:
    return b"d" + bytes((len(session_id),)) + session_id


def _record_key(session_id: bytes, keys: Sequence[str]) -> bytes:
    depth = len(keys)
    if not 1 <= depth <= MAX_DEPTH:
        raise InvalidError(f"a key chain has 1 to {MAX_DEPTH} keys, this one has {depth}")
    key = keys[0].encode()
    if len(key) > MAX_KEY_BYTES:
        raise TooLargeError(f"a top-level key has at most {MAX_KEY_BYTES} bytes, this one has {len(key)}")
    return b"d" + bytes((len(session_id),)) + session_id + key


def check_value(value: bytes, name: Callable[[], str]) -> None:
    """Raise ``InvalidError`` unless ``value`` is one MessagePack value; ``name`` says whose it is."""
    try:
        _check(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"{name()}: the value is no MessagePack: {error}") from None


def _parsed(value: bytes, command: Command) -> Any:
    try:
        return _decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"{_name(command)}: the value is no MessagePack: {error}") from None


def _child(parent: Any, key: str) -> Any:
    """Return what a map or list has at ``key``."""
    if isinstance(parent, dict):
        return parent.get(key, _NOTHING)
    if isinstance(parent, list) and _is_index(key) and int(key) < len(parent):
        return parent[int(key)]
    return _NOTHING


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) < 10


def _walk(root: Any, keys: Sequence[str]) -> Any:
    """Return what stands at the key chain whose first key leads to ``root``."""
    node = root
    for key in keys[1:]:
        node = _child(node, key)
    return node


def _put_below(root: Any, command: Command, value: Any) -> None:
    """Set ``value`` at the command's key chain, making the maps that are missing on the way."""
    keys = command.keys
    node = root
    for depth in range(1, len(keys) - 1):
        below = _child(node, keys[depth])
        if below is _NOTHING or below is None:
            below = {}
            _put_child(node, command, depth, below)
        node = below
    _put_child(node, command, len(keys) - 1, value)


def _put_child(node: Any, command: Command, depth: int, value: Any) -> None:
    key = command.keys[depth]
    if isinstance(node, dict):
        node[key] = value
        return
    if not isinstance(node, list):
        raise _wrong_type(command, depth, node)
    if not _is_index(key):
        raise WrongTypeError(f"{_name(command)}: a list stands at {_chain(command, depth)}, {key!r} is no index of it")
    index = int(key)
    if index < len(node):
        node[index] = value
    elif index == len(node):
        node.append(value)
    else:
        raise InvalidError(f"{_name(command)}: the list at {_chain(command, depth)} has only {len(node)} items")


def _wrong_type(command: Command, depth: int, found: object) -> WrongTypeError:
    return WrongTypeError(f"{_name(command)}: {_type_name(found)} stands at {_chain(command, depth)}, no map")


def _type_name(value: object) -> str:
    if value is None:
        return "nil"
    names = {bool: "a bool", int: "a number", float: "a number", str: "a text", bytes: "bytes", list: "a list"}
    return names.get(type(value), "a scalar")


def _chain(command: Command, depth: int) -> str:
    return repr(list(command.keys[:depth]))


def _name(command: Command) -> str:
    verb = store_pb2.Verb.Name(store_pb2.Verb.ValueType(command.verb)).removeprefix("VERB_")
    return f"{verb} {_chain(command, len(command.keys))}"
