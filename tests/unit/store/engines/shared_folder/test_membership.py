"""Which stores live, by the files that they share."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from pathlib import Path

import pytest

from socketcluster_store.engines.shared_folder.membership import FolderMembership
from socketcluster_store.errors import EngineError
from socketcluster_store.ownership.membership import HEARTBEAT


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


def _held(folder: Path) -> list[str]:
    """Return the files below a folder that somebody has locked."""
    held = []
    for path in folder.iterdir():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.name)
    return held


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


@pytest.mark.parametrize("step", ["rename", "unlink"])
async def test_a_store_that_could_not_join_leaves_nothing_and_may_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store = FolderMembership(tmp_path, "store-1", 3600, lambda: None)
    monkeypatch.setattr(Path, "rename", fail)
    if step == "unlink":  # nor can what it made be removed
        monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(EngineError, match=r"cannot be used: .*Input/output error"):
        await store.join()
    assert not _held(tmp_path)
    monkeypatch.undo()
    if step == "rename":
        assert not any(os.scandir(tmp_path))
        await store.join()
        await store.leave()


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
