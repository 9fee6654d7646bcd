"""What says that a partition has existed: a missing or empty file is a loss then, and no new partition.

Two files say so, each on the disk before anything of the partition is acknowledged::

    partitions/manifest                  the *register*: of each partition, whether it has existed, its name for good
                                         (16 random bytes) and its generation
    partitions/NN/<generation>/manifest  which partition and generation the folder is of, how long its journals are, and
                                         how much there has to be at least: up to which generation LMDB has everything,
                                         and a record that was in the journal when that was synced

Both are written whole once. From then on they are overwritten in place, so that nothing needs a new block: each entry
has two slots with a CRC and a number that rises, and the older one is written. What the journal and LMDB have at least
is written without a sync: an earlier word of it is right as well.

The register may be lost alone: it is made anew, and whoever has a manifest of its own is believed. A folder of a
version before manifests has neither; it is taken over at its first opening.
"""

from __future__ import annotations

import enum
import os
import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_bytes, token_hex
from zlib import crc32

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.private_files import FILE_MODE, make_private
from socketcluster_store.engines.folder.files import sync_folder
from socketcluster_store.errors import EngineError, IncompleteError, UnsyncedError
from socketcluster_store_client.routing import PARTITION_COUNT

log = get_logger(__name__)

NAME = "manifest"
DATA = "data.mdb"
JOURNALS = ("journal.0", "journal.1")

_SLOT_BYTES = 128
_REGISTER_BYTES = PARTITION_COUNT * 2 * _SLOT_BYTES
_SEQUENCE = struct.Struct("=Q")
_CRC = struct.Struct("=I")
_MANIFEST = struct.Struct("=8s16sQQQQI")
_ENTRY = struct.Struct("=8sBQ16s")
_MANIFEST_MAGIC = b"SCPART\0\1"
_REGISTER_MAGIC = b"SCREGS\0\1"
_NOBODY = bytes(16)


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
            _MANIFEST_MAGIC,
            self.identity,
            self.generation,
            self.segment_bytes,
            self.applied,
            self.end_generation,
            self.end_crc,
        )
        return _slot(self.sequence, body)


class State(enum.IntEnum):
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
class Entry:
    """What the register says of a partition."""

    state: State
    generation: int = 0
    identity: bytes = _NOBODY
    sequence: int = 1

    def pack(self) -> bytes:
        """Return the bytes of a slot."""
        return _slot(self.sequence, _ENTRY.pack(_REGISTER_MAGIC, self.state, self.generation, self.identity))


def _slot(sequence: int, body: bytes) -> bytes:
    content = _SEQUENCE.pack(sequence) + body
    return (content + _CRC.pack(crc32(content))).ljust(_SLOT_BYTES, b"\0")


def _newest(raw: bytes, body: struct.Struct, magic: bytes) -> tuple[int, tuple[object, ...]] | None:
    """Return the sequence and the fields of the newer of two slots that are whole."""
    found: list[tuple[int, tuple[object, ...]]] = []
    length = _SEQUENCE.size + body.size
    for start in (0, _SLOT_BYTES):
        content = raw[start : start + length]
        crc = raw[start + length : start + length + _CRC.size]
        if len(crc) == _CRC.size and _CRC.pack(crc32(content)) == crc:
            first, *rest = body.unpack_from(content, _SEQUENCE.size)
            if first == magic:
                found.append((_SEQUENCE.unpack_from(content)[0], tuple(rest)))
    return max(found, default=None)


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
    newest = _newest(raw, _MANIFEST, _MANIFEST_MAGIC)
    if newest is None:
        raise EngineError(f"{folder / NAME} is damaged")
    return Manifest(*newest[1], newest[0])  # type: ignore[arg-type, call-arg]


def create(folder: Path, manifest: Manifest) -> None:
    """Write a manifest into a folder that has none that counts; its content is on the disk then, not yet its name.

    Raises:
        OSError: it cannot be written; there is none then.
    """
    try:
        _write_whole(folder / NAME, manifest.pack() * 2)
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
        os.pwrite(descriptor, manifest.pack(), manifest.sequence % 2 * _SLOT_BYTES)
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
    return token_bytes(len(_NOBODY))


def _write_whole(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lacking(path: Path, number: int, what: str) -> IncompleteError:
    """Return the error that says what of a partition is missing, and what is to be done."""
    return IncompleteError(
        f"partition {number} in {path} is not opened: {what}. It has existed: restore it from a backup, with all of its"
        f" files and {path.parent / NAME}; or give up what is missing: socketcluster store accept {path}"
    )


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

    def entry(self, number: int) -> Entry:
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
        if entry.state in (State.NEW, State.FORMER) and number in self._opened:
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
        if (entry.state, entry.identity, entry.generation) != (State.KNOWN, manifest.identity, manifest.generation):
            try:
                sync(folder)
            except OSError as error:
                raise UnsyncedError(f"{folder / NAME}: {error}") from error
            self.write(number, Entry(State.KNOWN, manifest.generation, manifest.identity, entry.sequence + 1))
        self._opened.add(number)

    def write(self, number: int, entry: Entry) -> None:
        """Overwrite an entry in place, on the disk.

        Raises:
            OSError: the disk failed.
        """
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, entry.pack(), (2 * number + entry.sequence % 2) * _SLOT_BYTES)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, number: int) -> bytes:
        """Return the slots of an entry; nothing, if the file is not whole."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            make_private(self._path)
            whole = os.fstat(descriptor).st_size >= _REGISTER_BYTES
            return os.pread(descriptor, 2 * _SLOT_BYTES, 2 * number * _SLOT_BYTES) if whole else b""
        finally:
            os.close(descriptor)

    def _make(self, *, replaced: bool = False) -> None:
        """Make the register, of what is there: whole, on the disk, and by one of all who try at a time."""
        draft = self._path.with_name(f".{NAME}-{token_hex(4)}")
        entries = found(self._folder)
        try:
            _write_whole(draft, b"".join(entry.pack() * 2 for entry in entries))
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
        if State.EXPECTED in states:
            log.error(
                "the register of partitions was missing and is made anew: partitions that have no manifest of their own"
                " are not opened",
                path=str(self._path),
            )
        elif states == {State.NEW, State.FORMER}:
            log.warning(
                "some partitions of a former version are not there, and begin empty: is the folder complete?",
                path=str(self._folder),
                partitions=[number for number, entry in enumerate(entries) if entry.state is State.NEW],
            )


def _entry_of(raw: bytes) -> Entry:
    newest = _newest(raw, _ENTRY, _REGISTER_MAGIC)
    if newest is None:
        return Entry(State.EXPECTED)
    state, generation, identity = newest[1]
    return Entry(State(state), generation, identity, newest[0])  # type: ignore[arg-type]


def registered(folder: Path) -> list[Entry] | None:
    """Return what the register in a folder of partitions says of each; ``None``: there is none, or it is damaged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        raw = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    if len(raw) < _REGISTER_BYTES:
        return None
    return [_entry_of(raw[start : start + 2 * _SLOT_BYTES]) for start in range(0, _REGISTER_BYTES, 2 * _SLOT_BYTES)]


def found(folder: Path) -> list[Entry]:
    """Return what is to be said of the partitions in a folder whose register is not there.

    Raises:
        OSError: it cannot be read.
    """
    names: list[set[str]] = []
    for number in range(PARTITION_COUNT):
        path = folder / f"{number:02}"
        names.append({file.name for each in generations(path) for file in (path / str(each)).iterdir()})
    if any(NAME in each for each in names):
        return [Entry(State.EXPECTED)] * PARTITION_COUNT
    return [Entry(State.FORMER if each & {DATA, *JOURNALS} else State.NEW) for each in names]


def generations(path: Path) -> list[int]:
    """Return the numbers of the folders that a partition's folder has, in order; none: it is not there.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return sorted(int(entry.name) for entry in path.iterdir() if entry.name.isdecimal() and entry.is_dir())
    except FileNotFoundError:
        return []


@dataclass(frozen=True)
class Choice:
    """Which of a partition's folders counts."""

    generation: int
    manifest: Manifest | None
    """What its folder says; ``None``: it is new, or of a version that knew of none."""
    earlier: tuple[int, ...]
    """Those before it that are the partition's own, and are to be removed."""
    strangers: tuple[int, ...]
    """Those that are not; they are left alone."""
    taken: bool = False
    """Is it without a manifest in its folder, as a store of a version before manifests makes one that takes the
    partition over? ``manifest`` is what it would say, if the folder is the partition's own: see ``not_ours``."""


def choose(path: Path, number: int, entry: Entry) -> Choice:
    """Return the generation of a partition that counts.

    Raises:
        IncompleteError: what is there does not fit what is known.
        OSError: it cannot be read.
    """
    present = generations(path)
    manifests: dict[int, Manifest] = {}
    damaged = ""
    for each in present:
        try:
            manifest = read(path / str(each))
        except EngineError as error:
            damaged = str(error)
            continue
        if manifest is not None and manifest.generation == each:
            manifests[each] = manifest
    if entry.state is State.KNOWN:
        fitting = [each for each, manifest in manifests.items() if manifest.identity == entry.identity]
    else:
        fitting = list(manifests)
    if fitting:
        chosen = max(fitting)
        if chosen < entry.generation:
            raise lacking(path, number, f"its generation {entry.generation} is missing, {chosen} is an older one")
        identity = manifests[chosen].identity
        earlier = [each for each in fitting if each < chosen and manifests[each].identity == identity]
    elif entry.state is State.KNOWN and _may_be_taken(path, present, entry):
        chosen = present[-1]
        journals = [path / str(chosen) / name for name in JOURNALS]
        size = min((each.stat().st_size for each in journals if each.exists()), default=0)
        return Choice(chosen, Manifest(entry.identity, chosen, size), (), tuple(present[:-1]), taken=True)
    elif entry.state in (State.KNOWN, State.EXPECTED):
        raise lacking(path, number, damaged or _absence(path, present, manifests, entry))
    else:  # new, or of a version that knew of no manifests
        chosen = max(present, default=1)
        if entry.state is State.FORMER and not (path / str(chosen) / DATA).exists():
            raise lacking(path, number, f"{path / str(chosen) / DATA} is missing")
        earlier = [each for each in present if each != chosen]
    strangers = tuple(each for each in present if each not in (chosen, *earlier))
    return Choice(chosen, manifests.get(chosen), tuple(earlier), strangers)


def _may_be_taken(path: Path, present: list[int], entry: Entry) -> bool:
    """Is the last folder a later generation that has no manifest, and data?"""
    if not present or present[-1] <= entry.generation:
        return False
    last = path / str(present[-1])
    return (last / DATA).exists() and not (last / NAME).exists()


def not_ours(path: Path, choice: Choice) -> IncompleteError:
    """Return the error about a folder that was ``taken``, but that no store has had open where it lies."""
    return lacking(
        path,
        int(path.name),
        f"the generation that was known is missing, and {path / str(choice.generation)} has no manifest. If a store of"
        " a version before manifests made that when it took the partition over, accepting it gives up nothing that is"
        " in it",
    )


def _absence(path: Path, present: list[int], manifests: dict[int, Manifest], entry: Entry) -> str:
    if not path.exists():
        return "its folder is missing"
    if manifests:
        return f"what is in its folder {max(manifests)} belongs to another partition or installation"
    if entry.generation in present or (present and not entry.generation):
        return f"{path / str(entry.generation or max(present)) / NAME} is missing"
    return f"its folder {entry.generation} is missing" if entry.generation else "it is empty"
