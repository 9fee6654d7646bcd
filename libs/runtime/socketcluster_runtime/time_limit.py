"""Ends a plain function that takes too long: a service does one thing at a time, and everybody waits for it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REPEAT = 0.05
"""Seconds until it is tried again, if the function caught what should have ended it."""


class TookTooLong(BaseException):  # no Exception: the function's own `except Exception` is not to catch it
    """The time is over."""


class TimeLimit:
    """Raises ``TookTooLong`` in the block of ``running`` when its time is over.

    It is an alarm signal that interrupts the block, wherever it is, so the block must hold no state that others need;
    ``shielded`` is for the parts that do. Works in the main thread alone, which is where a service's loop runs.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running = False
        self._shielded = False
        self._over = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Begin to count; the block is interrupted when the time is over."""
        former = signal.signal(signal.SIGALRM, self._alarm)
        self._running, self._shielded, self._over = True, False, False
        signal.setitimer(signal.ITIMER_REAL, self.seconds, REPEAT)
        try:
            yield
        finally:
            self._running = False  # an alarm that comes from here on does nothing
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Run the block to its end, and raise behind it if the time is over."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._over:
            raise TookTooLong

    def _alarm(self, _number: int, _frame: FrameType | None) -> None:
        if self._running:
            self._over = True
            if not self._shielded:
                raise TookTooLong
