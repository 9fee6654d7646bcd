"""What was written since the last checkpoint, over a snapshot of LMDB: together the ``KeyValue`` of a partition."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

from socketcluster_store.engines.lmdb.journal import Writes
from socketcluster_store.errors import EngineError

MAX_KEY_BYTES = 511
"""What LMDB allows."""
_MANY = 64
"""Keys that are cheaper sorted together than inserted one by one."""


class _Marker(bytes):
    """A value that is none, known by its identity."""


_MISSING = _Marker()


class Snapshot(Protocol):
    """What LMDB has."""

    get: Callable[[bytes], bytes | None]

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that begin with ``prefix``, and their values, in order."""


class Layer:
    """Writes by key; no key ever leaves it, so that those that are not sorted yet are the last ones of the dict."""

    __slots__ = ("_sorted", "writes")

    def __init__(self, writes: Writes) -> None:
        self.writes = writes
        self._sorted: list[bytes] = []

    def keys(self, prefix: bytes) -> list[bytes]:
        """Return the keys that begin with ``prefix``, in order."""
        keys = self._sorted
        new = len(self.writes) - len(keys)
        if new > _MANY:
            keys.extend(islice(reversed(self.writes), new))
            keys.sort()
        else:
            for key in islice(reversed(self.writes), new):
                insort(keys, key)
        start = end = bisect_left(keys, prefix)
        while end < len(keys) and keys[end].startswith(prefix):
            end += 1
        return keys[start:end]


class Memtable:
    """A batch's writes, over those in the journal, over those that are being checkpointed, over LMDB."""

    def __init__(self, snapshot: Snapshot, written: Writes) -> None:
        """Lay ``written`` over ``snapshot``."""
        self._snapshot = snapshot
        self.batch: Writes = {}
        """What the batch under way has written; nobody else sees it yet."""
        self._active = Layer(written)
        self._frozen: Layer | None = None
        self._layers: tuple[Writes, ...] = (self.batch, written)

    @property
    def frozen(self) -> bool:
        """Is a checkpoint to be made of what was frozen?"""
        return self._frozen is not None

    @property
    def clean(self) -> bool:
        """Has LMDB everything, but for what was frozen?"""
        return not self._active.writes

    # As a KeyValue

    def get(self, key: bytes, /) -> bytes | None:
        """Return the value at ``key``."""
        for writes in self._layers:
            value = writes.get(key, _MISSING)
            if value is not _MISSING:
                return value
        return self._snapshot.get(key)

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set the value at ``key``."""
        if len(key) > MAX_KEY_BYTES:
            raise EngineError(f"a key of {len(key)} bytes: at most {MAX_KEY_BYTES} are possible")
        self.batch[key] = value

    def delete(self, key: bytes, /) -> None:
        """Remove ``key``, if it is there."""
        self.batch[key] = None

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that begin with ``prefix``, and their values, in order; nothing may be changed meanwhile."""
        written: Writes = {}
        for layer in (self._frozen, self._active):
            if layer is not None and layer.writes:
                for key in layer.keys(prefix):
                    written[key] = layer.writes[key]
        for key, value in self.batch.items():
            if key.startswith(prefix):
                written[key] = value
        return self._merged(prefix, written) if written else self._snapshot.scan(prefix)

    def _merged(self, prefix: bytes, written: Writes) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(written)
        place = 0
        for key, value in self._snapshot.scan(prefix):
            while place < len(keys) and keys[place] < key:
                if (put := written[keys[place]]) is not None:
                    yield keys[place], put
                place += 1
            if key not in written:
                yield key, value
        for key in keys[place:]:
            if (put := written[key]) is not None:
                yield key, put

    # Of the partition

    def keep(self) -> None:
        """Take over the batch's writes, which are in the journal now."""
        self._active.writes.update(self.batch)
        self.batch.clear()

    def discard(self) -> None:
        """Forget the batch's writes."""
        self.batch.clear()

    def freeze(self, written: Writes) -> None:
        """Set the writes so far aside for a checkpoint; those that come now are added to ``written``."""
        self._frozen, self._active = self._active, Layer(written)
        self._layers = (self.batch, written, self._frozen.writes)

    def frozen_writes(self) -> Writes:
        """Return what was frozen."""
        return {} if self._frozen is None else self._frozen.writes

    def thaw(self) -> None:
        """Forget what was frozen: LMDB has it, and the snapshot shows it."""
        self._frozen = None
        self._layers = (self.batch, self._active.writes)
