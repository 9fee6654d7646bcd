"""The engine whose data goes with the process."""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from socketcluster_store import documents, repeats
from socketcluster_store.claims import Claim, Claims
from socketcluster_store.engines.base import Command, Engine, EnginePartition, Outcome
from socketcluster_store.errors import EngineError


class MemoryEngine(Engine):
    """Where several stores share a folder, a partition belongs to one of them; its data goes when it moves."""

    name = "memory"

    def __init__(self, folder: Path, trees: documents.Documents, *, store_id: str = "") -> None:
        self._claims = Claims(folder, store_id)
        self._trees = trees

    async def open(self, number: int) -> EnginePartition:
        return self._open(number, lambda: self._claims.claim(number))

    async def take(self, number: int, holder: str) -> EnginePartition:
        return self._open(number, lambda: self._claims.take(number, holder, lambda _former, _new: None))

    def _open(self, number: int, claim: Callable[[], Claim]) -> EnginePartition:
        try:
            return MemoryPartition(number, claim(), self._trees.partition(number))
        except OSError as error:
            raise EngineError(f"cannot open partition {number}: {error}") from None


class MemoryPartition(EnginePartition):
    """A partition in memory; nothing suspends within ``apply``, so a batch cannot be seen half applied."""

    def __init__(self, number: int, claim: Claim, trees: documents.Trees) -> None:
        self.number = number
        self._claim = claim
        # nothing remembers the epoch of the process before; its opening lies milliseconds in the past at least
        self.epoch = time.time_ns() // 1_000_000
        self._kv = _MemoryKeyValue()
        self._trees = trees

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        return self.apply_now(batch)

    def apply_now(self, batch: Sequence[Command]) -> list[Outcome]:
        self._claim.check()
        return self._trees.apply(self._kv, batch)

    def next_expiry(self) -> float | None:
        return self._trees.next_expiry()

    async def records(self) -> list[tuple[str, bytes]]:
        return documents.records(self._kv)

    async def applied(self) -> list[tuple[bytes, bytes]]:
        return list(self._kv.scan(repeats.PREFIX))

    @property
    def fenced(self) -> bool:
        return self._claim.fenced

    async def sync(self) -> None:
        """Have nothing to do."""

    async def close(self) -> None:
        self._kv = _MemoryKeyValue()
        self._claim.release()


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
