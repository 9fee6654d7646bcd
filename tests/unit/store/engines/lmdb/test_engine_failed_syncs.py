"""What the LMDB engine does when the disk refuses a sync: what failed once is not taken for written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import lmdb
import pytest
from support.store import writer
from support.store.writer import consistent, get, put

from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb import environments
from socketcluster_store.engines.lmdb.journal import Segment
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.engines.shared_folder.partition_lock import PartitionLocks
from socketcluster_store.errors import EngineError, FencedError
from socketcluster_store.executor import ExecutorOptions


class Disk:
    """A disk that fails to write a file when it is told to."""

    failing = "no file"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    fdatasync, commit = os.fdatasync, environments.commit

    def sync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if made.failing in name:
            raise OSError(errno.EIO, "Input/output error")
        fdatasync(descriptor)

    def committed(environment: lmdb.Environment, data: int, transaction: lmdb.Transaction, writes: Any) -> None:
        if made.failing in "data.mdb":
            transaction.abort()
            raise lmdb.Error("mdb_txn_commit: Input/output error")
        commit(environment, data, transaction, writes)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(environments, "commit", committed)
    return made


async def write_until_given_up(partition: EnginePartition) -> int:
    """Return the last number that was acknowledged."""
    number = 0
    try:
        while True:
            await put(partition, number + 1)
            number += 1
    except FencedError:
        return number


@pytest.mark.parametrize("failing", ["journal.0", "journal.1", "data.mdb"])
async def test_files_that_could_not_be_synced_are_copied(tmp_path: Path, disk: Disk, failing: str) -> None:
    engine = writer.engine(tmp_path, always=True)
    partition = await writer.opened(engine)
    disk.failing = failing
    number = await write_until_given_up(partition)
    assert partition.fenced
    with pytest.raises(FencedError, match="its files are to be copied"):
        await get(partition, "left")
    await partition.close()
    if failing != "data.mdb":  # which is made by LMDB
        with pytest.raises(EngineError, match=r"partition 0 in .* cannot be synced: .*Input/output error"):
            await writer.opened(engine)
    disk.failing = "no file"
    again = await writer.opened(engine)
    (generation,) = (path.name for path in (tmp_path / "00").iterdir() if path.is_dir())
    assert generation == ("2" if failing == "data.mdb" else "3")  # of which the second could not be synced either
    found = await consistent(again)
    assert found in (number, number + 1)
    await put(again, found + 1)
    await again.close()
    last = await engine.open(0)
    assert await consistent(last) == found + 1
    await last.close()


async def test_a_sync_that_failed_is_not_tried_again(tmp_path: Path, disk: Disk) -> None:
    partition = await writer.engine(tmp_path).open(0)
    await put(partition, 1)
    disk.failing = "journal.0"
    with pytest.raises(FencedError, match="cannot be synced"):
        await partition.sync()
    disk.failing = "no file"
    with pytest.raises(FencedError):
        await partition.sync()
    await partition.close()
    again = await writer.engine(tmp_path).open(0)
    assert await consistent(again) == 1
    await again.close()


async def test_files_that_an_opening_cannot_sync_are_copied_by_the_next(tmp_path: Path, disk: Disk) -> None:
    engine = writer.engine(tmp_path)
    partition = await engine.open(0)
    await put(partition, 1)
    await partition.close()
    disk.failing = "journal.0"
    with pytest.raises(EngineError, match=r"partition 0 in .*1 cannot be synced: .*Input/output error"):
        await writer.opened(engine)
    disk.failing = "no file"
    again = await writer.opened(engine)
    assert (tmp_path / "00" / "2").exists()
    assert await consistent(again) == 1
    await again.close()


async def test_files_of_which_an_opening_cannot_sync_that_a_segment_counts_no_more_are_copied(
    tmp_path: Path, disk: Disk
) -> None:
    engine = writer.engine(tmp_path)
    partition = await engine.open(0)
    await put(partition, 1)
    await partition.close()
    left_out = Segment(tmp_path / "00" / "1" / "journal.1", writer.SEGMENT_BYTES)
    left_out.begin(2, 1)  # which the other one does not end with
    left_out.close()
    disk.failing = "journal.1"
    with pytest.raises(EngineError, match=r"cannot open partition 0 in .*1: .*Input/output error"):
        await engine.open(0)
    disk.failing = "no file"
    again = await engine.open(0)
    assert (tmp_path / "00" / "2").exists()
    assert await consistent(again) == 1
    await again.close()


async def test_files_of_which_an_opening_cannot_sync_a_commit_are_copied_by_the_next(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opening commits where the journal is full, say of those before it."""

    def fail(_environment: lmdb.Environment, _data: int, transaction: lmdb.Transaction, _writes: Any) -> None:
        transaction.abort()
        disk.failing = "data.mdb"  # which whoever has it open is told once
        raise lmdb.Error("mdb_txn_commit: Input/output error")

    async def open_often() -> None:
        for _ in range(1000):
            await (await engine.open(0)).close()

    engine = writer.engine(tmp_path)
    partition = await engine.open(0)
    await put(partition, 1)
    await partition.close()
    monkeypatch.setattr(environments, "commit", fail)
    with pytest.raises(EngineError, match=r"cannot open partition 0 in .*1: .*Input/output error"):
        await open_often()
    monkeypatch.undo()
    again = await engine.open(0)
    assert (tmp_path / "00" / "2").exists()
    assert await consistent(again) == 1
    await again.close()


async def test_the_engine_memory_leaves_files_alone_that_are_to_be_copied(tmp_path: Path) -> None:
    options = ExecutorOptions(1 << 20)
    partition = await writer.engine(tmp_path).open(0)
    await put(partition, 1)
    partition._lock.distrust("the disk failed")  # type: ignore[attr-defined]
    await partition.close()
    former = await MemoryEngine(tmp_path, options, store_id="former").open(0)
    await put(former, 2)
    await former.close()
    again = await writer.engine(tmp_path).open(0)
    assert (tmp_path / "00" / "2").exists()
    assert await consistent(again) == 1
    again._lock.distrust("the disk failed")  # type: ignore[attr-defined]
    await again.close()
    former = await MemoryEngine(tmp_path, options, store_id="former").open(0)
    taken = await MemoryEngine(tmp_path, options, store_id="taker").take(0, "former")
    assert former.fenced
    with pytest.raises(FencedError):
        await put(former, 3)
    await put(taken, 4)
    await former.close()
    await taken.close()


@pytest.mark.parametrize(
    ("refused", "lost"), [(None, False), (lmdb.MapFullError("full"), False), (lmdb.PanicError("panic"), True)]
)
def test_a_commit_is_lost_if_lmdb_refuses_everything_since(
    tmp_path: Path, refused: lmdb.Error | None, lost: bool
) -> None:
    class Environment:
        def begin(self, *, write: bool) -> Environment:
            assert write
            if refused is not None:
                raise refused
            return self

        def abort(self) -> None:
            pass

    environment: Any = Environment()
    with (tmp_path / "data.mdb").open("wb") as data:
        assert environments.is_lost(environment, data.fileno()) == lost


def test_a_mark_outlives_a_taker_that_dies(tmp_path: Path) -> None:
    copied: list[Path] = []

    def fail(former: Path, _new: Path) -> None:
        copied.append(former)
        raise OSError(errno.EIO, "Input/output error")

    owner = PartitionLocks(tmp_path, "owner").acquire(3)
    owner.distrust("the disk failed")
    with pytest.raises(OSError, match="Input/output"):
        PartitionLocks(tmp_path, "taker").take(3, "owner", fail)
    owner.release()
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            PartitionLocks(tmp_path, "next").acquire(3, fail)
    assert len(copied) == 3
    lock = PartitionLocks(tmp_path, "next").acquire(3, lambda _former, _new: None)
    assert lock.folder == tmp_path / "03" / "2"
    assert not lock.fenced
    lock.release()
