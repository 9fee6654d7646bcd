"""Which key chains are watched, and how often each has changed: kept with the partition.

A count is what makes a watcher sure: it knows how many changes it was told of, and after a takeover the next owner of
the partition knows how many there were. Where nothing is watched nothing is counted. A record for each::

    w <length of the session id> <session id> <hash of the key chain>   generation, count, key chain
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from socketcluster_store.data.expiries import Chain, hashed
from socketcluster_store.data.key_chains import Addressed, encode_chain, is_index, name_of
from socketcluster_store.data.key_value import KeyValue
from socketcluster_store.data.mutations import NIL
from socketcluster_store.errors import TooLargeError

MAX_WATCHES = 10_000
"""Watched key chains of a partition."""
BEGIN = ""
"""The operation of a change that is none: a watch begins here."""
STOP = "stop"
"""The operation of a change that is none: a watch has ended."""
END = "end"
"""The operation of the last change of a session."""

_NUMBERS = struct.Struct(">QQ")
_encode = msgspec.msgpack.Encoder().encode
_decode_chain = msgspec.msgpack.Decoder(Chain).decode


class KeyChange(NamedTuple):
    """What a watcher is told."""

    session_id: bytes
    watched: Chain
    generation: int
    number: int
    keys: Chain
    operation: str
    value: bytes


class _Watch:
    __slots__ = ("chain", "count", "generation", "record", "session_id")

    def __init__(self, session_id: bytes, chain: Chain, record: bytes, generation: int, count: int) -> None:
        self.session_id = session_id
        self.chain = chain
        self.record = record
        self.generation = generation
        self.count = count


class Watches:
    """The watched key chains of one partition."""

    def __init__(self) -> None:
        self.any = False
        """Is there any? If not, nothing has to be noted."""
        self._trees: dict[bytes, dict[str | None, dict[Chain, _Watch]]] = {}  # by session id and top-level key
        self._count = 0
        self.changes: list[tuple[_Watch, KeyChange]] = []
        """What was noted since the last ``take``, each with its watch, which may be gone by now."""
        self._begun = 0

    def load(self, kv: KeyValue) -> None:
        """Take over what the partition remembers."""
        self._trees.clear()
        self.changes.clear()
        self._count = 0
        for key, value in kv.scan(b"w"):
            session_id = bytes(key[2 : 2 + key[1]])
            chain = _decode_chain(value[_NUMBERS.size :])
            self._add(_Watch(session_id, chain, bytes(key), *_NUMBERS.unpack_from(value)))
        self.any = self._count > 0

    def all(self) -> list[tuple[bytes, Chain]]:
        """Return every watched key chain with its session's id."""
        return [
            (watch.session_id, watch.chain)
            for tree in self._trees.values()
            for group in tree.values()
            for watch in group.values()
        ]

    def watch(self, kv: KeyValue, session_id: bytes, command: Addressed, tag: bytes) -> None:
        """Count the changes of a key chain from now on, if they are not counted yet; ``tag`` comes back in the first.

        Raises:
            TooLargeError: the key chain is too long, or too many are watched.
            ChainTooDeepError: it has too many keys.
        """
        encoded = encode_chain(command)
        chain = tuple(command.keys)
        watch = self._find(session_id, chain)
        if watch is None:
            if self._count >= MAX_WATCHES:
                raise TooLargeError(f"{name_of(command)}: {MAX_WATCHES} key chains of this partition are watched")
            record = hashed(b"w", session_id, encoded)
            watch = _Watch(session_id, chain, record, secrets.randbits(63), 0)
            self._add(watch)
            kv.put(record, _NUMBERS.pack(watch.generation, 0) + encoded)
        self._tell(watch, chain, BEGIN, tag, counts=False)

    def unwatch(self, kv: KeyValue, session_id: bytes, chain: Chain, *, keep: bool) -> None:
        """Count no longer, unless others watch too."""
        watch = self._find(session_id, chain)
        if watch is not None:
            self._tell(watch, chain, STOP, NIL, counts=False)
            if not keep:
                self._remove(kv, watch)

    def note(
        self,
        session_id: bytes,
        keys: Chain,
        operation: str,
        value: bytes,
        found: Callable[[Chain], bytes | None],
        *,
        moved: bool,
    ) -> None:
        """Note a change at a key chain, which is done.

        ``found`` returns what stands at one now. ``moved``: an item of a list was removed, and those after it moved up.
        """
        tree = self._trees.get(session_id)
        if tree is None or keys[0].startswith("\0"):
            return
        whole = tree.get(None)
        if whole:
            self._tell(whole[()], keys, operation, value)
        depth = len(keys)
        for chain, watch in tree.get(keys[0], {}).items():
            if moved and len(chain) >= depth and chain[: depth - 1] == keys[:-1]:
                affected = is_index(chain[depth - 1]) and int(chain[depth - 1]) >= int(keys[-1])
            elif keys[: len(chain)] == chain:
                self._tell(watch, keys, operation, value)
                continue
            else:
                affected = chain[:depth] == keys
            if affected:
                there = found(chain)
                self._tell(watch, chain, "remove" if there is None else "set", NIL if there is None else there)

    def emptied(self, session_id: bytes) -> None:
        """Note that a whole tree was emptied."""
        for group in self._trees.get(session_id, {}).values():
            for watch in group.values():
                self._tell(watch, watch.chain, "remove" if watch.chain else "remove_all", NIL)

    def ended(self, kv: KeyValue, session_id: bytes) -> None:
        """Note that a session has ended, and count no longer."""
        for group in list(self._trees.get(session_id, {}).values()):
            for watch in list(group.values()):
                self._tell(watch, watch.chain, END, NIL)
                self._remove(kv, watch)

    def begin(self) -> None:
        """Remember which changes are noted from now on."""
        self._begun = len(self.changes)

    def undo(self) -> None:
        """Forget the changes that were noted since ``begin``."""
        for watch, _change in self.changes[self._begun :]:
            watch.count -= 1
        del self.changes[self._begun :]

    def take(self, kv: KeyValue) -> list[KeyChange]:
        """Put the counts of what changed since the last call, and return it in order."""
        taken, self.changes = self.changes, []
        for watch in {id(watch): watch for watch, _change in taken}.values():
            if self._find(watch.session_id, watch.chain) is watch:
                kv.put(watch.record, _NUMBERS.pack(watch.generation, watch.count) + _encode(watch.chain))
        return [change for _watch, change in taken]

    def _tell(self, watch: _Watch, keys: Iterable[str], operation: str, value: bytes, *, counts: bool = True) -> None:
        watch.count += counts
        change = KeyChange(
            watch.session_id, watch.chain, watch.generation, watch.count, tuple(keys), operation, bytes(value)
        )
        self.changes.append((watch, change))

    def _find(self, session_id: bytes, chain: Chain) -> _Watch | None:
        return self._trees.get(session_id, {}).get(chain[0] if chain else None, {}).get(chain)

    def _add(self, watch: _Watch) -> None:
        top = watch.chain[0] if watch.chain else None
        self._trees.setdefault(watch.session_id, {}).setdefault(top, {})[watch.chain] = watch
        self._count += 1
        self.any = True

    def _remove(self, kv: KeyValue, watch: _Watch) -> None:
        kv.delete(watch.record)
        tree = self._trees[watch.session_id]
        top = watch.chain[0] if watch.chain else None
        del tree[top][watch.chain]
        if not tree[top]:
            del tree[top]
        if not tree:
            del self._trees[watch.session_id]
        self._count -= 1
        self.any = self._count > 0
