"""What of a journal is forced to the disk when it is opened, and in which order; a power cut may come at any point."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.store import writer
from support.store.writer import consistent, put

from socketcluster_store.engines.lmdb import environments, files
from socketcluster_store.engines.lmdb.journal import Journal, Segment
from socketcluster_store.engines.lmdb.journal import encode as encode_writes
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.errors import EngineError

SIZE = 256
MAGIC = b"SCJRNL\0\1"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The files that were synced, and whether each was a segment then."""
    noted: list[tuple[str, bool]] = []
    sync = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        noted.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, os.pread(descriptor, 8, 0) == MAGIC))
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return noted


def generations(folder: Path, count: int) -> None:
    """Leave a journal whose last two generations are there, each with a record."""
    folder.mkdir()
    journal = Journal(folder, SIZE)
    journal.replay(0)
    for number in range(1, count + 1):
        if number > 1:
            journal.turn()
        journal.append(encode_writes({b"%d" % number: b"value"}))
    journal.close()


def test_a_segment_that_is_left_out_is_blank_on_the_disk_before_anything_else_is_written(
    tmp_path: Path, synced: list[tuple[str, bool]]
) -> None:
    generations(tmp_path / "p", 2)
    data = (tmp_path / "p" / "journal.0").read_bytes()
    (tmp_path / "p" / "journal.0").write_bytes(data[:28] + bytes(len(data) - 28))  # its records are not on the disk
    journal = Journal(tmp_path / "p", SIZE)
    assert journal.replay(0) == [{}]
    assert synced == [("journal.1", False)]
    journal.close()


@pytest.mark.parametrize(("count", "order"), [(2, ["journal.0", "journal.1"]), (3, ["journal.1", "journal.0"])])
def test_what_is_replayed_is_synced_the_earlier_segment_first(
    tmp_path: Path, synced: list[tuple[str, bool]], count: int, order: list[str]
) -> None:
    """The process that wrote it may not have done so, and the later one counts only if the earlier one is whole."""
    generations(tmp_path / "p", count)
    journal = Journal(tmp_path / "p", SIZE)
    assert len(journal.replay(count - 2)) == 2
    journal.sync()
    assert synced == [(name, True) for name in order]
    journal.close()


def test_a_segment_is_left_out_if_the_one_before_it_is_not_there(tmp_path: Path) -> None:
    """Also where LMDB knows no CRC to compare."""
    generations(tmp_path / "p", 3)
    (tmp_path / "p" / "journal.1").write_bytes(bytes(SIZE))
    journal = Journal(tmp_path / "p", SIZE)
    assert journal.replay(1) == [{}]
    assert journal.generation == 2
    journal.close()


async def test_a_segment_that_does_not_go_on_from_what_lmdb_has_is_left_out(tmp_path: Path) -> None:
    partition = await writer.opened(writer.engine(tmp_path))
    for number in range(1, 300):  # with checkpoints
        await put(partition, number)
    await partition.close()
    folder = tmp_path / "00" / "1"
    segments = [Segment(folder / name, writer.SEGMENT_BYTES) for name in ("journal.0", "journal.1")]
    earlier, later = sorted(segments, key=lambda segment: segment.generation)
    generation, previous = later.generation, later.previous
    later.begin(generation, previous ^ 1)  # of another past
    later.append(encode_writes({b"foreign": b"value"}))
    for segment in (earlier, later):
        segment.close()
    manifest = manifests.read(folder)
    assert manifest is not None
    unclosed = replace(manifest, end_generation=0)  # as if it had not been closed: else what is missing would be missed
    manifests.renew(folder, unclosed, (folder / "manifest").stat())
    opened = files.open_files(folder, writer.SEGMENT_BYTES, unclosed)
    assert all(b"foreign" not in writes for writes in opened.written)
    opened.close()
    again = await writer.opened(writer.engine(tmp_path))
    assert 0 < await consistent(again) < 300
    await again.close()


def test_a_file_that_was_replaced_while_it_was_opened_is_not_used(tmp_path: Path) -> None:
    """What is locked is the former one."""
    for name in ("data.mdb", "other"):
        (tmp_path / name).write_bytes(b"")
    data = os.open(tmp_path / "data.mdb", os.O_RDWR | os.O_CLOEXEC)
    (tmp_path / "other").rename(tmp_path / "data.mdb")
    with pytest.raises(EngineError, match="was replaced"):
        environments.open_in(tmp_path, data)
    os.close(data)
