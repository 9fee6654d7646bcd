"""What says that a partition has existed: a missing or empty file is a loss then, and no new partition.

Two files say so, each on the disk before anything of the partition is acknowledged::

    partitions/manifest                  the *register*: of each partition, whether it has existed, its name for good
                                         (16 random bytes) and its generation
    partitions/NN/<generation>/manifest  which partition and generation the folder is of, how long its journals are, and
                                         how much there has to be at least: up to which generation LMDB has everything,
                                         and a record that was in the journal when that was synced

Both are written whole once, and overwritten in place from then on: see ``slots``. What the journal and LMDB have at
least is written without a sync: an earlier word of it is right as well. This is about the second one.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_bytes

from socketcluster_store.engines.shared_folder import slots
from socketcluster_store.engines.shared_folder.files import sync_folder
from socketcluster_store.errors import EngineError, IncompleteError

NAME = "manifest"
DATA = "data.mdb"
JOURNALS = ("journal.0", "journal.1")
NOBODY = bytes(16)
"""The name of no partition."""

_MANIFEST = struct.Struct("=8s16sQQQQI")
_MAGIC = b"SCPART\0\1"


@dataclass(frozen=True)
class Manifest:
    """What a generation's folder says of itself."""

    identity: bytes
    """The partition's name for good."""
    generation: int
    segment_bytes: int
    """What each of its journals has at least."""
    applied: int = 0
    """LMDB has everything up to this generation of the journal, at least."""
    end_generation: int = 0
    """The journal had a record of this generation that ended with ``end_crc`` when it was synced; 0: nobody knows."""
    end_crc: int = 0
    sequence: int = 1
    """How often it was written."""

    def pack(self) -> bytes:
        """Return the bytes of a slot."""
        body = _MANIFEST.pack(
            _MAGIC,
            self.identity,
            self.generation,
            self.segment_bytes,
            self.applied,
            self.end_generation,
            self.end_crc,
        )
        return slots.pack(self.sequence, body)


def read(folder: Path) -> Manifest | None:
    """Return the manifest of a generation's folder; ``None``: it has none.

    Raises:
        EngineError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        raw = (folder / NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    newest = slots.newest(raw, _MANIFEST, _MAGIC)
    if newest is None:
        raise EngineError(f"{folder / NAME} is damaged")
    return Manifest(*newest[1], newest[0])  # type: ignore[arg-type, call-arg]


def create(folder: Path, manifest: Manifest) -> None:
    """Write a manifest into a folder that has none that counts; its content is on the disk then, not yet its name.

    Raises:
        OSError: it cannot be written; there is none then.
    """
    try:
        slots.write_whole(folder / NAME, manifest.pack() * 2)
    except OSError:  # what could not be synced is not to be found
        (folder / NAME).unlink(missing_ok=True)
        raise


def renew(folder: Path, manifest: Manifest, found: os.stat_result) -> Manifest:
    """Overwrite a folder's manifest in place, without a sync; return it as it is there now.

    Raises:
        OSError: it cannot be written, is gone, or is not the one that was ``found`` at the opening.
    """
    manifest = replace(manifest, sequence=manifest.sequence + 1)
    descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if not os.path.samestat(os.fstat(descriptor), found):
            raise FileNotFoundError(f"{folder / NAME} was replaced")
        os.pwrite(descriptor, manifest.pack(), manifest.sequence % 2 * slots.SLOT_BYTES)
    finally:
        os.close(descriptor)
    return manifest


def sync(folder: Path) -> None:
    """Force a folder's manifest and its name to the disk: a process that was killed may have made it.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(folder)


def make_identity() -> bytes:
    """Return a name for a partition that no other one has, of whatever installation."""
    return token_bytes(len(NOBODY))


def generations(path: Path) -> list[int]:
    """Return the numbers of the folders that a partition's folder has, in order; none: it is not there.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return sorted(int(entry.name) for entry in path.iterdir() if _is_number(entry.name) and entry.is_dir())
    except FileNotFoundError:
        return []


def _is_number(name: str) -> bool:
    """Is a name a number as stores write it? Somebody's copy ``02`` of a generation is none."""
    return name.isdecimal() and str(int(name)) == name


def lacking(path: Path, number: int, what: str) -> IncompleteError:
    """Return the error that says what of a partition is missing, and what is to be done."""
    return IncompleteError(
        f"partition {number} in {path} is not opened: {what}. It has existed: restore it from a backup, with all of its"
        f" files and {path.parent / NAME}; or give up what is missing: socketcluster store accept {path}"
    )
