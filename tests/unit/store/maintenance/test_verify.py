"""What the commands ``verify`` and ``accept`` make of data folders."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.machine import disk
from support.store.writer import consistent, opened, put

from socketcluster_store.engines.lmdb import engine as lmdb_engine
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.errors import EngineError, IncompleteError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.maintenance import accept, verify

WRITES = 50


def engine(data: Path, store_id: str = "store-1") -> LmdbEngine:
    return LmdbEngine(data / "app" / "partitions", ExecutorOptions(1 << 20), store_id=store_id)


@pytest.fixture
async def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the partitions 0, with a checkpoint and writes after it, and 1."""
    folder = tmp_path / "data"
    await (await engine(folder).open(1)).close()
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_engine, "CHECKPOINT_AFTER", 0.0)
        partition = await opened(engine(folder))
        await put(partition, 1)
        while not (manifest := manifests.read(folder / "app/partitions/00/1")) or not manifest.applied:
            await partition.sync()
            await _turn()
    for number in range(2, WRITES + 1):
        await put(partition, number)
    await partition.close()
    return folder


async def _turn() -> None:
    await asyncio.sleep(0.001)


def state_of(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
        for path in folder.rglob("*")
    }


def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """Return the exit status, and what was said of each partition."""
    status = verify.main([str(folder)])
    lines = [line[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    return status, {line[:8].strip(): line[10:] for line in lines[:-1]}


async def test_what_is_whole_is_said_and_nothing_is_changed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state_of(data)
    status, said = told(data, capsys)
    assert status == 0
    assert said["00"].startswith("whole      generation 1, ")
    assert "written since the last checkpoint" in said["00"]
    assert said["01"].startswith("whole")
    assert said["02"].startswith("not there")
    assert len(said) == 64
    assert state_of(data) == before


async def test_what_a_store_has_open_is_in_use_and_stays_its_own(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partition = await opened(engine(data))
    status, said = told(data, capsys)
    assert status == 0
    assert said["00"] == "in use     by store-1; what a store has open is not looked into"
    assert not partition.fenced
    await put(partition, WRITES + 1)
    await partition.close()


@pytest.mark.parametrize("name", ["data.mdb", "journal.0", "journal.1", "manifest"])
async def test_what_is_missing_is_not_whole(data: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (data / "app/partitions/00/1" / name).unlink()
    status, said = told(data, capsys)
    assert status == 1
    assert said["00"].startswith("NOT WHOLE")
    assert f"{name} is missing" in said["00"]
    assert said["01"].startswith("whole")


async def test_a_page_that_ends_the_process_that_reads_it_is_told_too(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data / "app/partitions/00/1/data.mdb"
    content = path.read_bytes()
    path.write_bytes(content[: 2 * 4096 + 16] + bytes([255] * (len(content) - 2 * 4096 - 16)))
    status, said = told(data, capsys)
    assert status == 1
    assert said["00"].startswith("NOT WHOLE")
    assert said["01"].startswith("whole")


async def test_a_register_that_is_gone_is_not_whole(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "app/partitions/manifest").unlink()
    status, said = told(data, capsys)
    assert status == 1
    assert said["manifest"].startswith("NOT WHOLE")
    assert said["00"].startswith("whole")
    assert said["02"].startswith("NOT WHOLE")
    assert not (data / "app/partitions/manifest").exists()


@pytest.mark.skipif(disk.lack() is not None, reason=str(disk.lack()))
async def test_a_copy_that_is_read_only_can_be_verified(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with disk.small_disk(tmp_path / "copy", "64m") as small:
        shutil.copytree(data, small.folder / "data")
        small.make_read_only()
        assert told(small.folder, capsys)[0] == 0


def test_a_folder_without_partitions_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 1
    assert "has no partitions" in capsys.readouterr().err
    assert verify.main([]) == 2


@pytest.mark.parametrize("given", ["", "app", "app/partitions"])
async def test_partitions_are_found_in_a_folder_and_below_it(data: Path, given: str) -> None:
    assert verify.folders_of(data / given) == [data / "app/partitions"]
    assert verify.folders_of(data / "app/partitions/00") == []


async def test_a_folder_of_a_version_before_manifests_is_whole_as_it_is(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("manifest", "00/1/manifest", "01/1/manifest"):
        (data / "app/partitions" / path).unlink()
    status, said = told(data, capsys)
    assert status == 0
    assert said["manifest"].endswith("a folder of a version that knew of no manifests")
    assert said["00"].startswith("whole")
    assert said["02"].endswith("it has never been used")
    (data / "app/partitions/01/1/data.mdb").unlink()
    status, said = told(data, capsys)
    assert (status, said["01"].split("  ")[0]) == (1, "NOT WHOLE")


@pytest.mark.parametrize("size", [0, 5000])
async def test_a_register_that_was_cut_short_is_not_whole(
    data: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    os.truncate(data / "app/partitions/manifest", size)
    status, said = told(data, capsys)
    assert status == 1
    assert said["manifest"] == "NOT WHOLE  the register of all partitions is missing or was cut short"


async def test_folders_that_do_not_belong_to_a_partition_are_named(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "app/partitions/00/1", data / "app/partitions/00/99")
    status, said = told(data, capsys)
    assert status == 0
    assert said["00"].endswith("; folders that do not belong to it: 99")


async def test_whoever_has_a_partition_locked_has_it_in_use(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "app/partitions/00/1/owner.lock"
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 1)
        assert told(data, capsys)[1]["00"].startswith("in use     by another process; ")
    finally:
        os.close(descriptor)
    path.unlink()  # a copy has none
    assert told(data, capsys)[1]["00"].startswith("whole")


async def test_what_was_accepted_and_is_not_there_yet_is_no_loss(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(data / "app/partitions/01")
    assert told(data, capsys)[0] == 1
    assert accept.main(["--yes", str(data / "app/partitions/01")]) == 0
    capsys.readouterr()
    status, said = told(data, capsys)
    assert (status, said["01"]) == (0, "not there  accepted")


@pytest.mark.parametrize("command", ["verify", "accept"])
def test_the_command_line_runs_them(tmp_path: Path, command: str) -> None:
    socketcluster = Path(sys.executable).with_name("socketcluster")
    done = subprocess.run([socketcluster, "store", command, tmp_path], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr


async def test_what_is_left_is_accepted_by_hand(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "app/partitions/00"
    journal = max((path / "1" / name for name in manifests.JOURNALS), key=lambda each: each.stat().st_mtime_ns)
    for name in manifests.JOURNALS:
        (path / "1" / name).unlink()
    before = state_of(data)
    assert accept.main([str(path)]) == 0
    said = capsys.readouterr().out
    assert "written after its last checkpoint" in said
    assert "give --yes to do it" in said
    assert {name: each[0] for name, each in state_of(data).items()} == {name: each[0] for name, each in before.items()}
    with pytest.raises(IncompleteError):
        await engine(data).open(0)
    assert accept.main(["--yes", str(path)]) == 0
    for _ in range(2):
        partition = await opened(engine(data))
        assert await consistent(partition) <= 1  # what the checkpoint had
        await partition.close()
    assert told(data, capsys)[0] == 0
    (path / "1" / journal.name).unlink()
    with pytest.raises(IncompleteError):  # it is not accepted for ever
        await engine(data).open(0)


@pytest.mark.parametrize("lose", ["the folder", "data.mdb"])
async def test_a_partition_of_which_nothing_is_left_begins_empty_when_that_is_accepted(data: Path, lose: str) -> None:
    path = data / "app/partitions/00"
    if lose == "the folder":
        shutil.rmtree(path)
    else:
        os.truncate(path / "1/data.mdb", 0)
    store = engine(data)
    with pytest.raises(IncompleteError):
        await store.open(0)
    assert accept.main(["--yes", str(path)]) == 0
    partition = await opened(store)
    assert await consistent(partition) == 0
    await partition.close()
    assert len(list(path.glob("given-up-*"))) == (lose == "data.mdb")


async def test_what_a_store_has_open_is_not_given_up(data: Path) -> None:
    path = data / "app/partitions/00"
    partition = await opened(engine(data))
    with pytest.raises(EngineError, match="is open in a store"):
        accept.accept(path, really=True)
    await partition.close()
    with pytest.raises(EngineError, match="is no folder of a partition"):
        accept.accept(data, really=True)
