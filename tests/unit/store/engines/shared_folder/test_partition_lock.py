"""Who has a partition's lock, and how it is taken from who hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

from socketcluster_store.engines.shared_folder.partition_lock import PartitionLocks
from socketcluster_store.errors import FencedError, PartitionLockedError


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    lock = PartitionLocks(tmp_path, "one-1").acquire(3)
    with pytest.raises(PartitionLockedError) as locked:
        PartitionLocks(tmp_path, "two-2").acquire(3)
    assert locked.value.holder == "one-1"
    lock.check()
    lock.release()
    again = PartitionLocks(tmp_path, "two-2").acquire(3)
    assert again.folder == lock.folder
    again.release()


def test_a_lock_is_taken_from_the_store_that_hangs_only(tmp_path: Path) -> None:
    hung = PartitionLocks(tmp_path, "hung-1").acquire(3)
    (hung.folder / "data").write_text("committed")
    with pytest.raises(PartitionLockedError):
        PartitionLocks(tmp_path, "two-2").take(3, "other-1", copy_all)
    assert not hung.fenced
    taken = PartitionLocks(tmp_path, "two-2").take(3, "hung-1", copy_all)
    assert (taken.folder / "data").read_text() == "committed"
    assert taken.folder != hung.folder
    with pytest.raises(FencedError):
        hung.check()
    taken.check()
    hung.release()
    with pytest.raises(PartitionLockedError) as locked:
        PartitionLocks(tmp_path, "hung-1").acquire(3)
    assert locked.value.holder == "two-2"
    taken.release()
    again = PartitionLocks(tmp_path, "hung-1").acquire(3)
    assert again.folder == taken.folder
    assert not again.fenced
    again.release()


def test_a_taker_that_dies_leaves_the_partition_as_it_was(tmp_path: Path) -> None:
    hung = PartitionLocks(tmp_path, "hung-1").acquire(3)

    def fail(_former: Path, new: Path) -> None:
        (new / "data").write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        PartitionLocks(tmp_path, "two-2").take(3, "hung-1", fail)
    hung.release()
    lock = PartitionLocks(tmp_path, "three-3").acquire(3)
    assert lock.folder == hung.folder
    assert not lock.fenced
    taken = PartitionLocks(tmp_path, "two-2").take(3, "three-3", copy_all)
    assert not (taken.folder / "data").exists()
    lock.release()
    taken.release()


def test_nobody_locks_what_is_being_taken(tmp_path: Path) -> None:
    hung = PartitionLocks(tmp_path, "hung-1").acquire(3)

    def look(_former: Path, _new: Path) -> None:
        hung.release()  # it woke up and let go
        with pytest.raises(PartitionLockedError):
            PartitionLocks(tmp_path, "three-3").acquire(3)

    PartitionLocks(tmp_path, "two-2").take(3, "hung-1", look).release()


def copy_all(former: Path, new: Path) -> None:
    for path in former.iterdir():
        if path.name != "owner.lock":
            (new / path.name).write_bytes(path.read_bytes())
