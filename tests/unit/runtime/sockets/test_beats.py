"""Signs of life in a file."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from socketcluster_runtime.sockets.beats import BeatReader, Beats


def test_a_reader_sees_each_new_beat_once_and_how_old_it_is(tmp_path: Path) -> None:
    beats = Beats(tmp_path / "a.beats")
    reader = BeatReader(str(tmp_path / "a.beats"))
    assert reader.look() is None  # the one that was there
    before = time.monotonic()
    beats.beat()
    age = reader.look()
    assert age is not None
    assert 0 <= age <= time.monotonic() - before
    assert reader.look() is None
    beats.beat()
    beats.beat()
    assert reader.look() is not None
    assert reader.count == 2
    reader.close()
    beats.close()
    assert not (tmp_path / "a.beats").exists()


def test_the_file_is_made_anew_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.beats"
    first = Beats(path)
    reader = BeatReader(str(path))
    second = Beats(path)
    second.beat()
    assert reader.look() is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 8
    reader.close()
    first.close()
    second.close()


def test_a_clock_that_is_ahead_makes_no_age(tmp_path: Path) -> None:
    path = tmp_path / "a.beats"
    path.write_bytes(b"")
    reader = BeatReader(str(path))
    path.write_bytes(struct.pack("=Q", time.monotonic_ns() + 10**12))
    assert reader.look() == 0.0
    reader.close()


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        BeatReader(str(tmp_path / "a.beats"))
    with pytest.raises(OSError, match="No such file"):
        Beats(tmp_path / "nowhere" / "a.beats")
    assert list(tmp_path.iterdir()) == []
