"""Partitions that nobody has open, read without a change: what is there, and whether that is all."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb

from socketcluster_store.engines.lmdb import environments, files
from socketcluster_store.engines.lmdb.journal import Journal
from socketcluster_store.engines.shared_folder.manifests import DATA, Manifest
from socketcluster_store.errors import EngineError, IncompleteError

_LONGEST = 100_000
"""Bytes of what a child process has to say."""


@contextlib.contextmanager
def _read_only(path: Path) -> Iterator[lmdb.Transaction]:
    """Read the environment of a folder that nobody has open."""
    with lmdb.open(
        str(path), map_size=environments.MAP_BYTES, max_dbs=0, lock=False, readonly=True, readahead=False
    ) as environment:
        environments.check_length(environment)
        with environment.begin() as transaction:
            yield transaction


def count(path: Path) -> int:
    """Read all of LMDB's data in a folder that nobody has open; return the number of its entries.

    Raises:
        lmdb.Error, OSError, EngineError: it cannot be read.
    """
    with _read_only(path) as transaction, transaction.cursor() as cursor:
        return sum(1 for _key, _value in cursor)


def applied_in(path: Path) -> int:
    """Return up to which generation of the journal LMDB's data in such a folder has everything.

    Raises:
        lmdb.Error, OSError, EngineError: it cannot be read.
    """
    with _read_only(path) as transaction:
        return environments.applied_of(transaction)[0]


def opened_here(path: Path) -> bool:
    """Has a store had a folder's files open where they lie? They are of this place then, and no copy.

    Raises:
        lmdb.Error, OSError, EngineError: it cannot be read.
    """
    if not (path / DATA).exists() or files.absent_in(path):
        return False
    with _read_only(path) as transaction:
        names: bytes | None = bytes(transaction.get(files.NAMES_KEY) or b"")
        applied, crc = environments.applied_of(transaction)
    opened = Journal(path, 0, readonly=True)
    try:
        for writes in opened.replay(applied, crc):
            names = writes.get(files.NAMES_KEY, names)
        return names == files.names_of(path, opened)
    finally:
        opened.close()


def inspect(path: Path, manifest: Manifest | None) -> str:
    """Read all that is in a folder that nobody has open, as an opening would; return what it is. Nothing is written.

    Raises:
        lmdb.Error, OSError: it cannot be read.
        EngineError: something is missing, damaged, or less than it was.
    """
    files.check(path, manifest)
    entries = count(path)
    with _read_only(path) as transaction:
        applied, crc = environments.applied_of(transaction)
    if absent := files.absent_in(path):
        if applied:
            raise IncompleteError(f"{', '.join(absent)} is missing in {path}")
        return f"{entries} entries, not opened yet"
    opened = Journal(path, 0, readonly=True)
    try:
        written = files.replay(opened, path, applied, crc, manifest)
    finally:
        opened.close()
    return f"{entries} entries, {sum(map(len, written))} written since the last checkpoint"


def in_a_child(look: Callable[[], str]) -> str:
    """Look in a process of its own, since LMDB may end the one that reads a damaged page; what it logs is an error's.

    Raises:
        EngineError: it was ended, or raised ``EngineError``, ``lmdb.Error`` or ``OSError``.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.dup2(2, 1)
            try:
                said = "+" + look()
            except (EngineError, lmdb.Error, OSError) as error:
                said = f"-{error}"
            os.write(writer, said.encode()[:_LONGEST])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if said.startswith("+"):
        return said[1:]
    if said:
        raise EngineError(said[1:])
    why = f"ended by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "failed"
    raise EngineError(f"data.mdb is damaged: the process that read it {why}")
