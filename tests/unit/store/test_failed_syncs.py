"""What the LMDB engine does when the disk refuses a sync: what failed once is not taken for written."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import lmdb
import pytest
from support import store_writer
from support.store_writer import consistent, get, put

from socketcluster_store.engines import partition_files
from socketcluster_store.errors import EngineError, FencedError


class Disk:
    """A disk that fails when it is told to; the kernel says so once, and no more about what it could not write."""

    def __init__(self) -> None:
        self.journals = 0
        """Syncs of journals that fail from now on."""
        self.commits = 0
        """Commits that do."""


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    fdatasync, commit = os.fdatasync, partition_files.commit

    def sync(descriptor: int) -> None:
        if made.journals:
            made.journals -= 1
            raise OSError(errno.EIO, "Input/output error")
        fdatasync(descriptor)

    def committed(environment: lmdb.Environment, data: int, transaction: lmdb.Transaction, writes: Any) -> None:
        if made.commits:
            made.commits -= 1
            transaction.abort()
            raise lmdb.Error("mdb_txn_commit: Input/output error")
        commit(environment, data, transaction, writes)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(partition_files, "commit", committed)
    return made


def in_lmdb(folder: Path) -> bytes:
    """Return a value that LMDB has."""
    with lmdb.open(str(folder / "copy"), lock=False) as environment, environment.begin() as transaction:
        return next((value for key, value in transaction.cursor() if b"left" in key and b"left1" not in key), b"")


@pytest.mark.parametrize("always", [True, False])
async def test_lmdb_takes_what_a_failed_sync_may_have_lost(tmp_path: Path, disk: Disk, *, always: bool) -> None:
    partition = await store_writer.engine(tmp_path, always=always).open(0)
    disk.journals = 1
    await put(partition, 1)
    if not always:
        await partition.sync()
    assert disk.journals == 0
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "data.mdb").write_bytes((tmp_path / "00" / "1" / "data.mdb").read_bytes())
    assert in_lmdb(tmp_path) == b"\1"  # without the journal
    await put(partition, 2)
    await partition.close()
    again = await store_writer.engine(tmp_path).open(0)
    assert await consistent(again) == 2
    await again.close()


async def test_where_nothing_can_be_written_nothing_is_answered(tmp_path: Path, disk: Disk) -> None:
    partition = await store_writer.engine(tmp_path, always=True).open(0)
    await put(partition, 1)
    disk.journals = disk.commits = 1
    with pytest.raises(FencedError, match="neither its journal nor LMDB can be written"):
        await put(partition, 2)
    assert partition.fenced
    with pytest.raises(FencedError):
        await get(partition, "left")
    await partition.close()
    disk.journals = 1
    with pytest.raises(EngineError, match=r"cannot open partition 0 in .*Input/output error"):
        await store_writer.engine(tmp_path, always=True).open(0)
    again = await store_writer.engine(tmp_path, always=True).open(0)
    assert await consistent(again) in (1, 2)
    await again.close()


async def test_what_was_acknowledged_is_kept_in_memory_until_it_can_be_written(tmp_path: Path, disk: Disk) -> None:
    partition = await store_writer.engine(tmp_path).open(0)
    await put(partition, 1)
    disk.journals = disk.commits = 1
    for _ in range(2):  # the second time it is the checkpoint's pause
        with pytest.raises(EngineError, match="cannot be written: mdb_txn_commit"):
            await partition.sync()
    assert disk.journals == 0
    assert not partition.fenced
    await put(partition, 2)
    while True:
        with contextlib.suppress(EngineError):
            await partition.sync()
            break
        await asyncio.sleep(0.05)  # until the next attempt at a checkpoint
    await partition.close()
    again = await store_writer.engine(tmp_path).open(0)
    assert await consistent(again) == 2
    await again.close()


async def test_an_environment_that_is_lost_is_opened_again(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = await store_writer.engine(tmp_path).open(0)
    monkeypatch.setattr(partition_files, "is_lost", lambda _: True)
    disk.commits = 1
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await put(partition, written + 1)
            written += 1

    with pytest.raises(FencedError, match=r"cannot be written: mdb_txn_commit"):
        await write()
    monkeypatch.undo()
    assert partition.fenced
    await partition.close()
    again = await store_writer.engine(tmp_path).open(0)
    assert await consistent(again) in (written, written + 1)
    await again.close()
