"""The register of partitions: what it says of each, and what it says when it is not there, or not whole."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.machine.disk import files_of_at_most

from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.engines.shared_folder.manifests import Manifest
from socketcluster_store.engines.shared_folder.register import (
    PartitionState,
    Register,
    RegisterEntry,
    found,
    registered,
)
from socketcluster_store.errors import IncompleteError, UnsyncedError
from socketcluster_store_client.partitioning import PARTITION_COUNT

IDENTITY = bytes(range(16))
WHOLE = PARTITION_COUNT * 256
"""Bytes of a register."""


def make(folder: Path, number: int, *names: str, generation: int = 1) -> Path:
    """Make a generation of a partition, with files of those names; return its folder."""
    path = folder / f"{number:02}" / str(generation)
    path.mkdir(parents=True)
    for name in names:
        (path / name).touch()
    return path


def make_known(folder: Path, number: int) -> tuple[Path, Manifest]:
    """Make a partition that has a manifest."""
    manifest = Manifest(IDENTITY, 1, 8192)
    path = make(folder, number)
    manifests.create(path, manifest)
    return path, manifest


def test_of_a_new_folder_it_says_that_there_is_nothing(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert [Register(tmp_path).entry(number) for number in (0, 63)] == [RegisterEntry(PartitionState.NEW)] * 2
    assert not logs
    assert registered(tmp_path) == [RegisterEntry(PartitionState.NEW)] * PARTITION_COUNT
    assert [path.name for path in tmp_path.iterdir()] == ["manifest"]
    assert stat.S_IMODE((tmp_path / "manifest").stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [0, 128, 8192, WHOLE - 1])
def test_a_new_one_for_which_there_is_no_room_is_an_error_and_nothing_is_left(tmp_path: Path, size: int) -> None:
    with files_of_at_most(size), pytest.raises(OSError, match="File too large"):
        Register(tmp_path).entry(0)
    assert not list(tmp_path.iterdir())
    assert Register(tmp_path).entry(0).state is PartitionState.NEW  # once there is room


def test_one_that_was_cut_short_and_for_which_there_is_no_room_stays(tmp_path: Path) -> None:
    Register(tmp_path).entry(0)
    os.truncate(tmp_path / "manifest", 5000)
    with files_of_at_most(8192), capture_logs(), pytest.raises(OSError, match="File too large"):
        Register(tmp_path).entry(0)
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("manifest", 5000)]


def test_what_is_noted_is_known_to_others(tmp_path: Path) -> None:
    path, manifest = make_known(tmp_path, 3)
    mine = Register(tmp_path)
    mine.note(3, path, manifest)
    (known,) = [entry for entry in registered(tmp_path) or () if entry.state is PartitionState.KNOWN]
    assert (known.generation, known.identity) == (1, IDENTITY)
    assert Register(tmp_path).entry(3) == mine.entry(3) == known


def test_what_is_known_is_not_written_again(tmp_path: Path) -> None:
    path, manifest = make_known(tmp_path, 3)
    Register(tmp_path).note(3, path, manifest)
    before = Register(tmp_path).entry(3)
    Register(tmp_path).note(3, path, manifest)
    assert Register(tmp_path).entry(3) == before


def fail(_descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_manifest_that_the_disk_refuses_leaves_the_partition_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Register(tmp_path)
    path, manifest = make_known(tmp_path, 3)
    before = mine.entry(3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(UnsyncedError, match=r"03/1/manifest: .*Input/output error"):
            mine.note(3, path, manifest)
    assert mine.entry(3) == before  # nor does it count as one that this process had open
    mine.note(3, path, manifest)


def test_an_entry_that_the_disk_refuses_does_not_count_as_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, manifest = make_known(tmp_path, 3)
    mine = Register(tmp_path)
    mine.entry(3)
    descriptors = sorted(Path("/proc/self/fd").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            mine.note(3, path, manifest)
    assert sorted(Path("/proc/self/fd").iterdir()) == descriptors
    (tmp_path / "manifest").unlink()
    mine.look(3)  # this process had nothing open
    assert mine.entry(3).state is PartitionState.EXPECTED


@pytest.mark.parametrize("ask", [Register.look, Register.entry], ids=["look", "entry"])
def test_who_had_a_partition_open_makes_no_new_register(tmp_path: Path, ask: Callable[[Register, int], object]) -> None:
    path, manifest = make_known(tmp_path, 3)
    mine = Register(tmp_path)
    mine.note(3, path, manifest)
    mine.look(3)
    (tmp_path / "manifest").unlink()
    for number in (3, 4):
        with pytest.raises(IncompleteError, match=rf"partition {number} .*/manifest was removed while this store runs"):
            ask(mine, number)
    assert not (tmp_path / "manifest").exists()


def test_who_had_a_partition_open_does_not_believe_another_register(tmp_path: Path) -> None:
    path, manifest = make_known(tmp_path, 3)
    mine = Register(tmp_path)
    mine.note(3, path, manifest)
    (tmp_path / "manifest").unlink()
    (path / "manifest").unlink()
    assert Register(tmp_path).entry(3).state is PartitionState.NEW
    with pytest.raises(IncompleteError, match="manifest was replaced while this store runs"):
        mine.entry(3)
    assert mine.entry(4).state is PartitionState.NEW


def test_of_two_who_make_it_at_a_time_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one finds it made when its own is to get its name."""
    link = os.link

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        Register(tmp_path).write(
            5, RegisterEntry(PartitionState.KNOWN, 9, IDENTITY, Register(tmp_path).entry(5).sequence + 1)
        )
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert Register(tmp_path).entry(5).generation == 9
    assert [path.name for path in tmp_path.iterdir()] == ["manifest"]


def test_one_that_is_missing_beside_a_manifest_expects_them_all(tmp_path: Path) -> None:
    make_known(tmp_path, 3)
    with capture_logs() as logs:
        assert Register(tmp_path).entry(4).state is PartitionState.EXPECTED
    assert [each["log_level"] for each in logs] == ["error"]
    assert {entry.state for entry in registered(tmp_path) or ()} == {PartitionState.EXPECTED}


def test_one_that_is_missing_beside_data_without_manifests_notes_it(tmp_path: Path) -> None:
    make(tmp_path, 3, "data.mdb")
    make(tmp_path, 4, "journal.1")
    make(tmp_path, 5, "owner.lock")  # opened, and never written
    with capture_logs() as logs:
        Register(tmp_path).entry(0)
    assert [entry.state for entry in registered(tmp_path) or ()][3:6] == [
        PartitionState.FORMER,
        PartitionState.FORMER,
        PartitionState.NEW,
    ]
    (told,) = logs
    assert told["log_level"] == "warning"
    assert told["partitions"] == [number for number in range(PARTITION_COUNT) if number not in (3, 4)]


def test_nothing_is_warned_of_where_all_partitions_are_there(tmp_path: Path) -> None:
    for number in range(PARTITION_COUNT):
        make(tmp_path, number, "data.mdb")
    with capture_logs() as logs:
        assert Register(tmp_path).entry(7).state is PartitionState.FORMER
    assert not logs


def test_an_entry_without_a_whole_slot_is_expected(tmp_path: Path) -> None:
    Register(tmp_path).entry(0)
    with (tmp_path / "manifest").open("r+b") as file:
        file.seek(3 * 256)
        file.write(bytes(256))
    assert Register(tmp_path).entry(3) == RegisterEntry(PartitionState.EXPECTED)
    assert Register(tmp_path).entry(4).state is PartitionState.NEW


@pytest.mark.parametrize("size", [None, 0, WHOLE - 1])
def test_who_only_reads_is_told_that_there_is_none(tmp_path: Path, size: int | None) -> None:
    if size is not None:
        Register(tmp_path).entry(0)
        os.truncate(tmp_path / "manifest", size)
    before = sorted(tmp_path.iterdir())
    assert registered(tmp_path) is None
    assert found(tmp_path) == [RegisterEntry(PartitionState.NEW)] * PARTITION_COUNT
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        registered(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        Register(tmp_path / "file").entry(0)


def test_it_is_taken_from_others_who_could_read_it(tmp_path: Path) -> None:
    Register(tmp_path).entry(0)
    (tmp_path / manifests.NAME).chmod(0o644)
    Register(tmp_path).entry(0)
    assert stat.S_IMODE((tmp_path / manifests.NAME).stat().st_mode) == 0o600


def test_entries_are_written_into_their_slots_in_turn(tmp_path: Path) -> None:
    mine = Register(tmp_path)
    entry = mine.entry(9)
    for generation in range(1, 5):
        entry = RegisterEntry(PartitionState.KNOWN, generation, IDENTITY, entry.sequence + 1)
        mine.write(9, entry)
        assert mine.entry(9) == entry
    assert {each.state for number, each in enumerate(registered(tmp_path) or ()) if number != 9} == {PartitionState.NEW}
    assert (tmp_path / "manifest").stat().st_size == WHOLE
