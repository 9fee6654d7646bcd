"""Who may use a partition's data: locks in the data folder, and how a partition is taken from a process that hangs.

The folder of a partition::

    claim.lock           locked while somebody claims the partition
    <generation>/        the data; the highest generation is the one that counts
        owner.lock       locked by the owner: the kernel frees it when the process dies, however it dies. Its first byte
                         says whether the owner was fenced; its store id follows

A process that hangs (or is paused) keeps its lock. It is *fenced* then: its ``owner.lock`` is marked, the data is
copied into the next generation, and that one is used from then on. The former owner looks at the mark, which is in
memory that both share, after each commit and before anybody hears of it. If there is no mark, the commit came before
the copy and is in it; if there is one, nothing is answered. At most one commit can follow the mark, in a file that
nobody reads any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from socketcluster_runtime.private_files import FILE_MODE, FOLDER_MODE, make_folder, make_private
from socketcluster_store.errors import FencedError, PartitionLockedError
from socketcluster_store.files import sync_folder

_LIVE = b"\0"
_FENCED = b"\1"


class Claim:
    """The right to a partition's data, until it is released or fenced."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        """Where the data is."""
        self._lock = lock
        self._mark = mmap.mmap(lock, 1, mmap.MAP_SHARED, mmap.PROT_READ)

    @property
    def fenced(self) -> bool:
        """Was the partition taken from this process?"""
        return self._mark[0] != 0

    def check(self) -> None:
        """Make sure that the data is still this process's: before a commit, and after it before it is answered.

        Raises:
            FencedError: it is not.
        """
        if self._mark[0]:
            raise FencedError(f"{self.folder} was taken over: this store hung")

    def release(self) -> None:
        """Let another process claim the partition."""
        self._mark.close()
        os.close(self._lock)


class Claims:
    """Claims partitions for one store.

    Args:
        folder: of all partitions.
        store_id: what others read of who owns a partition.
    """

    def __init__(self, folder: Path, store_id: str) -> None:
        self._folder = folder
        self._store_id = store_id
        self._kept = False  # the names of the folders above

    def claim(self, number: int) -> Claim:
        """Claim a partition that nobody owns.

        Raises:
            PartitionLockedError: another process owns or claims it.
            OSError: the folder cannot be used.
        """
        with self._claiming(number) as (path, generation):
            return self._own(path / str(generation))

    def take(self, number: int, holder: str, copy: Callable[[Path, Path], object]) -> Claim:
        """Claim a partition, even from a process that hangs; it may take as long as the data needs to be copied.

        Args:
            number: which partition.
            holder: the id of the store that hangs.
            copy: copies what was committed from one folder into another, and syncs it, while the former owner may wake
                up.

        Raises:
            PartitionLockedError: another store than ``holder`` owns or claims it.
            OSError: the folder cannot be used.
        """
        with self._claiming(number) as (path, generation):
            former = path / str(generation)
            try:
                return self._own(former)
            except PartitionLockedError as error:
                if error.holder != holder:
                    raise
            with _descriptor(former / "owner.lock") as lock:
                os.pwrite(lock, _FENCED, 0)
            draft = path / "draft"
            shutil.rmtree(draft, ignore_errors=True)  # of a taker that died
            draft.mkdir(FOLDER_MODE)
            copy(former, draft)
            claim = self._own(draft)
            claim.folder = path / str(generation + 1)
            sync_folder(draft)
            draft.rename(claim.folder)
            sync_folder(path)
            shutil.rmtree(former, ignore_errors=True)
            return claim

    @contextlib.contextmanager
    def _claiming(self, number: int) -> Iterator[tuple[Path, int]]:
        """Keep others from claiming the partition; yield its folder and its present generation."""
        path = self._folder / f"{number:02}"
        make_folder(self._folder)
        make_folder(path)
        with _descriptor(path / "claim.lock") as guard:
            if not _try_lock(guard):
                raise PartitionLockedError(f"another store claims {path}", "")
            generations = [int(entry.name) for entry in path.iterdir() if entry.name.isdecimal()]
            if not generations:
                (path / "1").mkdir(FOLDER_MODE)
            self._keep(path)
            yield path, max(generations, default=1)

    def _keep(self, path: Path) -> None:
        """Force the names that lead to a partition to the disk: who made them may have died before it did so."""
        sync_folder(path)
        sync_folder(self._folder)
        if not self._kept:
            app, data = self._folder.parents[:2]
            sync_folder(app)
            for folder in (data, data.parent):
                with contextlib.suppress(OSError):  # somebody else's, or another file system
                    sync_folder(folder)
            self._kept = True

    def _own(self, folder: Path) -> Claim:
        make_private(folder, FOLDER_MODE)
        lock = _open(folder / "owner.lock")
        try:
            if not _try_lock(lock):
                raise PartitionLockedError(f"another store owns {folder}", os.pread(lock, 1024, 1).decode())
            os.ftruncate(lock, 0)
            os.pwrite(lock, _LIVE + self._store_id.encode(), 0)
            return Claim(folder, lock)
        except BaseException:
            os.close(lock)
            raise


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


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
