"""What an opening forces to the disk: what is not known to be there, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.store import writer
from support.store.writer import consistent, put

from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb import files
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.executor import ExecutorOptions

FOLDERS = ("partitions", "00", "1", "2")


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The names of what was synced."""
    counted: Counter[str] = Counter()

    def counting(sync: Callable[[int], None]) -> Callable[[int], None]:
        def counted_sync(descriptor: int) -> None:
            counted[Path(f"/proc/self/fd/{descriptor}").readlink().name] += 1
            sync(descriptor)

        return counted_sync

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    return counted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "app" / "partitions"


async def opened(folder: Path) -> EnginePartition:
    """Open it as a process that has done nothing before."""
    return await writer.opened(writer.engine(folder, store_id="store-1"))


async def write(partition: EnginePartition, first: int, last: int) -> None:
    for number in range(first, last):
        await put(partition, number)


async def test_what_was_closed_needs_one_sync(folder: Path, syncs: Counter[str]) -> None:
    partition = await opened(folder)
    assert {name for name in ("data.mdb", "journal.0", "journal.1", *FOLDERS[:3]) if not syncs[name]} == set()
    await write(partition, 1, 300)  # with checkpoints
    await partition.close()
    for _ in range(2):
        syncs.clear()
        partition = await opened(folder)
        assert syncs["journal.0"] + syncs["journal.1"] == 1
        assert not syncs["data.mdb"]
        assert [name for name in FOLDERS if syncs[name]] == ["partitions"]
        assert await consistent(partition) == 299
        await partition.close()


async def test_a_commit_that_nobody_knows_to_be_on_the_disk_is_synced(
    folder: Path, syncs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = await opened(folder)
    with monkeypatch.context() as patch:  # as if it died before it noted that
        patch.setattr(files, "LASTING_KEY", b"nothing")
        await write(partition, 1, 300)
        await partition.close()
    for expected in (1, 0):
        syncs.clear()
        partition = await opened(folder)
        assert syncs["data.mdb"] == expected
        assert await consistent(partition) == 299
        await partition.close()


async def test_names_that_nobody_knows_to_be_on_the_disk_are_synced(
    folder: Path, syncs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = await opened(folder)
    await write(partition, 1, 300)
    await partition.close()
    shutil.copytree(folder / "00" / "1", folder / "00" / "2")  # by a taker that died before it opened them
    relabel(folder / "00" / "2")
    syncs.clear()
    remove = shutil.rmtree

    def removed(path: Path, **options: Any) -> None:
        assert syncs["00"] or path.name != "1"  # or a power cut may leave neither
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", removed)
    partition = await opened(folder)
    assert not (folder / "00" / "1").exists()
    assert (syncs["00"], syncs["2"]) == (2, 2)  # its manifest counts from now on
    assert await consistent(partition) == 299
    await partition.close()
    data = folder / "00" / "2" / "data.mdb"
    data.rename(data.with_name("aside"))
    shutil.copyfile(data.with_name("aside"), data)  # by hand
    syncs.clear()
    partition = await opened(folder)
    assert (syncs["00"], syncs["2"]) == (1, 1)
    await partition.close()


def relabel(folder: Path) -> None:
    """Have a folder say that it is of the generation that its name says."""
    manifest = manifests.read(folder)
    assert manifest is not None
    manifests.create(folder, dataclasses.replace(manifest, generation=int(folder.name)))


def rename(folder: Path) -> str:
    relabel(folder.rename(folder.with_name("5")))
    return "5"


def make_anew(folder: Path) -> str:
    aside = folder.rename(folder.with_name("aside"))
    folder.mkdir(0o700)
    for file in aside.iterdir():
        file.rename(folder / file.name)
    aside.rmdir()
    return folder.name


def replace(name: str) -> Callable[[Path], str]:
    def do(folder: Path) -> str:
        aside = (folder / name).rename(folder / "aside")
        shutil.copyfile(aside, folder / name)
        aside.unlink()
        return folder.name

    return do


@pytest.mark.parametrize(
    "change",
    [rename, make_anew, *map(replace, ("data.mdb", "journal.0", "journal.1"))],
    ids=["folder renamed", "folder made anew", "data", "first journal", "second journal"],
)
async def test_names_that_were_made_by_hand_are_synced(
    folder: Path, syncs: Counter[str], change: Callable[[Path], str]
) -> None:
    partition = await opened(folder)
    await write(partition, 1, 300)
    await partition.close()
    name = change(folder / "00" / "1")
    for expected in (1, 0):
        syncs.clear()
        partition = await opened(folder)
        assert (syncs["00"], syncs[name]) == (expected, expected * (2 if change is rename else 1))
        assert await consistent(partition) == 299
        await partition.close()


async def test_the_folder_of_all_partitions_is_synced_once_for_all_that_are_there(
    folder: Path, syncs: Counter[str]
) -> None:
    engine = LmdbEngine(folder, ExecutorOptions(1 << 20), store_id="store-1")
    for partition in await asyncio.gather(*map(engine.open, range(8))):
        await partition.close()
    syncs.clear()
    other = LmdbEngine(folder, ExecutorOptions(1 << 20), store_id="other-2")
    for partition in await asyncio.gather(*map(other.open, range(8))):
        await partition.close()
    assert syncs["partitions"] == 1
    await (await engine.open(8)).close()  # made behind its back
    for number in (8, 8, 7):
        await (await other.open(number)).close()
    assert syncs["partitions"] == 3
