"""What the data is kept in, as far as it knows: an ordered key-value transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class KeyValue(Protocol):
    """An ordered key-value transaction: what an engine gives ``trees`` with each batch."""

    def get(self, key: bytes, /) -> bytes | None:
        """Return the value at ``key``."""

    def put(self, key: bytes, value: bytes, /) -> object:
        """Set the value at ``key``, which has at most 511 bytes; a longer one fails the whole batch."""

    def delete(self, key: bytes, /) -> object:
        """Remove ``key``, if it is there."""

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that begin with ``prefix``, and their values, in order; nothing may be changed meanwhile."""
