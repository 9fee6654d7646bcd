"""Writes that wait: several commands that hold together, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

from socketcluster_store.data.key_value import KeyValue


class WriteBuffer:
    """A ``KeyValue`` on top of another one, which nothing reaches before ``flush``."""

    def __init__(self, below: KeyValue) -> None:
        self._below = below
        self._writes: dict[bytes, bytes | None] = {}  # None: deleted

    def get(self, key: bytes, /) -> bytes | None:
        """Return the value at ``key``."""
        return self._writes[key] if key in self._writes else self._below.get(key)

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set the value at ``key``."""
        self._writes[key] = value

    def delete(self, key: bytes, /) -> None:
        """Remove ``key``, if it is there."""
        self._writes[key] = None

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that begin with ``prefix``, and their values, in order; nothing may be changed meanwhile."""
        mine = {key: value for key, value in self._writes.items() if key.startswith(prefix)}
        if not mine:
            yield from self._below.scan(prefix)
            return
        for key, value in sorted((dict(self._below.scan(prefix)) | mine).items()):
            if value is not None:
                yield key, value

    def flush(self) -> None:
        """Write everything that was put and deleted."""
        for key, value in self._writes.items():
            if value is None:
                self._below.delete(key)
            else:
                self._below.put(key, value)
        self._writes.clear()
