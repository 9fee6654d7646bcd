"""What is read of partitions that nobody has open: all of it, without a change, and without ending who asks."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import lmdb
import psutil
import pytest
from support.store import writer
from support.store.writer import opened, put

from socketcluster_store.engines.lmdb import inspection
from socketcluster_store.engines.lmdb.inspection import applied_in, count, in_a_child, inspect, opened_here
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.engines.shared_folder.manifests import JOURNALS
from socketcluster_store.errors import EngineError, IncompleteError

WRITES = 400
"""Several checkpoints."""


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """The folder of a generation of partition 0."""
    partition = await opened(writer.engine(tmp_path))
    for number in range(1, WRITES + 1):
        await put(partition, number)
    await partition.close()
    return tmp_path / "00/1"


@pytest.fixture
async def unused(tmp_path: Path) -> Path:
    """The same of one that was opened, and nothing written to."""
    await (await writer.engine(tmp_path).open(1)).close()
    return tmp_path / "01/1"


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def remove_journals(folder: Path) -> None:
    for name in JOURNALS:
        (folder / name).unlink()


# What is there


def test_what_is_whole_is_counted_and_nothing_is_changed(folder: Path, unused: Path) -> None:
    before = state_of(folder), state_of(unused)
    manifest = manifests.read(folder)
    assert manifest is not None
    entries = count(folder)
    assert entries > 0
    assert applied_in(folder) >= manifest.applied > 0
    assert inspect(folder, manifest).startswith(f"{entries} entries, ")
    assert not inspect(folder, manifest).endswith(" 0 written since the last checkpoint")
    assert (count(unused), applied_in(unused)) == (0, 0)
    assert "0 entries, " in inspect(unused, manifests.read(unused))
    assert (state_of(folder), state_of(unused)) == before


def test_one_that_was_made_and_not_opened_yet_has_no_journals(unused: Path) -> None:
    """A process died between both."""
    remove_journals(unused)
    (unused / "manifest").unlink()
    assert inspect(unused, None) == "0 entries, not opened yet"


def test_journals_are_missing_where_something_was_written(folder: Path) -> None:
    remove_journals(folder)
    with pytest.raises(IncompleteError, match=r"journal\.0, journal\.1 is missing"):
        inspect(folder, None)
    with pytest.raises(IncompleteError, match=r"journal\.0, journal\.1 is missing"):
        inspect(folder, manifests.read(folder))


@pytest.mark.parametrize("look", [count, applied_in, opened_here, lambda folder: inspect(folder, None)])
def test_data_that_was_cut_short_is_not_read(folder: Path, look: Callable[[Path], object]) -> None:
    os.truncate(folder / "data.mdb", 8192)
    with pytest.raises(EngineError, match=r"data\.mdb was cut short"):
        look(folder)


@pytest.mark.parametrize("look", [count, applied_in, opened_here])
def test_data_that_is_none_is_an_error(folder: Path, look: Callable[[Path], object]) -> None:
    (folder / "data.mdb").write_bytes(bytes(16384))
    with pytest.raises(lmdb.Error):
        look(folder)


@pytest.mark.parametrize("look", [count, applied_in])
def test_a_folder_without_data_is_an_error_and_none_is_made_there(
    tmp_path: Path, look: Callable[[Path], object]
) -> None:
    with pytest.raises(lmdb.Error):
        look(tmp_path)
    assert not list(tmp_path.iterdir())


# Where it is of


def test_what_was_opened_where_it_lies_is_of_this_place(folder: Path, unused: Path) -> None:
    before = state_of(folder)
    assert opened_here(folder)
    assert opened_here(unused)
    assert state_of(folder) == before


def test_a_copy_is_not(folder: Path) -> None:
    copied = shutil.copytree(folder, folder.with_name("2"))
    assert not opened_here(copied)
    moved = shutil.copytree(folder, folder.with_name("other"))
    shutil.rmtree(folder)
    assert not opened_here(moved.rename(folder))


@pytest.mark.parametrize("name", ["data.mdb", *JOURNALS])
def test_nor_is_what_lacks_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert not opened_here(folder)


def test_a_folder_that_is_not_there_is_not(tmp_path: Path) -> None:
    assert not opened_here(tmp_path / "1")


# In a child


def refuse(error: Exception) -> Callable[[], str]:
    def look() -> str:
        raise error

    return look


def end(number: int) -> Callable[[], str]:
    def look() -> str:
        faulthandler.disable()  # it is the test's, and would tell of this one
        os.kill(os.getpid(), number)
        return "not reached"

    return look


def test_what_a_child_says_is_returned(capfd: pytest.CaptureFixture[str]) -> None:
    mine = os.getpid()
    said = in_a_child(lambda: f"{os.getpid()} söme")
    assert said.endswith(" söme")
    assert not said.startswith(f"{mine} ")
    assert in_a_child(lambda: "") == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [EngineError("it is damaged"), lmdb.Error("it is damaged"), OSError("it is damaged")])
def test_what_a_child_raises_is_an_error(error: Exception) -> None:
    with pytest.raises(EngineError, match=r"^it is damaged$"):
        in_a_child(refuse(error))


def test_a_child_that_fails_otherwise_is_one_that_could_not_read() -> None:
    with pytest.raises(EngineError, match=r"data\.mdb is damaged: the process that read it failed"):
        in_a_child(refuse(ZeroDivisionError("by whom")))


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_child_that_is_ended_does_not_end_who_asks(number: signal.Signals) -> None:
    with pytest.raises(EngineError, match=f"the process that read it ended by {number.name}"):
        in_a_child(end(number))


def test_what_a_child_says_is_bounded_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_LONGEST", 4)
    assert in_a_child(lambda: "aéb") == "aé"
    assert in_a_child(lambda: "aaé") == "aa\N{REPLACEMENT CHARACTER}"


def test_a_child_may_say_more_than_a_pipe_holds() -> None:
    assert len(in_a_child(lambda: "x" * 99_000)) == 99_000


def test_what_a_child_prints_goes_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """LMDB prints what it stumbles over to standard output, where the command says what it found."""

    def look() -> str:
        os.write(1, b"mdb.c: assertion\n")
        return "well"

    assert in_a_child(look) == "well"
    assert capfd.readouterr() == ("", "mdb.c: assertion\n")


def test_no_child_and_no_descriptor_is_left() -> None:
    me = psutil.Process()
    descriptors, children = set(Path("/proc/self/fd").iterdir()), me.children()
    for look in (lambda: "well", refuse(EngineError("no")), end(signal.SIGKILL)):
        try:
            in_a_child(look)
        except EngineError:
            continue
    assert set(Path("/proc/self/fd").iterdir()) <= descriptors  # of other tests' some may be closed meanwhile
    assert me.children() == children
