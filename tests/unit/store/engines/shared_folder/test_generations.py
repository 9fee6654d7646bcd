"""Which of a partition's folders counts, by what the register and the folders say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.engines.shared_folder.generations import Choice, choose, not_ours
from socketcluster_store.engines.shared_folder.manifests import Manifest, generations
from socketcluster_store.engines.shared_folder.register import PartitionState, RegisterEntry
from socketcluster_store.errors import IncompleteError

NUMBER = 7
OURS, THEIRS = bytes([1]) * 16, bytes([2]) * 16
NEW = RegisterEntry(PartitionState.NEW)
FORMER = RegisterEntry(PartitionState.FORMER)
EXPECTED = RegisterEntry(PartitionState.EXPECTED)
ACCEPTED = RegisterEntry(PartitionState.ACCEPTED)


def known(generation: int) -> RegisterEntry:
    return RegisterEntry(PartitionState.KNOWN, generation, OURS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The folder of a partition that has nothing."""
    path = tmp_path / f"{NUMBER:02}"
    path.mkdir()
    return path


def make(path: Path, generation: int, identity: bytes | None = OURS, *, says: int | None = None) -> Manifest | None:
    """Make a generation's folder, with a manifest if it has an identity."""
    folder = path / str(generation)
    folder.mkdir()
    (folder / "data.mdb").touch()
    if identity is None:
        return None
    manifest = Manifest(identity, generation if says is None else says, 8192)
    manifests.create(folder, manifest)
    return manifest


def damage(path: Path, generation: int) -> None:
    make(path, generation)
    (path / str(generation) / "manifest").write_bytes(b"no manifest")


@pytest.mark.parametrize("entry", [NEW, ACCEPTED], ids=["new", "accepted"])
def test_where_nothing_is_the_first_one_begins(path: Path, entry: RegisterEntry) -> None:
    assert choose(path, NUMBER, entry) == Choice(1, None, (), ())
    path.rmdir()
    assert choose(path, NUMBER, entry) == Choice(1, None, (), ())


def test_the_highest_one_counts_and_those_before_it_are_to_be_removed(path: Path) -> None:
    for generation in (1, 2):
        make(path, generation)
    newest = make(path, 10)
    for entry in (known(1), known(10), EXPECTED, NEW):
        assert choose(path, NUMBER, entry) == Choice(10, newest, (1, 2), ())


def test_others_are_left_alone(path: Path) -> None:
    ours = make(path, 2)
    make(path, 1, THEIRS)
    make(path, 3, THEIRS)
    make(path, 4, None)
    make(path, 5, says=2)  # a copy of ours
    damage(path, 6)
    assert choose(path, NUMBER, known(2)) == Choice(2, ours, (), (1, 3, 4, 5, 6))


def test_of_one_that_the_register_does_not_know_those_of_another_name_are_left_alone(path: Path) -> None:
    make(path, 1, THEIRS)
    ours = make(path, 2)
    assert choose(path, NUMBER, EXPECTED) == Choice(2, ours, (), (1,))


def test_one_that_is_older_than_what_is_known_is_refused(path: Path) -> None:
    make(path, 2)
    with pytest.raises(IncompleteError, match="its generation 3 is missing, 2 is an older one"):
        choose(path, NUMBER, known(3))


def test_a_later_one_without_a_manifest_may_be_of_a_store_of_the_version_before(path: Path) -> None:
    make(path, 1, None)
    make(path, 2, None)
    for name, size in (("journal.0", 4096), ("journal.1", 8192)):
        (path / "2" / name).write_bytes(bytes(size))
    chosen = choose(path, NUMBER, known(1))
    assert chosen == Choice(2, Manifest(OURS, 2, 4096), (), (1,), taken=True)
    assert f"{path / '2'} has no manifest" in str(not_ours(path, chosen))
    assert "partition 7 in" in str(not_ours(path, chosen))


def without_data(path: Path) -> None:
    (path / "2/data.mdb").unlink()


def with_a_damaged_manifest(path: Path) -> None:
    (path / "2/manifest").write_bytes(b"no manifest")


@pytest.mark.parametrize("spoil", [without_data, with_a_damaged_manifest])
def test_a_later_one_that_is_none_of_those_is_refused(path: Path, spoil: Callable[[Path], None]) -> None:
    make(path, 2, None)
    spoil(path)
    with pytest.raises(IncompleteError, match=r"2/manifest is damaged|its folder 1 is missing"):
        choose(path, NUMBER, known(1))


@pytest.mark.parametrize(
    ("entry", "present", "what"),
    [
        (known(3), (), "its folder 3 is missing"),
        (EXPECTED, (), "it is empty"),
        (known(3), (3,), "3/manifest is missing"),
        (EXPECTED, (3, 4), "4/manifest is missing"),
        (known(3), (2,), "its folder 3 is missing"),
    ],
)
def test_what_is_missing_is_named(path: Path, entry: RegisterEntry, present: tuple[int, ...], what: str) -> None:
    for generation in present:
        make(path, generation, None)
    with pytest.raises(IncompleteError, match=rf"partition 7 in {re.escape(str(path))} is not opened: .*{what}"):
        choose(path, NUMBER, entry)


@pytest.mark.parametrize("entry", [known(3), EXPECTED], ids=["known", "expected"])
def test_a_folder_that_is_not_there_is_missing(path: Path, entry: RegisterEntry) -> None:
    path.rmdir()
    with pytest.raises(IncompleteError, match="its folder is missing"):
        choose(path, NUMBER, entry)


def test_what_belongs_to_others_alone_is_named(path: Path) -> None:
    make(path, 1, THEIRS)
    make(path, 2, THEIRS)
    with pytest.raises(IncompleteError, match="in its folder 2 belongs to another partition or installation"):
        choose(path, NUMBER, known(1))


def test_a_damaged_manifest_is_named(path: Path) -> None:
    damage(path, 1)
    for entry in (known(1), EXPECTED):
        with pytest.raises(IncompleteError, match="1/manifest is damaged"):
            choose(path, NUMBER, entry)


def test_data_of_the_version_before_is_taken_and_none_made_in_its_place(path: Path) -> None:
    make(path, 1, None)
    make(path, 2, None)
    assert choose(path, NUMBER, FORMER) == Choice(2, None, (1,), ())
    (path / "2/data.mdb").unlink()
    with pytest.raises(IncompleteError, match=r"2/data\.mdb is missing"):
        choose(path, NUMBER, FORMER)


def test_what_was_accepted_goes_on_with_what_is_there(path: Path) -> None:
    make(path, 2, None)
    assert choose(path, NUMBER, ACCEPTED) == Choice(2, None, (), ())
    ours = make(path, 3)
    assert choose(path, NUMBER, ACCEPTED) == Choice(3, ours, (), (2,))


def test_only_folders_with_numbers_as_stores_write_them_are_generations(path: Path) -> None:
    for name in ("2", "10", "0", "03", "007", "²", "٣", "draft", "given-up-1", "-1"):
        (path / name).mkdir()
    (path / "4").touch()
    assert generations(path) == [0, 2, 10]
    assert generations(path / "not there") == []
    with pytest.raises(NotADirectoryError):
        generations(path / "4")
