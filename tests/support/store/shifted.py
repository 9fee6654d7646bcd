"""A store whose machine has another time: ``python -m support.store.shifted CLOCK BOOT_ID``, and a store's environment.

``CLOCK`` is a file that ``Shift`` makes, by which a test moves the clocks while the store runs. ``BOOT_ID`` is a file
that names the start of the store's machine; the test may give each store one of its own.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

_OFFSETS = struct.Struct("dd")


class Shift:
    """How far the clocks of a process are ahead of this machine's, in seconds."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(_OFFSETS.pack(0, 0))
        with path.open("r+b") as file:
            self._offsets = mmap.mmap(file.fileno(), 0)

    def set(self, wall: float, since_boot: float = 0) -> None:
        """Move the time of day, and the time since the machine was started."""
        self._offsets[:] = _OFFSETS.pack(wall, since_boot)

    def close(self) -> None:
        """Let go of the file."""
        self._offsets.close()


def install(path: Path) -> None:
    """Have this process read its clocks with the offsets of a file; before anything imports names from ``time``."""
    with path.open("rb") as file:
        offsets = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    read, read_clock = time.time, time.clock_gettime
    places = {time.CLOCK_REALTIME: 0, time.CLOCK_BOOTTIME: 1}

    def shifted_time() -> float:
        return read() + float(_OFFSETS.unpack_from(offsets)[0])

    def shifted_clock(clock: int) -> float:
        place = places.get(clock)
        return read_clock(clock) + (0.0 if place is None else float(_OFFSETS.unpack_from(offsets)[place]))

    time.time = shifted_time
    time.time_ns = lambda: int(shifted_time() * 1_000_000_000)
    time.clock_gettime = shifted_clock
    time.clock_gettime_ns = lambda clock: int(shifted_clock(clock) * 1_000_000_000)


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    from socketcluster_runtime.lifecycle import run
    from socketcluster_store import clock
    from socketcluster_store.partition import channels
    from socketcluster_store.service import serve
    from socketcluster_store.settings import StoreSettings

    channels.BOOT_ID = clock.BOOT_ID = Path(sys.argv[2])
    run(StoreSettings, serve)
