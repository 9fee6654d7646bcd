"""Which partition something belongs to. Workers and stores must agree on it."""

from __future__ import annotations

from zlib import crc32

PARTITION_COUNT = 64
"""How many partitions the data of an application is cut into, over all stores."""


def partition_of(identifier: str) -> int:
    """Return the partition of a session id, a channel's name, or a top-level key of the application's own tree."""
    return crc32(identifier.encode()) % PARTITION_COUNT
