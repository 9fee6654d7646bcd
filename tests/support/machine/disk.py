"""A disk that is small, so that it can be full."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """A file system in memory."""

    folder: Path

    def grow(self, size: str) -> None:
        """Give it more room."""
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    def make_read_only(self) -> None:
        """Have nothing be written to it any more."""
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Disk]:
    """Mount one at a folder that is made for it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # a killed process may hold it for a moment


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let this process write no more than so many bytes into a file, as on a disk that gets full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def lack() -> str | None:
    """Return what keeps this machine from mounting one."""
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        mounted = subprocess.run(probe, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    return None if mounted else "no right to mount a file system"
