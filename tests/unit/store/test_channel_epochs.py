"""Epochs of channels: an offset that was given is never given again in the same one, whatever was lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.channels import Bench, make_engine, values

from socketcluster_store import channels as channels_module


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
