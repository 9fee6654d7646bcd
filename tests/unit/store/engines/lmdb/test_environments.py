"""LMDB's environment of a partition: what is put is there, and what cannot be put leaves all as it was."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lmdb
import pytest
from support.machine.disk import files_of_at_most

from socketcluster_store.engines.lmdb import environments
from socketcluster_store.engines.lmdb.environments import (
    Reader,
    applied_of,
    applied_writes,
    check_length,
    commit,
    commit_at_once,
    grow,
    is_lost,
    number,
    open_in,
    put,
    slices,
)
from socketcluster_store.errors import EngineError


class Environment:
    """An environment, its folder, and the descriptor of its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with lmdb.open(str(path), lock=False):
            pass
        self.file = path / "data.mdb"
        self.data = os.open(self.file, os.O_RDWR)
        self.lmdb = open_in(path, self.data)

    def everything(self) -> dict[bytes, bytes]:
        reader = Reader(self.lmdb)
        try:
            return {bytes(key): bytes(value) for key, value in reader.scan(b"")}
        finally:
            reader.close()


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    made = Environment(tmp_path)
    with ExitStack() as ends:
        ends.callback(os.close, made.data)
        ends.callback(made.lmdb.close)
        yield made


def fail(code: int) -> Callable[..., Any]:
    def failing(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return failing


# Opening


def test_it_is_private(environment: Environment) -> None:
    assert stat.S_IMODE(environment.file.stat().st_mode) == 0o600


def test_a_file_that_was_replaced_is_not_opened(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), lock=False):
        pass
    data = os.open(tmp_path / "data.mdb", os.O_RDWR)
    try:
        (tmp_path / "data.mdb").rename(tmp_path / "moved")
        with lmdb.open(str(tmp_path), lock=False):
            pass
        with pytest.raises(EngineError, match=r"data\.mdb was replaced"):
            open_in(tmp_path, data)
    finally:
        os.close(data)


def test_a_file_that_was_cut_short_is_not_opened_and_not_left_open(environment: Environment) -> None:
    commit_at_once(environment.lmdb, environment.data, {b"k": b"v" * 20_000})
    check_length(environment.lmdb)
    environment.lmdb.close()
    content = environment.file.read_bytes()
    size = len(content)
    os.truncate(environment.file, size - 4096)
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(EngineError, match=rf"was cut short: it has {size - 4096} bytes of {size}"):
        open_in(environment.path, environment.data)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    os.pwrite(environment.data, content + bytes(4096), 0)  # longer is as good
    environment.lmdb = open_in(environment.path, environment.data)
    assert environment.everything() == {b"k": b"v" * 20_000}


# Reading


def test_a_snapshot_stays_what_it_was_until_it_is_taken_anew(environment: Environment) -> None:
    commit_at_once(environment.lmdb, environment.data, {b"a1": b"1", b"a2": b"2", b"b": b"3"})
    reader = Reader(environment.lmdb)
    commit_at_once(environment.lmdb, environment.data, {b"a1": None, b"a3": b"4"})
    assert list(reader.scan(b"a")) == [(b"a1", b"1"), (b"a2", b"2")]
    assert (reader.get(b"a1"), reader.get(b"a3")) == (b"1", None)
    reader.close()
    reader.open()
    assert list(reader.scan(b"a")) == [(b"a2", b"2"), (b"a3", b"4")]
    assert list(reader.scan(b"b")) == [(b"b", b"3")]
    assert list(reader.scan(b"c")) == []
    reader.close()


# Writing


def test_what_is_removed_and_was_not_there_is_nothing(environment: Environment) -> None:
    commit_at_once(environment.lmdb, environment.data, {b"gone": None})
    commit_at_once(environment.lmdb, environment.data, {})
    assert environment.everything() == {}


def test_the_file_has_all_its_pages_after_a_commit_and_no_more(environment: Environment) -> None:
    for size in (10, 100_000, 1, 500_000):
        commit_at_once(environment.lmdb, environment.data, {b"k": bytes(size), b"l%d" % size: b""})
        pages = environment.lmdb.info()["last_pgno"] + 1
        assert environment.file.stat().st_size == pages * environment.lmdb.stat()["psize"]


def test_address_space_that_is_full_grows(environment: Environment) -> None:
    environment.lmdb.set_mapsize(64 * 1024)
    writes = {b"%d" % key: bytes(10_000) for key in range(50)}
    commit_at_once(environment.lmdb, environment.data, dict(writes))
    assert environment.everything() == writes
    assert environment.lmdb.info()["map_size"] >= 50 * 10_000
    before = environment.lmdb.info()["map_size"]
    grow(environment.lmdb)
    assert environment.lmdb.info()["map_size"] == 2 * before


def test_a_file_that_may_not_grow_leaves_all_as_it_was(environment: Environment) -> None:
    commit_at_once(environment.lmdb, environment.data, {b"k": b"before"})
    size = environment.file.stat().st_size
    with files_of_at_most(size + 4096), pytest.raises(OSError, match="File too large"):
        commit_at_once(environment.lmdb, environment.data, {b"k": b"after"})
    assert environment.everything() == {b"k": b"before"}
    assert not is_lost(environment.lmdb, environment.data)
    commit_at_once(environment.lmdb, environment.data, {b"k": b"after"})  # no transaction is left open
    assert environment.everything() == {b"k": b"after"}


def test_what_cannot_be_put_leaves_all_as_it_was(environment: Environment) -> None:
    with pytest.raises(lmdb.BadValsizeError):
        commit_at_once(environment.lmdb, environment.data, {b"a": b"1", b"x" * 600: b"2"})
    assert environment.everything() == {}
    commit_at_once(environment.lmdb, environment.data, {b"a": b"1"})
    assert environment.everything() == {b"a": b"1"}


def test_slices_have_all_writes_in_order_and_few_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "SLICE_WRITES", 3)
    monkeypatch.setattr(environments, "SLICE_BYTES", 10)
    writes: dict[bytes, bytes | None] = {b"%02d" % key: b"" for key in reversed(range(7))}
    assert [[key for key, _ in some] for some in slices(writes)] == [
        [b"00", b"01", b"02"],
        [b"03", b"04", b"05"],
        [b"06"],
    ]
    assert list(slices({b"b": bytes(9), b"c": None, b"a": bytes(10), b"d": b"1", b"e": b""})) == [
        [(b"a", bytes(10))],
        [(b"b", bytes(9)), (b"c", None), (b"d", b"1")],
        [(b"e", b"")],
    ]
    assert list(slices({})) == [[]]


# What is lost


def test_a_disk_that_did_not_take_pages_is_not_to_be_trusted(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_lost(environment.lmdb, environment.data)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail(errno.EIO))
        assert is_lost(environment.lmdb, environment.data)


@pytest.mark.parametrize(("error", "lost"), [(lmdb.PanicError, True), (lmdb.MapFullError, False)])
def test_an_environment_that_refuses_everything_is_not_to_be_trusted(
    environment: Environment, error: type[lmdb.Error], *, lost: bool
) -> None:
    class Refusing:
        def begin(self, *, write: bool) -> None:
            raise error(str(write))

    assert is_lost(Refusing(), environment.data) == lost  # type: ignore[arg-type]


def test_one_that_is_written_to_has_its_lock_kept(environment: Environment) -> None:
    """It is the descriptor's: LMDB opens and closes others of the same file."""
    fcntl.flock(environment.data, fcntl.LOCK_EX)
    commit_at_once(environment.lmdb, environment.data, {b"k": b"v"})
    environment.lmdb.close()
    other = os.open(environment.file, os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)


# What it has of the journal


@pytest.mark.parametrize("crc", [0, 1, 2**32 - 1])
def test_it_is_noted_up_to_where_it_has_everything(environment: Environment, crc: int) -> None:
    with environment.lmdb.begin() as transaction:
        assert applied_of(transaction) == (0, None)
    commit_at_once(environment.lmdb, environment.data, applied_writes(300, crc))
    with environment.lmdb.begin() as transaction:
        assert applied_of(transaction) == (300, crc)


def test_the_crc_of_an_earlier_generation_is_none(environment: Environment) -> None:
    """As a version leaves it that knows of none."""
    commit_at_once(environment.lmdb, environment.data, applied_writes(300, 7) | {b"j": number(301)})
    with environment.lmdb.begin() as transaction:
        assert applied_of(transaction) == (301, None)


def test_numbers_order_as_their_bytes_do() -> None:
    values = [0, 1, 255, 256, 2**32, 2**64 - 1]
    assert sorted(values, key=number) == values
    assert {len(number(value)) for value in values} == {8}


def test_a_commit_is_of_the_transaction_alone(environment: Environment) -> None:
    transaction = environment.lmdb.begin(write=True)
    put(transaction, [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", None)])
    assert environment.everything() == {}
    commit(environment.lmdb, environment.data, transaction, {})
    assert environment.everything() == {b"a": b"3", b"b": b"2"}
