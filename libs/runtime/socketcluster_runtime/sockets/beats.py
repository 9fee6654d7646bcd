"""A process's sign of life for others of its host: its event loop writes the time into a file, which they read.

That costs one system call a beat and wakes nobody, where a message wakes threads on both sides. It stands beside the
process's sockets, is of eight bytes, and is overwritten in place, so that it needs neither room on a disk nor a sync.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from socketcluster_runtime.secrets.private_files import FILE_MODE

_BEAT = struct.Struct("=Q")


class Beats:
    """Gives signs of life.

    Args:
        path: of the file, which is made anew: nobody else of that name can be alive.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        self.beat()

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            OSError: it cannot be written.
        """
        os.pwrite(self._descriptor, _BEAT.pack(time.monotonic_ns()), 0)

    def close(self) -> None:
        """Give none any more."""
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)


class BeatReader:
    """Reads another process's signs of life.

    Args:
        path: of its file.

    Raises:
        OSError: it is not there, or may not be read.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._last = self._read()
        self.count = 0
        """The looks that found a new sign."""

    def look(self) -> float | None:
        """Return how many seconds ago the last sign was given; ``None``: it is the one of the look before."""
        last = self._read()
        if last == self._last:
            return None
        self._last = last
        self.count += 1
        return max(0.0, (time.monotonic_ns() - last) / 1e9)  # another clock, of a time namespace: it may be ahead

    def close(self) -> None:
        """Read no more."""
        os.close(self._descriptor)

    def _read(self) -> int:
        data = os.pread(self._descriptor, _BEAT.size, 0)
        return int(_BEAT.unpack(data)[0]) if len(data) == _BEAT.size else 0
