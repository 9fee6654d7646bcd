"""The engine whose data goes with the process."""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from socketcluster_store import documents
from socketcluster_store.engines.base import Command, Engine, EnginePartition, Outcome


class MemoryEngine(Engine):
    """Needs no lock: nobody else can open this process's memory."""

    name = "memory"

    def __init__(self, trees: documents.Documents) -> None:
        self._trees = trees

    async def open(self, number: int) -> EnginePartition:
        return MemoryPartition(number, self._trees.partition(number))


class MemoryPartition(EnginePartition):
    """A partition in memory; nothing suspends within ``apply``, so a batch cannot be seen half applied."""

    def __init__(self, number: int, trees: documents.Trees) -> None:
        self.number = number
        # nothing remembers the epoch of the process before; its opening lies milliseconds in the past at least
        self.epoch = time.time_ns() // 1_000_000
        self._kv = _MemoryKeyValue()
        self._trees = trees

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        return self._trees.apply(self._kv, batch)

    def next_expiry(self) -> float | None:
        return self._trees.next_expiry()

    async def records(self) -> list[tuple[str, bytes]]:
        return documents.records(self._kv)

    async def sync(self) -> None:
        """Have nothing to do."""

    async def close(self) -> None:
        self._kv = _MemoryKeyValue()


class _MemoryKeyValue:
    """A dictionary and the sorted list of its keys."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self.get = self._values.get

    def put(self, key: bytes, value: bytes, /) -> None:
        if key not in self._values:
            insort(self._keys, key)
        self._values[key] = value

    def delete(self, key: bytes, /) -> None:
        if self._values.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                return
            yield key, self._values[key]
