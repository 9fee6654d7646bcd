"""Whether a process has a descriptor for one more client.

It keeps some for itself: for its links, files and look-ups, and for telling clients that it is full. Nothing is
counted for that: the kernel gives a new descriptor the lowest free number, and one close to the limit says that all
below are taken.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable

from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)

RESERVE = 32
"""Descriptors that no client gets; an eighth of a limit that is small."""

LOOK_INTERVAL = 0.25
"""Seconds after which a full process looks whether it has room again."""


def limit() -> int:
    """Return how many descriptors this process may have now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


class Room:
    """The descriptors that are left for clients.

    Args:
        limit: returns how many descriptors the process may have.
    """

    def __init__(self, limit: Callable[[], int] = limit) -> None:
        self.full = False
        """Was a client refused of late, and is there no descriptor for another one since?"""
        self.refused = 0
        """Clients that were refused."""
        self.changed: Callable[[], object] = _nobody
        """Called when ``full`` has changed."""
        self._limit = limit
        self._below = 0  # what is below that fits, as far as is known; the kernel is asked when it does not
        self._timer: asyncio.TimerHandle | None = None
        self._out = Condition(
            log,
            "out of descriptors: new clients are refused",
            over="there are descriptors for clients again",
            level="error",
        )
        self._no_memory = Condition(
            log,
            "out of memory for connections: accepting pauses",
            over="there is memory for connections again",
            level="error",
        )

    def admits(self, descriptor: int) -> bool:
        """May a client keep this descriptor, which is new? If not, it is refused."""
        if descriptor < self._below:
            return True
        self._below = self._most()
        if descriptor < self._below:
            return True
        self._below = 0
        self.refuse()
        return False

    def refuse(self) -> None:
        """Note that a client is refused because there is no descriptor for it."""
        self.refused += 1
        self.ran_out()

    def ran_out(self) -> None:
        """Note that there is no descriptor, whatever for."""
        self._out.add(limit=self._limit(), what_to_do="raise the hard limit of descriptors, or start more processes")
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL, self._look)
        if not self.full:
            self.full = True
            self.changed()

    def no_memory(self) -> None:
        """Note that the kernel has no memory for a connection."""
        self._no_memory.add()

    def close(self) -> None:
        """Say nothing more."""
        self._out.close()
        self._no_memory.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _most(self) -> int:
        most = self._limit()
        return most - min(RESERVE, most // 8)

    def _look(self) -> None:
        self._timer = None
        try:
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            descriptor = self._most()
        else:
            os.close(descriptor)
        if descriptor >= self._most():
            self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL, self._look)
            return
        self.full = False
        self.changed()


def _nobody() -> None:
    """Be told by default."""
