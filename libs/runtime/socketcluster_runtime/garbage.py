"""Python's collector of cyclic garbage, in a process that keeps a great many objects for long: each connection's.

Nearly all of them are freed by their reference counts. What the collector is for are cycles, of the application's
closures say; what it costs is looking at everything that lives. By itself it looks at all of it whenever a quarter came
in addition: with 10,000 connections that stopped a worker for half a second, again and again while they came.
"""

from __future__ import annotations

import asyncio
import gc
import time

YOUNG = 5_000
"""Objects that are made, beyond those that are freed, before the young ones are looked at: less than a millisecond."""
ROUNDS = 4
"""Times after which what survived that is looked at once more, and then no more before all is."""
NEVER = 1 << 30
"""So many rounds of these there are not before all is looked at: Python does not decide that here."""
LEAST = 4
"""Rounds of these before it pays to look at all: a hundred thousand objects, or 2,500 connections."""
URGENT = 8
"""Times as much as what pays; then a busy process does not put it off."""
INTERVAL = 10.0
"""Seconds between two looks at whether it pays."""
QUIET = 0.3
"""The part of a core that a process uses at most which has the time for it."""


class Collector:
    """Looks at all objects when as many came as there were, and the process has the time.

    From the beginning on nothing is looked at that lives by then: modules, classes, what the service is made of.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = LEAST
        self._used = time.process_time()
        self._before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, ROUNDS, NEVER)
        self._timer = self._loop.call_later(INTERVAL, self.look)

    def close(self) -> None:
        """Leave it to Python again, as it comes."""
        self._timer.cancel()
        gc.set_threshold(*self._before)
        gc.unfreeze()

    def look(self) -> None:
        """Look at all objects, if that pays now."""
        used = time.process_time()
        rounds = gc.get_count()[2]
        is_quiet = used - self._used <= QUIET * INTERVAL
        if rounds >= self._due and (is_quiet or rounds >= URGENT * self._due):
            gc.collect()
            self._due = max(LEAST, len(gc.get_objects(generation=2)) // (YOUNG * ROUNDS))
            used = time.process_time()
        self._used = used
        self._timer.cancel()
        self._timer = self._loop.call_later(INTERVAL, self.look)
