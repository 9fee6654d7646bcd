"""When the values at key chains expire: kept with the partition, and in memory in the order of their time.

An expiry belongs to its key chain, not to what stands there: another value put there expires too. It goes with the
value, when that is removed or a map around it is; an item that moves to another index of its list leaves it behind.

A record for each, so that setting one does not rewrite the others::

    x <length of the session id> <session id> <hash of the key chain>   deadline in seconds since the epoch, key chain
"""

from __future__ import annotations

import heapq
import struct
from hashlib import blake2b

import msgspec

from socketcluster_store.data.key_chains import Addressed, encode_chain, tree_prefix
from socketcluster_store.data.key_value import KeyValue

Chain = tuple[str, ...]

_DEADLINE = struct.Struct(">d")
_decode_chain = msgspec.msgpack.Decoder(Chain).decode
_encode = msgspec.msgpack.Encoder().encode


def hashed(kind: bytes, session_id: bytes, chain: bytes) -> bytes:
    """Return the key of a record that belongs to a key chain, however long that is."""
    return tree_prefix(kind, session_id) + blake2b(chain, digest_size=16).digest()


class Expiries:
    """The expiries of one partition; times are seconds since the Unix epoch."""

    def __init__(self) -> None:
        self._trees: dict[bytes, dict[str, dict[Chain, float]]] = {}  # by session id and top-level key
        self._heap: list[tuple[float, bytes, Chain]] = []
        self._count = 0
        self._done: list[tuple[bytes, Chain, float | None]] | None = None

    def load(self, kv: KeyValue) -> None:
        """Take over what the partition remembers."""
        self._trees.clear()
        for key, value in kv.scan(b"x"):
            deadline = _DEADLINE.unpack_from(value)[0]
            session_id = bytes(key[2 : 2 + key[1]])
            chain = _decode_chain(value[_DEADLINE.size :])
            self._trees.setdefault(session_id, {}).setdefault(chain[0], {})[chain] = deadline
        self._rebuild()

    def __contains__(self, session_id: bytes) -> bool:
        return session_id in self._trees

    def get(self, session_id: bytes, chain: Chain) -> float | None:
        """Return when a key chain expires."""
        tree = self._trees.get(session_id)
        return None if tree is None else tree.get(chain[0], {}).get(chain)

    def record(self, session_id: bytes, command: Addressed, deadline: float) -> tuple[bytes, bytes]:
        """Return key and value of the record that ``set`` is to be given."""
        chain = encode_chain(command)
        return hashed(b"x", session_id, chain), _DEADLINE.pack(deadline) + chain

    def set(self, session_id: bytes, chain: Chain, deadline: float) -> None:
        """Note that a key chain expires; its record has been put."""
        self._note(session_id, chain, deadline)
        self._queue(session_id, chain, deadline)

    def remove(self, kv: KeyValue, session_id: bytes, chain: Chain) -> int:
        """Let a key chain not expire; return how many bytes its record had, 0 if there is none."""
        if self.get(session_id, chain) is None:
            return 0
        key = hashed(b"x", session_id, _encode(chain))
        record = kv.get(key)
        kv.delete(key)
        self._note(session_id, chain, None)
        return len(key) + len(record or b"")

    def remove_below(self, kv: KeyValue, session_id: bytes, chain: Chain, *, itself: bool) -> int:
        """Let nothing below a key chain expire, nor ``itself``; return how many bytes the records had."""
        depth = len(chain)
        tree = self._trees.get(session_id, {})
        groups = [tree.get(chain[0], {})] if chain else tree.values()
        below = [
            other for group in groups for other in group if other[:depth] == chain and (itself or len(other) > depth)
        ]
        return sum(self.remove(kv, session_id, other) for other in below)

    def move(self, kv: KeyValue, old: bytes, new: bytes) -> None:
        """Let the key chains of one tree expire in another one."""
        chains = [found for group in self._trees.get(old, {}).values() for found in group.items()]
        for chain, deadline in chains:
            self.remove(kv, old, chain)
            encoded = _encode(chain)
            kv.put(hashed(b"x", new, encoded), _DEADLINE.pack(deadline) + encoded)
            self.set(new, chain, deadline)

    def next(self) -> float | None:
        """Return when the next key chain expires."""
        heap = self._heap
        while heap:
            deadline, session_id, chain = heap[0]
            if self.get(session_id, chain) == deadline:
                return deadline
            heapq.heappop(heap)
        return None

    def due(self, now: float) -> tuple[bytes, Chain] | None:
        """Return the key chain whose time has come first."""
        deadline = self.next()
        return None if deadline is None or deadline > now else self._heap[0][1:]

    def begin(self) -> None:
        """Remember how to undo what follows."""
        self._done = []

    def undo(self) -> None:
        """Undo what was done since ``begin``; the records are the caller's."""
        done, self._done = self._done or [], None
        for session_id, chain, before in reversed(done):
            self._note(session_id, chain, before)
            if before is not None:  # the heap may have it no more
                self._queue(session_id, chain, before)

    def commit(self) -> None:
        """Let what was done since ``begin`` be."""
        self._done = None

    def _note(self, session_id: bytes, chain: Chain, deadline: float | None) -> None:
        tree = self._trees.setdefault(session_id, {})
        group = tree.setdefault(chain[0], {})
        before = group.pop(chain, None)
        if self._done is not None:
            self._done.append((session_id, chain, before))
        self._count += (deadline is not None) - (before is not None)
        if deadline is not None:
            group[chain] = deadline
        elif not group:
            del tree[chain[0]]
            if not tree:
                del self._trees[session_id]

    def _queue(self, session_id: bytes, chain: Chain, deadline: float) -> None:
        heapq.heappush(self._heap, (deadline, session_id, chain))
        if len(self._heap) > 2 * self._count + 64:
            self._rebuild()

    def _rebuild(self) -> None:
        """Leave what is out of date out of the heap, which has many of them."""
        self._heap = [
            (at, session_id, chain)
            for session_id, tree in self._trees.items()
            for group in tree.values()
            for chain, at in group.items()
        ]
        self._count = len(self._heap)
        heapq.heapify(self._heap)
