"""Records in two slots: one of them is whole, whatever became of the other."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from struct import Struct

import pytest
from support.machine.disk import files_of_at_most

from socketcluster_store.engines.shared_folder import slots
from socketcluster_store.engines.shared_folder.slots import SLOT_BYTES

BODY = Struct("=8sQ")
MAGIC = b"TESTING\0"


def slot(sequence: int, value: int, magic: bytes = MAGIC) -> bytes:
    return slots.pack(sequence, BODY.pack(magic, value))


def newest(raw: bytes) -> tuple[int, tuple[object, ...]] | None:
    return slots.newest(raw, BODY, MAGIC)


def test_a_slot_has_always_the_same_size() -> None:
    assert len(slot(1, 0)) == len(slot(2**64 - 1, 2**64 - 1)) == SLOT_BYTES


@pytest.mark.parametrize("raw", [slot(2, 20) + slot(3, 30), slot(3, 30) + slot(2, 20)], ids=["second", "first"])
def test_the_one_with_the_higher_number_counts(raw: bytes) -> None:
    assert newest(raw) == (3, (30,))


@pytest.mark.parametrize("place", range(8 + BODY.size + 4))
def test_one_that_is_torn_anywhere_leaves_the_other_one(place: int) -> None:
    raw = bytearray(slot(2, 20) + slot(3, 30))
    raw[SLOT_BYTES + place] ^= 1
    assert newest(bytes(raw)) == (2, (20,))


@pytest.mark.parametrize("length", [SLOT_BYTES, SLOT_BYTES + 1, SLOT_BYTES + 8 + BODY.size + 3])
def test_one_that_was_cut_short_leaves_the_other_one(length: int) -> None:
    assert newest((slot(2, 20) + slot(3, 30))[:length]) == (2, (20,))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(2 * SLOT_BYTES),
        bytes([255]) * 2 * SLOT_BYTES,
        slot(1, 1)[:20],
        slot(1, 1, b"ANOTHER\0") * 2,
    ],
    ids=["nothing", "zeros", "ones", "a part", "another kind"],
)
def test_what_has_no_whole_slot_is_nothing(raw: bytes) -> None:
    assert newest(raw) is None


def test_a_file_is_written_whole_and_private_over_a_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"long" * 10_000, b"short"):
        slots.write_whole(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_for_which_there_is_no_room_is_an_error_and_no_part_of_it(tmp_path: Path) -> None:
    with files_of_at_most(SLOT_BYTES), pytest.raises(OSError, match="File too large") as refused:
        slots.write_whole(tmp_path / "file", slot(1, 1) * 2)
    assert refused.value.errno == errno.EFBIG


def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = sorted(Path("/proc/self/fd").iterdir())
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        slots.write_whole(tmp_path / "file", b"content")
    assert sorted(Path("/proc/self/fd").iterdir()) == before
