"""The engine whose data goes with the process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from socketcluster_runtime.secrets.private_files import FILE_MODE
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data import applied_log
from socketcluster_store.data.trees import records
from socketcluster_store.engine import Engine, EnginePartition
from socketcluster_store.engines.shared_folder.files import sync_folder
from socketcluster_store.engines.shared_folder.membership import FolderMembership
from socketcluster_store.engines.shared_folder.partition_lock import PartitionLock, PartitionLocks
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.errors import EngineError
from socketcluster_store.executor import Executor, ExecutorOptions
from socketcluster_store.ownership.membership import Membership

EPOCH_STEP = 20_000
"""By how much an epoch is higher than that of the opening before, at least: milliseconds. As microseconds they are more
than the epochs of channels that an opening reserves, which begin with it."""
_EPOCH = "epoch"


class MemoryEngine(Engine):
    """Where several stores share a folder, a partition belongs to one of them; its data goes when it moves."""

    name = "memory"
    descriptors = 2

    def __init__(self, folder: Path, options: ExecutorOptions, *, store_id: str = "") -> None:
        self._folder = folder
        self._store_id = store_id
        self._locks = PartitionLocks(folder, store_id)
        self._options = options

    async def open(self, number: int) -> EnginePartition:
        return await self._open(number, lambda: self._locks.acquire(number))

    async def take(self, number: int, holder: str) -> EnginePartition:
        return await self._open(number, lambda: self._locks.take(number, holder, _copy_epoch))

    def membership(self, hang_timeout: float, on_change: Callable[[], None]) -> Membership:
        return FolderMembership(self._folder.parent / "stores", self._store_id, hang_timeout, on_change, self.name)

    async def _open(self, number: int, acquire: Callable[[], PartitionLock]) -> EnginePartition:
        def do() -> tuple[PartitionLock, int]:
            lock = acquire()
            try:
                return lock, _next_epoch(lock.folder)
            except BaseException:
                lock.release()
                raise

        try:
            lock, epoch = await asyncio.to_thread(do)
        except OSError as error:
            raise EngineError(f"cannot open partition {number}: {error}") from None
        return MemoryPartition(number, lock, epoch, Executor(number, self._options))


class MemoryPartition(EnginePartition):
    """A partition in memory; nothing suspends within ``apply``, so a batch cannot be seen half applied."""

    def __init__(self, number: int, lock: PartitionLock, epoch: int, executor: Executor) -> None:
        self.number = number
        self.epoch = epoch
        self._lock = lock
        self._kv = SortedMap()
        self._executor = executor
        self.clock = executor.clock

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        return self.apply_now(batch)

    def apply_now(self, batch: Sequence[Command]) -> list[Outcome]:
        self._lock.check()
        return self._executor.apply(self._kv, batch)

    def next_expiry(self) -> float | None:
        return self._executor.next_expiry()

    async def records(self) -> list[tuple[str, bytes]]:
        return records(self._kv)

    async def applied(self) -> list[tuple[bytes, bytes]]:
        return list(self._kv.scan(applied_log.PREFIX))

    @property
    def fenced(self) -> bool:
        return self._lock.fenced

    @property
    def taken(self) -> bool:
        return self._lock.taken

    async def sync(self) -> None:
        """Have nothing to do."""

    async def close(self) -> None:
        self._kv = SortedMap()
        self._lock.release()


def _next_epoch(folder: Path) -> int:
    """Return the epoch of an opening, in milliseconds since 1970 or more, and keep it for the next one.

    Workers believe who has the higher one, and clocks are set back.
    """
    now = time.time_ns() // 1_000_000
    former = _read_epoch(folder)
    epoch = now if former is None else max(now, former + EPOCH_STEP)
    _write_epoch(folder, epoch)
    if former is None:
        sync_folder(folder)
    sync_folder(folder.parent)
    return epoch


def _copy_epoch(former: Path, new: Path) -> None:
    epoch = _read_epoch(former)
    if epoch is not None:
        _write_epoch(new, epoch)


def _read_epoch(folder: Path) -> int | None:
    try:
        return int.from_bytes((folder / _EPOCH).read_bytes()[:8], "big")
    except FileNotFoundError:
        return None


def _write_epoch(folder: Path, epoch: int) -> None:
    descriptor = os.open(folder / _EPOCH, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        os.pwrite(descriptor, epoch.to_bytes(8, "big"), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
