"""The files of a partition: LMDB's environment and the journal, opened, copied, written and grown."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import lmdb

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.private_files import FILE_MODE, FOLDER_MODE, make_private, private
from socketcluster_store.engines.folder import manifests
from socketcluster_store.engines.folder.files import sync_folder
from socketcluster_store.engines.folder.manifests import DATA, JOURNALS, Manifest
from socketcluster_store.engines.folder.partition_lock import note_of
from socketcluster_store.engines.lmdb import journal
from socketcluster_store.engines.lmdb.journal import Journal, Writes
from socketcluster_store.errors import EngineError, IncompleteError, PartitionLockedError, UnsyncedError

log = get_logger(__name__)

MAP_BYTES = 16 * 1024**3
"""Address space of a partition, doubled when it is full; the file grows with its data."""
SLICE_WRITES = 256
SLICE_BYTES = 256 * 1024
"""What is put into LMDB in one go: operations come between two slices."""

_APPLIED_KEY = b"j"
"""The generation of the journal up to which LMDB has everything."""
_PREVIOUS_KEY = b"p"
"""That generation, and its last CRC; what knows of no CRC leaves an older one."""
_EPOCH_KEY = b"e"
LASTING_KEY = b"d"
"""The generation up to which LMDB had everything on the disk when this was written. A process that dies in a commit may
leave one that others see and that is not there."""
NAMES_KEY = b"n"
"""Which files had their names on the disk when this was written."""
_NAMES = struct.Struct(">5Q")
_LOSSES_KEY = b"l"
"""The epoch of the last opening that found less than was there before; see ``EnginePartition.losses``."""
_END = "end"
"""What a copy of distrusted files has besides: where their owner says that the journal ends; empty: it does not say."""


class Opened(NamedTuple):
    """What was opened."""

    environment: lmdb.Environment
    data: int
    """A descriptor of LMDB's file, locked: whatever becomes of its name, nobody else writes to it."""
    journal: Journal
    written: list[Writes]
    """What only the journal has: apart for each of its segments."""
    epoch: int
    losses: bytes
    """See ``EnginePartition``."""
    manifest: Manifest
    """What the folder says of itself now."""

    def close(self) -> None:
        """Close the files."""
        self.journal.close()
        self.environment.close()
        os.close(self.data)


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


def copy(former: Path, new: Path) -> None:
    """Copy what was applied to the disk, while the former owner may wake up.

    It appends one record more at most, and commits once more: that spares the pages of the snapshot that is read here.
    The journal is copied first, so that LMDB is not behind it. The former files are removed: the copies are synced.
    Of files that their owner distrusted the copy says where their journal ended: what was read here may be older.

    Raises:
        EngineError: something is missing, cut short or damaged.
    """
    manifest = None
    with contextlib.suppress(EngineError):  # damaged: who needs it has refused it
        manifest = manifests.read(former)
    check(former, manifest)
    journal.copy(former, new)
    if (former / DATA).exists():
        environment = lmdb.open(str(former), map_size=MAP_BYTES, max_dbs=0, lock=False, readonly=True, readahead=False)
        with environment:
            check_length(environment)
            environment.copy(str(new), compact=True)
        make_private(new / DATA)  # LMDB asks nobody how
        with (new / DATA).open("rb") as file:
            os.fsync(file.fileno())
    end = note_of(former)
    if end is not None:
        with open(new / _END, "wb", opener=private) as file:
            file.write(end)
            file.flush()
            os.fsync(file.fileno())


def open_files(path: Path, segment_bytes: int, manifest: Manifest | None = None) -> Opened:
    """Open environment and journal, and raise the epoch; the journal is to be synced before anything is told.

    What else has to be on the disk by then is synced here, if the journal does not say that it is there: a system call
    for each of these, for each partition, is what makes a takeover long.

    Args:
        path: the folder.
        segment_bytes: of a journal that is made here.
        manifest: what has to be there; ``None``: it is made, or was made by a version that knew of no manifests. The
            folder gets a manifest then, once everything else is on the disk; its name need not be there yet.

    Raises:
        lmdb.Error, OSError: they cannot be opened.
        PartitionLockedError: another process has them open, whatever became of its lock.
        UnsyncedError: the disk failed.
        EngineError: one of them is missing, damaged, or has less than it had.
    """
    with contextlib.ExitStack() as undo:
        check(path, manifest)
        if manifest is not None:
            make_private(path / manifests.NAME)
        _make(path)
        data = os.open(path / DATA, os.O_RDWR | os.O_CLOEXEC)
        undo.callback(os.close, data)
        try:
            fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PartitionLockedError(
                f"another store has {path / DATA} open, although the owner.lock beside it is not locked:"
                " that was removed or replaced. A store gives such a partition up in a second; end whatever else has"
                " the file open",
                "",
            ) from None
        environment = open_environment(path, data)
        undo.callback(environment.close)
        with environment.begin() as transaction:
            found = {key: transaction.get(key) for key in (_EPOCH_KEY, NAMES_KEY, LASTING_KEY, _LOSSES_KEY)}
            applied, crc = applied_of(transaction)
        if manifest is None and applied and (absent := absent_in(path)):  # journals are made before anything is written
            raise IncompleteError(f"{', '.join(absent)} is missing in {path}")
        opened = Journal(path, segment_bytes)
        undo.callback(opened.close)
        written = replay(opened, path, applied, crc, manifest)
        for some in written:
            found |= {key: value for key, value in some.items() if key in found}
        names = names_of(path, opened)
        if found[NAMES_KEY] != names:
            sync_folder(path)
            sync_folder(path.parent)
        if applied != int.from_bytes(found[LASTING_KEY] or b"", "big"):
            try:
                os.fdatasync(data)
            except OSError as error:
                raise UnsyncedError(str(error)) from error
        epoch = int.from_bytes(found[_EPOCH_KEY] or b"", "big") + 1
        record: Writes = {_EPOCH_KEY: number(epoch), NAMES_KEY: names, LASTING_KEY: number(applied)}
        copied = (path / _END).exists()
        if copied and (path / _END).read_bytes().rstrip(b"\0") != opened.end.rstrip(b"\0"):
            log.error("what was written last is missing in a copy of files that could not be synced", path=str(path))
            found[_LOSSES_KEY] = record[_LOSSES_KEY] = number(epoch)
        if opened.append(journal.encode(record)):
            written[-1] |= record
        else:  # it was killed with a full journal: LMDB takes everything
            everything = {key: value for some in written for key, value in some.items()} | record
            everything |= applied_writes(opened.generation, opened.crc)
            try:
                _commit_at_once(environment, data, everything)
            except lmdb.Error as error:
                if is_lost(environment, data):
                    raise UnsyncedError(str(error)) from error
                raise
            opened.turn()
            written = [{}]
        if copied:  # from here on it ends elsewhere, and the loss is known from its record
            try:
                opened.sync()
            except OSError as error:
                raise UnsyncedError(f"the journal cannot be synced: {error}") from error
            (path / _END).unlink()
        if manifest is None:
            manifest = _certify(path, data, opened, applied)
        undo.pop_all()
    return Opened(environment, data, opened, written, epoch, found[_LOSSES_KEY] or b"", manifest)


def check(path: Path, manifest: Manifest | None) -> None:
    """Make sure that no file of a partition is missing, or shorter than it has to be, before any is made.

    Args:
        path: the folder.
        manifest: what has to be there; ``None``: nothing, or all that a version without manifests made.

    Raises:
        IncompleteError: one is.
        OSError: one cannot be looked at.
    """
    absent = absent_in(path)
    if manifest is not None:
        if not (path / DATA).exists():
            absent.insert(0, DATA)
        if absent:
            raise IncompleteError(f"{', '.join(absent)} is missing in {path}")
    elif len(absent) < len(JOURNALS) and not (path / DATA).exists():  # which is made first
        raise IncompleteError(f"{DATA} is missing in {path}, and there is a journal")
    if (path / DATA).exists() and not (path / DATA).stat().st_size:  # it gets its name when it is whole
        raise IncompleteError(f"{path / DATA} is empty")
    if manifest is None:
        return
    for name in JOURNALS:
        with (path / name).open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) < manifest.segment_bytes:
                raise IncompleteError(f"{path / name} was cut short: it has {size} bytes of {manifest.segment_bytes}")
            if not any(file.read(8)):
                raise IncompleteError(f"{path / name} was emptied")


def replay(opened: Journal, path: Path, applied: int, crc: int | None, manifest: Manifest | None) -> list[Writes]:
    """Return what only the journal has.

    Raises:
        IncompleteError: there is less than the manifest says.
        UnsyncedError, EngineError: see ``Journal.replay``.
    """
    end = (manifest.end_generation, manifest.end_crc) if manifest is not None else (0, 0)
    written = opened.replay(applied, crc, end)
    if manifest is not None and applied < manifest.applied:
        raise IncompleteError(
            f"{path / DATA} is older than it was: it has the journal's generation {applied}, and had {manifest.applied}"
        )
    if end[0] > applied and not opened.end_met:
        raise IncompleteError(
            f"the journals in {path} end before a record of generation {end[0]} that was on the disk when the partition"
            " was closed"
        )
    return written


def names_of(path: Path, opened: Journal) -> bytes:
    """Return what says which folder and files were opened; it is kept at ``NAMES_KEY``."""
    return _NAMES.pack(int(path.name), path.stat().st_ino, (path / DATA).stat().st_ino, *opened.inodes)


def absent_in(path: Path) -> list[str]:
    """Return which journals are not in a folder."""
    return [name for name in JOURNALS if not (path / name).exists()]


def _certify(path: Path, data: int, opened: Journal, applied: int) -> Manifest:
    """Write the manifest of a folder that has none, when all of it is on the disk."""
    try:
        opened.sync()
        os.fdatasync(data)
    except OSError as error:
        raise UnsyncedError(str(error)) from error
    manifest = Manifest(manifests.make_identity(), int(path.name), opened.size, applied)
    manifests.create(path, manifest)
    return manifest


def open_environment(path: Path, data: int) -> lmdb.Environment:
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


def _make(path: Path) -> None:
    """Make an environment where there is none: whole or not at all, whatever becomes of the machine meanwhile."""
    if (path / DATA).exists():
        return
    draft = path / "draft"
    shutil.rmtree(draft, ignore_errors=True)  # of a process that died
    draft.mkdir(FOLDER_MODE)
    with lmdb.open(str(draft), mode=FILE_MODE, max_dbs=0, lock=False):
        pass
    with (draft / DATA).open("rb") as file:
        os.fsync(file.fileno())
    (draft / DATA).rename(path / DATA)
    draft.rmdir()


def applied_writes(generation: int, crc: int) -> Writes:
    """Return what says that LMDB has everything up to a generation, which ends with a CRC."""
    return {_APPLIED_KEY: number(generation), _PREVIOUS_KEY: number(generation) + crc.to_bytes(4, "big")}


def applied_of(transaction: lmdb.Transaction) -> tuple[int, int | None]:
    """Return the generation up to which LMDB has everything, and its last CRC, if that is known."""
    applied = bytes(transaction.get(_APPLIED_KEY) or b"")
    previous = bytes(transaction.get(_PREVIOUS_KEY) or b"")
    known = applied and previous[:-4] == applied
    return int.from_bytes(applied, "big"), int.from_bytes(previous[-4:], "big") if known else None


def _commit_at_once(environment: lmdb.Environment, data: int, writes: Writes) -> None:
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
