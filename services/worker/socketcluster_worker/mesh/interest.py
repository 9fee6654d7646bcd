"""Which workers have members of which rooms: exact where there are few rooms, and never too few.

Rooms are told by the number of their bucket: there are ``BUCKETS`` of them, so that what a worker knows of the others'
rooms is bounded however many there are, and a bucket is told once whatever rooms come and go in it. Two rooms may share
one; a broadcast to a worker that has no member of its room is dropped there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from zlib import crc32

BUCKETS = 1 << 16

Buckets = dict[str, list[int]]
"""By namespace, in which buckets there are rooms."""


def bucket_of(room: str) -> int:
    """Return the bucket of a room."""
    return crc32(room.encode("utf-8", "surrogatepass")) % BUCKETS


class OwnRooms:
    """The rooms of this worker's clients."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}  # rooms by namespace and bucket

    def add(self, namespace: str, room: str) -> int | None:
        """Note that a room has its first member here; return its bucket if that is news to others."""
        counts = self._counts.setdefault(namespace, {})
        bucket = bucket_of(room)
        count = counts[bucket] = counts.get(bucket, 0) + 1
        return bucket if count == 1 else None

    def remove(self, namespace: str, room: str) -> int | None:
        """Note that a room has no member here any more; return its bucket if that is news to others."""
        counts = self._counts[namespace]
        bucket = bucket_of(room)
        if counts[bucket] > 1:
            counts[bucket] -= 1
            return None
        del counts[bucket]
        return bucket

    def listen(self, namespace: str) -> bool:
        """Note that a namespace has clients here, from now on; return whether that is news."""
        if namespace in self._counts:
            return False
        self._counts[namespace] = {}
        return True

    def all(self) -> Buckets:
        """Return what others are to know."""
        return {namespace: list(counts) for namespace, counts in self._counts.items()}


class OthersRooms:
    """The rooms of other workers' clients; each worker has a bit, and so a set of them is a number."""

    def __init__(self) -> None:
        self.unknown = 0
        """Those of whose rooms nothing is known: they are taken to have any."""
        self._listening: dict[str, int] = {}
        self._rooms: dict[str, dict[int, int]] = {}

    def find(self, namespace: str, rooms: Iterable[str] | None) -> int:
        """Return the workers that may have members of rooms, or, with ``None``, clients of the namespace."""
        found = self.unknown
        if rooms is None:
            return found | self._listening.get(namespace, 0)
        by_bucket = self._rooms.get(namespace)
        if by_bucket:
            for room in rooms:
                found |= by_bucket.get(bucket_of(room), 0)
        return found

    def know(self, bit: int, buckets: Buckets) -> None:
        """Take what a worker has."""
        self.forget(bit)
        self.unknown &= ~bit
        for namespace, its in buckets.items():
            self.listen(bit, namespace)
            for bucket in its:
                self.add(bit, namespace, bucket)

    def forget(self, bit: int) -> None:
        """Know nothing of a worker's rooms; it is in ``unknown`` from now on."""
        self.unknown |= bit
        for namespace in [name for name, workers in self._listening.items() if workers & bit]:
            self._listening[namespace] &= ~bit
            by_bucket = self._rooms[namespace]
            for bucket in [number for number, workers in by_bucket.items() if workers & bit]:
                self.remove(bit, namespace, bucket)

    def drop(self, bit: int) -> None:
        """Forget a worker that is gone."""
        self.forget(bit)
        self.unknown &= ~bit

    def listen(self, bit: int, namespace: str) -> None:
        """Note that a worker has clients of a namespace."""
        self._listening[namespace] = self._listening.get(namespace, 0) | bit
        self._rooms.setdefault(namespace, {})

    def add(self, bit: int, namespace: str, bucket: int) -> None:
        """Note that a worker has rooms in a bucket."""
        by_bucket = self._rooms.setdefault(namespace, {})
        by_bucket[bucket] = by_bucket.get(bucket, 0) | bit

    def remove(self, bit: int, namespace: str, bucket: int) -> None:
        """Note that it has none there any more."""
        by_bucket = self._rooms.get(namespace, {})
        left = by_bucket.get(bucket, 0) & ~bit
        if left:
            by_bucket[bucket] = left
        else:
            by_bucket.pop(bucket, None)


def bits(workers: int) -> Iterator[int]:
    """Return the bits of a set of workers."""
    while workers:
        bit = workers & -workers
        yield bit
        workers ^= bit
