"""What a store does about partitions whose disk fails again and again, or that other processes keep."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from support.worker.running import until

from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb import files
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.shared_folder.partition_lock import PartitionLocks
from socketcluster_store.errors import EngineError, PartitionLockedError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.ownership import partitions as partitions_module
from socketcluster_store.ownership.membership import Membership
from socketcluster_store.ownership.partitions import BROKEN_PAUSE, LONGEST_BROKEN_PAUSE, Partitions
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.partitioning import PARTITION_COUNT

FAILING = 5


class Alone(Membership):
    """No other store."""

    live = frozenset(("store-1",))

    async def join(self) -> None: ...
    async def leave(self) -> None: ...
    async def look(self) -> None: ...


class Distrusted:
    """A partition whose disk failed."""

    fenced = True
    distrusted = "the disk failed"
    told = False

    def lose(self) -> None: ...
    async def close(self) -> None: ...


class Unloadable(Distrusted):
    """One of which the disk fails while it is loaded."""

    async def load(self) -> None:
        raise EngineError("it cannot be synced")

    async def abandon(self) -> None: ...


@pytest.fixture
async def partitions(tmp_path: Path) -> Partitions:
    def load(opened: EnginePartition) -> Partition:
        return Partition(
            opened,
            session_timeout=1200,
            max_value_bytes=1 << 20,
            channel_rules=ChannelRules(()),
            message_id_window=300,
            tell_workers=lambda _events: None,
            on_fenced=made.fenced,
            turns=asyncio.Semaphore(1),
        )

    def member(changed: Any) -> Membership:
        changed()
        return Alone()

    made = Partitions(
        LmdbEngine(tmp_path, ExecutorOptions(1 << 20), store_id="store-1"),
        load,
        lambda: None,
        membership=lambda changed: member(lambda: asyncio.get_running_loop().call_soon(changed)),
        store_id="store-1",
        hang_timeout=1000.0,
    )
    return made


@pytest.fixture
async def running(partitions: Partitions) -> AsyncIterator[Partitions]:
    task = asyncio.create_task(partitions.run())
    await partitions.settled.wait()
    yield partitions
    await partitions.close()
    await task


def pauses(partitions: Partitions, count: int) -> list[float]:
    """Have a partition's disk fail, and return how long the partition is left alone each time."""
    seen = []
    for _ in range(count):
        partitions.owned[FAILING] = cast(Partition, Distrusted())
        now = asyncio.get_running_loop().time()
        if FAILING in partitions._disks:
            partitions._disks[FAILING] = partitions._disks[FAILING][0], now  # as it is opened
        partitions.fenced(FAILING)
        seen.append(max(0.0, partitions._broken_until.pop(FAILING, now) - now))
    return seen


async def test_the_more_often_a_disk_fails_the_later_its_partition_is_copied(
    partitions: Partitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *later = pauses(partitions, 7)
    assert first == 0
    expected = [BROKEN_PAUSE, 10, 20, 40, LONGEST_BROKEN_PAUSE, LONGEST_BROKEN_PAUSE]
    assert later == pytest.approx(expected, abs=0.5)
    (broken,) = partitions.announcement().broken
    assert broken.partition == FAILING
    assert broken.reason.startswith("the disk failed")
    monkeypatch.setattr(partitions_module, "STEADY", -1)
    assert pauses(partitions, 1) == [0]  # it was well meanwhile


async def test_the_more_often_a_disk_fails_an_opening_the_later_the_next_one(
    partitions: Partitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(_number: int) -> Distrusted:
        return Distrusted()

    monkeypatch.setattr(partitions._engine, "open", opened)
    monkeypatch.setattr(partitions, "_make", lambda _opened: Unloadable())
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 1000.0)
    partitions.settled.set()
    partitions._wanted = frozenset((FAILING,))
    seen = []
    for _ in range(7):
        assert await partitions._open_missing()
        seen.append(partitions._broken_until.pop(FAILING) - 1000)
        assert "cannot be opened: the disk failed" in partitions.announcement().broken[0].reason
    assert seen == [BROKEN_PAUSE, BROKEN_PAUSE, 10, 20, 40, LONGEST_BROKEN_PAUSE, LONGEST_BROKEN_PAUSE]


async def test_a_disk_that_takes_an_opening_and_nothing_after_it_has_its_files_copied_now_and_then(
    running: Partitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = 0
    fails = True
    fdatasync, copy = os.fdatasync, files.copy

    def sync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if fails and path.parts[-3] == f"{FAILING:02}" and FAILING in running.owned:
            raise OSError(errno.EIO, "Input/output error")
        fdatasync(descriptor)

    def copied(former: Path, new: Path) -> None:
        nonlocal copies
        copies += 1
        copy(former, new)

    async def fail() -> None:
        partition = running.owned[FAILING]
        await partition._channels._reserve()
        with pytest.raises(EngineError, match="Input/output error"):
            await partition._engine.apply([])
        running.fenced(FAILING)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(files, "copy", copied)
    await fail()
    await until(lambda: FAILING in running.owned)  # it may have been the only time
    assert copies == 1
    await fail()
    assert FAILING in running._broken_until
    assert "its files are to be copied" in running.announcement().broken[0].reason
    assert copies == 1
    fails = False
    running._broken_until[FAILING] = 0
    await until(lambda: FAILING in running.owned)
    assert copies == 2
    await until(lambda: not running.announcement().broken)


async def test_what_another_process_keeps_is_said_once(
    partitions: Partitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await LmdbEngine(tmp_path, ExecutorOptions(1 << 20), store_id="other-2").open(FAILING)
    (tmp_path / f"{FAILING:02}" / "1" / "owner.lock").unlink()
    held = PartitionLocks(tmp_path, "other-2").acquire(6)
    monkeypatch.setattr(partitions_module, "LONG_WAIT", 0.05)
    tries = 0
    opening = partitions._open

    async def opened(number: int) -> None:
        nonlocal tries
        try:
            await opening(number)
        except PartitionLockedError:
            tries += 1
            raise

    monkeypatch.setattr(partitions, "_open", opened)
    with capture_logs() as logs:
        task = asyncio.create_task(partitions.run())
        await until(lambda: any("wait for other processes" in line["event"] for line in logs))
        tries = 0
        await until(lambda: tries > 3)
    (line,) = [line for line in logs if "wait for other processes" in line["event"]]
    assert line["partitions"] == [FAILING, 6]
    assert line["holders"] == ["", "other-2"]
    assert "owner.lock beside it is not locked" in line["reason"]
    assert "end whatever else has the file open" in line["reason"]
    held.release()
    await other.close()
    await partitions.settled.wait()
    assert len(partitions.owned) == PARTITION_COUNT
    await partitions.close()
    await task
