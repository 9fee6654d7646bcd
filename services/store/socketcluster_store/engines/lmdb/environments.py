"""LMDB's environment of a partition: opened, read, written, grown, and told from one that was cut short."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import lmdb

from socketcluster_runtime.secrets.private_files import FILE_MODE, make_private
from socketcluster_store.engines.lmdb.journal import Writes
from socketcluster_store.engines.shared_folder.manifests import DATA
from socketcluster_store.errors import EngineError

MAP_BYTES = 16 * 1024**3
"""Address space of a partition, doubled when it is full; the file grows with its data."""
SLICE_WRITES = 256
SLICE_BYTES = 256 * 1024
"""What is put into LMDB in one go: operations come between two slices."""

_MMAP_THRESHOLD = -3
"""``M_MMAP_THRESHOLD`` of glibc's mallopt(3)."""
_LARGE = 1024 * 1024
"""Bytes of an allocation that gets pages of its own."""

_APPLIED_KEY = b"j"
"""The generation of the journal up to which LMDB has everything."""
_PREVIOUS_KEY = b"p"
"""That generation, and its last CRC; what knows of no CRC leaves an older one."""


class Reader:
    """The snapshot of LMDB after its last commit: with one writer, its pages are left alone until the next but one."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment = environment
        self._transaction: lmdb.Transaction
        self.get: Callable[[bytes], bytes | None]
        self.open()

    def open(self) -> None:
        """Take a snapshot of what was committed last."""
        self._transaction = self._environment.begin()
        self.get = cast(Callable[[bytes], bytes | None], self._transaction.get)

    def close(self) -> None:
        """Let go of the snapshot."""
        self._transaction.abort()

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor() as cursor:
            if not cursor.set_range(prefix):
                return
            for item in cast(Iterator[tuple[bytes, bytes]], iter(cursor)):
                if not item[0].startswith(prefix):
                    return
                yield item


def map_large_lists() -> None:
    """Have LMDB's lists of pages take memory as far as they are used, for all of this process.

    There are 3 MiB of them for each partition, nearly empty. glibc serves them from memory that was freed before, once
    it has seen large pieces freed, and clears that: 2 MB a partition that nobody uses.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # else it is another C library, which does not do that
        mallopt(_MMAP_THRESHOLD, _LARGE)


def open_in(path: Path, data: int) -> lmdb.Environment:
    """Open the environment whose file is ``data``.

    Raises:
        lmdb.Error, OSError: it cannot be opened.
        EngineError: its file is damaged, or there is another one.
    """
    if not os.path.samestat(os.fstat(data), (path / DATA).stat()):
        raise EngineError(f"{path / DATA} was replaced")
    environment = lmdb.open(
        str(path),
        map_size=MAP_BYTES,
        mode=FILE_MODE,
        max_dbs=0,
        lock=False,  # the partition lock lets only one process in, which keeps its transactions apart
        readahead=False,
        meminit=False,
        max_spare_txns=1,
    )
    try:
        make_private(_data_of(environment))
        check_length(environment)
    except BaseException:
        environment.close()
        raise
    return environment


def applied_writes(generation: int, crc: int) -> Writes:
    """Return what says that LMDB has everything up to a generation, which ends with a CRC."""
    return {_APPLIED_KEY: number(generation), _PREVIOUS_KEY: number(generation) + crc.to_bytes(4, "big")}


def applied_of(transaction: lmdb.Transaction) -> tuple[int, int | None]:
    """Return the generation up to which LMDB has everything, and its last CRC, if that is known."""
    applied = bytes(transaction.get(_APPLIED_KEY) or b"")
    previous = bytes(transaction.get(_PREVIOUS_KEY) or b"")
    known = applied and previous[:-4] == applied
    return int.from_bytes(applied, "big"), int.from_bytes(previous[-4:], "big") if known else None


def commit_at_once(environment: lmdb.Environment, data: int, writes: Writes) -> None:
    """Put writes, commit them as ``commit`` does, and have the room that they need."""
    while True:
        try:
            transaction = environment.begin(write=True)
            try:
                put(transaction, sorted(writes.items()))
            except BaseException:
                transaction.abort()
                raise
            commit(environment, data, transaction, writes)
            return
        except lmdb.MapFullError:
            grow(environment)


def commit(environment: lmdb.Environment, data: int, transaction: lmdb.Transaction, writes: Writes) -> None:
    """Commit, and sync; the file has all pages then, so that one that was cut short can be told: see ``check_length``.

    LMDB writes no page that it took from the end of the file and freed in the same transaction. So the file is made
    longer before, by more than the transaction may take, and exactly as long as it has to be after.
    """
    page = environment.stat()["psize"]
    volume = sum(len(key) + len(value or b"") for key, value in writes.items())
    try:
        _lengthen(data, _length(environment) * 2 + (8 * (volume // page) + 1024) * page)
    except OSError:
        transaction.abort()
        raise
    transaction.commit()
    os.ftruncate(data, _length(environment))


def is_lost(environment: lmdb.Environment, data: int) -> bool:
    """Did a commit fail in such a way that the file is not to be trusted again?

    A descriptor is told once of pages that could not be written, whoever asked for it; ours is asked for nothing else.
    And LMDB refuses everything (``MDB_PANIC``) where it could not write the page that makes the commit.
    """
    try:
        os.fdatasync(data)
        environment.begin(write=True).abort()
    except (OSError, lmdb.PanicError):
        return True
    except lmdb.Error:
        return False
    return False


def _lengthen(data: int, size: int) -> None:
    if os.fstat(data).st_size < size:
        os.ftruncate(data, size)


def _length(environment: lmdb.Environment) -> int:
    """Return the bytes of all pages."""
    pages: int = environment.info()["last_pgno"] + 1
    return pages * int(environment.stat()["psize"])


def _data_of(environment: lmdb.Environment) -> Path:
    return Path(environment.path()) / DATA


def check_length(environment: lmdb.Environment) -> None:
    """Refuse a file that was cut short: to read behind its end would end the process (``SIGBUS``)."""
    path = _data_of(environment)
    found, length = path.stat().st_size, _length(environment)
    if found < length:
        raise EngineError(f"{path} was cut short: it has {found} bytes of {length}")


def number(value: int) -> bytes:
    """Return what orders as the number does."""
    return value.to_bytes(8, "big")


def grow(environment: lmdb.Environment) -> None:
    """Double the address space."""
    environment.set_mapsize(2 * environment.info()["map_size"])


def slices(writes: Writes) -> Iterator[list[tuple[bytes, bytes | None]]]:
    """Cut the writes, in the order of their keys, into what does not hold up others for long."""
    some: list[tuple[bytes, bytes | None]] = []
    size = 0
    for key in sorted(writes):
        value = writes[key]
        some.append((key, value))
        size += len(value or b"")
        if len(some) == SLICE_WRITES or size >= SLICE_BYTES:
            yield some
            some, size = [], 0
    yield some


def put(transaction: lmdb.Transaction, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Put writes into a transaction."""
    puts = []
    for key, value in writes:
        if value is None:
            transaction.delete(key)
        else:
            puts.append((key, value))
    with transaction.cursor() as cursor:
        cursor.putmulti(puts)
