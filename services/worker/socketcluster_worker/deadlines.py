"""Deadlines of many: one for each connection, which nearly always is moved or given up before it comes.

A timer of the loop's own takes 550 bytes. Here all deadlines of about the same time share one: each takes its place in
a set. None comes early, and none later than by a thirty-second part of its time.
"""

from __future__ import annotations

import asyncio
from math import ceil, frexp
from time import monotonic
from typing import Protocol

from socketcluster_worker import fairness
from socketcluster_worker.of_loop import OfLoop

SHORTEST = 0.001
"""Seconds; a shorter time is as this."""
STEPS = 6  # a time of 2**n seconds is measured in steps of 2**(n - 6)


class Timed(Protocol):
    """Something that has one deadline at most."""

    deadline: set[Timed] | None
    """Those with whom it has its deadline; kept here, and ``None`` at first."""

    def time_over(self) -> None:
        """Learn that the deadline has come."""


class Deadlines:
    """Those of one event loop; see ``of_loop``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sets: dict[float, set[Timed]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._sets.values()))

    def set(self, item: Timed, seconds: float) -> None:
        """Give ``item`` so much time from now on, instead of what it had."""
        seconds = max(seconds, SHORTEST)
        step = 2.0 ** (frexp(seconds)[1] - STEPS)
        time = ceil((self._loop.time() + seconds) / step) * step
        those = self._sets.get(time)
        if those is None:
            those = self._sets[time] = set()
            self._loop.call_at(time, self._come, time)
        if item.deadline is not None:
            item.deadline.discard(item)
        item.deadline = those
        those.add(item)

    @staticmethod
    def discard(item: Timed) -> None:
        """Give ``item`` no deadline any more, if it had one."""
        if item.deadline is not None:
            item.deadline.discard(item)
            item.deadline = None

    def _come(self, time: float) -> None:
        those = self._sets.get(time, set())
        end = monotonic() + fairness.SLICE
        try:
            while those:
                item = those.pop()
                item.deadline = None
                item.time_over()
                if monotonic() >= end:
                    break
        finally:  # one that raises is the loop's to report, and does not stop the others
            if those:
                fairness.later(lambda: self._come(time))
            else:
                self._sets.pop(time, None)


of_loop = OfLoop(Deadlines)
"""Returns those of the running loop."""
