"""The engine whose data goes with the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from socketcluster_store import applied, documents
from socketcluster_store.claims import Claim, Claims
from socketcluster_store.engines.base import Command, Engine, EnginePartition, Outcome
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.errors import EngineError
from socketcluster_store.folder_membership import FolderMembership
from socketcluster_store.membership import Membership


class MemoryEngine(Engine):
    """Where several stores share a folder, a partition belongs to one of them; its data goes when it moves."""

    name = "memory"

    def __init__(self, folder: Path, trees: documents.Documents, *, store_id: str = "") -> None:
        self._folder = folder
        self._store_id = store_id
        self._claims = Claims(folder, store_id)
        self._trees = trees

    async def open(self, number: int) -> EnginePartition:
        return self._open(number, lambda: self._claims.claim(number))

    async def take(self, number: int, holder: str) -> EnginePartition:
        return self._open(number, lambda: self._claims.take(number, holder, lambda _former, _new: None))

    def membership(self, hang_timeout: float, on_change: Callable[[], None]) -> Membership:
        return FolderMembership(self._folder.parent / "stores", self._store_id, hang_timeout, on_change)

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
        self._kv = SortedMap()
        self._trees = trees
        self.clock = trees.clock

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
        return list(self._kv.scan(applied.PREFIX))

    @property
    def fenced(self) -> bool:
        return self._claim.fenced

    async def sync(self) -> None:
        """Have nothing to do."""

    async def close(self) -> None:
        self._kv = SortedMap()
        self._claim.release()
