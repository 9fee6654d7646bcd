"""Who may use a partition's data: locks in the data folder, and how a partition is taken from a process that hangs.

The folder of a partition::

    claim.lock           locked while somebody takes hold of the partition
    <generation>/        the data; the highest generation is the one that counts
        owner.lock       locked by the owner: the kernel frees it when the process dies, however it dies. Its first byte
                         says whether the owner was fenced; its store id follows
        manifest         says that the folder is of a partition that has existed, and what it has: see ``manifests``

A process that hangs (or is paused) keeps its lock. It is *fenced* then: its ``owner.lock`` is marked, the data is
copied into the next generation, and that one is used from then on. The former owner looks at the mark, which is in
memory that both share, after each commit and before anybody hears of it. If there is no mark, the commit came before
the copy and is in it; if there is one, nothing is answered. At most one commit can follow the mark, in a file that
nobody reads any more.

An owner that finds that the disk refuses a sync marks its lock as well, and gives up: whoever locks the partition next
copies the data, as after a process that hangs, into files of which nothing is taken for written that is not.

A lock says something only of the file that is locked. Who removes or replaces ``owner.lock``, or the folder, lets
another process lock what is there then. So whoever gets a lock makes sure that the file still has its name, and an
owner looks now and then whether its own still has.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.private_files import FILE_MODE, FOLDER_MODE, make_folder, make_private
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.engines.shared_folder.files import sync_folder
from socketcluster_store.engines.shared_folder.generations import Choice, choose, not_ours
from socketcluster_store.engines.shared_folder.manifests import Manifest
from socketcluster_store.engines.shared_folder.register import PartitionState, Register, RegisterEntry
from socketcluster_store.errors import FencedError, PartitionLockedError

log = get_logger(__name__)

_LIVE = b"\0"
_FENCED = b"\1"
_DISTRUSTED = b"\2"
_BOTH = b"\3"
_NOTE_AT = 1 + 1024
"""Where ``owner.lock`` has what an owner that distrusted the files wrote about them, behind the longest id."""
_LOCK_BYTES = _NOTE_AT + 64
"""What ``owner.lock`` has from the start: more than the longest note needs."""


class PartitionLock:
    """The right to a partition's data, until it is released or fenced."""

    def __init__(self, folder: Path, descriptor: int, manifest: Manifest | None = None) -> None:
        self.folder = folder
        """Where the data is."""
        self.manifest = manifest
        """What the folder says of itself; ``None``: it has no files of a partition that has existed."""
        self._descriptor = descriptor
        self._found = os.fstat(descriptor)
        self._files: list[tuple[os.stat_result, str]] = []
        self._looks = 0
        self._map = mmap.mmap(descriptor, 1, mmap.MAP_SHARED, mmap.PROT_READ)
        self._mark: mmap.mmap | bytes = self._map
        self._fits = 0  # the mark of what may be used
        self._why = "this store hung"
        self.distrusted = ""
        """Why whoever locks the partition next is to copy its files; empty: this process knows of no reason."""

    @property
    def taken(self) -> bool:
        """Is it known that the partition was taken from this process, or given up? No system call is made."""
        return self._mark[0] != self._fits

    @property
    def fenced(self) -> bool:
        """Was the partition taken from this process, or given up? This looks at the file as well."""
        if self._mark[0] == self._fits:
            if not _is_at(self._found, f"{self.folder}/owner.lock"):
                self.give_up("its owner.lock was removed or replaced")
            elif self._files:  # one each time: a look is a system call
                self._looks += 1
                found, name = self._files[self._looks % len(self._files)]
                if not _is_at(found, f"{self.folder}/{name}"):
                    self.give_up(f"its {name} was removed or replaced")
        return self._mark[0] != self._fits

    def keep_an_eye_on(self, name: str, found: os.stat_result) -> None:
        """Give up when a file of the folder is not the one that was found; ``fenced`` looks at one each time."""
        self._files.append((found, name))

    def give_up(self, why: str) -> None:
        """Have it be as if the partition had been taken from this process: nothing more is answered."""
        if self._mark[0] == self._fits:
            log.error("a partition is given up", path=str(self.folder), reason=why)
            self._mark, self._why = _FENCED, why

    def use_no_files(self) -> None:
        """Have it not matter that the files are to be copied: who has locked the partition leaves them alone."""
        self._fits = self._mark[0]

    def distrust(self, why: str, note: bytes = b"") -> None:
        """Give up, and have whoever locks the partition next copy the data: what is in memory need not be on the disk.

        Linux takes pages that it could not write for written, and a file system may lose them even if they are written
        again into the same file. The mark is in memory as they are, and so is the note: see ``note_of``.
        """
        self.distrusted = f"{why}; its files are to be copied"
        self.give_up(self.distrusted)
        with contextlib.suppress(OSError):  # nothing can be written there, nor by an opening
            os.pwrite(self._descriptor, note.ljust(_LOCK_BYTES - _NOTE_AT, b"\0"), _NOTE_AT)
            os.pwrite(self._descriptor, _DISTRUSTED, 0)

    def check(self) -> None:
        """Make sure that the data is still this process's: before a commit, and after it before it is answered.

        Raises:
            FencedError: it is not.
        """
        if self._mark[0] != self._fits:
            raise FencedError(f"{self.folder} is this store's no longer: {self._why}")

    def release(self) -> None:
        """Let another process lock the partition."""
        self._mark = _FENCED
        self._map.close()
        os.close(self._descriptor)


class PartitionLocks:
    """Locks partitions for one store.

    Args:
        folder: of all partitions.
        store_id: what others read of who owns a partition.
        register: says which partitions have existed; ``None``: what they have is no loss.
        opened_here: tells whether a store has had the files of a folder open where they lie.
    """

    def __init__(
        self,
        folder: Path,
        store_id: str,
        register: Register | None = None,
        opened_here: Callable[[Path], bool] = lambda _folder: False,
    ) -> None:
        self._folder = folder
        self._store_id = store_id
        self._register = register
        self._opened_here = opened_here
        self._keeping = threading.Lock()
        self._kept: dict[str, int] = {}  # of the partitions' folders whose names are on the disk, the inodes

    def acquire(self, number: int, copy: Callable[[Path, Path], object] | None = None) -> PartitionLock:
        """Lock a partition that nobody owns.

        Args:
            number: which partition.
            copy: copies from one folder into another, and syncs, what the former owner found not to be trusted;
                ``None``: the files are not used. The name of the folder that is used need not be on the disk yet.

        Raises:
            PartitionLockedError: another process owns it, or takes hold of it.
            IncompleteError: what is there does not fit what is known of it.
            OSError: the folder cannot be used.
        """
        with self._guarded(number) as (path, choice, guard):
            return self._acquire(path, choice, guard, copy)

    def take(self, number: int, holder: str, copy: Callable[[Path, Path], object]) -> PartitionLock:
        """Lock a partition, even one of a process that hangs; it may take as long as the data needs to be copied.

        Args:
            number: which partition.
            holder: the id of the store that hangs.
            copy: copies what was committed from one folder into another, and syncs it, while the former owner may wake
                up.

        Raises:
            PartitionLockedError: another store than ``holder`` owns it, or takes hold of it.
            IncompleteError: what is there does not fit what is known of it.
            OSError: the folder cannot be used.
        """
        with self._guarded(number) as (path, choice, guard):
            former = path / str(choice.generation)
            try:
                return self._acquire(path, choice, guard, copy)
            except PartitionLockedError as error:
                if error.holder != holder:
                    raise
            with _descriptor(former / "owner.lock") as descriptor:
                distrusted = os.pread(descriptor, 1, 0) in (_DISTRUSTED, _BOTH)
                os.pwrite(descriptor, _BOTH if distrusted else _FENCED, 0)
            if choice.taken:
                self._check_taken(path, choice)
            return self._move(path, choice, copy, guard)

    def _acquire(
        self, path: Path, choice: Choice, guard: int, copy: Callable[[Path, Path], object] | None
    ) -> PartitionLock:
        lock = self._own(path / str(choice.generation), choice.manifest)
        if choice.strangers:
            log.error(
                "folders that do not belong to a partition are left alone: move them away",
                paths=[str(path / str(each)) for each in choice.strangers],
            )
        try:
            if choice.taken and choice.manifest is not None:
                self._check_taken(path, choice)
                manifests.create(lock.folder, choice.manifest)
            if copy is None:
                lock.use_no_files()
            elif lock.fenced:
                moved = self._move(path, choice, copy, guard)
                lock.release()
                return moved
            self._keep(path)
        except BaseException:
            lock.release()
            raise
        if choice.earlier:  # left by a taker that died
            sync_folder(path)
        for left in choice.earlier:
            shutil.rmtree(path / str(left), ignore_errors=True)
        return lock

    def _check_taken(self, path: Path, choice: Choice) -> None:
        """Make sure that a folder without a manifest is the partition's own.

        Raises:
            IncompleteError: nothing says so.
        """
        folder = path / str(choice.generation)
        if not self._opened_here(folder):
            raise not_ours(path, choice)
        log.warning(
            "a partition goes on in a folder without a manifest: a store of a version before manifests took it over",
            path=str(folder),
        )

    def _move(self, path: Path, choice: Choice, copy: Callable[[Path, Path], object], guard: int) -> PartitionLock:
        """Make a copy of a generation the next one."""
        draft = path / "draft"
        shutil.rmtree(draft, ignore_errors=True)  # of a taker that died
        draft.mkdir(FOLDER_MODE)
        former = path / str(choice.generation)
        following = max((choice.generation, *choice.strangers)) + 1
        copy(former, draft)
        manifest = None
        if choice.manifest is not None:  # what it said before the copy was made holds for the copy
            manifest = replace(choice.manifest, generation=following, sequence=1)
            manifests.create(draft, manifest)
        lock = self._own(draft, manifest)
        try:
            lock.folder = path / str(following)
            sync_folder(draft)
            _check_name(guard, path / "claim.lock")  # else somebody else may have made a draft there
            draft.rename(lock.folder)
            sync_folder(path)
            self._keep(path)
        except BaseException:
            lock.release()
            raise
        shutil.rmtree(former, ignore_errors=True)
        return lock

    @contextlib.contextmanager
    def _guarded(self, number: int) -> Iterator[tuple[Path, Choice, int]]:
        """Keep others from locking the partition; yield its folder, which of its generations counts, and the lock."""
        path = self._folder / f"{number:02}"
        if self._register is not None:
            self._register.look(number)
        make_folder(self._folder)
        make_folder(path)
        with _descriptor(path / "claim.lock") as guard:
            if not _try_lock(guard):
                raise PartitionLockedError(f"another store claims {path}", "")
            _check_name(guard, path / "claim.lock")
            entry = RegisterEntry(PartitionState.NEW) if self._register is None else self._register.entry(number)
            choice = choose(path, number, entry)
            (path / str(choice.generation)).mkdir(FOLDER_MODE, exist_ok=True)
            yield path, choice, guard

    def _keep(self, path: Path) -> None:
        """Force the names that lead to a partition's folder to the disk: who made them may have died before it did so.

        That is done once for all that are there.
        """
        with self._keeping:
            if self._kept.get(path.name) == path.stat().st_ino:
                return
            with os.scandir(self._folder) as entries:
                found = {entry.name: entry.inode() for entry in entries}
            sync_folder(self._folder)
            if not self._kept:
                app, data = self._folder.parents[:2]
                sync_folder(app)
                for folder in (data, data.parent):
                    with contextlib.suppress(OSError):  # somebody else's, or another file system
                        sync_folder(folder)
            self._kept = found

    def _own(self, folder: Path, manifest: Manifest | None) -> PartitionLock:
        make_private(folder, FOLDER_MODE)
        descriptor = _open(folder / "owner.lock")
        try:
            if not _try_lock(descriptor):
                holder = os.pread(descriptor, 1024, 1).rstrip(b"\0").decode()
                raise PartitionLockedError(f"another store owns {folder}", holder)
            _check_name(descriptor, folder / "owner.lock")
            note = note_of(folder)
            content = (_LIVE if note is None else _DISTRUSTED) + self._store_id.encode()
            if note:
                content = content.ljust(_NOTE_AT, b"\0") + note
            # all over what is there: neither now nor with a note is a new block needed, which a full disk may not have
            os.pwrite(descriptor, content.ljust(os.fstat(descriptor).st_size or _LOCK_BYTES, b"\0"), 0)
            return PartitionLock(folder, descriptor, manifest)
        except BaseException:
            os.close(descriptor)
            raise


def note_of(folder: Path) -> bytes | None:
    """Return what the owner that distrusted the files of a folder wrote about them; ``None``: none did."""
    content = (folder / "owner.lock").read_bytes()
    return content[_NOTE_AT:].rstrip(b"\0") if content[:1] in (_DISTRUSTED, _BOTH) else None


@contextlib.contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = _open(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    make_private(path)
    return descriptor


def _is_at(found: os.stat_result, path: str) -> bool:
    """Has a file this name still?"""
    try:
        return os.path.samestat(found, os.stat(path))  # noqa: PTH116  # often asked: a path object costs as much again
    except FileNotFoundError:
        return False
    except OSError:  # nobody knows
        return True


def _check_name(descriptor: int, path: Path) -> None:
    """Make sure that what was locked is what others would lock.

    Raises:
        PartitionLockedError: it is not; somebody else may have locked it.
    """
    if not _is_at(os.fstat(descriptor), str(path)):
        raise PartitionLockedError(
            f"{path} was removed or replaced while it was locked: leave the files of a store that runs alone", ""
        )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
