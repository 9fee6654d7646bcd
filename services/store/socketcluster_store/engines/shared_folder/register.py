"""The register of an application's partitions: of each, whether it has existed; see ``manifests``.

It may be lost alone: it is made anew, and whoever has a manifest of its own is believed. A folder of a version before
manifests has neither; it is taken over at its first opening.
"""

from __future__ import annotations

import enum
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.private_files import make_private
from socketcluster_store.engines.shared_folder import manifests, slots
from socketcluster_store.engines.shared_folder.files import sync_folder
from socketcluster_store.engines.shared_folder.manifests import (
    DATA,
    JOURNALS,
    NAME,
    NOBODY,
    Manifest,
    generations,
    lacking,
)
from socketcluster_store.errors import UnsyncedError
from socketcluster_store_client.partitioning import PARTITION_COUNT

log = get_logger(__name__)

_BYTES = PARTITION_COUNT * 2 * slots.SLOT_BYTES
_ENTRY = struct.Struct("=8sBQ16s")
_MAGIC = b"SCREGS\0\1"


class PartitionState(enum.IntEnum):
    """What the register knows of a partition."""

    NEW = 0
    """It has never been there."""
    FORMER = 1
    """It was there when the register was made, without a manifest: of a version that knew of none."""
    KNOWN = 2
    """It has existed, under the name and in the generation that the entry tells."""
    EXPECTED = 3
    """The register was lost: it has to be there, with a manifest of its own."""
    ACCEPTED = 4
    """What is there, even if that is nothing, was accepted by hand."""


@dataclass(frozen=True)
class RegisterEntry:
    """What the register says of a partition."""

    state: PartitionState
    generation: int = 0
    identity: bytes = NOBODY
    sequence: int = 1

    def pack(self) -> bytes:
        """Return the bytes of a slot."""
        return slots.pack(self.sequence, _ENTRY.pack(_MAGIC, self.state, self.generation, self.identity))


class Register:
    """The register of an application's partitions.

    Args:
        folder: of all partitions.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._making = threading.Lock()
        self._opened: set[int] = set()

    def look(self, number: int) -> None:
        """Make sure that nothing is made where the data of this process was removed.

        Raises:
            IncompleteError: the register is gone, and with it what this process had open.
        """
        if self._opened and not self._path.exists():
            path = self._folder / f"{number:02}"
            raise lacking(path, number, f"{self._path} was removed while this store runs")

    def entry(self, number: int) -> RegisterEntry:
        """Return what it says of a partition; it is made if there is none.

        Raises:
            IncompleteError: the register is gone, and with it what this process had open.
            OSError: it cannot be read or made.
        """
        path = self._folder / f"{number:02}"
        with self._making:
            try:
                raw = self._read(number)
            except FileNotFoundError:
                if self._opened:
                    raise lacking(path, number, f"{self._path} was removed while this store runs") from None
                self._make()
                raw = self._read(number)
            if not raw:
                log.error("the register of partitions was cut short and is made anew", path=str(self._path))
                self._make(replaced=True)
                raw = self._read(number)
        entry = _entry_of(raw)
        if entry.state in (PartitionState.NEW, PartitionState.FORMER) and number in self._opened:
            raise lacking(path, number, f"{self._path} was replaced while this store runs")
        return entry

    def note(self, number: int, folder: Path, manifest: Manifest) -> None:
        """Have the register know an open partition, on the disk; call it with the partition locked.

        Args:
            number: which partition.
            folder: of its generation.
            manifest: what is there.

        Raises:
            UnsyncedError: the disk refused the folder's manifest.
            OSError: the register cannot be written.
        """
        entry = self.entry(number)
        if (entry.state, entry.identity, entry.generation) != (
            PartitionState.KNOWN,
            manifest.identity,
            manifest.generation,
        ):
            try:
                manifests.sync(folder)
            except OSError as error:
                raise UnsyncedError(f"{folder / NAME}: {error}") from error
            self.write(
                number, RegisterEntry(PartitionState.KNOWN, manifest.generation, manifest.identity, entry.sequence + 1)
            )
        self._opened.add(number)

    def write(self, number: int, entry: RegisterEntry) -> None:
        """Overwrite an entry in place, on the disk.

        Raises:
            OSError: the disk failed.
        """
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, entry.pack(), (2 * number + entry.sequence % 2) * slots.SLOT_BYTES)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, number: int) -> bytes:
        """Return the slots of an entry; nothing, if the file is not whole."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            make_private(self._path)
            whole = os.fstat(descriptor).st_size >= _BYTES
            return os.pread(descriptor, 2 * slots.SLOT_BYTES, 2 * number * slots.SLOT_BYTES) if whole else b""
        finally:
            os.close(descriptor)

    def _make(self, *, replaced: bool = False) -> None:
        """Make the register, of what is there: whole, on the disk, and by one of all who try at a time."""
        draft = self._path.with_name(f".{NAME}-{token_hex(4)}")
        entries = found(self._folder)
        try:
            slots.write_whole(draft, b"".join(entry.pack() * 2 for entry in entries))
            if replaced:
                draft.rename(self._path)
            else:
                try:
                    os.link(draft, self._path)
                except FileExistsError:  # another store was faster
                    return
            sync_folder(self._folder)
        finally:
            draft.unlink(missing_ok=True)
        states = {entry.state for entry in entries}
        if PartitionState.EXPECTED in states:
            log.error(
                "the register of partitions was missing and is made anew: partitions that have no manifest of their own"
                " are not opened",
                path=str(self._path),
            )
        elif states == {PartitionState.NEW, PartitionState.FORMER}:
            log.warning(
                "some partitions of a former version are not there, and begin empty: is the folder complete?",
                path=str(self._folder),
                partitions=[number for number, entry in enumerate(entries) if entry.state is PartitionState.NEW],
            )


def _entry_of(raw: bytes) -> RegisterEntry:
    newest = slots.newest(raw, _ENTRY, _MAGIC)
    if newest is None:
        return RegisterEntry(PartitionState.EXPECTED)
    state, generation, identity = newest[1]
    return RegisterEntry(PartitionState(state), generation, identity, newest[0])  # type: ignore[arg-type]


def registered(folder: Path) -> list[RegisterEntry] | None:
    """Return what the register in a folder of partitions says of each; ``None``: there is none, or it is damaged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        raw = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    if len(raw) < _BYTES:
        return None
    return [_entry_of(raw[start : start + 2 * slots.SLOT_BYTES]) for start in range(0, _BYTES, 2 * slots.SLOT_BYTES)]


def found(folder: Path) -> list[RegisterEntry]:
    """Return what is to be said of the partitions in a folder whose register is not there.

    Raises:
        OSError: it cannot be read.
    """
    names: list[set[str]] = []
    for number in range(PARTITION_COUNT):
        path = folder / f"{number:02}"
        names.append({file.name for each in generations(path) for file in (path / str(each)).iterdir()})
    if any(NAME in each for each in names):
        return [RegisterEntry(PartitionState.EXPECTED)] * PARTITION_COUNT
    return [RegisterEntry(PartitionState.FORMER if each & {DATA, *JOURNALS} else PartitionState.NEW) for each in names]
