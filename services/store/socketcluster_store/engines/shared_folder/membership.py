"""Which stores live, told by files in the data folder that they share; across containers too, if those share a volume.

Each store holds a lock on a file of its own, named after its id. A file whose lock is free was left by a store that is
no more: a thread waits for the lock of each other store, so that a death is heard of at once. New stores, and those
that hang, are found by looking four times within ``hang_timeout``, and once a second at least; a store hangs that has
not touched its file for ``hang_timeout``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.private_files import FILE_MODE, make_folder
from socketcluster_store.errors import EngineError
from socketcluster_store.ownership.membership import HEARTBEAT, Membership

log = get_logger(__name__)

_BEATS = 4
"""Signs of life within the time after which a store hangs that gives none."""
_LONGEST_INTERVAL = 1.0
_LINKED, _ASIDE = ".linked-", ".aside-"
"""What the names of files begin with that say something of a store; stores of an earlier version pass them over."""


class FolderMembership(Membership):
    """The live stores that share a data folder.

    Args:
        folder: of the files of all stores.
        store_id: this one's; no store before had it.
        hang_timeout: seconds without a sign of life after which a store counts as hung.
        on_change: called after the live stores are others than before.
        engine: the name of the engine that this store has; all have the same.
    """

    def __init__(
        self, folder: Path, store_id: str, hang_timeout: float, on_change: Callable[[], None], engine: str = ""
    ) -> None:
        self._folder = folder
        self._store_id = store_id
        self._hang_timeout = hang_timeout
        self.interval = min(max(HEARTBEAT, hang_timeout / _BEATS), _LONGEST_INTERVAL)
        self._on_change = on_change
        self._engine = engine
        self._draft = folder / f".{store_id}"  # locked before anybody sees it under its name
        self._lock: int | None = None
        self._watched: set[str] = set()
        self._beats: dict[
            str, tuple[int, float]
        ] = {}  # of each other store, its last sign of life and when it was seen
        self._marks: dict[str, bool] = {_LINKED: False, _ASIDE: False}  # those that this store has made
        self._looked_at = 0.0
        self._loop = asyncio.get_running_loop()

    async def join(self) -> None:
        try:
            self._join()
        except OSError as error:
            with contextlib.suppress(OSError):  # the first error says more
                self._leave()
            raise EngineError(f"the data folder cannot be used: {error}") from None
        except EngineError:
            self._leave()
            raise

    async def leave(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._lock is not None:
            try:
                self._draft.unlink(missing_ok=True)
                self._remove(self._store_id)
            finally:
                os.close(self._lock)
                self._lock = None

    async def look(self) -> None:
        try:
            self._look()
        except OSError as error:
            raise EngineError(f"the data folder cannot be used: {error}") from None

    def _join(self) -> None:
        make_folder(self._folder.parent)  # the application's, which the partitions are in too
        make_folder(self._folder)
        self._lock = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):  # a full disk: stores start all the same
            os.write(self._lock, self._engine.encode())
        self._draft.rename(self._folder / self._store_id)
        self._look()
        self._check_engines()

    def _check_engines(self) -> None:
        """Join no stores of another engine: the partitions that they own would be empty here, and the other way round.

        Of two that join at a time one sees the other, at least: each is seen before it looks.
        """
        for store in self._beats:
            with contextlib.suppress(FileNotFoundError):
                engine = (self._folder / store).read_bytes()[:100].decode(errors="replace")
                if engine not in ("", self._engine):  # an earlier version wrote nothing, nor does one on a full disk
                    raise EngineError(
                        f"{self._folder.parent} is used by the store {store} with the engine {engine!r}, this one has"
                        f" {self._engine!r}: give all stores of an application the same SOCKETCLUSTER_ENGINE, and"
                        " another application a SOCKETCLUSTER_APP_NAME of its own"
                    )

    def _look(self) -> None:
        if self._lock is None:
            return
        os.utime(self._lock)
        now = self._loop.time()
        if now - self._looked_at > max(
            2 * self.interval, 4 * HEARTBEAT
        ):  # this store itself was paused: it cannot judge the others
            self._beats.clear()
        self._looked_at = now
        self._mark(_LINKED, self.is_linked)
        self._mark(_ASIDE, self.is_aside)
        beats = {}
        linked, aside = set(), set()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(_LINKED):
                    linked.add(entry.name.removeprefix(_LINKED))
                elif entry.name.startswith(_ASIDE):
                    aside.add(entry.name.removeprefix(_ASIDE))
                if entry.name.startswith(".") or entry.name == self._store_id:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if not self._watch(entry.name):
                        continue
                    beat = entry.stat().st_mtime_ns
                    last, seen_at = self._beats.get(entry.name, (0, now))
                    beats[entry.name] = (beat, now if beat != last else seen_at)
        self._beats = beats
        self.linked = frozenset(linked - {self._store_id})
        self._judge(frozenset(aside))

    def _judge(self, aside: frozenset[str]) -> None:
        now = self._looked_at
        hung = frozenset(store for store, (_, seen_at) in self._beats.items() if now - seen_at > self._hang_timeout)
        live = frozenset(self._beats) - hung | {self._store_id}
        for store in hung - self.hung:
            log.error("a store hangs; its partitions are taken over", store=store, seconds=self._hang_timeout)
        aside &= live
        if (live, hung, aside) != (self.live, self.hung, self.aside):
            self.live, self.hung, self.aside = live, hung, aside
            self._on_change()

    def _mark(self, mark: str, is_so: bool) -> None:
        """Tell the other stores, by a file, that something of this one is so, or is so no longer."""
        if self._marks[mark] == is_so:
            return
        path = self._folder / f"{mark}{self._store_id}"
        if is_so:
            with contextlib.suppress(OSError):  # a full disk: the next look tries again
                os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
                self._marks[mark] = True
        else:
            path.unlink(missing_ok=True)
            self._marks[mark] = False

    def _remove(self, store: str) -> None:
        """Remove the files of a store that is no more, or leaves."""
        for mark in (_LINKED, _ASIDE, ""):
            (self._folder / f"{mark}{store}").unlink(missing_ok=True)

    def _watch(self, store: str) -> bool:
        """Have a thread wait for the death of another store; return whether it lives.

        Raises:
            FileNotFoundError: it does not.
        """
        if store in self._watched:
            return True
        path = self._folder / store
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self._watched.add(store)
            wait = threading.Thread(
                target=_wait, args=(descriptor, self._loop, self._died, store), name=f"death of {store}", daemon=True
            )
            wait.start()
            return True
        os.close(descriptor)
        self._remove(store)
        return False

    def _died(self, store: str) -> None:
        self._watched.discard(store)
        self._remove(store)
        if self._beats.pop(store, None) is not None and self._lock is not None:
            log.info("a store is gone", store=store)
            self._judge(self.aside)


def _wait(descriptor: int, loop: asyncio.AbstractEventLoop, died: Callable[[str], None], store: str) -> None:
    """Wait for a store's lock, which is granted to all who wait as soon as the store is no more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(died, store)
