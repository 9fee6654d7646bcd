"""The engine that keeps each partition in an LMDB environment of its own, with a journal before it.

A batch is applied when its record is in the journal: a memory copy that survives the death of this process. Now and
then what was written is *checkpointed*: put into LMDB in one commit, which is always synced, so that LMDB's file is
whole whatever happens. ``fsync`` decides when the journal is forced to the disk, for the sake of a power cut. Opening
replays what is in the journal and not in LMDB. docs/design/store.md says more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import lmdb

from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data import applied_log
from socketcluster_store.data.trees import records
from socketcluster_store.engine import Engine, EnginePartition
from socketcluster_store.engines.lmdb import environments, files, inspection, journal
from socketcluster_store.engines.lmdb.checkpoints import Checkpoints
from socketcluster_store.engines.lmdb.journal import Writes
from socketcluster_store.engines.lmdb.memtable import Memtable
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.engines.shared_folder.manifests import DATA, JOURNALS, Manifest, lacking
from socketcluster_store.engines.shared_folder.membership import FolderMembership
from socketcluster_store.engines.shared_folder.partition_lock import PartitionLock, PartitionLocks
from socketcluster_store.engines.shared_folder.register import Register
from socketcluster_store.errors import EngineError, FencedError, IncompleteError, PartitionLockedError, UnsyncedError
from socketcluster_store.executor import Executor, ExecutorOptions
from socketcluster_store.ownership.membership import Membership

CHECKPOINT_AFTER = 10.0
"""Seconds that a write waits for its checkpoint when the journal does not fill before: it keeps the replay short."""
LITTLE_SPACE = 16 * 1024 * 1024
"""Bytes left on the disk that are worth saying when it fails."""


class LmdbEngine(Engine):
    """Partitions below ``folder``, locked in the name of ``store_id``."""

    name = "lmdb"
    descriptors = 9  # each mapping has one of its own, and LMDB two
    advice = ". Mend what this says, or put a copy of the partition's folder there"

    def __init__(
        self,
        folder: Path,
        options: ExecutorOptions,
        *,
        store_id: str = "",
        sync_each_commit: bool = False,
        segment_bytes: int = journal.SEGMENT_BYTES,
    ) -> None:
        environments.map_large_lists()
        self._folder = folder
        self._store_id = store_id
        self._register = Register(folder)
        self._locks = PartitionLocks(folder, store_id, self._register, inspection.opened_here)
        self._options = options
        self._sync_each_commit = sync_each_commit
        self._segment_bytes = segment_bytes
        self._checkpoints = Checkpoints()
        self.unsynced: asyncio.Event = asyncio.Event()

    async def open(self, number: int) -> EnginePartition:
        return await self._open(number, lambda: self._locks.acquire(number, files.copy))

    async def take(self, number: int, holder: str) -> EnginePartition:
        return await self._open(number, lambda: self._locks.take(number, holder, files.copy))

    def membership(self, hang_timeout: float, on_change: Callable[[], None]) -> Membership:
        return FolderMembership(self._folder.parent / "stores", self._store_id, hang_timeout, on_change, self.name)

    async def _open(self, number: int, acquire: Callable[[], PartitionLock]) -> EnginePartition:
        def do() -> tuple[PartitionLock, files.Opened]:
            lock = acquire()
            try:
                opened = files.open_files(lock.folder, self._segment_bytes, lock.manifest)
                try:
                    self._register.note(number, lock.folder, opened.manifest)
                except BaseException:
                    opened.close()
                    raise
                return lock, opened
            except BaseException as error:
                fenced = lock.fenced
                if isinstance(error, UnsyncedError):
                    lock.distrust(str(error))
                lock.release()
                if fenced and isinstance(error, Exception):  # the files were taken away meanwhile
                    raise FencedError(f"partition {number} in {lock.folder} was taken over: this store hung") from error
                if isinstance(error, PartitionLockedError):
                    raise
                if isinstance(error, IncompleteError):
                    raise lacking(lock.folder.parent, number, str(error)) from None
                if isinstance(error, lmdb.Error | OSError | EngineError):
                    raise EngineError(f"cannot open partition {number} in {lock.folder}: {error}") from None
                raise

        try:
            lock, opened = await asyncio.to_thread(do)
        except (lmdb.Error, OSError) as error:
            raise EngineError(f"cannot open partition {number} in {self._folder}/{number:02}: {error}") from None
        return LmdbPartition(
            number,
            opened,
            lock,
            Executor(number, self._options),
            self._checkpoints,
            self._sync_each_commit,
            self.unsynced,
        )


class LmdbPartition(EnginePartition):
    """A partition on disk. One batch is applied at a time, and nothing suspends unless the journal is full."""

    def __init__(
        self,
        number: int,
        opened: files.Opened,
        lock: PartitionLock,
        executor: Executor,
        checkpoints: Checkpoints,
        sync_each_commit: bool,
        unsynced: asyncio.Event,
    ) -> None:
        self.number = number
        self.epoch = opened.epoch
        self.losses = opened.losses
        self._path = lock.folder
        self._environment = opened.environment
        self._data = opened.data
        self._journal = opened.journal
        self._lock = lock
        self._manifest = opened.manifest
        self._manifest_file = (self._path / manifests.NAME).stat()
        lock.keep_an_eye_on(manifests.NAME, self._manifest_file)
        for name, descriptor in ((DATA, opened.data), *zip(JOURNALS, opened.journal.descriptors, strict=True)):
            lock.keep_an_eye_on(name, os.fstat(descriptor))
        self._executor = executor
        self.clock = executor.clock
        self._checkpoints = checkpoints
        self._sync_each_commit = sync_each_commit
        self._reader = environments.Reader(opened.environment)
        self._memtable = Memtable(self._reader, opened.written[0])
        for written in opened.written[1:]:
            self._memtable.freeze(written)
        self._turn = asyncio.Lock()  # held while a batch waits for room; those that come after it wait behind it
        self._waiting = 0
        self._syncing = asyncio.Lock()
        self._unsynced = unsynced
        unsynced.set()
        self._written = 1  # the epoch
        self._synced = 0
        self._checkpointing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = self._arm(CHECKPOINT_AFTER)
        self._failure: EngineError | None = None  # of the last checkpoint
        self._retry_at = 0.0

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        outcomes = self.apply_now(batch)
        return outcomes if isinstance(outcomes, list) else await outcomes

    def apply_now(self, batch: Sequence[Command]) -> list[Outcome] | Awaitable[list[Outcome]]:
        self._lock.check()
        if self._waiting:
            return self._apply_later(batch, None)
        outcomes = self._carry_out(batch)
        writes = self._memtable.batch
        if writes:
            record = journal.encode(writes)
            if not self._journal.append(record):
                return self._apply_later(batch, (outcomes, record))
            self._memtable.keep()
            self._written += 1
            self._unsynced.set()
            if self._timer is None:
                self._timer = self._arm(CHECKPOINT_AFTER)
        if self._sync_each_commit and self._written != self._synced:  # reads may be of what is not on the disk yet
            return self._synced_outcomes(outcomes)
        self._lock.check()
        return outcomes

    async def _apply_later(self, batch: Sequence[Command], done: tuple[list[Outcome], bytes] | None) -> list[Outcome]:
        outcomes = await self._apply_in_turn(batch, done)
        self._lock.check()
        return await self._synced_outcomes(outcomes) if self._sync_each_commit else outcomes

    async def _synced_outcomes(self, outcomes: list[Outcome]) -> list[Outcome]:
        await self.sync()
        self._lock.check()
        return outcomes

    def next_expiry(self) -> float | None:
        return self._executor.next_expiry()

    async def records(self) -> list[tuple[str, bytes]]:
        return records(self._memtable)

    async def applied(self) -> list[tuple[bytes, bytes]]:
        return list(self._memtable.scan(applied_log.PREFIX))

    @property
    def fenced(self) -> bool:
        return self._lock.fenced

    @property
    def taken(self) -> bool:
        return self._lock.taken

    @property
    def distrusted(self) -> str:  # type: ignore[override]
        return self._lock.distrusted

    async def sync(self) -> None:
        self._lock.check()
        written = self._written
        if self._synced >= written:
            return
        async with self._syncing:  # who waited here finds the work done, if it began after its write
            if self._synced >= written:
                return
            mark = self._written
            try:
                await asyncio.to_thread(self._journal.sync)
            except OSError as error:
                self._lock.distrust(str(self._error("cannot be synced", error)), self._journal.end)
                self._lock.check()
            self._synced = mark
            self._journal.keep_room()  # the first one is the opening's

    async def close(self) -> None:
        await self._rest()
        try:
            with contextlib.suppress(FencedError):
                await self.sync()
                generation, crc = self._journal.position
                await self._note(replace(self._manifest, end_generation=generation, end_crc=crc))
        finally:
            await self._rest()
            self._reader.close()
            self._journal.close()
            self._environment.close()
            os.close(self._data)
            self._checkpoints.over(self.number)
            self._lock.release()

    async def _note(self, manifest: Manifest) -> None:
        """Have the manifest say what there has to be at least from now on; nobody waits for the disk to have it."""
        with contextlib.suppress(OSError):
            self._manifest = await asyncio.to_thread(manifests.renew, self._path, manifest, self._manifest_file)

    async def _rest(self) -> None:
        """Wait for the checkpoint under way, and begin none by the clock."""
        if self._checkpointing is not None:
            await asyncio.wait({self._checkpointing})
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _error(self, what: str, error: Exception) -> EngineError:
        with contextlib.suppress(OSError):  # LMDB calls a full disk an input/output error, too
            free = shutil.disk_usage(self._path).free
            if free < LITTLE_SPACE:
                return EngineError(
                    f"partition {self.number} in {self._path} {what}: {error}; the disk has {free} bytes left"
                )
        return EngineError(f"partition {self.number} in {self._path} {what}: {error}")

    # Batches

    def _carry_out(self, batch: Sequence[Command]) -> list[Outcome]:
        """Leave what the batch writes in ``memtable.batch``."""
        try:
            return self._executor.apply(self._memtable, batch)
        except BaseException as error:
            self._forget_batch()
            if isinstance(error, lmdb.Error):
                raise self._error("cannot be read", error) from error
            raise

    def _forget_batch(self) -> None:
        self._memtable.discard()
        self._executor.forget()

    async def _apply_in_turn(self, batch: Sequence[Command], done: tuple[list[Outcome], bytes] | None) -> list[Outcome]:
        """Apply a batch after those that wait already; of one that is ``done``, make room for its record."""
        self._waiting += 1
        try:
            async with self._turn:
                if done is None:
                    outcomes = self._carry_out(batch)
                    record = journal.encode(self._memtable.batch)
                else:
                    outcomes, record = done
                try:
                    if record:
                        await self._write(record)
                        self._written += 1
                        self._unsynced.set()
                        if self._timer is None:
                            self._timer = self._arm(CHECKPOINT_AFTER)
                except BaseException:
                    self._forget_batch()
                    raise
                return outcomes
        finally:
            self._waiting -= 1

    async def _write(self, record: bytes) -> None:
        """Write the batch that was carried out: to the journal, or to LMDB if no journal can hold it."""
        large = not self._journal.holds(record)
        while large or not self._append(record):
            if self._memtable.frozen:
                await self._wait_for_checkpoint()
            elif large:
                self._start_checkpoint(self._memtable.batch)
                await self._wait_for_checkpoint()
                self._memtable.discard()  # the snapshot has it
                return
            else:
                self._start_checkpoint()
        self._memtable.keep()

    def _append(self, record: bytes) -> bool:
        self._lock.check()  # while it waited for room, the partition may have been taken over
        return self._journal.append(record)

    async def _wait_for_checkpoint(self) -> None:
        loop = asyncio.get_running_loop()
        if self._checkpointing is None:
            if self._failure is not None and loop.time() < self._retry_at:
                raise self._failure
            self._checkpointing = asyncio.create_task(self._checkpoint({}))
        await asyncio.wait({self._checkpointing})
        if self._failure is not None:
            raise self._failure

    # Checkpoints

    def _arm(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._lock.fenced:
            return
        if self._memtable.frozen:
            if self._checkpointing is None:
                self._checkpointing = asyncio.create_task(self._checkpoint({}))
        elif not self._memtable.clean:
            self._start_checkpoint()

    def _start_checkpoint(self, more: Writes | None = None) -> None:
        """Let the other segment take what comes, and put what was written so far into LMDB, and ``more`` with it."""
        self._lock.check()
        self._journal.turn()
        self._memtable.freeze({})
        self._checkpointing = asyncio.create_task(self._checkpoint(more or {}))

    async def _checkpoint(self, more: Writes) -> None:
        try:
            async with self._checkpoints.turns:
                await self._commit({**self._memtable.frozen_writes(), **more})
        except FencedError as error:
            self._failure = error
        except Exception as error:
            self._failure = self._error("cannot be written", error)
            if isinstance(error, lmdb.Error) and await asyncio.to_thread(
                environments.is_lost, self._environment, self._data
            ):
                self._lock.distrust(str(self._failure), self._journal.end)
                self._failure = FencedError(str(self._failure))
            unexpected = None if isinstance(error, lmdb.Error | OSError) else error
            pause = self._checkpoints.failed(self.number, self._failure, unexpected)
            self._retry_at = asyncio.get_running_loop().time() + pause
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._arm(pause)
        else:
            self._failure = None
            self._checkpoints.over(self.number)
            self._reader.close()
            self._reader.open()
            self._memtable.thaw()
            if not self._lock.taken:
                self._journal.append(
                    journal.encode({files.LASTING_KEY: environments.number(self._journal.generation - 1)})
                )
            if self._timer is None and not self._memtable.clean:
                self._timer = self._arm(CHECKPOINT_AFTER)
        finally:
            self._checkpointing = None

    async def _commit(self, writes: Writes) -> None:
        generation = self._journal.generation - 1
        writes |= environments.applied_writes(generation, self._journal.previous)
        while True:
            self._lock.check()
            try:
                transaction = self._environment.begin(write=True)
                try:
                    for some in environments.slices(writes):
                        environments.put(transaction, some)
                        await asyncio.sleep(0)
                except BaseException:
                    transaction.abort()
                    raise
                await asyncio.to_thread(environments.commit, self._environment, self._data, transaction, writes)
                if not self._lock.taken:
                    await self._note(replace(self._manifest, applied=generation))
                return
            except lmdb.MapFullError:
                self._reader.close()
                try:
                    environments.grow(self._environment)
                finally:
                    self._reader.open()
