"""What was sent to clients in one loop turn is written at the end of it, to all of them together.

A callback of the loop for each of them costs about as much as all else that a frame takes before it is written.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from socketcluster_worker.of_loop import OfLoop


class Corked(Protocol):
    """Something that holds what was sent."""

    def uncork(self) -> None:
        """Write it."""


class Corks:
    """Those of one event loop; see ``of_loop``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Corked] = []

    def add(self, corked: Corked) -> None:
        """Have it write at the end of this loop turn."""
        if not self._due:
            self._loop.call_soon(self._write)
        self._due.append(corked)

    def _write(self) -> None:
        due, self._due = self._due, []
        for corked in due:
            try:
                corked.uncork()
            except Exception as error:  # all the others are written to
                self._loop.call_exception_handler({"message": "writing to a client failed", "exception": error})


of_loop = OfLoop(Corks)
"""Returns those of the running loop."""
