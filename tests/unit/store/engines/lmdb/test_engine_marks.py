"""An owner whose lock is marked as fenced, at each point at which a batch may be then: nothing is answered after it.

Whoever has marked it copies the files: what is written then may be in the copy or not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
from support.store import writer
from support.store.writer import put
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engines.lmdb import environments
from socketcluster_store.engines.lmdb.engine import LmdbPartition
from socketcluster_store.errors import FencedError

READ = [Command(store_pb2.VERB_GET, b"left", ["n"])]


def write(size: int = 100) -> list[Command]:
    return [Command(store_pb2.VERB_SET, b"s", ["k"], b"\xc5" + size.to_bytes(2, "big") + bytes(size))]


def mark(partition: LmdbPartition) -> None:
    """Fence it, as a store does that takes it over."""
    lock = os.open(partition._path / "owner.lock", os.O_WRONLY)
    os.pwrite(lock, b"\1", 0)
    os.close(lock)


async def opened(folder: Path, *, always: bool = False) -> LmdbPartition:
    made = await writer.engine(folder, always=always).open(0)
    assert isinstance(made, LmdbPartition)
    return made


def marking(partition: LmdbPartition, do: Callable[..., Any]) -> Callable[..., Any]:
    """Return what does the same, and marks the lock then."""

    def done(*args: Any, **options: Any) -> Any:
        result = do(*args, **options)
        mark(partition)
        return result

    return done


async def full(partition: LmdbPartition) -> None:
    """Leave no room in the journal: one segment waits to be checkpointed, and the other one takes nothing more."""
    while not partition._checkpoints.turns.locked():
        await partition._checkpoints.turns.acquire()
    while partition._checkpointing is None:
        assert await partition.apply(write(1000)) == [b""]
    while isinstance(outcomes := partition.apply_now(write(1000)), list):
        assert outcomes == [b""]
    outcomes.close()  # type: ignore[attr-defined]
    partition._forget_batch()


async def fences(partition: LmdbPartition, *waiting: asyncio.Task[Any]) -> None:
    """Make sure that all that waits is refused."""
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, FencedError)
    await partition.close()


@pytest.mark.parametrize("batch", [READ, write()], ids=["read", "write"])
async def test_before_a_batch(tmp_path: Path, batch: list[Command]) -> None:
    partition = await opened(tmp_path)
    await put(partition, 1)
    mark(partition)
    end = partition._journal.end
    for _ in range(2):
        with pytest.raises(FencedError):
            partition.apply_now(batch)
    assert partition._journal.end == end
    await partition.close()


@pytest.mark.parametrize("batch", [READ, write()], ids=["read", "write"])
async def test_within_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: list[Command]) -> None:
    partition = await opened(tmp_path)
    await put(partition, 1)
    monkeypatch.setattr(partition, "_carry_out", marking(partition, partition._carry_out))
    with pytest.raises(FencedError):
        partition.apply_now(batch)
    await partition.close()


@pytest.mark.parametrize("batch", [READ, write()], ids=["read", "write"])
async def test_while_a_batch_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: list[Command]) -> None:
    partition = await opened(tmp_path, always=True)
    monkeypatch.setattr(partition._journal, "sync", marking(partition, partition._journal.sync))
    await fences(partition, asyncio.create_task(partition.apply(batch)))  # a read of what is not synced yet, too


async def test_before_a_sync(tmp_path: Path) -> None:
    partition = await opened(tmp_path)
    await partition.sync()
    mark(partition)
    with pytest.raises(FencedError):
        await partition.sync()
    await partition.close()


async def test_while_batches_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one may wait, and a copy may lack one record only; nor is noted what a copy does not need."""
    partition = await opened(tmp_path)
    await full(partition)
    waiting = [asyncio.create_task(partition.apply(write(1000))) for _ in range(3)]
    await asyncio.sleep(0)
    monkeypatch.setattr(environments, "commit", marking(partition, environments.commit))
    end = partition._journal.end
    partition._checkpoints.turns.release()
    await asyncio.wait(waiting)
    assert partition._journal.end == end
    await fences(partition, *waiting)


async def test_when_a_batch_that_waited_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = await opened(tmp_path)
    await full(partition)
    monkeypatch.setattr(partition, "_write", written := Written(partition))
    waiting = asyncio.create_task(partition.apply(write(1000)))
    partition._checkpoints.turns.release()
    await asyncio.wait({waiting})
    assert written.count == 1
    await fences(partition, waiting)


class Written:
    """Writes a record as the partition does, and marks its lock then."""

    def __init__(self, partition: LmdbPartition) -> None:
        self.count = 0
        self.end = b""
        self._partition = partition
        self._write = partition._write

    async def __call__(self, record: bytes) -> None:
        await self._write(record)
        if not self.count:
            self.end = self._partition._journal.end
            mark(self._partition)
        self.count += 1


async def test_while_batches_wait_for_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = await opened(tmp_path)
    await full(partition)
    monkeypatch.setattr(partition, "_write", written := Written(partition))
    batches = write(1000), write(), READ
    waiting = [asyncio.create_task(partition.apply(each)) for each in batches]
    await asyncio.sleep(0)
    partition._checkpoints.turns.release()
    await asyncio.wait(waiting)
    assert partition._journal.end == written.end
    await fences(partition, *waiting)


async def test_while_a_checkpoint_waits_for_its_turn(tmp_path: Path) -> None:
    """A copy may be under way: one commit more leaves the pages alone that are read there, another one does not."""
    partition = await opened(tmp_path)
    await full(partition)
    before = partition._environment.info()["last_txnid"]
    mark(partition)
    partition._checkpoints.turns.release()
    await until(lambda: partition._checkpointing is None)
    assert partition._environment.info()["last_txnid"] == before
    await partition.close()


async def test_while_a_commit_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = await opened(tmp_path)
    await full(partition)
    before = partition._environment.info()["last_txnid"]
    tries = 0

    def commit(_environment: lmdb.Environment, _data: int, transaction: lmdb.Transaction, _writes: object) -> None:
        nonlocal tries
        tries += 1
        transaction.abort()
        mark(partition)
        raise lmdb.MapFullError("no room")

    monkeypatch.setattr(environments, "commit", commit)
    partition._checkpoints.turns.release()
    await until(lambda: partition._checkpointing is None)
    assert tries == 1
    assert partition._environment.info()["last_txnid"] == before
    await partition.close()


async def test_before_a_segment_is_begun(tmp_path: Path) -> None:
    """For a batch that no journal holds."""
    partition = await opened(tmp_path)
    await put(partition, 1)
    end = partition._journal.end
    outcomes = partition.apply_now(write(2 * writer.SEGMENT_BYTES))
    mark(partition)
    with pytest.raises(FencedError):
        await outcomes  # type: ignore[misc]
    assert partition._journal.end == end
    await partition.close()
