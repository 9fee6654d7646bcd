"""The time as a store's process keeps it, and the time of a partition, which goes on over its owners."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from struct import Struct

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""What names the boot: the kernel makes it up at each."""
TIME_NAMESPACE = Path("/proc/self/ns/time")

_RECORD = Struct(">dd")  # the partition's time, and what ``elapsed`` said then; what names the machine's boot follows

elapsed: Callable[[], float]
"""Seconds since some moment of this boot, by a clock that nobody sets; it goes on while the machine is suspended."""
if sys.platform == "linux":
    elapsed = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
else:
    elapsed = time.monotonic

_WALL_CLOCK_AHEAD = time.time() - elapsed()


def clock() -> float:
    """Return seconds since the Unix epoch, by a clock that nobody sets while the process runs."""
    return elapsed() + _WALL_CLOCK_AHEAD


def boot() -> bytes:
    """Return what names the boot, and the way of counting, that ``elapsed`` belongs to; empty if that is not known."""
    booted = boot_id(BOOT_ID)
    try:
        return booted and booted + b" " + str(TIME_NAMESPACE.readlink()).encode()
    except OSError:  # an older Linux has none
        return booted


def boot_id(path: Path) -> bytes:
    """Return what names the time since the machine was started, which a file says; empty where the system has none."""
    try:
        return path.read_bytes().strip()
    except OSError:
        return b""


class PartitionClock:
    """Tells the time of one partition, in seconds: near the Unix epoch's, and never back over what it said.

    Owners' clocks differ, by steps, suspends, or because they are of different machines; what is kept with a time would
    end early on the next owner, or late. So the time itself is kept: see ``take_over``.
    """

    __slots__ = ("_ahead", "_base")

    def __init__(self, base: Callable[[], float]) -> None:
        """Begin at the time of ``base``, by which it goes on."""
        self._base, self._ahead = (elapsed, _WALL_CLOCK_AHEAD) if base is clock else (base, 0.0)  # spare writes a call

    def __call__(self) -> float:
        """Return the partition's time."""
        return self._base() + self._ahead

    def take_over(self, record: bytes | None, newest: Callable[[], float]) -> None:
        """Go on from where a former owner was.

        Within one boot of the machine, that is where its clock would be now. Otherwise nobody knows how long it is ago:
        the time goes on from what is known to have been reached, so that no deadline comes early.

        Args:
            record: what ``record`` returned last; ``None``: there is none.
            newest: returns the latest time that was written since.
        """
        if record is None:
            reached = max(self(), newest())
        else:
            at, then = _RECORD.unpack_from(record)
            same_boot = boot() == record[_RECORD.size :] != b""
            reached = at + max(0.0, elapsed() - then) if same_boot else max(at, newest())
        self._ahead = reached - self._base()

    def record(self) -> bytes:
        """Return what the next owner is to know."""
        return _RECORD.pack(self(), elapsed()) + boot()
