"""Locks whose files are removed or replaced by hand, and takers that die or fail on the way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.store import writer
from support.store.writer import consistent, put

from socketcluster_store.engines.shared_folder import partition_lock
from socketcluster_store.engines.shared_folder.files import sync_folder
from socketcluster_store.engines.shared_folder.partition_lock import PartitionLocks
from socketcluster_store.errors import FencedError, PartitionLockedError


async def test_an_owner_whose_lock_was_removed_keeps_others_out_until_it_gives_up(tmp_path: Path) -> None:
    first = await writer.engine(tmp_path, store_id="first").open(0)
    await put(first, 1)
    (tmp_path / "00" / "1" / "owner.lock").unlink()
    second = writer.engine(tmp_path, store_id="second")
    with pytest.raises(PartitionLockedError, match=r"data\.mdb open, although the owner\.lock beside it is not locked"):
        await second.open(0)
    await put(first, 2)  # nobody else writes there
    assert first.fenced  # the store looks once a second
    with pytest.raises(FencedError, match=r"owner\.lock was removed or replaced"):
        await put(first, 3)
    await first.close()
    opened = await second.open(0)
    assert await consistent(opened) == 2
    await opened.close()


async def test_an_owner_whose_folder_was_replaced_leaves_the_new_one_alone(tmp_path: Path) -> None:
    first = await writer.engine(tmp_path).open(0)
    for number in range(1, 300):
        await put(first, number)
    folder = tmp_path / "00" / "1"
    folder.rename(tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", folder)
    before = (folder / "data.mdb").read_bytes()
    for number in range(300, 600):  # it checkpoints on, in its own files
        await put(first, number)
    assert (folder / "data.mdb").read_bytes() == before
    second = await writer.engine(tmp_path).open(0)
    found = await consistent(second)
    assert found == 299
    assert first.fenced
    await first.close()
    assert not second.fenced
    await put(second, found + 1)
    assert await consistent(second) == found + 1
    await second.close()


@pytest.mark.parametrize("name", ["claim.lock", "owner.lock"])
def test_a_lock_that_has_no_name_any_more_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    PartitionLocks(tmp_path, "one").acquire(3).release()
    lock = partition_lock._try_lock

    def lock_what_is_removed(descriptor: int) -> bool:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name == name:
            path.unlink()
        return lock(descriptor)

    monkeypatch.setattr(partition_lock, "_try_lock", lock_what_is_removed)
    with pytest.raises(PartitionLockedError, match=rf"{name} was removed or replaced"):
        PartitionLocks(tmp_path, "two").acquire(3)
    monkeypatch.undo()
    PartitionLocks(tmp_path, "two").acquire(3).release()


def test_a_taker_whose_lock_was_removed_takes_nothing(tmp_path: Path) -> None:
    hung = PartitionLocks(tmp_path, "hung").acquire(3)
    taker = PartitionLocks(tmp_path, "taker")
    with pytest.raises(PartitionLockedError, match=r"claim\.lock was removed or replaced"):
        taker.take(3, "hung", lambda former, _: (former.parent / "claim.lock").unlink())
    assert not (tmp_path / "03" / "2").exists()
    assert hung.fenced
    taken = taker.take(3, "hung", lambda _former, _new: None)
    assert taken.folder == tmp_path / "03" / "2"
    hung.release()
    taken.release()


def test_a_taker_that_fails_at_the_end_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = PartitionLocks(tmp_path, "hung").acquire(3)
    (hung.folder / "data").write_text("old")

    def copy(former: Path, new: Path) -> None:
        (new / "data").write_bytes((former / "data").read_bytes())

    def fail(folder: Path) -> None:
        if (tmp_path / "03" / "2").exists():
            raise OSError(5, "Input/output error")
        sync_folder(folder)

    monkeypatch.setattr(partition_lock, "sync_folder", fail)
    with pytest.raises(OSError, match="Input/output"):
        PartitionLocks(tmp_path, "taker").take(3, "hung", copy)
    monkeypatch.undo()
    assert (hung.folder / "data").exists()
    lock = PartitionLocks(tmp_path, "another").acquire(3)  # what was copied is whole, and counts
    assert lock.folder == tmp_path / "03" / "2"
    assert (lock.folder / "data").read_text() == "old"
    assert not hung.folder.exists()
    lock.release()
    hung.release()


def test_a_copy_has_its_name_on_the_disk_before_the_former_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut in between may leave neither."""
    synced: list[list[str]] = []
    sync, remove = os.fsync, shutil.rmtree

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "03":
            synced.append(os.listdir(descriptor))
        sync(descriptor)

    def rmtree(path: Path, **options: Any) -> None:
        assert path.name != "1" or "2" in synced[-1]
        remove(path, **options)

    hung = PartitionLocks(tmp_path, "hung").acquire(3)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    synced.append([])
    taken = PartitionLocks(tmp_path, "taker").take(3, "hung", lambda _former, _new: None)
    assert not (tmp_path / "03" / "1").exists()
    hung.release()
    taken.release()
