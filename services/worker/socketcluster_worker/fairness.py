"""Whose turn it is: what one client sent in plenty is taken in slices, between which everybody else is served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from socketcluster_worker.of_loop import OfLoop

SLICE = 0.0005
"""Seconds for which one connection is served at a time while others may be waiting."""


class _Turns:
    """Those who go on later, in the order in which they asked; all of them together get a slice of each loop turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def add(self, go_on: Callable[[], None]) -> None:
        self._waiting.append(go_on)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        end = monotonic() + SLICE
        try:
            for _ in range(len(self._waiting)):  # and not who asks again meanwhile
                self._waiting.popleft()()
                if monotonic() >= end:
                    break
        finally:  # one that raises is the loop's to report, and does not stop the others
            self._schedule()


_turns = OfLoop(_Turns)


def later(go_on: Callable[[], None]) -> None:
    """Call ``go_on`` once the other connections had their turn; it is to return after about a ``SLICE``."""
    _turns().add(go_on)


async def next_turn() -> None:
    """Let the other connections have their turn."""
    came = asyncio.get_running_loop().create_future()
    later(lambda: None if came.done() else came.set_result(None))
    await came
