"""Trees of values on key chains, on top of an ordered key-value transaction.

A record holds one top-level key of one tree, so that setting a key does not rewrite its session::

    d <length of the session id> <session id> <top-level key>    the value, MessagePack
    r <session id>                                               the session's record, see ``sessions``
    x ...                                                        when a key chain expires, see ``expiries``
    w ...                                                        that a key chain is watched, see ``watches``

What stands below a top-level key is inside its value, see ``key_chains``. Top-level keys that begin with a NUL are the
services' own: GET_ALL, REMOVE_ALL, COUNT and watchers of a whole tree pass over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import (
    CHANGES,
    END_SESSION,
    EXPIRE_DUE,
    PUT_RECORD,
    RENEW_SESSION,
    WATCHED,
    Command,
)
from socketcluster_store.data import mutations
from socketcluster_store.data.expiries import Chain
from socketcluster_store.data.indexes import Indexes
from socketcluster_store.data.key_chains import NOTHING, name_of, parsed, put, record_key, tree_prefix, walk, wrong_type
from socketcluster_store.data.key_value import KeyValue
from socketcluster_store.data.mutations import FALSE, NIL, TRUE, Mutation
from socketcluster_store.errors import InvalidError, SessionTooLargeError, TooLargeError
from socketcluster_store_client.packing import unpack

MIB = 1024 * 1024
MAX_TREE_BYTES = 32 * MIB
"""The largest answer to GET_ALL: it must fit a gRPC message."""
MAX_EXPIRY = 100 * 365 * 86400.0
"""Seconds of the longest expiry."""
EXPIRED_AT_ONCE = 128
"""Key chains whose values are removed by one EXPIRE_DUE; the rest stays due."""

MAX_TAG_BYTES = 64
"""Bytes of what a watch's first change repeats."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_check = msgspec.msgpack.Decoder(msgspec.Raw).decode
_decode_update = msgspec.msgpack.Decoder(tuple[bytes, msgspec.Raw]).decode


class Trees:
    """The trees of one partition, as commands on the transaction that has them.

    Args:
        indexes: what the commands keep beside the transaction.
        max_value_bytes: of a top-level value.
        max_session_bytes: of a session's tree.
        clock: the partition's.
    """

    def __init__(
        self, indexes: Indexes, *, max_value_bytes: int, max_session_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._sizes = indexes.sizes
        self._expiries = indexes.expiries
        self._watches = indexes.watches
        self._max_value_bytes = max_value_bytes
        self._max_session_bytes = max_session_bytes
        self._clock = clock
        self.verbs: dict[int, Callable[[KeyValue, Command], bytes]] = {
            store_pb2.VERB_GET: self._get,
            store_pb2.VERB_SET: self._set,
            store_pb2.VERB_EXISTS: self._exists,
            store_pb2.VERB_GET_ALL: self._get_all,
            store_pb2.VERB_REMOVE_ALL: self._remove_all,
            store_pb2.VERB_GET_RANGE: self._get_range,
            store_pb2.VERB_COUNT: self._count,
            store_pb2.VERB_EXPIRE: self._expire,
            store_pb2.VERB_UNEXPIRE: self._unexpire,
            store_pb2.VERB_GET_EXPIRY: self._get_expiry,
            store_pb2.VERB_UPDATE: self._update,
            **dict.fromkeys(mutations.MUTATIONS, self._mutate),
            store_pb2.VERB_REMOVE: self._remove,
        }
        """The verbs that a transaction may have."""
        self.outer_verbs: dict[int, Callable[[KeyValue, Command], bytes]] = {
            store_pb2.VERB_WATCH: self._watch,
            store_pb2.VERB_UNWATCH: self._unwatch,
            PUT_RECORD: self._put_record,
            END_SESSION: self._end_session,
            RENEW_SESSION: self._renew_session,
            EXPIRE_DUE: self._expire_due,
            CHANGES: self._changes,
            WATCHED: self._watched,
        }
        """The others."""

    # Reading

    def _get(self, kv: KeyValue, command: Command) -> bytes:
        keys = command.keys
        raw = kv.get(record_key(command.session_id, keys, command))
        if raw is None:
            return NIL
        if len(keys) == 1:
            return raw
        found = walk(_decode(raw), keys[1:])
        return NIL if found is NOTHING else _encode(found)

    def _exists(self, kv: KeyValue, command: Command) -> bytes:
        keys = command.keys
        raw = kv.get(record_key(command.session_id, keys, command))
        if raw is None:
            return FALSE
        return TRUE if len(keys) == 1 or walk(_decode(raw), keys[1:]) is not NOTHING else FALSE

    def _get_range(self, kv: KeyValue, command: Command) -> bytes:
        return mutations.get_range(self._holder(kv, command)[0], command, command.value)

    def _count(self, kv: KeyValue, command: Command) -> bytes:
        if command.keys:
            return mutations.count(self._holder(kv, command)[0], command)
        return _encode(sum(1 for _record in _own(kv, command.session_id)))

    def _get_all(self, kv: KeyValue, command: Command) -> bytes:
        if command.keys:
            found = walk(self._holder(kv, command)[0], command.keys)
            if found is NOTHING or found is None:
                return _encode({})
            if not isinstance(found, dict):
                raise wrong_type(command, found, "map")
            return _encode(found)
        skip = len(tree_prefix(b"d", command.session_id))
        size = 0
        tree = {}
        for key, value in _own(kv, command.session_id):
            size += len(key) + len(value)
            if size > MAX_TREE_BYTES:
                raise TooLargeError(f"GET_ALL: the answer would exceed {MAX_TREE_BYTES} bytes; ask for single keys")
            tree[key[skip:].decode()] = msgspec.Raw(value)
        return _encode(tree)

    # Changing

    def _set(self, kv: KeyValue, command: Command) -> bytes:
        keys = command.keys
        value = command.value
        if len(keys) == 1:
            key = record_key(command.session_id, keys, command)
            if len(value) > self._max_value_bytes:
                raise self._too_large(command, len(value))
            try:
                _check(value)
            except (msgspec.DecodeError, RecursionError) as error:
                raise InvalidError(f"{name_of(command)}: the value is no MessagePack: {error}") from None
            session_id = command.session_id
            if session_id and not self._sizes.fits(kv, session_id, key, len(value)):
                raise self._session_too_large(command)
            kv.put(key, value)
            if self._watches.any:
                self._note(command, "set", value, None)
            return b""
        holder, key, before = self._holder(kv, command)
        if len(value) > self._max_value_bytes:
            raise self._too_large(command, len(value))
        put(holder, command, parsed(value, command))
        self._put(kv, command, key, _encode(holder[keys[0]]), before)
        if self._watches.any:
            self._note(command, "set", value, holder)
        return b""

    def _mutate(self, kv: KeyValue, command: Command) -> bytes:
        return self._change(kv, command, mutations.MUTATIONS[command.verb])

    def _remove(self, kv: KeyValue, command: Command, operation: str = "remove") -> bytes:
        wanted = command.value == TRUE
        keys = command.keys
        if len(keys) != 1:
            return self._change(kv, command, mutations.remove if operation == "remove" else mutations.expire)
        session_id = command.session_id
        key = record_key(session_id, keys, command)
        raw = kv.get(key)
        if raw is None:
            return NIL if wanted else FALSE
        self._sizes.remove(session_id, len(key) + len(raw))
        kv.delete(key)
        self._forget_expiries(kv, session_id, tuple(keys), itself=True)
        if self._watches.any:
            self._note(command, operation, NIL, {})
        return raw if wanted else TRUE

    def _update(self, kv: KeyValue, command: Command) -> bytes:
        """Set a value if what stands there is what the caller has seen; return whether, and else what it is."""
        try:
            seen, value = _decode_update(command.value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidError(f"{name_of(command)}: the value is not a hash and a value: {error}") from None
        found = self._get(kv, command)
        if blake2b(found, digest_size=16).digest() != seen:
            return _encode((False, msgspec.Raw(found)))
        self._set(kv, msgspec.structs.replace(command, value=bytes(value)))
        return _encode((True, None))

    def _remove_all(self, kv: KeyValue, command: Command) -> bytes:
        session_id = command.session_id
        if command.keys:
            return self._change(kv, command, mutations.remove_all)
        for key, value in list(_own(kv, session_id)):
            self._sizes.remove(session_id, len(key) + len(value))
            kv.delete(key)
        self._forget_expiries(kv, session_id, (), itself=True)
        if self._watches.any:
            self._watches.emptied(session_id)
        return b""

    def _change(
        self, kv: KeyValue, command: Command, mutate: Callable[[dict[str, Any], Command, bytes], Mutation]
    ) -> bytes:
        """Have ``mutate`` change the value at a top-level key, and keep what came of it."""
        holder, key, before = self._holder(kv, command)
        done = mutate(holder, command, command.value)
        if not done.operation:
            return done.result
        session_id = command.session_id
        root = holder.get(command.keys[0], NOTHING)
        if root is NOTHING:
            self._sizes.remove(session_id, len(key) + before)
            kv.delete(key)
        else:
            self._put(kv, command, key, _encode(root), before)
        if done.removed is not None or done.operation == "remove_all":
            gone = command.keys if done.removed is None else done.removed
            self._forget_expiries(kv, session_id, tuple(gone), itself=done.removed is not None)
        if self._watches.any:
            self._note(command, done.operation, done.value, holder)
        return done.result

    def _put(self, kv: KeyValue, command: Command, key: bytes, raw: bytes, before: int) -> None:
        """Put a top-level value in the place of one of ``before`` bytes, if it is not too much."""
        if len(raw) > self._max_value_bytes and len(raw) > before:  # what is too large may still shrink
            raise self._too_large(command, len(raw))
        if command.session_id and not self._sizes.fits(kv, command.session_id, key, len(raw)):
            raise self._session_too_large(command)
        kv.put(key, raw)

    def _holder(self, kv: KeyValue, command: Command) -> tuple[dict[str, Any], bytes, int]:
        """Return the top-level value under its key, or nothing; its record's key; and its size."""
        keys = command.keys
        key = record_key(command.session_id, keys, command)
        raw = kv.get(key)
        return ({}, key, 0) if raw is None else ({keys[0]: _decode(raw)}, key, len(raw))

    # Expiry

    def _expire(self, kv: KeyValue, command: Command) -> bytes:
        record_key(command.session_id, command.keys, command)
        seconds = parsed(command.value, command, unpack)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_EXPIRY:
            raise InvalidError(
                f"{name_of(command)}: an expiry is a number of seconds, 0 to {MAX_EXPIRY:.0f}, not {seconds!r:.50}"
            )
        if self._exists(kv, command) == FALSE:
            return FALSE
        session_id = command.session_id
        deadline = self._clock() + seconds
        key, record = self._expiries.record(session_id, command, deadline)
        self._put(kv, command, key, record, 0)
        self._expiries.set(session_id, tuple(command.keys), deadline)
        return TRUE

    def _unexpire(self, kv: KeyValue, command: Command) -> bytes:
        record_key(command.session_id, command.keys, command)
        return TRUE if self._forget_expiry(kv, command.session_id, tuple(command.keys)) else FALSE

    def _get_expiry(self, _kv: KeyValue, command: Command) -> bytes:
        record_key(command.session_id, command.keys, command)
        deadline = self._expiries.get(command.session_id, tuple(command.keys))
        return NIL if deadline is None else _encode(max(0.0, deadline - self._clock()))

    def _expire_due(self, kv: KeyValue, _command: Command) -> bytes:
        now = self._clock()
        for _ in range(EXPIRED_AT_ONCE):
            due = self._expiries.due(now)
            if due is None:
                break
            session_id, chain = due
            self._forget_expiry(kv, session_id, chain)
            self._remove(kv, Command(store_pb2.VERB_REMOVE, session_id, chain), "expire")
        return b""

    def _forget_expiry(self, kv: KeyValue, session_id: bytes, chain: Chain) -> int:
        size = self._expiries.remove(kv, session_id, chain)
        if size:
            self._sizes.remove(session_id, size)
        return size

    def _forget_expiries(self, kv: KeyValue, session_id: bytes, chain: Chain, *, itself: bool) -> None:
        if session_id in self._expiries:
            size = self._expiries.remove_below(kv, session_id, chain, itself=itself)
            self._sizes.remove(session_id, size)

    # Watching

    def _watch(self, kv: KeyValue, command: Command) -> bytes:
        if not command.keys and not command.session_id:
            raise InvalidError(f"{name_of(command)}: the application's tree is watched by key")
        if len(command.value) > MAX_TAG_BYTES:
            raise TooLargeError(f"{name_of(command)}: a watch's tag has at most {MAX_TAG_BYTES} bytes")
        self._watches.watch(kv, command.session_id, command, command.value)
        return b""

    def _unwatch(self, kv: KeyValue, command: Command) -> bytes:
        self._watches.unwatch(kv, command.session_id, tuple(command.keys), keep=command.value == TRUE)
        return b""

    def _changes(self, kv: KeyValue, _command: Command) -> bytes:
        return _encode(self._watches.take(kv))

    def _watched(self, _kv: KeyValue, _command: Command) -> bytes:
        return _encode(self._watches.all())

    def _note(self, command: Command, operation: str, value: bytes, holder: dict[str, Any] | None) -> None:
        def found(chain: Chain) -> bytes | None:
            there = walk(_decode(value), chain[1:]) if holder is None else walk(holder, chain)
            return None if there is NOTHING else _encode(there)

        keys = tuple(command.keys)
        moved = operation in ("remove", "expire") and isinstance(walk(holder, keys[:-1]), list)
        self._watches.note(command.session_id, keys, operation, value, found, moved=moved)

    # Sessions

    def _put_record(self, kv: KeyValue, command: Command) -> bytes:
        kv.put(b"r" + command.session_id, command.value)
        return b""

    def _end_session(self, kv: KeyValue, command: Command) -> bytes:
        session_id = command.session_id
        kv.delete(b"r" + session_id)
        for key, _value in list(kv.scan(tree_prefix(b"d", session_id))):
            kv.delete(key)
        self._forget_expiries(kv, session_id, (), itself=True)
        self._sizes.forget(session_id)
        if self._watches.any:
            self._watches.ended(kv, session_id)
        return b""

    def _renew_session(self, kv: KeyValue, command: Command) -> bytes:
        old, new = command.session_id, command.value
        before, after = tree_prefix(b"d", old), tree_prefix(b"d", new)
        for key, value in list(kv.scan(before)):
            kv.put(after + key[len(before) :], value)
            kv.delete(key)
        self._expiries.move(kv, old, new)
        self._sizes.forget(old)
        self._sizes.forget(new)
        if self._watches.any:
            self._watches.ended(kv, old)
        return b""

    def _too_large(self, command: Command, size: int) -> TooLargeError:
        return TooLargeError(
            f"{name_of(command)}: the value at the top-level key would have {size} bytes, "
            f"{self._max_value_bytes} are allowed"
        )

    def _session_too_large(self, command: Command) -> SessionTooLargeError:
        return SessionTooLargeError(
            f"{name_of(command)}: the session's data would exceed {self._max_session_bytes} bytes"
        )


def records(kv: KeyValue) -> list[tuple[str, bytes]]:
    """Return every session's id and record."""
    return [(key[1:].decode(), value) for key, value in kv.scan(b"r")]


def _own(kv: KeyValue, session_id: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of a tree that are the user's."""
    prefix = tree_prefix(b"d", session_id)
    services = prefix + b"\0"
    return ((key, value) for key, value in kv.scan(prefix) if not key.startswith(services))
