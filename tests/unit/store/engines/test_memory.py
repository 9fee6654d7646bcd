"""What the engine memory does when its data is taken, and when a partition cannot be opened."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engines.memory import EPOCH_STEP, MemoryEngine
from socketcluster_store.errors import EngineError, FencedError
from socketcluster_store.executor import ExecutorOptions


def descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


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


@pytest.mark.parametrize("name", ["epoch", "owner.lock"])
async def test_a_partition_that_cannot_be_opened_is_left_to_others(tmp_path: Path, name: str) -> None:
    engine = MemoryEngine(tmp_path, ExecutorOptions(1024), store_id="one-1")
    await (await engine.open(0)).close()
    path = tmp_path / "00/1" / name
    path.unlink()
    path.mkdir()
    before = descriptors()
    for _ in range(2):
        with pytest.raises(EngineError, match=r"cannot open partition 0: .*Is a directory"):
            await engine.open(0)
    assert descriptors() == before
    path.rmdir()
    opened = await MemoryEngine(tmp_path, ExecutorOptions(1024), store_id="two-2").open(0)
    assert await opened.apply([]) == []
    await opened.close()


async def test_epochs_rise_though_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MemoryEngine(tmp_path, ExecutorOptions(1024))
    first = await engine.open(0)
    await first.close()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    second = await engine.open(0)
    await second.close()
    assert second.epoch == first.epoch + EPOCH_STEP
    monkeypatch.undo()
    third = await engine.open(0)
    assert third.epoch == second.epoch + EPOCH_STEP  # the time is not so far yet
    await third.close()
