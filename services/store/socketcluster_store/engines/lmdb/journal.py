"""A partition's journal: what was written since the last checkpoint, in two preallocated, memory-mapped files.

Each file is a *segment*: a header, then records one after the other, then a length of zero. One segment takes records;
when it is full the other one is begun, and by the time that one is full the first has to be in LMDB, which remembers
the generation that it has (``applied``)::

    segment    magic (8)  generation (8)  seed (4)  previous (4)  crc of the three (4)  record...  0 (4)
    record     length of the entries (4)  crc (4)  entries
    entry      length of the key (2)  length of the value, or 0xFFFFFFFF: deleted (4)  key  value

A record is written by memory copy, its length and CRC last: it counts from then on, whatever becomes of this process,
because the pages are the kernel's. Its CRC goes on from the record before it, and the first record's from the random
``seed``, so what an earlier generation left in the file is never taken for a record, nor is anything after a torn one.
``previous`` is the last CRC of the generation before: a segment counts only if that one is whole. LMDB remembers that
CRC too, so the first segment after it is compared as well.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.private_files import FILE_MODE, make_private
from socketcluster_store.engines.shared_folder.manifests import JOURNALS
from socketcluster_store.errors import EngineError, UnsyncedError

log = get_logger(__name__)

SEGMENT_BYTES = 1024 * 1024
"""Size of a segment; a partition has two. What does not fit into one goes to LMDB at once."""

Writes = dict[bytes, bytes | None]
"""What was put at each key; ``None``: it was deleted."""

_MAGIC = b"SCJRNL\0\1"
_VOID = b"SCJRNL\0\0"
"""The head of a segment that does not count: never begun, left out, or just being begun."""
_NEW = bytes(8)
"""The head of a new file; of any other it says that the file was emptied."""
_HEADER = struct.Struct("=QIII")
_FIRST = len(_MAGIC) + _HEADER.size
_CRC = struct.Struct("=I")
_RECORD = struct.Struct("=II")
_END = struct.Struct("=QI")
_NO_RECORD = bytes(4)
_KEPT = 64
"""This part of a segment is kept for openings: some fifty of a segment of 1 MiB."""
_ENTRY = struct.Struct("=HI")
_DELETED = 0xFFFFFFFF


class Segment:
    """One of the two files."""

    def __init__(self, path: Path, size: int, *, readonly: bool = False) -> None:
        """Open or make the file, with all of its blocks on the disk, so that a write to it cannot fail.

        With ``readonly``, what is written to it stays in this process.

        Raises:
            OSError: it cannot be opened, or the disk is full.
            EngineError: it is no segment.
        """
        self.path = path
        self.dirty = False
        """Was anything written since the last sync?"""
        flags = os.O_RDONLY if readonly else os.O_RDWR | os.O_CREAT
        self.descriptor = os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
        try:
            if not readonly:
                make_private(path)
            found = os.fstat(self.descriptor).st_size
            if found < size:
                os.posix_fallocate(self.descriptor, 0, size)
                self.dirty = True
            access = mmap.ACCESS_COPY if readonly else mmap.ACCESS_DEFAULT
            self._map = mmap.mmap(self.descriptor, max(found, size), access=access)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._size = len(self._map)
        self._limit = self._size
        self._end = _FIRST
        self.generation = 0
        self.previous = 0
        self.crc = 0
        self.end_met = False
        magic = self._map[: len(_MAGIC)]
        if magic == _NEW:
            self._map[: len(_MAGIC)] = _VOID
            self.dirty = True
            return
        if magic == _VOID:
            return
        if not _holds(self._map[:_FIRST]):
            self.close()
            raise EngineError(f"{path} is damaged, or no journal")
        self.generation, self.crc, self.previous, _check = _HEADER.unpack_from(self._map, len(_MAGIC))

    def begin(self, generation: int, previous: int) -> None:
        """Make the segment an empty one of a new generation."""
        view = self._map
        view[: len(_MAGIC)] = _VOID
        self.generation = generation
        self.previous = previous
        self.crc = int.from_bytes(os.urandom(4), "big")
        header = _HEADER.pack(generation, self.crc, previous, 0)[:-4]
        view[len(_MAGIC) : _FIRST + 4] = header + _CRC.pack(crc32(header)) + _NO_RECORD
        view[: len(_MAGIC)] = _MAGIC
        self._end = _FIRST
        self.dirty = True

    def append(self, payload: bytes) -> bool:
        """Write a record, if there is room for it."""
        start = self._end
        end = start + 8 + len(payload)
        if end + 4 > self._limit:
            return False
        crc = self.crc = crc32(payload, self.crc)
        view = self._map
        view[start + 8 : end + 4] = payload + _NO_RECORD
        _RECORD.pack_into(view, start, len(payload), crc)  # if that is cut off, the CRC is wrong
        self._end = end
        self.dirty = True
        return True

    def keep_room(self, size: int) -> None:
        """Leave so many bytes at the end for openings: nothing else makes room for what they write on a full disk."""
        self._limit = self._size - size

    def replay(self, into: Writes, end: int | None = None) -> bool:
        """Add the complete records to ``into``; return whether there is nothing but a torn one behind them.

        Where one of them, or the header, has the CRC ``end``, that is noted.
        """
        self.end_met = self.crc == end
        view = memoryview(self._map)
        with view:
            while self._end + 8 <= self._size:
                length, crc = _RECORD.unpack_from(view, self._end)
                start = self._end + 8
                if not length:
                    return True
                if start + length > self._size or crc32(view[start : start + length], self.crc) != crc:
                    return False
                _decode(bytes(view[start : start + length]), into)
                self.crc = crc
                self._end = start + length
                if crc == end:
                    self.end_met = True
        return True

    def blank(self) -> None:
        """Make what the file has count no more, also after a power cut.

        Raises:
            UnsyncedError: the disk failed.
        """
        self._map[: len(_MAGIC)] = _VOID
        self.generation = 0
        try:
            os.fdatasync(self.descriptor)
        except OSError as error:
            raise UnsyncedError(f"{self.path}: {error}") from error

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return self._size

    def close(self) -> None:
        """Close the file."""
        self._map.close()
        os.close(self.descriptor)


class Journal:
    """The two segments of a partition."""

    def __init__(self, folder: Path, size: int = SEGMENT_BYTES, *, readonly: bool = False) -> None:
        """Open or make the files; ``replay`` comes next. With ``readonly`` they stay as they are, with size 0.

        Raises:
            OSError: they cannot be opened, or the disk is full.
            EngineError: one is damaged.
        """
        self._room = size // _KEPT
        self._capacity = size - _FIRST - 12 - self._room
        self.end_met = False
        """Did ``replay`` come by the record that it was told to look for?"""
        first = Segment(folder / JOURNALS[0], size, readonly=readonly)
        try:
            self._segments = [first, Segment(folder / JOURNALS[1], size, readonly=readonly)]
        except BaseException:
            first.close()
            raise
        self._take_records(first)

    def replay(self, applied: int, previous: int | None = None, end: tuple[int, int] = (0, 0)) -> list[Writes]:
        """Return what was written after the generation ``applied``, up to the first record that is torn; go on there.

        It is apart for each segment, of which there are one or two; the last one takes records now. A segment that does
        not go on from the one before it is of a past that did not happen. It is blanked, on the disk, before anything
        else is written: the one before it goes on now, and what follows that has the number of the one left out.

        Args:
            applied: LMDB has everything up to this generation.
            previous: its last CRC, if LMDB knows it.
            end: the generation and the CRC of a record to look for.

        Raises:
            UnsyncedError: the disk failed.
            EngineError: LMDB has less than it had when the journal was written.
        """
        for segment in self._segments:
            if segment.generation > applied + 2:  # which is begun when LMDB has all but the one before it
                raise EngineError(
                    f"{segment.path} has generation {segment.generation}, but data.mdb, which is older, ends with"
                    f" {applied}: put files of the same time there"
                )
        found: list[Writes] = []
        whole = True
        for segment in sorted(self._segments, key=lambda segment: segment.generation):
            if segment.generation <= applied:
                continue
            follows = whole and previous in (segment.previous, None)
            if segment.generation != applied + 1 + len(found) or not follows:
                log.warning("a journal does not go on from the one before it and is left out", path=str(segment.path))
                segment.blank()
                continue
            writes: Writes = {}
            whole = segment.replay(writes, end[1] if segment.generation == end[0] else None)
            self.end_met |= segment.end_met
            if not whole:
                log.warning("a journal ends in a torn record", path=str(segment.path))
            segment.dirty = True  # a process that was killed need not have synced it
            found.append(writes)
            previous = segment.crc
            self._take_records(segment)
        if not found:
            self._active.begin(applied + 1, previous or 0)
            found.append({})
        return found

    @property
    def generation(self) -> int:
        """Of the segment that takes records."""
        return self._active.generation

    @property
    def previous(self) -> int:
        """The last CRC of the generation before."""
        return self._active.previous

    @property
    def descriptors(self) -> list[int]:
        """Of the two files."""
        return [segment.descriptor for segment in self._segments]

    @property
    def inodes(self) -> list[int]:
        """Of the two files."""
        return [os.fstat(descriptor).st_ino for descriptor in self.descriptors]

    @property
    def crc(self) -> int:
        """The last CRC of this generation so far."""
        return self._active.crc

    @property
    def position(self) -> tuple[int, int]:
        """Where the journal ends: the generation, and the CRC of its last record."""
        return self._active.generation, self._active.crc

    @property
    def end(self) -> bytes:
        """The same in bytes."""
        return _END.pack(*self.position)

    @property
    def size(self) -> int:
        """Of the shorter one of the two files, in bytes."""
        return min(segment.size for segment in self._segments)

    def keep_room(self) -> None:
        """Leave the end of each segment to openings from now on; call it when this one has written what it had to."""
        for segment in self._segments:
            segment.keep_room(self._room)

    def turn(self) -> None:
        """Let the other segment, which is in LMDB, take the records."""
        full = self._active
        self._take_records(self._segments[full is self._segments[0]])
        self._active.begin(full.generation + 1, full.crc)

    def holds(self, payload: bytes) -> bool:
        """Can a segment hold the record at all?"""
        return len(payload) <= self._capacity

    def _take_records(self, segment: Segment) -> None:
        self._active = segment
        self.append = segment.append

    def sync(self) -> None:
        """Force what was written to the disk, the earlier segment first; runs in a thread of its own.

        Raises:
            OSError: the disk failed.
        """
        for segment in sorted(self._segments, key=lambda segment: segment.generation):
            if segment.dirty:
                segment.dirty = False
                try:
                    os.fdatasync(segment.descriptor)  # on Linux that includes what was written through the mapping
                except OSError:
                    segment.dirty = True
                    raise

    def close(self) -> None:
        """Close the files."""
        for segment in self._segments:
            segment.close()


def copy(former: Path, new: Path) -> None:
    """Copy the segments into another folder, while their owner may write one record, or begin one segment anew.

    A copy whose header is torn counts as never begun: what the segment had before is in LMDB, and what it would have
    next was not acknowledged.

    Raises:
        OSError: they cannot be copied.
    """
    for name in JOURNALS:
        if not (former / name).exists():
            continue
        shutil.copyfile(former / name, new / name)
        make_private(new / name)
        with (new / name).open("r+b") as file:
            header = file.read(_FIRST)
            if header[: len(_MAGIC)] not in (_NEW, _VOID) and not _holds(header):
                log.warning("a journal was copied while it was begun and is left out", path=str(former / name))
                file.seek(0)
                file.write(_VOID)
                file.flush()
            os.fsync(file.fileno())


def encode(writes: Mapping[bytes, bytes | None]) -> bytes:
    """Return the entries of a record."""
    if len(writes) == 1:
        ((key, value),) = writes.items()
        if value is not None:
            return _ENTRY.pack(len(key), len(value)) + key + value
    parts: list[bytes] = []
    for key, value in writes.items():
        if value is None:
            parts += (_ENTRY.pack(len(key), _DELETED), key)
        else:
            parts += (_ENTRY.pack(len(key), len(value)), key, value)
    return b"".join(parts)


def _decode(payload: bytes, into: Writes) -> None:
    position = 0
    while position < len(payload):
        key_length, value_length = _ENTRY.unpack_from(payload, position)
        position += _ENTRY.size
        key = payload[position : position + key_length]
        position += key_length
        if value_length == _DELETED:
            into[key] = None
        else:
            into[key] = payload[position : position + value_length]
            position += value_length


def _holds(header: bytes) -> bool:
    """Is this the whole header of a segment?"""
    if len(header) < _FIRST or header[: len(_MAGIC)] != _MAGIC:
        return False
    return bool(_HEADER.unpack_from(header, len(_MAGIC))[3] == crc32(header[len(_MAGIC) : _FIRST - 4]))
