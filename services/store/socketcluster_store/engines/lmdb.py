"""The engine that keeps each partition in an LMDB environment of its own.

A commit writes to the operating system, not to the disk: it survives the death of this process. What a power cut leaves
is decided by ``fsync``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import lmdb

from socketcluster_runtime.logging import get_logger
from socketcluster_store import documents
from socketcluster_store.engines.base import READS, Command, Engine, EnginePartition, Outcome
from socketcluster_store.errors import EngineError, PartitionLockedError

log = get_logger(__name__)

MAP_BYTES = 16 * 1024**3
"""The most that a partition can hold. Only address space: the file grows with its data."""

_EPOCH_KEY = b"e"


class LmdbEngine(Engine):
    """Partitions below ``folder``, each guarded by a lock on a file that the kernel frees when its holder dies."""

    name = "lmdb"

    def __init__(self, folder: Path, trees: documents.Documents, *, sync_each_commit: bool = False) -> None:
        self._folder = folder
        self._trees = trees
        self._sync_each_commit = sync_each_commit

    async def open(self, number: int) -> EnginePartition:
        path = self._folder / f"{number:02}"
        try:
            lock = _lock(path)
        except OSError as error:
            raise EngineError(f"cannot open partition {number}: {error}") from None
        try:
            environment, epoch = await asyncio.to_thread(_open, path)
        except (lmdb.Error, OSError) as error:
            os.close(lock)
            raise EngineError(f"cannot open partition {number} in {path}: {error}") from None
        return LmdbPartition(number, epoch, environment, lock, self._trees.partition(number), self._sync_each_commit)


class LmdbPartition(EnginePartition):
    """A partition on disk; nothing suspends between the first command of a batch and its commit."""

    def __init__(
        self,
        number: int,
        epoch: int,
        environment: lmdb.Environment,
        lock: int,
        trees: documents.Trees,
        sync_each_commit: bool,
    ) -> None:
        self.number = number
        self.epoch = epoch
        self._environment = environment
        self._lock = lock
        self._trees = trees
        self._sync_each_commit = sync_each_commit
        self._dirty = True
        self._syncing = asyncio.Lock()

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        write = any(command.verb not in READS for command in batch)
        try:
            with self._environment.begin(write=write) as transaction:
                outcomes = self._trees.apply(_Transaction(transaction), batch)
        except lmdb.Error as error:
            self._trees.forget()
            raise EngineError(f"partition {self.number}: {error}") from error
        if write:
            self._dirty = True
            if self._sync_each_commit:
                await self.sync()
        return outcomes

    def next_expiry(self) -> float | None:
        return self._trees.next_expiry()

    async def records(self) -> list[tuple[str, bytes]]:
        with self._environment.begin() as transaction:
            return documents.records(_Transaction(transaction))

    async def sync(self) -> None:
        async with self._syncing:
            if not self._dirty:
                return
            self._dirty = False
            try:
                await asyncio.to_thread(self._environment.sync, True)
            except lmdb.Error as error:
                self._dirty = True
                raise EngineError(f"partition {self.number} cannot be synced: {error}") from error

    async def close(self) -> None:
        try:
            await self.sync()
        finally:
            self._environment.close()
            os.close(self._lock)


class _Transaction:
    """An LMDB transaction as a ``KeyValue``."""

    def __init__(self, transaction: lmdb.Transaction) -> None:
        self._transaction = transaction
        self.get = cast(Callable[[bytes], bytes | None], transaction.get)
        self.put = cast(Callable[[bytes, bytes], bool], transaction.put)
        self.delete = cast(Callable[[bytes], bool], transaction.delete)

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor() as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cast(Iterator[tuple[bytes, bytes]], iter(cursor)):
                if not key.startswith(prefix):
                    return
                yield key, value


def _lock(path: Path) -> int:
    """Take the lock of a partition's folder; return the descriptor that holds it."""
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise PartitionLockedError(f"another process owns {path}") from None
        raise
    return descriptor


def _open(path: Path) -> tuple[lmdb.Environment, int]:
    """Open the environment, and raise its epoch."""
    environment = lmdb.open(
        str(path),
        map_size=MAP_BYTES,
        max_dbs=0,
        lock=False,  # owner.lock lets only one process in, and one thread of it makes transactions
        sync=False,
        metasync=False,
        readahead=False,
        meminit=False,
        max_spare_txns=1,
    )
    with contextlib.ExitStack() as undo:
        undo.callback(environment.close)
        with environment.begin(write=True) as transaction:
            epoch = int.from_bytes(bytes(transaction.get(_EPOCH_KEY) or b""), "big") + 1
            transaction.put(_EPOCH_KEY, epoch.to_bytes(8, "big"))
        undo.pop_all()
    return environment, epoch
