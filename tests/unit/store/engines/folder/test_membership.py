"""Who owns what: shares of partitions, claims on their data, and which stores live."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from pathlib import Path

import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engines.folder.membership import FolderMembership
from socketcluster_store.engines.folder.partition_lock import PartitionLocks
from socketcluster_store.engines.lmdb import files
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import EngineError, FencedError, PartitionLockedError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.ownership.membership import HEARTBEAT
from socketcluster_store.ownership.rendezvous import share_of
from socketcluster_store_client.routing import PARTITION_COUNT


def shares(stores: list[str]) -> dict[str, frozenset[int]]:
    return {store: share_of(store, stores) for store in stores}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 63, 64, 70])
def test_shares_are_even_and_leave_nothing_out(count: int) -> None:
    made = shares([f"store-{number}-{number:08x}" for number in range(count)])
    assert sorted(number for share in made.values() for number in share) == list(range(PARTITION_COUNT))
    assert max(map(len, made.values())) - min(map(len, made.values())) <= 1


def test_a_store_that_starts_again_gets_its_partitions_back() -> None:
    before = shares(["one-aaaaaaaa", "two-aaaaaaaa", "three-aaaaaaaa"])
    after = shares(["three-aaaaaaaa", "one-bbbbbbbb", "two-aaaaaaaa"])
    assert [after[store] for store in ("one-bbbbbbbb", "two-aaaaaaaa", "three-aaaaaaaa")] == list(before.values())


def test_few_partitions_move_when_a_store_comes() -> None:
    stores = [f"store-{number}-0" for number in range(5)]
    for count in range(1, 5):
        before, after = shares(stores[:count]), shares(stores[: count + 1])
        moved = sum(len(before[store] - after[store]) for store in stores[:count])
        assert PARTITION_COUNT // (count + 1) <= moved <= 2 * PARTITION_COUNT // (count + 1)


def test_stores_of_one_name_share_too() -> None:
    made = shares(["host-00000001", "host-00000002"])
    assert [len(share) for share in made.values()] == [32, 32]


# Files


def opened_up(folder: Path) -> list[tuple[str, str]]:
    """Return what in a folder others than the owner may use."""
    return [
        (str(path.relative_to(folder)), oct(mode))
        for path in (folder, *folder.rglob("*"))
        if (mode := path.stat().st_mode) & 0o077
    ]


async def test_nobody_else_may_read_what_a_store_keeps(tmp_path: Path) -> None:
    app = tmp_path / "app"
    for store_id in ("one", "two"):
        engine = LmdbEngine(app / "partitions", ExecutorOptions(1 << 20), store_id=store_id)
        membership = engine.membership(3.0, lambda: None)
        await membership.join()
        partition = await engine.open(0)
        await partition.apply([Command(store_pb2.VERB_SET, b"", ["n"], b"\x01")])
        assert opened_up(app) == []
        assert {path.name for path in (app / "partitions/00/1").iterdir()} >= {"data.mdb", "journal.0", "owner.lock"}
        await partition.close()
        for path in (app, *app.rglob("*")):  # as a store made them that did not mind
            path.chmod(0o755 if path.is_dir() else 0o644)
        await membership.leave()  # its file goes with it


async def test_nobody_else_may_read_what_is_copied_from_a_hung_store(tmp_path: Path) -> None:
    partition = await LmdbEngine(tmp_path / "partitions", ExecutorOptions(1 << 20), store_id="hung-1").open(0)
    await partition.apply([Command(store_pb2.VERB_SET, b"", ["n"], b"\x01")])
    await partition.close()
    (tmp_path / "draft").mkdir(0o700)
    files.copy(tmp_path / "partitions/00/1", tmp_path / "draft")
    assert {path.name for path in (tmp_path / "draft").iterdir()} == {"data.mdb", "journal.0", "journal.1"}
    assert opened_up(tmp_path / "draft") == []


# PartitionLocks


def test_a_claim_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    lock = PartitionLocks(tmp_path, "one-1").acquire(3)
    with pytest.raises(PartitionLockedError) as locked:
        PartitionLocks(tmp_path, "two-2").acquire(3)
    assert locked.value.holder == "one-1"
    lock.check()
    lock.release()
    again = PartitionLocks(tmp_path, "two-2").acquire(3)
    assert again.folder == lock.folder
    again.release()


def test_a_claim_is_taken_from_the_store_that_hangs_only(tmp_path: Path) -> None:
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


def test_nobody_claims_what_is_being_taken(tmp_path: Path) -> None:
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


async def test_a_partition_that_was_taken_answers_nothing_more(tmp_path: Path) -> None:
    """In memory; ``test_main_cluster`` pauses stores with LMDB, which opens a file once in a process."""
    write = [Command(store_pb2.VERB_SET, b"s", ["k"], b"\x01")]
    read = [Command(store_pb2.VERB_GET, b"s", ["k"])]
    hung = await MemoryEngine(tmp_path, ExecutorOptions(1024), store_id="hung-1").open(0)
    await hung.apply(write)
    taken = await MemoryEngine(tmp_path, ExecutorOptions(1024), store_id="two-2").take(0, "hung-1")
    for batch in (write, read):
        with pytest.raises(FencedError):
            await hung.apply(batch)
    assert hung.fenced
    assert not taken.fenced
    assert await taken.apply(write) == [b""]
    await hung.close()
    await taken.close()


# Membership


class Seen:
    """A member, and what it knows."""

    def __init__(self, folder: Path, store_id: str, hang_timeout: float = 3600) -> None:
        self.changed = asyncio.Event()
        self.membership = FolderMembership(folder, store_id, hang_timeout, self.changed.set)

    @classmethod
    async def joined(cls, folder: Path, store_id: str, hang_timeout: float = 3600) -> Seen:
        seen = cls(folder, store_id, hang_timeout)
        await seen.membership.join()
        return seen

    async def until(self, *live: str) -> None:
        while self.membership.live != frozenset(live):
            await self.changed.wait()
            self.changed.clear()


async def test_members_find_each_other_and_hear_of_their_ends(tmp_path: Path) -> None:
    one = await Seen.joined(tmp_path, "one-1")
    await one.until("one-1")
    two = await Seen.joined(tmp_path, "two-2")
    await two.until("one-1", "two-2")
    await one.membership.look()
    await one.until("one-1", "two-2")
    await two.membership.leave()
    await one.until("one-1")  # without looking
    await one.membership.leave()
    assert not any(os.scandir(tmp_path))


async def test_a_store_does_not_join_those_of_another_engine(tmp_path: Path) -> None:
    folder = tmp_path / "app" / "stores"
    kept = FolderMembership(folder, "kept-1", 3600, lambda: None, "lmdb")
    await kept.join()
    other = FolderMembership(folder, "other-2", 3600, lambda: None, "memory")
    with pytest.raises(
        EngineError, match=r"app is used by the store kept-1 with the engine 'lmdb', this one has 'memory': give all"
    ):
        await other.join()
    assert [entry.name for entry in os.scandir(folder)] == ["kept-1"]
    same = FolderMembership(folder, "same-3", 3600, lambda: None, "lmdb")
    await same.join()
    assert same.live == {"kept-1", "same-3"}
    await kept.leave()
    await same.leave()
    await other.join()  # nobody else is there any more
    await other.leave()


async def test_of_two_engines_that_join_at_a_time_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FolderMembership(tmp_path, "one-1", 3600, lambda: None, "lmdb")
    two = FolderMembership(tmp_path, "two-2", 3600, lambda: None, "memory")
    look = one._look
    refused: list[EngineError] = []

    def look_and_let_the_other_one_join() -> None:
        look()
        try:
            two._join()
        except EngineError as error:
            refused.append(error)
            two._leave()

    monkeypatch.setattr(one, "_look", look_and_let_the_other_one_join)
    await one.join()
    assert "used by the store one-1 with the engine 'lmdb'" in str(refused[0])
    await one.leave()


async def test_a_store_joins_though_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    full = FolderMembership(tmp_path, "full-1", 3600, lambda: None, "lmdb")
    await full.join()
    assert full.live == {"full-1"}
    monkeypatch.undo()
    other = FolderMembership(tmp_path, "other-2", 3600, lambda: None, "lmdb")
    await other.join()  # nobody knows which engine the first one has
    await other.leave()
    await full.leave()


async def test_what_dead_members_left_is_no_member(tmp_path: Path) -> None:
    (tmp_path / "dead-1").touch()
    one = await Seen.joined(tmp_path, "one-1")
    assert one.membership.live == {"one-1"}
    assert not (tmp_path / "dead-1").exists()
    await one.membership.leave()


async def test_a_silent_member_hangs_until_it_gives_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: now)
    one = await Seen.joined(tmp_path, "one-1", hang_timeout=1)
    silent = os.open(tmp_path / "two-2", os.O_RDWR | os.O_CREAT)
    fcntl.flock(silent, fcntl.LOCK_EX)
    await one.membership.look()
    assert one.membership.live == {"one-1", "two-2"}
    for _ in range(5):
        now += HEARTBEAT
        await one.membership.look()
    assert one.membership.hung == {"two-2"}
    assert one.membership.live == {"one-1"}
    os.utime(silent, ns=(1, 1))
    now += HEARTBEAT
    await one.membership.look()
    assert one.membership.live == {"one-1", "two-2"}
    now += 3600  # it was this one that was paused
    await one.membership.look()
    assert one.membership.hung == set()
    monkeypatch.undo()
    os.close(silent)
    await one.until("one-1")
    await one.membership.leave()
