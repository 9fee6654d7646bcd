"""What the command ``accept`` makes of partitions of which something is missing."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from support.store import writer
from support.store.writer import consistent, opened, put

from socketcluster_store.engines.lmdb import journal
from socketcluster_store.engines.shared_folder.register import PartitionState, Register
from socketcluster_store.errors import EngineError
from socketcluster_store.maintenance import accept

WRITES = 50


@pytest.fixture
async def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of partition 0, with writes that only its journals have."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", writer.SEGMENT_BYTES)
    folder = tmp_path / "partitions"
    partition = await opened(writer.engine(folder))
    for number in range(1, WRITES + 1):
        await put(partition, number)
    await partition.close()
    return folder / "00"


def given_up(path: Path) -> list[str]:
    """Return what got another name in a partition's folder."""
    return sorted(each.name.split("-", 3)[3] for each in path.glob("given-up-*"))


def all_below(path: Path) -> list[Path]:
    return sorted(path.rglob("*"))


async def found(path: Path) -> int:
    """Open the partition; return what it has."""
    partition = await opened(writer.engine(path.parent))
    try:
        return await consistent(partition)
    finally:
        await partition.close()


@pytest.mark.parametrize("name", ["0", "000", "٠٠", "64", "-1", "", "partitions"])
def test_what_is_called_like_no_partition_is_none(path: Path, name: str) -> None:
    before = sorted(path.parent.iterdir()), Register(path.parent).entry(0)
    with pytest.raises(EngineError, match="is no folder of a partition"):
        accept.accept(path.parent / name, really=True)
    with pytest.raises(EngineError, match="is no folder of a partition"):
        accept.accept(path.parent / "none" / "00", really=True)
    assert (sorted(path.parent.iterdir()), Register(path.parent).entry(0)) == before


async def test_a_folder_that_is_not_there_is_not_made_by_asking(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(path)
    assert accept.main([str(path)]) == 0
    assert "begins empty" in capsys.readouterr().out
    assert not list(path.parent.glob("00"))


async def test_it_is_only_said_what_would_be_done(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = Register(path.parent).entry(0)
    (path / "1/manifest").unlink()
    before = all_below(path)
    assert accept.main([str(path)]) == 0
    assert "goes on with" in (said := capsys.readouterr().out)
    assert "nothing was done" in said
    assert all_below(path) == before
    assert Register(path.parent).entry(0) == entry


async def test_a_manifest_that_is_missing_costs_nothing(path: Path) -> None:
    (path / "1/manifest").unlink()
    assert "with what its journals have that fits" in accept.accept(path, really=True)
    assert Register(path.parent).entry(0).state is PartitionState.ACCEPTED
    assert await found(path) == WRITES
    assert Register(path.parent).entry(0).state is PartitionState.KNOWN


async def test_a_journal_that_is_damaged_is_given_up_alone(path: Path) -> None:
    for name in ("journal.0", "journal.1"):
        (path / "1" / name).write_bytes(bytes([1]) * writer.SEGMENT_BYTES)
    assert "in journal.0 and journal.1, is given up" in accept.accept(path, really=True)
    assert await found(path) == 0  # none of it had come to LMDB
    assert given_up(path) == ["1-journal.0", "1-journal.1", "1-manifest"]


async def test_somebodys_copy_beside_it_is_not_taken_for_a_generation(path: Path) -> None:
    shutil.copytree(path / "1", path / "02")
    (path / "1/manifest").unlink()
    accept.accept(path, really=True)
    assert await found(path) == WRITES
    assert path / "02/manifest" in all_below(path)


async def test_somebodys_copy_keeps_no_register_from_being_made_anew(path: Path) -> None:
    shutil.copytree(path / "1", path / "02")
    (path.parent / "manifest").unlink()
    assert await found(path) == WRITES


async def test_of_several_generations_the_one_that_is_known_goes_on(path: Path) -> None:
    shutil.copytree(path / "1", path / "3")
    (path / "1/manifest").unlink()
    accept.accept(path, really=True)
    assert await found(path) == WRITES
    assert given_up(path) == ["3"]


@pytest.mark.parametrize("name", ["claim.lock", "1/owner.lock"])
def test_a_partition_that_is_locked_is_a_stores(path: Path, name: str) -> None:
    descriptor = os.open(path / name, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        before = all_below(path)
        with pytest.raises(EngineError, match="is open in a store"):
            accept.accept(path, really=True)
    finally:
        os.close(descriptor)
    assert all_below(path) == before
    accept.accept(path, really=True)  # and its own locks are gone


def test_each_path_has_its_own_outcome(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accept.main(["--yes", str(path.parent / "99"), str(path)]) == 1
    told = capsys.readouterr()
    assert f"{path.parent / '99'}: is no folder of a partition" in told.err
    assert f"{path}: goes on with" in told.out
    assert Register(path.parent).entry(0).state is PartitionState.ACCEPTED


@pytest.mark.parametrize("arguments", [[], ["--yes"], ["--no", "00"], ["00", "--force"]])
def test_what_it_is_not_to_be_called_with(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert accept.main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_a_folder_that_may_not_be_written_is_an_error(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path / "claim.lock").unlink()
    (path / "claim.lock").mkdir()
    assert accept.main(["--yes", str(path)]) == 1
    assert "Is a directory" in capsys.readouterr().err
