"""The files of a partition, LMDB's and the journal's: opened together, checked and copied."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

import lmdb

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.private_files import FILE_MODE, FOLDER_MODE, make_private, private
from socketcluster_store.engines.lmdb import environments, journal
from socketcluster_store.engines.lmdb.journal import Journal, Writes
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.engines.shared_folder.files import sync_folder
from socketcluster_store.engines.shared_folder.manifests import DATA, JOURNALS, Manifest
from socketcluster_store.engines.shared_folder.partition_lock import note_of
from socketcluster_store.errors import EngineError, IncompleteError, PartitionLockedError, UnsyncedError

log = get_logger(__name__)

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
        environment = lmdb.open(
            str(former), map_size=environments.MAP_BYTES, max_dbs=0, lock=False, readonly=True, readahead=False
        )
        with environment:
            environments.check_length(environment)
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
        environment = environments.open_in(path, data)
        undo.callback(environment.close)
        with environment.begin() as transaction:
            found = {key: transaction.get(key) for key in (_EPOCH_KEY, NAMES_KEY, LASTING_KEY, _LOSSES_KEY)}
            applied, crc = environments.applied_of(transaction)
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
        record: Writes = {
            _EPOCH_KEY: environments.number(epoch),
            NAMES_KEY: names,
            LASTING_KEY: environments.number(applied),
        }
        copied = (path / _END).exists()
        if copied and (path / _END).read_bytes().rstrip(b"\0") != opened.end.rstrip(b"\0"):
            log.error("what was written last is missing in a copy of files that could not be synced", path=str(path))
            found[_LOSSES_KEY] = record[_LOSSES_KEY] = environments.number(epoch)
        if opened.append(journal.encode(record)):
            written[-1] |= record
        else:  # it was killed with a full journal: LMDB takes everything
            everything = {key: value for some in written for key, value in some.items()} | record
            everything |= environments.applied_writes(opened.generation, opened.crc)
            try:
                environments.commit_at_once(environment, data, everything)
            except lmdb.Error as error:
                if environments.is_lost(environment, data):
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
