"""What a call changes of a partition that is kept elsewhere, until it is known that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.errors import EngineError

MAX_KEY_BYTES = 511


class Draft:
    """A ``KeyValue`` that remembers what it was before the batch, and before the batches of the call."""

    def __init__(self, values: SortedMap) -> None:
        self._values = values
        self._before_batch: dict[bytes, bytes | None] = {}
        self._before_call: dict[bytes, bytes | None] = {}
        self.get = values.get
        self.scan: Callable[[bytes], Iterator[tuple[bytes, bytes]]] = values.scan

    def put(self, key: bytes, value: bytes, /) -> None:
        if len(key) > MAX_KEY_BYTES:
            raise EngineError(f"a key of {len(key)} bytes: at most {MAX_KEY_BYTES} are possible")
        if key not in self._before_batch:
            self._before_batch[key] = self.get(key)
        self._values.put(key, value)

    def delete(self, key: bytes, /) -> None:
        if key not in self._before_batch:
            self._before_batch[key] = self.get(key)
        self._values.delete(key)

    def kept(self) -> int:
        """Return how many keys there were before the call."""
        changed = self._before_call.items()
        return len(self._values) + sum((before is not None) - (self.get(key) is not None) for key, before in changed)

    def changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what the call changes."""
        for key, before in self._before_call.items():
            value = self.get(key)
            if value != before:
                yield key, value

    def keep(self) -> bool:
        """Let the batch be part of the call; return whether it touched anything."""
        touched = bool(self._before_batch)
        for key, value in self._before_batch.items():
            self._before_call.setdefault(key, value)
        self._before_batch.clear()
        return touched

    def discard(self) -> None:
        """Undo the batch."""
        self._restore(self._before_batch)

    def commit(self) -> None:
        """Keep what the call changed."""
        self._before_call.clear()

    def undo(self) -> None:
        """Undo all batches of the call."""
        self._restore(self._before_call)

    def _restore(self, before: dict[bytes, bytes | None]) -> None:
        for key, value in before.items():
            if value is None:
                self._values.delete(key)
            else:
                self._values.put(key, value)
        before.clear()
