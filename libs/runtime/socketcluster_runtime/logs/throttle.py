"""Log lines about what may happen a thousand times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL = 1.0
"""Seconds between two lines of one kind."""


class Throttle:
    """Reports a recurring event at once, then at most once a second with how often it happened since."""

    def __init__(self, report: Callable[[int], object]) -> None:
        self.last = ""
        """What was said of the event when it happened last."""
        self._report = report
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, detail: str = "") -> None:
        """Note that the event happened."""
        self.last = detail
        self._count += 1
        if self._timer is None:
            self._flush()

    def close(self) -> None:
        """Report what is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._count:
            self._report(self._count)
            self._count = 0

    def _flush(self) -> None:
        self._timer = None
        if self._count:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._flush)
            self._report(self._count)
            self._count = 0
