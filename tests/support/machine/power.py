"""A machine whose power is cut: what is on its disk then is any mixture of what was synced and what was written since.

The files are real ones, in the page cache of this machine. ``Power`` notes what each sync has put on the disk that it
plays, and at a cut makes a folder of the pages, sizes and names that the disk may have then, chosen at random.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from socketcluster_store.engines.lmdb import environments
from socketcluster_store.engines.lmdb.journal import Writes

PAGE = 4096
_META_PAGES = 2
"""LMDB's: the commit is what one of them says, and it is written when the others are on the disk."""


class Power:
    """The disk below ``root``, of which everything is written that is there now.

    Args:
        root: where the files are.
        chance: chooses.
        failing: how many of the syncs fail. The kernel takes the pages that it could not write for written then, and
            the file system has them nowhere, even if they are written again.
    """

    def __init__(self, root: Path, chance: random.Random, failing: float = 0.0) -> None:
        self.root = root
        self.off: Path | None = None
        """What the disk had when the power was cut."""
        self._chance = chance
        self._failing = failing
        self._failed: set[int] = set()  # the descriptors that are to be told of it
        self._lost: dict[int, set[int]] = {}  # the pages that it takes for written, and that never will be
        self._cut_in = chance.randrange(2, 80)
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: dict[int, int] = {}  # descriptors, so that no other file gets an inode that is known
        for path in (root, *root.rglob("*")):
            self._hold(path)
            if path.is_dir():
                self._names[path.stat().st_ino] = _names(path)
            else:
                self._contents[path.stat().st_ino] = path.read_bytes()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """See what is synced; threads do their work at once, so that the same seed does the same."""
        commit = environments.commit

        def committed(environment: lmdb.Environment, data: int, transaction: lmdb.Transaction, writes: Writes) -> None:
            path = Path(environment.path()) / "data.mdb"
            self._step()
            if self._chance.random() < self._failing:
                transaction.abort()
                self._failed.add(data)
                raise lmdb.Error("Input/output error")
            commit(environment, data, transaction, writes)
            inode = path.stat().st_ino
            if self.off is None and self._chance.random() < 0.2:  # some pages are written, and no commit yet
                old = self._contents[inode]
                meta = old[: _META_PAGES * PAGE]
                self._contents[inode] = meta + self._mixed(old, path.read_bytes())[len(meta) :]
                self._cut({inode: self._contents[inode]})
            self._contents[inode] = path.read_bytes()
            self._step()

        async def inline(call: Callable[..., Any], *arguments: Any) -> Any:
            for _ in range(self._chance.randrange(4)):
                await asyncio.sleep(0)
            return call(*arguments)

        patch.setattr(os, "fsync", self._sync)
        patch.setattr(os, "fdatasync", self._sync)
        patch.setattr(environments, "commit", committed)
        patch.setattr(asyncio, "to_thread", inline)

    def write_back(self) -> None:
        """Do what the kernel does at any time: put a page of some file on the disk."""
        files = [path for path in self.root.rglob("*") if path.is_file() and path.name.startswith("journal.")]
        if files:
            path = self._chance.choice(files)
            live = path.read_bytes()
            old = self._contents.get(path.stat().st_ino, b"")
            if live and len(old) == len(live):
                start = self._chance.randrange(0, len(live), PAGE)
                self._contents[path.stat().st_ino] = old[:start] + live[start : start + PAGE] + old[start + PAGE :]

    def cut(self) -> Path:
        """Cut the power, if that did not happen yet; return what the disk has."""
        self._cut({})
        assert self.off is not None
        return self.off

    def kill(self) -> Power:
        """Return the machine with all that it has in its memory, and another process."""
        root = self.root.with_name(f"{self.root.name}k")
        shutil.copytree(self.root, root)
        power = Power(root, self._chance, self._failing)
        for path in (self.root, *self.root.rglob("*")):
            if path.is_file():
                copied = root / path.relative_to(self.root)
                power._contents[copied.stat().st_ino] = self._contents.get(path.stat().st_ino, b"")
                power._lost[copied.stat().st_ino] = self._lost.get(path.stat().st_ino, set())
            else:
                known = self._names.get(path.stat().st_ino, {})
                copied = root / path.relative_to(self.root)
                power._names[copied.stat().st_ino] = {
                    name: inode for name, inode in _names(copied).items() if known.get(name) == _names(path).get(name)
                }
        return power

    def close(self) -> None:
        """Let go of all files."""
        for descriptor in self._held.values():
            os.close(descriptor)

    def _hold(self, path: Path) -> None:
        inode = path.stat().st_ino
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_RDONLY)

    def _sync(self, descriptor: int) -> None:
        self._step()
        self._hold(Path(f"/proc/self/fd/{descriptor}"))
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(descriptor) as entries:
                self._names[status.st_ino] = {entry.name: entry.inode() for entry in entries}
        else:
            with Path(f"/proc/self/fd/{descriptor}").open("rb") as file:
                live = file.read()
            old, lost = self._contents.get(status.st_ino, b""), self._lost.setdefault(status.st_ino, set())
            starts = range(0, len(live), PAGE)
            if descriptor in self._failed or self._chance.random() < self._failing:
                self._failed.discard(descriptor)
                lost |= {start for start in starts if live[start : start + PAGE] != old[start : start + PAGE]}
                raise OSError(5, "Input/output error")
            pages = ((old if start in lost else live)[start : start + PAGE].ljust(PAGE, b"\0") for start in starts)
            self._contents[status.st_ino] = b"".join(pages)[: len(live)]
        self._step()

    def _step(self) -> None:
        self._cut_in -= 1
        if not self._cut_in:
            self._cut({})

    def _cut(self, contents: dict[int, bytes]) -> None:
        if self.off is None:
            self.off = self.root.with_name(f"{self.root.name}c")
            self._copy(self.root, self.off, contents)

    def _copy(self, live: Path, to: Path, contents: dict[int, bytes]) -> None:
        inode = live.stat().st_ino
        if live.is_file():
            to.write_bytes(contents.get(inode) or self._mixed(self._contents.get(inode, b""), live.read_bytes()))
            return
        to.mkdir()
        known = self._names.get(inode, {})
        for name, entry in _names(live).items():
            if known.get(name) == entry or self._chance.random() < 0.5:
                self._copy(live / name, to / name, contents)

    def _mixed(self, old: bytes, new: bytes) -> bytes:
        """Return pages of both, and any size between."""
        size = len(old)
        if len(new) != size:
            size = self._chance.choice((size, len(new), self._chance.randint(*sorted((size, len(new)))) // PAGE * PAGE))
        share = self._chance.choice((0, 0.1, 0.5, 0.9, 1))
        mixed = bytearray(size)
        for start in range(0, size, PAGE):
            page = (new if self._chance.random() < share else old)[start : min(start + PAGE, size)]
            mixed[start : start + len(page)] = page
        return bytes(mixed)


def _names(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries}
