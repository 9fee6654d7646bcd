"""The time of day, as the store keeps it."""

from __future__ import annotations

import time

_WALL_CLOCK_AHEAD = time.time() - time.monotonic()


def clock() -> float:
    """Return seconds since the Unix epoch, by a clock that nobody sets while the process runs."""
    return time.monotonic() + _WALL_CLOCK_AHEAD
