"""A ``KeyValue`` in memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator


class SortedMap:
    """A dictionary and the sorted list of its keys."""

    def __init__(self, values: dict[bytes, bytes] | None = None) -> None:
        self._values = {} if values is None else values
        self._keys = sorted(self._values)
        self.get = self._values.get

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set the value at ``key``."""
        if key not in self._values:
            insort(self._keys, key)
        self._values[key] = value

    def delete(self, key: bytes, /) -> None:
        """Remove ``key``, if it is there."""
        if self._values.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that begin with ``prefix``, and their values, in order; nothing may be changed meanwhile."""
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                return
            yield key, self._values[key]
