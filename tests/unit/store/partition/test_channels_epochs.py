"""Epochs of channels: an offset that was given is never given again in the same one, whatever was lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.store.channels import Bench, Listener, make_engine, publication, values

from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import EngineError, InternalError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.partition import channels as channels_module


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Starts the machine anew; the boot is named."""
    file = tmp_path / "boot_id"
    monkeypatch.setattr(channels_module, "BOOT_ID", file)
    file.write_text("first\n")
    return file.write_text


class Disk:
    """What a power cut leaves of a folder: what it was when anything was synced last."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._synced = folder.with_name("synced")
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._after(getattr(os, name)))

    def _after(self, sync: Any) -> Any:
        def synced(descriptor: int) -> None:
            sync(descriptor)
            shutil.rmtree(self._synced, ignore_errors=True)
            shutil.copytree(self._folder, self._synced)

        return synced

    def cut(self) -> None:
        """Forget what was not synced."""
        shutil.rmtree(self._folder)
        shutil.copytree(self._synced, self._folder)


@pytest.fixture(params=["memory", "lmdb"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    engine = await make_engine(request.param, tmp_path).open(7)
    made = Bench(engine)
    yield made
    await made.channels.close()
    await engine.close()


async def test_offsets_that_a_power_cut_may_have_taken_are_not_given_twice(
    bench: Bench, boot: Callable[[str], object]
) -> None:
    await bench.channels.load()
    before = await bench.publish("kept", "a")
    bench.start()
    await bench.channels.load()  # killed
    assert (await bench.publish("kept", "b"))["epoch"] == before["epoch"]
    bench.start()
    boot("second\n")
    await bench.channels.load()  # killed with the machine
    after = await bench.publish("kept", "c")
    assert (after["offset"], after["epoch"] > before["epoch"]) == (3, True)
    answer = await bench.history("kept", epoch=before["epoch"], offset=2)
    assert (values(answer), answer["known"]) == (["a", "b", "c"], False)
    await bench.channels.close()
    bench.start()
    boot("third\n")
    await bench.channels.load()  # stopped well before
    assert (await bench.publish("kept", "d"))["epoch"] == after["epoch"]


async def test_a_power_cut_right_after_a_clean_opening_gives_no_offset_twice(
    boot: Callable[[str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    disk = Disk(folder, monkeypatch)
    engine = await make_engine("lmdb", folder).open(7)
    bench = Bench(engine)
    await bench.channels.load()
    await bench.publish("kept", "a")
    await bench.channels.close()
    await engine.close()
    engine = await make_engine("lmdb", folder).open(7)
    bench = Bench(engine)
    await bench.channels.load()
    told = await bench.publish("kept", "acknowledged, not synced")
    disk.cut()
    boot("second\n")
    after = Bench(await make_engine("lmdb", folder).open(7))
    await after.channels.load()
    again = await after.publish("kept", "another")
    assert again["offset"] == told["offset"]
    assert again["epoch"] > told["epoch"]
    await after.channels.close()
    await after.engine.close()
    await engine.close()


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("memory", "closed"),
        ("memory", "killed"),
        ("lmdb", "closed"),
        ("lmdb", "killed"),
        ("lmdb", "killed after a reservation"),
    ],
)
async def test_an_owner_whose_clock_is_behind_gives_other_and_higher_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ends: str
) -> None:
    if ends == "killed after a reservation":
        monkeypatch.setattr(channels_module, "EPOCHS", 64)
    epochs = []
    now = time.time()
    for step in (0, -3600, 0.0001, -1, -7200):
        monkeypatch.setattr(time, "time_ns", lambda step=step: int((now + step) * 1e9))
        partition = await make_engine(name, tmp_path / "data").open(7)
        bench = Bench(partition)
        bench.now = now + step
        await bench.channels.load()
        for number in range(100):
            epochs.append((await bench.publish(f"nobody listens {number}", 1))["epoch"])
            if number % 16 == 15:
                await reserved(bench)
        await reserved(bench)
        if ends == "closed":
            await bench.channels.close()
        await partition.close()
    assert epochs == sorted(set(epochs))
    assert epochs[-1] < 2**53


async def reserved(bench: Bench) -> None:
    """Return when the channels reserve nothing."""
    if bench.channels._reserving is not None:
        await asyncio.wait({bench.channels._reserving})


async def test_epochs_are_reserved_on_the_disk_before_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    disk = Disk(folder, monkeypatch)
    monkeypatch.setattr(channels_module, "EPOCHS", 64)
    partition = await make_engine("lmdb", folder).open(7)
    bench = Bench(partition)
    await bench.channels.load()
    told = []
    for number in range(500):
        told.append((await bench.publish(f"nobody listens {number}", 1))["epoch"])
        if number % 16 == 15:
            await reserved(bench)
    disk.cut()
    after = Bench(await make_engine("lmdb", folder).open(7))
    after.now = bench.now - 1
    await after.channels.load()
    assert (await after.publish("another", 1))["epoch"] > told[-1]
    for one in (after, bench):
        await one.channels.close()
        await one.engine.close()


async def test_without_epochs_publications_are_refused_until_some_can_be_reserved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels_module, "EPOCHS", 64)
    await bench.channels.load()

    async def fail(batch: Any) -> Any:
        raise EngineError("the disk is full")

    works, bench.apply = bench.apply, fail
    publish = partial(bench.channels.prepare, Listener(), publication("kept", 1), bench.now)

    given, refusals = 0, set()
    with capture_logs() as logs:
        for _ in range(200):  # however long it fails: what was not reserved may be given by the next owner
            try:
                publish()
                given += 1
            except InternalError as error:
                refusals.add(str(error))
            await reserved(bench)
            bench.now += 1
    assert [(line["event"], line["error"]) for line in logs] == [
        ("no more epochs can be reserved for channels", "the disk is full")
    ]
    assert given == 49
    assert refusals == {"'kept': no epoch is left for a channel; the store's log says why"}
    bench.apply = works
    with pytest.raises(InternalError):
        publish()
    with capture_logs() as logs:
        await reserved(bench)
    assert [line["event"] for line in logs] == ["epochs are reserved for channels again"]
    publish()


async def test_a_memory_partition_that_is_taken_has_a_higher_epoch_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExecutorOptions(1024)
    former = await MemoryEngine(tmp_path, options, store_id="one-1").open(7)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    taken = await MemoryEngine(tmp_path, options, store_id="two-2").take(7, "one-1")
    assert former.fenced
    assert taken.epoch > former.epoch
    await taken.close()
    again = await MemoryEngine(tmp_path, options, store_id="three-3").open(7)
    assert again.epoch > taken.epoch
    await again.close()
    await former.close()
